//! A peer that sends exactly the frames, or bytes, that a test wants.

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::{super::frame::data_header, *};

pub(super) struct Raw {
    pub(super) io: DuplexStream,
    deflater: Deflater,
    decoder: Decoder,
    buffer: BytesMut,
    /// One of the raw side's parity.
    ping: u32,
}

/// A connection in this role, and the raw peer of it, over a pipe of this many bytes.
pub(super) fn against(role: Role, config: Config, pipe: usize) -> (Connection, Incoming, Raw) {
    let (ours, theirs) = tokio::io::duplex(pipe);
    let (connection, incoming) = Connection::new(ours, role, config);
    let decoder = Decoder::new(Limits::default());
    let ping = if role == Role::Server { 0x7000_0001 } else { 0x7000_0002 };
    (connection, incoming, Raw { io: theirs, deflater: Deflater::new(), decoder, buffer: BytesMut::new(), ping })
}

/// A server and its raw client.
pub(super) fn server() -> (Connection, Incoming, Raw) {
    against(Role::Server, Config::default(), 1 << 20)
}

pub(super) fn syn(stream: u32) -> Frame {
    Frame::SynStream {
        stream,
        associated: 0,
        priority: 0,
        fin: false,
        unidirectional: false,
        headers: Headers::from_iter([("k", "v")]),
    }
}

pub(super) fn reply(stream: u32) -> Frame {
    Frame::SynReply { stream, fin: false, headers: Headers::new() }
}

pub(super) fn rst(stream: u32, status: Status) -> Frame {
    Frame::RstStream { stream, status }
}

impl Raw {
    pub(super) async fn send(&mut self, frame: Frame) {
        let mut bytes = BytesMut::new();
        frame.encode(&mut self.deflater, &mut bytes).unwrap();
        self.bytes(&bytes).await;
    }

    /// A control frame with headers that no encoder would write.
    pub(super) async fn block(&mut self, kind: u8, fixed: &[u8], block: &[u8]) {
        let mut bytes = BytesMut::from(&[0x80, 3, 0, kind, 0, 0, 0, 0][..]);
        bytes.put_slice(fixed);
        self.deflater.deflate(block, &mut bytes);
        bytes[7] = u8::try_from(bytes.len() - 8).unwrap();
        self.bytes(&bytes).await;
    }

    pub(super) async fn data(&mut self, stream: u32, payload: &[u8], fin: bool) {
        let mut bytes = BytesMut::from(&data_header(stream, fin, payload.len())[..]);
        bytes.put_slice(payload);
        self.bytes(&bytes).await;
    }

    pub(super) async fn bytes(&mut self, bytes: &[u8]) {
        // The connection may be over already.
        let _ = within(self.io.write_all(bytes)).await;
    }

    /// The next event; `None` at the end.
    pub(super) async fn event(&mut self) -> Option<Event> {
        within(async {
            loop {
                if let Some(event) = self.decoder.next(&mut self.buffer).expect("valid frames from us") {
                    return Some(event);
                }
                if self.io.read_buf(&mut self.buffer).await.unwrap() == 0 {
                    assert!(self.buffer.is_empty() && !self.decoder.inside_frame(), "the end is between frames");
                    return None;
                }
            }
        })
        .await
    }

    /// The next control frame other than what every connection sends to announce its limits.
    pub(super) async fn frame(&mut self) -> Option<Frame> {
        loop {
            match self.event().await? {
                Event::Frame(Frame::Settings { .. } | Frame::WindowUpdate { .. }) => {}
                Event::Frame(frame) => return Some(frame),
                other => panic!("{other:?} instead of a control frame"),
            }
        }
    }

    /// The next DATA piece.
    pub(super) async fn piece(&mut self) -> (u32, Vec<u8>, bool) {
        loop {
            match self.event().await {
                Some(Event::Frame(_)) => {}
                Some(Event::Data { stream, payload, fin }) => return (stream, payload.to_vec(), fin),
                other => panic!("{other:?} instead of data"),
            }
        }
    }

    /// This many bytes of data, all of one stream.
    pub(super) async fn exactly(&mut self, wanted: u32, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let (stream, piece, _) = self.piece().await;
            assert_eq!(stream, wanted);
            bytes.extend(piece);
        }
        assert_eq!(bytes.len(), count);
        bytes
    }

    /// Everything that was said is now carried out.
    pub(super) async fn settled(&mut self) {
        self.send(Frame::Ping(self.ping)).await;
        loop {
            match self.event().await {
                Some(Event::Frame(Frame::Ping(id))) if id == self.ping => return,
                Some(_) => {}
                None => panic!("the connection ended"),
            }
        }
    }

    /// Checks that the connection says goodbye with a protocol error and ends.
    pub(super) async fn protocol_error(&mut self) {
        assert!(matches!(self.frame().await, Some(Frame::GoAway { status: GoAwayStatus::PROTOCOL_ERROR, .. })));
        assert_eq!(self.event().await, None);
    }
}
