//! The built-in network: a bridge, and for each pod a pair of interfaces with one end in it.
//!
//! No program is forked. On the host's side one netlink socket serves all pods; on the pod's side the thread that made
//! the namespace opens one of its own.

use std::{
    fs, io,
    net::IpAddr,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ipnet::IpNet;
use rustix::io::Errno;
use tripod_engine::{Error, Kind, Result};

use crate::{
    ipam,
    netlink::{self, Socket},
    route::{self, Link, Mac, VethEnd},
};

/// Name of the interface in every pod.
pub(crate) const POD_LINK: &str = "eth0";

/// The built-in bridge of one daemon.
#[derive(Debug)]
pub(crate) struct Bridge {
    name: String,
    mtu: Option<u32>,
    socket: Mutex<Socket>,
    ready: Mutex<Option<Ready>>,
}

/// The bridge as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) index: u32,
    pub(crate) mtu: u32,
    ranges: Vec<IpNet>,
}

impl Bridge {
    pub(crate) fn new(name: String, mtu: Option<u32>) -> Result<Self> {
        let socket = Socket::route()
            .map_err(|error| Error::with(Kind::Internal, "opening the kernel's network settings (rtnetlink)", error))?;
        Ok(Self { name, mtu, socket: Mutex::new(socket), ready: Mutex::new(None) })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The host's netlink socket.
    pub(crate) fn socket(&self) -> MutexGuard<'_, Socket> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, error: netlink::Error) -> Error {
        Error::with(Kind::Internal, format!("bridge {}", self.name), error)
    }

