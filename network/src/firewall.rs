//! The one nftables table of a daemon: masquerading, and ports of the host that lead to pods.
//!
//! ```text
//! prerouting, output: to one of the host's addresses → ports: (address .) protocol . port → pod . port
//! postrouting:        from pods to elsewhere → masquerade; what was redirected and comes from 127/8 or
//!                     from a neighbour of the pod → masquerade, so that the answer comes back through the host
//! guard:              127/8 never comes from outside, although route_localnet is on
//! ```
//!
//! The table is a pure function of [`Rules`] and the open ports, and is replaced as a whole; ports of single pods come
//! and go as entries of its maps.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
};

use ipnet::IpNet;
use rustix::io::Errno;
use tripod_engine::{Error, Kind, PodId, PortMapping, Protocol, Result};

use crate::{
    netlink::{self, Socket},
    nft::{Base, Chain, Hook, IPV4, IPV6, Meta, R0, Rule, Transaction},
};

/// What the table does beside leading ports to pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    /// The built-in bridge.
    pub(crate) bridge: String,
    /// Ranges whose packets leave with an address of the host.
    pub(crate) masquerade: BTreeSet<IpNet>,
    /// Ranges whose members see each other without the host in between.
    pub(crate) neighbours: BTreeSet<IpNet>,
}

impl Rules {
    fn covers(&self, other: &Self) -> bool {
        self.bridge == other.bridge
            && self.masquerade.is_superset(&other.masquerade)
            && self.neighbours.is_superset(&other.neighbours)
    }
}

/// One port of the host that leads to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Forward {
    pub(crate) protocol: Protocol,
    /// `None` is every address of the target's family.
    pub(crate) host_ip: Option<IpAddr>,
    pub(crate) host_port: u16,
    pub(crate) target: SocketAddr,
}

impl Forward {
    /// What port mappings mean for a pod with these addresses: one entry for each family that both have.
    pub(crate) fn all(ports: &[PortMapping], ips: &[IpAddr]) -> BTreeSet<Self> {
        let mut forwards = BTreeSet::new();
        for port in ports.iter().filter(|port| port.host_port != 0) {
            for ipv4 in [true, false] {
                let Some(&ip) = ips.iter().find(|ip| ip.is_ipv4() == ipv4) else { continue };
                if port.host_ip.is_some_and(|host| host.is_ipv4() != ipv4) {
                    continue;
                }
                forwards.insert(Self {
                    protocol: port.protocol,
                    host_ip: port.host_ip.filter(|ip| !ip.is_unspecified()),
                    host_port: port.host_port,
                    target: SocketAddr::new(ip, port.container_port),
                });
            }
        }
        forwards
    }

    fn map(&self) -> &'static str {
        match (self.target.is_ipv4(), self.host_ip) {
            (true, None) => "any4",
            (true, Some(_)) => "one4",
            (false, None) => "any6",
            (false, Some(_)) => "one6",
        }
    }

    fn key(&self) -> Vec<u8> {
        let mut key = self.host_ip.map(octets).unwrap_or_default();
        key.extend([number(self.protocol), 0, 0, 0]);
        key.extend(self.host_port.to_be_bytes());
        key.extend([0, 0]);
        key
    }

    fn value(&self) -> Vec<u8> {
        let mut value = octets(self.target.ip());
        value.extend(self.target.port().to_be_bytes());
        value.extend([0, 0]);
        value
    }
}

/// The number of a protocol in IP headers.
pub(crate) fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The table of one daemon.
#[derive(Debug)]
pub(crate) struct Firewall {
    table: String,
    inner: Mutex<Inner>,
}

impl Inner {
    fn socket(&mut self) -> Result<&mut Socket, netlink::Error> {
        if self.socket.is_none() {
            self.socket = Some(Socket::netfilter()?);
        }
        self.socket.as_mut().ok_or(netlink::Error::Answer("opening the socket"))
    }
}

#[derive(Debug)]
struct Inner {
    /// Opened at the first use, so that a host without nf_tables still runs pods that need none of it.
    socket: Option<Socket>,
    installed: Option<Rules>,
    generation: u32,
}

