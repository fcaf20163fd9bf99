//! Counters of sessions.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{request::Kind, upgrade::Transport};

/// Sessions of one kind over one transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sessions {
    /// `exec`, `attach` or `portforward`.
    pub kind: &'static str,
    /// `spdy`, `websocket`, or `tunnel` for SPDY inside a WebSocket.
    pub transport: &'static str,
    /// Sessions that last.
    pub active: u64,
    /// Sessions since the server started, those that last included.
    pub total: u64,
}

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct Figures([[Counter; 3]; 3]);

#[derive(Debug, Default)]
struct Counter {
    active: AtomicU64,
    total: AtomicU64,
}

/// A session that counts as active until this is dropped.
#[derive(Debug)]
pub(crate) struct Active<'a>(&'a Counter);

impl Figures {
    /// A session begins.
    pub(crate) fn begin(&self, kind: Kind, transport: Transport) -> Active<'_> {
        let counter = &self.0[kind_index(kind)][transport_index(transport)];
        counter.active.fetch_add(1, Ordering::Relaxed);
        counter.total.fetch_add(1, Ordering::Relaxed);
        Active(counter)
    }

    /// All counters.
    pub(crate) fn read(&self) -> Vec<Sessions> {
        let kinds = ["exec", "attach", "portforward"].into_iter().zip(&self.0);
        kinds
            .flat_map(|(kind, row)| {
                ["spdy", "websocket", "tunnel"].into_iter().zip(row).map(move |(transport, counter)| Sessions {
                    kind,
                    transport,
                    active: counter.active.load(Ordering::Relaxed),
                    total: counter.total.load(Ordering::Relaxed),
                })
            })
            .collect()
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

fn kind_index(kind: Kind) -> usize {
    match kind {
        Kind::Exec => 0,
        Kind::Attach => 1,
        Kind::PortForward => 2,
    }
}

fn transport_index(transport: Transport) -> usize {
    match transport {
        Transport::Spdy => 0,
        Transport::WebSocket(_) => 1,
        Transport::Tunnel => 2,
    }
}
