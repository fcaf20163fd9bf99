//! Messages of D-Bus as they are on the wire: just enough of the format for a few methods of systemd.
//!
//! Values lie at multiples of their size, counted from the beginning of the message or, in a body, of the body: that
//! itself begins at a multiple of eight, so both are the same.

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A call of a method.
    Call = 1,
    /// An answer.
    Return = 2,
    /// An answer that says what went wrong.
    Error = 3,
    /// News.
    Signal = 4,
}

/// The fixed part at the beginning of each message.
pub const FIXED: usize = 16;

/// No message of systemd that is of interest is longer. The format allows 128 MiB.
pub const MAX_MESSAGE: usize = 1 << 20;

/// Writes values.
#[derive(Debug, Default)]
pub struct Encoder(Vec<u8>);

impl Encoder {
    /// All that was written.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }

    /// Fills up to a multiple of `size`.
    pub fn align(&mut self, size: usize) {
        self.0.resize(self.0.len().next_multiple_of(size), 0);
    }

    fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    /// `b`, `u` and `i`.
    pub fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }

    /// `t`.
    pub fn u64(&mut self, value: u64) {
        self.align(8);
        self.0.extend(value.to_le_bytes());
    }

    /// `s` and `o`.
    pub fn string(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// `g`.
    pub fn signature(&mut self, text: &str) {
        self.byte(text.len() as u8);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// An array of values that lie at multiples of `size`.
    pub fn array(&mut self, size: usize, items: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length_at = self.0.len() - 4;
        // What fills up to the first item does not count.
        self.align(size);
        let begin = self.0.len();
        items(self);
        let length = (self.0.len() - begin) as u32;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }
}

/// A call of a method of systemd's manager.
pub fn call(serial: u32, member: &str, signature: &str, body: &[u8]) -> Vec<u8> {
    let mut message = Encoder::default();
    message.0.extend([b'l', Kind::Call as u8, 0, 1]);
    message.u32(body.len() as u32);
    message.u32(serial);
    let mut fields: Vec<(u8, &str, &str)> = vec![
        (PATH, "o", "/org/freedesktop/systemd1"),
        (INTERFACE, "s", "org.freedesktop.systemd1.Manager"),
        (MEMBER, "s", member),
        (DESTINATION, "s", "org.freedesktop.systemd1"),
    ];
    if !signature.is_empty() {
        fields.push((SIGNATURE, "g", signature));
    }
    message.array(8, |message| {
        for (code, kind, value) in fields {
            message.align(8);
            message.byte(code);
            message.signature(kind);
            if kind == "g" { message.signature(value) } else { message.string(value) }
        }
    });
    message.align(8);
    let mut bytes = message.finish();
    bytes.extend(body);
    bytes
}

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// A message that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// Which call it answers.
    pub answers: u32,
    /// Name of the signal.
    pub member: String,
    /// Name of the error.
    pub error: String,
    big_endian: bool,
    body: Vec<u8>,
}

/// The length of a message by its fixed part; `None` if it is no message, or too long.
pub fn length(fixed: &[u8; FIXED]) -> Option<usize> {
    let mut decoder = Decoder::new(fixed, is_big(fixed[0])?);
    decoder.at = 4;
    let body = decoder.u32()? as usize;
    decoder.at = 12;
    let fields = decoder.u32()? as usize;
    let length = FIXED.checked_add(fields)?.checked_next_multiple_of(8)?.checked_add(body)?;
    (fixed[3] == 1 && length <= MAX_MESSAGE).then_some(length)
}

/// Reads a message; `None` if it is not one. Kinds that are yet to be invented are passed over as signals without name.
pub fn parse(bytes: &[u8]) -> Option<Message> {
    let fixed: &[u8; FIXED] = bytes.get(..FIXED)?.try_into().ok()?;
    if length(fixed)? != bytes.len() {
        return None;
    }
    let big_endian = is_big(fixed[0])?;
    let kind = match fixed[1] {
        1 => Kind::Call,
        2 => Kind::Return,
        3 => Kind::Error,
        _ => Kind::Signal,
    };
    let mut message =
        Message { kind, answers: 0, member: String::new(), error: String::new(), big_endian, body: Vec::new() };
    let mut fields = Decoder::new(bytes, big_endian);
    fields.at = 12;
    let end = fields.u32()? as usize + FIXED;
    while fields.at < end {
        fields.align(8);
        let code = fields.byte()?;
        let value = match fields.signature()? {
            "s" | "o" => Field::Text(fields.string()?),
            "g" => Field::Text(fields.signature()?),
            "u" => Field::Number(fields.u32()?),
            _ => return None,
        };
        match (code, value) {
            (REPLY_SERIAL, Field::Number(serial)) => message.answers = serial,
            (MEMBER, Field::Text(text)) => message.member = text.to_owned(),
            (ERROR_NAME, Field::Text(text)) => message.error = text.to_owned(),
            _ => {}
        }
    }
    let body = end.next_multiple_of(8);
    message.body = bytes.get(body..)?.to_vec();
    Some(message)
}

enum Field<'a> {
    Text(&'a str),
    Number(u32),
}

impl Message {
    /// Reads the body.
    pub fn body(&self) -> Decoder<'_> {
        Decoder::new(&self.body, self.big_endian)
    }
}

fn is_big(mark: u8) -> Option<bool> {
    match mark {
        b'l' => Some(false),
        b'B' => Some(true),
        _ => None,
    }
}

/// Reads values.
#[derive(Debug)]
pub struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
}

impl<'a> Decoder<'a> {
    fn new(bytes: &'a [u8], big_endian: bool) -> Self {
        Self { bytes, at: 0, big_endian }
    }

    fn align(&mut self, size: usize) {
        self.at = self.at.next_multiple_of(size);
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    /// `u`.
    pub fn u32(&mut self) -> Option<u32> {
        self.align(4);
        let bytes = self.take(4)?.try_into().ok()?;
        Some(if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    /// `s` and `o`.
    pub fn string(&mut self) -> Option<&'a str> {
        let length = self.u32()? as usize;
        self.text(length)
    }

    fn signature(&mut self) -> Option<&'a str> {
        let length = self.byte()?.into();
        self.text(length)
    }

    fn text(&mut self, length: usize) -> Option<&'a str> {
        let text = std::str::from_utf8(self.take(length)?).ok()?;
        (self.byte()? == 0).then_some(text)
    }
}

#[cfg(test)]
pub(super) mod tests;
