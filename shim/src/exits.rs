//! Ends: of children, of containers, of the shim.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::{Pid, WaitOptions, WaitStatus, wait};
use tripod_shim_protocol::{Event, ExitRecord, Failure, FailureKind, Reply};
use tripod_sys::signal;

use crate::{
    attach::Stdin,
    clock,
    containers::Phase,
    execs,
    fault::{Blame, failure},
    pod::{self, EXITS},
    shim::Shim,
    start::{ReplyTo, Start},
    tree::{self, SIGKILL},
};

/// How long a shutdown waits for processes that were killed.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// A shutdown under way.
#[derive(Debug)]
pub(crate) struct Stopping {
    reply: ReplyTo,
    /// When it is given up.
    pub(crate) deadline: Instant,
}

/// 128 + n after signal n.
fn code(status: WaitStatus) -> i32 {
    status.exit_status().or_else(|| status.terminating_signal().map(|n| 128 + n)).unwrap_or(255)
}

// === impl Shim ===

impl Shim {
    /// Reaps all children that have ended.
    ///
    /// Most are containers and execs. Others are possible: a process in a container can make children of the shim's
    /// (`CLONE_PARENT`), and left as zombies they would keep its PID namespace from ending.
    pub(crate) fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if status.exited() || status.signaled() {
                self.reaped(pid, code(status));
            }
        }
        self.continue_shutdown();
    }

    fn reaped(&mut self, pid: Pid, code: i32) {
        let at = clock::now();
        if let Some(id) = self.made_by(pid) {
            self.call_ended(&id, code);
        } else if let Some(id) = self.hooks_run_by(pid) {
            self.hooks_ended(&id, code);
        } else if let Some((id, _)) = self.containers.iter().find(|(_, c)| c.pid == pid && c.is_alive()) {
            let id = id.clone();
            if let Some(code) = self.container_moved(&id).unwrap_or(Some(code)) {
                self.container_ended(&id, code, at);
            }
        } else if let Some((name, _)) = self.execs.iter().find(|(_, exec)| exec.pid == pid) {
            let name = name.clone();
            if let Some(code) = self.exec_moved(&name).unwrap_or(Some(code)) {
                self.exec_ended(&name, code);
            }
        } else if let Some(pod) = &mut self.pod
            && pod.reaper.as_ref().is_some_and(|reaper| reaper.pid == pid)
        {
            pod.reaper = None;
        } else if self.awaits_child() {
            self.strays.push(pid);
        }
    }

    /// If the child on its way has ended because another process goes on in its place: notes that one. Gives its exit code
    /// if it has ended too; it was not known when it was reaped.
    fn container_moved(&mut self, id: &str) -> Option<Option<i32>> {
        let stopping = self.stopping.is_some();
        let container = self.containers.get_mut(id)?;
        let Phase::Starting(start) = &mut container.phase else { return None };
        let child = start.moved()?;
        (container.pid, container.pidfd) = (child.pid, child.pidfd);
        let pauses = container.hooks.as_ref().is_some_and(|hooks| hooks.pause_later());
        let ended = go_on(start, &container.pidfd, stopping, !pauses);
        if ended.is_none() && pauses && std::mem::take(&mut start.pausing) {
            self.paused(id);
        }
        Some(ended)
    }

    /// The same for an exec.
    fn exec_moved(&mut self, name: &str) -> Option<Option<i32>> {
        let stopping = self.stopping.is_some();
        let exec = self.execs.get_mut(name)?;
        let execs::Phase::Starting(start) = &mut exec.phase else { return None };
        let child = start.moved()?;
        (exec.pid, exec.pidfd) = (child.pid, child.pidfd);
        Some(go_on(start, &exec.pidfd, stopping, true))
    }

    pub(crate) fn container_ended(&mut self, id: &str, code: i32, at: i64) {
        if self.ended_early(id, code, at) || self.ended_in_hooks(id, code, at) {
            return;
        }
        if let Some(Phase::Starting(start)) = self.containers.get_mut(id).map(|c| &mut c.phase) {
            let result = start.conclude();
            if self.decided(id, result, Some((code, at))) {
                return;
            }
        }
        let Some(container) = self.containers.get_mut(id) else { return };
        let outputs = std::mem::take(&mut container.outputs);
        for output in &outputs {
            output.unwatch(&mut self.poll);
        }
        container.stdin = Stdin::None;
        container.terminal = None;
        container.doors = None;
        let Phase::Running { started_at } = container.phase else {
            if let Some(Phase::Failing(reply, failure)) = self.containers.remove(id).map(|c| c.phase) {
                self.answer(reply, Err(failure), Vec::new());
            }
            return;
        };
        for output in outputs {
            output.finish(container.log.as_mut(), &mut self.scratch);
        }
        let log_bytes_lost = container.log.take().map_or(0, |log| log.lost());
        let record = ExitRecord { code, started_at, finished_at: at.max(started_at), log_bytes_lost };
        container.phase = Phase::Exited(record.clone());
        if let Err(e) = self.write_record(id, &record) {
            // The record is still in memory, and whoever asks gets it.
            crate::note(&format!("the exit record of container {id} could not be written: {e}"));
        }
        self.kill_execs_of(id);
        self.announce(&Event::Exited { container: id.to_owned(), record });
    }

    fn write_record(&self, id: &str, record: &ExitRecord) -> io::Result<()> {
        let Some(pod) = &self.pod else { return Ok(()) };
        let exits = pod.dir.join(EXITS);
        // A dot first: no container's ID begins so.
        let draft = exits.join(format!(".{id}"));
        fs::write(&draft, serde_json::to_vec(record)?)?;
        fs::rename(draft, exits.join(id))
    }

    /// Forgets a container that has ended.
    pub(crate) fn forget(&mut self, id: &str) -> Result<(), Failure> {
        let step = || format!("forget container {id}");
        match self.containers.get(id) {
            None => Err(failure(FailureKind::NotFound, step(), "no such container")),
            Some(container) if container.is_alive() => {
                Err(failure(FailureKind::Plan, step(), "the container has not ended"))
            }
            Some(_) => {
                let pod = self.pod.as_ref().ok_or_else(pod::not_set_up)?;
                remove(&pod.dir.join(EXITS).join(id)).internal(step)?;
                self.containers.remove(id);
                Ok(())
            }
        }
    }

    /// Kills everything. The answer comes when all is gone.
    pub(crate) fn shut_down(&mut self, reply: ReplyTo) {
        for exec in self.execs.values() {
            tree::kill(exec.pid, &exec.pidfd);
        }
        for container in self.containers.values() {
            if let Phase::Making(making) = &container.phase {
                making.kill();
            }
            if let Some(hooks) = &container.hooks {
                hooks.kill();
            }
        }
        let containers = self.containers.values().filter(|container| container.is_alive()).map(|c| &c.pidfd);
        let reaper = self.pod.iter().filter_map(|pod| pod.reaper.as_ref()).map(|reaper| &reaper.pidfd);
        for pidfd in containers.chain(reaper) {
            let _ = signal::send(pidfd, SIGKILL);
        }
        self.stopping = Some(Stopping { reply, deadline: Instant::now() + SHUTDOWN });
        self.continue_shutdown();
    }

    /// Answers a shutdown that is complete or has taken too long.
    pub(crate) fn continue_shutdown(&mut self) {
        let Some(stopping) = &self.stopping else { return };
        let reply = stopping.reply;
        let alive: Vec<_> = self.containers.iter().filter(|(_, c)| c.is_alive()).map(|(id, _)| id.as_str()).collect();
        let reaper = self.pod.as_ref().is_some_and(|pod| pod.reaper.is_some());
        if alive.is_empty() && self.execs.is_empty() && !reaper {
            self.answer(reply, Ok(Reply::Done), Vec::new());
            self.over = true;
        } else if Instant::now() >= stopping.deadline {
            let seconds = SHUTDOWN.as_secs();
            let what = if alive.is_empty() { "an exec or the reaper".to_owned() } else { alive.join(", ") };
            let text = format!("still there {seconds} s after SIGKILL (waiting for a device or filesystem?): {what}");
            self.stopping = None;
            self.answer(reply, Err(failure(FailureKind::Internal, "shut down", text)), Vec::new());
        }
    }
}

/// Lets a process that goes on in another's place do so, or ends it. It has waited for this, so that if it has ended it
/// was killed. Without `go` it has to wait for something else first.
fn go_on(start: &Start, process: &OwnedFd, stopping: bool, go: bool) -> Option<i32> {
    if execs::has_ended(process) {
        return Some(128 + SIGKILL);
    }
    if stopping {
        let _ = signal::send(process, SIGKILL);
    }
    if go {
        let _ = start.go();
    }
    None
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
