//! What ends a session from outside.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{Config, idle::Idle, socket::Socket, spdy};

/// How often a client is sent a ping. Proxies forget connections that are silent for longer; and a client that died
/// with data under way, which nobody takes, shows in no other way: its kernel refuses the ping and nothing else.
pub(crate) const PING: Duration = Duration::from_secs(10);

/// Sends pings for ever.
pub(crate) async fn keep_alive(connection: spdy::Connection) {
    loop {
        sleep(PING).await;
        // The answer waits behind all that the client has sent before it.
        let _ = timeout(PING, connection.ping()).await;
    }
}

/// The limits of a session and the signs of its end.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) socket: Socket,
    pub(crate) idle: Arc<Idle>,
    /// Time for the client to open its streams.
    pub(crate) creation: Duration,
    stop: watch::Receiver<bool>,
}

/// Why a session ends early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Interruption {
    #[error("the client is gone")]
    Gone,
    #[error("no byte has moved for {} seconds, which is the limit for a session", .0.as_secs())]
    Idle(Duration),
    #[error("the streaming server stops; try again in a moment")]
    Stopped,
}

impl Control {
    pub(crate) fn new(config: &Config, socket: Socket, stop: watch::Receiver<bool>) -> Self {
        Self { socket, idle: Arc::new(Idle::new(config.idle())), creation: config.creation(), stop }
    }

    /// Resolves when the session must end; some time after the client is gone if it may have left in order to end its
    /// input.
    pub(crate) async fn interrupted(&self, after: Duration) -> Interruption {
        let mut stop = self.stop.clone();
        let gone = async {
            self.socket.gone().await;
            if !after.is_zero() {
                sleep(after).await;
            }
        };
        tokio::select! {
            () = gone => Interruption::Gone,
            limit = self.idle.expired() => Interruption::Idle(limit),
            _ = stop.wait_for(|stop| *stop) => Interruption::Stopped,
        }
    }
}
