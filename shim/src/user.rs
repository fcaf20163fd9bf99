//! The pod's user namespace: made by a child that stays just long enough, and entered by those who become containers.
//!
//! The shim itself never enters: it could not come back, and it has the host's logs and cgroups to write.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{Gid, Uid},
    pipe::{PipeFlags, pipe_with},
    process::{Pid, PidfdFlags, getpid, pidfd_open},
    thread::{
        LinkNameSpaceType, UnshareFlags, move_into_link_name_space, set_thread_groups, set_thread_res_gid,
        set_thread_res_uid,
    },
};
use tripod_shim_protocol::{EXIT_START_ERROR, Failure, FailureKind, Reply, UserPlan};
use tripod_sys::{fork, namespace, userns};

use crate::{
    fault::{Blame, failure},
    shim::Shim,
};

/// What a child says when it has done its part.
const DONE: &[u8] = b"done";

/// A user namespace, and those of the pod that it owns.
#[derive(Debug)]
pub(crate) struct UserNamespace {
    pub(crate) plan: UserPlan,
    namespace: OwnedFd,
    network: Option<OwnedFd>,
    /// Entered by the shim at the set-up of the pod, and held by that.
    pub(crate) ipc: Option<OwnedFd>,
    /// Likewise.
    pub(crate) uts: Option<OwnedFd>,
}

// === impl UserNamespace ===

impl UserNamespace {
    /// Makes it. The other namespaces are made by its root: what the kernel makes along with them, as the queues of an
    /// IPC namespace, belongs to whoever made them.
    fn new(plan: UserPlan) -> io::Result<UserNamespace> {
        let (mapped, tell_mapped) = pipe_with(PipeFlags::CLOEXEC)?;
        let (word, say) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stay, leave) = pipe_with(PipeFlags::CLOEXEC)?;
        // The child has copies of the ends that it waits for others to close.
        let mut ends = Some((tell_mapped, leave));
        let child = {
            let (mapped, say, stay) = (&mapped, &say, &stay);
            let ends = &mut ends;
            fork::spawn(fork::NEW_USER, None, move || {
                drop(ends.take());
                let made = rustix::io::read(mapped, &mut [0; 1][..]).map_err(io::Error::from).and_then(|_| fill(plan));
                let word = made.map_or_else(|error| error.to_string().into_bytes(), |()| DONE.to_vec());
                let _ = rustix::io::write(say, &word);
                let _ = rustix::io::read(stay, &mut [0; 1][..]);
                0
            })?
        };
        drop(say);
        let Some((tell_mapped, leave)) = ends else { return Err(io::ErrorKind::BrokenPipe.into()) };
        userns::map(child.pid, &plan.mapping.uids.line(), &plan.mapping.gids.line())?;
        drop(tell_mapped);
        hear(&word)?;
        let open = |wanted: bool, kind: &str| wanted.then(|| open(child.pid, kind)).transpose();
        let made = UserNamespace {
            plan,
            namespace: self::open(child.pid, "user")?,
            network: open(plan.network, "net")?,
            ipc: open(plan.ipc, "ipc")?,
            uts: open(plan.uts, "uts")?,
        };
        drop(leave);
        Ok(made)
    }

    /// The namespace itself, for mapping the IDs of mounts.
    pub(crate) fn as_ids(&self) -> &OwnedFd {
        &self.namespace
    }

    /// Makes the calling process, which has one thread, its root. There is no way back.
    pub(crate) fn enter(&self) -> Result<(), Failure> {
        let step = || "enter the pod's user namespace".to_owned();
        move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::User)).internal(step)?;
        become_root().internal(step)
    }

    /// Does something as its root, in the namespaces that the shim is in, and waits for it: it must not take long.
    pub(crate) fn within(&self, work: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
        let step = || "work in the pod's user namespace".to_owned();
        let (word, say) = pipe_with(PipeFlags::CLOEXEC).internal(step)?;
        let child = || {
            let done = self.enter().and_then(|()| work());
            let word = done.map_or_else(|failure| serde_json::to_vec(&failure).unwrap_or_default(), |()| DONE.to_vec());
            let _ = rustix::io::write(&say, &word);
            0
        };
        fork::spawn(0, None, child).internal(step)?;
        drop(say);
        let mut bytes = [0; 4096];
        let count = rustix::io::read(&word, &mut bytes).internal(step)?;
        match &bytes[..count] {
            DONE => Ok(()),
            word => Err(serde_json::from_slice(word).unwrap_or_else(|error| {
                failure(FailureKind::Internal, step(), format_args!("the child has ended: {error}"))
            })),
        }
    }
}

/// In a namespace that has its maps: becomes its root, and makes what it is to own.
fn fill(plan: UserPlan) -> io::Result<()> {
    become_root()?;
    let mut flags = UnshareFlags::empty();
    flags.set(UnshareFlags::NEWNET, plan.network);
    flags.set(UnshareFlags::NEWIPC, plan.ipc);
    flags.set(UnshareFlags::NEWUTS, plan.uts);
    namespace::unshare(flags)
}

/// Who comes into a user namespace has all rights there and is still nobody.
pub(crate) fn become_root() -> io::Result<()> {
    set_thread_groups(&[])?;
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    Ok(set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?)
}

/// Makes a child that is the caller's sibling, in a new PID namespace, and runs `run` in it once the caller has ended:
/// whatever the caller has said of it until then has been said before it does anything.
pub(crate) fn heir(run: impl FnOnce() -> i32) -> io::Result<fork::Child> {
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    fork::sibling(fork::NEW_PID, move || match poll(&mut [PollFd::new(&own, PollFlags::IN)], None) {
        Ok(_) => run(),
        Err(_) => EXIT_START_ERROR,
    })
}

fn hear(word: &OwnedFd) -> io::Result<()> {
    let mut bytes = [0; 256];
    let count = rustix::io::read(word, &mut bytes)?;
    match &bytes[..count] {
        DONE => Ok(()),
        [] => Err(io::Error::other("the child that makes it has ended")),
        said => Err(io::Error::other(String::from_utf8_lossy(said).into_owned())),
    }
}

fn open(pid: Pid, kind: &str) -> io::Result<OwnedFd> {
    Ok(File::open(format!("/proc/{}/ns/{kind}", pid.as_raw_nonzero()))?.into())
}

// === impl Shim ===

impl Shim {
    /// The pod's user namespace, made if this is the first time that it is asked for.
    pub(crate) fn user_namespace(&mut self, plan: UserPlan) -> Result<(Reply, Vec<OwnedFd>), Failure> {
        let step =
            || format!("make a user namespace with users {} and groups {}", plan.mapping.uids, plan.mapping.gids);
        let late = self.pod.is_some();
        let made = match self.pod.as_mut().map_or(&mut self.user, |pod| &mut pod.user) {
            Some(made) if made.plan == plan => made,
            Some(_) => return Err(failure(FailureKind::Exists, step(), "the pod has another one")),
            None if late => {
                return Err(failure(FailureKind::Plan, step(), "the pod was set up without one"));
            }
            none => none.insert(UserNamespace::new(plan).plan(step)?),
        };
        let copies = std::iter::once(&made.namespace).chain(&made.network).map(OwnedFd::try_clone);
        Ok((Reply::UserNamespace, copies.collect::<io::Result<_>>().internal(step)?))
    }
}
