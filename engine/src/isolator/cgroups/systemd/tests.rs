use super::*;

#[test]
fn each_dash_of_a_slice_is_a_level() {
    let path = |name: &str| slice(name).map(|path| path.display().to_string()).unwrap_or_default();
    assert_eq!(path("kubepods.slice"), "kubepods.slice");
    assert_eq!(
        path("kubepods-burstable-pod1_2.slice"),
        "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice"
    );
    assert_eq!(slice("-.slice").unwrap(), PathBuf::new());
    for bad in ["", ".slice", "a", "a.scope", "a--b.slice", "-a.slice", "a-.slice", "a/b.slice", "a b.slice", "é.slice"]
    {
        assert!(slice(bad).is_err(), "{bad}");
    }
    assert!(slice(&format!("{}.slice", "a".repeat(300))).is_err());
}

#[test]
fn a_scope_is_delegated_and_has_no_limits() {
    let pod = PodId::random();
    assert_eq!(scope("tripod", &pod), format!("tripod-{pod}.scope"));
    let properties = properties(&pod, "kubepods-pod1.slice", 42);
    let find = |name| properties.iter().find(|(found, _)| *found == name).map(|(_, value)| value.clone());
    assert_eq!(find("Delegate"), Some(Value::Flag(true)));
    assert_eq!(find("Slice"), Some(Value::Text("kubepods-pod1.slice".to_owned())));
    assert_eq!(find("PIDs"), Some(Value::Numbers(vec![42])));
    assert_eq!(find("TasksMax"), Some(Value::Number(u64::MAX)));
    assert_eq!([find("DeviceAllow"), find("DevicePolicy"), find("MemoryMax")], [None, None, None]);
}

#[test]
fn containers_are_found_below_our_own_slice() {
    let root = tempfile::tempdir().unwrap();
    for dir in ["tripod-1.scope/shim", "tripod-1.scope/abc", "tripod-2.scope", "other.slice/def"] {
        fs::create_dir_all(root.path().join(dir)).unwrap();
    }
    assert_eq!(containers(root.path()), [root.path().join("tripod-1.scope/abc")]);
    assert_eq!(containers(Path::new("/nonesuch")), Vec::<PathBuf>::new());
}
