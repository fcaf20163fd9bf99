//! Whether a container runs: told by events, asked for where none come.

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};
use tonic::{Code, Streaming};
use tripod_cri_api::v1::{
    ContainerEventResponse, ContainerState, ContainerStatus, ContainerStatusRequest, GetEventsRequest,
};

use crate::{CliError, Client};

/// How often the state is asked for anyway.
const ASK: Duration = Duration::from_secs(1);

/// A container that is waited for.
#[derive(Debug)]
pub(crate) struct Life {
    client: Client,
    id: String,
    events: Option<Streaming<ContainerEventResponse>>,
    ask: Interval,
}

/// What has become of a container.
#[derive(Debug)]
pub(crate) enum State {
    /// It runs, or is to be started.
    Alive,
    /// It has ended.
    Ended(Box<ContainerStatus>),
    /// Nobody knows it any more.
    Gone,
    /// The daemon does not answer; the container may well run.
    Unknown(Box<tonic::Status>),
}

/// A container's status.
pub(crate) async fn status(client: &mut Client, id: &str) -> Result<ContainerStatus, CliError> {
    let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
    let answer = client.runtime.container_status(request).await;
    let status = answer.map_err(CliError::call(format!("ask for container {id}")))?.into_inner().status;
    status.ok_or_else(|| CliError::NotFound(format!("the daemon tells nothing about container {id}")))
}

// === impl Life ===

impl Life {
    /// Waits for what happens to a container from now on.
    pub(crate) async fn watch(client: &Client, id: &str) -> Self {
        let mut ask = interval(ASK);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut life = Self { client: client.clone(), id: id.to_owned(), events: None, ask };
        life.subscribe().await;
        life
    }

    async fn subscribe(&mut self) {
        let answer = self.client.runtime.get_container_events(GetEventsRequest {}).await;
        self.events = answer.ok().map(tonic::Response::into_inner);
    }

    /// Waits until the state may be another one. A dropped call loses nothing.
    pub(crate) async fn hint(&mut self) {
        loop {
            let Some(events) = &mut self.events else {
                self.ask.tick().await;
                return;
            };
            tokio::select! {
                _ = self.ask.tick() => return,
                event = events.message() => match event {
                    Ok(Some(event)) if event.container_id == self.id => return,
                    Ok(Some(_)) => {}
                    // The regular questions have to do then.
                    Ok(None) | Err(_) => self.events = None,
                },
            }
        }
    }

    /// Asks for the state.
    pub(crate) async fn state(&mut self) -> State {
        if self.events.is_none() {
            // A daemon that was restarted tells again.
            self.subscribe().await;
        }
        match status(&mut self.client, &self.id).await {
            Ok(status) => match status.state() {
                ContainerState::ContainerExited | ContainerState::ContainerUnknown => State::Ended(Box::new(status)),
                ContainerState::ContainerCreated | ContainerState::ContainerRunning => State::Alive,
            },
            Err(CliError::Call { status, .. }) if status.code() != Code::NotFound => State::Unknown(status),
            Err(_) => State::Gone,
        }
    }
}
