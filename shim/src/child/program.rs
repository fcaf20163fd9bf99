//! Finding and executing the program, inside the container and with the container's rights.

use std::{convert::Infallible, ffi::CString, io};

use rustix::io::Errno;
use tripod_shim_protocol::{Failure, FailureKind, ProcessPlan};
use tripod_sys::exec::{self, Strings};

use crate::fault::{Blame, failure};

/// Where programs are looked for when the environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program with all that execve needs, and the places where it may be.
#[derive(Debug)]
pub(super) struct Program {
    name: String,
    argv: Strings,
    env: Strings,
    candidates: Vec<CString>,
    searched: bool,
}

// === impl Program ===

impl Program {
    pub(super) fn new(process: &ProcessPlan) -> Result<Program, Failure> {
        let Some(name) = process.argv.first().filter(|name| !name.is_empty()) else {
            return Err(failure(
                FailureKind::Program,
                "exec",
                "no command: neither the container nor its image has one",
            ));
        };
        let step = || format!("exec {name:?}");
        let searched = !name.contains('/');
        let candidates = if searched { search(name, &process.env) } else { vec![name.clone()] };
        Ok(Program {
            argv: Strings::new(process.argv.iter().map(String::as_str)).plan(step)?,
            env: Strings::new(process.env.iter().map(String::as_str)).plan(step)?,
            candidates: candidates.into_iter().map(CString::new).collect::<Result<_, _>>().plan(step)?,
            searched,
            name: name.clone(),
        })
    }

    /// Executes the first candidate that can be. The words are those that users of other runtimes know.
    pub(super) fn execute(&self) -> Result<Infallible, Failure> {
        let mut refused = None;
        for candidate in &self.candidates {
            let Err(error) = exec::execve(candidate, &self.argv, &self.env);
            match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::NOENT | Errno::NOTDIR) if self.searched => {}
                Some(Errno::ACCESS) if self.searched => refused = Some(error),
                _ => return Err(self.failure(&error)),
            }
        }
        match refused {
            Some(error) => Err(self.failure(&error)),
            None => Err(failure(FailureKind::Program, self.step(), "executable file not found in $PATH")),
        }
    }

    fn failure(&self, error: &io::Error) -> Failure {
        let (kind, text) = match error.raw_os_error().map(Errno::from_raw_os_error) {
            // The file may be there, and the interpreter or loader that it names may not.
            Some(Errno::NOENT) => (FailureKind::Program, "no such file or directory".to_owned()),
            Some(Errno::ACCESS | Errno::ISDIR) => (FailureKind::Program, "permission denied".to_owned()),
            Some(Errno::NOEXEC) => (FailureKind::Program, "exec format error".to_owned()),
            Some(Errno::NOTDIR) => (FailureKind::Program, "not a directory".to_owned()),
            Some(Errno::LOOP) => (FailureKind::Program, "too many levels of symbolic links".to_owned()),
            Some(Errno::TOOBIG) => (FailureKind::Program, "argument list too long".to_owned()),
            _ => (FailureKind::Internal, error.to_string()),
        };
        failure(kind, self.step(), text)
    }

    fn step(&self) -> String {
        format!("exec: {:?}", self.name)
    }
}

fn search(name: &str, env: &[String]) -> Vec<String> {
    let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    // An empty entry is the working directory.
    path.split(':').map(|dir| if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_follows_the_environment() {
        let env = ["A=1".to_owned(), "PATH=/a::/b".to_owned()];
        assert_eq!(search("x", &env), ["/a/x", "x", "/b/x"]);
        assert_eq!(search("x", &[])[5], "/bin/x");
    }

    #[test]
    fn no_command_is_the_users_error() {
        let failure = Program::new(&ProcessPlan::default()).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Program);
    }
}
