//! Records of a log: `TIME STREAM TAG TEXT`. A line of the container is one record with the tag `F`, or several with
//! the tag `P` and one with `F` behind them.

use memchr::memchr;

/// Which of the two outputs of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Out,
    Err,
}

/// One record, without its newline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) time: &'a [u8],
    pub(super) stream: Stream,
    /// Whether the line ends with it.
    pub(super) full: bool,
    pub(super) text: &'a [u8],
}

/// What stands before the text is shorter than this.
pub(super) const HEAD: usize = 128;

/// Reads a record. `None` if it is of another form, so that somebody else has written it.
pub(super) fn parse(line: &[u8]) -> Option<Record<'_>> {
    let head = &line[..line.len().min(HEAD)];
    let time = memchr(b' ', head)?;
    let (stream, tag) = match line[time..].split_first_chunk()? {
        (b" stdout ", rest) => (Stream::Out, rest),
        (b" stderr ", rest) => (Stream::Err, rest),
        _ => return None,
    };
    // Tags are joined by colons, and the first of them is P or F. Without a text even the space may be missing.
    let (first, mut rest) = tag.split_first()?;
    let full = match first {
        b'F' => true,
        b'P' => false,
        _ => return None,
    };
    if let [b':', ..] = rest {
        rest = &rest[memchr(b' ', rest).unwrap_or(rest.len())..];
    }
    let text = match rest {
        [] => rest,
        [b' ', text @ ..] => text,
        _ => return None,
    };
    Some(Record { time: &line[..time], stream, full, text })
}

/// Whether an unparsable end of a file may be the beginning of a record: nothing of its text is there yet.
pub(super) fn may_become_one(line: &[u8]) -> bool {
    line.len() < HEAD
        && line.first().is_some_and(u8::is_ascii_digit)
        && line.iter().filter(|byte| **byte == b' ').count() < 3
}

#[cfg(test)]
mod tests {
    use super::{Record, Stream, may_become_one, parse};

    #[test]
    fn records_and_what_is_none() {
        let read = |line: &'static str| parse(line.as_bytes());
        let record = |time: &'static str, stream, full, text: &'static str| {
            Some(Record { time: time.as_bytes(), stream, full, text: text.as_bytes() })
        };
        assert_eq!(read("t stdout F a b"), record("t", Stream::Out, true, "a b"));
        assert_eq!(read("t stderr P a "), record("t", Stream::Err, false, "a "));
        assert_eq!(read("t stdout F:x:y a b"), record("t", Stream::Out, true, "a b"));
        assert_eq!(read("t stdout F "), record("t", Stream::Out, true, ""));
        assert_eq!(read("t stdout F"), record("t", Stream::Out, true, ""));
        assert_eq!(read("t stdout P:x"), record("t", Stream::Out, false, ""));
        assert_eq!(read("t stdout F  "), record("t", Stream::Out, true, " "));
        for line in
            ["", "hello", "t stdlog F x", "t stdout X x", "t stdout FX x", "t stdout", "t  stdout F x", "t stdout "]
        {
            assert_eq!(read(line), None, "{line:?}");
        }
    }

    #[test]
    fn beginnings_of_records() {
        assert!(may_become_one(b"2026-01-01T00:00:0"));
        assert!(may_become_one(b"2026-01-01T00:00:00Z std"));
        assert!(!may_become_one(b"hello"));
        assert!(!may_become_one(b"1 2 3 4"));
    }
}
