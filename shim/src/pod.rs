//! The pod: namespaces that the shim enters and holds, shared memory, the reaper.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space},
};
use tripod_shim_protocol::{Failure, FailureKind, PodPlan};
use tripod_sys::{
    fork, inroot,
    mount::{self, Attributes, Value},
    namespace, root,
};

use crate::{
    fault::{Blame, failure},
    reaper,
    user::UserNamespace,
};

/// Where exit records are, below the pod's folder.
pub(crate) const EXITS: &str = "exits";

/// A pod that has been set up.
#[derive(Debug)]
pub(crate) struct Pod {
    /// The pod's folder.
    pub(crate) dir: PathBuf,
    /// Its shared memory.
    pub(crate) shm: Shm,
    /// Its user namespace, if it has one of its own.
    pub(crate) user: Option<UserNamespace>,
    /// A mount namespace without mounts (with a procfs, for a user namespace of the pod's own), of which each container's
    /// begins as a copy.
    pub(crate) empty: OwnedFd,
    /// PID 1 of the shared PID namespace, if the pod has one.
    pub(crate) reaper: Option<fork::Child>,
}

/// A pod's `/dev/shm`.
#[derive(Debug)]
pub(crate) enum Shm {
    /// The host's.
    Host,
    /// A mount that is attached nowhere (Linux 6.15 can copy such a mount).
    Detached(OwnedFd),
    /// A mount that is the root of a mount namespace with nothing else in it, for older kernels.
    Held {
        /// The namespace.
        namespace: OwnedFd,
        /// The mount.
        mount: OwnedFd,
    },
}

// === impl Pod ===

impl Pod {
    /// Enters the pod's namespaces and makes what belongs to the pod. `empty` is an empty mount namespace; without one
    /// the shim makes its own.
    pub(crate) fn set_up(
        plan: &PodPlan,
        empty: Option<OwnedFd>,
        mut user: Option<UserNamespace>,
    ) -> Result<Pod, Failure> {
        if let Some(path) = &plan.netns {
            let step = || format!("enter network namespace {}", path.display());
            let file = File::open(path).plan(step)?;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).plan(step)?;
        }
        if plan.private_ipc {
            let made = user.as_mut().and_then(|user| user.ipc.take());
            own(made, LinkNameSpaceType::InterProcessCommunication).internal(|| "make an IPC namespace".into())?;
        }
        if let Some(name) = &plan.hostname {
            let made = user.as_mut().and_then(|user| user.uts.take());
            own(made, LinkNameSpaceType::HostNameAndNISDomainName).internal(|| "make a UTS namespace".into())?;
            rustix::system::sethostname(name.as_bytes()).plan(|| format!("set the host name to {name:?}"))?;
        }
        match &user {
            // Those of an IPC namespace are writable for the root of its owner only.
            Some(user) if !plan.sysctls.is_empty() => user.within(|| set_sysctls(&plan.sysctls))?,
            _ => set_sysctls(&plan.sysctls)?,
        }
        let empty = match empty {
            Some(empty) => empty,
            None => root::empty_namespace().internal(|| "make an empty mount namespace".into())?,
        };
        let shm = match plan.shm_size {
            None => Shm::Host,
            Some(size) => Shm::new(size, user.as_ref(), plan.mount_label.as_deref())
                .internal(|| format!("make shared memory of {size} bytes"))?,
        };
        let exits = plan.dir.join(EXITS);
        std::fs::create_dir_all(&exits).plan(|| format!("make folder {}", exits.display()))?;
        let reaper = match plan.shared_pid {
            false => None,
            true => Some(
                reaper::start(&empty, user.as_ref())
                    .internal(|| "start the reaper of the shared PID namespace".into())?,
            ),
        };
        let empty = match &user {
            None => empty,
            Some(_) => root::namespace_with_proc(&empty).internal(|| "make a mount namespace with a procfs".into())?,
        };
        Ok(Pod { dir: plan.dir.clone(), shm, user, empty, reaper })
    }
}

/// Enters the namespace that was made for the pod, or a new one.
fn own(made: Option<OwnedFd>, kind: LinkNameSpaceType) -> io::Result<()> {
    match made {
        Some(made) => Ok(move_into_link_name_space(made.as_fd(), Some(kind))?),
        None if kind == LinkNameSpaceType::InterProcessCommunication => namespace::unshare(UnshareFlags::NEWIPC),
        None => namespace::unshare(UnshareFlags::NEWUTS),
    }
}

fn set_sysctls(sysctls: &BTreeMap<String, String>) -> Result<(), Failure> {
    sysctls.iter().try_for_each(|(key, value)| set_sysctl(key, value).plan(|| format!("set sysctl {key}={value}")))
}

