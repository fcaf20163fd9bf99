//! Archives that nobody makes in good faith, out of any bytes: each byte is a choice, and choices end in what is tame.

use tar::{EntryType, Header};

use super::sandbox::Sandbox;

const MAX_ENTRIES: usize = 64;

/// What is frequent, and what is rare: a refusal ends the archive, so that most must be fine.
const KINDS: (&[u8], &[u8]) = (b"0521", &[b'3', b'4', b'6', b'7', 0, b'S', b'x', b'L', b'K', b'g', b'V']);

const FOLDERS: (&[&str], &[&str]) = (&["a", "b", "c"], &["..", ".", "", "a/..", "b/a", ".wh.a", "../b", "root", "..a"]);

const NAMES: (&[&str], &[&str]) = (
    &["a", "b", "c", "d", ".wh.a", ".wh.b", ".wh..wh..opq"],
    &["..", ".", "", ".wh.", ".wh..", ".wh...", ".wh.c", ".wh..wh.plnk", "canary/file", "discard/0", "../a", "\u{0}"],
);

/// The bytes that choose.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn next(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    fn of<T: Copy>(&mut self, (frequent, rare): (&[T], &[T])) -> T {
        let byte = self.next();
        let all = if byte < 240 { frequent } else { rare };
        all[usize::from(byte) % all.len()]
    }
}

/// The archive that the bytes choose.
pub(super) fn archive(data: &[u8], sandbox: &Sandbox) -> Vec<u8> {
    let mut choices = Choices(data.iter());
    let (mut bytes, mut used) = (Vec::new(), Vec::new());
    for _ in 0..MAX_ENTRIES {
        if choices.0.as_slice().is_empty() {
            break;
        }
        entry(&mut bytes, &mut choices, sandbox, &mut used);
    }
    match choices.next() % 8 {
        // It ends without a mark, or early, or goes on behind the mark.
        1 => {}
        2 => bytes.truncate(bytes.len().saturating_sub(usize::from(choices.next()) * 4)),
        3 => bytes.extend([vec![0; 1024], vec![7; 700]].concat()),
        _ => bytes.extend([0; 1024]),
    }
    bytes
}

fn name(choices: &mut Choices<'_>, sandbox: &Sandbox) -> Vec<u8> {
    let outside = sandbox.path().as_os_str().as_encoded_bytes();
    match choices.next() {
        // Where the host's files are, by an absolute name and by one that climbs.
        250 => [outside, b"/canary/file"].concat(),
        251 => [outside, b"/canary"].concat(),
        252 => b"../../canary/file".to_vec(),
        253 => b"../../canary".to_vec(),
        254 => b"n".repeat(usize::from(choices.next()) + 100),
        255 => b"nnnnnn/".repeat(usize::from(choices.next()) * 3),
        count => {
            let mut parts: Vec<&str> = (0..count % 3).map(|_| choices.of(FOLDERS)).collect();
            parts.push(choices.of(NAMES));
            let slash = if count & 0x40 == 0 { "" } else { "/" };
            format!("{}{}{slash}", if count & 0x80 == 0 { "" } else { "/" }, parts.join("/")).into_bytes()
        }
    }
}

/// Where a link leads: often to something that is there, often out.
fn target(kind: u8, choices: &mut Choices<'_>, sandbox: &Sandbox, used: &[Vec<u8>]) -> Vec<u8> {
    let outside = sandbox.path().as_os_str().as_encoded_bytes();
    match choices.next() % if kind == b'1' { 128 } else { 16 } {
        0 => [outside, b"/canary/file"].concat(),
        1 => [outside, b"/canary/dir"].concat(),
        2 => b"../../canary/file".to_vec(),
        3 => b"../../canary".to_vec(),
        4 => b"..".to_vec(),
        5 => b"/".to_vec(),
        choice if choice > 6 && !used.is_empty() => used[usize::from(choice) % used.len()].clone(),
        _ => name(choices, sandbox),
    }
}

