use super::{space::tcp, *};
use crate::bridge::host_link;

#[test]
fn pods_that_nobody_knows_are_released() {
    on_host(|host| async move {
        let network = host.network();
        let mut gone = Vec::new();
        for at in 0..5 {
            gone.push(start(&network, vec![port(Protocol::Tcp, 9000 + at, 80, None)]).await);
        }
        // As after SIGKILL: nothing was told to anybody.
        drop(network);
        let network = host.network();
        network.recover(&Known::default()).await.expect("recovered");
        host.is_clean().await;
        // Without records, too: somebody has emptied the root folder.
        let pod = start(&network, vec![]).await;
        drop(network);
        std::fs::remove_dir_all(host.root()).expect("removed");
        let network = host.network();
        network.recover(&Known::default()).await.expect("recovered");
        host.is_clean().await;
        assert!(!network.pods.namespaces.exists(&pod.id));
    });
}

#[test]
fn plugins_that_hang_do_not_hold_up_the_start() {
    on_host(|mut host| async move {
        let bin = host.dir.path().join("bin");
        std::fs::create_dir_all(&bin).expect("a folder");
        std::fs::create_dir_all(&host.config.cni_conf_dir).expect("a folder");
        let script = format!(
            "#!/bin/sh\ntest $CNI_COMMAND != DEL -o -e {0}/go || sleep 60\necho '{{\"ips\": [{{\"address\": \"10.97.0.9/24\"}}]}}'\n",
            host.dir.path().display()
        );
        crate::script::write(&bin.join("slow"), &script);
        let list = r#"{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "slow"}]}"#;
        std::fs::write(host.config.cni_conf_dir.join("1.conflist"), list).expect("a configuration");
        host.config.cni_del_timeout = 10;
        let network = host.network();
        start(&network, vec![]).await;
        drop(network);
        let network = host.network();
        let began = Instant::now();
        network.recover(&Known::default()).await.expect("recovered");
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        std::fs::write(host.dir.path().join("go"), "").expect("written");
        eventually(Duration::from_secs(60), "released in the end", async || host.traces().is_empty()).await;
    });
}

#[test]
fn pods_that_run_notice_nothing_of_a_restart() {
    on_host(|host| async move {
        let network = host.network();
        let pod = start(&network, vec![port(Protocol::Tcp, 8080, 80, None)]).await;
        let server = pod.space().serve(80);
        drop(network);
        // Meanwhile the host's firewall was reloaded.
        Firewall::new("test").remove().expect("removed");
        let network = host.network();
        network.recover(&known(&[&pod], true)).await.expect("recovered");
        host.outside.run(|| tcp(address(HOST[0], 8080))).expect("the port still leads to the pod");
        let other = start(&network, vec![]).await;
        assert_ne!(other.setup.ips, pod.setup.ips);
        other.space().run(|| tcp(SocketAddr::new(pod.ip(0), 80))).expect("the pod is still there");
        let _outside = host.outside.serve(81);
        pod.space().run(|| tcp(address(OUTSIDE[0], 81))).expect("masqueraded");
        let error = try_start(&network, pod_config(vec![port(Protocol::Tcp, 8080, 80, None)])).await;
        assert_eq!(error.map(|pod| pod.id).expect_err("its port is still taken").kind(), Kind::AlreadyExists);
        drop(server);
        for pod in [&pod, &other] {
            network.cleanup_pod(&pod.id).await.expect("cleaned up");
        }
        host.is_clean().await;
    });
}

#[test]
fn after_a_reboot_everything_waits_for_its_release() {
    on_host(|host| async move {
        let network = host.network();
        let pod = start(&network, vec![port(Protocol::Tcp, 8080, 80, None)]).await;
        drop(network);
        // What a reboot does: namespaces, interfaces and rules are gone, the records are not.
        network_is_gone(&host, &pod);
        let network = host.network();
        network.recover(&known(&[&pod], false)).await.expect("recovered");
        let status = network.status().await;
        assert!(status.details.contains(&("networkAddresses".to_owned(), "2".to_owned())), "still leased: {status:?}");
        let other = start(&network, vec![]).await;
        assert_ne!(other.setup.ips, pod.setup.ips);
        assert_eq!(elements("any4"), 0, "a dead pod has no open port");
        for pod in [&pod, &other] {
            network.cleanup_pod(&pod.id).await.expect("cleaned up");
        }
        host.is_clean().await;
    });
}

fn network_is_gone(host: &Host, pod: &Pod) {
    let path = pod.setup.plan.netns.as_deref().expect("a namespace");
    rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH).expect("unmounted");
    std::fs::remove_dir_all(&host.config.netns_dir).expect("removed");
    let mut socket = Socket::route().expect("a socket");
    socket.execute(vec![route::delete(&host_link(pod.id.as_str())), route::delete("test0")]).expect("removed");
    Firewall::new("test").remove().expect("removed");
}

#[test]
fn a_bridge_or_table_that_somebody_removes_comes_back() {
    on_host(|host| async move {
        let network = host.network();
        let first = start(&network, vec![port(Protocol::Tcp, 8080, 80, None)]).await;
        let _server = first.space().serve(80);
        Firewall::new("test").remove().expect("removed");
        eventually(Duration::from_secs(20), "the table is made again", async || {
            host.outside.run(|| tcp(address(HOST[0], 8080))).is_ok()
        })
        .await;
        Socket::route().expect("a socket").execute(vec![route::delete("test0")]).expect("removed");
        let (one, two) = (start(&network, vec![]).await, start(&network, vec![]).await);
        let _server = two.space().serve(80);
        one.space().run(|| tcp(SocketAddr::new(two.ip(0), 80))).expect("a new bridge");
    });
}

#[test]
fn a_record_that_cannot_be_read_is_put_aside_and_shown() {
    on_host(|host| async move {
        let network = host.network();
        let pod = start(&network, vec![]).await;
        drop(network);
        let record = host.root().join("network").join(format!("{}.json", pod.id));
        std::fs::write(&record, "{").expect("written");
        let network = host.network();
        network.recover(&Known::default()).await.expect("recovered");
        let status = network.status().await;
        assert!(status.details.iter().any(|(key, _)| key == &format!("networkTrouble/{}", pod.id)), "{status:?}");
        std::fs::remove_file(record.with_extension("broken")).expect("put aside");
        host.is_clean().await;
    });
}

#[test]
fn another_interface_of_the_bridges_name_is_refused() {
    on_host(|mut host| async move {
        host.config.bridge = "up0".to_owned();
        let error = try_start(&host.network(), pod_config(vec![])).await.map(|pod| pod.id).expect_err("no bridge");
        assert_eq!(error.kind(), Kind::FailedPrecondition);
        assert!(error.to_string().contains("up0"), "{error}");
        host.is_clean().await;
    });
}

#[test]
fn a_host_that_drops_what_is_forwarded_is_told() {
    on_host(|host| async move {
        let mut rules = crate::nft::Transaction::new("strict");
        rules.table().dropping_chain("forward");
        rules.commit(&mut Socket::netfilter().expect("a socket")).expect("a table");
        let network = host.network();
        eventually(Duration::from_secs(20), "a warning", async || {
            network
                .status()
                .await
                .details
                .iter()
                .any(|(key, value)| key.starts_with("networkWarning") && value.contains("strict"))
        })
        .await;
    });
}
