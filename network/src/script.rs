//! Scripts that tests write and have executed.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

/// Writes an executable file, by another process: a test beside this one may fork while it is open for writing, and as
/// long as that child has not executed its program the kernel executes no file that it holds open so (ETXTBSY).
pub(crate) fn write(path: &Path, text: &str) {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "cat >\"$0\" && chmod 755 \"$0\""]).arg(path).stdin(Stdio::piped());
    let mut shell = command.spawn().expect("a shell");
    shell.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("the shell reads");
    assert!(shell.wait().expect("the shell ends").success(), "write {}", path.display());
}
