//! What OCI runtimes say when they fail: where it stands, and what of it is told.

use std::{fs, io, path::Path};

use serde::Deserialize;
use tripod_shim_protocol::FailureKind;

/// Bytes that are read of it.
pub(super) const MAX: usize = 64 << 10;

/// A line of a runtime's log.
#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    level: String,
    #[serde(default)]
    msg: String,
}

/// The last error in a log.
pub(super) fn last_error(log: &Path) -> Option<String> {
    last(&read_some(log))
}

/// The end of a file, as far as it is read.
fn read_some(path: &Path) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let read = || -> io::Result<Vec<u8>> {
        let mut file = fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(MAX as u64)))?;
        let mut bytes = Vec::new();
        file.take(MAX as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

/// The last error of a log in JSON, a line each; of one in another form its last line.
fn last(log: &str) -> Option<String> {
    let lines = || log.lines().rev().filter(|line| !line.trim().is_empty());
    let said = lines().filter_map(|line| serde_json::from_str::<Said>(line).ok());
    let mut errors = said.filter(|said| matches!(said.level.as_str(), "error" | "fatal" | "panic"));
    errors.next().map(|said| said.msg).or_else(|| lines().next().map(|line| line.trim().to_owned()))
}

/// Whether a runtime complains about the program that the user has named, for which runtimes have no codes, only words
/// of their own; and the complaint with the program in it, which not all of them name.
pub(super) fn judged(said: String, program: &str) -> (FailureKind, String) {
    if !said.contains("exec: ") && !said.contains("executable") {
        return (FailureKind::Internal, said);
    }
    let text = if said.contains(program) { said } else { format!("{program}: {said}") };
    (FailureKind::Program, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_a_log_is_told() {
        let log = "{\"level\":\"warning\",\"msg\":\"w\"}\n{\"level\":\"error\",\"msg\":\"first\",\"time\":\"t\"}\n\
                   {\"level\":\"error\",\"msg\":\"runc create failed: \\\"x\\\"\"}\n{\"level\":\"debug\",\"msg\":\"d\"}\n\n";
        assert_eq!(last(log).unwrap(), "runc create failed: \"x\"");
        assert_eq!(last("something\nelse \n").unwrap(), "else");
        assert_eq!(last("\n"), None);
    }

    #[test]
    fn a_program_that_was_named_wrongly_is_told_by_its_name() {
        let said = |text: &str| judged(text.to_owned(), "/bin/x");
        let (runc, crun) = ("exec: \"/bin/x\": no such file", "executable file `/bin/x` not found in $PATH");
        assert_eq!(said(runc), (FailureKind::Program, runc.to_owned()));
        assert_eq!(said(crun), (FailureKind::Program, crun.to_owned()));
        let unnamed = said("open executable: Permission denied");
        assert_eq!(unnamed, (FailureKind::Program, "/bin/x: open executable: Permission denied".to_owned()));
        assert_eq!(said("mount `/y`: No such file"), (FailureKind::Internal, "mount `/y`: No such file".to_owned()));
    }
}
