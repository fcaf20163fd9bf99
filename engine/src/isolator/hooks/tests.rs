use tripod_shim_protocol::HookStage;

use super::*;
use crate::{VolumeMount, isolator::fixture::Fixture};

fn file(when: &str) -> String {
    format!(
        r#"{{"version":"1.0.0","hook":{{"path":"/bin/hook","args":["hook","a"],"timeout":3}},"when":{when},"stages":["poststop","prestart","prestart"]}}"#
    )
}

fn applies(when: &str, container: &Container) -> bool {
    File::parse(file(when).as_bytes()).unwrap().applies(container).unwrap()
}

#[test]
fn all_conditions_must_hold_and_there_must_be_one() {
    let container = Container {
        annotations: [("gpu.example/use".into(), "yes".into())].into(),
        command: "/usr/bin/server".into(),
        bind_mounts: true,
    };
    for when in [
        r#"{"always":true}"#,
        r#"{"hasBindMounts":true}"#,
        r#"{"annotations":{"^gpu\\.":"^yes$"}}"#,
        r#"{"commands":["nothing","server$"]}"#,
        r#"{"always":true,"commands":["server"],"annotations":{".":"."}}"#,
    ] {
        assert!(applies(when, &container), "{when}");
    }
    for when in [
        "{}",
        r#"{"always":false}"#,
        r#"{"hasBindMounts":false}"#,
        r#"{"annotations":{"^gpu\\.":"^no$"}}"#,
        r#"{"annotations":{"gpu":"yes","other":"."}}"#,
        r#"{"commands":["^server"]}"#,
        r#"{"always":true,"commands":["client"]}"#,
    ] {
        assert!(!applies(when, &container), "{when}");
    }
    assert!(!applies(r#"{"hasBindMounts":true}"#, &Container::default()));
}

#[test]
fn what_is_wrong_with_a_file_is_named() {
    let wrong = |text: &str| File::parse(text.as_bytes()).unwrap_err();
    let good = file(r#"{"always":true}"#);
    for (from, to, told) in [
        ("1.0.0", "0.1.0", "version"),
        ("/bin/hook", "hook", "hook.path"),
        ("\"timeout\":3", "\"timeout\":0", "hook.timeout"),
        ("poststop", "later", "later"),
        ("always", "sometimes", "sometimes"),
    ] {
        let text = good.replace(from, to);
        assert!(wrong(&text).contains(told), "{text}: {}", wrong(&text));
    }
    let bad = File::parse(file(r#"{"commands":["("]}"#).as_bytes()).unwrap().applies(&Container::default());
    assert!(bad.unwrap_err().contains("when.commands"));
}

#[tokio::test]
async fn hooks_come_in_the_order_of_their_files_and_only_where_they_apply() {
    let mut fixture = Fixture::new();
    let folder = fixture.host("hooks.d");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("20-b.json"), file(r#"{"always":true}"#).replace("/bin/hook", "/bin/second")).unwrap();
    std::fs::write(folder.join("10-a.json"), file(r#"{"hasBindMounts":true}"#)).unwrap();
    std::fs::write(folder.join("README"), "no hook").unwrap();
    let hooks = Hooks::new(folder.clone());
    let plan = fixture.prepare(&hooks).await.unwrap();
    assert_eq!(plan.hooks.len(), 1);
    assert_eq!((plan.hooks[0].path.as_path(), plan.hooks[0].timeout), (Path::new("/bin/second"), Some(3)));
    assert_eq!(plan.hooks[0].stages, [HookStage::Prestart, HookStage::Poststop]);

    fixture.config.mounts = vec![VolumeMount { host_path: "/".into(), ..VolumeMount::default() }];
    let plan = fixture.prepare(&hooks).await.unwrap();
    let paths: Vec<&Path> = plan.hooks.iter().map(|hook| hook.path.as_path()).collect();
    assert_eq!(paths, [Path::new("/bin/hook"), Path::new("/bin/second")]);

    std::fs::write(folder.join("30-c.json"), "{").unwrap();
    let error = fixture.prepare(&hooks).await.unwrap_err();
    assert!(error.to_string().contains("30-c.json"), "{error}");
}
