use proptest::prelude::*;

use super::*;

/// An answer or a signal, as systemd would write it.
pub fn message(kind: Kind, answers: u32, member: &str, error: &str, signature: &str, body: &[u8]) -> Vec<u8> {
    let mut message = Encoder::default();
    message.0.extend([b'l', kind as u8, 1, 1]);
    message.u32(body.len() as u32);
    message.u32(7);
    message.array(8, |message| {
        let mut text = |code, kind: &str, value: &str| {
            message.align(8);
            message.byte(code);
            message.signature(kind);
            if kind == "g" { message.signature(value) } else { message.string(value) }
        };
        text(MEMBER, "s", member);
        text(ERROR_NAME, "s", error);
        text(SIGNATURE, "g", signature);
        message.align(8);
        message.byte(REPLY_SERIAL);
        message.signature("u");
        message.u32(answers);
    });
    message.align(8);
    let mut bytes = message.finish();
    bytes.extend(body);
    bytes
}

#[test]
fn a_call_is_what_the_format_says() {
    let mut body = Encoder::default();
    body.string("a.scope");
    body.string("replace");
    let bytes = call(3, "StopUnit", "ss", &body.finish());
    // Little endian, a call, no flags, version 1; 24 bytes of body; the third call.
    assert_eq!(bytes[..12], [b'l', 1, 0, 1, 24, 0, 0, 0, 3, 0, 0, 0]);
    // The first field: code 1 (path), of type o.
    assert_eq!(bytes[16..20], [1, 1, b'o', 0]);
    assert_eq!(bytes[20..24], 25u32.to_le_bytes());
    assert_eq!(&bytes[24..49], b"/org/freedesktop/systemd1");
    assert_eq!(bytes.len() % 8, 0);
    assert_eq!(&bytes[bytes.len() - 24..], b"\x07\0\0\0a.scope\0\x07\0\0\0replace\0");
    let fixed = bytes[..FIXED].try_into().unwrap();
    assert_eq!(length(&fixed), Some(bytes.len()));
    let read = parse(&bytes).unwrap();
    assert_eq!((read.kind, read.member.as_str()), (Kind::Call, "StopUnit"));
    assert_eq!(read.body().string(), Some("a.scope"));
}

#[test]
fn the_first_item_of_an_array_is_aligned_and_the_gap_not_counted() {
    let mut body = Encoder::default();
    body.array(8, |body| body.u64(1));
    assert_eq!(body.finish(), [8, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    let mut body = Encoder::default();
    body.array(8, |_| ());
    assert_eq!(body.finish(), [0; 8]);
}

#[test]
fn lengths_that_are_absurd_are_no_messages() {
    let bytes = message(Kind::Return, 1, "m", "", "s", b"");
    let mut fixed: [u8; FIXED] = bytes[..FIXED].try_into().unwrap();
    fixed[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(length(&fixed), None);
    assert_eq!(parse(&bytes[..bytes.len() - 1]), None);
    fixed[0] = b'x';
    assert_eq!(length(&fixed), None);
}

proptest! {
    #[test]
    fn whatever_comes_is_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..200), fields in 0..200u32) {
        let _ = parse(&bytes);
        if bytes.len() >= FIXED {
            let body = (bytes.len() as u32).saturating_sub(16 + fields);
            bytes[..4].copy_from_slice(&[b'l', 2, 0, 1]);
            bytes[4..8].copy_from_slice(&body.to_le_bytes());
            bytes[12..16].copy_from_slice(&fields.to_le_bytes());
            if let Some(message) = parse(&bytes) {
                let _ = message.body().string();
            }
        }
    }
}
