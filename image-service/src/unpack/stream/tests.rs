use std::io::Write;

use super::*;

/// What comes out of a blob, in whole, or why it does not.
fn out(blob: &[u8], limit: u64) -> io::Result<Vec<u8>> {
    let (sink, source) = mpsc::channel(1 << 16);
    blob.chunks(3000).for_each(|piece| sink.try_send(Bytes::copy_from_slice(piece)).unwrap());
    drop(sink);
    let (decompressor, mut stream) = chunks(source, Algorithm::Sha256, Algorithm::Sha256, limit);
    let first = std::thread::spawn(move || decompressor.run());
    let mut found = Vec::new();
    let result = stream.read_to_end(&mut found);
    drop(stream);
    let digest = first.join().unwrap();
    result?;
    assert_eq!(digest, Some(Digest::of(blob)));
    Ok(found)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// A frame without content that wants a window of so many bits.
fn window(bits: u8) -> Vec<u8> {
    vec![0x28, 0xb5, 0x2f, 0xfd, 0, (bits - 10) << 3, 1, 0, 0]
}

#[test]
fn several_members_and_frames_are_one_stream() {
    let (one, two) = (vec![1; 100_000], vec![2; 3]);
    let whole = [one.clone(), two.clone()].concat();
    let skipped = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
    for blob in [
        [gzip(&one), gzip(&two)].concat(),
        [gzip(&one), gzip(&[]), gzip(&two), gzip(&[])].concat(),
        [zstd(&one), zstd(&two)].concat(),
        [skipped.clone(), zstd(&one), skipped, zstd(&two)].concat(),
        whole.clone(),
    ] {
        assert_eq!(out(&blob, 1 << 20).unwrap(), whole);
    }
}

#[test]
fn rubbish_and_early_ends_are_errors() {
    let bytes: Vec<u8> = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
    for packed in [gzip(&bytes), zstd(&bytes)] {
        for rubbish in [&b"rubbish"[..], &[0; 512], &[0x1f, 0x8b]] {
            assert!(out(&[&packed, rubbish].concat(), 1 << 20).is_err(), "{rubbish:?} was taken");
        }
        for cut in [packed.len() - 1, packed.len() - 9, packed.len() / 2, 5] {
            assert!(out(&packed[..cut], 1 << 20).is_err(), "an end at {cut} was taken");
        }
        let mut changed = packed.clone();
        changed[packed.len() / 2] ^= 0x10;
        assert_ne!(out(&changed, 1 << 20).ok(), Some(bytes.clone()));
    }
}

#[test]
fn bombs_are_stopped() {
    for bomb in [gzip(&vec![0; 8 << 20]), zstd(&vec![0; 8 << 20])] {
        assert!(bomb.len() < 256 << 10);
        assert_eq!(out(&bomb, 1 << 20).unwrap_err().kind(), TOO_LARGE);
    }
}

#[test]
fn windows_are_limited() {
    assert_eq!(out(&window(27), 10).unwrap(), b"");
    for bits in [28, 31, 41] {
        assert!(out(&window(bits), 10).is_err(), "a window of {bits} bits was taken");
    }
}

#[test]
fn other_compressions_are_named() {
    for magic in [&b"BZh91AY&SY"[..], &[0xfd, b'7', b'z', b'X', b'Z', 0]] {
        let error = out(magic, 1 << 20).unwrap_err();
        assert!(error.to_string().contains("bzip2 or xz"), "{error}");
    }
}
