//! Who may write to the store: a pull, a load or a repair is let in if it and those that run may fit together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tripod_engine::{Error, Kind, Result};

use super::{Room, look, need, reclaim};
use crate::{fetch::blocking, progress::PullMeter, service::Inner};

/// Unpacked layers take about so many times the bytes that come: if that is not there, garbage goes first.
const LIKELY: u64 = 3;

/// Those that were let in and are not done.
#[derive(Debug, Default)]
pub(crate) struct Admissions {
    /// Held while one is decided: of two that ask together, the second counts the first.
    gate: tokio::sync::Mutex<()>,
    running: Mutex<Vec<Arc<PullMeter>>>,
}

impl Admissions {
    fn running(&self) -> MutexGuard<'_, Vec<Arc<PullMeter>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that the work is done when it is dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    inner: Arc<Inner>,
    meter: Arc<PullMeter>,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.inner.admissions.running().retain(|other| !Arc::ptr_eq(other, &self.meter));
    }
}

/// Lets work in that writes what `meter` has left to come, or says what to do.
pub(crate) async fn admit(inner: &Arc<Inner>, meter: &Arc<PullMeter>) -> Result<Option<Admission>> {
    let own = meter.left();
    if own.is_empty() || inner.config.min_free_bytes == 0 {
        return Ok(None);
    }
    let admissions = &inner.admissions;
    let _gate = admissions.gate.lock().await;
    let all = || {
        let others = admissions.running().iter().flat_map(|other| other.left()).collect::<Vec<_>>();
        [own.clone(), others].concat()
    };
    let setting = inner.config.min_free_bytes;
    let fits = |room: Room, bytes: u64| room.free >= bytes.saturating_add(room.floor(setting));
    let mut room = look(inner).await?;
    if !fits(room, need::least(&all(), room.compresses, 0).saturating_mul(LIKELY)) {
        reclaim(inner, "there may be no room for a pull").await?;
        room = look(inner).await?;
    }
    if !fits(room, need::least(&all(), room.compresses, 0)) {
        // Files that are here already are linked and not written.
        let objects = Arc::clone(&inner.fetcher.objects);
        let linked = blocking(move || objects.bytes()).await?;
        let linked = linked.map_err(|error| Error::io("cannot see which files layers have in common", error))?;
        let (all, others) = (need::least(&all(), room.compresses, linked), admissions.running().len());
        if !fits(room, all) {
            let alone = need::least(&own, room.compresses, linked);
            return Err(refusal(inner, room, alone, (all.saturating_sub(alone), others)));
        }
    }
    admissions.running().push(Arc::clone(meter));
    Ok(Some(Admission { inner: Arc::clone(inner), meter: Arc::clone(meter) }))
}

fn refusal(inner: &Inner, room: Room, bytes: u64, (others, count): (u64, usize)) -> Error {
    let (beside, or) = match others {
        0 => (String::new(), ""),
        _ => (format!(", {others} more for {count} that came before"), ", try again when the others are done"),
    };
    let needed = match bytes {
        // What it consists of may all be linked, but something is always written beside.
        0 => "more room is needed".to_owned(),
        _ => format!("at least {bytes} bytes are needed"),
    };
    let message = format!(
        "No space left for images: {needed}{beside}; {} of {} are free on the filesystem of {}, and {} of them stay \
         free by the setting image.min_free_bytes: remove containers and images (`tripod image df`, \
         `tripod image prune --all`){or}, or lower the setting",
        room.free,
        room.total,
        inner.fetcher.layout.root().display(),
        room.floor(inner.config.min_free_bytes)
    );
    Error::new(Kind::ResourceExhausted, message)
}
