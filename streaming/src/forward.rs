//! Port-forward sessions: many connections to the ports of a pod over one connection of a client.

mod pairs;
mod spdy;
mod websocket;

pub(crate) use self::{spdy::run as spdy, websocket::run as websocket};

use std::io;

use tokio::net::TcpStream;

use crate::Backend;

/// Time for a client to hear the end of a session.
const LINGER: std::time::Duration = std::time::Duration::from_secs(2);

/// Connects to a port of a pod; the text is for the client.
async fn connect(backend: &dyn Backend, pod: &str, port: u16) -> Result<TcpStream, String> {
    let failed = |error: &dyn std::fmt::Display| format!("error forwarding port {port} to pod {pod}: {error}");
    let stream = backend.connect(pod, port).await.map_err(|refusal| failed(&refusal))?;
    let ready = |stream: std::net::TcpStream| -> io::Result<TcpStream> {
        stream.set_nonblocking(true)?;
        let stream = TcpStream::from_std(stream)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    ready(stream).map_err(|error| failed(&error))
}
