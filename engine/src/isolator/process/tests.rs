use std::path::Path;

use super::*;
use crate::{Kind, isolator::fixture::Fixture};

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn fixture() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.config.image.config.entrypoint = words("/entry -e");
    fixture.config.image.config.cmd = words("default args");
    fixture
}

#[test]
fn command_and_args_follow_kubernetes() {
    for (command, args, expected) in [
        ("", "", "/entry -e default args"),
        ("", "mine", "/entry -e mine"),
        ("/other", "", "/other"),
        ("/other", "mine", "/other mine"),
    ] {
        let mut config = fixture().config;
        (config.command, config.args) = (words(command), words(args));
        assert_eq!(argv(&config).unwrap(), words(expected));
    }
}

#[test]
fn nothing_to_run_is_an_error() {
    let mut config = ContainerConfig::default();
    config.image.requested = "example/empty:1".to_owned();
    let error = argv(&config).unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument);
    assert!(error.to_string().contains("example/empty:1"));
    config.command = vec![String::new()];
    assert!(argv(&config).is_err());
    config.command = vec!["a\0b".to_owned()];
    assert!(argv(&config).is_err());
}

#[tokio::test]
async fn the_last_setting_of_a_variable_wins() {
    let mut fixture = fixture();
    fixture.pod.hostname = "web-0".to_owned();
    fixture.config.terminal = true;
    fixture.config.image.config.env = words("PATH=/image A=image B=image half =bad");
    fixture.config.env = vec![("A".to_owned(), "request".to_owned()), ("C".to_owned(), String::new())];
    let env = fixture.prepare(&Process::default()).await.unwrap().process.env;
    assert_eq!(env, words("PATH=/image TERM=xterm HOSTNAME=web-0 A=request B=image C="));
    for bad in ["", "a=b", "a\0"] {
        fixture.config.env = vec![(bad.to_owned(), String::new())];
        assert!(fixture.prepare(&Process::default()).await.is_err());
    }
}

#[tokio::test]
async fn defaults() {
    let plan = fixture().prepare(&Process::default()).await.unwrap();
    assert_eq!(plan.process.cwd, Path::new("/"));
    assert_eq!(plan.stop_signal, 15);
    assert!(plan.process.env[0].starts_with("PATH=/usr/local/sbin:"));
    assert!(!plan.process.env.iter().any(|entry| entry.starts_with("TERM=")));
    assert_eq!((plan.log, plan.stdin, plan.stdin_once, plan.rootfs.read_only), (None, false, false, false));
    assert_eq!(plan.process.oom_score_adj, None);
}

#[tokio::test]
async fn what_is_asked_for_is_carried_over() {
    let mut fixture = fixture();
    fixture.config.stdin = true;
    fixture.config.stdin_once = true;
    fixture.config.security.read_only_rootfs = true;
    fixture.config.security.no_new_privs = true;
    fixture.config.log_path = Some("/var/log/pods/p/c.log".into());
    fixture.config.image.config.working_dir = "/srv".to_owned();
    fixture.config.image.config.stop_signal = "SIGRTMIN+3".to_owned();
    fixture.config.oom_score_adj = Some(1000);
    let plan = fixture.prepare(&Process::default()).await.unwrap();
    assert!(plan.stdin && plan.stdin_once && plan.rootfs.read_only && plan.process.no_new_privs);
    assert_eq!(plan.log.unwrap().path, Path::new("/var/log/pods/p/c.log"));
    assert_eq!((plan.process.cwd.as_path(), plan.stop_signal), (Path::new("/srv"), 37));
    assert_eq!(plan.process.oom_score_adj, Some(1000));

    fixture.config.working_dir = "/app".to_owned();
    fixture.config.stop_signal = Some(2);
    let plan = fixture.prepare(&Process::default()).await.unwrap();
    assert_eq!((plan.process.cwd.as_path(), plan.stop_signal), (Path::new("/app"), 2));
}

#[tokio::test]
async fn open_files_are_limited_as_the_daemon_was_unless_asked_otherwise() {
    let files = |soft, hard| Rlimit { resource: Resource::Nofile, soft, hard };
    let daemons = own(Resource::Nofile);
    let isolator = Process::default();
    let mut fixture = fixture();
    assert_eq!(fixture.prepare(&isolator).await.unwrap().process.rlimits, [daemons]);
    fixture.config.rlimits = vec![files(10, 20)];
    assert_eq!(fixture.prepare(&isolator).await.unwrap().process.rlimits, [files(10, 20)]);
}

#[tokio::test]
async fn the_operators_limits_hold_where_none_are_asked_for() {
    let limit = |resource, soft, hard| Rlimit { resource, soft, hard };
    let (files, core) = (limit(Resource::Nofile, 100, 200), limit(Resource::Core, 0, 0));
    let limits = |rlimits: Vec<Rlimit>| Limits { rlimits, ..Limits::default() };
    let own = [("small".to_owned(), limits(vec![limit(Resource::Nofile, 5, 6)]))];
    let isolator = Process::new(&ByHandler::new(limits(vec![files.clone(), core.clone()]), own.into()));
    let mut fixture = fixture();
    assert_eq!(fixture.prepare(&isolator).await.unwrap().process.rlimits, [files.clone(), core.clone()]);
    fixture.config.rlimits = vec![limit(Resource::Nofile, 10, 20)];
    let wanted = [limit(Resource::Nofile, 10, 20), core];
    assert_eq!(fixture.prepare(&isolator).await.unwrap().process.rlimits, wanted);
    fixture.config.rlimits.clear();
    fixture.pod.runtime_handler = "small".to_owned();
    assert_eq!(fixture.prepare(&isolator).await.unwrap().process.rlimits, [limit(Resource::Nofile, 5, 6)]);
}

#[tokio::test]
async fn nonsense_is_refused() {
    let changes: [fn(&mut ContainerConfig); 6] = [
        |config| config.working_dir = "relative".to_owned(),
        |config| config.image.config.stop_signal = "SIGNONE".to_owned(),
        |config| config.stop_signal = Some(99),
        |config| config.log_path = Some("relative.log".into()),
        |config| config.oom_score_adj = Some(1001),
        |config| config.rlimits = vec![Rlimit { resource: Resource::Nofile, soft: 2, hard: 1 }],
    ];
    for change in changes {
        let mut fixture = fixture();
        change(&mut fixture.config);
        assert_eq!(fixture.prepare(&Process::default()).await.unwrap_err().kind(), Kind::InvalidArgument);
    }
}

#[test]
fn without_the_capability_the_own_limits_are_the_nearest() {
    let weak = Process { unlimited: false, score: -500, ..Process::default() };
    assert_eq!(weak.oom_score(-998).unwrap(), -500);
    assert_eq!(weak.oom_score(-499).unwrap(), -499);
    let strong = Process { unlimited: true, score: 0, ..Process::default() };
    assert_eq!(strong.oom_score(-998).unwrap(), -998);

    let own = getrlimit(Limit::Core).maximum.unwrap_or(u64::MAX);
    let all = Rlimit { resource: Resource::Core, soft: u64::MAX, hard: u64::MAX };
    assert_eq!(weak.rlimit(&all).unwrap(), Rlimit { resource: Resource::Core, soft: own, hard: own });
    assert_eq!(strong.rlimit(&all).unwrap(), all);
}
