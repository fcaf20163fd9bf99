//! From the client's window to a process's terminal. Clients send JSON documents, one after the other.

use std::os::fd::OwnedFd;

use rustix::termios::{Winsize, tcsetwinsize};
use serde::Deserialize;

use crate::fault::Fault;

/// A document is some 30 bytes.
const DOCUMENT: usize = 4 << 10;

/// Size of a window in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Size {
    #[serde(rename = "Width", alias = "width")]
    width: u16,
    #[serde(rename = "Height", alias = "height")]
    height: u16,
}

/// The terminal of a process.
#[derive(Debug)]
pub(super) struct Resize {
    terminal: Option<OwnedFd>,
    sizes: Sizes,
}

impl Resize {
    pub(super) fn new(terminal: Option<OwnedFd>) -> Self {
        Self { terminal, sizes: Sizes::default() }
    }

    /// Takes a part of what the client sends.
    pub(super) fn take(&mut self, data: &[u8]) -> Result<(), Fault> {
        let Some(terminal) = &self.terminal else { return Ok(()) };
        if let Some(Size { width, height }) = self.sizes.take(data)? {
            // A terminal whose process is gone has no size that matters.
            let size = Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
            let _ = tcsetwinsize(terminal, size);
        }
        Ok(())
    }
}

/// Documents, of which one may be incomplete.
#[derive(Debug, Default)]
struct Sizes(Vec<u8>);

impl Sizes {
    /// The last size that is complete.
    fn take(&mut self, data: &[u8]) -> Result<Option<Size>, Fault> {
        self.0.extend_from_slice(data);
        let mut documents = serde_json::Deserializer::from_slice(&self.0).into_iter::<Size>();
        let mut last = None;
        for document in documents.by_ref() {
            match document {
                Ok(size) => last = Some(size),
                Err(error) if error.is_eof() => break,
                Err(error) => return Err(Fault::data(format!("the size of the terminal is no size: {error}"))),
            }
        }
        let read = documents.byte_offset();
        self.0.drain(..read);
        if self.0.len() > DOCUMENT {
            return Err(Fault::size("the size of the terminal is longer than a size can be"));
        }
        Ok(last)
    }
}

#[cfg(test)]
mod tests;
