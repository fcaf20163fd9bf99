//! What tripod's own commands ask about images, beside what CRI has.

mod store;

use std::io;

use futures::{StreamExt, stream, stream::BoxStream};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};
use tripod_cri_api::own::{
    self, ArchiveFormat, LoadRequest, LoadResponse, LoadedImage, SaveRequest, SaveResponse, images_server::Images,
};
use tripod_image_service::{ArchiveFormat as Format, ImageService, LoadRequest as Load};

use crate::status_code::{Reply, status};

/// Pieces of an archive that wait to be read.
const PIECES: usize = 4;

/// The service.
#[derive(Debug)]
pub(crate) struct OwnImages {
    service: ImageService,
}

impl OwnImages {
    /// Over the node's images.
    pub(crate) fn new(service: ImageService) -> Self {
        Self { service }
    }
}

#[tonic::async_trait]
impl Images for OwnImages {
    async fn load(&self, request: Request<Streaming<LoadRequest>>) -> Reply<LoadResponse> {
        let mut messages = request.into_inner();
        let first = messages.message().await?.unwrap_or_default();
        let (sink, archive) = mpsc::channel(PIECES);
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        let load = Load { archive, name: given(first.name), platform: given(first.platform) };
        let mut next = Ok((first.data, first.last));
        // It ends with the client's last message, or when nobody reads any more.
        tokio::spawn(async move {
            loop {
                let (piece, last) = next.map_or_else(|error| (Err(error), true), |(data, last)| (Ok(data), last));
                if sink.send(piece).await.is_err() || last {
                    return;
                }
                // A client that goes away may look like one that has sent all.
                next = match messages.message().await {
                    Ok(Some(message)) => Ok((message.data, message.last)),
                    Ok(None) => Err(io::Error::other("its sender ended before it was over")),
                    Err(status) => Err(io::Error::other(format!("its sender ended: {}", status.message()))),
                };
            }
        });
        // In a task of its own: it cleans up behind itself whether or not the client waits.
        let service = self.service.clone();
        let loaded = tokio::spawn(async move { service.load(load).await }).await;
        let loaded = loaded.map_err(|error| Status::internal(format!("loading ended early: {error}")))?;
        let image = |image: tripod_image_service::Image| LoadedImage { id: image.id, names: image.repo_tags };
        Ok(Response::new(LoadResponse { images: loaded.map_err(status)?.into_iter().map(image).collect() }))
    }

    type SaveStream = BoxStream<'static, Result<SaveResponse, Status>>;

    async fn save(&self, request: Request<SaveRequest>) -> Reply<Self::SaveStream> {
        let format = match request.get_ref().format() {
            ArchiveFormat::OciArchive => Format::Oci,
            ArchiveFormat::DockerArchive => Format::Docker,
        };
        let saved = self.service.save(request.into_inner().images, format).await.map_err(status)?;
        let size = stream::iter([Ok(SaveResponse { size: saved.size, ..SaveResponse::default() })]);
        let pieces = stream::unfold(saved.bytes, |mut bytes| async move { Some((bytes.recv().await?, bytes)) });
        let pieces = pieces.map(|piece| match piece {
            Ok(data) => Ok(SaveResponse { size: 0, data }),
            Err(error) => Err(status(error)),
        });
        Ok(Response::new(size.chain(pieces).boxed()))
    }

    async fn disk_usage(&self, _: Request<own::DiskUsageRequest>) -> Reply<own::DiskUsageResponse> {
        store::disk_usage(&self.service).await
    }

    async fn prune(&self, request: Request<own::PruneRequest>) -> Reply<own::PruneResponse> {
        store::prune(&self.service, request.into_inner()).await
    }

    type CheckStream = BoxStream<'static, Result<own::CheckEvent, Status>>;

    async fn check(&self, request: Request<own::CheckRequest>) -> Reply<Self::CheckStream> {
        store::check(self.service.clone(), request.into_inner())
    }
}
