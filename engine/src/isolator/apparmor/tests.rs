use std::time::Duration;

use tempfile::TempDir;

use super::{super::fixture::Fixture, *};

const LIST: &str = "docker-default (enforce)\nman_filter (complain)\n/usr/bin/a b (c) (enforce)\nnot a line\n\
                    top//child (unconfined)\n";

/// A node whose parser is a shell script, told to `sh` as a file, with the list of profiles beside it.
fn node(script: Option<&str>) -> (TempDir, AppArmor) {
    let temp = tempfile::tempdir().unwrap();
    let file = |name: &str| temp.path().join(name);
    std::fs::write(file("profiles"), LIST).unwrap();
    let parser = script.map(|script| {
        let text = format!("cd {}\n{script}\n", temp.path().display());
        std::fs::write(file("parser"), text).unwrap();
        Parser { program: "/bin/sh".into(), arguments: vec![file("parser").into()] }
    });
    let policy = Policy::new(temp.path(), "unconfined");
    let host = Host { profiles: file("profiles"), parser, policy };
    (temp, AppArmor::on(Some(host)))
}

/// Loads what it reads, and counts.
const LOADS: &str = "echo run >> runs; echo $* > arguments; cat > text
                     sed -n 's/^profile \\([^ ]*\\) .*/\\1 (enforce)/p' text >> profiles";

async fn of(isolator: &AppArmor, wanted: AppArmorProfile) -> Result<Option<String>> {
    let mut fixture = Fixture::new();
    fixture.config.security.apparmor = wanted;
    fixture.prepare(isolator).await.map(|plan| plan.process.apparmor)
}

fn local(name: &str) -> AppArmorProfile {
    AppArmorProfile::Localhost(name.to_owned())
}

#[test]
fn the_kernels_list_has_names_with_spaces_and_parentheses() {
    let names: Vec<_> = names(LIST).collect();
    assert_eq!(names, ["docker-default", "man_filter", "/usr/bin/a b (c)", "top//child"]);
}

#[test]
fn the_policy_is_named_by_what_it_says() {
    let base = tempfile::tempdir().unwrap();
    let plain = Policy::new(base.path(), "unconfined");
    assert_eq!(plain, Policy::new(base.path(), "unconfined"));
    assert!(plain.text.starts_with(&format!("profile {} ", plain.name)), "{}", plain.text);
    let confined = Policy::new(base.path(), "/usr/bin/tripod");
    assert_ne!(plain.name, confined.name);
    assert!(confined.text.contains("signal (receive) peer=\"/usr/bin/tripod\","), "{}", confined.text);
    std::fs::create_dir(base.path().join("abi")).unwrap();
    std::fs::write(base.path().join("abi/3.0"), "").unwrap();
    let pinned = Policy::new(base.path(), "unconfined");
    assert!(pinned.text.starts_with("abi <abi/3.0>,\n") && pinned.name != plain.name, "{}", pinned.text);
}

#[tokio::test]
async fn profiles_of_the_node_must_be_loaded() {
    let (_temp, isolator) = node(None);
    assert_eq!(of(&isolator, local("docker-default")).await.unwrap().unwrap(), "docker-default");
    assert_eq!(of(&isolator, local("/usr/bin/a b (c)")).await.unwrap().unwrap(), "/usr/bin/a b (c)");
    for unknown in ["docker", "docker-default (enforce)", "top", "not a line"] {
        let error = of(&isolator, local(unknown)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument);
        assert!(error.to_string().contains("not loaded on this node"), "{error}");
    }
}

#[tokio::test]
async fn the_default_is_loaded_once_however_many_ask() {
    let (temp, isolator) = node(Some(LOADS));
    let ask = || of(&isolator, AppArmorProfile::RuntimeDefault);
    let (first, second, third) = tokio::join!(ask(), ask(), of(&isolator, AppArmorProfile::Unset));
    let name = first.unwrap().unwrap();
    assert!(name.starts_with("tripod-default-"), "{name}");
    assert_eq!([second.unwrap().unwrap(), third.unwrap().unwrap()], [name.clone(), name.clone()]);
    let read = |file: &str| std::fs::read_to_string(temp.path().join(file)).unwrap();
    assert_eq!((read("runs").as_str(), read("arguments").trim()), ("run\n", "--replace --skip-cache --quiet"));
    assert!(read("text").contains("deny mount,"));

    // Somebody removes it from the kernel.
    std::fs::write(temp.path().join("profiles"), LIST).unwrap();
    assert_eq!(ask().await.unwrap().unwrap(), name);
    assert_eq!(read("runs"), "run\nrun\n");
}

#[tokio::test]
async fn a_parser_that_fails_or_does_nothing_or_hangs_is_an_error_that_says_so() {
    let (_temp, isolator) = node(Some("echo 'syntax error in line 3' >&2; exit 1"));
    let error = of(&isolator, AppArmorProfile::Unset).await.unwrap_err().to_string();
    assert!(error.contains("/bin/sh failed (exit status: 1): syntax error in line 3"), "{error}");

    let (_temp, isolator) = node(Some("exec cat > /dev/null"));
    let error = of(&isolator, AppArmorProfile::RuntimeDefault).await.unwrap_err().to_string();
    assert!(error.contains("the kernel does not have it"), "{error}");

    let (_temp, isolator) = node(Some("sleep 600"));
    let host = isolator.host.as_ref().unwrap();
    let parser = host.parser.as_ref().unwrap();
    let error = parser.load_within(Duration::from_millis(100), &host.policy).await.unwrap_err().to_string();
    assert!(error.contains("did not end within"), "{error}");
}

#[tokio::test]
async fn without_a_parser_only_what_was_asked_for_is_missed() {
    let (temp, isolator) = node(None);
    assert_eq!(of(&isolator, AppArmorProfile::Unset).await.unwrap(), None);
    let error = of(&isolator, AppArmorProfile::RuntimeDefault).await.unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert!(error.to_string().contains("install the package apparmor"), "{error}");

    std::fs::remove_file(temp.path().join("profiles")).unwrap();
    let error = of(&isolator, local("docker-default")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert!(error.to_string().contains("is securityfs mounted"), "{error}");
}

#[tokio::test]
async fn a_kernel_without_apparmor_has_no_default_and_no_names() {
    let isolator = AppArmor::on(None);
    for wanted in [AppArmorProfile::Unset, AppArmorProfile::RuntimeDefault, AppArmorProfile::Unconfined] {
        assert_eq!(of(&isolator, wanted).await.unwrap(), None);
    }
    let error = of(&isolator, local("mine")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert!(error.to_string().contains("\"mine\"") && error.to_string().contains("no AppArmor"), "{error}");
}

#[tokio::test]
async fn privileged_containers_have_only_the_profile_that_they_name() {
    let (_temp, isolator) = node(Some(LOADS));
    for (wanted, given) in [
        (AppArmorProfile::Unset, None),
        (AppArmorProfile::RuntimeDefault, None),
        (AppArmorProfile::Unconfined, None),
        (local("man_filter"), Some("man_filter")),
    ] {
        assert_eq!(isolator.profile(&wanted, true).await.unwrap().as_deref(), given);
    }
    assert_eq!(of(&isolator, AppArmorProfile::Unconfined).await.unwrap(), None);
}
