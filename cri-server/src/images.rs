//! Images as the services need them: what a container is made from, and which pulls are under way.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;
use tonic::Status;
use tripod_cri_api::v1::ImageSpec;
use tripod_engine::{ContainerImage, ImageVolume};
use tripod_image_service::{Image, ImageService, PullProgress, PullRequest, RegistryAuth};

use crate::status_code::{pull_status, status};

/// The images of the node. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Images {
    service: ImageService,
    /// Where the filesystem of writable layers is mounted.
    mountpoint: Arc<str>,
    pulls: Arc<Pulls>,
}

/// Pulls under way: for each, its image and how far it is.
type Pulls = Mutex<BTreeMap<u64, (String, watch::Receiver<PullProgress>)>>;

impl Images {
    /// Over an opened store.
    pub(crate) async fn new(service: ImageService) -> tripod_engine::Result<Self> {
        let mountpoint = service.fs_info().await?.containers.mount_point;
        Ok(Self { service, mountpoint: mountpoint.to_string_lossy().into(), pulls: Arc::default() })
    }

    /// The store itself.
    pub(crate) fn service(&self) -> &ImageService {
        &self.service
    }

    /// Where the filesystem of writable layers is mounted.
    pub(crate) fn mountpoint(&self) -> String {
        self.mountpoint.to_string()
    }

    /// The image that a container is made from. It must be here: pulling is a call of its own.
    pub(crate) fn for_container(&self, spec: &ImageSpec) -> Result<ContainerImage, Status> {
        let image = self.find(spec)?;
        // An artifact is an image for volumes only.
        let config = self.service.image_config(&spec.image).map_err(status)?;
        Ok(ContainerImage {
            reference: image.reference().to_owned(),
            requested: spec.image.clone(),
            user_specified: spec.user_specified_image.clone(),
            id: image.id,
            config,
        })
    }

    /// The image that a volume is made from.
    pub(crate) fn for_volume(&self, spec: &ImageSpec) -> Result<ImageVolume, Status> {
        let image = self.find(spec)?;
        let named = if spec.user_specified_image.is_empty() { &spec.image } else { &spec.user_specified_image };
        Ok(ImageVolume {
            reference: image.reference().to_owned(),
            requested: named.clone(),
            id: image.id,
            ..ImageVolume::default()
        })
    }

    fn find(&self, spec: &ImageSpec) -> Result<Image, Status> {
        self.service.get(&spec.image).ok_or_else(|| {
            Status::not_found(format!("image {:?} is not on this node: pull it, then create the container", spec.image))
        })
    }

    /// Fetches an image. How far it is can be seen in [`Self::pulls`].
    pub(crate) async fn pull(&self, reference: String, auth: Option<RegistryAuth>) -> Result<Image, Status> {
        let (progress, watched) = watch::channel(PullProgress::default());
        let _listed = Listed::new(&self.pulls, reference.clone(), watched);
        let request = PullRequest { reference, auth, progress: Some(progress) };
        self.service.pull(request).await.map_err(pull_status)
    }

    /// How far each pull is that somebody waits for.
    pub(crate) fn pulls(&self) -> Vec<(String, PullProgress)> {
        let pulls = self.pulls.lock().unwrap_or_else(PoisonError::into_inner);
        pulls.values().map(|(image, progress)| (image.clone(), progress.borrow().clone())).collect()
    }

    /// Removes an image with all its names; one that is not there is fine.
    pub(crate) async fn remove(&self, spec: &str) -> Result<(), Status> {
        let Some(image) = self.service.get(spec) else { return Ok(()) };
        self.service.remove(&image.id).await.map(drop).map_err(status)
    }
}

/// Keeps a pull in the list for as long as somebody waits for it.
struct Listed<'a> {
    pulls: &'a Pulls,
    key: u64,
}

impl<'a> Listed<'a> {
    fn new(pulls: &'a Pulls, image: String, progress: watch::Receiver<PullProgress>) -> Self {
        let mut list = pulls.lock().unwrap_or_else(PoisonError::into_inner);
        let key = list.last_key_value().map_or(0, |(last, _)| last + 1);
        list.insert(key, (image, progress));
        Self { pulls, key }
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.pulls.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}
