use super::*;
use crate::{Kind, isolator::fixture::Fixture};

fn free() -> PodNamespaces {
    PodNamespaces::default()
}

#[test]
fn namespaced_sysctls_pass_in_both_spellings() {
    for (name, dotted) in [
        ("kernel.shm_rmid_forced", "kernel.shm_rmid_forced"),
        ("kernel/msgmax", "kernel.msgmax"),
        ("kernel.sem", "kernel.sem"),
        ("fs.mqueue.msg_max", "fs.mqueue.msg_max"),
        ("net.ipv4.ip_local_port_range", "net.ipv4.ip_local_port_range"),
        ("net/ipv4/conf/eth0.7/rp_filter", "net.ipv4.conf.eth0/7.rp_filter"),
        ("net.ipv4.conf.eth0/7.rp_filter", "net.ipv4.conf.eth0/7.rp_filter"),
    ] {
        assert_eq!(check(name, "1", free()).unwrap(), dotted);
    }
}

#[test]
fn what_is_the_hosts_is_refused() {
    for name in ["kernel.core_pattern", "vm.swappiness", "kernel.hostname", "fs.file-max", "kernel.shm.x", "netx.a"] {
        let error = check(name, "1", free()).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument);
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn names_cannot_climb() {
    for name in ["net", "", "net.", ".net", "net..ipv4", "net.//.//.kernel.core_pattern", "net/../kernel", "net.a b"] {
        assert!(check(name, "1", free()).is_err(), "{name}");
    }
}

#[test]
fn namespaces_of_the_host_are_left_alone() {
    let network = PodNamespaces { host_network: true, ..free() };
    let ipc = PodNamespaces { host_ipc: true, ..free() };
    assert!(check("net.core.somaxconn", "1", network).is_err());
    assert!(check("net.core.somaxconn", "1", ipc).is_ok());
    assert!(check("kernel.sem", "1", ipc).is_err());
    assert!(check("kernel.sem", "1 2 3 4", network).is_ok());
}

#[test]
fn values_are_one_line() {
    for value in ["", "a\nb", "a\0", &"9".repeat(5000)] {
        assert!(check("kernel.sem", value, free()).is_err());
    }
}

#[tokio::test]
async fn the_plan_has_them_and_the_size_of_shm() {
    let mut fixture = Fixture::new();
    fixture.pod.sysctls.insert("net/core/somaxconn".to_owned(), "10".to_owned());
    let plan = fixture.prepare_pod(&Sysctls::default()).await.unwrap().plan;
    assert_eq!(plan.sysctls["net.core.somaxconn"], "10");
    assert_eq!(plan.shm_size, Some(64 << 20));
    fixture.pod.namespaces.host_ipc = true;
    assert_eq!(fixture.prepare_pod(&Sysctls::default()).await.unwrap().plan.shm_size, None);
}

#[tokio::test]
async fn the_operators_are_set_where_the_pod_can_have_them() {
    let sysctls = [("net.core.somaxconn", "10"), ("kernel.shm_rmid_forced", "1")];
    let sysctls = sysctls.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let isolator = Sysctls::new(&ByHandler::new(Limits { sysctls, ..Limits::default() }, [].into()));
    let mut fixture = Fixture::new();
    let set = async |fixture: &Fixture| {
        let sysctls = fixture.prepare_pod(&isolator).await.unwrap().plan.sysctls;
        sysctls.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(set(&fixture).await, "kernel.shm_rmid_forced=1 net.core.somaxconn=10");
    fixture.pod.sysctls.insert("net/core/somaxconn".to_owned(), "20".to_owned());
    assert_eq!(set(&fixture).await, "kernel.shm_rmid_forced=1 net.core.somaxconn=20");
    fixture.pod.sysctls.clear();
    fixture.pod.namespaces.host_network = true;
    assert_eq!(set(&fixture).await, "kernel.shm_rmid_forced=1");
    fixture.pod.namespaces.host_ipc = true;
    assert_eq!(set(&fixture).await, "");
}

/// Where the shim writes: dots part components, a slash stands for a dot.
fn file(dotted: &str) -> String {
    dotted
        .chars()
        .map(|c| {
            if c == '.' {
                '/'
            } else if c == '/' {
                '.'
            } else {
                c
            }
        })
        .collect()
}

proptest::proptest! {
    #[test]
    fn whatever_passes_stays_below_the_namespaced_folders(
        name in "(net|kernel|fs|[./])([./]{1,2}(mqueue|shm|msg|sem|net|kernel|[a-z.]{0,3})){0,5}"
    ) {
        if let Ok(dotted) = check(&name, "1", free()) {
            let path = file(&dotted);
            let parts: Vec<_> = path.split('/').collect();
            proptest::prop_assert!(parts.iter().all(|part| !["", ".", ".."].contains(part)), "{}", path);
            let ipc = |name: &str| ["sem", "shm", "msg"].iter().any(|start| name.starts_with(start));
            let kernel = parts.len() == 2 && parts[0] == "kernel" && ipc(parts[1]);
            let good = kernel || path.starts_with("net/") || path.starts_with("fs/mqueue/");
            proptest::prop_assert!(good, "{}", path);
        }
    }
}