fn entry(bytes: &mut Vec<u8>, choices: &mut Choices<'_>, sandbox: &Sandbox, used: &mut Vec<Vec<u8>>) {
    let kind = choices.of(KINDS);
    let (path, link) = (name(choices, sandbox), target(kind, choices, sandbox, used));
    if matches!(kind, b'0' | b'7' | 0) {
        used.push(path.clone());
    }
    let (flags, rare) = (choices.next(), choices.next());
    // Names in all the places that there are for them.
    let mut records: Vec<(&str, Vec<u8>)> = Vec::new();
    if path.len() > 100 || flags & 1 != 0 {
        if flags & 2 == 0 { extension(bytes, b'L', &path) } else { records.push(("path", path.clone())) }
    }
    if link.len() > 100 || flags & 4 != 0 {
        if flags & 2 == 0 { extension(bytes, b'K', &link) } else { records.push(("linkpath", link.clone())) }
    }
    let mut content = vec![b'x'; usize::from(choices.next())];
    if rare % 8 == 1 {
        odd_records(&mut records, choices);
    }
    if !records.is_empty() {
        let all = records.iter().flat_map(|(key, value)| record(key, value)).collect::<Vec<_>>();
        extension(bytes, b'x', &all);
    }
    if matches!(kind, b'x' | b'g') {
        content = record("path", &link);
    } else if matches!(kind, b'L' | b'K') {
        content = link.clone();
    } else if !matches!(kind, b'0' | b'7' | 0 | b'S') {
        content.clear();
    }
    let mut header = if flags & 16 == 0 { Header::new_gnu() } else { Header::new_ustar() };
    header.set_entry_type(EntryType::new(kind));
    let old = header.as_old_mut();
    old.name[..path.len().min(100)].copy_from_slice(&path[..path.len().min(100)]);
    old.linkname[..link.len().min(100)].copy_from_slice(&link[..link.len().min(100)]);
    header.set_mode(u32::from(choices.next()) << 4 | 7);
    header.set_uid(u64::from(choices.next()) * 3);
    header.set_gid(5);
    header.set_mtime(u64::from(choices.next()));
    header.set_size(content.len() as u64);
    if matches!(kind, b'3' | b'4') {
        // Small numbers: 0:0 is overlayfs's whiteout.
        header.set_device_major(u32::from(flags >> 6)).unwrap();
        header.set_device_minor(u32::from(flags >> 6)).unwrap();
    }
    if kind == b'S' {
        sparse(&mut header, choices);
    }
    if rare % 16 == 2 {
        odd_number(&mut header, choices);
    }
    header.set_cksum();
    bytes.extend(header.as_bytes());
    bytes.extend(&content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
}

/// Attributes that may be and that may not, and files with holes.
fn odd_records(records: &mut Vec<(&str, Vec<u8>)>, choices: &mut Choices<'_>) {
    let value = choices.next();
    match value % 12 {
        0 => records.push(("SCHILY.xattr.trusted.overlay.opaque", b"y".to_vec())),
        1 => records.push(("SCHILY.xattr.trusted.overlay.redirect", b"/canary".to_vec())),
        2 => records.push(("SCHILY.xattr.user.overlay.whiteout", b"y".to_vec())),
        3 => records.push(("SCHILY.xattr.user.x", vec![value; usize::from(value)])),
        4 => records.push(("SCHILY.xattr.security.capability", vec![value; 20])),
        5 => records.push(("SCHILY.xattr.system.posix_acl_default", b"\x02\0\0\0".to_vec())),
        6 => records.push(("size", value.to_string().into_bytes())),
        7 => records.push(("mtime", b"-99999999999999999.5".to_vec())),
        8 => records.push(("uid", b"4294967295".to_vec())),
        9 => {
            records.push(("GNU.sparse.size", (u64::from(value) << 12).to_string().into_bytes()));
            let map = format!("{value},{},1000,{}", choices.next(), choices.next());
            records.push(("GNU.sparse.map", map.into_bytes()));
        }
        10 => {
            records.push(("GNU.sparse.major", b"1".to_vec()));
            records.push(("GNU.sparse.minor", b"0".to_vec()));
            records.push(("GNU.sparse.realsize", b"3000".to_vec()));
        }
        _ => records.push(("no such key", vec![value])),
    }
}

fn sparse(header: &mut Header, choices: &mut Choices<'_>) {
    let (whole, offset, length) = (choices.next(), choices.next(), choices.next());
    if let Some(gnu) = header.as_gnu_mut() {
        gnu.set_real_size(u64::from(whole) << 13);
        gnu.sparse[0].set_offset(u64::from(offset));
        gnu.sparse[0].set_length(u64::from(length));
        gnu.isextended[0] = u8::from(whole == 255);
    }
}

fn odd_number(header: &mut Header, choices: &mut Choices<'_>) {
    let byte = choices.next();
    let old = header.as_old_mut();
    match byte % 6 {
        0 => old.size = [0xff; 12],
        1 => old.size = *b"77777777777\0",
        2 => old.size.fill(byte),
        3 => old.mtime.fill(byte),
        4 => old.uid.fill(byte),
        _ => old.mode.fill(byte),
    }
}

fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
    let length = (rest.len() + 1..).find(|length| length.to_string().len() + rest.len() == *length).unwrap();
    [length.to_string().into_bytes(), rest].concat()
}

fn extension(bytes: &mut Vec<u8>, kind: u8, content: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::new(kind));
    header.set_path("extension").unwrap();
    header.set_size(content.len() as u64);
    header.set_cksum();
    bytes.extend(header.as_bytes());
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
}
