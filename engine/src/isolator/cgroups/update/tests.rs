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
