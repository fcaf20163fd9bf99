//! A shim that waits for an OCI runtime, or for the program that one has let go, keeps no other container of the pod
//! waiting: output is relayed, commands run, signals are delivered, ends are told.

use std::{fs, path::Path, time::Duration};

use tripod_cri_api::v1::{ContainerState, PodSandboxConfig};
use tripod_tests::{Cri, Node, eventually, host_pod, log_text, runtime, shell, tests};

use crate::oci::{log, script};

tests![others_go_on_while_create_takes_long, others_go_on_while_start_takes_long, others_go_on_until_a_program_runs];

/// Longest wait for what takes an idle machine no time.
const SOON: Duration = Duration::from_secs(20);

async fn others_go_on_while_create_takes_long(node: &mut Node) {
    others_go_on(node, "create").await;
}

async fn others_go_on_while_start_takes_long(node: &mut Node) {
    others_go_on(node, "start").await;
}

/// Here the runtime says at once that the container is started, and lets its process go much later.
async fn others_go_on_until_a_program_runs(node: &mut Node) {
    others_go_on(node, "execute").await;
}

/// The runtime of the tests, which waits for the file `go` in one call after it has found a file named after that call.
fn slow(node: &Node) -> std::path::PathBuf {
    let text = r#"
        for word; do case $word in create|start) call=$word; break;; esac; done
        wait_and_go() {
            until [ -e FOLDER/go ]; do sleep 0.02; done
            exec RUNTIME "$@"
        }
        if mv FOLDER/slow-$call FOLDER/held 2>/dev/null; then wait_and_go "$@"; fi
        if [ "$call" = start ] && mv FOLDER/slow-execute FOLDER/held 2>/dev/null; then
            wait_and_go "$@" >/dev/null 2>&1 &
            exit 0
        fi
        exec RUNTIME "$@""#;
    let text = text.replace("FOLDER", &node.folder().to_string_lossy());
    script(node, &text.replace("RUNTIME", &runtime::program().to_string_lossy()))
}

/// Starts a container and waits until it says that it is ready.
async fn ready(cri: &Cri, pod: &str, config: &PodSandboxConfig, name: &str, script: &str) -> String {
    let script = format!("trap 'exit 9' TERM; echo ready; while :; do {script}; usleep 10000; done");
    let id = cri.run(pod, config, &shell(name, &script)).await.unwrap();
    eventually(name, SOON, async || log_text(&log(cri, &id).await).contains("ready\n").then_some(())).await;
    id
}

async fn others_go_on(node: &mut Node, call: &str) {
    let program = slow(node);
    runtime::configure(&mut node.settings, runtime::HANDLER, &program);
    node.settings.raw("runtimes.other.timeout_seconds", "55");
    let cri = node.ready().await;
    let config = host_pod("main");
    let pod = cri.run_pod_by(runtime::HANDLER, &config).await.unwrap();
    let talks = ready(&cri, &pod, &config, "talks", "[ -e /say ] && { cat /say; rm /say; }").await;
    let ends = ready(&cri, &pod, &config, "ends", "[ -e /end ] && exit 6").await;
    let stops = ready(&cri, &pod, &config, "stops", "true").await;
    let late = cri.create(&pod, &config, &shell("late", "echo late; exit 4")).await.unwrap();

    let folder = node.folder().to_owned();
    fs::write(folder.join(format!("slow-{call}")), "").unwrap();
    let starting = tokio::spawn({
        let (cri, id) = (cri.clone(), late.clone());
        async move { cri.start(&id).await }
    });
    let held = async || folder.join("held").exists().then_some(());
    eventually("the runtime that waits", SOON, held).await;
    if call == "execute" {
        let running = async || {
            let status = cri.status(&late).await.unwrap();
            (status.state() == ContainerState::ContainerRunning).then_some(())
        };
        eventually("the answer to the start", SOON, running).await;
    }

    assert_eq!(cri.sh(&talks, "echo word >/new && mv /new /say; echo done").await, "done");
    eventually("what it says", SOON, async || log_text(&log(&cri, &talks).await).contains("word\n").then_some(()))
        .await;
    // The container may end, and take the command along, before the command has.
    let code = cri.exec(&ends, &["/bin/touch", "/end"], 40).await.unwrap().exit_code;
    assert!([0, 137].contains(&code), "{code}");
    assert_eq!(cri.exited(&ends).await.exit_code, 6);
    cri.stop(&stops, 30).await.unwrap();
    assert_eq!(cri.status(&stops).await.unwrap().exit_code, 9);

    let log_of = |id: &str| Path::new(&config.log_directory).join(format!("{id}/0.log"));
    assert!(!fs::read_to_string(log_of("late")).unwrap_or_default().contains("late"), "it has waited all the while");
    if call != "execute" {
        assert!(!starting.is_finished(), "its start is not answered");
    }
    fs::write(folder.join("go"), "").unwrap();
    starting.await.unwrap().unwrap();
    assert_eq!(cri.exited(&late).await.exit_code, 4);
    assert_eq!(log_text(&log(&cri, &late).await), "late\n");
}
