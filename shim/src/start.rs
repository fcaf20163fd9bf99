//! The start of a process, seen from the shim: a channel on which the child says what it has to say and that closes by
//! itself when the program is executed. Only that wakes the shim; then it reads all. A start is a state of the event
//! loop, so that one that hangs delays no other.

use std::{
    collections::BTreeMap,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg, socketpair,
    },
    process::Pid,
    thread::{LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces},
};
use serde::{Deserialize, Serialize};
use tripod_shim_protocol::{EXIT_START_ERROR, Failure, FailureKind, RequestId};
use tripod_sys::{fork, signal};

use crate::{clock, fault::failure, poll::Token, tree};

/// Steps and how long each took, in microseconds.
pub(crate) type Stages = BTreeMap<String, u64>;

/// Whom to answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReplyTo {
    /// The connection.
    pub(crate) link: Token,
    /// The request on it.
    pub(crate) id: RequestId,
}

/// What a child says before it executes its program.
#[derive(Debug, Serialize, Deserialize)]
enum Word {
    /// The terminal's master travels with this.
    Terminal,
    /// It waits for hooks that others run, and for the shim's go.
    Pausing,
    /// Another process goes on, whose PID on the host this is; a descriptor of it travels with this.
    Moved { pid: i32 },
    /// Only execve is left to do; said at this monotonic time.
    Ready { stages: Stages, at: i64 },
    /// It will not be.
    Failed(Failure),
}

/// The longest text in a failure; longer ones are cut, so that a word fits the buffer below.
const MAX_TEXT: usize = 2048;
const MAX_WORD: usize = 16 << 10;

/// The child's end.
#[derive(Debug)]
pub(crate) struct Reporter {
    channel: OwnedFd,
    stages: Stages,
    since: i64,
}

/// The shim's end.
#[derive(Debug)]
pub(crate) struct Start {
    /// Whom to tell.
    pub(crate) reply: ReplyTo,
    /// Where the channel is registered; set by whoever registers it.
    pub(crate) token: Token,
    /// The master of the child's terminal.
    pub(crate) master: Option<OwnedFd>,
    /// The child waits for hooks; set back by whoever has them run.
    pub(crate) pausing: bool,
    moved: Option<fork::Child>,
    channel: OwnedFd,
    ready: Option<(Stages, i64)>,
    failed: Option<Failure>,
}

/// How a start stands.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Not yet decided.
    Pending,
    /// The program runs, or does not.
    Over(Result<Stages, Failure>),
}

/// A pair of ends. Time counts from `since` (monotonic), so that the first stage includes what the shim did itself.
pub(crate) fn channel(since: i64) -> io::Result<(OwnedFd, Reporter)> {
    let (shim, child) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((shim, Reporter { channel: child, stages: Stages::new(), since }))
}

/// Forks a child, into the PID namespace of `into` if given.
///
/// Only children are affected by that change of the shim's; its own namespace stays what it was.
pub(crate) fn fork(
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
    into: Option<BorrowedFd<'_>>,
    child: impl FnOnce() -> i32,
) -> io::Result<fork::Child> {
    let Some(into) = into else { return fork::spawn(flags, cgroup, child) };
    let own = std::fs::File::open("/proc/self/ns/pid")?;
    move_into_thread_name_spaces(into, ThreadNameSpaceType::PROCESS_ID)?;
    let result = fork::spawn(flags, cgroup, child);
    if let Err(error) = move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::ProcessID)) {
        // A child may always be put into the namespace of its parent, so this cannot be.
        if let Ok(child) = &result {
            let _ = signal::send(&child.pidfd, tree::SIGKILL);
        }
        return Err(error.into());
    }
    result
}

// === impl Reporter ===

impl Reporter {
    /// A stage is over.
    pub(crate) fn mark(&mut self, stage: &str) {
        let now = clock::monotonic();
        *self.stages.entry(stage.to_owned()).or_default() += ((now - self.since) / 1000).cast_unsigned();
        self.since = now;
    }

    /// Hands the terminal's master to the shim.
    pub(crate) fn terminal(&self, master: &OwnedFd) -> io::Result<()> {
        say(self.channel.as_fd(), &Word::Terminal, &[master.as_fd()])
    }

    /// Waits while the shim has hooks run.
    pub(crate) fn pause(&self) -> io::Result<()> {
        say(self.channel.as_fd(), &Word::Pausing, &[])?;
        await_go(self.channel.as_fd())
    }

    /// A way to say who goes on, for a process that has handed the reporter on.
    pub(crate) fn testament(&self) -> io::Result<Testament> {
        Ok(Testament(self.channel.try_clone()?))
    }

    /// Says why there will be no program.
    pub(crate) fn failed(&self, failure: Failure) {
        tell_failure(self.channel.as_fd(), failure);
    }

    /// The channel, to be kept across the closing of everything else, and what to say on it last.
    pub(crate) fn into_last_word(self) -> (OwnedFd, LastWord) {
        (self.channel, LastWord { stages: self.stages, since: self.since })
    }
}

/// The channel of a child that another one takes the place of.
#[derive(Debug)]
pub(crate) struct Testament(OwnedFd);

