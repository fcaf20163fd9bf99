//! Netlink without a background task: messages are built here, sent in one batch, and answered at once.
//!
//! The kernel works a batch off inside the `send` call, so every answer is in the queue when it returns. Nothing here
//! ever waits, which is why neither a connection task nor a time-out is needed. `route`, `nft` and `conntrack` know
//! what the messages mean.

use std::os::fd::OwnedFd;

use rustix::{
    io::Errno,
    net::{self, AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink as family},
};

pub(crate) const REQUEST: u16 = 0x1;
const MULTI: u16 = 0x2;
pub(crate) const ACK: u16 = 0x4;
pub(crate) const EXCL: u16 = 0x200;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const DUMP: u16 = 0x300;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

const ERROR: u16 = 2;
const DONE: u16 = 3;
const HEADER: usize = 16;

/// A refused message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The kernel said no to this step.
    #[error("{step}: {errno}")]
    Refused {
        /// What the message was to do.
        step: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The socket failed.
    #[error("netlink socket: {0}")]
    Socket(#[from] Errno),
    /// An answer that is no netlink message, or none at all.
    #[error("the kernel gave no complete answer to: {0}")]
    Answer(&'static str),
}

impl Error {
    /// The kernel's error number, if it gave one.
    pub(crate) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } | Self::Socket(errno) => Some(*errno),
            Self::Answer(_) => None,
        }
    }
}

/// Attributes in the order in which they are put.
#[derive(Debug, Default)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    /// Bytes as they are.
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.0.extend_from_slice(&length(value.len() + 4).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.pad()
    }

    /// A number in the machine's order.
    pub(crate) fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// A number in network order.
    pub(crate) fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Text with its closing zero.
    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// Attributes inside an attribute.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.0.len();
        self.0.extend_from_slice(&[0, 0]);
        self.0.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(self);
        let size = length(self.0.len() - start);
        self.0[start..start + 2].copy_from_slice(&size.to_ne_bytes());
        self
    }

    /// Bytes that are no attribute: the fixed header that some nested attributes begin with.
    pub(crate) fn raw(&mut self, value: &[u8]) -> &mut Self {
        self.0.extend_from_slice(value);
        self.pad()
    }

    /// Attributes that were made before.
    pub(crate) fn append(&mut self, other: &Self) -> &mut Self {
        self.0.extend_from_slice(&other.0);
        self
    }

    fn pad(&mut self) -> &mut Self {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }
}

/// Everything that we send is far below 64 KiB; a longer attribute would be a bug that the kernel refuses.
fn length(size: usize) -> u16 {
    u16::try_from(size).unwrap_or(u16::MAX)
}

/// One request.
#[derive(Debug)]
pub(crate) struct Message {
    step: &'static str,
    content: Attributes,
    tolerated: &'static [Errno],
    acknowledged: bool,
}

impl Message {
    /// A request with its fixed header; `step` says in an error what it was for.
    pub(crate) fn new(step: &'static str, kind: u16, flags: u16, header: &[u8]) -> Self {
        let mut content = Attributes::default();
        content.raw(&[0; 4]).raw(&[kind.to_ne_bytes(), (flags | REQUEST).to_ne_bytes()].concat()).raw(&[0; 8]);
        content.raw(header);
        Self { step, content, tolerated: &[], acknowledged: flags & ACK != 0 }
    }

    /// Adds attributes.
    pub(crate) fn with(mut self, fill: impl FnOnce(&mut Attributes)) -> Self {
        fill(&mut self.content);
        self
    }

    /// Takes these answers for success.
    pub(crate) fn tolerate(mut self, errors: &'static [Errno]) -> Self {
        self.tolerated = errors;
        self
    }

    fn seal(&mut self, sequence: u32) -> &[u8] {
        let size = u32::try_from(self.content.0.len()).unwrap_or(u32::MAX);
        self.content.0[0..4].copy_from_slice(&size.to_ne_bytes());
        self.content.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        &self.content.0
    }
}

