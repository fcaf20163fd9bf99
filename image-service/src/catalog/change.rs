//! Changes of names and images, decided from what is there.

use std::sync::Arc;

use serde::Serialize;

use super::{Found, ImageRecord, State};
use crate::{digest::Digest, reference::Reference};

/// A change of names and images.
#[derive(Debug, Default)]
pub(crate) struct Change {
    pub(super) put: Vec<ImageRecord>,
    pub(super) drop: Vec<Digest>,
    pub(super) name: Vec<(String, Digest)>,
    pub(super) unname: Vec<String>,
}

impl Change {
    pub(super) fn is_empty(&self) -> bool {
        self.put.is_empty() && self.drop.is_empty() && self.name.is_empty() && self.unname.is_empty()
    }

    pub(super) fn apply(self, state: &mut State) {
        for name in self.unname {
            state.names.remove(&name);
        }
        for id in self.drop {
            state.images.remove(&id);
        }
        for record in self.put {
            for layer in &record.layers {
                state.kept.remove(layer);
            }
            state.images.insert(record.id.clone(), Arc::new(record));
        }
        state.names.extend(self.name);
    }

    /// A pulled image: its tag moves to it, and its digest in this repository names it too.
    pub(crate) fn pulled(state: &State, mut record: ImageRecord, reference: &Reference, digest: &Digest) -> Self {
        if let Some(known) = state.images.get(&record.id) {
            record.blobs.extend(known.blobs.iter().map(|(digest, size)| (digest.clone(), *size)));
        }
        let names = reference.tagged().into_iter().chain([reference.with_digest(digest)]);
        let name = names.map(|name| (name, record.id.clone())).collect();
        Self { put: vec![record], name, ..Self::default() }
    }

    /// An image out of an archive: its names move to it. An image without a name is known by its ID.
    pub(crate) fn loaded(state: &State, mut record: ImageRecord, names: &[Reference]) -> Self {
        if let Some(known) = state.images.get(&record.id) {
            record.blobs.extend(known.blobs.iter().map(|(digest, size)| (digest.clone(), *size)));
        }
        let name = names.iter().map(|name| (name.key(), record.id.clone())).collect();
        Self { put: vec![record], name, ..Self::default() }
    }

    /// Takes a name away. With the last tag, and with a name that is an ID, goes the image.
    pub(crate) fn removal(state: &State, spec: &str) -> (Self, Option<Removed>) {
        let Some(found) = state.find(spec) else { return (Self::default(), None) };
        let (id, name) = match found {
            Found::Id(id) => (id, None),
            Found::Name(name, id) => (id, Some(name)),
        };
        let all: Vec<String> = state.names_of(&id).cloned().collect();
        let is_tag = |name: &String| !name.contains('@');
        let more = |name: &String| match is_tag(name) {
            true => all.iter().any(|other| is_tag(other) && other != name),
            false => all.iter().any(|other| other != name),
        };
        let untagged = match &name {
            Some(name) if more(name) => vec![name.clone()],
            _ => all,
        };
        let deleted = !name.is_some_and(|name| untagged == [name] && state.names_of(&id).count() > 1);
        let drop = if deleted { vec![id.clone()] } else { Vec::new() };
        let removed = Removed { id: id.to_string(), untagged: untagged.clone(), deleted };
        (Self { drop, unname: untagged, ..Self::default() }, Some(removed))
    }

    /// Some images go, with all their names.
    pub(crate) fn without(state: &State, goes: impl Fn(&ImageRecord) -> bool) -> Self {
        let drop: Vec<Digest> =
            state.images.values().filter(|image| goes(image)).map(|image| image.id.clone()).collect();
        let unname = drop.iter().flat_map(|id| state.names_of(id)).cloned().collect();
        Self { drop, unname, ..Self::default() }
    }
}

/// What a removal did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// The image's ID.
    pub id: String,
    /// Names that it lost.
    pub untagged: Vec<String>,
    /// The image itself is gone; its layers follow in the background if nothing else needs them.
    pub deleted: bool,
}
