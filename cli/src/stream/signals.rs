//! The signals that mean something to a session.

use std::fs;

use rustix::process::Signal as Number;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use crate::{
    CliError,
    terminal::{self, Raw, Size},
};

/// Those that end a program; a terminal in raw mode sends none of them for keys.
const ENDS: [Number; 4] = [Number::INT, Number::TERM, Number::HUP, Number::QUIT];

/// Listens for signals from its making on.
#[derive(Debug)]
pub(crate) struct Signals {
    window: Signal,
    resumed: Signal,
    ends: [Option<Signal>; ENDS.len()],
}

// === impl Signals ===

impl Signals {
    pub(crate) fn listen() -> Result<Self, CliError> {
        let listen =
            |number: Number| signal(SignalKind::from_raw(number.as_raw())).map_err(CliError::io("listen for signals"));
        let ignored = ignored();
        let mut ends = [const { None }; ENDS.len()];
        for (end, number) in ends.iter_mut().zip(ENDS) {
            // nohup and shells without job control start programs that are to live through some of them.
            if ignored & (1 << (number.as_raw() - 1)) == 0 {
                *end = Some(listen(number)?);
            }
        }
        Ok(Self { window: listen(Number::WINCH)?, resumed: listen(Number::CONT)?, ends })
    }

    /// Tells each new size of the window, if anybody wants to know; returns the number of the signal that ends all.
    pub(crate) async fn follow(&mut self, raw: Option<&Raw>, sizes: Option<watch::Sender<Option<Size>>>) -> i32 {
        let [interrupt, terminate, hangup, quit] = &mut self.ends;
        loop {
            tokio::select! {
                _ = self.window.recv() => {}
                _ = self.resumed.recv() => {
                    if let Some(raw) = raw {
                        // It fails when the terminal is gone, of which a hangup tells.
                        let _ = raw.renew();
                    }
                }
                () = received(interrupt) => return ENDS[0].as_raw(),
                () = received(terminate) => return ENDS[1].as_raw(),
                () = received(hangup) => return ENDS[2].as_raw(),
                () = received(quit) => return ENDS[3].as_raw(),
            }
            if let Some(sizes) = &sizes {
                sizes.send_replace(terminal::size());
            }
        }
    }

    /// Waits for a signal that ends all; returns its number.
    pub(crate) async fn end(&mut self) -> i32 {
        self.follow(None, None).await
    }
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// The signals that this program was started to ignore, a bit for each.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or_default()
}
