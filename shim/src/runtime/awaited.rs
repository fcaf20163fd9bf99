//! What there is to wait for in a start by a runtime: calls, which have a limit, and containers that the runtime has let go,
//! until their programs are executed. The shim looks for that now and then, and keeps signals until it has seen it.

use std::time::Instant;

use tripod_shim_protocol::Failure;
use tripod_sys::signal;

use super::{
    Step,
    program::{Awaited, Seen},
};
use crate::{
    containers::{Container, Phase},
    shim::Shim,
    tree::SIGKILL,
};

// === impl Shim ===

impl Shim {
    /// `start` has let the program go: that it is executed is waited for, but not for long.
    pub(super) fn await_program(&mut self, id: &str) -> Result<(), Failure> {
        let Some(container) = self.containers.get_mut(id) else { return Ok(()) };
        let Phase::Making(making) = &mut container.phase else { return Ok(()) };
        making.step = Step::Execute;
        if making.ended.is_none() {
            making.awaited = making.waiting.and_then(|waiting| Awaited::new(container.pid, waiting));
        }
        if making.awaited.is_some() { Ok(()) } else { self.show(id) }
    }

    /// Looks for programs that are awaited.
    pub(crate) fn look_for_programs(&mut self) {
        let now = Instant::now();
        let mut seen = Vec::new();
        for (id, container) in &mut self.containers {
            let (awaited, making) = match &mut container.phase {
                Phase::Making(making) => (&mut making.awaited, true),
                Phase::Running { .. } => (&mut container.awaited, false),
                _ => continue,
            };
            match awaited.as_mut().map(|awaited| awaited.look(now)) {
                None | Some(Seen::Nothing) => {}
                Some(Seen::Late) => seen.push((id.clone(), making)),
                Some(Seen::Over) => {
                    for number in awaited.take().map(Awaited::into_kept).unwrap_or_default() {
                        // If it has just ended, that will be heard.
                        let _ = signal::send(&container.pidfd, number);
                    }
                    seen.push((id.clone(), making));
                }
            }
        }
        for (id, _) in seen.into_iter().filter(|(_, making)| *making) {
            if let Err(failure) = self.show(&id) {
                self.give_up(&id, failure);
            }
        }
    }

    /// Keeps a signal for the program of a container that a runtime has let go and that has not executed it yet; `false`
    /// if there is no need to.
    pub(crate) fn keep_signal(&mut self, id: &str, number: i32) -> bool {
        let Some(container) = self.containers.get_mut(id) else { return false };
        let Some(awaited) = &mut container.awaited else { return false };
        // No process catches that one.
        if number != SIGKILL && awaited.keep(number) {
            return true;
        }
        // It comes after those that were kept before it.
        for number in container.awaited.take().map(Awaited::into_kept).unwrap_or_default() {
            let _ = signal::send(&container.pidfd, number);
        }
        false
    }

    /// When the next call is given up, or the next program looked for.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let deadline = |container: &Container| match &container.phase {
            Phase::Making(making) if making.step == Step::Execute => making.awaited.as_ref().and_then(Awaited::due),
            Phase::Making(making) if !making.timed_out => Some(making.deadline),
            Phase::Running { .. } => container.awaited.as_ref().and_then(Awaited::due),
            _ => None,
        };
        self.containers.values().filter_map(deadline).min()
    }

    /// Kills calls that take too long.
    pub(crate) fn give_up_late(&mut self) {
        let now = Instant::now();
        for container in self.containers.values_mut() {
            if let Phase::Making(making) = &mut container.phase
                && !making.timed_out
                && making.step != Step::Execute
                && making.deadline <= now
            {
                making.timed_out = true;
                making.kill();
            }
        }
    }
}
