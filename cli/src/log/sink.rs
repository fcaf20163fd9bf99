//! Where lines are shown: standard output and standard error, written in large pieces.

use std::{
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
};

use super::record::Stream;

/// Bytes that are written at once.
const PIECE: usize = 128 << 10;

/// Both outputs. What is pushed is shown by [`Sink::flush`] at the latest.
pub(crate) struct Sink {
    out: Buffered,
    /// `None` if both are one file or terminal: the order between them is kept then.
    err: Option<Buffered>,
}

struct Buffered {
    to: Box<dyn Write + Send>,
    bytes: Vec<u8>,
}

// === impl Sink ===

impl Sink {
    /// The outputs of this program.
    pub(crate) fn standard() -> io::Result<Self> {
        let open = |end: BorrowedFd<'_>| end.try_clone_to_owned().map(File::from);
        let (out, err) = (open(io::stdout().as_fd())?, open(io::stderr().as_fd())?);
        let file = |file: &File| file.metadata().map(|data| (data.dev(), data.ino()));
        let one = file(&out)? == file(&err)?;
        Ok(Self { out: Buffered::new(out), err: (!one).then(|| Buffered::new(err)) })
    }

    /// Any two.
    #[cfg(test)]
    pub(super) fn new(out: impl Write + Send + 'static, err: Option<Box<dyn Write + Send>>) -> Self {
        Self { out: Buffered::new(out), err: err.map(|err| Buffered { to: err, bytes: Vec::new() }) }
    }

    /// Adds pieces of a line.
    pub(super) fn push(&mut self, stream: Stream, pieces: &[&[u8]]) -> io::Result<()> {
        let to = match (stream, &mut self.err) {
            (Stream::Err, Some(err)) => err,
            _ => &mut self.out,
        };
        for piece in pieces {
            to.bytes.extend_from_slice(piece);
        }
        if to.bytes.len() >= PIECE { to.flush() } else { Ok(()) }
    }

    /// Shows everything.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()?;
        self.err.as_mut().map_or(Ok(()), Buffered::flush)
    }
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sink").field("one", &self.err.is_none()).finish_non_exhaustive()
    }
}

// === impl Buffered ===

impl Buffered {
    fn new(to: impl Write + Send + 'static) -> Self {
        Self { to: Box::new(to), bytes: Vec::with_capacity(PIECE + PIECE / 2) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let written = self.to.write_all(&self.bytes);
        self.bytes.clear();
        written
    }
}
