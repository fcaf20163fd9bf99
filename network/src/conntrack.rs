//! Forgets connections of UDP ports: the kernel keeps sending packets of a "connection" to where its first one went,
//! past any rule that has come or gone since.

use crate::{
    firewall::Forward,
    netlink::{ACK, DUMP, Error, Message, Socket, attribute, attributes},
};

// Numbers of the kernel's linux/netfilter/nfnetlink_conntrack.h.
const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const TUPLE_ORIG: u16 = 1;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
const FILTER_ORIG: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const PROTO_NUM: u16 = 1;
const PROTO_DST_PORT: u16 = 3;
/// Bits of a filter: protocol number, and destination port.
const FILTER_PROTO: u32 = 1 << 3 | 1 << 5;

/// Drops the entries of one UDP port of the host, whatever their direction through it was.
pub(crate) fn forget(socket: &mut Socket, forward: &Forward) -> Result<(), Error> {
    let family = if forward.target.is_ipv4() { 2 } else { 10 };
    let (protocol, port) = (crate::firewall::number(forward.protocol), forward.host_port.to_be_bytes());
    // Kernels before 5.8 ignore the filter and send everything, so the answers are looked at all the same.
    let question = Message::new("listing connections", SUBSYSTEM << 8 | GET, DUMP, &[family, 0, 0, 0]).with(|list| {
        list.nest(TUPLE_ORIG, |tuple| {
            tuple.nest(TUPLE_PROTO, |proto| {
                proto.bytes(PROTO_NUM, &[protocol]).bytes(PROTO_DST_PORT, &port);
            });
        });
        list.nest(FILTER, |filter| {
            filter.u32(FILTER_ORIG, FILTER_PROTO);
        });
    });
    let mut deletions = Vec::new();
    for answer in socket.ask(question)? {
        let Some(rest) = answer.get(4..) else { continue };
        let Some(tuple) = attribute(rest, TUPLE_ORIG) else { continue };
        let Some(proto) = attribute(tuple, TUPLE_PROTO) else { continue };
        if attribute(proto, PROTO_NUM) != Some(&[protocol]) || attribute(proto, PROTO_DST_PORT) != Some(&port) {
            continue;
        }
        let wish = Message::new("forgetting a connection", SUBSYSTEM << 8 | DELETE, ACK, &[family, 0, 0, 0]);
        // It may end by itself in between.
        deletions.push(wish.tolerate(&[rustix::io::Errno::NOENT]).with(|old| {
            old.nest(TUPLE_ORIG, |copy| {
                for (kind, value) in attributes(tuple) {
                    copy.nest(kind, |inner| {
                        inner.raw(value);
                    });
                }
            });
            if let Some(zone) = attribute(rest, ZONE) {
                old.bytes(ZONE, zone);
            }
        }));
    }
    // In portions: the answers to a batch must fit into the socket's buffer.
    while !deletions.is_empty() {
        let rest = deletions.split_off(deletions.len().min(64));
        socket.execute(std::mem::replace(&mut deletions, rest))?;
    }
    Ok(())
}
