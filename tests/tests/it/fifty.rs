//! Fifty pods, and a daemon that is killed again and again while it starts and stops them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tonic::Code;
use tripod_cri_api::v1::{ContainerState, ListPodSandboxRequest, PodSandboxConfig, PodSandboxState};
use tripod_tests::{Cri, Node, eventually, host_pod, pod, shell, tests, within};

tests![fifty_pods_survive_kills_and_leave_nothing];

const PODS: usize = 50;
/// Pods that are worked on at the same time.
const AT_ONCE: usize = 8;

fn config(number: usize) -> PodSandboxConfig {
    let name = format!("pod-{number}");
    if number.is_multiple_of(2) { pod(&name) } else { host_pod(&name) }
}

/// What a kubelet does: the same again until it is done. Gives up when the daemon is gone.
async fn make(cri: &Cri, number: usize) -> Result<(), tonic::Status> {
    let config = config(number);
    let id = match cri.run_pod(&config).await {
        Err(error) if error.code() == Code::AlreadyExists => {
            // A pod that was lost is replaced.
            let pods = cri.runtime().list_pod_sandbox(ListPodSandboxRequest::default()).await?.into_inner().items;
            for old in pods.iter().filter(|pod| pod.metadata == config.metadata) {
                cri.remove_pod(&old.id).await?;
            }
            cri.run_pod(&config).await?
        }
        result => result?,
    };
    let container = match cri.create(&id, &config, &shell("main", "sleep 1000")).await {
        Err(error) if error.code() == Code::AlreadyExists => return Ok(()),
        result => result?,
    };
    cri.start(&container).await
}

/// Works on many pods at once; a call that fails is nobody's business here.
async fn on_all<F: Future<Output = ()> + Send + 'static>(work: impl Fn(usize) -> F) {
    let places = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    let tasks = (0..PODS).map(|number| {
        let (places, work) = (Arc::clone(&places), work(number));
        tokio::spawn(async move {
            let _place = places.acquire().await;
            work.await;
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

async fn fifty_pods_survive_kills_and_leave_nothing(node: &mut Node) {
    let mut cri = node.ready().await;
    let cut_off = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    for round in 0..4u64 {
        let making = tokio::spawn({
            let (cri, cut_off) = (cri.clone(), Arc::clone(&cut_off));
            on_all(move |number| {
                let (cri, cut_off) = (cri.clone(), Arc::clone(&cut_off));
                async move {
                    if make(&cri, number).await.is_err() {
                        cut_off[0].fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        });
        tokio::time::sleep(Duration::from_millis(120 + 90 * round)).await;
        node.kill();
        making.await.unwrap();
        cri = node.start().await;
    }
    // Nobody disturbs the last round.
    let all = on_all({
        let cri = cri.clone();
        move |number| {
            let cri = cri.clone();
            async move { make(&cri, number).await.unwrap() }
        }
    });
    within("fifty pods", Duration::from_secs(150), all).await;
    let pods = cri.pods().await;
    assert_eq!(pods.len(), PODS);
    assert!(pods.iter().all(|pod| pod.state() == PodSandboxState::SandboxReady));
    for id in cri.containers().await {
        let running =
            async || (cri.status(&id).await.unwrap().state() == ContainerState::ContainerRunning).then_some(());
        eventually("a container runs", Duration::from_secs(30), running).await;
    }

    for round in 0..3u64 {
        let removing = tokio::spawn({
            let (cri, pods, cut_off) = (cri.clone(), pods.clone(), Arc::clone(&cut_off));
            on_all(move |number| {
                let (cri, id, cut_off) = (cri.clone(), pods[number].id.clone(), Arc::clone(&cut_off));
                async move {
                    let stopped = cri.stop_pod(&id).await;
                    let removed = if number.is_multiple_of(3) { cri.remove_pod(&id).await } else { Ok(()) };
                    if stopped.and(removed).is_err() {
                        cut_off[1].fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        });
        tokio::time::sleep(Duration::from_millis(60 + 80 * round)).await;
        node.kill();
        removing.await.unwrap();
        cri = node.start().await;
    }
    let [making, removing] = [0, 1].map(|at| cut_off[at].load(Ordering::Relaxed));
    assert!(making > 0 && removing > 0, "the kills must hit something: {making} and {removing} calls");
    node.clear(&cri).await;
}
