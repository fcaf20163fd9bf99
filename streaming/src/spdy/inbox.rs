//! What has arrived for a stream and was not read yet.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Small pieces are put together up to this size.
const TOGETHER: usize = 16 << 10;

/// Pieces in order. Large ones share the memory of the connection's read buffer; small ones are copied, because each
/// would keep a whole read buffer alive.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pieces: VecDeque<Bytes>,
    /// Small pieces that came after all of `pieces`.
    tail: BytesMut,
    bytes: usize,
}

// === impl Inbox ===

impl Inbox {
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// Adds a piece; one of less than `small` bytes is copied.
    pub(super) fn push(&mut self, piece: Bytes, small: usize) {
        self.bytes += piece.len();
        if piece.is_empty() {
            return;
        }
        let copied = piece.len() < small;
        if !copied || self.tail.len() + piece.len() > TOGETHER {
            self.seal();
        }
        if copied {
            self.tail.extend_from_slice(&piece);
        } else {
            self.pieces.push_back(piece);
        }
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        if self.pieces.is_empty() {
            self.seal();
        }
        let piece = self.pieces.pop_front()?;
        self.bytes -= piece.len();
        Some(piece)
    }

    /// Throws everything away and says how much it was.
    pub(super) fn clear(&mut self) -> usize {
        std::mem::take(self).bytes
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(std::mem::take(&mut self.tail).freeze());
        }
    }
}
