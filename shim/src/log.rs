//! Container logs in the format that kubelet reads: `TIME STREAM TAG TEXT`, where the tag is F for a full line and P for
//! a part of one.
//!
//! Disks fill up. What cannot be written is counted, never waited for, and the log says so once it can be written again.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::clock;

/// Longest text of one line in the log; longer ones are split. Readers expect this limit.
pub(crate) const MAX_TEXT: usize = 16 << 10;

/// Bytes before the text: time, space, six letters of stream, space, tag, space.
const PREFIX: usize = clock::RFC3339_LENGTH + 10;

/// One of a container's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// Turns the bytes of one stream into lines of the log.
#[derive(Debug)]
pub(crate) struct Splitter {
    stream: Stream,
    /// The beginning of a line that has not ended yet, at most [`MAX_TEXT`] long.
    held: Vec<u8>,
}

/// A container's log file.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    lost: u64,
    /// How much of that the log does not tell of yet.
    unreported: u64,
}

// === impl Stream ===

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

// === impl Splitter ===

impl Splitter {
    pub(crate) fn new(stream: Stream) -> Splitter {
        Splitter { stream, held: Vec::new() }
    }

    /// Appends the lines in `bytes`, and the parts of lines that are too long to wait for their end, to `lines`.
    pub(crate) fn push(&mut self, stamp: &str, bytes: &[u8], lines: &mut Vec<u8>) {
        let full = self.prefix(stamp, b'F');
        let mut begin = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            let line = &bytes[begin..end];
            if self.held.is_empty() && line.len() <= MAX_TEXT {
                // Nearly every line comes this way. It is copied with its end: two copies a line.
                lines.extend_from_slice(&full);
                lines.extend_from_slice(&bytes[begin..=end]);
            } else {
                self.end_long(stamp, line, lines);
            }
            begin = end + 1;
        }
        if begin < bytes.len() {
            let rest = self.hold(stamp, &bytes[begin..], lines);
            let rest = self.emit_parts(stamp, rest, lines);
            self.held.extend_from_slice(rest);
        }
    }

    /// Ends a line that began earlier, or that has to be split, with `line`.
    fn end_long(&mut self, stamp: &str, line: &[u8], lines: &mut Vec<u8>) {
        let line = self.hold(stamp, line, lines);
        if self.held.is_empty() {
            let rest = self.emit_parts(stamp, line, lines);
            self.emit(stamp, b'F', rest, lines);
        } else {
            self.emit(stamp, b'F', &self.held, lines);
            // A quiet container keeps no memory.
            self.held = Vec::new();
        }
    }

    /// The stream has ended: what is held becomes a part that has no end.
    pub(crate) fn finish(&mut self, stamp: &str, lines: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        if !held.is_empty() {
            self.emit(stamp, b'P', &held, lines);
        }
    }

    /// Adds to what is held. When that is full and there is more, it is emitted and the rest of `bytes` returned;
    /// otherwise all of `bytes` is held, and nothing is left.
    fn hold<'b>(&mut self, stamp: &str, bytes: &'b [u8], lines: &mut Vec<u8>) -> &'b [u8] {
        if self.held.is_empty() {
            return bytes;
        }
        let (fits, rest) = bytes.split_at(bytes.len().min(MAX_TEXT - self.held.len()));
        self.held.extend_from_slice(fits);
        if !rest.is_empty() {
            let held = std::mem::take(&mut self.held);
            self.emit(stamp, b'P', &held, lines);
        }
        rest
    }

    /// Emits full parts as long as more follows, and returns the rest.
    fn emit_parts<'b>(&self, stamp: &str, mut text: &'b [u8], lines: &mut Vec<u8>) -> &'b [u8] {
        while text.len() > MAX_TEXT {
            let (part, rest) = text.split_at(MAX_TEXT);
            self.emit(stamp, b'P', part, lines);
            text = rest;
        }
        text
    }

    fn emit(&self, stamp: &str, tag: u8, text: &[u8], lines: &mut Vec<u8>) {
        lines.extend_from_slice(&self.prefix(stamp, tag));
        lines.extend_from_slice(text);
        lines.push(b'\n');
    }

    /// What stands before the text of a line: [`PREFIX`] bytes.
    fn prefix(&self, stamp: &str, tag: u8) -> Vec<u8> {
        let mut prefix = Vec::with_capacity(PREFIX);
        prefix.extend_from_slice(stamp.as_bytes());
        prefix.push(b' ');
        prefix.extend_from_slice(self.stream.name().as_bytes());
        prefix.extend_from_slice(&[b' ', tag, b' ']);
        prefix
    }
}

// === impl Log ===

impl Log {
    /// Opens the log at `path`, or makes it with its parent folders.
    pub(crate) fn open(path: &Path) -> io::Result<Log> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        Ok(Log { path: path.to_owned(), file: open(path)?, lost: 0, unreported: 0 })
    }

    /// Opens the file of this path anew. Until that succeeds, the old one is kept.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        self.file = open(&self.path)?;
        Ok(())
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of output that are not in the log.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// Writes lines as a [`Splitter`] made them.
    pub(crate) fn write(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        if self.unreported > 0 && !self.report() {
            self.lose(lines);
            return;
        }
        let whole = write_whole_lines(&mut self.file, lines);
        self.lose(&lines[whole..]);
    }

    /// Tells in the log how much is missing; `false` if that could not be written either.
    fn report(&mut self) -> bool {
        let mut line = Vec::new();
        let text =
            format!("tripod: {} bytes of output are missing here: the log could not be written", self.unreported);
        Splitter::new(Stream::Stderr).emit(&clock::rfc3339(clock::now()), b'F', text.as_bytes(), &mut line);
        let written = write_whole_lines(&mut self.file, &line) == line.len();
        if written {
            self.unreported = 0;
        }
        written
    }

    fn lose(&mut self, lines: &[u8]) {
        let newlines = lines.split_inclusive(|b| *b == b'\n');
        // A text may itself contain no newline, so that each of these is one line of the log.
        let bytes: usize = newlines.map(|line| line.len().saturating_sub(PREFIX + 1)).sum();
        self.lost += bytes as u64;
        self.unreported += bytes as u64;
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// Writes what can be written and returns its length, which always ends with a line: of a line that was written only in
/// part, that part is taken back.
fn write_whole_lines(file: &mut File, lines: &[u8]) -> usize {
    let mut written = 0;
    while written < lines.len() {
        match file.write(&lines[written..]) {
            Ok(0) => break,
            Ok(n) => written += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    let whole = lines[..written].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    if whole < written {
        // Nobody else writes to this file, so its end is ours.
        let end = file.metadata().map(|meta| meta.len());
        if let Ok(end) = end {
            let _ = file.set_len(end.saturating_sub((written - whole) as u64));
        }
    }
    whole
}

#[cfg(test)]
mod tests;
