use std::fs;

use super::{space::tcp, *};

impl Host {
    /// Uses the real plugins: `critest/build cni` makes them.
    fn with_real_plugins(&mut self) {
        let usual = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../critest/.build/bin/cni"));
        let dir = std::env::var_os("TRIPOD_CNI_BIN").map_or_else(usual, PathBuf::from);
        assert!(
            dir.join("host-local").exists(),
            "no CNI plugins in {}: run `critest/build cni`, or name theirs in TRIPOD_CNI_BIN",
            dir.display()
        );
        // Without dots and links, which the plugins' own search would take differently.
        self.config.cni_bin_dirs.push(fs::canonicalize(dir).expect("a folder"));
    }

    /// A plugin that is a shell script; `$DIR` is the host's own folder.
    fn plugin(&self, name: &str, script: &str) {
        let path = self.dir.path().join("bin").join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        crate::script::write(&path, &format!("#!/bin/sh\nDIR={}\n{script}\n", self.dir.path().display()));
    }

    fn configure(&self, version: &str, plugins: &serde_json::Value) {
        let list = serde_json::json!({"cniVersion": version, "name": "real", "plugins": plugins});
        fs::create_dir_all(&self.config.cni_conf_dir).expect("a folder");
        fs::write(self.config.cni_conf_dir.join("10-real.conflist"), list.to_string()).expect("a configuration");
    }

    fn unconfigure(&self) {
        fs::remove_file(self.config.cni_conf_dir.join("10-real.conflist")).expect("removed");
    }

    fn bridge_plugin(&self) -> serde_json::Value {
        serde_json::json!({
            "type": "bridge", "bridge": "cni-test", "isGateway": true, "ipMasq": false, "hairpinMode": true,
            "ipam": {
                "type": "host-local", "dataDir": self.dir.path().join("leases"),
                "ranges": [[{"subnet": "10.97.0.0/24"}], [{"subnet": "fd97::/64"}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            },
        })
    }

    fn leases(&self) -> usize {
        let entries = fs::read_dir(self.dir.path().join("leases/real")).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(['1', 'f'])).count()
    }
}

async fn not_ready(network: &Network) -> Option<String> {
    tokio::time::timeout(Duration::from_secs(2), network.status()).await.expect("status answers at once").not_ready
}

#[test]
fn real_plugins_connect_pods_and_let_them_go() {
    on_host(|mut host| async move {
        host.with_real_plugins();
        for version in ["1.1.0", "1.0.0", "0.4.0", "0.3.1"] {
            host.configure(version, &serde_json::json!([host.bridge_plugin(), {"type": "tuning"}]));
            let network = host.network();
            let (one, two) = (start(&network, vec![]).await, start(&network, vec![]).await);
            assert!(one.ip(0).to_string().starts_with("10.97.0."), "{version}: {:?}", one.setup.ips);
            assert!(one.ip(1).to_string().starts_with("fd97::"), "{version}: {:?}", one.setup.ips);
            assert_eq!(host.leases(), 4);
            let server = two.space().serve(80);
            for family in [0, 1] {
                let seen = one.space().run(|| tcp(SocketAddr::new(two.ip(family), 80)));
                assert_eq!(seen, Ok(one.ip(family)), "{version}");
            }
            let mut usage = PodUsage::default();
            network.pod_usage(PodContext { id: &one.id, config: &one.config, dir: Path::new("/") }, &mut usage);
            assert!(usage.interfaces[0].name == "eth0" && usage.interfaces[0].rx_packets > 5, "{usage:?}");
            drop(server);
            // The configuration that was in use is the one that undoes.
            host.configure(version, &serde_json::json!([{"type": "absent"}]));
            for pod in [&one, &two] {
                network.cleanup_pod(&pod.id).await.expect("cleaned up");
            }
            assert_eq!(host.leases(), 0, "{version}");
            host.is_clean().await;
        }
    });
}

#[test]
fn real_plugins_let_pods_go_after_a_reboot() {
    on_host(|mut host| async move {
        host.with_real_plugins();
        host.configure("1.1.0", &serde_json::json!([host.bridge_plugin()]));
        let network = host.network();
        let pod = start(&network, vec![]).await;
        drop(network);
        let path = pod.setup.plan.netns.as_deref().expect("a namespace");
        rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH).expect("unmounted");
        fs::remove_file(path).expect("removed");
        let network = host.network();
        network.recover(&known(&[&pod], false)).await.expect("recovered");
        assert_eq!(host.leases(), 2, "kubelet has not removed the pod yet");
        network.cleanup_pod(&pod.id).await.expect("cleaned up");
        assert_eq!(host.leases(), 0);
        host.is_clean().await;
    });
}

