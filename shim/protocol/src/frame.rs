//! Framing: an 8-byte header, then one JSON message. File descriptors travel beside the first byte of the header
//! (`SCM_RIGHTS`), in the order in which the message names them.

use serde::{Serialize, de::DeserializeOwned};

/// Bytes of the header: length of the body and number of file descriptors, both `u32` little endian.
pub const HEADER: usize = 8;

/// The longest body that a peer accepts, in bytes. A plan with the environment of a thousand services is near 200 kB.
pub const MAX_BODY: usize = 16 << 20;

/// The most file descriptors that travel with one message (the kernel takes 253).
pub const MAX_FDS: usize = 128;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Length of the JSON body in bytes.
    pub body: usize,
    /// File descriptors that belong to this message.
    pub fds: usize,
}

/// Why bytes from the peer are not a message.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// a frame of {0} bytes is longer than the limit of 16 MiB
    #[error("a frame of {0} bytes is longer than the limit of {MAX_BODY} bytes")]
    TooLong(usize),
    /// a frame announces more file descriptors than allowed
    #[error("a frame announces {0} file descriptors, more than the limit of {MAX_FDS}")]
    TooManyFds(usize),
    /// the body is not the JSON of the expected message
    #[error("a frame's body is not a valid message")]
    Body(#[from] serde_json::Error),
}

/// Encodes a message with its header, ready to be sent together with `fds` file descriptors.
pub fn encode<T: Serialize>(message: &T, fds: usize) -> Result<Vec<u8>, FrameError> {
    if fds > MAX_FDS {
        return Err(FrameError::TooManyFds(fds));
    }
    let mut bytes = vec![0; HEADER];
    serde_json::to_writer(&mut bytes, message)?;
    let body = bytes.len() - HEADER;
    if body > MAX_BODY {
        return Err(FrameError::TooLong(body));
    }
    bytes[..4].copy_from_slice(&(body as u32).to_le_bytes());
    bytes[4..HEADER].copy_from_slice(&(fds as u32).to_le_bytes());
    Ok(bytes)
}

/// Reads a header, refusing what no honest peer sends.
pub fn decode_header(bytes: [u8; HEADER]) -> Result<Header, FrameError> {
    let [a, b, c, d, e, f, g, h] = bytes;
    let header =
        Header { body: u32::from_le_bytes([a, b, c, d]) as usize, fds: u32::from_le_bytes([e, f, g, h]) as usize };
    if header.body > MAX_BODY {
        return Err(FrameError::TooLong(header.body));
    }
    if header.fds > MAX_FDS {
        return Err(FrameError::TooManyFds(header.fds));
    }
    Ok(header)
}

/// Decodes a body.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    Ok(serde_json::from_slice(body)?)
}

#[cfg(test)]
mod tests;
