//! What a pod tells plugins: `CNI_ARGS`, and the arguments for those that declare a capability.

use ipnet::IpNet;
use serde_json::{Map, Value, json};
use tripod_engine::{Error, Kind, PodConfig, PodId, Result};

use crate::firewall;

/// The pod's names, for plugins that look the pod up in Kubernetes.
pub(crate) fn args(pod: &PodId, config: &PodConfig) -> Result<String> {
    let mut args = "IgnoreUnknown=1".to_owned();
    for (key, value) in [
        ("K8S_POD_NAMESPACE", config.namespace.as_str()),
        ("K8S_POD_NAME", &config.name),
        ("K8S_POD_INFRA_CONTAINER_ID", pod.as_str()),
        ("K8S_POD_UID", &config.uid),
    ] {
        if value.contains([';', '=', '\0', '\n']) {
            let text =
                format!("{key} {value:?} of the pod must not hold ';', '=' or a line break: CNI cannot pass it on");
            return Err(Error::new(Kind::InvalidArgument, text));
        }
        args.push_str(&format!(";{key}={value}"));
    }
    Ok(args)
}

/// Everything that a plugin may ask for; each gets what its capabilities name.
pub(crate) fn capabilities(config: &PodConfig, pod_cidr: &[IpNet]) -> Result<Map<String, Value>> {
    let mut all = Map::new();
    let ports: Vec<Value> = config.ports.iter().filter(|port| port.host_port != 0).map(port_mapping).collect();
    if !ports.is_empty() {
        all.insert("portMappings".to_owned(), ports.into());
    }
    if let Some(bandwidth) = bandwidth(config)? {
        all.insert("bandwidth".to_owned(), bandwidth);
    }
    if let Some(dns) = &config.dns {
        let dns = json!({"servers": dns.servers, "searches": dns.searches, "options": dns.options});
        all.insert("dns".to_owned(), dns);
    }
    if !pod_cidr.is_empty() {
        let ranges: Vec<Value> = pod_cidr.iter().map(|range| json!([{"subnet": range.to_string()}])).collect();
        all.insert("ipRanges".to_owned(), ranges.into());
    }
    if let Some(parent) = &config.cgroup_parent {
        all.insert("cgroupPath".to_owned(), parent.as_str().into());
    }
    all.insert("io.kubernetes.cri.pod-annotations".to_owned(), super::object(&config.annotations));
    Ok(all)
}

fn port_mapping(port: &tripod_engine::PortMapping) -> Value {
    let host_ip = port.host_ip.map(|ip| ip.to_string()).unwrap_or_default();
    json!({
        "hostPort": port.host_port,
        "containerPort": port.container_port,
        "protocol": firewall::name(port.protocol),
        "hostIP": host_ip,
    })
}

/// The limits that Kubernetes' annotations ask for, in bits per second.
fn bandwidth(config: &PodConfig) -> Result<Option<Value>> {
    let mut limits = Map::new();
    for way in ["ingress", "egress"] {
        let key = format!("kubernetes.io/{way}-bandwidth");
        let Some(text) = config.annotations.get(&key) else { continue };
        // Kubernetes' own bounds: a kilobit and a petabit per second.
        let Some(rate) = quantity(text).filter(|rate| (1_000..=1_000_000_000_000_000).contains(rate)) else {
            let text = format!("annotation {key}: {text:?} must be a rate between 1k and 1P, as \"10M\"");
            return Err(Error::new(Kind::InvalidArgument, text));
        };
        limits.insert(format!("{way}Rate"), rate.into());
        // The burst is not limited; the plugin wants a number below 2^32.
        limits.insert(format!("{way}Burst"), i32::MAX.into());
    }
    Ok((!limits.is_empty()).then(|| limits.into()))
}

/// A quantity as Kubernetes writes it: a whole number and a unit.
fn quantity(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use tripod_engine::{PortMapping, Protocol};

    use super::*;

    fn pod() -> PodConfig {
        PodConfig { name: "web".into(), namespace: "shop".into(), uid: "u1".into(), ..PodConfig::default() }
    }

    #[test]
    fn args_name_the_pod() {
        let id = PodId::parse(&"b".repeat(64)).expect("an ID");
        let expected = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID={id};K8S_POD_UID=u1"
        );
        assert_eq!(args(&id, &pod()).expect("arguments"), expected);
        let error = args(&id, &PodConfig { name: "a;X=1".into(), ..pod() }).expect_err("a second argument");
        assert_eq!(error.kind(), Kind::InvalidArgument);
    }

    #[test]
    fn capabilities_carry_ports_rates_and_ranges() {
        let mut config = pod();
        config.ports = vec![
            PortMapping { protocol: Protocol::Udp, container_port: 53, host_port: 5353, host_ip: None },
            PortMapping { protocol: Protocol::Tcp, container_port: 80, host_port: 0, host_ip: None },
        ];
        config.annotations.insert("kubernetes.io/ingress-bandwidth".into(), "10M".into());
        let all = capabilities(&config, &["10.1.0.0/24".parse().expect("a range")]).expect("capabilities");
        assert_eq!(
            all["portMappings"],
            json!([{"hostPort": 5353, "containerPort": 53, "protocol": "udp", "hostIP": ""}])
        );
        assert_eq!(all["bandwidth"], json!({"ingressRate": 10_000_000, "ingressBurst": i32::MAX}));
        assert_eq!(all["ipRanges"], json!([[{"subnet": "10.1.0.0/24"}]]));
        config.annotations.insert("kubernetes.io/egress-bandwidth".into(), "fast".into());
        capabilities(&config, &[]).expect_err("no rate");
    }

    #[test]
    fn quantities() {
        assert_eq!(quantity("10M"), Some(10_000_000));
        assert_eq!(quantity("1Ki"), Some(1024));
        assert_eq!(quantity("7"), Some(7));
        for wrong in ["", "M", "1.5G", "-1", "99999999999999999999", "99999999999P"] {
            assert_eq!(quantity(wrong), None, "{wrong}");
        }
    }
}
