//! Gives pods their network and takes it back: bookkeeping first, then the effect, and everything undone on failure.
//!
//! All of this blocks and runs on threads that may. The state is behind a lock that is never held across a system
//! call, so that whoever reads it does not wait.

mod rules;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use ipnet::IpNet;
use tripod_engine::{Error, Kind, PodConfig, PodId, PortMapping, Result};

use crate::{
    bridge::{self, Bridge},
    cni::{self, Cni, List, Sandbox, View, runtime},
    config::{DEFAULT_SUBNETS, Mode, NetworkConfig},
    firewall::{self, Firewall},
    ipam,
    netlink::Socket,
    netns::Namespaces,
    record::{Attachment, Record, Store},
};

/// The networks of all pods of a daemon.
#[derive(Debug)]
pub(crate) struct Pods {
    pub(crate) config: NetworkConfig,
    pub(crate) namespaces: Namespaces,
    pub(crate) bridge: Bridge,
    pub(crate) firewall: Firewall,
    pub(crate) cni: Cni,
    store: Store,
    state: Mutex<State>,
}

/// What readers see.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) records: BTreeMap<PodId, Record>,
    /// Being released: their ports are closed, yet still theirs.
    releasing: BTreeSet<PodId>,
    /// What could not be undone at the last attempt.
    pub(crate) troubles: BTreeMap<PodId, String>,
    cursors: ipam::Cursors,
    pod_cidr: Vec<IpNet>,
    /// Pods whose record could not be read at start.
    pub(crate) broken: Vec<PodId>,
    /// Interfaces that the kernel removes as soon as nobody is in their pod's namespace any more.
    leaving: Vec<String>,
    /// Chains of others that keep packets from the bridge.
    pub(crate) obstacles: Vec<String>,
}

/// What a pod has got.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) netns: PathBuf,
    pub(crate) ips: Vec<IpAddr>,
}