#[test]
fn host_ports_work_without_a_plugin_for_them() {
    on_host(|mut host| async move {
        host.with_real_plugins();
        host.configure("1.0.0", &serde_json::json!([host.bridge_plugin()]));
        let network = host.network();
        let ports = vec![port(Protocol::Tcp, 8080, 80, None), port(Protocol::Udp, 8080, 80, None)];
        let (pod, other) = (start(&network, ports).await, start(&network, vec![]).await);
        let server = pod.space().serve(80);
        for family in [0, 1] {
            let target = address(HOST[family], 8080);
            let caller = OUTSIDE[family].parse().expect("an address");
            // The plugin's bridge looks for duplicates of its link-local address first, which IPv6 needs to forward.
            let limit = Duration::from_secs(20);
            eventually(limit, "reached", async || host.outside.run(|| tcp(target)) == Ok(caller)).await;
            other.space().run(|| tcp(target)).expect("from another pod");
            pod.space().run(|| tcp(target)).expect("from the pod itself");
        }
        tcp(address("127.0.0.1", 8080)).expect("by localhost");
        // A restart keeps them.
        drop(network);
        Firewall::new("test").remove().expect("removed");
        let network = host.network();
        network.recover(&known(&[&pod, &other], true)).await.expect("recovered");
        host.outside.run(|| tcp(address(HOST[0], 8080))).expect("after a restart");
        drop(server);
        for pod in [&pod, &other] {
            network.cleanup_pod(&pod.id).await.expect("cleaned up");
        }
        host.is_clean().await;
    });
}

