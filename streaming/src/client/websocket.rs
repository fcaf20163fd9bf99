//! Streams of a command as channels of a WebSocket.

use super::{Client, Connection, Outputs, Source};
use crate::{
    Streams,
    output::Output,
    stream::Stream,
    upgrade::{Encoding, Version},
    websocket::{self, channel},
};

/// Takes the connection over. The client is told at once that its session stands.
pub(crate) async fn open(stream: Stream, wanted: Streams, version: Version, encoding: Encoding) -> Client {
    let ends = version >= Version::V5;
    let (sender, receiver) = websocket::channels(stream, encoding, ends).await;
    let output = |wanted: bool, channel| {
        if wanted { Output::websocket(sender.clone(), channel) } else { Output::nowhere() }
    };
    let mut outputs = Outputs {
        stdout: output(wanted.stdout, channel::STDOUT),
        stderr: output(wanted.stderr, channel::STDERR),
        status: output(true, channel::STATUS),
        version,
        connection: Connection::WebSocket(sender.clone()),
    };
    let first = match wanted {
        Streams { stdout: true, .. } => &mut outputs.stdout,
        Streams { stderr: true, .. } => &mut outputs.stderr,
        _ => &mut outputs.status,
    };
    first.write(&[]).await;
    let leaves_to_end = wanted.stdin && !wanted.terminal && !ends;
    Client { source: Source::WebSocket(receiver), outputs, leaves_to_end }
}
