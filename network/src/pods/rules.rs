//! What the firewall must do for the pods, and what opening and closing their ports means beside it.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use tripod_engine::{PodId, Protocol, Result};

use super::Pods;
use crate::{
    bridge, conntrack,
    firewall::{Forward, Rules},
    netlink::Socket,
    record::{Attachment, Record},
};

impl Pods {
    pub(super) fn open_ports(&self, record: &Record) -> Result<()> {
        if record.ports.is_empty() {
            return Ok(());
        }
        let forwards = Forward::all(&record.ports, &record.ips());
        self.firewall.open(&forwards)?;
        forget_connections(&forwards);
        Ok(())
    }

    pub(super) fn close_ports(&self, record: &Record) -> Result<()> {
        if record.ports.is_empty() {
            return Ok(());
        }
        let forwards = Forward::all(&record.ports, &record.ips());
        self.firewall.close(&forwards)?;
        forget_connections(&forwards);
        Ok(())
    }

    /// Makes the firewall's table, if it lacks any of these.
    pub(crate) fn ensure_rules(&self, masquerade: &[IpNet], neighbours: &[IpNet]) -> Result<()> {
        let needed = Rules {
            bridge: self.bridge.name().to_owned(),
            masquerade: masquerade.iter().copied().collect(),
            neighbours: neighbours.iter().copied().collect(),
        };
        self.firewall.ensure(&needed, || self.all_rules(needed.clone()))
    }

    /// Everything that must be in the table: what is needed now, and what the pods have.
    pub(crate) fn all_rules(&self, needed: Rules) -> (Rules, BTreeSet<Forward>) {
        let (mut rules, mut forwards) = (needed, BTreeSet::new());
        let state = self.state();
        let pods: Vec<(PodId, Record)> = state
            .records
            .iter()
            .filter(|(pod, record)| !record.doomed && !state.releasing.contains(*pod))
            .map(|(pod, record)| (pod.clone(), record.clone()))
            .collect();
        drop(state);
        // After a reboot a record without namespace only waits for its release.
        for (_, record) in pods.iter().filter(|(pod, _)| self.namespaces.exists(pod)) {
            if matches!(record.attachment, Attachment::Bridge { .. }) {
                rules.masquerade.extend(neighbours(record));
            } else if record.ports.is_empty() {
                continue;
            }
            rules.neighbours.extend(neighbours(record));
            forwards.extend(Forward::all(&record.ports, &record.ips()));
        }
        (rules, forwards)
    }

    /// Lets packets from 127.0.0.1 leave towards a pod that plugins have connected.
    pub(super) fn let_localhost_through(&self, record: &Record) {
        let Some(address) = record.ips().into_iter().find(IpAddr::is_ipv4) else { return };
        let link = {
            let mut socket = self.bridge.socket();
            let index = socket.link_towards(address).ok().flatten();
            socket.links(None).unwrap_or_default().into_iter().find(|link| Some(link.index) == index)
        };
        if let Some(Err(error)) = link.map(|link| bridge::route_localnet(&link.name)) {
            tracing::warn!(%error, "host ports of the pod cannot be reached through 127.0.0.1");
        }
    }

    /// Finds out whether the host drops what pods send through it; no rule of our own table could change that.
    pub(crate) fn look_for_obstacles(&self) {
        let describe = |chain: crate::nft::Chain| {
            format!(
                "chain {} of the nftables table {} drops forwarded packets: it must let through what comes from and \
                 goes to {}",
                chain.name,
                chain.table,
                self.bridge.name()
            )
        };
        let found = self.firewall.obstacles().into_iter().map(describe).collect();
        self.state().obstacles = found;
    }
}

/// The ranges in which the pod has its addresses.
pub(super) fn neighbours(record: &Record) -> Vec<IpNet> {
    record.addresses.iter().map(IpNet::trunc).collect()
}

/// UDP has no connections that end; without this the first packet's way would be kept for ever.
fn forget_connections(forwards: &BTreeSet<Forward>) {
    for forward in forwards.iter().filter(|forward| forward.protocol == Protocol::Udp) {
        // Opened each time: it is rare, and the answers can be large.
        if let Err(error) = Socket::netfilter().and_then(|mut socket| conntrack::forget(&mut socket, forward)) {
            tracing::warn!(%error, port = forward.host_port, "old connections of a UDP host port may live on");
        }
    }
}
