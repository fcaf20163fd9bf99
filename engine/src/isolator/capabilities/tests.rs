use super::*;
use crate::isolator::fixture::Fixture;

const NET_ADMIN: Capability = 12;
const SYS_ADMIN: Capability = 21;
const SYS_RESOURCE: Capability = 24;

fn all_held() -> Capabilities {
    Capabilities { held: Held(u64::MAX), ..Capabilities::default() }
}

#[tokio::test]
async fn the_default_is_the_fields() {
    let sets = Fixture::new().prepare(&all_held()).await.unwrap().process.capabilities;
    assert_eq!(sets.bounding, DEFAULT);
    assert_eq!((&sets.permitted, &sets.effective), (&sets.bounding, &sets.bounding));
    assert!(sets.inheritable.is_empty() && sets.ambient.is_empty());
}

#[tokio::test]
async fn the_operators_set_is_what_requests_change() {
    let limits = |list: &[Capability]| Limits { capabilities: Some(list.to_vec()), ..Limits::default() };
    let limits = ByHandler::new(limits(&[0, 7]), [("bare".to_owned(), limits(&[]))].into());
    let isolator = Capabilities { held: Held(u64::MAX), ..Capabilities::new(&limits) };
    let mut fixture = Fixture::new();
    fixture.config.security.add_capabilities = vec![NET_ADMIN];
    assert_eq!(fixture.prepare(&isolator).await.unwrap().process.capabilities.bounding, [0, 7, NET_ADMIN]);
    fixture.config.security.drop_capabilities = vec![0];
    assert_eq!(fixture.prepare(&isolator).await.unwrap().process.capabilities.bounding, [7, NET_ADMIN]);
    fixture.pod.runtime_handler = "bare".to_owned();
    assert_eq!(fixture.prepare(&isolator).await.unwrap().process.capabilities.effective, [NET_ADMIN]);
    fixture.config.security.privileged = true;
    let privileged = fixture.prepare(&isolator).await.unwrap().process.capabilities.bounding;
    assert!(privileged.contains(&SYS_ADMIN) && privileged.contains(&0));
}

#[test]
fn add_and_drop() {
    let wanted = |security: &Security| wanted(security, bits(&DEFAULT));
    let mut security =
        Security { add_capabilities: vec![NET_ADMIN], drop_capabilities: vec![0], ..Security::default() };
    assert_eq!(wanted(&security), (bits(&DEFAULT) | 1 << NET_ADMIN) & !1);
    security.drop_all_capabilities = true;
    assert_eq!(wanted(&security), 1 << NET_ADMIN);
    security.add_all_capabilities = true;
    assert_eq!(wanted(&security), 1 << NET_ADMIN);
    security.drop_all_capabilities = false;
    assert_eq!(wanted(&security), wanted_by_privileged() & !1);
    security.drop_capabilities = vec![NET_ADMIN];
    assert_eq!(wanted(&security) >> NET_ADMIN & 1, 0, "drop wins over add");
    security.privileged = true;
    assert_eq!(wanted(&security), wanted_by_privileged());
}

#[tokio::test]
async fn ambient_ones_are_in_every_set() {
    let mut fixture = Fixture::new();
    fixture.config.security.uid = Some(1000);
    fixture.config.security.ambient_capabilities = vec![NET_ADMIN];
    let sets = fixture.prepare(&all_held()).await.unwrap().process.capabilities;
    assert_eq!((sets.ambient, sets.inheritable), (vec![NET_ADMIN], vec![NET_ADMIN]));
    assert!(sets.permitted.contains(&NET_ADMIN) && sets.bounding.contains(&NET_ADMIN));

    fixture.config.security.drop_capabilities = vec![NET_ADMIN];
    let sets = fixture.prepare(&all_held()).await.unwrap().process.capabilities;
    assert!(sets.ambient.is_empty() && !sets.bounding.contains(&NET_ADMIN));
}

#[tokio::test]
async fn nobody_gets_more_than_the_daemon_has() {
    let weak = Capabilities { held: Held(!(1 << SYS_RESOURCE)), ..Capabilities::default() };
    let mut fixture = Fixture::new();
    fixture.config.security.privileged = true;
    let sets = fixture.prepare(&weak).await.unwrap().process.capabilities;
    assert!(sets.bounding.contains(&SYS_ADMIN) && !sets.bounding.contains(&SYS_RESOURCE));
    assert!(weak.status().await.details[0].1.contains("CAP_SYS_RESOURCE"));
    assert!(all_held().status().await.details.is_empty());
}

#[test]
fn what_is_held_is_what_proc_says() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    assert_eq!(Held::read(), Held(mask("CapPrm:") & mask("CapBnd:")));
}
