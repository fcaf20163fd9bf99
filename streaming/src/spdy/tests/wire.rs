//! Frames, byte for byte, and in every kind of pieces.

use bytes::{BufMut, BytesMut};
use proptest::{collection::vec, option, prelude::*};

use super::{
    super::{
        dictionary::DICTIONARY,
        frame::data_header,
        zlib::{Fault, Inflater},
    },
    *,
};

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn encoded(frame: &Frame) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    frame.encode(&mut Deflater::new(), &mut bytes).unwrap();
    bytes.to_vec()
}

fn decoded(bytes: &[u8]) -> Result<Vec<Event>, Malformed> {
    let (mut decoder, mut buffer, mut events) = (Decoder::new(Limits::default()), BytesMut::from(bytes), Vec::new());
    while let Some(event) = decoder.next(&mut buffer)? {
        events.push(event);
    }
    Ok(events)
}

fn same(frame: &Frame, bytes: &str) {
    assert_eq!(encoded(frame), hex(bytes), "{frame:?}");
    assert_eq!(decoded(&hex(bytes)), Ok(vec![Event::Frame(frame.clone())]));
}

#[test]
fn frames_without_headers() {
    same(&Frame::Ping(1), "800300060000000400000001");
    same(&Frame::RstStream { stream: 3, status: Status::CANCEL }, "80030003000000080000000300000005");
    same(&Frame::GoAway { last_good: 7, status: GoAwayStatus::PROTOCOL_ERROR }, "80030007000000080000000700000001");
    same(&Frame::WindowUpdate { stream: 5, delta: 0x7fff_ffff }, "8003000900000008000000057fffffff");
    same(&Frame::WindowUpdate { stream: 0, delta: 1 }, "80030009000000080000000000000001");
    let list = vec![
        Setting { flags: 0, id: Setting::MAX_CONCURRENT_STREAMS, value: 100 },
        Setting { flags: 1, id: Setting::INITIAL_WINDOW_SIZE, value: 65536 },
    ];
    same(&Frame::Settings { clear: true, list }, "80030004010000140000000200000004000000640100000700010000");
    same(&Frame::Settings { clear: false, list: Vec::new() }, "800300040000000400000000");
}

#[test]
fn frames_with_data() {
    assert_eq!(data_header(5, true, 0x01_0203).to_vec(), hex("0000000501010203"));
    assert_eq!(
        decoded(&hex("000000050100000261620000000700000000")),
        Ok(vec![
            Event::Data { stream: 5, payload: "ab".into(), fin: true },
            Event::Data { stream: 7, payload: "".into(), fin: false },
        ])
    );
}

/// What stands before the compressed headers, and the headers themselves once inflated.
#[test]
fn frames_with_headers() {
    let headers = Headers::from_iter([("a", "1"), ("b", "2"), ("b", "3")]);
    let block = hex("0000000200000001610000000131000000016200000003320033");
    let frame = |flags| match flags {
        0 => Frame::SynReply { stream: 9, fin: true, headers: headers.clone() },
        1 => Frame::Headers { stream: 9, fin: false, headers: headers.clone() },
        _ => Frame::SynStream {
            stream: 9,
            associated: 3,
            priority: 5,
            fin: true,
            unidirectional: true,
            headers: headers.clone(),
        },
    };
    for (which, start, fixed) in
        [(0, "8003000201", "00000009"), (1, "8003000800", "00000009"), (2, "8003000103", "0000000900000003a000")]
    {
        let bytes = encoded(&frame(which));
        let start = hex(start);
        assert_eq!(bytes[..5], start);
        let length = usize::from(bytes[6]) << 8 | usize::from(bytes[7]);
        assert_eq!(length, bytes.len() - 8);
        let fixed = hex(fixed);
        assert_eq!(bytes[8..8 + fixed.len()], fixed);
        let compressed = &bytes[8 + fixed.len()..];
        assert_eq!(compressed[compressed.len() - 4..], hex("0000ffff"), "the block is complete for its reader");
        assert_eq!(Inflater::default().inflate(compressed, 1000), Ok(block.clone()));
        assert_eq!(decoded(&bytes), Ok(vec![Event::Frame(frame(which))]));
    }
}

