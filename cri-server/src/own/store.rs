//! Calls of tripod's own about images: the use of the disk, prune and check.

use futures::{StreamExt, stream::BoxStream};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status};
use tripod_cri_api::own as v1;
use tripod_image_service as service;

use crate::status_code::{Reply, status};

/// Events of a check that wait for the client.
const EVENTS: usize = 64;

pub(super) async fn disk_usage(store: &service::ImageService) -> Reply<v1::DiskUsageResponse> {
    let usage = store.disk_usage().await.map_err(status)?;
    Ok(Response::new(v1::DiskUsageResponse {
        images: usage.images.into_iter().map(image).collect(),
        layers: Some(amount(usage.layers)),
        blobs: Some(amount(usage.blobs)),
        writable: Some(amount(usage.writable)),
        temporary: Some(amount(usage.temporary)),
        dangling_bytes: usage.dangling_bytes,
        unused_bytes: usage.unused_bytes,
        total_bytes: usage.total_bytes,
        free_bytes: usage.free_bytes,
        min_free_bytes: usage.min_free_bytes,
        saved: Some(amount(usage.saved)),
    }))
}

pub(super) async fn prune(store: &service::ImageService, request: v1::PruneRequest) -> Reply<v1::PruneResponse> {
    let v1::PruneRequest { all, dry_run, created_before, labels } = request;
    let created_before = match created_before {
        0 => None,
        nanoseconds => Some(Timestamp::from_nanosecond(nanoseconds.into()).map_err(|error| {
            Status::invalid_argument(format!("prune: created_before: {nanoseconds} is no time: {error}"))
        })?),
    };
    let labels = labels.into_iter().map(|label| (label.key, label.value)).collect();
    let request = service::PruneRequest { all, dry_run, created_before, labels };
    let pruned = store.prune(request).await.map_err(status)?;
    let images = pruned.images.into_iter().map(|(id, names)| v1::PrunedImage { id, names }).collect();
    Ok(Response::new(v1::PruneResponse { images, layers: pruned.layers, bytes: pruned.bytes }))
}

pub(super) fn check(
    store: service::ImageService,
    request: v1::CheckRequest,
) -> Reply<BoxStream<'static, Result<v1::CheckEvent, Status>>> {
    let v1::CheckRequest { images, repair, username, password } = request;
    let auth = (!username.is_empty()).then(|| service::RegistryAuth {
        username,
        password,
        ..service::RegistryAuth::default()
    });
    let request = service::CheckRequest { images, repair, auth };
    let (events, told) = mpsc::channel(EVENTS);
    // It ends with its first event for a client that has hung up.
    let outcome = tokio::spawn(async move { store.check(request, events).await });
    let last = async move {
        match outcome.await {
            Ok(Ok(summary)) => Ok(v1::CheckEvent { event: Some(self::summary(&summary)) }),
            Ok(Err(error)) => Err(status(error)),
            Err(error) => Err(Status::internal(format!("the check ended early: {error}"))),
        }
    };
    let events = ReceiverStream::new(told).map(|told| Ok(v1::CheckEvent { event: Some(event(told)) }));
    Ok(Response::new(events.chain(futures::stream::once(last)).boxed()))
}

fn amount(amount: service::Amount) -> v1::Amount {
    v1::Amount { count: amount.count, bytes: amount.bytes }
}

fn image(image: service::ImageUsage) -> v1::ImageUsage {
    v1::ImageUsage {
        id: image.id,
        names: image.names,
        created: image.created.unwrap_or_default(),
        bytes: image.bytes,
        shared_bytes: image.shared_bytes,
        unique_bytes: image.unique_bytes,
        dangling: image.dangling,
        pinned: image.pinned,
        containers: image.containers,
    }
}

fn event(event: service::CheckEvent) -> v1::check_event::Event {
    use v1::check_event::Event;
    match event {
        service::CheckEvent::Checked { object, done, total, bytes } => {
            Event::Checked(v1::Checked { object, done: done as u64, total: total as u64, bytes })
        }
        service::CheckEvent::Problem(service::Problem { object, images, path, what }) => {
            Event::Problem(v1::Problem { object, images, path: path.unwrap_or_default(), what })
        }
        service::CheckEvent::Repaired { object, from, containers } => {
            Event::Repaired(v1::Repaired { object, from, containers })
        }
        service::CheckEvent::NotRepaired { object, why } => Event::NotRepaired(v1::NotRepaired { object, why }),
    }
}

fn summary(summary: &service::CheckSummary) -> v1::check_event::Event {
    v1::check_event::Event::Summary(v1::CheckSummary {
        images: summary.images as u64,
        layers: summary.layers as u64,
        blobs: summary.blobs as u64,
        bytes: summary.bytes,
        broken: summary.broken as u64,
        repaired: summary.repaired as u64,
    })
}
