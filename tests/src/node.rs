//! The node of one test: folders, a registry, settings, a daemon, and the count of what is left at the end.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use futures::StreamExt;
use tripod_cri_api::v1::PodSandbox;

use crate::{
    BUSYBOX, Cri, Daemon, Image, Leaks, Registry, Settings, patient, peer, programs::Programs, runtime, within,
};

/// The host name under which the node's registry is known to the daemon.
const REGISTRY: &str = "registry.test";

/// What may stay when every pod and image is removed and the daemon has ended: the bridge and the table of the built-in
/// network, the daemon's own cgroup, and the skeleton of its folders.
const ALLOWED: [&str; 5] = [
    "link tripod0",
    "nft table inet tripod",
    "file /run/tripod/lock",
    "file /run/tripod/pods",
    "file /run/tripod/bundles",
];

/// Files of the network that belong to no pod: where the search for addresses goes on, and what the kubelet said.
const KEPT: [&str; 2] = ["network/cursors", "network/pod-cidr"];

/// Pods that are removed at the same time.
const AT_ONCE: usize = 8;

/// The node of a test.
#[derive(Debug)]
pub struct Node {
    folder: PathBuf,
    programs: Programs,
    daemon: Option<Daemon>,
    registry: Option<Registry>,
    before: Leaks,
    /// Settings of the daemons that are started from now on.
    pub settings: Settings,
    /// Whether what is left on the node is counted at the end.
    pub counted: bool,
}

impl Node {
    pub(crate) fn new(folder: PathBuf, programs: Programs) -> Self {
        let mut settings = Settings::default();
        settings.text("image.certs_dir", &folder.join("certs.d").to_string_lossy());
        settings.text("network.cni_conf_dir", &folder.join("cni/net.d").to_string_lossy());
        settings.raw(
            "network.cni_bin_dirs",
            &format!("[{:?}, \"/usr/lib/cni\"]", folder.join("cni/bin").display().to_string()),
        );
        settings.text("log.level", "debug,h2=info,hyper=info,tower=info,hyper_util=info");
        runtime::choose(&mut settings);
        fs::create_dir_all(folder.join("cni/net.d")).expect("make folders");
        fs::create_dir_all(folder.join("cni/bin")).expect("make folders");
        fs::create_dir_all("/run/logs").expect("make folders");
        let before = Leaks::snapshot(&[PathBuf::from("/run/tripod")]);
        // Another runtime has its own ideas of what may stay.
        Self { folder, programs, daemon: None, registry: None, before, settings, counted: !peer::chosen() }
    }

    /// A folder for the test's own files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the daemon keeps what survives a reboot.
    pub fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// Where the daemon keeps what does not.
    pub fn state(&self) -> PathBuf {
        PathBuf::from("/run/tripod")
    }

    /// The daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.state().join("tripod.sock")
    }

    /// Where the daemon looks for registries.
    pub fn certs_dir(&self) -> PathBuf {
        self.folder.join("certs.d")
    }

    /// The node's registry.
    pub async fn registry(&mut self) -> Registry {
        if self.registry.is_none() {
            let registry = Registry::start().await;
            registry.serve_as(REGISTRY, &self.certs_dir());
            self.registry = Some(registry);
        }
        self.registry.clone().expect("made above")
    }

    /// Starts the daemon.
    pub async fn start(&mut self) -> Cri {
        assert!(self.daemon.is_none(), "the daemon runs");
        let daemon = Daemon::start(&self.programs, &self.folder, &self.root(), &self.state(), &self.settings).await;
        let cri = daemon.cri();
        self.daemon = Some(daemon);
        cri
    }

    /// Starts the daemon and pulls busybox.
    pub async fn ready(&mut self) -> Cri {
        let registry = self.registry().await;
        registry.push("busybox:1", &Image::busybox());
        if peer::chosen() {
            peer::push_pause(&registry);
        }
        let cri = self.start().await;
        cri.pull(BUSYBOX).await.expect("pull busybox");
        cri
    }

    /// The daemon.
    pub fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("the daemon runs")
    }

    /// Answers UDP packets to a port of a pod with themselves, until what it returns is killed.
    pub fn udp_echo(&self, pod: &str, port: u16) -> std::process::Child {
        std::process::Command::new("nsenter")
            .arg(format!("--net=/run/netns/tripod-{pod}"))
            .arg(std::env::current_exe().expect("this program"))
            .env(crate::isolation::STAGE, "udp-echo")
            .env(crate::runner::NAME, port.to_string())
            .spawn()
            .expect("nsenter (Debian: util-linux)")
    }

    /// Kills the daemon with SIGKILL.
    pub fn kill(&mut self) {
        self.daemon.take().expect("the daemon runs").kill();
    }

    /// Kills the daemon and starts another.
    pub async fn restart(&mut self) -> Cri {
        self.kill();
        self.start().await
    }

    /// Ends the daemon politely.
    pub async fn stop(&mut self) {
        let status = self.daemon.take().expect("the daemon runs").stop().await;
        assert!(status.success(), "the daemon ended with {status}");
    }

    /// Removes every pod and image that the test has left, ends the daemon, and counts.
    pub(crate) async fn finish(mut self) {
        if !self.counted {
            return;
        }
        let cri = match &self.daemon {
            Some(daemon) => daemon.cri(),
            None => self.start().await,
        };
        self.clear(&cri).await;
        self.stop().await;
        self.registry = None;
        let left = self.left().await;
        assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    }

    /// Removes every pod and every image.
    pub async fn clear(&self, cri: &Cri) {
        let work = async {
            let remove = async |pod: PodSandbox| cri.remove_pod(&pod.id).await.expect("remove a pod");
            futures::stream::iter(cri.pods().await).for_each_concurrent(AT_ONCE, remove).await;
            for image in cri.all_images().await {
                cri.remove_image(&image.id).await.expect("remove an image");
            }
        };
        within("removing everything", Duration::from_secs(150), work).await;
        // Layers go in the background.
        let until = Instant::now() + patient(Duration::from_secs(60));
        while !self.left_in_root().is_empty() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!((cri.pods().await.len(), cri.containers().await.len()), (0, 0), "records are left");
    }

    /// What is on the node now and was not there before the first daemon, but for what may stay.
    pub async fn left(&self) -> Vec<String> {
        let mut left = self.before.left(&[&ALLOWED[..], &runtime::SKELETON].concat()).await;
        left.extend(self.left_in_root());
        left
    }

    /// Files below the root that belong to a pod, a container, an image or a layer.
    pub fn left_in_root(&self) -> Vec<String> {
        let mut left = Vec::new();
        for folder in ["containers", "network", "layers", "content/blobs", "staging", "trash"] {
            files(&self.root().join(folder), &mut left);
        }
        left.retain(|path| !KEPT.iter().any(|kept| path.ends_with(kept)));
        left
    }
}

/// All files below a folder, and all folders right in it. Deeper folders hold files or nothing.
fn files(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files(&entry.path(), found);
        } else {
            found.push(format!("file {}", entry.path().display()));
        }
    }
}
