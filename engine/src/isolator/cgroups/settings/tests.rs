use std::collections::BTreeSet;

use super::{super::host::Tree, *};

fn host(version: Version) -> Host {
    use Controller as C;
    let all: BTreeSet<_> =
        [C::Cpu, C::Cpuacct, C::Cpuset, C::Memory, C::Devices, C::Freezer, C::Blkio, C::Pids, C::Hugetlb].into();
    Host { trees: vec![Tree { mount: "/m".into(), version, controllers: all }], hugepages: ["2MB".to_owned()].into() }
}

fn lines(version: Version, resources: &Resources) -> Vec<String> {
    limits(&host(version), resources).into_iter().map(|setting| format!("{} {}", setting.file, setting.value)).collect()
}

fn resources() -> Resources {
    Resources {
        cpu_quota: Some(50_000),
        cpu_period: Some(100_000),
        cpu_shares: Some(1024),
        cpuset_cpus: Some("0-1".to_owned()),
        memory_limit: Some(64 << 20),
        memory_swap: Some(64 << 20),
        pids_limit: Some(-1),
        hugepages: [("2MB".to_owned(), 0)].into(),
        ..Resources::default()
    }
}

#[test]
fn v1() {
    assert_eq!(
        lines(Version::V1, &resources()),
        [
            "cpu.shares 1024",
            "cpu.cfs_period_us 100000",
            "cpu.cfs_quota_us 50000",
            "cpuset.cpus 0-1",
            "memory.limit_in_bytes 67108864",
            "memory.memsw.limit_in_bytes 67108864",
            "pids.max max",
            "hugetlb.2MB.limit_in_bytes 0",
            "hugetlb.2MB.rsvd.limit_in_bytes 0",
        ]
    );
    assert_eq!(lines(Version::V1, &Resources::default()), Vec::<String>::new());
    assert_eq!(oom_group(&host(Version::V1)), None);
}

#[test]
fn v2() {
    let mut resources = resources();
    resources.unified = [("memory.high".to_owned(), "50M".to_owned())].into();
    assert_eq!(
        lines(Version::V2, &resources),
        [
            "cpu.weight 100",
            "cpu.max 50000 100000",
            "cpuset.cpus 0-1",
            "memory.max 67108864",
            "memory.swap.max 0",
            "pids.max max",
            "hugetlb.2MB.max 0",
            "hugetlb.2MB.rsvd.max 0",
            "memory.high 50M",
        ]
    );
    assert_eq!(oom_group(&host(Version::V2)).unwrap().file, "memory.oom.group");
    let no_limit =
        Resources { memory_limit: Some(-1), memory_swap: Some(-1), cpu_quota: Some(-1), ..Resources::default() };
    assert_eq!(lines(Version::V2, &no_limit), ["cpu.max max", "memory.max max", "memory.swap.max max"]);
    let more = Resources { memory_limit: Some(10 << 20), memory_swap: Some(15 << 20), ..Resources::default() };
    assert_eq!(lines(Version::V2, &more)[1], "memory.swap.max 5242880");
}

#[test]
fn weights_meet_at_the_defaults_and_the_ends() {
    assert_eq!([0, 2, 1024, 262_144, u64::MAX].map(weight), [1, 1, 100, 10_000, 10_000]);
    let mut last = 0;
    for shares in 2..5000 {
        assert!(weight(shares) >= last);
        last = weight(shares);
    }
}

#[test]
fn device_rules() {
    let rule =
        |kind, major, minor, access: &str| DeviceRule { allow: true, kind, major, minor, access: access.to_owned() };
    let rules = [
        rule(Some(DeviceKind::Char), None, None, "m"),
        rule(Some(DeviceKind::Block), Some(8), Some(0), "r"),
        rule(None, Some(7), None, "rw"),
    ];
    let lines: Vec<_> =
        devices(&rules).into_iter().map(|setting| format!("{} {}", setting.file, setting.value)).collect();
    assert_eq!(
        lines,
        [
            "devices.deny a",
            "devices.allow c *:* m",
            "devices.allow b 8:0 r",
            "devices.allow c 7:* rw",
            "devices.allow b 7:* rw"
        ]
    );
    let all = rule(None, None, None, "rwm");
    assert!(devices(std::slice::from_ref(&all)).is_empty());
    assert!(!allows_all(&[]) && !allows_all(&rules));
    let no = DeviceRule { allow: false, ..rules[1].clone() };
    assert!(!allows_all(&[all.clone(), no.clone()]) && allows_all(&[no, all]));
}

#[test]
fn an_idle_cgroup_takes_no_weight() {
    let of = |idle: &str, shares| Resources {
        cpu_shares: Some(shares),
        unified: [("cpu.idle".to_owned(), idle.to_owned())].into(),
        ..Resources::default()
    };
    assert_eq!(lines(Version::V2, &of("1", 1024)), ["cpu.idle 1"]);
    assert_eq!(lines(Version::V2, &of("0", 1024)), ["cpu.idle 0", "cpu.weight 100"], "in this order only");
}

#[test]
fn each_device_is_told_by_a_write_of_its_own() {
    let unified = |file: &str, value: &str| Resources {
        unified: [(file.to_owned(), value.to_owned())].into(),
        ..Resources::default()
    };
    let value = "8:0 rbps=1048576 wiops=max\n8:16 rbps=max\n";
    assert_eq!(
        lines(Version::V2, &unified("io.max", value)),
        ["io.max 8:0 rbps=1048576 wiops=max", "io.max 8:16 rbps=max"]
    );
    assert_eq!(lines(Version::V2, &unified("io.weight", "default 50")), ["io.weight default 50"]);
    assert_eq!(
        lines(Version::V2, &unified("io.weight", "")),
        ["io.weight "],
        "the kernel may say what it thinks of it"
    );
}
