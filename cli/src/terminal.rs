//! The terminal that a command was typed at: raw while a program on the other side reads its keys, and as it was again
//! however the command ends.
//!
//! Release builds abort on a panic, so the guard's drop is not enough: a panic hook restores the terminal too.

use std::{
    io,
    os::fd::BorrowedFd,
    sync::{Mutex, Once, PoisonError},
};

use rustix::{
    stdio::{stderr, stdin, stdout},
    termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr},
};

/// How the terminal was before it was made raw; `None` while nothing is to be restored.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// Columns and rows of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) columns: u16,
    pub(crate) rows: u16,
}

/// The terminal at standard input in raw mode, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Raw(());

/// Whether keys come from a terminal.
pub(crate) fn stdin_is_terminal() -> bool {
    isatty(stdin())
}

/// Whether any of the three standard streams is a terminal.
pub(crate) fn is_there() -> bool {
    ends().into_iter().any(isatty)
}

/// The size of the window, if there is one.
pub(crate) fn size() -> Option<Size> {
    let known = ends().into_iter().find_map(|end| tcgetwinsize(end).ok())?;
    // A terminal that nobody has told its size says 0.
    (known.ws_col > 0 && known.ws_row > 0).then_some(Size { columns: known.ws_col, rows: known.ws_row })
}

/// What is shown decides, and keys come next.
fn ends() -> [BorrowedFd<'static>; 3] {
    [stdout(), stdin(), stderr()]
}

// === impl Raw ===

impl Raw {
    /// Makes the terminal at standard input raw.
    pub(crate) fn enter() -> io::Result<Self> {
        restore_on_panic();
        let before = tcgetattr(stdin())?;
        // Known before it is changed: from here on everybody who ends this program restores it.
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        let guard = Self(());
        guard.renew()?;
        Ok(guard)
    }

    /// Makes it raw once more: a shell that stopped this program and goes on with it has set modes of its own.
    pub(crate) fn renew(&self) -> io::Result<()> {
        let mut modes = tcgetattr(stdin())?;
        modes.make_raw();
        Ok(tcsetattr(stdin(), OptionalActions::Now, &modes)?)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// Makes the terminal what it was, once.
fn restore() {
    // A panic may come while the lock is held in this thread; waiting for it would be for ever.
    let saved = match SAVED.try_lock() {
        Ok(mut saved) => saved.take(),
        Err(_) => None,
    };
    if let Some(before) = saved {
        // At once: a terminal that shows nothing any more would keep this program for ever otherwise.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &before);
    }
}

fn restore_on_panic() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            before(info);
        }));
    });
}
