//! Downloading a layer: a stream of bytes that survives broken connections.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use bytes::Bytes;
use reqwest::{Method, Response, StatusCode};
use tokio::sync::mpsc;

use super::{
    ask::Ask,
    body::{Body, BodyError},
    error::{Problem, RegistryError},
    hosts::authority,
    ranges::{End, Pace, content_range, offers_ranges},
    session::Session,
};
use crate::manifest::Descriptor;

/// Progress that makes earlier failures forgotten.
const PROGRESS: u64 = 1 << 20;

impl Session {
    /// Sends a blob's bytes to `sink`, in order and each once. Its digest is the receiver's to check. `done` counts
    /// the bytes.
    pub(crate) async fn download(
        &self,
        blob: &Descriptor,
        sink: &mpsc::Sender<Bytes>,
        done: &AtomicU64,
    ) -> Result<(), RegistryError> {
        let timeouts = &self.registries.timeouts;
        let what = format!("cannot download the layer {}", blob.digest);
        let path = format!("blobs/{}", blob.digest);
        let (mut offset, mut failures, mut mark) = (0, 0, 0);
        let mut pace = Pace::default();
        'connections: while offset < blob.size || offset == 0 {
            let ask = Ask { from: offset, ..Ask::new(&Method::GET, &path) };
            let (place, response) = self.first(&ask, &what, false).await?;
            self.note_served(&blob.digest, place);
            let host = authority(response.url());
            let failed = |problem| RegistryError { what: what.clone(), host: host.clone(), problem };
            let mut skip = begins_at(&response, offset).map_err(failed)?;
            let ranges = offers_ranges(&response);
            let mut body = Body::new(response, (blob.size - offset).saturating_add(skip), timeouts);
            let error = loop {
                if ranges && self.has_room() && pace.wants_pieces(&self.registries.ranges, blob.size - offset) {
                    // The rest of this answer is dropped with it.
                    drop(body);
                    let end = self.pieces(blob, &mut offset, sink, done, &pace).await;
                    tracing::debug!(blob = %blob.digest, offset, ?end, "pieces were fetched side by side");
                    if end == End::Abandoned {
                        return Err(failed(Problem::Abandoned));
                    }
                    pace.back(end);
                    continue 'connections;
                }
                let begin = Instant::now();
                let mut chunk = match body.chunk().await {
                    Ok(Some(chunk)) => chunk,
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                };
                // A server that knows no ranges begins anew.
                let skipped = skip.min(chunk.len() as u64);
                skip -= skipped;
                let chunk = chunk.split_off(usize::try_from(skipped).unwrap_or(0));
                if chunk.is_empty() {
                    continue;
                }
                let (length, network) = (chunk.len(), begin.elapsed());
                offset += length as u64;
                done.store(offset, Ordering::Relaxed);
                let begin = Instant::now();
                if sink.send(chunk).await.is_err() {
                    return Err(failed(Problem::Abandoned));
                }
                pace.count(length, network, begin.elapsed());
            };
            if matches!(error, Some(BodyError::TooLarge)) {
                let problem = Problem::Length { got: offset.max(blob.size + 1), expected: blob.size };
                return Err(failed(problem));
            }
            if offset == blob.size {
                return Ok(());
            }
            if offset >= mark + PROGRESS {
                failures = 0;
            }
            mark = offset;
            failures += 1;
            if failures >= timeouts.attempts {
                let Some(error) = error else {
                    return Err(failed(Problem::Length { got: offset, expected: blob.size }));
                };
                let error = failed(self.problem(error, failures));
                if !self.distrust(&[place], false) {
                    return Err(error);
                }
                tracing::warn!(%error, cause = %error.problem, offset, "another host is asked for the rest");
                failures = 0;
                continue;
            }
            tracing::debug!(blob = %blob.digest, offset, ?error, "download is resumed");
            tokio::time::sleep(timeouts.backoff(failures - 1)).await;
        }
        Ok(())
    }
}

/// How many bytes of an answer to drop so that it goes on at `offset`.
fn begins_at(response: &Response, offset: u64) -> Result<u64, Problem> {
    if offset == 0 || response.status() != StatusCode::PARTIAL_CONTENT {
        return Ok(offset);
    }
    match content_range(response) {
        Some((start, _)) if start <= offset => Ok(offset - start),
        _ => Err(Problem::Protocol(
            "another range came than was asked for: the registry, or a proxy before it, is set up wrongly".into(),
        )),
    }
}
