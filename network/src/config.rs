//! What an operator can set about pod networks. Every setting has a default.

use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tripod_engine::{Error, Kind, Result};

/// Settings of pod networks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkConfig {
    /// Where pods get their network from.
    pub mode: Mode,
    /// Tells apart daemons on one host: the names of the nftables table, the bridge and the network namespaces begin
    /// with it. Up to 14 letters, digits and dashes.
    pub instance: String,
    /// Name of the built-in bridge; empty is the instance with a 0 behind it.
    pub bridge: String,
    /// Address ranges of the built-in bridge, at most one of each family, the primary family first. Empty: the pod
    /// CIDR that kubelet hands over, and until it does, `10.86.0.0/16` and `fd74:7269:706f:6400::/64`.
    pub subnets: Vec<IpNet>,
    /// Largest packet on the built-in bridge; `None` takes that of the interface with the default route.
    pub mtu: Option<u32>,
    /// Folder of CNI configurations; the first one by name is used.
    pub cni_conf_dir: PathBuf,
    /// Folders of CNI plugins, the first hit wins.
    pub cni_bin_dirs: Vec<PathBuf>,
    /// Seconds that each CNI plugin may take to add a pod.
    pub cni_add_timeout: u64,
    /// Seconds that each CNI plugin may take to remove a pod.
    pub cni_del_timeout: u64,
    /// Seconds that each CNI plugin may take to tell its state, which is asked in the background.
    pub cni_status_timeout: u64,
    /// Where the files of network namespaces are.
    pub netns_dir: PathBuf,
}

/// Where pods get their network from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// From CNI if there is a configuration, else from the built-in bridge.
    #[default]
    Auto,
    /// Always from the built-in bridge.
    Bridge,
    /// Always from CNI; without a configuration the network is not ready.
    Cni,
}

/// Ranges that the usual tools leave alone: Docker takes 172.17–31 and 192.168, podman 10.88 and 10.89, CRI-O 10.85,
/// flannel and kind 10.244, k3s 10.42, Cilium's samples 10.0, kubeadm's services 10.96–111, libvirt 192.168.122.
/// The IPv6 range is a unique local one whose global ID spells the project's name.
pub(crate) const DEFAULT_SUBNETS: [&str; 2] = ["10.86.0.0/16", "fd74:7269:706f:6400::/64"];

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            instance: "tripod".to_owned(),
            bridge: String::new(),
            subnets: Vec::new(),
            mtu: None,
            cni_conf_dir: "/etc/cni/net.d".into(),
            cni_bin_dirs: vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()],
            cni_add_timeout: 60,
            cni_del_timeout: 60,
            cni_status_timeout: 5,
            netns_dir: "/run/netns".into(),
        }
    }
}

impl NetworkConfig {
    /// Name of the built-in bridge.
    pub(crate) fn bridge_name(&self) -> String {
        if self.bridge.is_empty() { format!("{}0", self.instance) } else { self.bridge.clone() }
    }

    /// Refuses what cannot work, before anything is made.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |message: String| Err(Error::new(Kind::InvalidArgument, format!("network settings: {message}")));
        let plain =
            |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !plain(&self.instance) || self.instance.len() > 14 {
            return wrong(format!("instance {:?} must have 1 to 14 letters, digits and dashes", self.instance));
        }
        let bridge = self.bridge_name();
        if !plain(&bridge) || bridge.len() > 15 {
            return wrong(format!("bridge {bridge:?} must have 1 to 15 letters, digits and dashes"));
        }
        check_subnets(&self.subnets).or_else(|message| wrong(format!("subnets: {message}")))?;
        if self.mtu.is_some_and(|mtu| !(1280..=65535).contains(&mtu)) {
            return wrong("mtu must lie between 1280 and 65535".to_owned());
        }
        if self.cni_add_timeout == 0 || self.cni_del_timeout == 0 || self.cni_status_timeout == 0 {
            return wrong("a CNI time-out must be at least one second".to_owned());
        }
        let mut dirs = self.cni_bin_dirs.iter().chain([&self.cni_conf_dir, &self.netns_dir]);
        match dirs.find(|dir| !dir.is_absolute()) {
            Some(dir) => wrong(format!("{} is no absolute path", dir.display())),
            None => Ok(()),
        }
    }
}

/// At most one range of each family, each with room for a gateway and a pod.
pub(crate) fn check_subnets(subnets: &[IpNet]) -> Result<(), String> {
    for (at, subnet) in subnets.iter().enumerate() {
        if subnet.max_prefix_len() - subnet.prefix_len() < 2 {
            return Err(format!("{subnet} is too small: it must hold a gateway and a pod"));
        }
        if subnet.addr() != subnet.network() {
            return Err(format!("{subnet} has host bits set: write {}", subnet.trunc()));
        }
        if subnets[..at].iter().any(|other| other.addr().is_ipv4() == subnet.addr().is_ipv4()) {
            return Err(format!("{subnet} is a second range of its family; one of each is possible"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_hold() {
        NetworkConfig::default().check().expect("the defaults");
        let subnets: Vec<IpNet> = DEFAULT_SUBNETS.iter().map(|text| text.parse().expect("a range")).collect();
        check_subnets(&subnets).expect("the default ranges");
        assert_eq!(NetworkConfig::default().bridge_name(), "tripod0");
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let with = |change: fn(&mut NetworkConfig)| {
            let mut config = NetworkConfig::default();
            change(&mut config);
            config.check().expect_err("a wrong setting").to_string()
        };
        assert!(with(|config| config.instance = "a b".into()).contains("instance"));
        assert!(with(|config| config.bridge = "much-too-long-name".into()).contains("bridge"));
        assert!(with(|config| config.mtu = Some(100)).contains("mtu"));
        assert!(with(|config| config.cni_add_timeout = 0).contains("time-out"));
        assert!(with(|config| config.netns_dir = "run".into()).contains("absolute"));
        assert!(with(|config| config.subnets = vec!["10.0.0.0/31".parse().expect("a range")]).contains("too small"));
        assert!(with(|config| config.subnets = vec!["10.0.0.1/24".parse().expect("a range")]).contains("10.0.0.0/24"));
        assert!(
            with(|config| config.subnets =
                ["10.0.0.0/24", "10.1.0.0/24"].map(|net| net.parse().expect("a range")).into())
            .contains("second range")
        );
    }

    #[test]
    fn unknown_settings_are_refused() {
        serde_json::from_str::<NetworkConfig>(r#"{"mode": "cni", "mtu": 1400}"#).expect("settings");
        serde_json::from_str::<NetworkConfig>(r#"{"modus": "cni"}"#).expect_err("an unknown setting");
    }
}
