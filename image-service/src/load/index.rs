//! From what was in an archive to images: every layer that a configuration lists must be there, and be what it says.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    Found, LoadError,
    intake::{Contents, Other},
    shown,
};
use crate::{
    catalog::Pins,
    digest::Digest,
    layers::Layer,
    manifest::{ConfigFile, Descriptor, Document, Manifest, ManifestError},
    platform::{Platform, choose},
    pull::record_of,
    reference::Reference,
    service::Inner,
    unpack::tree::clean,
};

const INDEX: &[u8] = b"index.json";
const LAYOUT: &[u8] = b"oci-layout";
const DOCKER: &[u8] = b"manifest.json";
/// Images of an archive.
const MAX_IMAGES: usize = 1000;
/// Indexes within indexes.
const MAX_DEPTH: usize = 4;
/// The full name, as containerd and Docker write it.
const FULL_NAME: &str = "io.containerd.image.name";
/// A tag as the specification has it, or a full name as others write it.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// An image of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OciLayout {
    image_layout_version: String,
}

/// By which transport of a policy an archive comes in.
pub(super) fn transport(contents: &Contents) -> &'static str {
    if contents.documents.contains_key(INDEX) { "oci-archive" } else { "docker-archive" }
}

/// All images of an archive, or of each name the one that fits the platform.
pub(super) fn images(
    inner: &Inner,
    contents: Contents,
    platform: Option<&Platform>,
    pins: &mut Pins,
) -> Result<Vec<Found>, LoadError> {
    let mut reader = Reader { inner, contents, platform, pins, found: BTreeMap::new() };
    // What `docker save` writes today is both; the layout knows more.
    if reader.contents.documents.contains_key(INDEX) {
        reader.layout()?;
        reader.docker_names()?;
    } else if reader.contents.documents.contains_key(DOCKER) {
        reader.docker()?;
    } else {
        return Err(LoadError::NoImage);
    }
    if reader.found.is_empty() {
        return Err(LoadError::NoImage);
    }
    Ok(reader.found.into_values().collect())
}

struct Reader<'a> {
    inner: &'a Inner,
    contents: Contents,
    platform: Option<&'a Platform>,
    pins: &'a mut Pins,
    found: BTreeMap<Digest, Found>,
}

