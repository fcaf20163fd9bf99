//! From the bytes of log files to lines: parts are joined, times chosen, what is cut off is shown as far as it goes.

use std::io;

use memchr::memchr;

use super::{
    moment::Window,
    record::{Stream, may_become_one, parse},
    sink::Sink,
};

/// A record that is longer is shown in pieces: those of kubelet's runtimes have 16 KiB, others have no limit.
const HELD: usize = 64 << 10;

/// Shows what it is fed with.
#[derive(Debug, Default)]
pub(super) struct Printer {
    window: Window,
    timestamps: bool,
    /// The beginning of a record whose end is not there yet.
    held: Vec<u8>,
    /// A record of which more comes than is held.
    long: Option<Long>,
    lines: [Line; 2],
}

/// The line of a stream that the last record of it belongs to.
#[derive(Debug, Default, Clone, Copy)]
struct Line {
    /// More of it follows.
    open: bool,
    shown: bool,
}

#[derive(Debug, Clone, Copy)]
struct Long {
    stream: Stream,
    shown: bool,
    /// Whether the line ends with it.
    full: bool,
}

// === impl Printer ===

impl Printer {
    pub(super) fn new(window: Window, timestamps: bool) -> Self {
        Self { window, timestamps, ..Self::default() }
    }

    pub(super) fn window(&self) -> &Window {
        &self.window
    }

    /// Shows the records in the next bytes of a file; the last one may be held until its end comes.
    pub(super) fn feed(&mut self, mut bytes: &[u8], sink: &mut Sink) -> io::Result<()> {
        if let Some(long) = self.long {
            let end = memchr(b'\n', bytes);
            let text = &bytes[..end.unwrap_or(bytes.len())];
            if long.shown {
                sink.push(long.stream, &[text])?;
            }
            let Some(end) = end else { return Ok(()) };
            self.end_long(long, sink)?;
            bytes = &bytes[end + 1..];
        }
        if !self.held.is_empty() {
            let Some(end) = memchr(b'\n', bytes) else { return self.hold(bytes, sink) };
            let mut held = std::mem::take(&mut self.held);
            held.extend_from_slice(&bytes[..end]);
            self.record(&held, sink)?;
            held.clear();
            self.held = held;
            bytes = &bytes[end + 1..];
        }
        while let Some(end) = memchr(b'\n', bytes) {
            self.record(&bytes[..end], sink)?;
            bytes = &bytes[end + 1..];
        }
        self.hold(bytes, sink)
    }

    /// Nothing more comes from this file: what is held has lost its end.
    pub(super) fn end_of_file(&mut self, sink: &mut Sink) -> io::Result<()> {
        if let Some(long) = self.long {
            return self.end_long(long, sink);
        }
        let held = std::mem::take(&mut self.held);
        if held.is_empty() || parse(&held).is_none() && may_become_one(&held) {
            return Ok(());
        }
        self.record(&held, sink)
    }

    fn record(&mut self, line: &[u8], sink: &mut Sink) -> io::Result<()> {
        let Some(record) = parse(line) else {
            // Shown as it is.
            return sink.push(Stream::Out, &[line, b"\n"]);
        };
        let (begins, shown) = self.begin(record.stream, record.time, record.full);
        if !shown {
            return Ok(());
        }
        let (time, space): (&[u8], &[u8]) = if begins && self.timestamps { (record.time, b" ") } else { (b"", b"") };
        sink.push(record.stream, &[time, space, record.text, if record.full { b"\n" } else { b"" }])
    }

    /// Whether a record begins a line, and whether that line is shown: its first record decides for all.
    fn begin(&mut self, stream: Stream, time: &[u8], full: bool) -> (bool, bool) {
        let line = &mut self.lines[stream as usize];
        let begins = !line.open;
        if begins {
            line.shown = self.window.contains(time);
        }
        line.open = !full;
        (begins, line.shown)
    }

    fn hold(&mut self, bytes: &[u8], sink: &mut Sink) -> io::Result<()> {
        self.held.extend_from_slice(bytes);
        if self.held.len() <= HELD {
            return Ok(());
        }
        let held = std::mem::take(&mut self.held);
        let long = match parse(&held) {
            Some(record) => {
                // As a part, so that the line goes on.
                let (begins, shown) = self.begin(record.stream, record.time, false);
                if shown && begins && self.timestamps {
                    sink.push(record.stream, &[record.time, b" "])?;
                }
                if shown {
                    sink.push(record.stream, &[record.text])?;
                }
                Long { stream: record.stream, shown, full: record.full }
            }
            None => {
                sink.push(Stream::Out, &[&held])?;
                Long { stream: Stream::Out, shown: true, full: true }
            }
        };
        self.long = Some(long);
        Ok(())
    }

    fn end_long(&mut self, long: Long, sink: &mut Sink) -> io::Result<()> {
        self.long = None;
        if long.full {
            self.lines[long.stream as usize].open = false;
            if long.shown {
                return sink.push(long.stream, &[b"\n"]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests;
