//! Big blobs over several connections: pieces are fetched side by side and handed on in order.
//!
//! One connection is often slower than what lies behind it: each has its own share of a busy link, and its own window on
//! a long one. A download begins with one. Where that is what is waited for, and the registry sends parts of blobs, it
//! goes on in pieces; where that turns out to be no faster, or anything goes wrong, it goes on with one.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt, stream::FuturesOrdered};
use reqwest::{
    Method, Response, StatusCode,
    header::{ACCEPT_RANGES, CONTENT_RANGE},
};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{ask::Ask, body::Body, session::Session};
use crate::{config::Ranges, manifest::Descriptor};

/// One connection has to be waited for this long before others are opened.
const WAITED: Duration = Duration::from_millis(100);
/// After so many interruptions a blob is left to one connection.
const SETBACKS: u32 = 3;

/// What a download over one connection was waiting for, and what that says about more of them.
#[derive(Debug, Default)]
pub(super) struct Pace {
    bytes: u64,
    /// For the registry.
    network: Duration,
    /// For what unpacks.
    sink: Duration,
    setbacks: u32,
    never: bool,
}

impl Pace {
    pub(super) fn count(&mut self, bytes: usize, network: Duration, sink: Duration) {
        self.bytes += bytes as u64;
        self.network += network;
        self.sink += sink;
    }

    /// Whether the rest should come in pieces.
    pub(super) fn wants_pieces(&self, ranges: &Ranges, rest: u64) -> bool {
        !self.never
            && ranges.connections > 1
            && self.bytes >= ranges.piece_bytes
            && self.network > self.sink
            && self.network >= WAITED
            && rest > ranges.piece_bytes.saturating_mul(2)
    }

    /// Bytes a second, from the bytes and the time in which they came.
    fn rate(bytes: u64, time: Duration) -> u64 {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1);
        u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(nanos)).unwrap_or(u64::MAX)
    }

    /// Whether so many bytes in such a time are clearly better than one connection was.
    fn is_gain(&self, bytes: u64, time: Duration) -> bool {
        Self::rate(bytes, time) > Self::rate(self.bytes, self.network + self.sink) / 5 * 6
    }

    /// Goes on with one connection.
    pub(super) fn back(&mut self, why: End) {
        match why {
            End::NoRanges | End::NoGain => self.never = true,
            End::Failed => self.setbacks += 1,
            End::Complete | End::NoMemory | End::Abandoned => {}
        }
        self.never |= self.setbacks >= SETBACKS;
        (self.bytes, self.network, self.sink) = (0, Duration::ZERO, Duration::ZERO);
    }
}

/// Why no more pieces are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// All are there.
    Complete,
    /// The registry sends something else than the piece that it was asked for.
    NoRanges,
    /// It is no faster.
    NoGain,
    /// Others' pieces fill the memory.
    NoMemory,
    /// A piece did not come. The connection that goes on finds out why.
    Failed,
    /// Nobody takes them any more.
    Abandoned,
}

/// Whether a registry says that it sends parts.
pub(super) fn offers_ranges(response: &Response) -> bool {
    let offered = response.headers().get(ACCEPT_RANGES).is_some_and(|value| value.as_bytes() == b"bytes");
    offered || response.status() == StatusCode::PARTIAL_CONTENT
}

/// The first byte of an answer, and the number of all there are, by its `Content-Range`.
pub(super) fn content_range(response: &Response) -> Option<(u64, Option<u64>)> {
    let text = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, all) = text.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split('-').next()?.parse().ok()?, all.parse().ok()))
}

/// A piece that is here.
struct Piece {
    chunks: Vec<Bytes>,
    permit: OwnedSemaphorePermit,
}

impl Session {
    /// Whether there is memory for more than one piece.
    pub(super) fn has_room(&self) -> bool {
        self.registries.pieces.available_permits() > 1
    }

