//! Another runtime in the daemon's place: it proves the tests and the clients, not the daemon.
//!
//! `TRIPOD_TESTS_PEER=containerd` chooses it, for those tests that another runtime can pass; `critest/build cri cni
//! peer` makes it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Image, Registry};

const CHOICE: &str = "TRIPOD_TESTS_PEER";
const CRITEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../critest");
/// The image of the container that holds a pod there.
const PAUSE: &str = "registry.test/pause:1";

/// Whether a peer is tested.
pub fn chosen() -> bool {
    match env::var(CHOICE) {
        Err(_) => false,
        Ok(name) if name == "containerd" => true,
        Ok(name) => panic!("{CHOICE}={name}: the only peer is containerd"),
    }
}

/// The image that the peer wants beside those of the test.
pub(crate) fn push_pause(registry: &Registry) {
    registry.push("pause:1", &Image::busybox().with("Cmd", vec!["/bin/sleep", "1000000"]));
}

/// The peer's command line, with its settings in `folder`.
pub(crate) fn command(folder: &Path, root: &Path, state: &Path, socket: &Path) -> Command {
    let bin = PathBuf::from(CRITEST).join(".build/bin");
    let program = bin.join("containerd");
    assert!(program.exists(), "no {}: run critest/build cri cni peer", program.display());
    let networks = folder.join("peer-cni");
    fs::create_dir_all(&networks).expect("make a folder");
    fs::copy(Path::new(CRITEST).join("peer/cni.conflist"), networks.join("10-peer.conflist"))
        .expect("copy the network");
    let mut text = fs::read_to_string(Path::new(CRITEST).join("peer/containerd.toml")).expect("the peer's settings");
    let platform = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
    let values = [
        ("{root}", root.to_path_buf()),
        ("{state}", state.to_path_buf()),
        ("{socket}", socket.to_path_buf()),
        ("{certs}", folder.join("certs.d")),
        ("{bin}", bin.clone()),
        ("{cni_bin}", bin.join("cni")),
        ("{cni_conf}", networks),
        ("{platform}", platform.into()),
        ("tripod.invalid/peer/pause:1", PAUSE.into()),
    ];
    for (name, value) in values {
        text = text.replace(name, &value.to_string_lossy());
    }
    let config = folder.join("containerd.toml");
    fs::write(&config, text).expect("write the peer's settings");
    let path = format!("{}:{}:/usr/sbin:/sbin", bin.display(), env::var("PATH").unwrap_or_default());
    let mut command = Command::new(program);
    command.arg("--config").arg(config).env("PATH", path);
    command
}
