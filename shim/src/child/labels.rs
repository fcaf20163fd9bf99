//! What security modules are told about the program that comes: an AppArmor profile, a SELinux label.
//!
//! Told while the host's procfs is in sight. A container's own `/proc` may be anything, and a file there that only looks
//! like the kernel's would leave the program unconfined (CVE-2019-16884). It is also before no_new_privs, which would
//! forbid a change that is not a narrowing. The kernel keeps it until a program has been executed.

use std::{fs::File, io, io::Write, path::Path};

use tripod_shim_protocol::{Failure, ProcessPlan};

use super::place;
use crate::fault::Blame;

/// AppArmor's own file, and the one that it shares with other modules on kernels before 5.8.
const APPARMOR: [&str; 2] = ["/proc/self/attr/apparmor/exec", "/proc/self/attr/exec"];

/// The label of the next program.
const SELINUX: [&str; 1] = ["/proc/self/attr/exec"];

/// The label of keyrings made from now on, until a program is executed.
const KEYS: [&str; 1] = ["/proc/self/attr/keycreate"];

/// Names the calling process' next program to the kernel's security modules, and labels keyrings made from now on.
pub(super) fn announce(process: &ProcessPlan) -> Result<(), Failure> {
    if let Some(profile) = &process.apparmor {
        tell(&APPARMOR, &format!("exec {profile}")).plan(|| format!("confine by AppArmor profile {profile:?}"))?;
    }
    if let Some(label) = &process.selinux {
        tell(&SELINUX, label).plan(|| format!("set SELinux label {label}"))?;
        tell(&KEYS, label).plan(|| format!("set SELinux label {label} of keyrings"))?;
    }
    Ok(())
}

/// Writes to the first file that there is, which has to lie in a procfs (CVE-2025-52881).
fn tell(files: &[&str], text: &str) -> io::Result<()> {
    let mut opened = files.iter().map(|path| (path, File::options().write(true).open(Path::new(path))));
    let (path, mut file) = match opened.find(|(_, file)| !file.as_ref().is_err_and(missing)) {
        Some((path, file)) => (path, file?),
        None => return Err(io::Error::other("this kernel has no such security module, or it is switched off")),
    };
    if !place::is_procfs(&file)? {
        return Err(io::Error::other(format!("{path} lies in no procfs")));
    }
    // The whole in one call: the kernel takes each for a request of its own.
    let written = file.write(text.as_bytes()).map_err(|error| match missing(&error) {
        true => io::Error::other("it is not loaded on this node any more"),
        false => error,
    })?;
    if written == text.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

fn missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of procfs that a test may write to: the name of its thread.
    const NAME: &str = "/proc/thread-self/comm";

    #[test]
    fn the_first_file_that_is_there_is_written() {
        tell(&["/proc/thread-self/absent", NAME, "/proc/thread-self/attr/exec"], "exec mine").unwrap();
        assert_eq!(std::fs::read_to_string(NAME).unwrap(), "exec mine\n");
        let none = tell(&["/proc/thread-self/absent"], "exec mine");
        assert!(none.unwrap_err().to_string().contains("no such security module"));
    }

    #[test]
    fn a_file_that_only_looks_like_the_kernels_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("exec");
        std::fs::write(&path, "").unwrap();
        let refused = tell(&["/proc/thread-self/absent", path.to_str().unwrap(), NAME], "exec mine").unwrap_err();
        assert!(refused.to_string().ends_with("exec lies in no procfs"), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn a_plan_without_names_tells_nothing() {
        announce(&ProcessPlan::default()).unwrap();
    }
}
