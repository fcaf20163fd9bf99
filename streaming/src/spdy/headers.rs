//! Headers of a stream, and their form on the wire before compression.

use bytes::{BufMut, BytesMut};

use super::error::HeaderFault;

/// Names with values, in the order of the sender. Names are lower case; several values of one name are separated by
/// NUL on the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    list: Vec<(String, Vec<u8>)>,
}

/// Bytes of a block that this side is ready to send; more than any client needs, less than any peer refuses.
const MAX_BLOCK: usize = 16 << 10;

// === impl Headers ===

impl Headers {
    /// No headers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value: a first one, or one more for this name. The name is taken in lower case.
    pub fn insert(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let name = name.to_ascii_lowercase();
        let value = value.as_ref();
        match self.list.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => {
                values.push(0);
                values.extend_from_slice(value);
            }
            None => self.list.push((name, value.to_vec())),
        }
    }

    /// The first value of a name, where it is UTF-8. The name may have any case.
    pub fn get(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.values(name).next()?).ok()
    }

    /// All values of a name.
    pub fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let found = self.list.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.into_iter().flat_map(|(_, values)| values.split(|byte| *byte == 0))
    }

    /// Names with their values as they are on the wire.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.list.iter().map(|(name, values)| (name.as_str(), values.as_slice()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The block, uncompressed.
    pub(super) fn encode(&self) -> Result<BytesMut, HeaderFault> {
        let size = self.list.iter().fold(4, |sum, (name, values)| sum + 8 + name.len() + values.len());
        if size > MAX_BLOCK {
            return Err(HeaderFault::Size(MAX_BLOCK));
        }
        let mut block = BytesMut::with_capacity(size);
        // All lengths are below MAX_BLOCK.
        block.put_u32(self.list.len() as u32);
        for (name, values) in &self.list {
            check(name.as_bytes(), values)?;
            block.put_u32(name.len() as u32);
            block.put_slice(name.as_bytes());
            block.put_u32(values.len() as u32);
            block.put_slice(values);
        }
        Ok(block)
    }

    /// Reads a block of at most `count` headers.
    pub(super) fn decode(mut block: &[u8], count: usize) -> Result<Self, HeaderFault> {
        let wanted = length(&mut block)?;
        if wanted > count {
            return Err(HeaderFault::Count(count));
        }
        let mut list: Vec<(String, Vec<u8>)> = Vec::new();
        for _ in 0..wanted {
            let name = string(&mut block)?;
            let values = string(&mut block)?;
            check(name, values)?;
            let name = std::str::from_utf8(name).map_err(|_| HeaderFault::Name)?;
            if list.iter().any(|(known, _)| known == name) {
                return Err(HeaderFault::Duplicate);
            }
            list.push((name.to_owned(), values.to_vec()));
        }
        if block.is_empty() { Ok(Self { list }) } else { Err(HeaderFault::Length) }
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Headers {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(list: I) -> Self {
        let mut headers = Self::new();
        for (name, value) in list {
            headers.insert(name, value);
        }
        headers
    }
}

fn check(name: &[u8], values: &[u8]) -> Result<(), HeaderFault> {
    if name.is_empty() || !name.iter().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()) {
        return Err(HeaderFault::Name);
    }
    if !values.is_empty() && values.split(|byte| *byte == 0).any(<[u8]>::is_empty) {
        return Err(HeaderFault::Value);
    }
    Ok(())
}

fn length(block: &mut &[u8]) -> Result<usize, HeaderFault> {
    let (bytes, rest) = block.split_first_chunk().ok_or(HeaderFault::Length)?;
    *block = rest;
    usize::try_from(u32::from_be_bytes(*bytes)).map_err(|_| HeaderFault::Length)
}

fn string<'a>(block: &mut &'a [u8]) -> Result<&'a [u8], HeaderFault> {
    let length = length(block)?;
    let (string, rest) = block.split_at_checked(length).ok_or(HeaderFault::Length)?;
    *block = rest;
    Ok(string)
}
