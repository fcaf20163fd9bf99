//! The isolator: the engine's calls, and what happens in the background.

use std::{
    path::Path,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use async_trait::async_trait;
use ipnet::IpNet;
use tripod_engine::{
    Error, Kind, PodId, Result,
    plugin::{Isolator, IsolatorStatus, Known, PodContext, PodSetup},
    usage::{InterfaceUsage, PodUsage},
};

use crate::{
    NetworkConfig,
    bridge::{self, POD_LINK},
    cni::View,
    config::Mode,
    firewall::Rules,
    pods::{self, Pods},
    record::Attachment,
};

/// How often the CNI folder and the firewall's table are looked at.
const GLANCE: Duration = Duration::from_secs(1);
/// How often plugins are asked for their state, and what could not be released is tried again.
const ROUND: Duration = Duration::from_secs(10);

/// Pod networks, by the built-in bridge or by CNI plugins.
#[derive(Debug)]
pub struct Network {
    pods: Arc<Pods>,
    /// The background ends when these are dropped.
    _watch: mpsc::Sender<()>,
    /// Starts the next round at once.
    round: mpsc::Sender<()>,
}

impl Network {
    /// Opens the records in `root` and begins to watch the CNI configuration. It works on the network namespace of the
    /// thread that calls this, and changes nothing yet: the bridge comes with the first pod.
    pub fn new(config: NetworkConfig, root: &Path) -> Result<Arc<Self>> {
        let pods = Arc::new(Pods::open(config, root)?);
        if pods.config.mode != Mode::Bridge {
            pods.cni.refresh();
        }
        let round = background("network-round", ROUND, &pods, |pods| {
            if pods.config.mode != Mode::Bridge {
                pods.cni.check();
            }
            pods.look_for_obstacles();
            pods.sweep();
            for pod in pods.doomed() {
                if let Err(error) = pods.release(&pod) {
                    tracing::warn!(%error, "what is left of a pod's network is tried again");
                }
            }
        })?;
        let (wake, mut seen) = (round.clone(), pods.cni.view());
        let watch = background("network-watch", GLANCE, &pods, move |pods| {
            if pods.config.mode != Mode::Bridge {
                let view = pods.cni.refresh();
                if seen != view {
                    seen = view;
                    let _ = wake.send(());
                }
            }
            match pods.firewall.repair(|| pods.all_rules(needed(pods))) {
                Ok(true) => tracing::warn!("somebody removed tripod's nftables table; it was made again"),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "the nftables table cannot be checked"),
            }
        })?;
        Ok(Arc::new(Self { pods, _watch: watch, round }))
    }

    /// Removes the bridge and the firewall's table. Refused while a pod has a network; the next pod makes them again.
    pub async fn uninstall(&self) -> Result<()> {
        self.blocking(|pods| {
            let left = pods.state().records.len();
            if left > 0 {
                let text = format!("{left} pods still have a network: remove them first");
                return Err(Error::new(Kind::FailedPrecondition, text));
            }
            pods.bridge.forget();
            let bridge = pods.bridge.remove(pods.bridge.name());
            pods.firewall.remove().and(bridge)
        })
        .await
    }

    /// Runs what may block where it may.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Pods) -> Result<T> + Send + 'static) -> Result<T> {
        let pods = self.pods.clone();
        tokio::task::spawn_blocking(move || work(&pods))
            .await
            .unwrap_or_else(|error| Err(Error::with(Kind::Internal, "the network's work was cut short", error)))
    }
}

