use proptest::prelude::*;

use super::{
    pax::{read_pax, time},
    *,
};

fn entries(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, UnpackError> {
    let mut archive = Archive::new(bytes);
    let mut found = Vec::new();
    while let Some(entry) = archive.next()? {
        let mut content = Vec::new();
        loop {
            let piece = archive.content()?;
            if piece.is_empty() {
                break;
            }
            content.extend_from_slice(piece);
            let count = piece.len();
            archive.consume(count);
        }
        found.push((entry, content));
    }
    Ok(found)
}

fn header(kind: u8, path: &str, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_path(path).unwrap();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    header
}

fn blocks(content: &[u8]) -> Vec<u8> {
    let mut padded = content.to_vec();
    padded.resize(content.len().div_ceil(BLOCK) * BLOCK, 0);
    padded
}

fn joined(parts: &[(Header, &[u8])]) -> Vec<u8> {
    parts.iter().flat_map(|(header, content)| [header.as_bytes().to_vec(), blocks(content)].concat()).collect()
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_pax_extensions(records.iter().map(|(key, value)| (*key, value.as_bytes()))).unwrap();
    let archive = builder.into_inner().unwrap();
    let size = Header::from_byte_slice(&archive[..BLOCK]).entry_size().unwrap();
    archive[BLOCK..BLOCK + usize::try_from(size).unwrap()].to_vec()
}

#[test]
fn long_names_of_both_kinds() {
    let long = "n".repeat(600);
    let records = pax(&[("path", &long), ("linkpath", "there")]);
    let bytes = joined(&[
        (header(b'L', "././@LongLink", 601), format!("{long}\0").as_bytes()),
        (header(b'0', "short", 3), b"abc"),
        (header(b'x', "pax", records.len() as u64), &records),
        (header(b'2', "short", 0), b""),
    ]);
    let found = entries(&bytes).unwrap();
    assert_eq!((found[0].0.path.len(), found[0].1.as_slice()), (600, b"abc".as_slice()));
    assert_eq!((found[1].0.path.len(), found[1].0.link.as_slice()), (600, b"there".as_slice()));
}

#[test]
fn pax_records() {
    let records = [("mtime", "1500000000.123456789"), ("SCHILY.xattr.a", "\n"), ("uid", "100000"), ("size", "")];
    let pax = read_pax(&pax(&records)).unwrap();
    assert_eq!((pax.mtime, pax.uid, pax.size), (Some((1_500_000_000, 123_456_789)), Some(100_000), None));
    assert_eq!(pax.xattrs, [(b"a".to_vec(), b"\n".to_vec())]);
    for broken in
        [&b"5 a=b\n"[..], b"99 a=b\n", b"6 abc\n", b"x a=b\n", b" a=b\n", b"0 a=b\n", b"7 uid=x\n", b"10 size=-1\n"]
    {
        assert!(read_pax(broken).is_err(), "{}", broken.escape_ascii());
    }
}

#[test]
fn times_before_the_epoch_and_with_fractions() {
    assert_eq!(time(b"12"), Some((12, 0)));
    assert_eq!(time(b"12.5"), Some((12, 500_000_000)));
    assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
    assert_eq!(time(b"-3"), Some((-3, 0)));
    assert_eq!(time(b"1.1234567899"), Some((1, 123_456_789)));
    assert_eq!(time(b"now"), None);
}

#[test]
fn what_is_broken_is_refused() {
    let good = joined(&[(header(b'0', "a", 1000), &[1; 1000])]);
    assert!(entries(&good).is_ok());
    for cut in [100, 600, 1400] {
        assert!(entries(&good[..cut]).is_err(), "{cut}");
    }
    let mut changed = good.clone();
    changed[3] ^= 1;
    assert!(matches!(entries(&changed), Err(UnpackError::Broken(_))));
    let huge = joined(&[(header(b'L', "x", 1 << 40), b"")]);
    assert!(entries(&huge).unwrap_err().to_string().contains("larger than 1 MiB"));
}

#[test]
fn maps_of_holes_must_fit() {
    let sparse = |regions: &[(u64, u64)], whole: u64, size: u64| {
        let mut header = header(b'S', "s", size);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.set_real_size(whole);
        for (slot, (offset, length)) in gnu.sparse.iter_mut().zip(regions) {
            slot.set_offset(*offset);
            slot.set_length(*length);
        }
        header.set_cksum();
        entries(&joined(&[(header, &vec![7; usize::try_from(size).unwrap()])]))
    };
    let found = sparse(&[(512, 512), (4096, 100)], 5000, 612).unwrap();
    assert_eq!(found[0].0.kind, Kind::Sparse(vec![(512, 512), (4096, 100)], 5000));
    assert!(sparse(&[(512, 512), (600, 100)], 5000, 612).is_err());
    assert!(sparse(&[(512, 512)], 1000, 512).is_err());
    assert!(sparse(&[(512, 512)], 5000, 511).is_err());
}

#[test]
fn times_of_headers_may_be_before_the_epoch() {
    let with = |field: [u8; 12]| {
        let mut header = header(b'0', "a", 0);
        header.as_old_mut().mtime = field;
        header.set_cksum();
        entries(&joined(&[(header, b"")])).unwrap()[0].0.mtime
    };
    assert_eq!(with([0xff; 12]), (-1, 0));
    let mut field = [0xff; 12];
    field[4..].copy_from_slice(&(-315_619_200_i64).to_be_bytes());
    assert_eq!(with(field), (-315_619_200, 0));
    let mut field = [0; 12];
    (field[0], field[11]) = (0x80, 9);
    assert_eq!(with(field), (9, 0));
    assert_eq!(with(*b"            "), (0, 0));
    assert_eq!(with(*b"00000000012\0"), (10, 0));
}

/// A file's path may end in a slash, as old programs wrote folders; what it has of content is no part of the archive.
#[test]
fn content_of_folders_is_passed_over() {
    let inner = joined(&[(header(b'0', "hidden", 0), b"")]);
    let bytes = joined(&[(header(b'0', "folder/", inner.len() as u64), &inner), (header(b'0', "next", 1), b"x")]);
    let found = entries(&bytes).unwrap();
    let names: Vec<_> = found.iter().map(|(entry, _)| (entry.path.as_slice(), entry.kind.clone())).collect();
    assert_eq!(names, [(&b"folder/"[..], Kind::Directory), (b"next", Kind::File)]);
}

#[test]
fn sizes_beyond_everything_end_the_archive() {
    let mut header = header(b'0', "a", 0);
    header.as_old_mut().size = [0xff; 12];
    header.set_cksum();
    let bytes = joined(&[(header, b"x")]);
    assert!(entries(&bytes).is_err());
    let mut archive = Archive::new(&bytes[..]);
    assert!(archive.next().is_ok());
    assert!(archive.next().is_err());
}

/// One file with two regions, in each of the forms that GNU tar writes into PAX records.
#[test]
fn sparse_files_in_pax_form() {
    let regions = vec![(512, 512), (4096, 100)];
    let content = [[7; 512].to_vec(), [8; 100].to_vec()].concat();
    let one = [b"2\n512\n512\n4096\n100\n".to_vec(), vec![0; 512 - 19], content.clone()].concat();
    let name = ("GNU.sparse.name", "real");
    let zero = [
        ("GNU.sparse.size", "5000"),
        ("GNU.sparse.numblocks", "2"),
        ("GNU.sparse.offset", "512"),
        ("GNU.sparse.numbytes", "512"),
        ("GNU.sparse.offset", "4096"),
        ("GNU.sparse.numbytes", "100"),
        ("path", "real"),
    ];
    let map = ("GNU.sparse.map", "512,512,4096,100");
    let middle = [("GNU.sparse.size", "5000"), ("GNU.sparse.numblocks", "2"), map, name];
    let last = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), name, ("GNU.sparse.realsize", "5000")];
    let read = |records: &[(&str, &str)], content: &[u8]| {
        let records = pax(records);
        let size = content.len() as u64;
        let parts = [(header(b'x', "x", records.len() as u64), &records[..]), (header(b'0', "fake", size), content)];
        entries(&[joined(&parts), joined(&[(header(b'0', "next", 0), b"")])].concat())
    };
    for (records, stored) in [(&zero[..], &content), (&middle, &content), (&last, &one)] {
        let found = read(records, stored).unwrap();
        assert_eq!((found[0].0.path.as_slice(), found[0].0.size, &found[0].1), (&b"real"[..], 612, &content));
        assert_eq!(found[0].0.kind, Kind::Sparse(regions.clone(), 5000));
        assert_eq!(found[1].0.path, b"next");
        // What is stored must be what the map says.
        assert!(read(records, &stored[..stored.len() - 1]).is_err());
    }
    for broken in [
        &[("GNU.sparse.map", "512,512,4096"), ("GNU.sparse.size", "5000")][..],
        &[("GNU.sparse.map", "512,512,4096,100")],
        &[("GNU.sparse.map", "512,512,4096,100"), ("GNU.sparse.size", "4100")],
        &[("GNU.sparse.map", "512,512,600,100"), ("GNU.sparse.size", "5000")],
        &[("GNU.sparse.map", "x"), ("GNU.sparse.size", "5000")],
        &[("GNU.sparse.numbytes", "512"), ("GNU.sparse.size", "5000")],
        &[("GNU.sparse.major", "2"), ("GNU.sparse.minor", "0"), map, ("GNU.sparse.size", "5000")],
    ] {
        assert!(read(broken, &content).is_err(), "{broken:?}");
    }
    for broken in
        [&b"9\n1\n"[..], b"99999999\n", b"x\n", b"", b"111111111111111111111111111\n", b"1\n18446744073709551615\n9\n"]
    {
        let padded = [broken.to_vec(), vec![b'\n'; 512 - broken.len()], content.clone()].concat();
        assert!(read(&last, &padded).is_err(), "{}", broken.escape_ascii());
    }
}

proptest! {
    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = entries(&bytes);
    }

    #[test]
    fn never_panics_behind_a_good_checksum(raw in prop::collection::vec(any::<u8>(), BLOCK..BLOCK * 4), kind in any::<u8>()) {
        let mut bytes = raw;
        let mut header = Header::new_gnu();
        header.as_mut_bytes().copy_from_slice(&bytes[..BLOCK]);
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_cksum();
        bytes[..BLOCK].copy_from_slice(header.as_bytes());
        let _ = entries(&bytes);
    }

    #[test]
    fn pax_never_panics(bytes in prop::collection::vec(prop::sample::select(b"0123456789 =\npath.size".to_vec()), 0..60)) {
        let _ = read_pax(&bytes);
    }
}
