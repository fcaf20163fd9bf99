//! Runs one CNI plugin: a foreign program that may fail, hang, flood its output or leave children behind.

use std::{
    io::{self, ErrorKind, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
    process::{Pid, PidfdFlags, Signal},
};

use super::Error;

/// The most that is read of what a plugin writes.
const LARGEST: usize = 1 << 20;

/// How long a killed plugin may take to end before it is left to itself.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// What a plugin wrote, and whether it succeeded.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) success: bool,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

/// A call of a plugin.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    /// `ADD`, `DEL`, …
    pub(crate) command: &'static str,
    /// File name of the plugin.
    pub(crate) plugin: &'a str,
    /// Folders in which it is looked for.
    pub(crate) dirs: &'a [PathBuf],
    /// What it is told beside `CNI_COMMAND` and `CNI_PATH`.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// What it reads.
    pub(crate) input: Vec<u8>,
    /// How long it may take.
    pub(crate) timeout: Duration,
}

/// Finds a plugin.
pub(crate) fn find(plugin: &str, dirs: &[PathBuf]) -> Result<PathBuf, Error> {
    let executable = |path: &Path| rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file();
    dirs.iter()
        .map(|dir| dir.join(plugin))
        .find(|path| executable(path))
        .ok_or_else(|| Error::Missing { plugin: plugin.to_owned(), dirs: dirs.to_vec() })
}

/// Runs a plugin to its end, or to the end of its time.
pub(crate) fn run(call: &Call<'_>) -> Result<Output, Error> {
    let path = find(call.plugin, call.dirs)?;
    let failed = |source| Error::Run { plugin: call.plugin.to_owned(), command: call.command, source };
    let mut child = spawn(&path, call).map_err(failed)?;
    let result = converse(&mut child, call);
    // While the plugin has not been waited for, its number cannot have become another group's.
    if let Ok(pid) = i32::try_from(child.id())
        && let Some(group) = Pid::from_raw(pid)
    {
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
    let ended = result.as_ref().is_ok_and(Option::is_some) || wait(&child, LAST_WAIT);
    if !ended {
        // Only a process stuck in the kernel outlives SIGKILL; it must not hold up anything else.
        std::thread::spawn(move || child.wait());
    } else {
        let status = child.wait().map_err(failed)?;
        if let Some((stdout, stderr)) = result.map_err(failed)? {
            return Ok(Output { success: status.success(), stdout, stderr });
        }
    }
    Err(Error::TimedOut { plugin: call.plugin.to_owned(), command: call.command, limit: call.timeout })
}

fn spawn(path: &Path, call: &Call<'_>) -> io::Result<Child> {
    let dirs = std::env::join_paths(call.dirs).map_err(io::Error::other)?;
    let mut command = Command::new(path);
    command
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("CNI_COMMAND", call.command)
        .env("CNI_PATH", dirs)
        .envs(call.environment.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut attempts = 0;
    loop {
        match command.spawn() {
            // The plugin is being replaced by a newer one at this moment.
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && attempts < 10 => {
                attempts += 1;
                std::thread::sleep(Duration::from_millis(50));
            }
            result => return result,
        }
    }
}

/// Writes the input and reads both outputs until the plugin ends. `None` if it did not in time.
fn converse(child: &mut Child, call: &Call<'_>) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
    let deadline = Instant::now() + call.timeout;
    let (mut stdin, mut stdout, mut stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    for pipe in [stdin.as_ref().map(AsFd::as_fd), stdout.as_ref().map(AsFd::as_fd), stderr.as_ref().map(AsFd::as_fd)] {
        pipe.map(unblock).transpose()?;
    }
    let process = pidfd(child)?;
    let (mut rest, mut out, mut err) = (call.input.as_slice(), Vec::new(), Vec::new());
    loop {
        let mut polled = vec![PollFd::new(&process, PollFlags::IN)];
        polled.extend(stdin.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::OUT)));
        polled.extend(stdout.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        polled.extend(stderr.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        let Some(left) = deadline.checked_duration_since(Instant::now()) else { return Ok(None) };
        match poll(&mut polled, Some(&timespec(left))) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ended = polled[0].revents().contains(PollFlags::IN);
        drop(polled);
        feed(&mut stdin, &mut rest);
        drain(&mut stdout, &mut out);
        drain(&mut stderr, &mut err);
        // What the plugin wrote is in the pipes by now; children that hold them open are not waited for.
        if ended {
            return Ok(Some((out, err)));
        }
    }
}

fn feed(pipe: &mut Option<impl Write>, rest: &mut &[u8]) {
    while let Some(writer) = pipe.as_mut().filter(|_| !rest.is_empty()) {
        match writer.write(rest) {
            Ok(size) => *rest = &rest[size..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            // A plugin need not read what it does not want.
            Err(_) => *rest = &[],
        }
    }
    *pipe = None;
}

fn drain(pipe: &mut Option<impl Read>, into: &mut Vec<u8>) {
    let mut buffer = [0; 8192];
    while let Some(reader) = pipe.as_mut() {
        match reader.read(&mut buffer) {
            Ok(0) => *pipe = None,
            Ok(size) => {
                // What is too long is read on, so that the plugin does not block, and forgotten.
                let room = (LARGEST + 1).saturating_sub(into.len());
                into.extend_from_slice(&buffer[..size.min(room)]);
                if room == 0 {
                    return;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(_) => *pipe = None,
        }
    }
}

/// Whether an output was longer than what we keep.
pub(crate) fn too_long(output: &[u8]) -> bool {
    output.len() > LARGEST
}

fn unblock(pipe: BorrowedFd<'_>) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(pipe)?;
    Ok(rustix::fs::fcntl_setfl(pipe, flags | OFlags::NONBLOCK)?)
}

fn pidfd(child: &Child) -> io::Result<std::os::fd::OwnedFd> {
    Ok(rustix::process::pidfd_open(Pid::from_child(child), PidfdFlags::empty())?)
}

fn wait(child: &Child, limit: Duration) -> bool {
    let Ok(process) = pidfd(child) else { return true };
    poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&timespec(limit))).is_ok_and(|ready| ready > 0)
}

fn timespec(duration: Duration) -> Timespec {
    Timespec::try_from(duration).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 })
}