    /// Makes the bridge with the gateways of these ranges if it is not there. Must run in the host's namespace.
    /// Gateways of other ranges go, except for those in `kept`.
    pub(crate) fn ensure(&self, ranges: &[IpNet], kept: impl FnOnce() -> Vec<IpNet>) -> Result<Ready> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ready) = ready.as_ref().filter(|ready| ready.ranges == ranges) {
            return Ok(ready.clone());
        }
        let made = self.make(ranges, &kept())?;
        enable_forwarding(ranges, &self.name)?;
        *ready = Some(made.clone());
        Ok(made)
    }

    /// Looks again at the next [`Self::ensure`], because the bridge has turned out not to be as it was.
    pub(crate) fn forget(&self) {
        *self.ready.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn make(&self, ranges: &[IpNet], kept: &[IpNet]) -> Result<Ready> {
        let mut socket = self.socket();
        let existing = socket.link(&self.name).map_err(|error| self.failed(error))?;
        if let Some(other) = existing.as_ref().filter(|link| link.kind != "bridge") {
            let text = format!(
                "interface {} is there and is no bridge ({:?}): remove it, or set network.bridge to another name",
                self.name, other.kind
            );
            return Err(Error::new(Kind::FailedPrecondition, text));
        }
        let routes = socket.routes().map_err(|error| self.failed(error))?;
        for route in routes.iter().filter(|route| existing.as_ref().is_none_or(|bridge| bridge.index != route.link)) {
            let Some(taken) = route.destination else { continue };
            if let Some(range) = ranges.iter().find(|range| range.contains(&taken)) {
                let text = format!(
                    "address range {range} of the pods is in use on this host (route to {taken}): set network.subnets \
                     to ranges that are free"
                );
                return Err(Error::new(Kind::FailedPrecondition, text));
            }
        }
        let mtu = match self.mtu {
            Some(mtu) => mtu,
            None => uplink_mtu(&mut socket, &routes).map_err(|error| self.failed(error))?.unwrap_or(1500),
        };
        if existing.is_none() {
            let new = vec![route::new_bridge(&self.name, bridge_mac(&self.name), mtu)];
            socket.execute(new).map_err(|error| self.failed(error))?;
        }
        let link = socket.link(&self.name).map_err(|error| self.failed(error))?;
        let Some(Link { index, .. }) = link else {
            return Err(Error::new(Kind::Unavailable, format!("bridge {} vanished while it was made", self.name)));
        };
        if ranges.iter().any(|range| range.addr().is_ipv6()) {
            trust_addresses(&self.name)?;
        }
        let mut messages = vec![route::up(index)];
        for old in socket.addresses(index).map_err(|error| self.failed(error))? {
            if !ranges.iter().chain(kept).any(|&range| gateway(range) == old) {
                messages.push(route::delete_address(index, old));
            }
        }
        messages.extend(ranges.iter().map(|&range| route::address(index, gateway(range))));
        socket.execute(messages).map_err(|error| self.failed(error))?;
        settle(&mut socket, ranges.iter().map(|&range| ipam::gateway(range))).map_err(|error| self.failed(error))?;
        Ok(Ready { index, mtu, ranges: ranges.to_vec() })
    }

    /// Connects a namespace that the calling thread is in, under a name on the host, with these addresses.
    pub(crate) fn attach(&self, ready: &Ready, netns: &OwnedFd, link: &str, addresses: &[IpNet]) -> Result<()> {
        let key = addresses.first().map_or([0; 4], |net| low_bytes(net.addr()));
        let (host, pod) =
            (VethEnd { name: link, mac: mac(0x56, key) }, VethEnd { name: POD_LINK, mac: mac(0x54, key) });
        let messages = vec![route::new_veth(host, pod, netns.as_fd(), ready.index, ready.mtu), route::hairpin(link)];
        self.socket().execute(messages).map_err(|error| {
            // ENODEV: the bridge has gone. EINVAL: its index is something else's now.
            let gone = matches!(error.errno(), Some(Errno::NODEV | Errno::INVAL | Errno::OPNOTSUPP));
            let kind = if gone { Kind::Unavailable } else { Kind::Internal };
            Error::with(kind, format!("connecting to bridge {}", self.name), error)
        })?;
        let inside = |error| Error::with(Kind::Internal, format!("interface {POD_LINK} of the pod"), error);
        let mut socket = Socket::route().map_err(inside)?;
        let index = socket.link(POD_LINK).map_err(inside)?.map_or(0, |link| link.index);
        if addresses.iter().any(|net| net.addr().is_ipv6()) {
            trust_addresses(POD_LINK)?;
        }
        let mut messages = vec![route::up(route::LOOPBACK), route::up(index)];
        messages.extend(addresses.iter().map(|&net| route::address(index, net)));
        messages.extend(addresses.iter().map(|net| route::default_route(index, ipam::gateway(net.trunc()))));
        socket.execute(messages).map_err(inside)?;
        // The kernel takes note of a carrier in the background, a second later if it is busy, and drops packets until
        // then. Asking for an interface makes it do so now (since 6.8): first the pair, then the bridge over it.
        socket.link(POD_LINK).map_err(inside)?;
        settle(&mut socket, addresses.iter().map(IpNet::addr)).map_err(inside)?;
        let mut socket = self.socket();
        socket.link(link).and_then(|_| socket.link(&self.name)).map_err(|error| self.failed(error))?;
        Ok(())
    }

    /// Takes the interface of a pod out of the bridge and down, so that its addresses are free from here on. The kernel
    /// removes it with the pod's namespace; asking for that here would wait 30 ms for a grace period.
    pub(crate) fn detach(&self, link: &str) -> Result<()> {
        self.socket().execute(vec![route::isolate(link)]).map_err(|error| self.failed(error))
    }

    /// Removes an interface at once. It takes its time, so it does not keep others from the host's socket.
    pub(crate) fn remove(&self, link: &str) -> Result<()> {
        let remove = || Socket::route()?.execute(vec![route::delete(link)]);
        remove().map_err(|error| self.failed(error))
    }

    /// The names of all interfaces in the bridge that follow our naming.
    pub(crate) fn ports(&self) -> Result<Vec<String>> {
        let mut socket = self.socket();
        let Some(bridge) = socket.link(&self.name).map_err(|error| self.failed(error))? else { return Ok(Vec::new()) };
        let links = socket.links(None).map_err(|error| self.failed(error))?;
        let ours = links.into_iter().filter(|link| link.master == Some(bridge.index) && link.name.starts_with(PREFIX));
        Ok(ours.map(|link| link.name).collect())
    }
}

/// The bridge's own address in a range.
fn gateway(range: IpNet) -> IpNet {
    IpNet::new(ipam::gateway(range), range.prefix_len()).unwrap_or(range)
}

const PREFIX: &str = "veth";

/// Name of a pod's interface on the host: recognisable for tools that leave such interfaces alone, and never twice.
pub(crate) fn host_link(pod: &str) -> String {
    format!("{PREFIX}{}", &pod[..pod.len().min(11)])
}

