//! What runs in a container: program, environment, user, privileges (contract: line 19).

use std::fs;

use tripod_cri_api::v1::{
    ContainerFilter, ContainerState, ContainerStateValue, Int64Value, KeyValue, ListContainersRequest, NamespaceMode,
    SupplementalGroupsPolicy,
};
use tripod_tests::{Cri, Image, Node, host_pod, image_spec, pod, security_of, shell, tests};

use crate::containers::pod_of;

tests![
    users_and_groups,
    security_is_what_was_asked,
    program_and_environment_come_from_image_and_request,
    a_terminal_is_one_where_asked,
    a_privileged_container_has_what_the_daemon_has,
    a_pod_may_share_pids_and_ipc_with_the_host,
    lists_are_filtered_and_details_are_told,
];

/// 19.
async fn users_and_groups(node: &mut Node) {
    node.registry().await.push("ann:1", &Image::busybox().with("User", "ann"));
    let cri = node.ready().await;
    cri.pull("registry.test/ann:1").await.unwrap();
    let (pod, config) = pod_of(&cri).await;
    let id = |value: i64| Some(Int64Value { value });
    let base = |name: &str| shell(name, "id -u; id -g; id -G");
    let mut cases = Vec::new();

    cases.push((base("root"), 0, 0, vec![0]));
    let mut by_id = base("by-id");
    security_of(&mut by_id).run_as_user = id(1000);
    cases.push((by_id, 1000, 1001, vec![1001, 1002, 1003]));
    let mut by_name = base("by-name");
    security_of(&mut by_name).run_as_username = "ann".into();
    cases.push((by_name, 1000, 1001, vec![1001, 1002, 1003]));
    let mut by_image = base("by-image");
    by_image.image = Some(image_spec("registry.test/ann:1"));
    cases.push((by_image, 1000, 1001, vec![1001, 1002, 1003]));
    let mut merged = base("merged");
    security_of(&mut merged).run_as_user = id(1000);
    security_of(&mut merged).run_as_group = id(5000);
    security_of(&mut merged).supplemental_groups = vec![6000];
    let mut strict = merged.clone();
    strict.metadata.as_mut().unwrap().name = "strict".into();
    strict.log_path = "strict.log".into();
    security_of(&mut strict).supplemental_groups_policy = SupplementalGroupsPolicy::Strict.into();
    cases.push((merged, 1000, 5000, vec![1002, 1003, 5000, 6000]));
    cases.push((strict, 1000, 5000, vec![5000, 6000]));
    let mut unknown = base("unknown-id");
    security_of(&mut unknown).run_as_user = id(4242);
    cases.push((unknown, 4242, 0, vec![0]));

    for (config_of, uid, gid, groups) in cases {
        let name = config_of.metadata.clone().unwrap().name;
        let (status, text) = cri.outcome(&pod, &config, &config_of).await.unwrap();
        let user = status.user.unwrap().linux.unwrap();
        assert_eq!((user.uid, user.gid), (uid, gid), "{name}");
        let mut lines = text.lines();
        assert_eq!(
            (lines.next().unwrap(), lines.next().unwrap()),
            (uid.to_string().as_str(), gid.to_string().as_str()),
            "{name}"
        );
        let mut run: Vec<i64> = lines.next().unwrap().split(' ').map(|group| group.parse().unwrap()).collect();
        run.sort_unstable();
        run.dedup();
        assert_eq!(run, groups, "{name}");
        let mut told = user.supplemental_groups;
        told.push(gid);
        told.sort_unstable();
        told.dedup();
        assert_eq!(told, groups, "{name}: the status tells what runs");
    }
    let mut nobody = base("no-such-user");
    security_of(&mut nobody).run_as_username = "bob".into();
    let error = cri.create(&pod, &config, &nobody).await.unwrap_err();
    assert!(error.message().contains("bob"), "{error}");
}

/// What nobody may believe to have and not have: capabilities, no_new_privs, masks, a read-only root; and what is not
/// built is refused.
async fn security_is_what_was_asked(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let mut config_of = shell(
        "main",
        "grep -E 'CapEff|NoNewPrivs' /proc/self/status; touch /file 2>/dev/null || echo read-only; \
                               cat /proc/uptime | head -c 1 | wc -c; touch /proc/sys/kernel/x 2>/dev/null || echo no",
    );
    let security = security_of(&mut config_of);
    security.readonly_rootfs = true;
    security.no_new_privs = true;
    security.masked_paths = vec!["/proc/uptime".into()];
    security.readonly_paths = vec!["/proc/sys".into()];
    security.capabilities = Some(tripod_cri_api::v1::Capability {
        drop_capabilities: vec!["ALL".into()],
        add_capabilities: vec!["NET_BIND_SERVICE".into()],
        ..Default::default()
    });
    let (_, text) = cri.outcome(&pod, &config, &config_of).await.unwrap();
    assert_eq!(text, "CapEff:\t0000000000000400\nNoNewPrivs:\t1\nread-only\n0\nno\n");
}

