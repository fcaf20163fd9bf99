use super::*;

#[test]
fn what_is_not_named_stays() {
    let old = Resources {
        cpu_quota: Some(10_000),
        cpu_period: Some(100_000),
        cpu_shares: Some(2),
        memory_limit: Some(1 << 20),
        memory_swap: Some(1 << 20),
        hugepages: [("2MB".to_owned(), 0)].into(),
        ..Resources::default()
    };
    let new = Resources { cpu_quota: Some(20_000), memory_limit: Some(2 << 20), ..Resources::default() };
    let merged = merge(&old, &new);
    assert_eq!(
        merged,
        Resources { cpu_quota: Some(20_000), memory_limit: Some(2 << 20), memory_swap: Some(2 << 20), ..old.clone() },
        "swap stays forbidden"
    );
    assert_eq!(
        changed(&merged, &new),
        Resources {
            cpu_quota: Some(20_000),
            cpu_period: Some(100_000),
            memory_limit: Some(2 << 20),
            memory_swap: Some(2 << 20),
            ..Resources::default()
        },
        "pairs are written together, the rest is left alone"
    );
    assert_eq!(changed(&old, &Resources::default()), Resources::default());
}

#[test]
fn a_device_gets_back_what_it_had() {
    let now = "8:0 rbps=1 wbps=max riops=max wiops=max\n8:16 rbps=2 wbps=max riops=max wiops=max";
    let back = |file, now, new| of_device(file, now, new).unwrap();
    assert_eq!(back("io.max", now, "8:16 rbps=9"), "8:16 rbps=2 wbps=max riops=max wiops=max");
    assert_eq!(back("io.max", now, "8:32 rbps=9"), "8:32 rbps=max wbps=max riops=max wiops=max");
    assert_eq!(back("io.weight", "default 100", "200"), "default 100");
    assert_eq!(back("io.weight", "default 100", "8:0 200"), "8:0 default");
    assert_eq!(back("io.latency", "", "8:0 target=10"), "8:0 target=0");
    assert_eq!(of_device("io.cost.qos", "", "8:0 enable=1"), None);
}

#[test]
fn weights_wait_until_a_cgroup_is_not_idle() {
    let unified = |idle: &str| [(settings::IDLE.to_owned(), idle.to_owned())].into();
    let idle = Resources { cpu_shares: Some(512), unified: unified("1"), ..Resources::default() };
    let shares = Resources { cpu_shares: Some(256), ..Resources::default() };
    let merged = merge(&idle, &shares);
    assert_eq!((merged.cpu_shares, changed(&merged, &shares).cpu_shares), (Some(256), None));
    let awake = Resources { unified: unified("0"), ..Resources::default() };
    assert_eq!(changed(&merge(&merged, &awake), &awake).cpu_shares, Some(256));
}