impl Pods {
    pub(crate) fn open(config: NetworkConfig, root: &Path) -> Result<Self> {
        config.check()?;
        let store = Store::open(root)?;
        let (records, broken) = store.load()?;
        let state =
            State { records, broken, cursors: store.cursors(), pod_cidr: store.pod_cidr()?, ..State::default() };
        Ok(Self {
            namespaces: Namespaces::new(&config.netns_dir, &config.instance),
            bridge: Bridge::new(config.bridge_name(), config.mtu)?,
            firewall: Firewall::new(&config.instance),
            cni: Cni::new(&config),
            store,
            state: Mutex::new(state),
            config,
        })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ranges of the built-in bridge, without those that the kernel cannot carry.
    pub(crate) fn ranges(&self) -> Result<Vec<IpNet>> {
        let wanted: Vec<IpNet> = if self.config.subnets.is_empty() {
            let handed = self.state().pod_cidr.clone();
            let default = || DEFAULT_SUBNETS.iter().filter_map(|text| text.parse().ok()).collect();
            if handed.is_empty() { default() } else { handed }
        } else {
            self.config.subnets.clone()
        };
        let ipv6 = wanted.iter().any(|range| range.addr().is_ipv6()) && bridge::has_ipv6();
        let usable: Vec<IpNet> = wanted.into_iter().filter(|range| range.addr().is_ipv4() || ipv6).collect();
        if usable.is_empty() {
            let text = "all address ranges of the pods are IPv6, and the kernel has IPv6 turned off: turn it on, or \
                        set network.subnets to an IPv4 range";
            return Err(Error::new(Kind::FailedPrecondition, text));
        }
        Ok(usable)
    }

    /// Connects a pod; `None` is the host's network. `made` is its network namespace, if that is there already.
    pub(crate) fn connect(&self, pod: &PodId, config: &PodConfig, made: Option<&OwnedFd>) -> Result<Option<Connected>> {
        if config.namespaces.host_network {
            return Ok(None);
        }
        firewall::check(&config.ports)?;
        if self.state().records.contains_key(pod) {
            self.release(pod)?;
        }
        let list = match (self.config.mode, self.cni.refresh()) {
            (Mode::Bridge, _) | (Mode::Auto, View::Absent) => None,
            (_, View::Loaded(list)) => Some(list),
            (_, View::Broken(why)) => return Err(Error::new(Kind::FailedPrecondition, why)),
            (Mode::Cni, View::Absent) => return Err(Error::new(Kind::Unavailable, self.no_configuration())),
        };
        let connected = match list {
            Some(list) => self.by_cni(pod, config, made, &list),
            None => match self.by_bridge(pod, config, made) {
                // Somebody has removed the bridge under us: the second attempt makes it again.
                Err(error) if error.kind() == Kind::Unavailable => {
                    self.bridge.forget();
                    self.by_bridge(pod, config, made)
                }
                result => result,
            },
        };
        connected.map(Some)
    }

    pub(crate) fn no_configuration(&self) -> String {
        format!("there is no CNI configuration in {} and network.mode is cni", self.cni.conf_dir().display())
    }

    fn by_bridge(&self, pod: &PodId, config: &PodConfig, made: Option<&OwnedFd>) -> Result<Connected> {
        let ranges = self.ranges()?;
        let ready = self.ensure_bridge(&ranges)?;
        self.ensure_rules(&ranges, &ranges)?;
        let link = bridge::host_link(pod.as_str());
        let attachment = Attachment::Bridge { link: link.clone() };
        let record = self.book(pod, attachment, &config.ports, &ranges)?;
        self.undoing(pod, || {
            let cursors = self.state().cursors.clone();
            self.store.write_cursors(&cursors)?;
            self.store.write(pod, &record)?;
            self.within(pod, made, |netns| self.bridge.attach(&ready, netns, &link, &record.addresses))?;
            self.open_ports(&record)?;
            Ok(Connected { netns: self.namespaces.path(pod), ips: record.ips() })
        })
    }

    /// Makes the bridge for these ranges, if it is not there, and keeps those that running pods still have.
    pub(crate) fn ensure_bridge(&self, ranges: &[IpNet]) -> Result<bridge::Ready> {
        self.bridge.ensure(ranges, || {
            let state = self.state();
            let on_bridge =
                state.records.values().filter(|record| matches!(record.attachment, Attachment::Bridge { .. }));
            on_bridge.flat_map(rules::neighbours).collect()
        })
    }

    fn by_cni(&self, pod: &PodId, config: &PodConfig, made: Option<&OwnedFd>, list: &List) -> Result<Connected> {
        let args = runtime::args(pod, config)?;
        let mut runtime = runtime::capabilities(config, &self.state().pod_cidr)?;
        // Only what some plugin asks for needs to be kept.
        runtime.retain(|key, _| list.wants(key));
        // A port mapping plugin of the list does its work; without one we do.
        let ports = if list.wants("portMappings") { &[][..] } else { &config.ports };
        let attachment = Attachment::Cni {
            list: Box::new(list.clone()),
            args: args.clone(),
            runtime: runtime.clone(),
            result: None,
        };
        let mut record = self.book(pod, attachment, ports, &[])?;
        self.undoing(pod, || {
            self.store.write(pod, &record)?;
            self.within(pod, made, |_| bridge::loopback_up())?;
            let netns = self.namespaces.path(pod);
            let sandbox = Sandbox { id: pod.as_str(), netns: Some(&netns), args: &args, runtime: &runtime };
            let result = self.cni.add(list, &sandbox).map_err(|error| cni_error(&error))?;
            record.addresses = cni::addresses(&result);
            if let Attachment::Cni { result: kept, .. } = &mut record.attachment {
                *kept = Some(result);
            }
            self.store.write(pod, &record)?;
            self.state().records.insert(pod.clone(), record.clone());
            if record.addresses.is_empty() {
                let text = format!("CNI network {} gave the pod no address: check its ipam settings", list.name);
                return Err(Error::new(Kind::FailedPrecondition, text));
            }
            if !record.ports.is_empty() {
                self.ensure_rules(&[], &rules::neighbours(&record))?;
                self.let_localhost_through(&record);
                self.open_ports(&record)?;
            }
            Ok(Connected { netns, ips: record.ips() })
        })
    }

    /// Takes addresses and ports for a pod, in memory; nobody else can have them from here on.
    fn book(&self, pod: &PodId, attachment: Attachment, ports: &[PortMapping], ranges: &[IpNet]) -> Result<Record> {
        let mut state = self.state();
        let taken = state.records.iter().map(|(pod, record)| (pod, record.ports.as_slice()));
        firewall::conflict(ports, taken)?;
        let used: BTreeSet<IpAddr> = state.records.values().flat_map(Record::ips).collect();
        let mut addresses = Vec::new();
        for &range in ranges {
            let lease = ipam::next(range, &mut state.cursors, |address| used.contains(&address));
            addresses
                .push(lease.map_err(|error| Error::with(Kind::ResourceExhausted, "no address for the pod", error))?);
        }
        let ports = ports.iter().filter(|port| port.host_port != 0).cloned().collect();
        let record = Record { attachment, addresses, ports, doomed: false };
        state.records.insert(pod.clone(), record.clone());
        Ok(record)
    }

    /// Undoes everything of the pod if the work fails.
    fn undoing<T>(&self, pod: &PodId, work: impl FnOnce() -> Result<T>) -> Result<T> {
        work().map_err(|error| match self.release(pod) {
            Ok(()) => error,
            Err(left) => {
                self.doom(pod);
                error.during(format!("(what could not be undone is tried again: {left})"))
            }
        })
    }

    /// Nobody will ask for this pod's release again; the background does.
    pub(crate) fn doom(&self, pod: &PodId) {
        let record = self.state().records.get_mut(pod).map(|record| {
            record.doomed = true;
            record.clone()
        });
        if let Some(Err(error)) = record.map(|record| self.store.write(pod, &record)) {
            tracing::warn!(%pod, %error, "the record of a pod's network cannot be written");
        }
    }

    /// Makes the pod's namespace and works in it, on a thread of its own that ends with it.
    fn within(
        &self,
        pod: &PodId,
        made: Option<&OwnedFd>,
        work: impl FnOnce(&OwnedFd) -> Result<()> + Send,
    ) -> Result<()> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("network-pod".to_owned()).stack_size(256 << 10);
            let thread = thread
                .spawn_scoped(scope, || self.namespaces.create(pod, made).and_then(|netns| work(&netns)))
                .map_err(|error| Error::io("starting a thread for the pod's namespace", error))?;
            thread.join().unwrap_or_else(|_| Err(Error::new(Kind::Internal, "making the pod's network panicked")))
        })
    }

    /// Releases all that a pod has. Collects every error and goes on; what is left stays in the record.
    pub(crate) fn release(&self, pod: &PodId) -> Result<()> {
        let record = {
            let mut state = self.state();
            let record = state.records.get(pod).cloned();
            if record.is_some() {
                state.releasing.insert(pod.clone());
            }
            record
        };
        let mut errors = Vec::new();
        let mut attempt = |result: Result<()>| match result {
            Ok(()) => true,
            Err(error) => {
                errors.push(error.to_string());
                false
            }
        };
        let mut clean = true;
        let mut plugins_failed = false;
        if let Some(record) = &record {
            clean &= attempt(self.close_ports(record));
            match &record.attachment {
                Attachment::Bridge { link } => clean &= attempt(self.bridge.detach(link)),
                Attachment::Cni { list, args, runtime, result } => {
                    let path = self.namespaces.path(pod);
                    let netns = self.namespaces.exists(pod).then_some(path.as_path());
                    let sandbox = Sandbox { id: pod.as_str(), netns, args, runtime };
                    for error in self.cni.del(list, &sandbox, result.as_ref()).err().unwrap_or_default() {
                        plugins_failed = true;
                        clean &= attempt(Err(cni_error(&error)));
                    }
                }
            }
        }
        // A plugin that failed may need the namespace when it is called again.
        if !plugins_failed {
            clean &= attempt(self.namespaces.remove(pod));
        }
        if clean && record.is_some() {
            clean &= attempt(self.store.remove(pod));
        }
        let mut state = self.state();
        state.releasing.remove(pod);
        if clean {
            if let Some(Attachment::Bridge { link }) = record.map(|record| record.attachment) {
                state.leaving.push(link);
            }
            state.records.remove(pod);
            state.troubles.remove(pod);
            return Ok(());
        }
        let text = format!("releasing the network of pod {pod}: {}", errors.join("; "));
        state.troubles.insert(pod.clone(), text.clone());
        Err(Error::new(Kind::Unavailable, text))
    }

    /// Whether plugins have connected this pod.
    pub(crate) fn is_by_cni(&self, pod: &PodId) -> bool {
        self.state().records.get(pod).is_some_and(|record| matches!(record.attachment, Attachment::Cni { .. }))
    }

    /// The pods whose release is up to the background.
    pub(crate) fn doomed(&self) -> Vec<PodId> {
        let state = self.state();
        state.records.iter().filter(|(_, record)| record.doomed).map(|(pod, _)| pod.clone()).collect()
    }

    /// Removes the interfaces of released pods that are still there, because somebody holds their namespace open.
    pub(crate) fn sweep(&self) {
        let leaving = std::mem::take(&mut self.state().leaving);
        for link in leaving {
            if let Err(error) = self.bridge.remove(&link) {
                tracing::warn!(%error, link, "the interface of a released pod is still there");
                self.state().leaving.push(link);
            }
        }
    }

    /// Takes the address ranges that kubelet hands over, one of each family, with commas between.
    pub(crate) fn set_pod_cidr(&self, text: &str) -> Result<()> {
        let wrong = |what: String| Error::new(Kind::InvalidArgument, format!("pod CIDR {text:?}: {what}"));
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let ranges = parts
            .map(|part| part.parse::<IpNet>().map_err(|error| wrong(format!("{part}: {error}"))))
            .collect::<Result<Vec<_>>>()?;
        crate::config::check_subnets(&ranges).map_err(wrong)?;
        if ranges.is_empty() {
            return Ok(());
        }
        self.store.write_pod_cidr(&ranges)?;
        self.state().pod_cidr = ranges;
        Ok(())
    }
}

fn cni_error(error: &cni::Error) -> Error {
    let kind = match error {
        cni::Error::TimedOut { .. } => Kind::DeadlineExceeded,
        cni::Error::Missing { .. } | cni::Error::Wrong { .. } | cni::Error::Read { .. } => Kind::FailedPrecondition,
        cni::Error::Run { .. } | cni::Error::Failed { .. } | cni::Error::Answer { .. } => Kind::Unavailable,
    };
    Error::new(kind, error.to_string())
}

/// Counters of the interfaces in a namespace.
pub(crate) fn counters(socket: &mut Socket, netns: &OwnedFd) -> Result<Vec<crate::route::Link>, crate::netlink::Error> {
    use std::os::fd::AsFd;
    let id = socket.namespace_id(netns.as_fd())?;
    socket.links(Some(id))
}
