use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;

use super::*;

#[tokio::test]
async fn the_same_request_joins_and_runs_once() {
    let operations = Operations::<u32>::default();
    let runs = Arc::new(AtomicU32::new(0));
    let start = |_| {
        let runs = Arc::clone(&runs);
        async move {
            tokio::task::yield_now().await;
            Ok(runs.fetch_add(1, Ordering::SeqCst))
        }
    };
    let (a, b) = tokio::join!(operations.run("run", "x".into(), 1, start), operations.run("run", "x".into(), 1, start));
    assert_eq!((a.unwrap(), b.unwrap()), (0, 0));
    assert!(operations.list().is_empty());
}

#[tokio::test]
async fn another_request_for_the_same_object_is_refused() {
    let operations = Arc::new(Operations::<()>::default());
    let gate = Arc::new(Notify::new());
    let waits = Arc::clone(&gate);
    let first = tokio::spawn({
        let operations = Arc::clone(&operations);
        async move {
            let work = |operation: Arc<Operation>| async move {
                operation.stage("waiting");
                waits.notified().await;
                Ok(())
            };
            operations.run("run", "x".into(), 1, work).await
        }
    });
    while operations.list().first().is_none_or(|status| status.stage != "waiting") {
        tokio::task::yield_now().await;
    }
    let error = operations.run("run", "x".into(), 2, |_| async { Ok(()) }).await.unwrap_err();
    assert_eq!(error.kind(), Kind::AlreadyExists);
    gate.notify_one();
    first.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_operation_outlives_its_caller() {
    let operations = Arc::new(Operations::<()>::default());
    let (gate, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let work = {
        let (gate, done) = (Arc::clone(&gate), Arc::clone(&done));
        move |_| async move {
            gate.notified().await;
            done.notify_one();
            Ok(())
        }
    };
    let call = operations.run("run", "x".into(), 1, work);
    assert!(tokio::time::timeout(Duration::from_millis(5), call).await.is_err());
    gate.notify_one();
    done.notified().await;
}