impl Testament {
    /// Names who goes on, or says why nobody does; with what exit code to end.
    pub(crate) fn say(&self, heir: Result<fork::Child, Failure>) -> i32 {
        let said = match heir {
            Ok(child) => tell_moved(self.0.as_fd(), &child),
            Err(failure) => {
                tell_failure(self.0.as_fd(), failure);
                return EXIT_START_ERROR;
            }
        };
        said.map_or(EXIT_START_ERROR, |()| 0)
    }
}

/// What a [`Reporter`] still has to say when only its channel is left.
#[derive(Debug)]
pub(crate) struct LastWord {
    stages: Stages,
    since: i64,
}

impl LastWord {
    /// Waits for the shim's go and says that execve comes next. `stage` names what was done since the last mark.
    pub(crate) fn ready(mut self, channel: BorrowedFd<'_>, stage: &str) -> io::Result<()> {
        await_go(channel)?;
        let at = clock::monotonic();
        self.stages.insert(stage.to_owned(), ((at - self.since) / 1000).cast_unsigned());
        say(channel, &Word::Ready { stages: self.stages, at }, &[])
    }
}

fn await_go(channel: BorrowedFd<'_>) -> io::Result<()> {
    if recv(channel, &mut [0; 1], RecvFlags::empty())?.0 == 0 {
        return Err(io::Error::other("the shim has ended"));
    }
    Ok(())
}

/// Says that `child` goes on in the calling process' place.
pub(crate) fn tell_moved(channel: BorrowedFd<'_>, child: &fork::Child) -> io::Result<()> {
    say(channel, &Word::Moved { pid: child.pid.as_raw_nonzero().get() }, &[child.pidfd.as_fd()])
}

/// Says why there will be no program. If even that fails, the shim sees the channel close without a word.
pub(crate) fn tell_failure(channel: BorrowedFd<'_>, mut failure: Failure) {
    cut(&mut failure.step);
    cut(&mut failure.message);
    let _ = say(channel, &Word::Failed(failure), &[]);
}

fn cut(text: &mut String) {
    if let Some(end) = (0..=MAX_TEXT).rev().find(|end| text.is_char_boundary(*end)) {
        text.truncate(end);
    }
}

fn say(channel: BorrowedFd<'_>, word: &Word, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(word)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    sendmsg(channel, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

// === impl Start ===

impl Start {
    pub(crate) fn new(reply: ReplyTo, channel: OwnedFd) -> Start {
        Start { reply, token: 0, channel, master: None, pausing: false, moved: None, ready: None, failed: None }
    }

    /// Lets the child execute its program. It has been on its way since the fork, and what the shim had to do itself was
    /// done meanwhile.
    pub(crate) fn go(&self) -> io::Result<()> {
        send(&self.channel, b"!", SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
        Ok(())
    }

    /// The result when the child is known to have ended, so that no more words can come.
    pub(crate) fn conclude(&mut self) -> Result<Stages, Failure> {
        match self.advance() {
            Progress::Over(result) => result,
            Progress::Pending => self.result(),
        }
    }

    /// Why a child that executes no program has failed, if it has said so before its end.
    pub(crate) fn complaint(&mut self) -> Option<Failure> {
        while self.hear().is_ok_and(|more| more) {}
        self.failed.take()
    }

    /// Takes what the child has said so far.
    pub(crate) fn advance(&mut self) -> Progress {
        loop {
            match self.hear() {
                Ok(true) => {}
                Ok(false) => return Progress::Over(self.result()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Progress::Pending,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // The child has ended before it took the shim's go: said once, before its own words.
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => {}
                Err(e) => {
                    self.failed = Some(failure(FailureKind::Internal, "hear from the child", e));
                    return Progress::Over(self.result());
                }
            }
        }
    }

    fn result(&mut self) -> Result<Stages, Failure> {
        if let Some(failure) = self.failed.take() {
            return Err(failure);
        }
        let Some((mut stages, at)) = self.ready.take() else {
            let text = "the child ended before it could execute the program (killed, or out of memory)";
            return Err(failure(FailureKind::Internal, "start the process", text));
        };
        stages.insert("exec".to_owned(), ((clock::monotonic() - at) / 1000).cast_unsigned());
        Ok(stages)
    }

    /// The process that goes on in the child's place, if the child has said that there is one.
    pub(crate) fn moved(&mut self) -> Option<fork::Child> {
        loop {
            match self.hear() {
                Ok(true) => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionReset) => {}
                // The end, and whatever else there is, is heard again.
                Ok(false) | Err(_) => return self.moved.take(),
            }
        }
    }

    /// Whether there is such a process, of which nobody has taken note.
    pub(crate) fn has_moved(&self) -> bool {
        self.moved.is_some()
    }

    /// Hears one word; `false` at the end.
    fn hear(&mut self) -> io::Result<bool> {
        let mut bytes = vec![0; MAX_WORD];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = recvmsg(&self.channel, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
        let mut came = None;
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(mut fds) = part {
                came = fds.next();
            }
        }
        if received.bytes == 0 {
            return Ok(false);
        }
        match serde_json::from_slice(&bytes[..received.bytes])? {
            Word::Terminal => self.master = came,
            Word::Pausing => self.pausing = true,
            Word::Moved { pid } => {
                let child = Pid::from_raw(pid).zip(came);
                self.moved = child.map(|(pid, pidfd)| fork::Child { pid, pidfd });
            }
            Word::Ready { stages, at } => self.ready = Some((stages, at)),
            Word::Failed(failure) => self.failed = Some(failure),
        }
        Ok(true)
    }
}

impl AsFd for Start {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}
