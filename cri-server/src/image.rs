//! The image service.

use std::collections::HashMap;

use futures::stream::BoxStream;
use tonic::{Request, Response, Status};
use tripod_cri_api::v1::{
    FilesystemIdentifier, FilesystemUsage, Image, ImageFilter, ImageFsInfoRequest, ImageFsInfoResponse, ImageSpec,
    ImageStatusRequest, ImageStatusResponse, ListImagesRequest, ListImagesResponse, PullImageRequest,
    PullImageResponse, RemoveImageRequest, RemoveImageResponse, StreamImagesRequest, StreamImagesResponse, UInt64Value,
    image_service_server::ImageService,
};
use tripod_image_service::FsUsage;

use crate::{
    convert,
    images::Images,
    runtime::parts,
    status_code::{Reply, status},
};

/// The image service.
#[derive(Debug)]
pub(crate) struct ImageServer {
    images: Images,
    /// RuntimeClass handlers beside the default one.
    handlers: Vec<String>,
}

impl ImageServer {
    /// Over the node's images.
    pub(crate) fn new(images: Images, handlers: Vec<String>) -> Self {
        Self { images, handlers }
    }

    fn list(&self, filter: Option<ImageFilter>) -> Vec<Image> {
        let named = filter.and_then(|filter| filter.image).map(|spec| spec.image).unwrap_or_default();
        let service = self.images.service();
        let found = if named.is_empty() { service.list() } else { service.get(&named).into_iter().collect() };
        found.iter().map(convert::image).collect()
    }

    /// The image that a request names. All handlers share one store, but an unknown one is an error.
    fn named(&self, spec: Option<ImageSpec>, call: &str) -> Result<String, Status> {
        let spec = spec.unwrap_or_default();
        if spec.image.is_empty() {
            return Err(Status::invalid_argument(format!("{call}: image.image: must not be empty")));
        }
        if !spec.runtime_handler.is_empty() && !self.handlers.contains(&spec.runtime_handler) {
            let message =
                format!("{call} {}: image.runtime_handler: {:?} is not configured", spec.image, spec.runtime_handler);
            return Err(Status::invalid_argument(message));
        }
        Ok(spec.image)
    }
}

#[tonic::async_trait]
impl ImageService for ImageServer {
    async fn list_images(&self, request: Request<ListImagesRequest>) -> Reply<ListImagesResponse> {
        Ok(Response::new(ListImagesResponse { images: self.list(request.into_inner().filter) }))
    }

    async fn stream_images(
        &self,
        request: Request<StreamImagesRequest>,
    ) -> Reply<BoxStream<'static, Result<StreamImagesResponse, Status>>> {
        let images = self.list(request.into_inner().filter);
        Ok(Response::new(parts(images, |images| StreamImagesResponse { images })))
    }

    async fn image_status(&self, request: Request<ImageStatusRequest>) -> Reply<ImageStatusResponse> {
        let request = request.into_inner();
        let found = self.images.service().get(&self.named(request.image, "image status")?);
        let info = match &found {
            Some(image) if request.verbose => convert::image_details(image),
            _ => HashMap::new(),
        };
        Ok(Response::new(ImageStatusResponse { image: found.as_ref().map(convert::image), info }))
    }

    async fn pull_image(&self, request: Request<PullImageRequest>) -> Reply<PullImageResponse> {
        let request = request.into_inner();
        let image = self.named(request.image, "pull image")?;
        let image = self.images.pull(image, request.auth.and_then(convert::auth)).await?;
        Ok(Response::new(PullImageResponse { image_ref: image.id }))
    }

    async fn remove_image(&self, request: Request<RemoveImageRequest>) -> Reply<RemoveImageResponse> {
        self.images.remove(&self.named(request.into_inner().image, "remove image")?).await?;
        Ok(Response::new(RemoveImageResponse {}))
    }

    async fn image_fs_info(&self, _: Request<ImageFsInfoRequest>) -> Reply<ImageFsInfoResponse> {
        let info = self.images.service().fs_info().await.map_err(status)?;
        Ok(Response::new(ImageFsInfoResponse {
            image_filesystems: vec![usage(&info.images)],
            container_filesystems: vec![usage(&info.containers)],
        }))
    }
}

fn usage(usage: &FsUsage) -> FilesystemUsage {
    FilesystemUsage {
        timestamp: usage.timestamp,
        fs_id: Some(FilesystemIdentifier { mountpoint: usage.mount_point.to_string_lossy().into_owned() }),
        used_bytes: Some(UInt64Value { value: usage.used_bytes }),
        inodes_used: Some(UInt64Value { value: usage.used_inodes }),
    }
}
