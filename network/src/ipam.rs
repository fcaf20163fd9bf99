//! Address management of the built-in bridge: which address comes next.
//!
//! There is no list of leases: a lease is an address in a pod's record, so that none can leak. What is kept here is
//! the place where the last search ended, so that an address rests as long as possible before it is used again.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

/// No address is left.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("every address of {0} is in use: remove pods, or set a larger range in network.subnets")]
pub(crate) struct Exhausted(pub(crate) IpNet);

/// The last address that was given out, by range.
pub(crate) type Cursors = BTreeMap<IpNet, IpAddr>;

/// The gateway of a range: its first address.
pub(crate) fn gateway(range: IpNet) -> IpAddr {
    nth(range, 1)
}

/// The next free address of a range after the cursor, which moves on.
pub(crate) fn next(range: IpNet, cursors: &mut Cursors, used: impl Fn(IpAddr) -> bool) -> Result<IpNet, Exhausted> {
    // Addresses 0 (network, or IPv6's any-router) and 1 (gateway) are never given out, nor IPv4's broadcast.
    let bits = u32::from(range.max_prefix_len() - range.prefix_len());
    let size = if bits >= 128 { u128::MAX } else { 1 << bits };
    let last = if range.addr().is_ipv4() { size - 2 } else { size - 1 };
    let room = last - 1;
    let start = match cursors.get(&range) {
        Some(&address) if range.contains(&address) => number(address) - number(range.network()) + 1,
        _ => 2,
    };
    // More steps than used addresses always find a free one; the bound is for small ranges.
    for step in 0..room {
        let offset = 2 + (start.max(2) - 2 + step) % room;
        let address = nth(range, offset);
        if !used(address) {
            cursors.insert(range, address);
            return IpNet::new(address, range.prefix_len()).map_err(|_| Exhausted(range));
        }
    }
    Err(Exhausted(range))
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn nth(range: IpNet, offset: u128) -> IpAddr {
    match range.network() {
        IpAddr::V4(network) => IpAddr::V4((u32::from(network) + u32::try_from(offset).unwrap_or(0)).into()),
        IpAddr::V6(network) => IpAddr::V6((u128::from(network) + offset).into()),
    }
}

#[cfg(test)]
mod tests;
