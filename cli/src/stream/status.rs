//! The last word of a session: a `Status` of Kubernetes as JSON.

use serde_json::Value;

/// How a command has ended, as the other side says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// With this exit code.
    Exited(i32),
    /// It did not run, or nobody knows its end: what the other side says about that.
    Failed(String),
}

/// How runtimes say that a program is not there; the protocol has no code for it.
const NO_PROGRAM: [&str; 2] = ["executable file not found", "no such file or directory"];

impl Verdict {
    /// Whether it failed because there is no such program.
    pub(crate) fn is_no_program(&self) -> bool {
        matches!(self, Self::Failed(why) if NO_PROGRAM.iter().any(|words| why.contains(words)))
    }

    /// Reads it. What cannot be understood is a failure with the text itself.
    pub(crate) fn read(text: &[u8]) -> Self {
        let raw = || Self::Failed(String::from_utf8_lossy(text).trim().to_owned());
        let Ok(status) = serde_json::from_slice::<Value>(text) else { return raw() };
        match status["status"].as_str() {
            Some("Success") => Self::Exited(0),
            Some("Failure") => exit_code(&status)
                .or_else(|| status["message"].as_str().map(|message| Self::Failed(message.to_owned())))
                .unwrap_or_else(raw),
            _ => raw(),
        }
    }
}

/// The exit code is one of the causes of a failure, and a text.
fn exit_code(status: &Value) -> Option<Verdict> {
    if status["reason"] != "NonZeroExitCode" {
        return None;
    }
    let causes = status["details"]["causes"].as_array()?;
    let cause = causes.iter().find(|cause| cause["reason"] == "ExitCode")?;
    cause["message"].as_str()?.parse().ok().map(Verdict::Exited)
}

#[cfg(test)]
mod tests {
    use super::Verdict;

    #[test]
    fn exit_codes_and_failures() {
        let read = |text: &str| Verdict::read(text.as_bytes());
        assert_eq!(read(r#"{"metadata":{},"status":"Success"}"#), Verdict::Exited(0));
        let code = r#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code",
            "reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"42"}]}}"#;
        assert_eq!(read(code), Verdict::Exited(42));
        let failed = r#"{"status":"Failure","message":"no such program","reason":"InternalError"}"#;
        assert_eq!(read(failed), Verdict::Failed("no such program".into()));
        let odd = r#"{"status":"Failure","message":"odd","reason":"NonZeroExitCode","details":{"causes":[]}}"#;
        assert_eq!(read(odd), Verdict::Failed("odd".into()));
        assert_eq!(read("not JSON\n"), Verdict::Failed("not JSON".into()));
        assert_eq!(read("{}"), Verdict::Failed("{}".into()));
    }
}