/// Calls `work` at once and then in intervals, on a thread that ends with the returned sender.
fn background(
    name: &str,
    interval: Duration,
    pods: &Arc<Pods>,
    mut work: impl FnMut(&Pods) + Send + 'static,
) -> Result<mpsc::Sender<()>> {
    let (sender, receiver) = mpsc::channel();
    let pods = Arc::downgrade(pods);
    let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(512 << 10);
    let run = move || {
        while let Some(pods) = pods.upgrade() {
            work(&pods);
            drop(pods);
            if receiver.recv_timeout(interval) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    };
    thread.spawn(run).map_err(|error| Error::io(format!("starting the thread {name}"), error))?;
    Ok(sender)
}

fn needed(pods: &Pods) -> Rules {
    let ranges = pods.ranges().unwrap_or_default();
    let on_bridge = pods.state().records.values().any(|record| matches!(record.attachment, Attachment::Bridge { .. }));
    let ranges = if on_bridge { ranges } else { Vec::new() }.into_iter().collect::<std::collections::BTreeSet<_>>();
    Rules { bridge: pods.bridge.name().to_owned(), masquerade: ranges.clone(), neighbours: ranges }
}

#[async_trait]
impl Isolator for Network {
    fn name(&self) -> &'static str {
        "network"
    }

    async fn recover(&self, known: &Known) -> Result<()> {
        let known = known.clone();
        self.blocking(move |pods| recover(pods, &known)).await?;
        // A thread that has ended is not worth an error: nothing was left to it.
        let _ = self.round.send(());
        Ok(())
    }

    async fn prepare_pod(&self, pod: PodContext<'_>, setup: &mut PodSetup) -> Result<()> {
        if pod.config.namespaces.host_network {
            return Ok(());
        }
        let (id, config, made) = (pod.id.clone(), pod.config.clone(), setup.network.clone());
        if let Some(connected) = self.blocking(move |pods| pods.connect(&id, &config, made.as_deref())).await? {
            setup.plan.netns = Some(connected.netns);
            setup.ips = connected.ips;
        }
        Ok(())
    }

    async fn cleanup_pod(&self, pod: &PodId) -> Result<()> {
        let pod = pod.clone();
        self.blocking(move |pods| pods.release(&pod)).await
    }

    fn pod_usage(&self, pod: PodContext<'_>, usage: &mut PodUsage) {
        if pod.config.namespaces.host_network {
            return;
        }
        // A pod that is gone, or going, has no counters.
        let Ok(netns) = self.pods.namespaces.open(pod.id) else { return };
        let Ok(links) = pods::counters(&mut self.pods.bridge.socket(), &netns) else { return };
        let mut interfaces: Vec<InterfaceUsage> =
            links.iter().filter(|link| !link.loopback && link.up).map(interface_usage).collect();
        interfaces.sort_by_key(|interface| interface.name != POD_LINK);
        usage.interfaces.extend(interfaces);
    }

    async fn status(&self) -> IsolatorStatus {
        let mode = self.pods.config.mode;
        let view = if mode == Mode::Bridge { View::Absent } else { self.pods.cni.view() };
        let mut details = Vec::new();
        let mut tell = |key: &str, value: String| details.push((key.to_owned(), value));
        let not_ready = match (mode, &view) {
            (Mode::Bridge, _) | (Mode::Auto, View::Absent) => {
                tell("network", format!("built-in bridge {}", self.pods.bridge.name()));
                None
            }
            (Mode::Cni, View::Absent) => Some(self.pods.no_configuration()),
            (_, View::Broken(why)) => Some(why.clone()),
            (_, View::Loaded(list)) => {
                tell("network", format!("CNI {} ({}, {})", list.name, list.version, list.source.display()));
                self.pods.cni.unready()
            }
        };
        let state = self.pods.state();
        let addresses: Vec<&IpNet> = state.records.values().flat_map(|record| &record.addresses).collect();
        tell("networkPods", state.records.len().to_string());
        tell("networkAddresses", addresses.len().to_string());
        for (pod, trouble) in &state.troubles {
            tell(&format!("networkTrouble/{pod}"), trouble.clone());
        }
        for pod in &state.broken {
            tell(
                &format!("networkTrouble/{pod}"),
                "its record could not be read at start and was put aside".to_owned(),
            );
        }
        for (at, chain) in state.obstacles.iter().enumerate() {
            tell(&format!("networkWarning/{at}"), chain.clone());
        }
        IsolatorStatus { not_ready, details }
    }

    async fn set_pod_cidr(&self, cidr: &str) -> Result<()> {
        let cidr = cidr.to_owned();
        self.blocking(move |pods| pods.set_pod_cidr(&cidr)).await
    }
}

/// Releases what belongs to pods that nobody knows any more, and makes bridge and rules for those that run.
fn recover(pods: &Pods, known: &Known) -> Result<()> {
    let recorded: Vec<PodId> = pods.state().records.keys().cloned().collect();
    let spaces = pods.namespaces.list()?;
    let mut strangers: Vec<&PodId> = recorded.iter().chain(&spaces).filter(|pod| !known.pods.contains(*pod)).collect();
    strangers.sort_unstable();
    strangers.dedup();
    for pod in strangers {
        // Plugins may hang, and the daemon's start must not.
        if pods.is_by_cni(pod) {
            pods.doom(pod);
            continue;
        }
        // Not this daemon's end: it is kept, shown in the status and tried again.
        if let Err(error) = pods.release(pod) {
            tracing::warn!(%error, "what is left of a pod's network is tried again");
            pods.doom(pod);
        }
    }
    let names: Vec<String> = known.pods.iter().map(|pod| bridge::host_link(pod.as_str())).collect();
    for link in pods.bridge.ports()?.iter().filter(|link| !names.contains(link)) {
        pods.bridge.remove(link)?;
    }
    let living = |attachment: fn(&Attachment) -> bool| {
        let state = pods.state();
        let mut records = state.records.iter().filter(|(pod, _)| known.live_pods.contains(*pod));
        records.any(|(_, record)| attachment(&record.attachment) || !record.ports.is_empty())
    };
    let made = if living(|attachment| matches!(attachment, Attachment::Bridge { .. })) {
        let bridge = |ranges: Vec<IpNet>| pods.ensure_bridge(&ranges).and_then(|_| pods.ensure_rules(&ranges, &ranges));
        pods.ranges().and_then(bridge)
    } else if living(|_| false) {
        pods.ensure_rules(&[], &[])
    } else {
        Ok(())
    };
    // The next pod that starts gets this error; those that run must not keep the daemon from starting.
    if let Err(error) = made {
        tracing::error!(%error, "running pods may have lost their network");
    }
    Ok(())
}

fn interface_usage(link: &crate::route::Link) -> InterfaceUsage {
    let [rx_packets, tx_packets, rx_bytes, tx_bytes, rx_errors, tx_errors, rx_dropped, tx_dropped] = link.counters;
    InterfaceUsage {
        name: link.name.clone(),
        rx_bytes,
        rx_errors,
        rx_dropped,
        rx_packets,
        tx_bytes,
        tx_errors,
        tx_dropped,
        tx_packets,
    }
}

#[cfg(test)]
mod tests;
