//! Reads a container's log and looks whether all of it is there: lines as [`crate::inside`] prints them.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

use crate::{
    Failure,
    inside::{DIGITS, END},
};

const DAY: f64 = 86_400.0;

/// What is in a log, or in several.
#[derive(Debug)]
pub struct Text {
    /// Bytes of text with the ends of its lines.
    pub bytes: u64,
    /// Lines that are there.
    pub lines: u64,
    /// Lines that were printed.
    pub printed: u64,
    /// Time of the first line, in seconds of its day.
    pub first: f64,
    /// Time of the last line, in seconds of the same day.
    pub last: f64,
}

impl Text {
    /// Both together.
    pub fn with(self, other: &Text) -> Text {
        Text {
            bytes: self.bytes + other.bytes,
            lines: self.lines + other.lines,
            printed: self.printed + other.printed,
            first: self.first.min(other.first),
            last: self.last.max(other.last),
        }
    }
}

/// Reads a whole log with lines of `length`. A line that is missing is counted, one that is wrong an error.
pub fn read(path: &Path, length: usize) -> Result<Text, Failure> {
    let mut file = BufReader::with_capacity(1 << 20, File::open(path)?);
    let wrong = |what: &str, number: u64| format!("{}: {what} after {number} lines", path.display());
    let (mut line, mut text) = (Vec::new(), Vec::new());
    let mut found = Text { bytes: 0, lines: 0, printed: 0, first: f64::NAN, last: f64::NAN };
    loop {
        line.clear();
        if file.read_until(b'\n', &mut line)? == 0 {
            return Err(wrong("the log ends", found.lines).into());
        }
        let (stamp, tag, part) = split(&line).ok_or_else(|| wrong("a line in no known format", found.lines))?;
        if found.first.is_nan() {
            found.first = stamp;
        }
        found.last = if stamp < found.first { stamp + DAY } else { stamp };
        text.extend_from_slice(part);
        if tag == b'P' {
            continue;
        }
        found.bytes += text.len() as u64 + 1;
        if let Some(printed) = text.strip_prefix(END.as_bytes()) {
            found.printed = std::str::from_utf8(printed)?.parse()?;
            return Ok(found);
        }
        if text.len() + 1 != length {
            return Err(wrong("a line of another length", found.lines).into());
        }
        if length > DIGITS && std::str::from_utf8(&text[..DIGITS])?.parse::<u64>()? < found.lines {
            return Err(wrong("a line for the second time", found.lines).into());
        }
        found.lines += 1;
        text.clear();
    }
}

/// Time, tag and text of a line in the log.
fn split(line: &[u8]) -> Option<(f64, u8, &[u8])> {
    let mut parts = line.strip_suffix(b"\n")?.splitn(4, |byte| *byte == b' ');
    let (stamp, _stream, tag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    Some((seconds(stamp)?, *tag.first()?, text))
}

/// Seconds since midnight of `2026-11-22T14:21:19.123456789Z`, or with an offset instead of Z.
fn seconds(stamp: &[u8]) -> Option<f64> {
    let time = std::str::from_utf8(stamp.get(11..)?).ok()?;
    let end = time.find(|character: char| !character.is_ascii_digit() && character != ':' && character != '.')?;
    let mut fields = time[..end].split(':');
    let mut next = || fields.next()?.parse::<f64>().ok();
    Some(next()? * 3600.0 + next()? * 60.0 + next()?)
}

#[cfg(test)]
mod tests;
