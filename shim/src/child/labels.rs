//! What security modules are told about the program that comes: an AppArmor profile, a SELinux label.
//!
//! Told while the host's procfs is in sight. A container's own `/proc` may be anything, and a file there that only looks
//! like the kernel's would leave the program unconfined (CVE-2019-16884). It is also before no_new_privs, which would
//! forbid a change that is not a narrowing. The kernel keeps it until a program has been executed.

use std::{fs::File, io, io::Write, path::Path};

use tripod_shim_protocol::{Failure, ProcessPlan};

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

/// Writes to the first file that there is.
fn tell(files: &[&str], text: &str) -> io::Result<()> {
    let open = |path: &&str| File::options().write(true).open(Path::new(path));
    let mut file = match files.iter().map(open).find(|file| !file.as_ref().is_err_and(missing)) {
        Some(file) => file?,
        None => return Err(io::Error::other("this kernel has no such security module, or it is switched off")),
    };
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

    #[test]
    fn the_first_file_that_is_there_is_written() {
        let temp = std::env::temp_dir().join(format!("tripod-labels-{}", std::process::id()));
        std::fs::create_dir(&temp).unwrap();
        let path = |name: &str| temp.join(name).to_str().unwrap().to_owned();
        let (absent, present, other) = (path("absent"), path("present"), path("other"));
        std::fs::write(&present, "").unwrap();
        std::fs::write(&other, "").unwrap();
        let told = tell(&[&absent, &present, &other], "exec mine");
        let found = (std::fs::read_to_string(&present).unwrap(), std::fs::read_to_string(&other).unwrap());
        let none = tell(&[&absent], "exec mine");
        std::fs::remove_dir_all(&temp).unwrap();
        told.unwrap();
        assert_eq!(found, ("exec mine".to_owned(), String::new()));
        assert!(none.unwrap_err().to_string().contains("no such security module"));
    }

    #[test]
    fn a_plan_without_names_tells_nothing() {
        announce(&ProcessPlan::default()).unwrap();
    }
}
