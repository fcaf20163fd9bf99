//! `inspect`: all that the daemon tells about one object.

use std::{collections::HashMap, process::ExitCode};

use serde_json::{Map, Value, json};
use tripod_cri_api::v1::{ContainerStatusRequest, ImageSpec, ImageStatusRequest, PodSandboxStatusRequest};

use crate::{CliError, Client, args::InspectArgs, client::Object, show::time};

pub(crate) async fn command(args: InspectArgs) -> Result<ExitCode, CliError> {
    let mut client = Client::connect(&args.connection.socket).await?;
    if args.spec {
        println!("{:#}", spec(&mut client, &args.object).await?);
        return Ok(ExitCode::SUCCESS);
    }
    let found = match client.object(&args.object).await {
        Ok(Object::Container(container)) => self::container(&mut client, container.id).await?,
        Ok(Object::Pod(pod)) => self::pod(&mut client, pod.id).await?,
        Err(CliError::NotFound(_)) => image(&mut client, &args.object).await?,
        Err(error) => return Err(error),
    };
    println!("{found:#}");
    Ok(ExitCode::SUCCESS)
}

/// Where the daemon has the specification among its details, under the name that others use too.
const SPEC: &str = "runtimeSpec";

async fn spec(client: &mut Client, object: &str) -> Result<Value, CliError> {
    let Object::Container(container) = client.object(object).await? else {
        return Err(CliError::NotFound(format!("{object:?} is a pod: only a container has a specification")));
    };
    let step = format!("inspect container {}", container.id);
    let request = ContainerStatusRequest { container_id: container.id, verbose: true };
    let answer = client.runtime.container_status(request).await.map_err(CliError::call(step))?.into_inner();
    match info(answer.info).get_mut(SPEC) {
        Some(spec) => Ok(spec.take()),
        None => Err(CliError::NotFound(format!("the daemon does not tell the specification of {object:?}"))),
    }
}

async fn container(client: &mut Client, id: String) -> Result<Value, CliError> {
    let step = format!("inspect container {id}");
    let request = ContainerStatusRequest { container_id: id, verbose: true };
    let answer = client.runtime.container_status(request).await.map_err(CliError::call(step))?.into_inner();
    let status = answer.status.unwrap_or_default();
    let state = status.state().as_str_name().trim_start_matches("CONTAINER_").to_lowercase();
    let user = status.user.clone().and_then(|user| user.linux).unwrap_or_default();
    let metadata = status.metadata.unwrap_or_default();
    Ok(json!({
        "kind": "container",
        "status": {
            "id": status.id,
            "name": metadata.name,
            "attempt": metadata.attempt,
            "state": state,
            "created_at": time(status.created_at),
            "started_at": time(status.started_at),
            "finished_at": time(status.finished_at),
            "exit_code": status.exit_code,
            "reason": status.reason,
            "message": status.message,
            "image": status.image.unwrap_or_default().image,
            "image_id": status.image_id,
            "image_ref": status.image_ref,
            "labels": status.labels,
            "annotations": status.annotations,
            "log_path": status.log_path,
            "user": { "uid": user.uid, "gid": user.gid, "supplemental_groups": user.supplemental_groups },
        },
        "info": without_spec(info(answer.info)),
    }))
}

/// It is as long as all the rest, and says nothing else.
fn without_spec(mut info: Value) -> Value {
    if let Some(members) = info.as_object_mut() {
        members.remove(SPEC);
    }
    info
}

async fn pod(client: &mut Client, id: String) -> Result<Value, CliError> {
    let step = format!("inspect pod {id}");
    let request = PodSandboxStatusRequest { pod_sandbox_id: id, verbose: true };
    let answer = client.runtime.pod_sandbox_status(request).await.map_err(CliError::call(step))?.into_inner();
    let status = answer.status.unwrap_or_default();
    let state = status.state().as_str_name().trim_start_matches("SANDBOX_").to_lowercase();
    let network = status.network.unwrap_or_default();
    let metadata = status.metadata.unwrap_or_default();
    let containers: Vec<String> = answer.containers_statuses.into_iter().map(|status| status.id).collect();
    Ok(json!({
        "kind": "pod",
        "status": {
            "id": status.id,
            "name": metadata.name,
            "namespace": metadata.namespace,
            "uid": metadata.uid,
            "attempt": metadata.attempt,
            "state": state,
            "created_at": time(status.created_at),
            "ip": network.ip,
            "additional_ips": network.additional_ips.into_iter().map(|ip| ip.ip).collect::<Vec<_>>(),
            "labels": status.labels,
            "annotations": status.annotations,
            "runtime_handler": status.runtime_handler,
            "containers": containers,
        },
        "info": info(answer.info),
    }))
}

pub(crate) async fn image(client: &mut Client, name: &str) -> Result<Value, CliError> {
    let image = Some(ImageSpec { image: name.to_owned(), ..ImageSpec::default() });
    let answer = client.images.image_status(ImageStatusRequest { image, verbose: true }).await;
    // What is no name of an image is no object at all.
    let answer = answer.map(tonic::Response::into_inner).unwrap_or_default();
    let Some(image) = answer.image else {
        return Err(CliError::NotFound(format!("no container, pod or image {name:?}")));
    };
    Ok(json!({
        "kind": "image",
        "status": {
            "id": image.id,
            "repo_tags": image.repo_tags,
            "repo_digests": image.repo_digests,
            "size": image.size,
            "uid": image.uid.map(|uid| uid.value),
            "username": image.username,
            "pinned": image.pinned,
        },
        "info": info(answer.info),
    }))
}

/// The verbose details. The daemon's own are one JSON document under `info`; whatever else there is stays as it is.
fn info(mut info: HashMap<String, String>) -> Value {
    let value = |text: String| serde_json::from_str(&text).unwrap_or(Value::String(text));
    let mut all = match info.remove("info").map(value) {
        Some(Value::Object(own)) => own,
        Some(other) => Map::from_iter([("info".to_owned(), other)]),
        None => Map::new(),
    };
    all.extend(info.into_iter().map(|(key, text)| (key, value(text))));
    Value::Object(all)
}
