use super::*;
use crate::{Request, ToShim};

#[test]
fn a_message_survives_the_wire() {
    let message = ToShim { id: 7, request: Request::ReopenLog { container: "c1".into() } };
    let bytes = encode(&message, 2).unwrap();
    let header = decode_header(bytes[..HEADER].try_into().unwrap()).unwrap();
    assert_eq!(header, Header { body: bytes.len() - HEADER, fds: 2 });
    let back: ToShim = decode(&bytes[HEADER..]).unwrap();
    assert_eq!(back, message);
}

#[test]
fn absurd_headers_are_refused() {
    let long = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    assert!(matches!(decode_header(long), Err(FrameError::TooLong(_))));
    let fds = [1, 0, 0, 0, 0xff, 0, 0, 0];
    assert!(matches!(decode_header(fds), Err(FrameError::TooManyFds(255))));
    assert!(matches!(encode(&1u8, MAX_FDS + 1), Err(FrameError::TooManyFds(_))));
}

#[test]
fn fields_that_a_newer_peer_adds_are_ignored() {
    let body = br#"{"id":1,"request":{"reopen_log":{"container":"c1","colour":"red"}}}"#;
    assert!(decode::<ToShim>(body).is_ok());
}