/// A conversation's start as Go's spdystream writes it.
#[test]
fn frames_of_another_implementation() {
    let bytes = hex(concat!(
        "80030001010000290000000100000000000078f9e3c6a7c26260606004a7b392a2d4c45c6851c29a0a0a6800000000ffff",
        "800300020000000e000000016260606000000000ffff",
        "800300010000002200000003000000014000824ab314e417819232a78581850183a581a501000000ffff",
        "800300080000001200000003824a60297979901d04000000ffff",
    ));
    let syn = |stream, associated, priority, fin, headers| {
        Event::Frame(Frame::SynStream { stream, associated, priority, fin, unidirectional: false, headers })
    };
    let gzip = Headers::from_iter([("accept-encoding", "gzip,deflate")]);
    assert_eq!(
        decoded(&bytes),
        Ok(vec![
            syn(1, 0, 0, true, Headers::from_iter([("streamtype", "error")])),
            Event::Frame(Frame::SynReply { stream: 1, fin: false, headers: Headers::new() }),
            syn(3, 1, 2, false, Headers::from_iter([("port", "8080"), ("port", "9090")])),
            Event::Frame(Frame::Headers { stream: 3, fin: false, headers: gzip }),
        ])
    );
}

#[test]
fn the_dictionary_is_the_one_of_the_specification() {
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in DICTIONARY {
        a = (a + u32::from(byte)) % 65521;
        b = (b + a) % 65521;
    }
    assert_eq!(b << 16 | a, 0xe3c6_a7c2);
}

#[test]
fn frames_that_nobody_knows_are_skipped() {
    let mut bytes = hex("8003000500012345");
    bytes.resize(8 + 0x1_2345, 7);
    bytes.extend(hex("8003ffffff000000800300060000000400000002"));
    assert_eq!(decoded(&bytes), Ok(vec![Event::Frame(Frame::Ping(2))]));
}

/// Blocks refer to what was sent long before, beside the dictionary, and cost less for it.
#[test]
fn compression_of_a_long_conversation() {
    let (mut deflater, mut inflater) = (Deflater::new(), Inflater::default());
    let mut sizes = Vec::new();
    for i in 0..500_usize {
        let block: Vec<u8> = match i % 4 {
            0 => format!("accept-encoding streamtype {i} error port").into_bytes(),
            1 => vec![i as u8; i % 40],
            2 => (0..i * 50).map(|j| (j * j / 8) as u8).collect(),
            _ => b"if-modified-since: if-none-match: a value that comes again and again".to_vec(),
        };
        let mut out = BytesMut::new();
        deflater.deflate(&block, &mut out);
        assert_eq!(inflater.inflate(&out, 100_000), Ok(block), "block {i}");
        if i % 4 == 3 {
            sizes.push(out.len());
        }
    }
    assert!(sizes[0] < 68 && sizes[1] < sizes[0] && sizes[1] < 30, "{sizes:?}");
}

#[test]
fn malformed_frames() {
    for (bytes, fault) in [
        ("8002000600000004", Malformed::Version(2)),
        ("8003000600000005", Malformed::Length { kind: 6, length: 5 }),
        ("8003000100000009", Malformed::Length { kind: 1, length: 9 }),
        ("8003000200000003", Malformed::Length { kind: 2, length: 3 }),
        ("8003000800000000", Malformed::Length { kind: 8, length: 0 }),
        ("8003000300000009", Malformed::Length { kind: 3, length: 9 }),
        ("8003000700000004", Malformed::Length { kind: 7, length: 4 }),
        ("800300090000000c", Malformed::Length { kind: 9, length: 12 }),
        ("8003000400000008", Malformed::Length { kind: 4, length: 8 }),
        ("8003000400000000", Malformed::Length { kind: 4, length: 0 }),
        ("8003000400ffff04", Malformed::TooLong { kind: 4, length: 0xffff04, limit: 65536 }),
        ("80030001000fffff", Malformed::TooLong { kind: 1, length: 0xf_ffff, limit: 65536 }),
        ("80030004000000040000000100", Malformed::Value { kind: 4, value: 1 }),
        ("80030003000000080000000100000000", Malformed::Value { kind: 3, value: 0 }),
        ("80030003000000080000000000000001", Malformed::StreamZero(3)),
        ("8003000200000008800000000000000000", Malformed::StreamZero(2)),
        ("0000000000000000", Malformed::StreamZero(0)),
        ("80030002000000080000000100000000", Malformed::Compression(1)),
    ] {
        assert_eq!(decoded(&hex(bytes)), Err(fault), "{bytes}");
    }
    // Nothing comes after an error.
    let (mut decoder, mut buffer) = (Decoder::new(Limits::default()), BytesMut::from(&hex("8002000600000004")[..]));
    assert!(decoder.next(&mut buffer).is_err());
    let mut good = BytesMut::from(&hex("800300060000000400000002")[..]);
    assert_eq!(decoder.next(&mut good), Err(Malformed::Version(2)));
}

