//! `ps`, `pods`, `images`.

use std::{collections::HashMap, process::ExitCode};

use tripod_cri_api::v1::{
    Container, ContainerState, ContainerStatusRequest, ListImagesRequest, PodSandboxState, PodSandboxStatusRequest,
    StatusRequest,
};

use crate::{
    CliError, Client, Embed,
    args::{ImagesArgs, PodsArgs, PsArgs},
    image::with_store,
    show::{age, bytes, print, short, table},
};

pub(crate) async fn containers(args: PsArgs) -> Result<ExitCode, CliError> {
    let mut client = Client::connect(&args.connection.socket).await?;
    if args.operations {
        return operations(&mut client).await;
    }
    let mut containers = client.containers(None).await?;
    containers.retain(|container| args.all || container.state() == ContainerState::ContainerRunning);
    containers.sort_by_key(|container| std::cmp::Reverse(container.created_at));
    if args.quiet {
        containers.iter().for_each(|container| println!("{}", container.id));
        return Ok(ExitCode::SUCCESS);
    }
    let pods: HashMap<String, String> =
        client.pods().await?.into_iter().map(|pod| (pod.id.clone(), pod_name(&pod))).collect();
    let mut rows = table(&["CONTAINER", "NAME", "IMAGE", "CREATED", "STATE", "POD"]);
    for container in &containers {
        let pod = pods.get(&container.pod_sandbox_id).cloned().unwrap_or_else(|| short(&container.pod_sandbox_id));
        rows.add_row([
            short(&container.id),
            container.metadata.as_ref().map_or_else(String::new, |metadata| metadata.name.clone()),
            image(container),
            age(container.created_at),
            state(&mut client, container).await,
            pod,
        ]);
    }
    print(&rows);
    Ok(ExitCode::SUCCESS)
}

fn image(container: &Container) -> String {
    let name = container.image.as_ref().map_or("", |image| image.image.as_str());
    if name.starts_with("sha256:") { short(name) } else { name.to_owned() }
}

fn pod_name(pod: &tripod_cri_api::v1::PodSandbox) -> String {
    pod.metadata.as_ref().map_or_else(String::new, |metadata| format!("{}/{}", metadata.namespace, metadata.name))
}

/// The state, and how it ended. It may be gone by the time that is asked: then the state has to do.
async fn state(client: &mut Client, container: &Container) -> String {
    let word = match container.state() {
        ContainerState::ContainerCreated => "created",
        ContainerState::ContainerRunning => "running",
        ContainerState::ContainerUnknown => "unknown",
        ContainerState::ContainerExited => {
            let request = ContainerStatusRequest { container_id: container.id.clone(), verbose: false };
            let answer = client.runtime.container_status(request).await;
            let status = answer.ok().and_then(|answer| answer.into_inner().status);
            return status.map_or_else(|| "exited".into(), |status| format!("exited ({})", status.exit_code));
        }
    };
    word.to_owned()
}

async fn operations(client: &mut Client) -> Result<ExitCode, CliError> {
    let answer = client.runtime.status(StatusRequest { verbose: true }).await;
    let info = answer.map_err(CliError::call("ask for the daemon's status"))?.into_inner().info;
    let text = info.get("operations").map_or("[]", String::as_str);
    let operations: Vec<serde_json::Value> = serde_json::from_str(text)
        .map_err(|error| CliError::Usage(format!("the daemon's list of operations cannot be read: {error}")))?;
    let word = |operation: &serde_json::Value, key: &str| operation[key].as_str().unwrap_or_default().to_owned();
    let seconds = |operation: &serde_json::Value, key: &str| {
        let (whole, nanos) = (operation[key]["secs"].as_u64(), operation[key]["nanos"].as_u64());
        format!("{:.1} s", whole.unwrap_or_default() as f64 + nanos.unwrap_or_default() as f64 / 1e9)
    };
    let mut rows = table(&["OPERATION", "OBJECT", "STAGE", "IN STAGE", "RUNNING"]);
    for operation in &operations {
        rows.add_row([
            word(operation, "kind"),
            word(operation, "object"),
            word(operation, "stage"),
            seconds(operation, "in_stage_for"),
            seconds(operation, "running_for"),
        ]);
    }
    print(&rows);
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn pods(args: PodsArgs) -> Result<ExitCode, CliError> {
    let mut client = Client::connect(&args.connection.socket).await?;
    let mut pods = client.pods().await?;
    pods.sort_by_key(|pod| std::cmp::Reverse(pod.created_at));
    if args.quiet {
        pods.iter().for_each(|pod| println!("{}", pod.id));
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = table(&["POD", "NAMESPACE", "NAME", "CREATED", "STATE", "ADDRESS"]);
    for pod in &pods {
        let request = PodSandboxStatusRequest { pod_sandbox_id: pod.id.clone(), verbose: false };
        let status =
            client.runtime.pod_sandbox_status(request).await.ok().and_then(|answer| answer.into_inner().status);
        let metadata = pod.metadata.clone().unwrap_or_default();
        let state = match pod.state() {
            PodSandboxState::SandboxReady => "ready",
            PodSandboxState::SandboxNotready => "not ready",
        };
        rows.add_row([
            short(&pod.id),
            metadata.namespace,
            metadata.name,
            age(pod.created_at),
            state.to_owned(),
            status.and_then(|status| status.network).map_or_else(String::new, |network| network.ip),
        ]);
    }
    print(&rows);
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn images(args: ImagesArgs, embed: &dyn Embed) -> Result<ExitCode, CliError> {
    let ImagesArgs { connection, local, quiet } = args;
    with_store(&connection, &local, embed, async |mut client| show_images(&mut client, quiet).await).await
}

async fn show_images(client: &mut Client, quiet: bool) -> Result<ExitCode, CliError> {
    let answer = client.images.list_images(ListImagesRequest { filter: None }).await;
    let mut images = answer.map_err(CliError::call("list images"))?.into_inner().images;
    images.sort_by(|one, other| (&one.repo_tags, &one.id).cmp(&(&other.repo_tags, &other.id)));
    if quiet {
        images.iter().for_each(|image| println!("{}", image.id));
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = table(&["IMAGE", "ID", "SIZE"]);
    for image in &images {
        let names = if image.repo_tags.is_empty() { &image.repo_digests } else { &image.repo_tags };
        let nameless = ["<none>".to_owned()];
        let names = if names.is_empty() { &nameless[..] } else { names };
        for name in names {
            rows.add_row([name.clone(), short(&image.id), bytes(image.size)]);
        }
    }
    print(&rows);
    Ok(ExitCode::SUCCESS)
}
