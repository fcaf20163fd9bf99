//! The client of a command's session: its streams, whatever carries them.

pub(crate) mod spdy;
pub(crate) mod websocket;

use futures::future::Either;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::{output::Output, upgrade::Version};

/// A client with the streams that its request names.
#[derive(Debug)]
pub(crate) struct Client {
    /// What it sends.
    pub(crate) source: Source,
    /// What it hears.
    pub(crate) outputs: Outputs,
    /// Leaving is this client's only way to end the input, so what it asked for is not over when it leaves.
    pub(crate) leaves_to_end: bool,
}

/// What a client sends.
#[derive(Debug)]
pub(crate) enum Source {
    Spdy(spdy::Inputs),
    WebSocket(crate::websocket::Receiver),
}

/// What a client hears.
#[derive(Debug)]
pub(crate) struct Outputs {
    pub(crate) stdout: Output,
    pub(crate) stderr: Output,
    pub(crate) version: Version,
    status: Output,
    connection: Connection,
}

#[derive(Debug)]
enum Connection {
    Spdy(spdy::Connection),
    WebSocket(crate::websocket::Sender),
}

impl Outputs {
    /// Asks the client for a sign of life now and then; never resolves.
    pub(crate) fn keep_alive(&self) -> impl Future<Output = ()> + Send + use<> {
        match &self.connection {
            Connection::Spdy(connection) => Either::Left(connection.keep_alive()),
            Connection::WebSocket(sender) => Either::Right(sender.clone().keep_alive()),
        }
    }

    /// Resolves once the connection has no task of its own any more.
    pub(crate) fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        match &self.connection {
            Connection::Spdy(connection) => Either::Left(connection.closed()),
            Connection::WebSocket(_) => Either::Right(std::future::ready(())),
        }
    }

    /// Tells the end and takes leave.
    pub(crate) async fn tell(&mut self, status: &[u8], code: CloseCode) {
        if !status.is_empty() {
            self.status.write(status).await;
        }
        for output in [&mut self.status, &mut self.stdout, &mut self.stderr] {
            output.finish().await;
        }
        match &mut self.connection {
            Connection::Spdy(connection) => connection.finish().await,
            Connection::WebSocket(sender) => sender.close(code, "").await,
        }
    }
}