/// A block as it is, compressed without a dictionary.
fn frame_with_block(block: &[u8]) -> Vec<u8> {
    let mut stream = flate2::Compress::new(flate2::Compression::best(), true);
    let mut compressed = Vec::with_capacity(block.len() + 1000);
    stream.compress_vec(block, &mut compressed, flate2::FlushCompress::Sync).unwrap();
    let mut bytes = hex("80030002");
    bytes.put_u32(compressed.len() as u32 + 4);
    bytes.put_u32(1);
    bytes.extend(compressed);
    bytes
}

#[test]
fn malformed_headers() {
    for (block, fault) in [
        ("", HeaderFault::Length),
        ("000000", HeaderFault::Length),
        ("00000001", HeaderFault::Length),
        ("0000000000", HeaderFault::Length),
        ("00000001ffffffff", HeaderFault::Length),
        ("00000001000000016100000002", HeaderFault::Length),
        ("000000010000000161000000023131ff", HeaderFault::Length),
        ("00000001000000000000000131", HeaderFault::Name),
        ("0000000100000001410000000131", HeaderFault::Name),
        ("0000000100000001000000000131", HeaderFault::Name),
        ("0000000100000001e40000000131", HeaderFault::Name),
        ("00000002000000016100000000000000016100000000", HeaderFault::Duplicate),
        ("0000000100000001610000000100", HeaderFault::Value),
        ("000000010000000161000000023100", HeaderFault::Value),
        ("0000000100000001610000000431000031", HeaderFault::Value),
        ("ffffffff", HeaderFault::Count(128)),
    ] {
        let want = Event::BadHeaders { stream: 1, opens: false, fault };
        assert_eq!(decoded(&frame_with_block(&hex(block))), Ok(vec![want]), "{block}");
    }
    assert!(matches!(decoded(&frame_with_block(&hex("00000000"))).unwrap()[..], [Event::Frame(_)]));
}

#[test]
fn a_bomb_is_not_inflated() {
    let bomb = frame_with_block(&vec![0; 20 << 20]);
    assert!(bomb.len() < 64 << 10);
    assert_eq!(decoded(&bomb), Err(Malformed::Bomb { stream: 1, limit: 16 << 10 }));
    assert_eq!(Inflater::default().inflate(&bomb[12..], 5), Err(Fault::TooLarge));
    for size in [1, 63, 64, 65, 4095, 4096, 4097, 16 << 10] {
        let block = Inflater::default().inflate(&frame_with_block(&vec![7; size])[12..], 16 << 10).unwrap();
        assert!(block.len() == size && block.capacity() <= (16 << 10) + 1);
    }
}

#[test]
fn headers_that_cannot_be_sent() {
    for headers in [
        Headers::from_iter([("", "x")]),
        Headers::from_iter([("a b", "x")]),
        Headers::from_iter([("a", "x"), ("a", "")]),
        Headers::from_iter([("a", "x".repeat(20_000).as_str())]),
    ] {
        let (mut deflater, mut bytes) = (Deflater::new(), BytesMut::from("before"));
        assert!(Frame::SynReply { stream: 1, fin: false, headers }.encode(&mut deflater, &mut bytes).is_err());
        assert_eq!(bytes, "before");
    }
    let headers = Headers::from_iter([("Port", "1"), ("PORT", "2")]);
    assert_eq!(headers.values("port").collect::<Vec<_>>(), [b"1", b"2"]);
    assert_eq!(headers.iter().collect::<Vec<_>>(), [("port", &b"1\x002"[..])]);
}

fn headers() -> impl Strategy<Value = Headers> {
    let value = vec(1..=255_u8, 1..40);
    vec(("[!-@\\[-~]{1,20}", option::of(vec(value, 1..4))), 0..12).prop_map(|list| {
        let mut headers = Headers::new();
        for (name, values) in list {
            if headers.get(&name).is_some() || headers.values(&name).next().is_some() {
                continue;
            }
            match values {
                Some(values) => values.iter().for_each(|value| headers.insert(&name, value)),
                None => headers.insert(&name, ""),
            }
        }
        headers
    })
}

fn id() -> std::ops::RangeInclusive<u32> {
    1..=0x7fff_ffff
}

