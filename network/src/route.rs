//! Links, addresses and routes: the few messages of rtnetlink that pod networks need.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, BorrowedFd},
};

use ipnet::IpNet;
use rustix::io::Errno;

use crate::netlink::{ACK, CREATE, DUMP, EXCL, Error, Message, Socket, attribute, text, u32_at, u64_at};

// Numbers of the kernel's linux/rtnetlink.h, if_link.h, if_addr.h, veth.h, net_namespace.h.
const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const NEWADDR: u16 = 20;
const DELADDR: u16 = 21;
const GETADDR: u16 = 22;
const NEWROUTE: u16 = 24;
const GETROUTE: u16 = 26;
const NEWNSID: u16 = 88;
const GETNSID: u16 = 90;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_STATS64: u16 = 23;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_TARGET_NETNSID: u16 = 46;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const INFO_SLAVE_KIND: u16 = 4;
const INFO_SLAVE_DATA: u16 = 5;
const VETH_INFO_PEER: u16 = 1;
const BRPORT_MODE: u16 = 4;
const SKIP_STATS: u32 = 1 << 3;
const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_TABLE: u16 = 15;
const TABLE_MAIN: u8 = 254;
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;

/// Address of an Ethernet interface.
pub(crate) type Mac = [u8; 6];

/// The loopback interface has this index in every network namespace.
pub(crate) const LOOPBACK: u32 = 1;

/// An interface.
#[derive(Debug, Clone, Default)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) master: Option<u32>,
    pub(crate) mtu: u32,
    pub(crate) loopback: bool,
    pub(crate) up: bool,
    /// In the kernel's order: packets in, out, bytes in, out, errors in, out, dropped in, out.
    pub(crate) counters: [u64; 8],
}

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    /// `None` is the default route.
    pub(crate) destination: Option<IpNet>,
    pub(crate) link: u32,
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 10,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn link_header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

/// A bridge; one that is there stays as it is.
pub(crate) fn new_bridge(name: &str, mac: Mac, mtu: u32) -> Message {
    let header = link_header(0, 0, 0);
    Message::new("making the bridge", NEWLINK, ACK | CREATE | EXCL, &header).tolerate(&[Errno::EXIST]).with(|link| {
        link.text(IFLA_IFNAME, name).bytes(IFLA_ADDRESS, &mac).u32(IFLA_MTU, mtu).nest(IFLA_LINKINFO, |info| {
            info.text(INFO_KIND, "bridge");
        });
    })
}

/// One end of a pair of virtual interfaces.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VethEnd<'a> {
    pub(crate) name: &'a str,
    pub(crate) mac: Mac,
}

/// A pair of virtual interfaces: one end in the bridge and up, the other straight in the pod's namespace.
pub(crate) fn new_veth(host: VethEnd<'_>, pod: VethEnd<'_>, netns: BorrowedFd<'_>, bridge: u32, mtu: u32) -> Message {
    let header = link_header(0, IFF_UP, IFF_UP);
    let fd = u32::try_from(netns.as_raw_fd()).unwrap_or(u32::MAX);
    Message::new("making the pair of interfaces", NEWLINK, ACK | CREATE | EXCL, &header).with(|link| {
        link.text(IFLA_IFNAME, host.name).bytes(IFLA_ADDRESS, &host.mac).u32(IFLA_MTU, mtu);
        link.u32(IFLA_MASTER, bridge).nest(IFLA_LINKINFO, |info| {
            info.text(INFO_KIND, "veth").nest(INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |peer| {
                    peer.raw(&link_header(0, 0, 0)).text(IFLA_IFNAME, pod.name);
                    peer.bytes(IFLA_ADDRESS, &pod.mac).u32(IFLA_MTU, mtu).u32(IFLA_NET_NS_FD, fd);
                });
            });
        });
    })
}

/// Lets a port of a bridge send back to where a packet came from, for a pod that reaches itself by a service.
pub(crate) fn hairpin(name: &str) -> Message {
    Message::new("setting hairpin mode", NEWLINK, ACK, &link_header(0, 0, 0)).with(|link| {
        link.text(IFLA_IFNAME, name).nest(IFLA_LINKINFO, |info| {
            info.text(INFO_SLAVE_KIND, "bridge").nest(INFO_SLAVE_DATA, |port| {
                port.bytes(BRPORT_MODE, &[1]);
            });
        });
    })
}

/// Brings an interface up.
pub(crate) fn up(index: u32) -> Message {
    Message::new("bringing the interface up", NEWLINK, ACK, &link_header(index, IFF_UP, IFF_UP))
}

