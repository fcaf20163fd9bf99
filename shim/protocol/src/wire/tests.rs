use std::{io::Write, os::unix::net::UnixStream};

use super::*;
use crate::{Event, FromShim};

fn event(text: &str) -> FromShim {
    FromShim::Event(Event::ExecExited { exec: text.into(), code: 3 })
}

#[test]
fn messages_larger_than_the_socket_takes_arrive_in_order_with_their_descriptors() {
    let (a, b) = UnixStream::pair().unwrap();
    a.set_nonblocking(true).unwrap();
    b.set_nonblocking(true).unwrap();
    let messages = [event("small"), event(&"x".repeat(1 << 20)), event("last")];
    let mut out = Outgoing::default();
    for message in &messages {
        let null = std::fs::File::open("/dev/null").unwrap();
        out.push(frame::encode(message, 1).unwrap(), vec![null.into()]);
    }
    let mut incoming = Incoming::default();
    let mut got = Vec::new();
    while got.len() < messages.len() {
        let sent = out.send(&a);
        assert!(sent.is_ok() || sent.unwrap_err().kind() == io::ErrorKind::WouldBlock);
        match incoming.receive(&b) {
            Ok(frame) => got.push(frame.unwrap()),
            Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock),
        }
    }
    assert_eq!(out.waiting(), 0);
    for (frame, message) in got.iter().zip(&messages) {
        assert_eq!(frame.fds.len(), 1);
        assert_eq!(&frame::decode::<FromShim>(&frame.body).unwrap(), message);
    }
    drop(a);
    assert!(incoming.receive(&b).unwrap().is_none());
}

#[test]
fn a_stream_that_ends_within_a_frame_is_an_error() {
    let (mut a, b) = UnixStream::pair().unwrap();
    let bytes = frame::encode(&event("cut"), 0).unwrap();
    a.write_all(&bytes[..bytes.len() - 1]).unwrap();
    drop(a);
    let error = Incoming::default().receive(&b).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn announced_descriptors_that_do_not_come_are_an_error() {
    let (mut a, b) = UnixStream::pair().unwrap();
    a.write_all(&frame::encode(&event("none"), 1).unwrap()).unwrap();
    let error = Incoming::default().receive(&b).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}
