//! Pod networks: the built-in bridge and the CNI runtime, as an isolator.
//!
//! ```text
//! network   Network, the isolator; what runs in the background
//! record    what must be undone for each pod      netns   files of network namespaces
//! bridge    bridge, pairs of interfaces           ipam    addresses of the bridge
//! firewall  masquerading and host ports           cni     configurations and plugins
//! netlink   messages and sockets; route, nft and conntrack say what the messages mean
//! ```
#![forbid(unsafe_code)]

mod bridge;
mod cni;
mod config;
mod conntrack;
mod firewall;
mod ipam;
mod netlink;
mod netns;
mod network;
mod nft;
mod pods;
mod record;
mod route;
#[cfg(test)]
mod script;

pub use config::{Mode, NetworkConfig};
pub use network::Network;
