//! The container of a request becomes the engine's.

use std::{collections::BTreeMap, path::PathBuf};

use tripod_cri_api::v1::{ContainerConfig as Wire, ImageSpec, LinuxContainerConfig};
use tripod_engine::{ContainerConfig, ContainerImage, ImageVolume, PodConfig};

use super::{
    Refusal, Refused, mounts,
    refusal::{below, plain, required},
    resources, security, signal,
};

/// Annotations that ask for devices, as older clients do.
const CDI_ANNOTATIONS: &str = "cdi.k8s.io/";

/// The images that a request's volumes come from, by the volume's place in the list.
pub(crate) fn volume_images(asked: &Wire) -> Refused<Vec<(usize, ImageSpec)>> {
    let images = asked.mounts.iter().enumerate().filter_map(|(index, mount)| Some((index, mount.image.clone()?)));
    // Older clients send an empty specification with every mount.
    let images: Vec<_> = images.filter(|(_, image)| *image != ImageSpec::default()).collect();
    for (index, image) in &images {
        required(&format!("config.mounts[{index}].image.image"), &image.image)
            .map_err(|refusal| refusal.of(name(asked)))?;
    }
    Ok(images)
}

/// The image that a request names.
pub(crate) fn image_of(asked: &Wire) -> Refused<ImageSpec> {
    let image = asked.image.clone().unwrap_or_default();
    required("config.image.image", &image.image).map_err(|refusal| refusal.of(name(asked)))?;
    Ok(image)
}

/// Checks a request for a container in a pod and puts it into the engine's words. The images were resolved before.
pub(crate) fn container_config(
    asked: &Wire,
    pod: &PodConfig,
    image: ContainerImage,
    volumes: BTreeMap<usize, ImageVolume>,
) -> Refused<ContainerConfig> {
    convert(asked, pod, image, volumes)
        .map_err(|refusal| refusal.of(format_args!("{} of pod {}/{}", name(asked), pod.namespace, pod.name)))
}

fn name(asked: &Wire) -> String {
    format!("container {:?}", asked.metadata.as_ref().map_or("", |metadata| &metadata.name))
}

fn convert(
    asked: &Wire,
    pod: &PodConfig,
    image: ContainerImage,
    mut volumes: BTreeMap<usize, ImageVolume>,
) -> Refused<ContainerConfig> {
    refuse_foreign(asked)?;
    let metadata = asked.metadata.as_ref().ok_or_else(|| Refusal::new("config.metadata", "is missing"))?;
    let nothing = LinuxContainerConfig::default();
    let linux = asked.linux.as_ref().unwrap_or(&nothing);
    let limits = linux.resources.clone().unwrap_or_default();
    let context = linux.security_context.clone().unwrap_or_default();
    let text = |field: &str, texts: &[String]| texts.iter().map(|text| plain(field, text)).collect::<Refused<Vec<_>>>();
    if asked.tty && asked.stdin_once && !asked.stdin {
        return Err(Refusal::new("config.stdin_once", "needs stdin = true beside it"));
    }
    Ok(ContainerConfig {
        name: required("config.metadata.name", &metadata.name)?,
        attempt: metadata.attempt,
        image,
        command: text("config.command", &asked.command)?,
        args: text("config.args", &asked.args)?,
        working_dir: working_dir(&asked.working_dir)?,
        env: asked.envs.iter().map(|env| self::env(&env.key, &env.value)).collect::<Refused<_>>()?,
        mounts: asked
            .mounts
            .iter()
            .enumerate()
            .map(|(index, mount)| {
                mounts::mount(index, mount, volumes.remove(&index), pod.namespaces, context.privileged)
            })
            .collect::<Refused<_>>()?,
        devices: asked
            .devices
            .iter()
            .enumerate()
            .map(|(index, device)| mounts::device(index, device))
            .collect::<Refused<_>>()?,
        labels: asked.labels.clone().into_iter().collect(),
        annotations: asked.annotations.clone().into_iter().collect(),
        log_path: log_path(pod, &asked.log_path)?,
        stdin: asked.stdin,
        stdin_once: asked.stdin_once,
        terminal: asked.tty,
        resources: resources::resources("config.linux.resources", &limits)?,
        oom_score_adj: Some(resources::oom_score_adj("config.linux.resources.oom_score_adj", limits.oom_score_adj)?),
        security: security::security(&context, pod)?,
        rlimits: Vec::new(),
        stop_signal: signal::from_wire("config.stop_signal", asked.stop_signal)?,
    })
}

/// What belongs to other systems, or is not built.
fn refuse_foreign(asked: &Wire) -> Refused<()> {
    if asked.windows.is_some() {
        return Err(Refusal::new("config.windows", "this is a Linux runtime"));
    }
    let not_built = "CDI devices are not built into this version of tripod; pass the device by its path instead";
    if let Some(device) = asked.cdi_devices.first() {
        return Err(Refusal::new("config.CDI_devices", format!("{:?}: {not_built}", device.name)));
    }
    if let Some(key) = asked.annotations.keys().find(|key| key.starts_with(CDI_ANNOTATIONS)) {
        return Err(Refusal::new("config.annotations", format!("{key:?}: {not_built}")));
    }
    Ok(())
}

fn working_dir(path: &str) -> Refused<String> {
    if !path.is_empty() && !path.starts_with('/') {
        return Err(Refusal::new("config.working_dir", format!("{path:?} is not an absolute path")));
    }
    plain("config.working_dir", path)
}

fn env(key: &str, value: &[u8]) -> Refused<(String, String)> {
    let key = required("config.envs", key)?;
    if key.contains('=') {
        return Err(Refusal::new("config.envs", format!("the name {key:?} must not contain \"=\"")));
    }
    let Ok(value) = std::str::from_utf8(value) else {
        return Err(Refusal::new("config.envs", format!("the value of {key} is not UTF-8 text")));
    };
    let value = plain(&format!("config.envs {key}"), value)?;
    Ok((key, value))
}

/// The log lies below the pod's folder, wherever a request would have it. Without a folder there is no log.
fn log_path(pod: &PodConfig, path: &str) -> Refused<Option<PathBuf>> {
    match &pod.log_directory {
        Some(directory) if !path.is_empty() => Ok(Some(directory.join(below("config.log_path", path)?))),
        _ => Ok(None),
    }
}