async fn program_and_environment_come_from_image_and_request(node: &mut Node) {
    let image = Image::busybox().with("Entrypoint", vec!["/bin/echo", "entry"]).with("Cmd", vec!["default"]);
    node.registry().await.push("entry:1", &image.with("WorkingDir", "/made/by/the/image"));
    let cri = node.ready().await;
    cri.pull("registry.test/entry:1").await.unwrap();
    let (pod, config) = pod_of(&cri).await;
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    for (name, command, args, expected) in [
        ("neither", words(&[]), words(&[]), "entry default\n"),
        ("args", words(&[]), words(&["given"]), "entry given\n"),
        ("command", words(&["/bin/echo", "alone"]), words(&[]), "alone\n"),
        ("both", words(&["echo"]), words(&["by", "PATH"]), "by PATH\n"),
        ("folder", words(&["pwd"]), words(&[]), "/made/by/the/image\n"),
    ] {
        let mut container = shell(name, "");
        container.image = Some(image_spec("registry.test/entry:1"));
        (container.command, container.args) = (command, args);
        assert_eq!(cri.outcome(&pod, &config, &container).await.unwrap().1, expected, "{name}");
    }
    let mut container = shell("environment", "echo \"$FROM_IMAGE|$ODD|$PATH|$HOME\"; pwd");
    container.working_dir = "/another/one".into();
    let variable = |key: &str, value: &str| KeyValue { key: key.into(), value: value.into() };
    container.envs = vec![variable("FROM_IMAGE", "replaced"), variable("ODD", "ä=b \"c\"")];
    let (_, text) = cri.outcome(&pod, &config, &container).await.unwrap();
    assert_eq!(text, "replaced|ä=b \"c\"|/bin|/root\n/another/one\n");
}

async fn a_terminal_is_one_where_asked(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let script = "test -t 0 && test -t 1 && test -t 2 && echo terminal; echo err >&2; cat /etc/gone 2>/dev/null; test -e /dev/ptmx && echo ptmx";
    let mut with = shell("with", script);
    with.tty = true;
    let (status, _) = cri.outcome(&pod, &config, &with).await.unwrap();
    let log = fs::read_to_string(status.log_path).unwrap();
    let lines: Vec<&str> = log.lines().map(|line| line.split_once(' ').unwrap().1.trim_end()).collect();
    assert_eq!(lines, ["stdout F terminal", "stdout F err", "stdout F ptmx"]);
    let (_, text) = cri.outcome(&pod, &config, &shell("without", script)).await.unwrap();
    assert!(!text.contains("terminal"), "{text}");
}

async fn a_privileged_container_has_what_the_daemon_has(node: &mut Node) {
    let cri = node.ready().await;
    let mut config = pod("privileged");
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
    let script = "grep CapEff /proc/self/status; test -e /dev/loop-control -o -e /dev/kmsg && echo devices; \
                  touch /sys/fs/cgroup/x 2>/dev/null; mount -t tmpfs tmpfs /tmp && echo mounted; \
                  echo 7 >/proc/sys/net/ipv4/ip_unprivileged_port_start && echo writable";
    let mut container = shell("main", script);
    security_of(&mut container).privileged = true;
    let id = cri.run_pod(&config).await.unwrap();
    let (_, text) = cri.outcome(&id, &config, &container).await.unwrap();
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find(|line| line.starts_with("CapEff")).unwrap();
    assert_eq!(text, format!("{own}\ndevices\nmounted\nwritable\n"));
}

async fn a_pod_may_share_pids_and_ipc_with_the_host(node: &mut Node) {
    let cri = node.ready().await;
    let mut config = host_pod("shared");
    let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    let options = context.namespace_options.as_mut().unwrap();
    (options.pid, options.ipc) = (NamespaceMode::Node.into(), NamespaceMode::Node.into());
    let mut container = shell("main", "sleep 1000");
    security_of(&mut container).namespace_options = Some(options.clone());
    let (_, id) = cri.run_in_pod(&config, &container).await.unwrap();
    let own = ["pid", "ipc"].map(|name| fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string());
    assert_eq!(cri.sh(&id, "readlink /proc/self/ns/pid; readlink /proc/self/ns/ipc").await, own.join("\n"));
    // The end of the container is the end of its processes alone.
    cri.stop(&id, 0).await.unwrap();
    assert_eq!(cri.status(&id).await.unwrap().exit_code, 137);
}

async fn named(cri: &Cri, filter: ContainerFilter) -> Vec<String> {
    let answer = cri.runtime().list_containers(ListContainersRequest { filter: Some(filter) }).await.unwrap();
    answer.into_inner().containers.into_iter().map(|container| container.metadata.unwrap().name).collect()
}

/// 9, of containers; and what `crictl inspect` shows.
async fn lists_are_filtered_and_details_are_told(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let running = cri.run(&pod, &config, &shell("running", "sleep 1000")).await.unwrap();
    let exited = cri.run(&pod, &config, &shell("exited", "true")).await.unwrap();
    cri.exited(&exited).await;
    cri.create(&pod, &config, &shell("created", "true")).await.unwrap();
    let (other, _) = cri.run_in_pod(&host_pod("other"), &shell("elsewhere", "sleep 1000")).await.unwrap();
    let state = |state: ContainerState| ContainerFilter {
        state: Some(ContainerStateValue { state: state.into() }),
        pod_sandbox_id: pod.clone(),
        ..Default::default()
    };
    assert_eq!(named(&cri, state(ContainerState::ContainerRunning)).await, ["running"]);
    assert_eq!(named(&cri, state(ContainerState::ContainerExited)).await, ["exited"]);
    assert_eq!(named(&cri, state(ContainerState::ContainerCreated)).await, ["created"]);
    let in_other = ContainerFilter { pod_sandbox_id: other[..13].to_owned(), ..Default::default() };
    assert_eq!(named(&cri, in_other).await, ["elsewhere"]);
    let by_id = ContainerFilter { id: running[..13].to_owned(), ..Default::default() };
    assert_eq!(named(&cri, by_id).await, ["running"]);
    let labels = [("name".to_owned(), "created".to_owned())].into();
    assert_eq!(named(&cri, ContainerFilter { label_selector: labels, ..Default::default() }).await, ["created"]);
    let pid = cri.pid(&running).await;
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(line.contains("sleep"), "{line}");
}
