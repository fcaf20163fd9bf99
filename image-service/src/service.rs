//! The image service: what the CRI server and the command line call.

use std::{
    path::Path,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::sync::{Notify, Semaphore};
use tripod_engine::{Error, ImageConfig, Kind, Result};

use crate::{
    catalog::{Catalog, Change, ImageRecord, Lease, Removed},
    config::Config,
    content,
    digest::Digest,
    fetch::{Fetcher, blocking},
    flight::Flights,
    gc,
    image::Image,
    layers,
    layout::Layout,
    objects::Objects,
    policy,
    progress::PullMeter,
    pull::{self, PullRequest},
    quota::Quotas,
    registry::Registries,
    room::{self, Admissions, Floor},
    sync,
    trash::Trash,
    unpack::Igzip,
};

type PullKey = (String, Option<[u8; 32]>);

/// Everything that the service's parts share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub config: Config,
    pub registries: Arc<Registries>,
    pub fetcher: Arc<Fetcher>,
    pub pulls: Arc<Flights<PullKey, Arc<ImageRecord>, Arc<PullMeter>>>,
    /// Those that may write.
    pub admissions: Admissions,
    /// Layers wait for their sync.
    pub sync: Notify,
    /// What is synced.
    pub disk: sync::Disk,
    /// Something may have become unneeded.
    pub sweep: Notify,
    /// Of writable layers.
    pub usage: Arc<crate::usage::Cache>,
    /// The filesystem's accounts of them, or why there are none.
    pub quotas: Result<Quotas, String>,
}

/// The images of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ImageService {
    pub(crate) inner: Arc<Inner>,
}

impl ImageService {
    /// Opens the store below the configured root folder, or makes it; repairs what a crash left. Must be called in a
    /// Tokio runtime, whose tasks then do the service's background work for as long as the service is in use.
    pub async fn open(config: Config) -> Result<Self> {
        let (inner, discarded) = blocking(move || open(config)).await??;
        if discarded > 0 {
            tracing::warn!(
                images = discarded,
                "images that a power failure left incomplete will be pulled again when needed"
            );
        }
        sync::start(&inner);
        gc::start(&inner);
        room::start(&inner);
        inner.sweep.notify_one();
        inner.sync.notify_one();
        Ok(Self { inner })
    }

    /// Pulls an image and gives it. Runs to its end even if the caller goes away.
    pub async fn pull(&self, request: PullRequest) -> Result<Image> {
        let record = pull::pull(&self.inner, request).await?;
        Ok(Image::new(&record, &self.inner.fetcher.catalog.state(), &self.inner.config.pinned))
    }

    /// All images, in the order of their IDs.
    pub fn list(&self) -> Vec<Image> {
        let state = self.inner.fetcher.catalog.state();
        state.images.values().map(|record| Image::new(record, &state, &self.inner.config.pinned)).collect()
    }

    /// An image by its ID, the beginning of its ID, a name with tag or digest.
    pub fn get(&self, spec: &str) -> Option<Image> {
        let state = self.inner.fetcher.catalog.state();
        let record = state.images.get(state.find(spec)?.id())?;
        Some(Image::new(record, &state, &self.inner.config.pinned))
    }

    /// What containers inherit from an image.
    pub fn image_config(&self, spec: &str) -> Result<ImageConfig> {
        let state = self.inner.fetcher.catalog.state();
        let record = state.find(spec).and_then(|found| state.images.get(found.id())).ok_or_else(|| not_found(spec))?;
        match &record.artifact {
            None => Ok(record.config.clone()),
            Some(kind) => {
                let message =
                    format!("{spec} is an artifact of type {kind:?} and no image: mount it as an image volume");
                Err(Error::new(Kind::FailedPrecondition, message))
            }
        }
    }

    /// Removes a name, and with the last tag the image; an ID removes the image with all its names. `None` if there is
    /// no such image. Layers and blobs that nothing else needs are deleted in the background.
    pub async fn remove(&self, spec: &str) -> Result<Option<Removed>> {
        let spec = spec.to_owned();
        let removed = self.inner.fetcher.catalog.change(move |state| Change::removal(state, &spec)).await?;
        self.inner.sweep.notify_one();
        Ok(removed)
    }

    /// Who knows what writable layers use, for people.
    pub fn accounts(&self) -> String {
        match &self.inner.quotas {
            Ok(_) => "project quotas".to_owned(),
            Err(why) => format!("counted ({why})"),
        }
    }

    /// Folder of everything.
    pub fn root(&self) -> &Path {
        self.inner.fetcher.layout.root()
    }
}

impl Inner {
    /// Bytes of these layers that would not be free without them, as others have the same files.
    pub(crate) async fn staying(&self, layers: Vec<Digest>) -> Result<u64> {
        let (layout, objects) = (self.fetcher.layout.clone(), Arc::clone(&self.fetcher.objects));
        let folders = move || layers.iter().map(|layer| layout.layer(layer).join("fs")).collect::<Vec<_>>();
        let staying = blocking(move || objects.staying(&folders())).await?;
        staying.map_err(|error| Error::io("cannot see which files layers have in common", error))
    }
}