/// Brings up the loopback interface of the namespace that the calling thread is in.
pub(crate) fn loopback_up() -> Result<()> {
    let failed = |error| Error::with(Kind::Internal, "loopback interface of the pod", error);
    Socket::route().map_err(failed)?.execute(vec![route::up(route::LOOPBACK)]).map_err(failed)
}

/// Whether the kernel speaks IPv6 here.
pub(crate) fn has_ipv6() -> bool {
    let on = |scope: &str| {
        fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6")).is_ok_and(|text| text.trim() == "0")
    };
    on("all") && on("default")
}

/// Waits until IPv6 addresses are in use, which the kernel brings about in the background, mostly within microseconds.
/// A question for an address that comes too early is repeated after a second only. Not worth a failure if it is late.
fn settle(socket: &mut Socket, addresses: impl Iterator<Item = IpAddr>) -> Result<(), netlink::Error> {
    let deadline = Instant::now() + Duration::from_millis(200);
    for address in addresses.filter(IpAddr::is_ipv6) {
        while !socket.is_local(address)? && Instant::now() < deadline {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    Ok(())
}

/// An address that follows from the IP address: who still has the old one in mind after an IP address was given out
/// again is right.
fn mac(kind: u8, key: [u8; 4]) -> Mac {
    [0x0a, kind, key[0], key[1], key[2], key[3]]
}

fn low_bytes(address: IpAddr) -> [u8; 4] {
    match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => {
            let [.., a, b, c, d] = address.octets();
            [a, b, c, d]
        }
    }
}

/// A fixed address: without one a bridge changes its own with every port that comes or goes.
fn bridge_mac(name: &str) -> Mac {
    let hash = name.bytes().fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    mac(0x42, hash.to_be_bytes())
}

fn uplink_mtu(socket: &mut Socket, routes: &[route::Route]) -> Result<Option<u32>, netlink::Error> {
    let Some(uplink) = routes.iter().find(|route| route.destination.is_none()).map(|route| route.link) else {
        return Ok(None);
    };
    let links = socket.links(None)?;
    Ok(links.iter().find(|link| link.index == uplink).map(|link| link.mtu).filter(|mtu| *mtu >= 1280))
}

/// Turns forwarding on for the families in use, and lets packets from 127.0.0.1 reach pods through host ports.
fn enable_forwarding(ranges: &[IpNet], bridge: &str) -> Result<()> {
    if ranges.iter().any(|range| range.addr().is_ipv4()) {
        set_sysctl("net/ipv4/ip_forward", "1")?;
        route_localnet(bridge)?;
    }
    if ranges.iter().any(|range| range.addr().is_ipv6()) && !is_set("net/ipv6/conf/all/forwarding", "1") {
        // A router ignores router advertisements; an uplink that lives by them must say that it still wants them.
        for entry in fs::read_dir("/proc/sys/net/ipv6/conf").into_iter().flatten().flatten() {
            let key = format!("net/ipv6/conf/{}/accept_ra", entry.file_name().to_string_lossy());
            if is_set(&key, "1") && entry.file_name() != "all" {
                set_sysctl(&key, "2")?;
            }
        }
        set_sysctl("net/ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

/// Turns IPv6's search for duplicate addresses off. It would keep even the link-local address useless for a second or
/// two, and with it all that the host forwards; and a port in hairpin mode would send the question back to its asker.
fn trust_addresses(link: &str) -> Result<()> {
    set_sysctl(&format!("net/ipv6/conf/{link}/accept_dad"), "0")
}

/// Lets packets from 127.0.0.1 leave by an interface. The firewall keeps those of others out.
pub(crate) fn route_localnet(link: &str) -> Result<()> {
    set_sysctl(&format!("net/ipv4/conf/{link}/route_localnet"), "1")
}

fn is_set(key: &str, value: &str) -> bool {
    fs::read_to_string(Path::new("/proc/sys").join(key)).is_ok_and(|found| found.trim() == value)
}

fn set_sysctl(key: &str, value: &str) -> Result<()> {
    if is_set(key, value) {
        return Ok(());
    }
    fs::write(Path::new("/proc/sys").join(key), value).map_err(|error: io::Error| {
        let name = key.replace('/', ".");
        let text = format!("setting {name}={value}, which pods need: set it on the host with sysctl -w {name}={value}");
        Error::with(Kind::FailedPrecondition, text, error)
    })
}
