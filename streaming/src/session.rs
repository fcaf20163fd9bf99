//! One session, from the upgrade of the connection to its end.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use crate::{
    Backend, client,
    command::{self, Command},
    control::Control,
    forward,
    request::Request,
    stream::Stream,
    upgrade::{Agreed, Transport},
    websocket::{self, Tunnel},
};

/// Time for the last frames of a connection.
const CLOSING: Duration = Duration::from_secs(4);

/// Runs a session to its end. Dropping the future ends it at once.
pub(crate) async fn run(backend: Arc<dyn Backend>, request: Request, agreed: Agreed, stream: Stream, control: Control) {
    let command = match request {
        Request::Exec(request) => Command::Exec(request),
        Request::Attach(request) => Command::Attach(request),
        Request::PortForward(request) => {
            return match agreed.transport {
                Transport::Spdy => forward::spdy(backend, request.pod, stream, &control).await,
                Transport::Tunnel => {
                    let tunnel = Tunnel::new(websocket::server(stream).await);
                    forward::spdy(backend, request.pod, tunnel, &control).await;
                }
                Transport::WebSocket(encoding) => {
                    forward::websocket(backend, &request, stream, encoding, &control).await;
                }
            };
        }
    };
    let (wanted, version) = (command.streams(), agreed.version);
    let client = match agreed.transport {
        Transport::Spdy => client::spdy::open(stream, wanted, version, &control).await,
        Transport::WebSocket(encoding) => Some(client::websocket::open(stream, wanted, version, encoding).await),
        Transport::Tunnel => {
            let tunnel = Tunnel::new(websocket::server(stream).await);
            client::spdy::open(tunnel, wanted, version, &control).await
        }
    };
    if let Some(client) = client {
        let closed = client.outputs.closed();
        command::run(backend, command, client, &control).await;
        // The connection limits its own end; this limit only says so.
        let _ = timeout(CLOSING, closed).await;
    }
}
