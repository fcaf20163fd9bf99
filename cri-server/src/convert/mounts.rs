//! Volumes and devices.

use tripod_cri_api::v1::{Device, Mount, MountPropagation};
use tripod_engine::{DeviceRequest, ImageVolume, MountOptions, PodNamespaces, VolumeMount};
use tripod_shim_protocol::Propagation;

use super::{
    Refusal, Refused,
    refusal::{absolute, below, plain},
    userns,
};

/// A volume. `image` is what its image was resolved to, where it has one.
pub(super) fn mount(
    index: usize,
    asked: &Mount,
    image: Option<ImageVolume>,
    pod: PodNamespaces,
    privileged: bool,
) -> Refused<VolumeMount> {
    let field = |name: &str| format!("config.mounts[{index}].{name}");
    let container_path = absolute(&field("container_path"), &asked.container_path)?;
    let propagation = match MountPropagation::try_from(asked.propagation) {
        Ok(MountPropagation::PropagationPrivate) => Propagation::Private,
        Ok(MountPropagation::PropagationHostToContainer) => Propagation::HostToContainer,
        Ok(MountPropagation::PropagationBidirectional) => Propagation::Bidirectional,
        Err(_) => return Err(Refusal::new(field("propagation"), format!("{} is unknown", asked.propagation))),
    };
    if propagation == Propagation::Bidirectional && !privileged {
        return Err(Refusal::new(field("propagation"), "bidirectional propagation needs a privileged container"));
    }
    if asked.recursive_read_only && !(asked.readonly && propagation == Propagation::Private) {
        let problem = "needs readonly = true and private propagation";
        return Err(Refusal::new(field("recursive_read_only"), problem));
    }
    if propagation == Propagation::Bidirectional && pod.user.is_some() {
        let problem = "bidirectional propagation needs the host's user namespace: set hostUsers to true";
        return Err(Refusal::new(field("propagation"), problem));
    }
    let map_ids = userns::of_mount(&format!("config.mounts[{index}]"), &asked.uid_mappings, &asked.gid_mappings, pod)?;
    let host_path = match (&image, asked.host_path.as_str()) {
        (Some(_), "") => std::path::PathBuf::new(),
        (Some(_), _) => return Err(Refusal::new(field("host_path"), "cannot be given together with an image")),
        (None, path) => absolute(&field("host_path"), path)?,
    };
    if image.is_none() && !asked.image_sub_path.is_empty() {
        return Err(Refusal::new(field("image_sub_path"), "needs an image beside it"));
    }
    Ok(VolumeMount {
        container_path,
        host_path,
        image: match image {
            Some(image) => {
                Some(ImageVolume { sub_path: below(&field("image_sub_path"), &asked.image_sub_path)?, ..image })
            }
            None => None,
        },
        read_only: asked.readonly,
        recursive_read_only: asked.recursive_read_only,
        selinux_relabel: asked.selinux_relabel,
        propagation: Some(propagation),
        options: options(&field("mount_options"), &asked.mount_options)?,
        map_ids,
    })
}

/// Options of a volume: those that restrict, as Kubernetes has them. All others would be ignored, so they are refused.
fn options(field: &str, asked: &[String]) -> Refused<MountOptions> {
    let mut options = MountOptions::default();
    for option in asked {
        match option.as_str() {
            "nosuid" => options.nosuid = true,
            "nodev" => options.nodev = true,
            "noexec" => options.noexec = true,
            other => return Err(Refusal::new(field, format!("{other:?} is none of noexec, nodev and nosuid"))),
        }
    }
    Ok(options)
}

/// A device of the host.
pub(super) fn device(index: usize, asked: &Device) -> Refused<DeviceRequest> {
    let field = |name: &str| format!("config.devices[{index}].{name}");
    let host_path = absolute(&field("host_path"), &asked.host_path)?;
    let permissions = match plain(&field("permissions"), &asked.permissions)?.as_str() {
        "" => "rwm".to_owned(),
        some if some.chars().all(|letter| "rwm".contains(letter)) => some.to_owned(),
        other => return Err(Refusal::new(field("permissions"), format!("{other:?} may hold only r, w and m"))),
    };
    Ok(DeviceRequest {
        container_path: match asked.container_path.as_str() {
            "" => host_path.clone(),
            path => absolute(&field("container_path"), path)?,
        },
        host_path,
        permissions,
    })
}

/// A volume, for a status. The kubelet finds the termination log by the two paths, so they come back as they were.
pub(super) fn to_wire(mount: &VolumeMount) -> Mount {
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    Mount {
        container_path: text(&mount.container_path),
        host_path: text(&mount.host_path),
        readonly: mount.read_only,
        selinux_relabel: mount.selinux_relabel,
        propagation: match mount.propagation {
            None | Some(Propagation::Private) => MountPropagation::PropagationPrivate,
            Some(Propagation::HostToContainer) => MountPropagation::PropagationHostToContainer,
            Some(Propagation::Bidirectional) => MountPropagation::PropagationBidirectional,
        }
        .into(),
        recursive_read_only: mount.recursive_read_only,
        image: mount.image.as_ref().map(|image| tripod_cri_api::v1::ImageSpec {
            image: image.requested.clone(),
            user_specified_image: image.requested.clone(),
            image_ref: image.reference.clone(),
            ..Default::default()
        }),
        image_sub_path: mount.image.as_ref().map_or_else(String::new, |image| text(&image.sub_path)),
        mount_options: [
            (mount.options.noexec, "noexec"),
            (mount.options.nodev, "nodev"),
            (mount.options.nosuid, "nosuid"),
        ]
        .into_iter()
        .filter(|(set, _)| *set)
        .map(|(_, name)| name.to_owned())
        .collect(),
        ..Default::default()
    }
}
