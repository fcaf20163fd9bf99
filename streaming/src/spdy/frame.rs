//! Frames and how they are written.

use std::fmt;

use bytes::{BufMut, BytesMut};

use super::{error::HeaderFault, headers::Headers, zlib::Deflater};

/// Bytes before the payload of a DATA frame.
pub(super) const DATA_HEADER: usize = 8;
pub(super) const VERSION: u16 = 3;
pub(super) const FLAG_FIN: u8 = 1;
pub(super) const FLAG_UNIDIRECTIONAL: u8 = 2;
pub(super) const FLAG_CLEAR_SETTINGS: u8 = 1;
/// The largest stream id, window and window update.
pub(super) const MAX_31: u32 = 0x7fff_ffff;

/// Types of control frames.
pub(super) mod kind {
    pub(crate) const SYN_STREAM: u16 = 1;
    pub(crate) const SYN_REPLY: u16 = 2;
    pub(crate) const RST_STREAM: u16 = 3;
    pub(crate) const SETTINGS: u16 = 4;
    pub(crate) const PING: u16 = 6;
    pub(crate) const GOAWAY: u16 = 7;
    pub(crate) const HEADERS: u16 = 8;
    pub(crate) const WINDOW_UPDATE: u16 = 9;
}

/// Why a stream was reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u32);

/// Why a side goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoAwayStatus(pub u32);

/// One entry of a SETTINGS frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// 1: the peer should keep it; 2: it was kept.
    pub flags: u8,
    /// 24 bits.
    pub id: u32,
    /// Value.
    pub value: u32,
}

/// A control frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Opens a stream.
    SynStream {
        /// Its id.
        stream: u32,
        /// The stream to which it belongs, or 0.
        associated: u32,
        /// 0 is the most important, 7 the least.
        priority: u8,
        /// The sender sends nothing more.
        fin: bool,
        /// The receiver sends nothing at all.
        unidirectional: bool,
        /// Headers.
        headers: Headers,
    },
    /// Accepts a stream.
    SynReply {
        /// Stream.
        stream: u32,
        /// The sender sends nothing more.
        fin: bool,
        /// Headers.
        headers: Headers,
    },
    /// Ends a stream at once.
    RstStream {
        /// Stream.
        stream: u32,
        /// Reason.
        status: Status,
    },
    /// Announces values of the sender.
    Settings {
        /// Forget what was kept before.
        clear: bool,
        /// Values.
        list: Vec<Setting>,
    },
    /// Asks for an echo, or is one.
    Ping(u32),
    /// Asks the receiver to open no more streams.
    GoAway {
        /// The last stream of the receiver that the sender has accepted.
        last_good: u32,
        /// Reason.
        status: GoAwayStatus,
    },
    /// More headers of a stream.
    Headers {
        /// Stream.
        stream: u32,
        /// The sender sends nothing more.
        fin: bool,
        /// Headers.
        headers: Headers,
    },
    /// Lets the receiver send more.
    WindowUpdate {
        /// Stream, or 0 for the connection.
        stream: u32,
        /// Bytes.
        delta: u32,
    },
}

// === impl Status ===

impl Status {
    /// The frame is not valid at this point.
    pub const PROTOCOL_ERROR: Self = Self(1);
    /// No such stream.
    pub const INVALID_STREAM: Self = Self(2);
    /// Nothing was done with the stream; it may be tried again.
    pub const REFUSED_STREAM: Self = Self(3);
    /// Another version of the protocol.
    pub const UNSUPPORTED_VERSION: Self = Self(4);
    /// The stream is not needed any more.
    pub const CANCEL: Self = Self(5);
    /// The sender failed.
    pub const INTERNAL_ERROR: Self = Self(6);
    /// More data than the window allowed.
    pub const FLOW_CONTROL_ERROR: Self = Self(7);
    /// A second reply.
    pub const STREAM_IN_USE: Self = Self(8);
    /// Data after the end.
    pub const STREAM_ALREADY_CLOSED: Self = Self(9);
    /// A frame beyond the sender's limits.
    pub const FRAME_TOO_LARGE: Self = Self(11);
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            1 => "protocol error",
            2 => "invalid stream",
            3 => "refused",
            4 => "unsupported version",
            5 => "cancelled",
            6 => "internal error",
            7 => "flow control error",
            8 => "stream in use",
            9 => "stream already closed",
            11 => "frame too large",
            other => return write!(f, "status {other}"),
        })
    }
}

// === impl GoAwayStatus ===

