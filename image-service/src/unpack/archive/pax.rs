//! PAX records: `LENGTH KEY=VALUE\n`, as many as the header has.

use super::{super::UnpackError, sparse::SparseRecords};

const BROKEN: UnpackError = UnpackError::Broken("a PAX header is not a list of records");

/// Records of one PAX header.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<(i64, u32)>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: SparseRecords,
}

/// Reads the records. Values are bytes and may hold anything.
pub(super) fn read_pax(mut bytes: &[u8]) -> Result<Pax, UnpackError> {
    let mut pax = Pax::default();
    while !bytes.is_empty() {
        let space = bytes.iter().take(8).position(|byte| *byte == b' ').ok_or(BROKEN)?;
        let length: usize = decimal(&bytes[..space]).and_then(|length| length.try_into().ok()).ok_or(BROKEN)?;
        let record = bytes.get(space + 1..length).and_then(|record| record.strip_suffix(b"\n")).ok_or(BROKEN)?;
        bytes = &bytes[length..];
        let equals = record.iter().position(|byte| *byte == b'=').ok_or(BROKEN)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        // An empty value takes back what a global header said.
        match key {
            _ if value.is_empty() && !key.starts_with(b"SCHILY.xattr.") => {}
            b"path" => pax.path = Some(value.to_vec()),
            b"linkpath" => pax.link = Some(value.to_vec()),
            b"size" => pax.size = Some(decimal(value).ok_or(BROKEN)?),
            b"uid" => pax.uid = Some(decimal(value).ok_or(BROKEN)?),
            b"gid" => pax.gid = Some(decimal(value).ok_or(BROKEN)?),
            b"mtime" => pax.mtime = Some(time(value).ok_or(BROKEN)?),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    pax.xattrs.push((name.to_vec(), value.to_vec()));
                } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                    pax.sparse.add(name, value).ok_or(BROKEN)?;
                }
            }
        }
    }
    Ok(pax)
}

/// A number of digits alone.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    if digits { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

/// Seconds with a fraction, as `-1.5`.
pub(super) fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |text| (true, text));
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let mut nanos = 0;
    if let Some(fraction) = parts.next().filter(|fraction| !fraction.is_empty()) {
        let digits: Vec<u8> = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9).collect();
        nanos = u32::try_from(decimal(&digits)?).ok()?;
    }
    match (negative, nanos) {
        (false, _) => Some((seconds, nanos)),
        (true, 0) => Some((-seconds, 0)),
        (true, _) => Some((-seconds - 1, 1_000_000_000 - nanos)),
    }
}
