//! What a client does wrong.

use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// A client that does not keep to the protocol: its session ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the client does not keep to the protocol: {message}")]
pub(crate) struct Fault {
    /// For WebSocket clients.
    pub(crate) code: CloseCode,
    pub(crate) message: String,
}

impl Fault {
    /// A message where none or another belongs.
    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Self { code: CloseCode::Protocol, message: message.into() }
    }

    /// Content that is not what it must be.
    pub(crate) fn data(message: impl Into<String>) -> Self {
        Self { code: CloseCode::Invalid, message: message.into() }
    }

    /// More than is taken.
    pub(crate) fn size(message: impl Into<String>) -> Self {
        Self { code: CloseCode::Size, message: message.into() }
    }
}
