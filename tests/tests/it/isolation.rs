//! The node itself: what the other tests stand on.

use tripod_tests::{DebianRegistry, Image, Node, tests};

tests![a_node_is_alone];

/// Its own processes, links and cgroups; a registry that takes images.
async fn a_node_is_alone(node: &mut Node) {
    node.counted = false;
    let links = std::fs::read_dir("/sys/class/net").unwrap().count();
    assert_eq!(links, 3, "lo and both ends of the uplink");
    assert!(std::fs::read_to_string("/proc/1/cmdline").unwrap().contains("it-"));
    assert_eq!(std::fs::read_dir("/run").unwrap().count(), 1);
    let cgroups = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    assert!(cgroups.lines().all(|line| line.ends_with(":/") || line.ends_with(":/init")), "{cgroups}");
    let registry = DebianRegistry::start(node.folder()).await;
    registry.push("busybox:1", &Image::busybox()).await;
}
