//! SPDY/3.1 over any byte stream: what `kubectl`, `crictl` and everything built on client-go speak for exec, attach and
//! port-forward.
//!
//! Bytes of the peer go through [`Decoder`] into the state of the connection and from there to [`Reader`]s; what
//! [`Writer`]s send goes straight to the byte stream. One task a connection reads, and sends what nobody else sends
//! (answers to pings, window updates, resets).
//!
//! Facts about peers that shaped this module:
//! * Go's `moby/spdystream`, which is nearly every peer, neither honours nor sends flow control (it reads and ignores
//!   SETTINGS and WINDOW_UPDATE). So a peer's windows count only once it has shown that it knows them, and a peer that
//!   overruns ours is held back by not reading from the socket.
//! * client-go loses whatever arrives together with the response to its upgrade. So a server says nothing before the
//!   first frame of its client.
//! * spdystream stops reading when it gets a GOAWAY, and drops data of streams without a SYN_REPLY. So GOAWAY is the
//!   last thing that we say, and a reply always precedes data.

mod config;
mod connection;
mod decode;
mod dictionary;
mod driver;
mod error;
mod frame;
mod headers;
mod inbox;
mod output;
mod shared;
mod state;
mod stream;
#[cfg(test)]
mod tests;
mod zlib;

pub use config::{Config, Limits, Role};
pub use connection::{Connection, Incoming};
pub use decode::{Decoder, Event};
pub use error::{Ended, Error, HeaderFault, Malformed};
pub use frame::{Frame, GoAwayStatus, Setting, Status};
pub use headers::Headers;
pub use stream::{Reader, Stream, Writer};
pub use zlib::Deflater;
