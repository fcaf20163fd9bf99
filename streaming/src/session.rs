//! One session, from the upgrade of the connection to its end.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{Backend, Config, idle::Idle, request::Request, socket::Socket, stream::Stream, upgrade::Agreed};

/// What ends a session from outside.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) socket: Socket,
    pub(crate) idle: Idle,
    pub(crate) creation: Duration,
    stop: watch::Receiver<bool>,
}

impl Control {
    pub(crate) fn new(config: &Config, socket: Socket, stop: watch::Receiver<bool>) -> Self {
        Self { socket, idle: Idle::new(config.idle()), creation: config.creation(), stop }
    }
}

/// Runs a session to its end. Dropping the future ends it at once.
pub(crate) async fn run(backend: Arc<dyn Backend>, request: Request, agreed: Agreed, stream: Stream, control: Control) {
    drop((backend, request, agreed, stream, control));
}