fn not_found(spec: &str) -> Error {
    Error::new(Kind::NotFound, format!("image {spec:?} is not on this node: pull it first"))
}

/// Opens what is on disk and throws away what cannot be trusted. Gives the number of images that were lost.
pub(crate) fn open(config: Config) -> Result<(Arc<Inner>, usize)> {
    let layout = Layout::new(config.root.clone());
    let io = |step: &str| {
        let step = format!("{step} in {}", config.root.display());
        move |error| Error::io(step, error)
    };
    layout.create().map_err(io("cannot make folders"))?;
    if let Some(folder) = layout.apart().map_err(io("cannot look at folders"))? {
        let message = format!(
            "{} is on another filesystem, subvolume or mount than {}, and images are moved and linked between the two: \
             make it a plain folder, and to have the store elsewhere set `root` there, or mount it as a whole",
            folder.display(),
            config.root.display()
        );
        return Err(Error::new(Kind::FailedPrecondition, message));
    }
    let disk = sync::Disk::open(layout.root()).map_err(io("cannot open the folder"))?;
    let boot = layers::life(&layout.layers()).map_err(io("cannot read the boot ID"))?;
    let catalog = Arc::new(Catalog::open(&layout.database())?);
    let trash = Trash::new(layout.trash());
    // The database's lock is ours from here on, so nobody else is staging anything.
    for leftover in std::fs::read_dir(layout.staging()).map_err(io("cannot read the staging folder"))? {
        let path = leftover.map_err(io("cannot read the staging folder"))?.path();
        trash.take(&path).map_err(io("cannot clear the staging folder"))?;
    }
    let found = layers::load(&layout, &trash, &boot).map_err(io("cannot read the layers"))?;
    catalog.state().layers = found.into_iter().map(|layer| (layer.diff_id.clone(), Arc::new(layer))).collect();
    catalog.state().leases = leases(&layout).map_err(io("cannot read the containers' leases"))?;
    let same_boot = catalog.checked_boot()?.is_some_and(|checked| checked == boot);
    let before = catalog.state().images.len();
    catalog.change_now(|state| {
        Change::without(state, |image| {
            let layers = image.layers.iter().all(|layer| state.layers.contains_key(layer));
            let whole = layers && (same_boot || image.blobs.keys().all(|blob| content::read(&layout, blob).is_some()));
            !whole
        })
    })?;
    if !same_boot {
        catalog.record_checked_boot(&boot)?;
    }
    let discarded = before - catalog.state().images.len();
    if let Some(path) = &config.policy_file {
        policy::look(path);
    }
    let quotas = match config.project_quotas {
        true => Quotas::open(&layout.containers()).map_err(|error| format!("no project quotas: {error}")),
        false => Err("image.project_quotas is false".to_owned()),
    };
    let registries = Registries::new(&config);
    let objects = Objects::open(&layout.objects(), config.deduplicate).map_err(io("cannot open the objects"))?;
    let fetcher = Fetcher {
        objects: Arc::new(objects),
        catalog,
        counters: Arc::default(),
        layout,
        trash,
        limits: config.limits,
        floor: Floor::new(config.root.clone(), config.min_free_bytes),
        boot,
        flights: Arc::default(),
        keep: Duration::from_secs(config.keep_partial_seconds),
        permits: Arc::new(Semaphore::new(config.parallel_layers.max(1))),
        igzip: config.igzip.then(Igzip::find).flatten(),
    };
    let inner = Inner {
        registries: Arc::new(registries),
        fetcher: Arc::new(fetcher),
        pulls: Arc::default(),
        admissions: Admissions::default(),
        sync: Notify::new(),
        disk,
        sweep: Notify::new(),
        usage: Arc::default(),
        quotas,
        config,
    };
    Ok((Arc::new(inner), discarded))
}

/// What containers keep alive.
fn leases(layout: &Layout) -> std::io::Result<std::collections::HashMap<tripod_engine::ContainerId, Lease>> {
    let mut leases = std::collections::HashMap::new();
    for entry in std::fs::read_dir(layout.containers())? {
        let entry = entry?;
        let Some(id) = entry.file_name().to_str().and_then(tripod_engine::ContainerId::parse) else { continue };
        let lease = std::fs::read(entry.path().join(crate::containers::LEASE)).ok();
        leases.insert(id, lease.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default());
    }
    Ok(leases)
}

/// Runs `step` whenever there is a reason to, until the service is gone.
pub(crate) fn background<F, Fut>(inner: &Arc<Inner>, delay: Duration, wait: fn(&Inner) -> &Notify, step: F)
where
    F: Fn(Arc<Inner>) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let weak: Weak<Inner> = Arc::downgrade(inner);
    tokio::spawn(async move {
        loop {
            // Looks once in a while whether the service is still in use.
            {
                let Some(inner) = weak.upgrade() else { return };
                if tokio::time::timeout(Duration::from_secs(1), wait(&inner).notified()).await.is_err() {
                    continue;
                }
            }
            tokio::time::sleep(delay).await;
            let Some(inner) = weak.upgrade() else { return };
            step(inner).await;
        }
    });
}
