//! From bytes, in whatever pieces they come, to frames.
//!
//! Payloads of DATA frames come out as they arrive and share the buffer's memory; control frames are small and come
//! out whole.

use bytes::{Buf, Bytes, BytesMut};

use super::{
    config::Limits,
    error::{HeaderFault, Malformed},
    frame::{
        FLAG_CLEAR_SETTINGS, FLAG_FIN, FLAG_UNIDIRECTIONAL, Frame, GoAwayStatus, MAX_31, Setting, Status, VERSION, kind,
    },
    headers::Headers,
    zlib::{Fault, Inflater},
};

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A control frame.
    Frame(Frame),
    /// A frame whose headers are wrong: an error of its stream only.
    BadHeaders {
        /// Stream.
        stream: u32,
        /// Whether it was to open the stream.
        opens: bool,
        /// What is wrong.
        fault: HeaderFault,
    },
    /// A piece of a DATA frame, empty only if the whole frame is.
    Data {
        /// Stream.
        stream: u32,
        /// Bytes.
        payload: Bytes,
        /// The frame ends here and its sender sends nothing more.
        fin: bool,
    },
}

/// Reads frames.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    inflater: Inflater,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Between two frames, or inside of the first eight bytes of one.
    Prologue,
    Control {
        kind: u16,
        flags: u8,
        length: usize,
    },
    /// A control frame of a type that nobody knows.
    Skip {
        left: usize,
    },
    Data {
        stream: u32,
        fin: bool,
        left: usize,
    },
    Broken(Malformed),
}

// === impl Decoder ===

impl Decoder {
    /// A decoder at the start of a connection.
    pub fn new(limits: Limits) -> Self {
        Self { limits, inflater: Inflater::default(), state: State::Prologue }
    }