/// Writes a sysctl. Procfs shows each process those of its own namespaces, so that the pod's are meant here.
fn set_sysctl(key: &str, value: &str) -> io::Result<()> {
    let path = sysctl_path(key).ok_or(io::ErrorKind::InvalidInput)?;
    let root = rustix::fs::open("/proc/sys", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let file = inroot::open(root, Path::new(&path), OFlags::WRONLY, Mode::empty())?;
    let written = rustix::io::write(file, value.as_bytes())?;
    if written == value.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// `net.ipv4.ip_forward` and `net/ipv4/conf/eth0.1/forwarding` are the two ways to write a key.
fn sysctl_path(key: &str) -> Option<String> {
    let path = match key.find(['.', '/']).map(|at| key.as_bytes()[at]) {
        Some(b'/') => key.to_owned(),
        _ => key
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect(),
    };
    path.split('/').all(|part| !part.is_empty() && part != "." && part != "..").then_some(path)
}

// === impl Shm ===

impl Shm {
    /// A new tmpfs, of the pod's root.
    fn new(size: u64, user: Option<&UserNamespace>, label: Option<&str>) -> io::Result<Shm> {
        let size = size.to_string();
        let owner = user.map(|user| user.plan.mapping).map(|ids| [ids.uids, ids.gids].map(|ids| ids.host.to_string()));
        let mut options = vec![("size", Value::String(&size)), ("mode", Value::String("1777"))];
        if let Some([uid, gid]) = &owner {
            options.extend([("uid", Value::String(uid)), ("gid", Value::String(gid))]);
        }
        options.extend(label.map(|label| ("context", Value::String(label))));
        let attributes = Attributes { nosuid: true, nodev: true, noexec: true, ..Attributes::default() };
        let mount = mount::new_filesystem("tmpfs", &options, attributes)?;
        match mount::clone_fd(&mount, false) {
            Ok(_) => Ok(Shm::Detached(mount)),
            Err(e) if e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => Shm::hold(mount),
            Err(e) => Err(e),
        }
    }

    /// Puts the mount into a namespace of its own, from which it can be copied on any kernel.
    fn hold(mount: OwnedFd) -> io::Result<Shm> {
        Ok(Shm::Held { namespace: root::namespace_of(&mount)?, mount })
    }

    /// A copy of the mount, to be attached in a container. Called in a container's child.
    pub(crate) fn open(&self) -> io::Result<OwnedFd> {
        match self {
            Shm::Host => mount::clone_path(None, Path::new("/dev/shm"), false),
            Shm::Detached(mount) => mount::clone_fd(mount, false),
            Shm::Held { namespace, mount } => {
                let home = root::own()?;
                root::enter(namespace)?;
                let copy = mount::clone_fd(mount, false);
                root::enter(home)?;
                copy
            }
        }
    }
}

/// The failure of requests that come before the pod is set up.
pub(crate) fn not_set_up() -> Failure {
    failure(FailureKind::NotRunning, "find the pod", "the pod has not been set up")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What kernels before 6.15 need works on newer ones too. Mount namespaces are a thread's.
    #[test]
    fn shared_memory_can_be_held_in_a_namespace_of_its_own() {
        assert!(rustix::process::geteuid().is_root(), "this test makes namespaces and needs root");
        let test = || -> io::Result<()> {
            namespace::unshare(UnshareFlags::NEWNS)?;
            let before = std::fs::read_to_string("/proc/thread-self/mountinfo")?;
            let tmpfs = mount::new_filesystem("tmpfs", &[("size", Value::String("12k"))], Attributes::default())?;
            let shm = Shm::hold(tmpfs)?;
            assert!(matches!(shm, Shm::Held { .. }));
            rustix::fs::mkdirat(shm.open()?, "dir", Mode::from_raw_mode(0o755))?;
            rustix::fs::statat(shm.open()?, "dir", rustix::fs::AtFlags::empty())?;
            assert_eq!(before, std::fs::read_to_string("/proc/thread-self/mountinfo")?, "back where it was");
            Ok(())
        };
        std::thread::spawn(test).join().unwrap().unwrap();
    }

    #[test]
    fn sysctls_have_two_spellings_and_stay_below_their_folder() {
        assert_eq!(sysctl_path("net.ipv4.ip_forward").unwrap(), "net/ipv4/ip_forward");
        assert_eq!(sysctl_path("net/ipv4/conf/eth0.1/forwarding").unwrap(), "net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(sysctl_path("net.ipv4.conf.eth0/1.forwarding").unwrap(), "net/ipv4/conf/eth0.1/forwarding");
        for bad in ["", "..", "../x", "net/../../x", "net..x", "/net"] {
            assert_eq!(sysctl_path(bad), None, "{bad}");
        }
    }
}
