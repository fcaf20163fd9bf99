//! What can go wrong, by how far it reaches: headers and streams, or the whole connection.

use std::{io, sync::Arc};

use super::frame::{GoAwayStatus, Status};

/// Why an operation on a stream or connection failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The connection is over.
    #[error("SPDY connection ended: {0}")]
    Ended(#[from] Ended),
    /// The peer reset the stream.
    #[error("SPDY stream {stream} was reset by the peer: {status}")]
    Reset {
        /// Stream.
        stream: u32,
        /// The peer's reason.
        status: Status,
    },
    /// This side reset the stream.
    #[error("SPDY stream {stream} was reset on this side: {status}")]
    Cancelled {
        /// Stream.
        stream: u32,
        /// The reason given to the peer.
        status: Status,
    },
    /// This side of the stream is finished (a unidirectional stream of the peer always is).
    #[error("SPDY stream {0} takes no more data: this side has finished it")]
    Finished(u32),
    /// A second reply, or a reply to a stream that this side opened.
    #[error("SPDY stream {0} takes no reply")]
    NoReply(u32),
    /// One side has said goodbye, so no stream can be opened any more.
    #[error("SPDY connection takes no new streams: one side is going away")]
    GoingAway,
    /// The peer's limit of concurrent streams is reached.
    #[error("the SPDY peer allows {0} streams at once: wait for one to end")]
    TooManyStreams(u32),
    /// All stream ids of this connection are used.
    #[error("SPDY connection has used all its stream ids: open a new connection")]
    IdsExhausted,
    /// Headers to send are not valid.
    #[error("headers cannot be sent: {0}")]
    Headers(#[from] HeaderFault),
}

/// Why a connection ended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Ended {
    /// This side closed it.
    #[error("closed by this side")]
    Local,
    /// One side said goodbye and the last stream is gone.
    #[error("said goodbye: {0}")]
    GoAway(GoAwayStatus),
    /// The peer closed the byte stream between two frames.
    #[error("closed by the peer")]
    Eof,
    /// The peer closed the byte stream inside of a frame.
    #[error("closed by the peer in the middle of a frame")]
    Truncated,
    /// The peer closed its side while a full stream was not being read.
    #[error("closed by the peer while data was waiting to be read")]
    Gone,
    /// The peer broke the protocol.
    #[error("protocol error of the peer: {0}")]
    Malformed(#[from] Malformed),
    /// The peer makes this side answer but does not read the answers.
    #[error("the peer does not read what it asks for: {0} answers wait")]
    Flood(usize),
    /// The byte stream failed.
    #[error("byte stream failed: {0}")]
    Io(Arc<io::Error>),
}

/// How a peer broke the protocol beyond repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Another version of the protocol.
    #[error("control frame of version {0}, want 3")]
    Version(u16),
    /// A control frame that is too long.
    #[error("control frame of type {kind} with {length} bytes, the limit is {limit}")]
    TooLong {
        /// Type.
        kind: u16,
        /// Bytes.
        length: usize,
        /// Limit.
        limit: usize,
    },
    /// A control frame whose length does not fit its type.
    #[error("control frame of type {kind} with {length} bytes")]
    Length {
        /// Type.
        kind: u16,
        /// Bytes.
        length: usize,
    },
    /// Compressed headers that cannot be inflated.
    #[error("headers of stream {0} cannot be inflated")]
    Compression(u32),
    /// Headers that are too large once inflated.
    #[error("headers of stream {stream} inflate to more than {limit} bytes")]
    Bomb {
        /// Stream.
        stream: u32,
        /// Limit.
        limit: usize,
    },
    /// A frame that needs a stream names stream 0.
    #[error("frame of type {0} for stream 0")]
    StreamZero(u16),
    /// A stream id of the wrong parity, or smaller than an earlier one.
    #[error("stream {0} was opened out of order or with an id of this side")]
    StreamId(u32),
    /// A status or a value outside of its range.
    #[error("frame of type {kind} with the value {value}")]
    Value {
        /// Type.
        kind: u16,
        /// Value.
        value: u32,
    },
    /// More data than the window of the connection allowed.
    #[error("more data than the window of the connection allows")]
    Overrun,
    /// The window that the peer grants grew beyond 2^31 - 1.
    #[error("window of the connection grew beyond 2^31 - 1")]
    WindowOverflow,
}

/// How headers are wrong; the compression of the connection is not affected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// The block is shorter or longer than it says.
    #[error("block does not have the length that it says")]
    Length,
    /// Too many headers.
    #[error("more than {0} headers")]
    Count(usize),
    /// Too many bytes.
    #[error("more than {0} bytes")]
    Size(usize),
    /// A name that is empty, not lower case or not ASCII.
    #[error("a name is empty, not lower case or not ASCII")]
    Name,
    /// The same name twice.
    #[error("a name comes twice")]
    Duplicate,
    /// Several values with an empty one among them.
    #[error("one of several values is empty")]
    Value,
}

// === impl Malformed ===

impl Malformed {
    /// The stream that is told before the connection is, where the specification names a status for it.
    pub(super) fn stream_status(&self) -> Option<(u32, Status)> {
        match *self {
            Self::Bomb { stream, .. } => Some((stream, Status::FRAME_TOO_LARGE)),
            _ => None,
        }
    }
}

// === impl Ended ===

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Ended(error.into())
    }
}