/// A frame, or the data of one.
fn anything() -> impl Strategy<Value = Result<Frame, (u32, Vec<u8>, bool)>> {
    let setting =
        (any::<u8>(), 0..0x100_0000_u32, any::<u32>()).prop_map(|(flags, id, value)| Setting { flags, id, value });
    let syn = (id(), 0..=0x7fff_ffff_u32, 0..8_u8, any::<bool>(), any::<bool>(), headers());
    prop_oneof![
        syn.prop_map(|(stream, associated, priority, fin, unidirectional, headers)| Ok(Frame::SynStream {
            stream,
            associated,
            priority,
            fin,
            unidirectional,
            headers
        })),
        (id(), any::<bool>(), headers()).prop_map(|(stream, fin, headers)| Ok(Frame::SynReply {
            stream,
            fin,
            headers
        })),
        (id(), any::<bool>(), headers()).prop_map(|(stream, fin, headers)| Ok(Frame::Headers { stream, fin, headers })),
        (id(), 1..=u32::MAX).prop_map(|(stream, status)| Ok(Frame::RstStream { stream, status: Status(status) })),
        (any::<bool>(), vec(setting, 0..10)).prop_map(|(clear, list)| Ok(Frame::Settings { clear, list })),
        any::<u32>().prop_map(|id| Ok(Frame::Ping(id))),
        (id(), any::<u32>())
            .prop_map(|(last_good, status)| Ok(Frame::GoAway { last_good, status: GoAwayStatus(status) })),
        (0..=0x7fff_ffff_u32, 0..=0x7fff_ffff_u32)
            .prop_map(|(stream, delta)| Ok(Frame::WindowUpdate { stream, delta })),
        (id(), vec(any::<u8>(), 0..300), any::<bool>()).prop_map(Err),
    ]
}

/// Feeds bytes in pieces of these sizes, again and again.
fn chopped(bytes: &[u8], sizes: &[usize]) -> (Result<(), Malformed>, Vec<Event>) {
    let (mut decoder, mut buffer, mut events) = (Decoder::new(Limits::default()), BytesMut::new(), Vec::new());
    let (mut rest, mut sizes) = (bytes, sizes.iter().cycle());
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min(sizes.next().copied().unwrap_or(1)));
        buffer.put_slice(now);
        rest = later;
        loop {
            match decoder.next(&mut buffer) {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(malformed) => return (Err(malformed), events),
            }
        }
    }
    (Ok(()), events)
}

/// Puts the pieces of DATA frames together again.
fn joined(events: Vec<Event>) -> Vec<Event> {
    let mut all: Vec<Event> = Vec::new();
    for event in events {
        if let Event::Data { stream, payload, fin } = &event
            && let Some(Event::Data { stream: before, payload: bytes, fin: last }) = all.last_mut()
            && stream == before
            && !*last
        {
            *bytes = [&bytes[..], payload].concat().into();
            *last = *fin;
            continue;
        }
        all.push(event);
    }
    all
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(frames in vec(anything(), 1..40), sizes in vec(1..200_usize, 1..10)) {
        let (mut deflater, mut bytes, mut want) = (Deflater::new(), BytesMut::new(), Vec::new());
        for frame in frames {
            match frame {
                Ok(frame) => {
                    frame.encode(&mut deflater, &mut bytes).unwrap();
                    want.push(Event::Frame(frame));
                }
                Err((stream, payload, fin)) => {
                    bytes.put_slice(&data_header(stream, fin, payload.len()));
                    bytes.put_slice(&payload);
                    want.push(Event::Data { stream, payload: payload.into(), fin });
                }
            }
        }
        let (result, events) = chopped(&bytes, &sizes);
        prop_assert_eq!(result, Ok(()));
        prop_assert_eq!(joined(events), joined(want));
    }

    #[test]
    fn any_bytes_in_any_pieces_give_the_same(bytes in vec(any::<u8>(), 0..600), sizes in vec(1..50_usize, 1..5)) {
        let (whole, events) = chopped(&bytes, &[usize::MAX]);
        let (pieces, same) = chopped(&bytes, &sizes);
        prop_assert_eq!(whole, pieces);
        prop_assert_eq!(joined(events), joined(same));
    }

    /// Bytes that start like frames, so that more than the first check is reached.
    #[test]
    fn almost_frames(list in vec((0..11_u16, any::<u8>(), vec(any::<u8>(), 0..60)), 1..10)) {
        let mut bytes = Vec::new();
        for (kind, flags, body) in list {
            bytes.put_u16(0x8003);
            bytes.put_u16(kind);
            bytes.put_u32(u32::from(flags) << 24 | body.len() as u32);
            bytes.put_slice(&body);
        }
        let (whole, events) = chopped(&bytes, &[usize::MAX]);
        let (pieces, same) = chopped(&bytes, &[1]);
        prop_assert_eq!(whole, pieces);
        prop_assert_eq!(joined(events), joined(same));
    }
}