    /// Takes the next event off the buffer; `None` if more bytes are needed. After an error there is nothing but it.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Event>, Malformed> {
        let result = self.step(buffer);
        if let Err(malformed) = result {
            self.state = State::Broken(malformed);
        }
        result
    }

    /// Whether a frame has begun of which the rest is missing.
    pub fn inside_frame(&self) -> bool {
        !matches!(self.state, State::Prologue)
    }

    fn step(&mut self, buffer: &mut BytesMut) -> Result<Option<Event>, Malformed> {
        loop {
            match self.state {
                State::Prologue => {
                    let Some(prologue) = buffer.first_chunk::<8>() else { return Ok(None) };
                    self.state = self.prologue(*prologue)?;
                    buffer.advance(8);
                    if let State::Data { stream, fin, left: 0 } = self.state {
                        self.state = State::Prologue;
                        return Ok(Some(Event::Data { stream, payload: Bytes::new(), fin }));
                    }
                }
                State::Control { kind, flags, length } => {
                    if buffer.len() < length {
                        return Ok(None);
                    }
                    let event = self.control(kind, flags, &buffer[..length])?;
                    buffer.advance(length);
                    self.state = State::Prologue;
                    return Ok(Some(event));
                }
                State::Skip { left } => {
                    let now = left.min(buffer.len());
                    buffer.advance(now);
                    if now < left {
                        self.state = State::Skip { left: left - now };
                        return Ok(None);
                    }
                    self.state = State::Prologue;
                }
                State::Data { stream, fin, left } => {
                    if buffer.is_empty() {
                        return Ok(None);
                    }
                    let payload = buffer.split_to(left.min(buffer.len())).freeze();
                    let left = left - payload.len();
                    self.state = if left == 0 { State::Prologue } else { State::Data { stream, fin, left } };
                    return Ok(Some(Event::Data { stream, payload, fin: fin && left == 0 }));
                }
                State::Broken(malformed) => return Err(malformed),
            }
        }
    }

    fn prologue(&self, bytes: [u8; 8]) -> Result<State, Malformed> {
        let [a, b, c, d, flags, lengths @ ..] = bytes;
        let length = usize::from(lengths[0]) << 16 | usize::from(lengths[1]) << 8 | usize::from(lengths[2]);
        if a & 0x80 == 0 {
            let stream = u32::from_be_bytes([a, b, c, d]);
            if stream == 0 {
                return Err(Malformed::StreamZero(0));
            }
            return Ok(State::Data { stream, fin: flags & FLAG_FIN != 0, left: length });
        }
        let version = u16::from_be_bytes([a & 0x7f, b]);
        if version != VERSION {
            return Err(Malformed::Version(version));
        }
        let kind = u16::from_be_bytes([c, d]);
        let fits = match kind {
            kind::SYN_STREAM => length >= 10,
            kind::SYN_REPLY | kind::HEADERS => length >= 4,
            kind::SETTINGS => length >= 4 && length % 8 == 4,
            kind::RST_STREAM | kind::GOAWAY | kind::WINDOW_UPDATE => length == 8,
            kind::PING => length == 4,
            _ => return Ok(State::Skip { left: length }),
        };
        if !fits {
            return Err(Malformed::Length { kind, length });
        }
        if length > self.limits.control {
            return Err(Malformed::TooLong { kind, length, limit: self.limits.control });
        }
        Ok(State::Control { kind, flags, length })
    }

    fn control(&mut self, kind: u16, flags: u8, body: &[u8]) -> Result<Event, Malformed> {
        let fin = flags & FLAG_FIN != 0;
        let first = word(body, 0);
        let second = word(body, 4);
        let stream = first & MAX_31;
        let needs_stream = !matches!(kind, kind::SETTINGS | kind::PING | kind::GOAWAY | kind::WINDOW_UPDATE);
        if needs_stream && stream == 0 {
            return Err(Malformed::StreamZero(kind));
        }
        let frame = match kind {
            kind::SYN_STREAM => {
                let unidirectional = flags & FLAG_UNIDIRECTIONAL != 0;
                let (associated, priority) = (second & MAX_31, body[8] >> 5);
                match self.headers(stream, &body[10..])? {
                    Ok(headers) => Frame::SynStream { stream, associated, priority, fin, unidirectional, headers },
                    Err(fault) => return Ok(Event::BadHeaders { stream, opens: true, fault }),
                }
            }
            kind::SYN_REPLY | kind::HEADERS => match self.headers(stream, &body[4..])? {
                Ok(headers) if kind == kind::SYN_REPLY => Frame::SynReply { stream, fin, headers },
                Ok(headers) => Frame::Headers { stream, fin, headers },
                Err(fault) => return Ok(Event::BadHeaders { stream, opens: false, fault }),
            },
            kind::RST_STREAM if second == 0 => return Err(Malformed::Value { kind, value: 0 }),
            kind::RST_STREAM => Frame::RstStream { stream, status: Status(second) },
            kind::GOAWAY => Frame::GoAway { last_good: stream, status: GoAwayStatus(second) },
            kind::WINDOW_UPDATE => Frame::WindowUpdate { stream, delta: second & MAX_31 },
            kind::PING => Frame::Ping(first),
            _ => {
                if first as usize != body.len() / 8 {
                    return Err(Malformed::Value { kind, value: first });
                }
                let list = body[4..].chunks_exact(8).map(|entry| {
                    let (id, value) = (word(entry, 0), word(entry, 4));
                    Setting { flags: (id >> 24) as u8, id: id & 0xff_ffff, value }
                });
                Frame::Settings { clear: flags & FLAG_CLEAR_SETTINGS != 0, list: list.collect() }
            }
        };
        Ok(Event::Frame(frame))
    }

    fn headers(&mut self, stream: u32, block: &[u8]) -> Result<Result<Headers, HeaderFault>, Malformed> {
        let limit = self.limits.header_bytes;
        let block = self.inflater.inflate(block, limit).map_err(|fault| match fault {
            Fault::Corrupt => Malformed::Compression(stream),
            Fault::TooLarge => Malformed::Bomb { stream, limit },
        })?;
        Ok(Headers::decode(&block, self.limits.header_count))
    }
}

/// A number in the body of a control frame; 0 beyond its end, which the check of lengths keeps from mattering.
fn word(body: &[u8], at: usize) -> u32 {
    body.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_be_bytes(*bytes))
}