impl Firewall {
    pub(crate) fn new(table: &str) -> Self {
        Self { table: table.to_owned(), inner: Mutex::new(Inner { socket: None, installed: None, generation: 0 }) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, error: netlink::Error) -> Error {
        Error::with(Kind::Internal, format!("nftables table inet {}", self.table), error)
    }

    /// Makes the table if it does not do all that is needed. `all` gives everything that must be in it, and is asked
    /// while no port can come or go.
    pub(crate) fn ensure(&self, needed: &Rules, all: impl FnOnce() -> (Rules, BTreeSet<Forward>)) -> Result<()> {
        let mut inner = self.lock();
        if inner.installed.as_ref().is_some_and(|installed| installed.covers(needed)) {
            return Ok(());
        }
        self.replace(&mut inner, all())
    }

    /// Makes the table again if somebody has removed it, as a firewall that flushes all rules does when it reloads.
    pub(crate) fn repair(&self, all: impl FnOnce() -> (Rules, BTreeSet<Forward>)) -> Result<bool> {
        let mut inner = self.lock();
        if inner.installed.is_none() {
            return Ok(false);
        }
        let generation = inner.socket().and_then(Socket::generation).map_err(|error| self.failed(error))?;
        if generation == inner.generation {
            return Ok(false);
        }
        let there =
            inner.socket().and_then(|socket| socket.has_table(&self.table)).map_err(|error| self.failed(error))?;
        if !there {
            self.replace(&mut inner, all())?;
        }
        inner.generation = generation;
        Ok(!there)
    }

    fn replace(&self, inner: &mut Inner, (rules, forwards): (Rules, BTreeSet<Forward>)) -> Result<()> {
        let new = content(&self.table, &rules, &forwards);
        inner.socket().and_then(|socket| new.commit(socket)).map_err(|error| self.failed(error))?;
        inner.installed = Some(rules);
        Ok(())
    }

    /// Opens ports.
    pub(crate) fn open(&self, forwards: &BTreeSet<Forward>) -> Result<()> {
        let mut transaction = Transaction::new(&self.table);
        for forward in forwards {
            transaction.insert(forward.map(), &forward.key(), &forward.value());
        }
        self.lock().socket().and_then(|socket| transaction.commit(socket)).map_err(|error| self.failed(error))
    }

    /// Closes ports; those that are closed already are fine.
    pub(crate) fn close(&self, forwards: &BTreeSet<Forward>) -> Result<()> {
        let mut inner = self.lock();
        for forward in forwards {
            let mut transaction = Transaction::new(&self.table);
            transaction.remove(forward.map(), &forward.key());
            match inner.socket().and_then(|socket| transaction.commit(socket)) {
                Err(error) if error.errno() != Some(Errno::NOENT) => return Err(self.failed(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes the table.
    pub(crate) fn remove(&self) -> Result<()> {
        let mut inner = self.lock();
        let mut transaction = Transaction::new(&self.table);
        // Made first, so that removing it never fails for want of it.
        transaction.table().delete_table();
        inner.socket().and_then(|socket| transaction.commit(socket)).map_err(|error| self.failed(error))?;
        inner.installed = None;
        Ok(())
    }

    /// Chains of others that drop what is forwarded unless a rule of theirs lets it through. No rule of ours can help.
    pub(crate) fn obstacles(&self) -> Vec<Chain> {
        self.lock().socket().and_then(Socket::dropping_forward_chains).unwrap_or_default()
    }
}

// Numbers by which listings know types; a concatenation has six bits for each part.
const ADDRESS4: u32 = 7;
const ADDRESS6: u32 = 8;
const PROTOCOL: u32 = 12;
const PORT: u32 = 13;
const KEY: u32 = PROTOCOL << 6 | PORT;

fn content(table: &str, rules: &Rules, forwards: &BTreeSet<Forward>) -> Transaction {
    let mut new = Transaction::new(table);
    new.table().delete_table().table();
    new.map("any4", (KEY, 8), (ADDRESS4 << 6 | PORT, 8));
    new.map("one4", (ADDRESS4 << 12 | KEY, 12), (ADDRESS4 << 6 | PORT, 8));
    new.map("any6", (KEY, 8), (ADDRESS6 << 6 | PORT, 20));
    new.map("one6", (ADDRESS6 << 12 | KEY, 24), (ADDRESS6 << 6 | PORT, 20));
    new.chain("ports");
    new.base_chain("guard", "filter", Hook::Prerouting, -300);
    new.base_chain("prerouting", "nat", Hook::Prerouting, -100);
    new.base_chain("output", "nat", Hook::Output, -100);
    new.base_chain("postrouting", "nat", Hook::Postrouting, 100);

    let loopback = IpNet::V4(ipnet::Ipv4Net::new_assert([127, 0, 0, 0].into(), 8));
    new.rule("guard", towards(family(loopback.addr()).interface(Meta::Iifname, "lo", false), loopback, true).drop());
    new.rule("prerouting", Rule::new().bound_for_host().jump("ports"));
    new.rule("output", Rule::new().bound_for_host().jump("ports"));
    for (map, destination) in [("one4", true), ("any4", false)] {
        new.rule("ports", port_rule(IPV4, map, destination));
    }
    for (map, destination) in [("one6", true), ("any6", false)] {
        new.rule("ports", port_rule(IPV6, map, destination));
    }
    let local = from(family(loopback.addr()).interface(Meta::Oifname, "lo", false), loopback);
    new.rule("postrouting", local.redirected().masquerade());
    for &range in &rules.neighbours {
        let rule = towards(from(family(range.addr()), range), range, true);
        new.rule("postrouting", rule.redirected().masquerade());
    }
    for &range in &rules.masquerade {
        let rule = towards(from(family(range.addr()), range), range, false);
        // Multicast stays in the link; changing its source helps nobody.
        let multicast = match range {
            IpNet::V4(_) => IpNet::V4(ipnet::Ipv4Net::new_assert([224, 0, 0, 0].into(), 4)),
            IpNet::V6(_) => IpNet::V6(ipnet::Ipv6Net::new_assert([0xff00, 0, 0, 0, 0, 0, 0, 0].into(), 8)),
        };
        let rule = towards(rule, multicast, false).interface(Meta::Oifname, &rules.bridge, false);
        new.rule("postrouting", rule.masquerade());
    }
    for forward in forwards {
        new.insert(forward.map(), &forward.key(), &forward.value());
    }
    new
}

fn family(address: IpAddr) -> Rule {
    Rule::new().meta(R0, Meta::Nfproto).equals(R0, &[if address.is_ipv4() { IPV4 } else { IPV6 }])
}

/// The source lies in the range.
fn from(rule: Rule, range: IpNet) -> Rule {
    let (offset, size) = if range.addr().is_ipv4() { (12, 4) } else { (8, 16) };
    rule.payload(R0, Base::Network, offset, size)
        .mask(R0, &octets(range.netmask()))
        .equals(R0, &octets(range.network()))
}

/// The destination lies in the range, or does not.
fn towards(rule: Rule, range: IpNet, inside: bool) -> Rule {
    let (offset, size) = if range.addr().is_ipv4() { (16, 4) } else { (24, 16) };
    let rule = rule.payload(R0, Base::Network, offset, size).mask(R0, &octets(range.netmask()));
    let network = octets(range.network());
    if inside { rule.equals(R0, &network) } else { rule.differs(R0, &network) }
}

/// Looks the packet up in a map of ports and redirects it.
fn port_rule(family: u8, map: &str, destination: bool) -> Rule {
    let (offset, size) = if family == IPV4 { (16, 4) } else { (24, 16) };
    let words = size / 4;
    let rule = Rule::new().meta(R0, Meta::Nfproto).equals(R0, &[family]).payload(R0, Base::Network, offset, size);
    // IPv6 has no way out of the host for a packet that comes from ::1.
    let rule = match family {
        IPV6 => rule.differs(R0, &octets(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST))),
        _ => rule,
    };
    let start = if destination { R0 + words } else { R0 };
    rule.meta(start, Meta::L4proto).payload(start + 1, Base::Transport, 2, 2).look_up(map, R0, R0).redirect(
        family,
        R0,
        R0 + words,
    )
}

/// Refuses a port that another pod has, before anything is made.
pub(crate) fn conflict<'a>(
    wanted: &[PortMapping],
    pods: impl Iterator<Item = (&'a PodId, &'a [PortMapping])>,
) -> Result<()> {
    for (pod, taken) in pods {
        for (new, old) in wanted.iter().flat_map(|new| taken.iter().map(move |old| (new, old))) {
            if new.host_port != 0 && collide(new, old) {
                return Err(Error::new(
                    Kind::AlreadyExists,
                    format!(
                        "host port {}/{} is in use by pod {pod}: stop that pod or choose another port",
                        new.host_port,
                        name(new.protocol)
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// Refuses a pod that asks for one port twice.
pub(crate) fn check(ports: &[PortMapping]) -> Result<()> {
    for (at, port) in ports.iter().enumerate().filter(|(_, port)| port.host_port != 0) {
        let wrong = |what: &str| {
            let text = format!("host port {}/{}: {what}", port.host_port, name(port.protocol));
            Err(Error::new(Kind::InvalidArgument, text))
        };
        if port.container_port == 0 {
            return wrong("the container port is missing");
        }
        if ports[..at].iter().any(|other| collide(port, other) && port != other) {
            return wrong("asked for twice, with different targets or addresses");
        }
    }
    Ok(())
}

pub(crate) fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

fn collide(one: &PortMapping, other: &PortMapping) -> bool {
    let addresses = match (one.host_ip, other.host_ip) {
        (None, _) | (_, None) => true,
        (Some(one), Some(other)) => {
            one == other || one.is_ipv4() == other.is_ipv4() && (one.is_unspecified() || other.is_unspecified())
        }
    };
    one.host_port == other.host_port && one.protocol == other.protocol && addresses
}

#[cfg(test)]
mod tests;
