//! Layers that were unpacked before anybody knew their names.

use std::sync::{Arc, Mutex, PoisonError};

use tripod_engine::{Error, Kind};

use crate::{
    fetch::{Fetcher, blocking},
    layers::{Layer, Staging},
    progress::LayerMeter,
};

/// Moves an unpacked layer into place, unless somebody was quicker.
pub(super) async fn adopt(fetcher: &Arc<Fetcher>, staging: Staging, layer: Layer) -> Result<(), Error> {
    let (staging, layer) = (Arc::new(Mutex::new(Some(staging))), Arc::new(layer));
    loop {
        if fetcher.catalog.state().layers.contains_key(&layer.diff_id) {
            return Ok(());
        }
        let work = || {
            let (fetcher, staging, layer) = (Arc::clone(fetcher), Arc::clone(&staging), Arc::clone(&layer));
            async move {
                let staging = staging.lock().unwrap_or_else(PoisonError::into_inner).take();
                let staging = staging.ok_or_else(|| Error::new(Kind::Internal, "a layer was moved away"))?;
                let (layout, moved) = (fetcher.layout.clone(), Arc::clone(&layer));
                let installed = blocking(move || staging.install(&layout, &moved)).await?;
                installed.map_err(|error| Error::io("cannot move a layer into place", error))?;
                fetcher.catalog.state().layers.insert(layer.diff_id.clone(), Arc::clone(&layer));
                Ok(layer)
            }
        };
        let meter = LayerMeter::empty(layer.diff_id.clone());
        let ticket = fetcher.flights.join(layer.diff_id.clone(), meter, work);
        match ticket.outcome.await {
            // Of another's work it matters only that it is over.
            _ if !ticket.first => {}
            outcome => return outcome.map(drop),
        }
    }
}
