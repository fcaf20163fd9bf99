//! Where the last lines of a file begin, found from its end.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
};

use memchr::memrchr;

use super::record::{HEAD, parse};

const BLOCK: usize = 64 << 10;

/// Where the last lines begin, and how many there are from there: fewer than wanted if the file has fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) offset: u64,
    pub(super) lines: usize,
}

/// Counts lines from the last record to the first.
#[derive(Debug)]
struct Count {
    wanted: usize,
    lines: usize,
    /// Whether a record was seen.
    any: bool,
    /// Whether a file follows, so that a line that is open at the end of this one is that file's.
    goes_on: bool,
}

impl Count {
    /// Takes the record before; true if the lines behind it are all that are wanted.
    fn passes(&mut self, record: &[u8]) -> bool {
        // What is of another form is a line as it is.
        let full = parse(record).is_none_or(|record| record.full);
        let last = !std::mem::replace(&mut self.any, true);
        // The last one may be a part whose line has not ended yet.
        let ends_a_line = full || last && !self.goes_on;
        if !ends_a_line {
            return false;
        }
        if self.lines == self.wanted {
            return true;
        }
        self.lines += 1;
        false
    }
}

/// Where the last lines of a file begin. `goes_on` says that another file follows it.
pub(super) fn start(file: &File, wanted: usize, goes_on: bool) -> io::Result<Start> {
    let end = file.metadata()?.len();
    let mut count = Count { wanted, lines: 0, any: false, goes_on };
    // Of each record only the head matters, so that blocks are read with what may be missing of it behind them.
    let mut buffer = vec![0; BLOCK + HEAD];
    let (mut from, mut record_end) = (end, end);
    while from > 0 {
        let size = from.min(BLOCK as u64);
        from -= size;
        let filled = fill(file, &mut buffer, from)?;
        let mut search = size as usize;
        while let Some(newline) = memrchr(b'\n', &buffer[..search]) {
            search = newline;
            let begin = from + newline as u64 + 1;
            // The newline at the very end ends the last record; it begins none.
            if begin == end {
                continue;
            }
            if count.passes(head(&buffer[newline + 1..filled], record_end - begin)) {
                return Ok(Start { offset: record_end, lines: count.lines });
            }
            record_end = begin;
        }
        if from == 0 && end > 0 && count.passes(head(&buffer[..filled], record_end)) {
            return Ok(Start { offset: record_end, lines: count.lines });
        }
    }
    Ok(Start { offset: 0, lines: count.lines })
}

/// The beginning of a record of this length, without its newline.
fn head(bytes: &[u8], length: u64) -> &[u8] {
    let length = usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len());
    let record = &bytes[..length];
    record.strip_suffix(b"\n").unwrap_or(record)
}

fn fill(file: &File, buffer: &mut [u8], from: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], from + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The same for what can only be read from its beginning: it is read twice, once to count.
pub(super) fn skip(
    open: impl Fn() -> io::Result<Option<Box<dyn Read>>>,
    wanted: usize,
) -> io::Result<(Option<Box<dyn Read>>, usize)> {
    let Some(first) = open()? else { return Ok((None, 0)) };
    let lines = ends(first, usize::MAX)?.0;
    let Some(mut second) = open()? else { return Ok((None, 0)) };
    let excess = lines.saturating_sub(wanted);
    let (_, rest) = ends(&mut second, excess)?;
    Ok((Some(Box::new(io::Cursor::new(rest).chain(second))), lines - excess))
}

/// Reads until this many lines have ended: how many have, and what was read beyond them.
fn ends(mut from: impl Read, limit: usize) -> io::Result<(usize, Vec<u8>)> {
    let (mut lines, mut held, mut chunk) = (0, Vec::new(), vec![0; BLOCK]);
    while lines < limit {
        let read = from.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        held.extend_from_slice(&chunk[..read]);
        let mut begin = 0;
        while lines < limit
            && let Some(end) = memchr::memchr(b'\n', &held[begin..])
        {
            lines += usize::from(parse(&held[begin..begin + end]).is_none_or(|record| record.full));
            begin += end + 1;
        }
        held.drain(..begin);
    }
    Ok((lines, held))
}

#[cfg(test)]
mod tests;
