//! What happens to containers, as it happens.

use futures::StreamExt;
use tokio::sync::watch;
use tonic::Status;
use tripod_cri_api::v1::{ContainerEventResponse, ContainerEventType};
use tripod_engine::{EngineEvent, EventKind, EventStream};

use super::Stream;
use crate::convert;

/// All events from now on. A client that is too slow gets an error and has to list everything anew: what it missed
/// must not look like nothing. The stream ends with the daemon, which would otherwise wait for it.
pub(super) fn stream(events: EventStream, mut stopped: watch::Receiver<bool>) -> Stream<ContainerEventResponse> {
    let end = async move {
        // An error means that the daemon is gone, which is as good.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    futures::stream::unfold(Some(events), |events| async {
        let mut events = events?;
        match events.next().await {
            Some(event) => Some((Ok(response(&event)), Some(events))),
            None => Some((
                Err(Status::data_loss("events were missed: list pods and containers, then subscribe anew")),
                None,
            )),
        }
    })
    .take_until(end)
    .boxed()
}

fn response(event: &EngineEvent) -> ContainerEventResponse {
    let kind = match event.kind {
        EventKind::Created => ContainerEventType::ContainerCreatedEvent,
        EventKind::Started => ContainerEventType::ContainerStartedEvent,
        EventKind::Stopped => ContainerEventType::ContainerStoppedEvent,
        EventKind::Deleted => ContainerEventType::ContainerDeletedEvent,
    };
    ContainerEventResponse {
        container_id: event.id.clone(),
        container_event_type: kind.into(),
        created_at: event.at,
        pod_sandbox_status: Some(convert::pod_status(&event.pod)),
        containers_statuses: event.containers.iter().map(|container| convert::container_status(container)).collect(),
    }
}
