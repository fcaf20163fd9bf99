//! A log that grows, is renamed and made anew, from its oldest line or from one of the last to whatever comes.

use std::{
    fs::File,
    io::{self, ErrorKind, Read, Seek, SeekFrom},
    path::PathBuf,
};

use super::{
    moment::Window,
    printer::Printer,
    segments::{self, Inode, Segment},
    sink::Sink,
    tail,
};

/// Bytes that are read at once.
const CHUNK: usize = 256 << 10;

/// Shows a log.
#[derive(Debug)]
pub(crate) struct Follower {
    path: PathBuf,
    file: Option<Open>,
    printer: Printer,
    chunk: Vec<u8>,
}

/// The file that is read.
#[derive(Debug)]
struct Open {
    file: File,
    inode: Inode,
    offset: u64,
}

// === impl Follower ===

impl Follower {
    /// Follows the log at a path, which need not be there yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self::with(path, Window::default(), false)
    }

    pub(super) fn with(path: PathBuf, window: Window, timestamps: bool) -> Self {
        Self { path, file: None, printer: Printer::new(window, timestamps), chunk: vec![0; CHUNK] }
    }

    pub(super) fn window(&self) -> &Window {
        self.printer.window()
    }

    /// Shows what is in the files that were renamed before, and goes to where the rest begins: all of it, or the last
    /// lines.
    pub(super) fn begin(&mut self, last: Option<usize>, sink: &mut Sink) -> io::Result<()> {
        // Opened before the others are looked for: whatever is renamed from now on is this one, or comes after it.
        self.file = self.open()?;
        let mut before = segments::before(&self.path)?;
        if self.file.is_none() {
            // Renamed, and not made anew yet: the newest is the one that is still written to.
            self.file = before.last().map_or(Ok(None), Open::segment)?;
        }
        let here = self.file.as_ref().map(|open| open.inode);
        before.retain(|segment| Some(segment.inode) != here && self.printer.window().reaches(segment.written));
        let Some(wanted) = last else {
            return before.iter().try_for_each(|segment| self.show_segment(segment, sink));
        };
        let mut left = wanted;
        if let Some(open) = &mut self.file {
            let start = tail::start(&open.file, wanted, false)?;
            open.offset = start.offset;
            open.file.seek(SeekFrom::Start(start.offset))?;
            left -= start.lines;
        }
        let mut readers = Vec::new();
        while left > 0
            && let Some(segment) = before.pop()
        {
            let (reader, lines) = last_of(&segment, left)?;
            readers.extend(reader);
            left -= lines;
        }
        readers.into_iter().rev().try_for_each(|mut reader| self.show_all(&mut *reader, sink))
    }

    /// Shows what has come since the last time.
    pub(crate) fn show(&mut self, sink: &mut Sink) -> io::Result<()> {
        loop {
            if self.file.is_none() {
                self.file = self.open()?;
            }
            let Some(inode) = self.file.as_ref().map(|open| open.inode) else { break };
            self.show_rest(sink)?;
            let Some(next) = self.open()?.filter(|next| next.inode != inode) else { break };
            // Another file has this name. Between the look at the old one and that at the name, the old one may have
            // got its last lines.
            self.show_rest(sink)?;
            self.printer.end_of_file(sink)?;
            self.show_missed(inode, next.inode, sink)?;
            self.file = Some(next);
        }
        sink.flush()
    }

    /// Shows what has no end, for nothing more comes.
    pub(crate) fn finish(&mut self, sink: &mut Sink) -> io::Result<()> {
        self.printer.end_of_file(sink)?;
        sink.flush()
    }

    fn open(&self) -> io::Result<Option<Open>> {
        match File::open(&self.path) {
            Ok(file) => Open::new(file).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn show_rest(&mut self, sink: &mut Sink) -> io::Result<()> {
        let Some(open) = &mut self.file else { return Ok(()) };
        // Some tools copy a log and cut the file itself.
        if open.file.metadata()?.len() < open.offset {
            open.offset = open.file.seek(SeekFrom::Start(0))?;
        }
        open.offset += feed(&mut self.printer, &mut self.chunk, &mut open.file, sink)?;
        Ok(())
    }

    /// Files that had the name after the one that was read and before the one that has it now: renamed twice between
    /// two looks.
    fn show_missed(&mut self, read: Inode, now: Inode, sink: &mut Sink) -> io::Result<()> {
        let segments = segments::before(&self.path)?;
        let Some(at) = segments.iter().position(|segment| segment.inode == read) else { return Ok(()) };
        let missed = segments[at + 1..].iter().filter(|segment| segment.inode != now);
        missed.into_iter().try_for_each(|segment| self.show_segment(segment, sink))
    }

    fn show_segment(&mut self, segment: &Segment, sink: &mut Sink) -> io::Result<()> {
        match segment.open()? {
            Some(mut reader) => self.show_all(&mut *reader, sink),
            None => Ok(()),
        }
    }

    fn show_all(&mut self, from: &mut dyn Read, sink: &mut Sink) -> io::Result<()> {
        feed(&mut self.printer, &mut self.chunk, from, sink)?;
        self.printer.end_of_file(sink)
    }
}

// === impl Open ===

impl Open {
    fn new(file: File) -> io::Result<Self> {
        Ok(Self { inode: segments::inode(&file)?, file, offset: 0 })
    }

    /// A file that was renamed, unless it is packed or gone: nobody writes to it any more then.
    fn segment(segment: &Segment) -> io::Result<Option<Self>> {
        segment.plain().map(Self::new).transpose()
    }
}

/// Shows all that can be read; says how much that was.
fn feed(printer: &mut Printer, chunk: &mut [u8], from: &mut dyn Read, sink: &mut Sink) -> io::Result<u64> {
    let mut sum = 0;
    loop {
        match from.read(chunk) {
            Ok(0) => return Ok(sum),
            Ok(read) => {
                sum += read as u64;
                printer.feed(&chunk[..read], sink)?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The last lines of a file that another one follows, and how many these are.
fn last_of(segment: &Segment, wanted: usize) -> io::Result<(Option<Box<dyn Read>>, usize)> {
    let Some(mut file) = segment.plain() else { return tail::skip(|| segment.open(), wanted) };
    let start = tail::start(&file, wanted, true)?;
    file.seek(SeekFrom::Start(start.offset))?;
    Ok((Some(Box::new(file)), start.lines))
}

#[cfg(test)]
mod tests;
