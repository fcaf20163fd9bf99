//! `stop` and `rm`, for containers and pods alike.

use std::{path::Path, process::ExitCode};

use tripod_cri_api::v1::{
    ContainerFilter, ContainerState, PodSandbox, PodSandboxState, RemoveContainerRequest, RemovePodSandboxRequest,
    StopContainerRequest, StopPodSandboxRequest,
};

use crate::{
    CliError, Client,
    args::{RmArgs, StopArgs},
    client::Object,
    request,
};

pub(crate) async fn stop(args: StopArgs) -> Result<ExitCode, CliError> {
    let mut client = Client::connect(&args.connection.socket).await?;
    let mut failed = 0;
    for word in &args.ids {
        failed += report(word, stop_one(&mut client, word, args.timeout.into()).await);
    }
    Ok(outcome(failed))
}

async fn stop_one(client: &mut Client, word: &str, timeout: i64) -> Result<(), CliError> {
    match client.object(word).await? {
        Object::Container(container) => stop_container(client, container.id, timeout).await,
        Object::Pod(pod) => stop_pod(client, &pod.id, timeout).await,
    }
}

/// A pod's containers get their time to end; the pod's own stop gives them none.
pub(crate) async fn stop_pod(client: &mut Client, id: &str, timeout: i64) -> Result<(), CliError> {
    let filter = ContainerFilter { pod_sandbox_id: id.to_owned(), ..ContainerFilter::default() };
    for container in client.containers(Some(filter)).await? {
        if container.state() == ContainerState::ContainerRunning {
            stop_container(client, container.id, timeout).await?;
        }
    }
    let request = StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
    client.runtime.stop_pod_sandbox(request).await.map_err(CliError::call(format!("stop pod {id}")))?;
    Ok(())
}

pub(crate) async fn stop_container(client: &mut Client, id: String, timeout: i64) -> Result<(), CliError> {
    let step = format!("stop container {id}");
    let request = StopContainerRequest { container_id: id, timeout };
    client.runtime.stop_container(request).await.map_err(CliError::call(step))?;
    Ok(())
}

pub(crate) async fn remove(args: RmArgs) -> Result<ExitCode, CliError> {
    let mut client = Client::connect(&args.connection.socket).await?;
    let mut failed = 0;
    for word in &args.ids {
        failed += report(word, remove_one(&mut client, word, args.force).await);
    }
    Ok(outcome(failed))
}

async fn remove_one(client: &mut Client, word: &str, force: bool) -> Result<(), CliError> {
    let refuse = |what: &str| {
        let message = format!("{what} {word} runs: stop it first (`tripod stop {word}`), or use --force");
        Err(CliError::Usage(message))
    };
    match client.object(word).await? {
        Object::Container(one) if one.state() == ContainerState::ContainerRunning && !force => refuse("container"),
        Object::Pod(pod) if pod.state() == PodSandboxState::SandboxReady && !force => refuse("pod"),
        Object::Container(container) => {
            // A pod that `tripod run` has made is one with its container.
            let pod = client.pods().await?.into_iter().find(|pod| pod.id == container.pod_sandbox_id);
            if let Some(pod) = pod.filter(|pod| pod.annotations.contains_key(request::LOGS)) {
                return remove_with_logs(client, &pod).await;
            }
            let step = format!("remove container {}", container.id);
            let request = RemoveContainerRequest { container_id: container.id };
            client.runtime.remove_container(request).await.map_err(CliError::call(step)).map(drop)
        }
        Object::Pod(pod) => remove_with_logs(client, &pod).await,
    }
}

/// Removes a pod, and its logs if `tripod run` has made them: of a pod of the kubelet's they are the kubelet's.
async fn remove_with_logs(client: &mut Client, pod: &PodSandbox) -> Result<(), CliError> {
    remove_pod(client, &pod.id).await?;
    match pod.annotations.get(request::LOGS).map(Path::new) {
        Some(folder) if folder.parent() == Some(Path::new(request::LOGS_FOLDER)) => {
            match std::fs::remove_dir_all(folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(CliError::io(format!("remove the log folder {}", folder.display()))(error))
                }
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// Stops a pod at once and removes it with all its containers.
pub(crate) async fn remove_pod(client: &mut Client, id: &str) -> Result<(), CliError> {
    let stop = StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
    client.runtime.stop_pod_sandbox(stop).await.map_err(CliError::call(format!("stop pod {id}")))?;
    let remove = RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
    client.runtime.remove_pod_sandbox(remove).await.map_err(CliError::call(format!("remove pod {id}")))?;
    Ok(())
}

/// Says what became of one of several objects: its name on success, so that scripts know.
pub(crate) fn report(word: &str, result: Result<(), CliError>) -> usize {
    match result {
        Ok(()) => {
            println!("{word}");
            0
        }
        Err(error) => {
            eprintln!("tripod: {error}");
            1
        }
    }
}

/// What several objects have come to; each failure was told when it happened.
pub(crate) fn outcome(failed: usize) -> ExitCode {
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
