//! How often a chatty container is read. One that writes line after line would wake the shim for every line; read a few
//! hundred times a second, it costs a fraction and nobody sees the difference. A container that says something now and
//! then is read at once.

use std::time::{Duration, Instant};

/// Output that comes within this time after other output is chatter.
const CHATTER: Duration = Duration::from_millis(2);

/// Pauses between reads of chatter, of which the longest is too short for a person to notice.
const FIRST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(5);

/// So little at a time is worth a pause; a container that writes more at a time is read as it writes.
const LITTLE: usize = 16 << 10;

/// So much in a pause is reason to make none: the container could come to wait for room.
const MUCH: usize = PIPE / 4;

/// Size that the pipe of a chatty container gets, so that the container need not wait while it is not read.
pub(crate) const PIPE: usize = 1 << 20;

/// When an output is read next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// As soon as there is something.
    AtOnce,
    /// Not before this time.
    At(Instant),
}

/// The pace of one output.
#[derive(Debug)]
pub(crate) struct Pace {
    last: Instant,
    /// The pause that is being made.
    pause: Option<Duration>,
    /// When it ends.
    pub(crate) until: Option<Instant>,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Pace {
        // Even the first line of a container may be alone.
        Pace { last: now - CHATTER, pause: None, until: None }
    }

    /// So many bytes were there to read at this time.
    pub(crate) fn read(&mut self, bytes: usize, now: Instant) -> Next {
        let chatter = now - self.last < CHATTER && bytes < LITTLE;
        self.last = now;
        self.pause = match self.pause {
            None => chatter.then_some(FIRST),
            Some(_) if bytes == 0 || bytes >= MUCH => None,
            Some(pause) if bytes < LITTLE => Some((pause * 2).min(LONGEST)),
            Some(pause) => Some(pause),
        };
        self.until = self.pause.map(|pause| now + pause);
        self.until.map_or(Next::AtOnce, Next::At)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_lines_are_read_at_once_and_chatter_less_and_less_often() {
        let begin = Instant::now();
        let at = |milliseconds| begin + Duration::from_millis(milliseconds);
        let mut pace = Pace::new(begin);
        assert_eq!(pace.read(10, begin), Next::AtOnce);
        assert_eq!(pace.read(10, at(10)), Next::AtOnce);
        assert_eq!(pace.read(10, at(11)), Next::At(at(12)));
        assert_eq!(pace.read(10, at(12)), Next::At(at(14)));
        assert_eq!(pace.read(10, at(14)), Next::At(at(18)));
        assert_eq!(pace.read(10, at(18)), Next::At(at(23)));
        assert_eq!(pace.read(10, at(23)), Next::At(at(28)), "no pause is longer");
        assert_eq!(pace.read(0, at(28)), Next::AtOnce, "it has calmed down");
        assert_eq!(pace.read(10, at(90)), Next::AtOnce);
    }

    #[test]
    fn who_writes_much_is_not_kept_waiting() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        for _ in 0..3 {
            assert_eq!(pace.read(LITTLE, now), Next::AtOnce);
        }
        assert_eq!(pace.read(1, now), Next::At(now + FIRST));
        assert_eq!(pace.read(LITTLE, now), Next::At(now + FIRST));
        assert_eq!(pace.read(MUCH, now), Next::AtOnce);
    }
}
