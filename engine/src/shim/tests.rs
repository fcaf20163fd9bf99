use std::{collections::BTreeMap, os::unix::net::UnixListener, thread::JoinHandle};

use tripod_shim_protocol::{
    SeccompFilter, VERSION,
    wire::{Incoming, Outgoing},
};

use super::*;

/// Answers one request, as a shim would that was started by another tripod, in words that may lack what is new.
fn shim_that_answers(dir: &Path, answer: serde_json::Value) -> JoinHandle<()> {
    let listener = UnixListener::bind(dir.join(SOCKET)).expect("a socket");
    std::thread::spawn(move || {
        let (socket, _) = listener.accept().expect("the daemon connects");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
        let mut incoming = Incoming::default();
        let request = incoming.receive(&socket).expect("a request").expect("a request");
        let ToShim { id, .. } = frame::decode(&request.body).expect("a request");
        let reply = serde_json::json!({"reply": {"id": id, "result": {"Ok": answer}}});
        let mut out = Outgoing::default();
        out.push(frame::encode(&reply, 0).expect("a reply"), Vec::new());
        out.send(&socket).expect("sent");
        // Until the daemon hangs up.
        let _ = incoming.receive(&socket);
    })
}

async fn after(request: Request, answer: serde_json::Value, check: impl FnOnce(&Shim)) {
    let dir = tempfile::tempdir().expect("a folder");
    let pod = PodId::random();
    let other = shim_that_answers(dir.path(), answer);
    let (shim, _events) = Shim::find(&pod, dir.path()).expect("connected").expect("a shim");
    shim.request(request, &[]).await.expect("an answer");
    check(&shim);
    drop(shim);
    drop(_events);
    tokio::task::spawn_blocking(move || other.join().expect("the shim's end")).await.expect("joined");
}

fn confined() -> LaunchPlan {
    let mut plan = LaunchPlan::default();
    plan.process.seccomp = Some(SeccompFilter::default());
    plan
}

fn refuses(shim: &Shim) {
    shim.knows(&LaunchPlan::default()).expect("nothing in it is new");
    let error = shim.knows(&confined()).unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    let text = error.to_string();
    assert!(text.contains("seccomp") && text.contains("version 1") && text.contains("make it anew"), "{text}");
}

#[tokio::test]
async fn an_older_shim_gets_no_container_that_it_would_leave_unconfined() {
    // From before there was a version in this answer.
    after(Request::List, serde_json::json!({"report": {"containers": {}}}), refuses).await;
    after(Request::List, serde_json::json!({"report": {"version": 1, "containers": {}}}), refuses).await;
    let setup = Request::Setup(Box::default());
    after(setup, serde_json::json!({"ready": {"pid": 1, "version": 1}}), refuses).await;
}

#[tokio::test]
async fn a_shim_of_today_or_later_gets_any() {
    for version in [VERSION, VERSION + 1] {
        let report = Reply::Report { version, containers: BTreeMap::new() };
        let answer = serde_json::to_value(report).expect("JSON");
        after(Request::List, answer, |shim| shim.knows(&confined()).expect("known")).await;
    }
}