/// Takes an interface out of its bridge and down; fine if there is none.
pub(crate) fn isolate(name: &str) -> Message {
    let header = link_header(0, 0, IFF_UP);
    Message::new("taking the interface out", NEWLINK, ACK, &header).tolerate(&[Errno::NODEV]).with(|link| {
        link.text(IFLA_IFNAME, name).u32(IFLA_MASTER, 0);
    })
}

/// Removes an interface and its peer; fine if there is none.
pub(crate) fn delete(name: &str) -> Message {
    Message::new("removing the interface", DELLINK, ACK, &link_header(0, 0, 0)).tolerate(&[Errno::NODEV]).with(|link| {
        link.text(IFLA_IFNAME, name);
    })
}

/// Gives an interface an address, usable at once: duplicate detection would cost a second, and our leases are unique.
pub(crate) fn address(index: u32, net: IpNet) -> Message {
    let header =
        [family(net.addr()), net.prefix_len(), 0, 0].into_iter().chain(index.to_ne_bytes()).collect::<Vec<_>>();
    Message::new("adding the address", NEWADDR, ACK | CREATE | EXCL, &header).tolerate(&[Errno::EXIST]).with(
        |address| {
            address.bytes(IFA_LOCAL, &octets(net.addr())).bytes(IFA_ADDRESS, &octets(net.addr()));
            if net.addr().is_ipv6() {
                address.u32(IFA_FLAGS, IFA_F_NODAD);
            }
        },
    )
}

/// Takes an address from an interface; fine if it has gone by itself.
pub(crate) fn delete_address(index: u32, net: IpNet) -> Message {
    let header =
        [family(net.addr()), net.prefix_len(), 0, 0].into_iter().chain(index.to_ne_bytes()).collect::<Vec<_>>();
    let gone = &[Errno::ADDRNOTAVAIL];
    Message::new("removing the address", DELADDR, ACK, &header).tolerate(gone).with(|address| {
        address.bytes(IFA_LOCAL, &octets(net.addr()));
    })
}

/// The default route of one family.
pub(crate) fn default_route(index: u32, gateway: IpAddr) -> Message {
    // Protocol 4 is "static", scope 0 the universe, type 1 unicast.
    let header = [family(gateway), 0, 0, 0, TABLE_MAIN, 4, 0, 1, 0, 0, 0, 0];
    Message::new("adding the default route", NEWROUTE, ACK | CREATE, &header).with(|route| {
        route.bytes(RTA_GATEWAY, &octets(gateway)).u32(RTA_OIF, index);
    })
}