impl GoAwayStatus {
    /// Nothing is wrong.
    pub const OK: Self = Self(0);
    /// The other side broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1);
    /// This side failed.
    pub const INTERNAL_ERROR: Self = Self(2);
}

impl fmt::Display for GoAwayStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 => "OK",
            1 => "protocol error",
            2 => "internal error",
            other => return write!(f, "status {other}"),
        })
    }
}

// === impl Setting ===

impl Setting {
    /// Streams that the receiver may have open at once.
    pub const MAX_CONCURRENT_STREAMS: u32 = 4;
    /// What the receiver may send on a new stream before an update of its window.
    pub const INITIAL_WINDOW_SIZE: u32 = 7;
}

// === impl Frame ===

impl Frame {
    /// Appends the frame. After an error nothing was appended and the compression is as before.
    pub fn encode(&self, deflater: &mut Deflater, out: &mut BytesMut) -> Result<(), HeaderFault> {
        match self {
            Self::SynStream { stream, associated, priority, fin, unidirectional, headers } => {
                let flags = flag(*fin, FLAG_FIN) | flag(*unidirectional, FLAG_UNIDIRECTIONAL);
                let mut fixed = [0; 10];
                fixed[..4].copy_from_slice(&(stream & MAX_31).to_be_bytes());
                fixed[4..8].copy_from_slice(&(associated & MAX_31).to_be_bytes());
                fixed[8] = priority << 5;
                with_headers(kind::SYN_STREAM, flags, &fixed, headers, deflater, out)?;
            }
            Self::SynReply { stream, fin, headers } => {
                let fixed = (stream & MAX_31).to_be_bytes();
                with_headers(kind::SYN_REPLY, flag(*fin, FLAG_FIN), &fixed, headers, deflater, out)?;
            }
            Self::Headers { stream, fin, headers } => {
                let fixed = (stream & MAX_31).to_be_bytes();
                with_headers(kind::HEADERS, flag(*fin, FLAG_FIN), &fixed, headers, deflater, out)?;
            }
            Self::RstStream { stream, status } => pair(kind::RST_STREAM, stream & MAX_31, status.0, out),
            Self::GoAway { last_good, status } => pair(kind::GOAWAY, last_good & MAX_31, status.0, out),
            Self::WindowUpdate { stream, delta } => pair(kind::WINDOW_UPDATE, stream & MAX_31, delta & MAX_31, out),
            Self::Ping(id) => {
                prologue(kind::PING, 0, 4, out);
                out.put_u32(*id);
            }
            Self::Settings { clear, list } => {
                prologue(kind::SETTINGS, flag(*clear, FLAG_CLEAR_SETTINGS), 4 + 8 * list.len(), out);
                out.put_u32(list.len() as u32);
                for setting in list {
                    out.put_u32(u32::from(setting.flags) << 24 | setting.id & 0xff_ffff);
                    out.put_u32(setting.value);
                }
            }
        }
        Ok(())
    }
}

/// What stands before the payload of a DATA frame.
pub(super) fn data_header(stream: u32, fin: bool, length: usize) -> [u8; DATA_HEADER] {
    let mut header = [0; DATA_HEADER];
    header[..4].copy_from_slice(&(stream & MAX_31).to_be_bytes());
    let rest = u32::from(flag(fin, FLAG_FIN)) << 24 | (length as u32 & 0xff_ffff);
    header[4..].copy_from_slice(&rest.to_be_bytes());
    header
}

fn flag(set: bool, flag: u8) -> u8 {
    if set { flag } else { 0 }
}

fn prologue(kind: u16, flags: u8, length: usize, out: &mut BytesMut) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    out.put_u32(u32::from(flags) << 24 | (length as u32 & 0xff_ffff));
}

fn pair(kind: u16, first: u32, second: u32, out: &mut BytesMut) {
    prologue(kind, 0, 8, out);
    out.put_u32(first);
    out.put_u32(second);
}

fn with_headers(
    kind: u16,
    flags: u8,
    fixed: &[u8],
    headers: &Headers,
    deflater: &mut Deflater,
    out: &mut BytesMut,
) -> Result<(), HeaderFault> {
    let block = headers.encode()?;
    let start = out.len();
    prologue(kind, flags, 0, out);
    out.put_slice(fixed);
    deflater.deflate(&block, out);
    let length = (out.len() - start - 8) as u32 & 0xff_ffff;
    out[start + 4..start + 8].copy_from_slice(&(u32::from(flags) << 24 | length).to_be_bytes());
    Ok(())
}