#[test]
fn a_port_mapping_plugin_is_given_the_ports() {
    on_host(|host| async move {
        host.plugin("net", r#"echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.97.0.9/24"}]}'"#);
        host.plugin("ports", "cat > $DIR/ports.$CNI_COMMAND; echo '{\"ips\": [{\"address\": \"10.97.0.9/24\"}]}'");
        let ports = serde_json::json!({"type": "ports", "capabilities": {"portMappings": true}});
        host.configure("1.0.0", &serde_json::json!([{"type": "net"}, ports]));
        let network = host.network();
        let pod = start(&network, vec![port(Protocol::Tcp, 8080, 80, Some("192.0.2.1"))]).await;
        assert_eq!(elements("any4") + elements("one4"), 0, "the plugin does it");
        network.cleanup_pod(&pod.id).await.expect("cleaned up");
        for command in ["ADD", "DEL"] {
            let input = fs::read(host.dir.path().join(format!("ports.{command}"))).expect("input");
            let input: serde_json::Value = serde_json::from_slice(&input).expect("JSON");
            let mapping = &input["runtimeConfig"]["portMappings"][0];
            assert_eq!((&mapping["hostPort"], &mapping["hostIP"]), (&8080.into(), &"192.0.2.1".into()), "{command}");
        }
        host.is_clean().await;
    });
}

#[test]
fn a_plugin_that_hangs_holds_up_nobody_else() {
    on_host(|mut host| async move {
        host.config.cni_add_timeout = 10;
        host.plugin("slow", r#"case $CNI_COMMAND in ADD) sleep 60;; esac"#);
        host.configure("1.0.0", &serde_json::json!([{"type": "slow"}]));
        let network = host.network();
        let add = tokio::spawn({
            let network = network.clone();
            async move { try_start(&network, pod_config(vec![])).await.map(|pod| pod.id) }
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(not_ready(&network).await, None);
        let mut on_host_network = pod_config(vec![]);
        on_host_network.namespaces.host_network = true;
        try_start(&network, on_host_network).await.expect("another pod");
        assert!(!add.is_finished(), "nobody waited for the plugin");
        let error = add.await.expect("an answer").expect_err("a time-out");
        assert_eq!(error.kind(), Kind::DeadlineExceeded);
        assert!(error.to_string().contains("slow did not finish ADD"), "{error}");
        host.is_clean().await;
    });
}

#[test]
fn a_failed_add_is_undone_and_can_be_repeated() {
    on_host(|mut host| async move {
        host.with_real_plugins();
        host.plugin("last", r#"test $CNI_COMMAND != ADD || test -e $DIR/go || { echo '{"code": 7, "msg": "not yet"}'; exit 1; }; cat > $DIR/in; echo '{"ips": [{"address": "10.97.0.9/24"}]}'"#);
        host.configure("1.0.0", &serde_json::json!([host.bridge_plugin(), {"type": "last"}]));
        let network = host.network();
        let error = try_start(&network, pod_config(vec![])).await.map(|pod| pod.id).expect_err("a failure");
        assert!(error.to_string().contains("code 7: not yet"), "{error}");
        assert_eq!(host.leases(), 0);
        host.is_clean().await;
        fs::write(host.dir.path().join("go"), "").expect("written");
        let pod = start(&network, vec![]).await;
        network.cleanup_pod(&pod.id).await.expect("cleaned up");
        assert_eq!(host.leases(), 0);
    });
}

#[test]
fn a_network_without_addresses_is_no_network() {
    on_host(|host| async move {
        host.plugin("net", "cat > $DIR/in.$CNI_COMMAND; echo '{}'");
        host.configure("1.0.0", &serde_json::json!([{"type": "net"}]));
        let error = try_start(&host.network(), pod_config(vec![])).await.map(|pod| pod.id).expect_err("no address");
        assert!(error.to_string().contains("CNI network real gave the pod no address"), "{error}");
        assert!(host.dir.path().join("in.DEL").exists(), "what the plugin made is undone");
        host.is_clean().await;
    });
}

#[test]
fn a_failed_del_is_kept_shown_and_tried_again() {
    on_host(|host| async move {
        host.plugin("net", r#"test $CNI_COMMAND = ADD -o -e $DIR/go || { echo busy >&2; exit 1; }; echo '{"ips": [{"address": "10.97.0.9/24"}]}'"#);
        host.configure("1.0.0", &serde_json::json!([{"type": "net"}]));
        let network = host.network();
        let pod = start(&network, vec![]).await;
        let error = network.cleanup_pod(&pod.id).await.expect_err("a failure");
        assert!(error.to_string().contains("busy"), "{error}");
        let trouble = format!("networkTrouble/{}", pod.id);
        assert!(network.status().await.details.iter().any(|(key, text)| key == &trouble && text.contains("busy")));
        drop(network);
        // A new daemon does not know the pod, fails too, and goes on trying by itself.
        let network = host.network();
        network.recover(&Known::default()).await.expect("recovered");
        eventually(Duration::from_secs(20), "its failure is shown", async || {
            network.status().await.details.iter().any(|(key, _)| key == &trouble)
        })
        .await;
        fs::write(host.dir.path().join("go"), "").expect("written");
        eventually(ROUND + Duration::from_secs(20), "the release is tried again", async || host.traces().is_empty())
            .await;
        assert!(network.status().await.details.iter().all(|(key, _)| key != &trouble));
    });
}

#[test]
fn readiness_follows_the_configuration() {
    on_host(|mut host| async move {
        host.plugin("net", "cat > /dev/null; echo '{\"ips\": [{\"address\": \"10.97.0.9/24\"}]}'");
        let bridge = host.network();
        assert_eq!(not_ready(&bridge).await, None, "without a configuration there is the bridge");
        host.config.mode = Mode::Cni;
        let network = host.network();
        assert!(not_ready(&network).await.expect("no configuration").contains("no CNI configuration"));
        let error = try_start(&network, pod_config(vec![])).await.map(|pod| pod.id).expect_err("no network");
        assert_eq!(error.kind(), Kind::Unavailable);
        let limit = Duration::from_secs(20);
        host.configure("1.0.0", &serde_json::json!([{"type": "net"}]));
        eventually(limit, "ready", async || not_ready(&network).await.is_none()).await;
        eventually(limit, "no bridge any more", async || {
            bridge.status().await.details.iter().any(|(_, value)| value.starts_with("CNI real"))
        })
        .await;
        start(&bridge, vec![]).await;
        fs::write(host.config.cni_conf_dir.join("10-real.conflist"), "{").expect("written");
        eventually(limit, "broken", async || {
            not_ready(&network).await.is_some_and(|why| why.contains("10-real.conflist"))
        })
        .await;
        let error = try_start(&bridge, pod_config(vec![])).await.map(|pod| pod.id).expect_err("not by the bridge");
        assert_eq!(error.kind(), Kind::FailedPrecondition);
        host.unconfigure();
        eventually(limit, "gone", async || not_ready(&network).await.is_some_and(|why| why.contains("no CNI"))).await;
    });
}