impl Socket {
    /// The interface of a name.
    pub(crate) fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        let message = Message::new("looking up the interface", GETLINK, 0, &link_header(0, 0, 0)).with(|link| {
            link.text(IFLA_IFNAME, name).u32(IFLA_EXT_MASK, SKIP_STATS);
        });
        match self.ask(message) {
            Ok(payloads) => Ok(payloads.first().and_then(|payload| parse_link(payload))),
            Err(error) if error.errno() == Some(Errno::NODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All interfaces, of this namespace or of the one that it knows by a number.
    pub(crate) fn links(&mut self, namespace: Option<i32>) -> Result<Vec<Link>, Error> {
        let message = Message::new("listing interfaces", GETLINK, DUMP, &link_header(0, 0, 0)).with(|link| {
            if let Some(id) = namespace {
                link.bytes(IFLA_TARGET_NETNSID, &id.to_ne_bytes());
            }
        });
        Ok(self.ask(message)?.iter().filter_map(|payload| parse_link(payload)).collect())
    }

    /// The number by which this namespace knows another; one is given to it if it has none. With the number one can
    /// read the other's interfaces without entering it.
    pub(crate) fn namespace_id(&mut self, netns: BorrowedFd<'_>) -> Result<i32, Error> {
        let fd = u32::try_from(netns.as_raw_fd()).unwrap_or(u32::MAX);
        for _ in 0..2 {
            let question = Message::new("looking up the namespace's number", GETNSID, 0, &[0; 4]).with(|namespace| {
                namespace.u32(NETNSA_FD, fd);
            });
            let found = self.ask(question)?.first().and_then(|answer| u32_at(attribute(&answer[4..], NETNSA_NSID)?, 0));
            match found.and_then(|id| i32::try_from(id).ok()) {
                Some(id) => return Ok(id),
                None => {
                    let wish = Message::new("numbering the namespace", NEWNSID, ACK, &[0; 4]);
                    self.execute(vec![wish.tolerate(&[Errno::EXIST]).with(|namespace| {
                        namespace.u32(NETNSA_FD, fd).bytes(NETNSA_NSID, &(-1i32).to_ne_bytes());
                    })])?;
                }
            }
        }
        Err(Error::Answer("numbering the namespace"))
    }

    /// The addresses of an interface, without those that only count on the link.
    pub(crate) fn addresses(&mut self, index: u32) -> Result<Vec<IpNet>, Error> {
        let answers = self.ask(Message::new("listing addresses", GETADDR, DUMP, &[0; 8]))?;
        let ours = answers.iter().filter(|payload| u32_at(payload, 4) == Some(index));
        Ok(ours.filter_map(|payload| parse_address(payload)).collect())
    }

    /// The routes of the main table, both families.
    pub(crate) fn routes(&mut self) -> Result<Vec<Route>, Error> {
        let mut routes = Vec::new();
        for family in [2, 10] {
            let header = [family, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            let answers = self.ask(Message::new("listing routes", GETROUTE, DUMP, &header))?;
            routes.extend(answers.iter().filter_map(|payload| parse_route(payload)));
        }
        Ok(routes)
    }

    /// The interface that leads to an address.
    pub(crate) fn link_towards(&mut self, target: IpAddr) -> Result<Option<u32>, Error> {
        let answer = self.route_to(target)?;
        Ok(answer.and_then(|payload| u32_at(attribute(payload.get(12..)?, RTA_OIF)?, 0)))
    }

    /// Whether packets to an address end here.
    pub(crate) fn is_local(&mut self, target: IpAddr) -> Result<bool, Error> {
        const LOCAL: u8 = 2;
        Ok(self.route_to(target)?.is_some_and(|payload| payload.get(7) == Some(&LOCAL)))
    }

    fn route_to(&mut self, target: IpAddr) -> Result<Option<Vec<u8>>, Error> {
        let bits = if target.is_ipv4() { 32 } else { 128 };
        let header = [family(target), bits, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let question = Message::new("looking up the route", GETROUTE, 0, &header).with(|route| {
            route.bytes(RTA_DST, &octets(target));
        });
        match self.ask(question) {
            Ok(answers) => Ok(answers.into_iter().next()),
            Err(error) if error.errno() == Some(Errno::NETUNREACH) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn parse_link(payload: &[u8]) -> Option<Link> {
    let flags = u32_at(payload, 8)?;
    let rest = payload.get(16..)?;
    let mut counters = [0; 8];
    if let Some(stats) = attribute(rest, IFLA_STATS64) {
        for (at, counter) in counters.iter_mut().enumerate() {
            *counter = u64_at(stats, at * 8).unwrap_or(0);
        }
    }
    Some(Link {
        index: u32_at(payload, 4)?,
        name: text(attribute(rest, IFLA_IFNAME)?),
        kind: attribute(rest, IFLA_LINKINFO).and_then(|info| attribute(info, INFO_KIND)).map(text).unwrap_or_default(),
        master: attribute(rest, IFLA_MASTER).and_then(|value| u32_at(value, 0)),
        mtu: attribute(rest, IFLA_MTU).and_then(|value| u32_at(value, 0)).unwrap_or(0),
        loopback: flags & IFF_LOOPBACK != 0,
        up: flags & IFF_UP != 0,
        counters,
    })
}

fn parse_address(payload: &[u8]) -> Option<IpNet> {
    const UNIVERSE: u8 = 0;
    let (prefix, scope) = (*payload.get(1)?, *payload.get(3)?);
    let address = parse_ip(attribute(payload.get(8..)?, IFA_ADDRESS)?)?;
    (scope == UNIVERSE).then(|| IpNet::new(address, prefix).ok()).flatten()
}

fn parse_ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))),
        _ => Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?))),
    }
}

fn parse_route(payload: &[u8]) -> Option<Route> {
    let prefix = *payload.get(1)?;
    let rest = payload.get(12..)?;
    let table = attribute(rest, RTA_TABLE).and_then(|value| u32_at(value, 0));
    if table.unwrap_or(u32::from(*payload.get(4)?)) != u32::from(TABLE_MAIN) {
        return None;
    }
    let destination = match (prefix, attribute(rest, RTA_DST)) {
        (0, _) | (_, None) => None,
        (prefix, Some(bytes)) => Some(IpNet::new(parse_ip(bytes)?, prefix).ok()?),
    };
    Some(Route { destination, link: u32_at(attribute(rest, RTA_OIF)?, 0)? })
}