    /// Sends the bytes of a blob from `offset` on to `sink`, and moves `offset` by what was sent.
    pub(super) async fn pieces(
        &self,
        blob: &Descriptor,
        offset: &mut u64,
        sink: &mpsc::Sender<Bytes>,
        done: &AtomicU64,
        pace: &Pace,
    ) -> End {
        let ranges = &self.registries.ranges;
        let path = format!("blobs/{}", blob.digest);
        let (begin, first) = (Instant::now(), *offset);
        // Enough of them that the first, which has connections to open, does not decide.
        let trial = ranges.piece_bytes.saturating_mul(2 * ranges.connections as u64);
        let mut next = *offset;
        let mut end = None;
        let mut coming = FuturesOrdered::new();
        // What is here; a permit goes with the last chunk of its piece.
        let mut here: VecDeque<(Bytes, Option<OwnedSemaphorePermit>)> = VecDeque::new();
        let mut pieces_here = 0;
        loop {
            while end.is_none() && next < blob.size && coming.len() + pieces_here < ranges.connections {
                let Ok(permit) = Arc::clone(&self.registries.pieces).try_acquire_owned() else { break };
                let last = next.saturating_add(ranges.piece_bytes).min(blob.size) - 1;
                coming.push_back(self.piece(blob, &path, (next, last), permit));
                next = last + 1;
            }
            if coming.is_empty() && here.is_empty() {
                let complete = if next < blob.size { End::NoMemory } else { End::Complete };
                return end.unwrap_or(complete);
            }
            tokio::select! {
                slot = sink.reserve(), if !here.is_empty() => {
                    let (Ok(slot), Some((chunk, permit))) = (slot, here.pop_front()) else { return End::Abandoned };
                    *offset += chunk.len() as u64;
                    done.store(*offset, Ordering::Relaxed);
                    slot.send(chunk);
                    if permit.is_some() {
                        pieces_here -= 1;
                    }
                    let came = *offset - first;
                    if end.is_none() && came >= trial && came < 2 * trial && !pace.is_gain(came, begin.elapsed()) {
                        end = Some(End::NoGain);
                    }
                }
                Some(piece) = coming.next(), if !coming.is_empty() => match piece {
                    Ok(Piece { chunks, permit }) => {
                        here.extend(chunks.into_iter().map(|chunk| (chunk, None)));
                        if let Some(last) = here.back_mut() {
                            last.1 = Some(permit);
                            pieces_here += 1;
                        }
                    }
                    Err(why) => {
                        end = Some(why);
                        coming.clear();
                    }
                },
            }
        }
    }

    /// Bytes `from` to `to` of a blob, the last one too.
    async fn piece(
        &self,
        blob: &Descriptor,
        path: &str,
        (from, to): (u64, u64),
        permit: OwnedSemaphorePermit,
    ) -> Result<Piece, End> {
        let ask = Ask { from, to: Some(to), ..Ask::new(&Method::GET, path) };
        let what = format!("cannot download a piece of the layer {}", blob.digest);
        let (place, response) = self.first(&ask, &what, false).await.map_err(|error| {
            tracing::debug!(%error, cause = %error.problem, "a piece did not come");
            End::Failed
        })?;
        self.note_served(&blob.digest, place);
        let right = response.status() == StatusCode::PARTIAL_CONTENT
            && content_range(&response)
                .is_some_and(|(start, all)| start == from && all.is_none_or(|all| all == blob.size));
        if !right {
            return Err(End::NoRanges);
        }
        let mut left = to - from + 1;
        let mut body = Body::new(response, left, &self.registries.timeouts);
        let mut chunks = Vec::new();
        while let Some(chunk) = body.chunk().await.map_err(|_| End::Failed)? {
            left -= chunk.len() as u64;
            if !chunk.is_empty() {
                chunks.push(chunk);
            }
        }
        if left == 0 { Ok(Piece { chunks, permit }) } else { Err(End::Failed) }
    }
}

#[cfg(test)]
mod tests;
