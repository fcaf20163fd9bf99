//! How a session tells the client its end: up to version 3 as a text if something went wrong, then as a
//! `metav1.Status`.

use serde::Serialize;

use crate::upgrade::Version;

/// The end of a command or an attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The process ended with this exit code.
    Exited(i32),
    /// The container of an attachment has ended.
    Detached,
    /// It was not started, or was cut off.
    Failed(String),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    metadata: Metadata,
    status: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

#[derive(Serialize)]
struct Metadata {}

#[derive(Serialize)]
struct Details<'a> {
    causes: [Cause<'a>; 1],
}

#[derive(Serialize)]
struct Cause<'a> {
    reason: &'a str,
    message: &'a str,
}

impl Outcome {
    /// What goes to the error stream; nothing when older clients are to know of no error.
    pub(crate) fn document(&self, version: Version) -> Vec<u8> {
        let message = self.message();
        if version < Version::V4 {
            return message.into_bytes();
        }
        let (mut code, mut status) = (String::new(), Status::success());
        match self {
            Self::Exited(0) | Self::Detached => {}
            Self::Exited(number) => {
                // Clients read it as a byte.
                code = u8::try_from(*number).unwrap_or(u8::MAX).to_string();
                status = Status { status: "Failure", reason: "NonZeroExitCode", message: &message, ..status };
            }
            Self::Failed(_) => {
                let (reason, code) = ("InternalError", Some(500));
                status = Status { status: "Failure", reason, message: &message, code, ..status };
            }
        }
        if !code.is_empty() {
            status.details = Some(Details { causes: [Cause { reason: "ExitCode", message: &code }] });
        }
        // Strings and numbers always become JSON.
        serde_json::to_vec(&status).unwrap_or_default()
    }

    fn message(&self) -> String {
        match self {
            Self::Exited(0) | Self::Detached => String::new(),
            Self::Exited(code) => format!("command terminated with non-zero exit code: {code}"),
            Self::Failed(message) => format!("Internal error occurred: {message}"),
        }
    }
}

impl Status<'_> {
    fn success() -> Self {
        Status { metadata: Metadata {}, status: "Success", message: "", reason: "", details: None, code: None }
    }
}

#[cfg(test)]
mod tests;
