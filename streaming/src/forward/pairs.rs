//! Which two streams of a client belong together: one with data and one for errors, for each connection.
//!
//! Newer clients number their connections in the header `requestID`. Older ones open the error stream first and the
//! data stream right after it, so that their ids are neighbours.

use std::collections::{HashMap, VecDeque};

use tokio::time::{Duration, Instant};

/// The two kinds of streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Error,
}

/// What the headers of a stream say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) kind: Kind,
    pub(super) port: u16,
    key: Key,
}

/// What the streams of a pair have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Request(String),
    /// The id of the error stream.
    Stream(u32),
}

impl Label {
    /// Reads the headers of a stream; none if it belongs to no pair.
    pub(super) fn read<'a>(id: u32, header: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        let kind = match header("streamType")? {
            "data" => Kind::Data,
            "error" => Kind::Error,
            _ => return None,
        };
        let port = header("port")?.parse().ok().filter(|port| *port > 0)?;
        let key = match (header("requestID").filter(|id| !id.is_empty()), kind) {
            (Some(request), _) => Key::Request(request.to_owned()),
            (None, Kind::Error) => Key::Stream(id),
            (None, Kind::Data) => Key::Stream(id.checked_sub(2)?),
        };
        Some(Self { kind, port, key })
    }
}

/// Streams that wait for their partner.
#[derive(Debug)]
pub(super) struct Pairs<S> {
    patience: Duration,
    waiting: HashMap<Key, Half<S>>,
    /// In the order of their ends. Those that found a partner stay until then.
    ends: VecDeque<(Instant, Key)>,
}

#[derive(Debug)]
struct Half<S> {
    kind: Kind,
    stream: S,
    end: Instant,
}

/// What becomes of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Placed<S> {
    /// Its partner has not come yet.
    Waits,
    /// A pair is complete.
    Pair { data: S, error: S },
    /// There is one of this kind already.
    Twice(S),
}

impl<S> Pairs<S> {
    /// A stream waits so long.
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, waiting: HashMap::new(), ends: VecDeque::new() }
    }

    /// Takes a stream.
    pub(super) fn place(&mut self, label: Label, stream: S) -> Placed<S> {
        let Label { kind, key, .. } = label;
        match self.waiting.remove(&key) {
            None => {
                let end = Instant::now() + self.patience;
                self.ends.push_back((end, key.clone()));
                self.waiting.insert(key, Half { kind, stream, end });
                Placed::Waits
            }
            Some(half) if half.kind == kind => {
                self.waiting.insert(key, half);
                Placed::Twice(stream)
            }
            Some(half) if kind == Kind::Data => Placed::Pair { data: stream, error: half.stream },
            Some(half) => Placed::Pair { data: half.stream, error: stream },
        }
    }

    /// When the next one has waited too long.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.ends.front().map(|(end, _)| *end)
    }

    /// Those that have waited too long.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<(Kind, S)> {
        let mut expired = Vec::new();
        while let Some((end, key)) = self.ends.pop_front_if(|(end, _)| *end <= now) {
            // The same number may have been used again meanwhile.
            if self.waiting.get(&key).is_some_and(|half| half.end == end)
                && let Some(half) = self.waiting.remove(&key)
            {
                expired.push((half.kind, half.stream));
            }
        }
        expired
    }
}

#[cfg(test)]
mod tests;
