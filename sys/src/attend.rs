//! A program that is told something and listened to until it ends, however it behaves: it may read nothing, say more than
//! anybody keeps, leave somebody behind who holds its output, or never end.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

/// The last bytes of what is said that are kept.
const KEPT: usize = 1024;

/// Reads after the end of a program whose heirs go on talking.
const LAST_READS: usize = 64;

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Attended {
    /// The end of what it has said.
    pub said: Vec<u8>,
    /// It has ended, and is to be reaped; otherwise it is to be killed.
    pub ended: bool,
}

/// Writes `told` to `input` and reads `output` until the process `pidfd` has ended, or for as long as `limit`.
///
/// SIGPIPE must be ignored. Both pipes are closed at the end.
pub fn attend(
    pidfd: impl AsFd,
    input: OwnedFd,
    output: OwnedFd,
    mut told: &[u8],
    limit: Duration,
) -> io::Result<Attended> {
    let deadline = Instant::now() + limit;
    rustix::io::ioctl_fionbio(&input, true)?;
    rustix::io::ioctl_fionbio(&output, true)?;
    let (mut input, mut output) = (Some(input), Some(output));
    let mut attended = Attended::default();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(attended);
        }
        let wait = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
        fds.extend(output.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
        fds.extend(input.as_ref().map(|fd| PollFd::new(fd, PollFlags::OUT)));
        match poll(&mut fds, Some(&wait)) {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        attended.ended = !fds[0].revents().is_empty();
        drop(fds);
        if output.as_ref().is_some_and(|fd| hear(fd, &mut attended.said).is_none()) {
            output = None;
        }
        if input.as_ref().is_some_and(|fd| !tell(fd, &mut told)) {
            input = None;
        }
        if attended.ended {
            let mut rest = output.iter().cycle().take(LAST_READS);
            let _ = rest.find(|fd| hear(fd, &mut attended.said).is_none_or(|count| count == 0));
            return Ok(attended);
        }
    }
}

/// Reads some of what there is, and says how much; `None` at the end.
fn hear(output: &OwnedFd, said: &mut Vec<u8>) -> Option<usize> {
    let mut bytes = [0; 4096];
    match rustix::io::read(output, &mut bytes) {
        Ok(0) => None,
        Ok(count) => {
            said.extend_from_slice(&bytes[..count]);
            said.drain(..said.len().saturating_sub(KEPT));
            Some(count)
        }
        Err(error) => matches!(error, Errno::AGAIN | Errno::INTR).then_some(0),
    }
}

/// Writes what is left; false when nothing is, or nobody reads.
fn tell(input: &OwnedFd, told: &mut &[u8]) -> bool {
    match rustix::io::write(input, told) {
        Ok(count) => {
            *told = &told[count..];
            !told.is_empty()
        }
        Err(error) => matches!(error, Errno::AGAIN | Errno::INTR),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use rustix::{
        pipe::{PipeFlags, pipe_with},
        process::{Pid, PidfdFlags, pidfd_open},
    };

    use super::*;

    /// Attends a script, and says what came of it and its exit code.
    fn run(script: &str, told: &[u8], limit: Duration) -> (Attended, Option<i32>) {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::piped());
        command.stdout(write.try_clone().unwrap()).stderr(write);
        let mut child = command.spawn().unwrap();
        drop(command);
        let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let input = child.stdin.take().unwrap().into();
        let attended = attend(&pidfd, input, read, told, limit).unwrap();
        if !attended.ended {
            child.kill().unwrap();
        }
        let code = child.wait().unwrap().code();
        (attended, code)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn it_is_told_all_and_heard() {
        let told = vec![b'x'; 1 << 20];
        let (attended, code) = run("wc -c; echo err >&2; exit 3", &told, LONG);
        assert_eq!((attended.ended, code), (true, Some(3)));
        assert_eq!(String::from_utf8(attended.said).unwrap(), "1048576\nerr\n");
    }

    #[test]
    fn who_reads_nothing_or_says_too_much_ends_all_the_same() {
        let told = vec![b'x'; 1 << 20];
        let (attended, code) = run("exec <&-; head -c 1000000 /dev/zero; echo last", &told, LONG);
        assert_eq!((attended.ended, code), (true, Some(0)));
        assert!(attended.said.len() <= KEPT && attended.said.ends_with(b"last\n"));
    }

    #[test]
    fn who_does_not_end_is_given_up_and_who_is_left_behind_is_not_waited_for() {
        let (attended, code) = run("echo begun; exec sleep 1000", b"", Duration::from_millis(200));
        assert_eq!((attended.ended, code), (false, None));
        let (attended, code) = run("sleep 3 & echo done", b"", LONG);
        assert_eq!((attended.ended, code, &attended.said[..]), (true, Some(0), &b"done\n"[..]));
    }
}
