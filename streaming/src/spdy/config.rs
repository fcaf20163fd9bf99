//! What a connection is allowed to cost.

use std::{fmt, time::Duration};

use crate::BoxFuture;

/// Which side of the connection this is: clients open odd streams, servers even ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The side that asked for the upgrade.
    Client,
    /// The side that answered.
    Server,
}

/// Limits for what a [`Decoder`](super::Decoder) accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in a control frame, headers still compressed.
    pub control: usize,
    /// Bytes of one frame's headers, inflated.
    pub header_bytes: usize,
    /// Headers in one frame.
    pub header_count: usize,
}

/// Settings of a connection.
pub struct Config {
    /// Streams that the peer may have at once.
    pub max_streams: usize,
    /// Bytes that a stream keeps for its reader.
    pub inbox: usize,
    /// Bytes that all streams together keep for their readers.
    pub session: usize,
    /// Limits of frames.
    pub limits: Limits,
    /// Resolves when the peer has closed its side, even though unread data is left. Asked only while reading from the
    /// byte stream pauses because a stream is full; without it, the end is not noticed until there is room again.
    pub gone: Option<BoxFuture<()>>,
    /// How long a full stream's reader may still make no progress once `gone` has resolved.
    pub grace: Duration,
    /// How long the end may take: the last frames go out, then the peer closes its side.
    pub linger: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { control: 64 << 10, header_bytes: 16 << 10, header_count: 128 }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_streams: 4096,
            inbox: 256 << 10,
            session: 16 << 20,
            limits: Limits::default(),
            gone: None,
            grace: Duration::from_secs(1),
            linger: Duration::from_secs(2),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("max_streams", &self.max_streams)
            .field("inbox", &self.inbox)
            .field("session", &self.session)
            .field("limits", &self.limits)
            .field("gone", &self.gone.is_some())
            .field("grace", &self.grace)
            .field("linger", &self.linger)
            .finish()
    }
}
