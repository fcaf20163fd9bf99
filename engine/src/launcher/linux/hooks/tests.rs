use std::time::{Duration, Instant};

use serde_json::json;

use super::*;

fn sh(script: &str, timeout: u32) -> Value {
    let env = ["PATH=/usr/bin:/bin", "A=b=c"];
    json!({ "path": "/bin/sh", "args": ["named", "-c", script], "env": env, "timeout": timeout })
}

fn bundles() -> (tempfile::TempDir, Bundles) {
    let state = tempfile::tempdir().unwrap();
    let bundles = Bundles::new(state.path());
    (state, bundles)
}

fn plan() -> LaunchPlan {
    LaunchPlan { container: "c1".into(), ..LaunchPlan::default() }
}

#[tokio::test]
async fn all_hooks_after_the_end_run_once_whatever_becomes_of_each() {
    let (state, bundles) = bundles();
    let seen = state.path().join("seen");
    let script = |rest: &str, timeout: u32| {
        sh(&format!("echo \"$0 $A $(env | wc -l) $(pwd) $(cat)\" >>{}; {rest}", seen.display()), timeout)
    };
    let absent = json!({ "path": "/no/such/hook" });
    let hooks = json!({ "poststop": [script("exit 3", 60), absent, script("exec sleep 1000", 5), script("", 60)] });
    let spec = json!({ "annotations": { "k": "v" }, "hooks": hooks });
    let mut fds = Vec::new();
    let hooked = bundles.make(&plan(), &spec, None, &mut fds).unwrap();
    assert_eq!((fds.len(), hooked.bundle.as_path()), (3, bundles.of("c1").as_path()));
    assert_eq!(hooked.annotations, [("k".to_owned(), "v".to_owned())].into());
    let read: Value = serde_json::from_slice(&std::fs::read(hooked.bundle.join("config.json")).unwrap()).unwrap();
    assert_eq!(read, spec);

    let begin = Instant::now();
    bundles.remove("c1").await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(60));
    assert!(!bundles.of("c1").exists());
    let text = std::fs::read_to_string(&seen).unwrap();
    let bundle = bundles.of("c1").display().to_string();
    // The shell adds PWD, and what it was started as.
    let state = format!(
        r#"/ {{"ociVersion":"1.2.0","id":"c1","status":"stopped","bundle":"{bundle}","annotations":{{"k":"v"}}}}"#
    );
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines.iter().all(|line| line.starts_with("named b=c ") && line.ends_with(&state)), "{text}");
    bundles.remove("c1").await.unwrap();
    assert_eq!(std::fs::read_to_string(&seen).unwrap(), text);
}

#[tokio::test]
async fn what_an_earlier_daemon_has_left_is_ended() {
    let (state, bundles) = bundles();
    let seen = state.path().join("seen");
    let spec = json!({ "hooks": { "poststop": [sh(&format!("echo ran >>{}", seen.display()), 60)] } });
    bundles.make(&plan(), &spec, None, &mut Vec::new()).unwrap();
    // One that was cut off while it was made.
    std::fs::create_dir(bundles.of("c2")).unwrap();
    bundles.recover(&Known::default()).await.unwrap();
    assert_eq!(std::fs::read_to_string(&seen).unwrap(), "ran\n");
    assert_eq!(std::fs::read_dir(&bundles.folder).unwrap().count(), 0);
}
