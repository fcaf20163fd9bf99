use super::*;

const ALL: [HookStage; 6] = [
    HookStage::Prestart,
    HookStage::CreateRuntime,
    HookStage::CreateContainer,
    HookStage::StartContainer,
    HookStage::Poststart,
    HookStage::Poststop,
];

#[test]
fn the_state_has_the_words_of_the_specification() {
    let plan = LaunchPlan { container: "c".into(), ..LaunchPlan::default() };
    let mut hooked = HookedPlan { plan, bundle: "/b".into(), annotations: [("k".into(), "v".into())].into() };
    let told = |hooked: &HookedPlan, stage| serde_json::to_string(&hooked.state(stage, 7)).unwrap();
    assert_eq!(
        told(&hooked, HookStage::Prestart),
        r#"{"ociVersion":"1.2.0","id":"c","status":"creating","pid":7,"bundle":"/b","annotations":{"k":"v"}}"#
    );
    hooked.annotations.clear();
    let statuses =
        ALL.map(|stage| serde_json::from_str::<serde_json::Value>(&told(&hooked, stage)).unwrap()["status"].clone());
    assert_eq!(statuses, ["creating", "creating", "creating", "created", "running", "stopped"]);
    let none = BTreeMap::new();
    let stopped = HookState::new(HookStage::Poststop, "c", None, Path::new("/b"), &none);
    assert_eq!(
        serde_json::to_string(&stopped).unwrap(),
        r#"{"ociVersion":"1.2.0","id":"c","status":"stopped","bundle":"/b"}"#
    );
}

#[test]
fn names_are_those_that_are_written() {
    for stage in ALL {
        assert_eq!(serde_json::to_value(stage).unwrap(), stage.name());
    }
}

#[test]
fn hooks_of_a_stage_keep_their_order() {
    let hook = |path: &str, stages: &[HookStage]| Hook { path: path.into(), stages: stages.into(), ..Hook::default() };
    let hooks = [
        hook("/b", &[HookStage::Poststart]),
        hook("/a", &[HookStage::Prestart, HookStage::Poststart]),
        hook("/c", &[HookStage::Prestart]),
    ];
    let paths = |stage| at(&hooks, stage).map(|hook| hook.path.to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(paths(HookStage::Prestart), ["/a", "/c"]);
    assert_eq!(paths(HookStage::Poststart), ["/b", "/a"]);
    assert!(paths(HookStage::Poststop).is_empty());
    let plan = LaunchPlan { hooks: hooks.to_vec(), ..LaunchPlan::default() };
    let hooked = HookedPlan { plan, ..HookedPlan::default() };
    assert!(hooked.has(&[HookStage::CreateRuntime, HookStage::Prestart]) && !hooked.has(&[HookStage::Poststop]));
}

#[test]
fn what_went_wrong_is_told_with_what_the_hook_said() {
    let hook = Hook { path: "/bin/hook".into(), timeout: Some(3), ..Hook::default() };
    assert_eq!(hook.judge(Some(0), b"fine"), Ok(()));
    assert_eq!(hook.judge(Some(2), b"  no luck\n").unwrap_err(), "ended with code 2: no luck");
    assert_eq!(hook.judge(None, b"").unwrap_err(), "did not end within 3 s and was killed");
    assert_eq!(hook.step(HookStage::CreateRuntime), "run hook /bin/hook (createRuntime)");
    assert_eq!(hook.argv(), ["/bin/hook"]);
    assert_eq!(Hook::default().limit(), LIMIT);
}