/// A netlink socket. It belongs to the network namespace of the thread that opened it, for ever.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// For links, addresses and routes.
    pub(crate) fn route() -> Result<Self, Error> {
        Self::open(None)
    }

    /// For nf_tables and conntrack.
    pub(crate) fn netfilter() -> Result<Self, Error> {
        Self::open(Some(family::NETFILTER))
    }

    fn open(protocol: Option<Protocol>) -> Result<Self, Error> {
        let fd = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        Ok(Self { fd, sequence: 0, buffer: vec![0; 64 << 10] })
    }

    /// Sends all messages at once. The first refusal that is not tolerated is the error; the kernel still works off
    /// what comes after it (except in nf_tables, where a batch is all or nothing).
    pub(crate) fn execute(&mut self, messages: Vec<Message>) -> Result<(), Error> {
        let Some(last) = messages.last() else { return Ok(()) };
        let step = last.step;
        let (first, mut waiting) = (self.sequence.wrapping_add(1), 0);
        let mut packet = Vec::with_capacity(messages.len() * 128);
        let mut sent = Vec::with_capacity(messages.len());
        for mut message in messages {
            self.sequence = self.sequence.wrapping_add(1);
            packet.extend_from_slice(message.seal(self.sequence));
            waiting += usize::from(message.acknowledged);
            sent.push((message.step, message.tolerated));
        }
        net::send(&self.fd, &packet, SendFlags::empty())?;
        let mut failed = None;
        while waiting > 0 {
            let size = match self.receive() {
                Ok(size) => size,
                // A batch that was given up as a whole leaves the rest without an answer.
                Err(Errno::AGAIN) if failed.is_some() => break,
                Err(Errno::AGAIN) => return Err(Error::Answer(step)),
                Err(errno) => return Err(errno.into()),
            };
            for answer in answers(&self.buffer[..size]) {
                let Some(&(step, tolerated)) = sent.get(answer.sequence.wrapping_sub(first) as usize) else { continue };
                if answer.kind != ERROR {
                    continue;
                }
                waiting = waiting.saturating_sub(1);
                match answer.errno() {
                    Some(errno) if failed.is_none() && !tolerated.contains(&errno) => {
                        failed = Some(Error::Refused { step, errno });
                    }
                    _ => {}
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Sends a question and collects the payloads of its answers, of one message or of a whole dump.
    pub(crate) fn ask(&mut self, mut message: Message) -> Result<Vec<Vec<u8>>, Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let (sequence, step) = (self.sequence, message.step);
        net::send(&self.fd, message.seal(sequence), SendFlags::empty())?;
        let mut payloads = Vec::new();
        loop {
            let size = match self.receive() {
                Ok(size) => size,
                Err(Errno::AGAIN) => return Err(Error::Answer(step)),
                Err(errno) => return Err(errno.into()),
            };
            for answer in answers(&self.buffer[..size]) {
                if answer.sequence != sequence {
                    continue;
                }
                match answer.kind {
                    DONE => return Ok(payloads),
                    ERROR => match answer.errno() {
                        Some(errno) => return Err(Error::Refused { step, errno }),
                        None => return Ok(payloads),
                    },
                    _ => payloads.push(answer.payload.to_vec()),
                }
                if answer.flags & MULTI == 0 {
                    return Ok(payloads);
                }
            }
        }
    }

    fn receive(&mut self) -> Result<usize, Errno> {
        let (size, _) = net::recv(&self.fd, self.buffer.as_mut_slice(), RecvFlags::DONTWAIT)?;
        Ok(size)
    }
}

struct Answer<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

impl Answer<'_> {
    fn errno(&self) -> Option<Errno> {
        let code = self.payload.get(..4).and_then(|bytes| bytes.try_into().ok()).map_or(-5, i32::from_ne_bytes);
        (code != 0).then(|| Errno::from_raw_os_error(-code))
    }
}

fn answers(mut buffer: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    std::iter::from_fn(move || {
        let size = u32_at(buffer, 0)? as usize;
        let message = buffer.get(..size).filter(|message| message.len() >= HEADER)?;
        buffer = buffer.get(size.next_multiple_of(4)..).unwrap_or_default();
        Some(Answer {
            kind: u16_at(message, 4)?,
            flags: u16_at(message, 6)?,
            sequence: u32_at(message, 8)?,
            payload: &message[HEADER..],
        })
    })
}

/// Attributes of an answer, after its fixed header.
pub(crate) fn attributes(mut buffer: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let size = usize::from(u16_at(buffer, 0)?);
        let kind = u16_at(buffer, 2)? & TYPE_MASK;
        let value = buffer.get(4..size)?;
        buffer = buffer.get(size.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of a kind.
pub(crate) fn attribute(buffer: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(buffer).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// Text without its closing zero.
pub(crate) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

/// A number in the machine's order.
pub(crate) fn u32_at(buffer: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(buffer.get(offset..offset + 4)?.try_into().ok()?))
}

/// A number in the machine's order.
pub(crate) fn u16_at(buffer: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(buffer.get(offset..offset + 2)?.try_into().ok()?))
}

/// A number in the machine's order.
pub(crate) fn u64_at(buffer: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(buffer.get(offset..offset + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests;