impl Reader<'_> {
    fn layout(&mut self) -> Result<(), LoadError> {
        if let Some(layout) = self.contents.documents.get(LAYOUT) {
            let layout: OciLayout = json(LAYOUT, layout)?;
            if layout.image_layout_version.split('.').next() != Some("1") {
                let why = format!("version {:?} of the layout is not known", layout.image_layout_version);
                return Err(LoadError::entry(LAYOUT, why));
            }
        }
        let Document::Index(all) = self.parse(INDEX)? else {
            return Err(LoadError::entry(INDEX, "it is an image's manifest, and no index"));
        };
        let mut groups: BTreeMap<Option<String>, Vec<Descriptor>> = BTreeMap::new();
        for descriptor in all {
            groups.entry(full_name(&descriptor)).or_default().push(descriptor);
        }
        for (name, descriptors) in groups {
            let name = name.map(|name| name.parse::<Reference>()).transpose()?;
            let descriptor = match &descriptors[..] {
                [one] => one.clone(),
                several => self.choose(INDEX, several)?,
            };
            self.oci_image(descriptor, name)?;
            if self.found.len() > MAX_IMAGES {
                return Err(LoadError::entry(INDEX, format!("it has more than {MAX_IMAGES} images")));
            }
        }
        Ok(())
    }

    fn oci_image(&mut self, descriptor: Descriptor, name: Option<Reference>) -> Result<(), LoadError> {
        let mut blobs = BTreeMap::new();
        let mut next = descriptor;
        let mut depth = 0;
        let manifest = loop {
            let path = blob_path(&next.digest);
            let document = self.parse(&path)?;
            blobs.insert(next.digest.clone(), self.document(&path)?.to_vec());
            match document {
                Document::Image(manifest) => break manifest,
                Document::Index(_) if depth == MAX_DEPTH => {
                    return Err(LoadError::entry(&path, format!("indexes are nested deeper than {MAX_DEPTH}")));
                }
                Document::Index(manifests) => next = self.choose(&path, &manifests)?,
            }
            depth += 1;
        };
        let path = blob_path(&manifest.config.digest);
        let layers: Vec<Vec<u8>> = manifest.layers.iter().map(|layer| blob_path(&layer.digest)).collect();
        self.image(&path, &manifest, &layers, blobs, name.into_iter().collect())
    }

    fn docker(&mut self) -> Result<(), LoadError> {
        for image in self.docker_images()? {
            let names = names(&image)?;
            let path = |name: &str| {
                let path = clean(name.as_bytes());
                let path = path.map_err(|_| LoadError::entry(DOCKER, format!("{name:?} leads out of the archive")))?;
                Ok::<_, LoadError>(self.contents.resolve(&path).to_vec())
            };
            let config = path(&image.config)?;
            let layers = image.layers.iter().flatten().map(|layer| path(layer)).collect::<Result<Vec<_>, _>>()?;
            let limit = self.inner.config.limits.layers;
            if layers.len() > limit {
                let source = ManifestError::TooManyLayers(layers.len(), limit);
                return Err(LoadError::Manifest { entry: shown(DOCKER), source });
            }
            let bytes = self.document(&config)?;
            let descriptor =
                |digest: Digest| Descriptor { media_type: None, size: 0, platform: None, annotations: None, digest };
            // Only the number of layers counts: what they are is seen from their content.
            let id = Digest::of(bytes);
            let manifest =
                Manifest { layers: layers.iter().map(|_| descriptor(id.clone())).collect(), config: descriptor(id) };
            self.image(&config, &manifest, &layers, BTreeMap::new(), names)?;
        }
        Ok(())
    }

    /// Names that only `manifest.json` has.
    fn docker_names(&mut self) -> Result<(), LoadError> {
        if !self.contents.documents.contains_key(DOCKER) {
            return Ok(());
        }
        for image in self.docker_images()? {
            let id = clean(image.config.as_bytes()).ok();
            let id = id.and_then(|path| self.contents.documents.get(&path)).map(|bytes| Digest::of(bytes));
            if let Some(found) = id.and_then(|id| self.found.get_mut(&id)) {
                found.names.extend(names(&image)?);
            }
        }
        Ok(())
    }

    fn docker_images(&self) -> Result<Vec<DockerImage>, LoadError> {
        let images: Vec<DockerImage> = json(DOCKER, self.document(DOCKER)?)?;
        if images.len() > MAX_IMAGES {
            return Err(LoadError::entry(DOCKER, format!("it has more than {MAX_IMAGES} images")));
        }
        Ok(images)
    }

    /// Holds an image's configuration against its layers.
    fn image(
        &mut self,
        path: &[u8],
        manifest: &Manifest,
        layers: &[Vec<u8>],
        mut blobs: BTreeMap<Digest, Vec<u8>>,
        names: Vec<Reference>,
    ) -> Result<(), LoadError> {
        let bytes = self.document(path)?.to_vec();
        let wrong = |source| LoadError::Manifest { entry: shown(path), source };
        let config = ConfigFile::parse(&bytes, manifest).map_err(wrong)?;
        if let Some(wanted) = self.platform {
            let offered: Platform = json(path, &bytes)?;
            if !wanted.is_met_by(&offered) {
                let (wanted, offered) = (wanted.to_string(), offered.to_string());
                return Err(wrong(ManifestError::Platform { wanted, offered }));
            }
        }
        let diff_ids = config.diff_ids().to_vec();
        let mut size = 0;
        for (diff_id, layer) in diff_ids.iter().zip(layers) {
            match self.contents.others.get(self.contents.resolve(layer)) {
                Some(Other::Layer(got)) if got == diff_id => {}
                Some(Other::Layer(got)) => {
                    let why = format!("it unpacks to {got}, but its image's configuration says {diff_id}");
                    return Err(LoadError::entry(layer, why));
                }
                Some(Other::Odd(why)) => {
                    return Err(LoadError::entry(layer, format!("it is a layer of an image, but {why}")));
                }
                // It need not be there if the store has it.
                None => {}
            }
            size += self.layer(diff_id, layer)?;
        }
        let id = Digest::of(&bytes);
        let found = self.found.entry(id.clone()).or_insert_with(|| {
            blobs.insert(id.clone(), bytes);
            let sizes = blobs.iter().map(|(digest, bytes)| (digest.clone(), bytes.len() as u64)).collect();
            Found { record: record_of(&config, id, sizes, diff_ids, size), blobs, names: Vec::new() }
        });
        found.names.extend(names);
        Ok(())
    }

    /// Bytes of a layer in the store, which is held there.
    fn layer(&mut self, diff_id: &Digest, path: &[u8]) -> Result<u64, LoadError> {
        self.pins.add(std::slice::from_ref(diff_id));
        let state = self.inner.fetcher.catalog.state();
        let bytes = |layer: &std::sync::Arc<Layer>| layer.unpacked.bytes;
        state.layers.get(diff_id).map(bytes).ok_or_else(|| {
            LoadError::entry(path, format!("the archive does not have it, and the layer {diff_id} is not here either"))
        })
    }

    fn document(&self, path: &[u8]) -> Result<&[u8], LoadError> {
        let path = self.contents.resolve(path);
        if let Some(bytes) = self.contents.documents.get(path) {
            return Ok(bytes);
        }
        Err(match self.contents.others.get(path) {
            Some(Other::Odd(why)) => LoadError::entry(path, format!("it should be JSON, but {why}")),
            Some(Other::Layer(_)) => LoadError::entry(path, "it should be JSON, but it is a layer"),
            None => LoadError::entry(path, "the archive does not have it: was it cut off, or saved in part?"),
        })
    }

    fn parse(&self, path: &[u8]) -> Result<Document, LoadError> {
        let parsed = Document::parse(self.document(path)?, "", self.inner.config.limits.layers);
        parsed.map_err(|source| LoadError::Manifest { entry: shown(path), source })
    }

    fn choose(&self, path: &[u8], all: &[Descriptor]) -> Result<Descriptor, LoadError> {
        let host = Platform::host();
        let chosen = choose(all, self.platform.unwrap_or(host)).map(|chosen| chosen[0].clone());
        chosen.map_err(|source| LoadError::Manifest { entry: shown(path), source })
    }
}

fn json<'a, T: Deserialize<'a>>(path: &[u8], bytes: &'a [u8]) -> Result<T, LoadError> {
    serde_json::from_slice(bytes).map_err(|source| LoadError::Manifest { entry: shown(path), source: source.into() })
}

fn blob_path(digest: &Digest) -> Vec<u8> {
    format!("blobs/{}", digest.to_string().replacen(':', "/", 1)).into_bytes()
}

/// The name that an entry of an index has. What has neither registry nor tag may be a tag alone, which is no name.
fn full_name(descriptor: &Descriptor) -> Option<String> {
    let annotations = descriptor.annotations.as_ref()?;
    let named = |text: &&String| text.contains(['/', ':']);
    annotations.get(FULL_NAME).or_else(|| annotations.get(REF_NAME).filter(named)).cloned()
}

fn names(image: &DockerImage) -> Result<Vec<Reference>, LoadError> {
    let names = image.repo_tags.iter().flatten().filter(|name| !name.starts_with("<none>"));
    names.map(|name| Ok(name.parse::<Reference>()?)).collect()
}
