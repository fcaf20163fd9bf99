//! Reading an answer with a limit on its size and an eye on its progress.

use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::Response;

use super::error::NetworkError;
use crate::config::Timeouts;

/// Why reading stopped.
#[derive(Debug)]
pub(crate) enum BodyError {
    Network(NetworkError),
    Stalled,
    TooLarge,
}

/// The body of an answer. Time in which nobody reads does not count as lack of progress.
#[derive(Debug)]
pub(crate) struct Body {
    response: Response,
    limit: u64,
    read: u64,
    stall: Duration,
    minimum: u64,
    waited: Duration,
    window: u64,
}

impl Body {
    pub(crate) fn new(response: Response, limit: u64, timeouts: &Timeouts) -> Self {
        let stall = timeouts.stall();
        let minimum = timeouts.minimum_rate.saturating_mul(stall.as_secs());
        Self { response, limit, read: 0, stall, minimum, waited: Duration::ZERO, window: 0 }
    }

    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        let left = self.stall.saturating_sub(self.waited);
        let begin = Instant::now();
        let chunk = match tokio::time::timeout(left, self.response.chunk()).await {
            Ok(chunk) => chunk.map_err(|error| BodyError::Network(error.into()))?,
            // The last moments of a window may end in time-outs although enough has come.
            Err(_) if self.window >= self.minimum => Some(Bytes::new()),
            Err(_) => return Err(BodyError::Stalled),
        };
        let Some(chunk) = chunk else { return Ok(None) };
        self.waited += begin.elapsed();
        self.window += chunk.len() as u64;
        self.read += chunk.len() as u64;
        if self.read > self.limit {
            return Err(BodyError::TooLarge);
        }
        if self.waited >= self.stall {
            if self.window < self.minimum {
                return Err(BodyError::Stalled);
            }
            (self.waited, self.window) = (Duration::ZERO, 0);
        }
        Ok(Some(chunk))
    }

    /// All of it.
    pub(crate) async fn bytes(mut self) -> Result<Vec<u8>, BodyError> {
        if self.response.content_length().is_some_and(|length| length > self.limit) {
            return Err(BodyError::TooLarge);
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}
