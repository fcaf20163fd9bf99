//! An OCI runtime, for handlers and in place of the built-in launcher.
//!
//! `TRIPOD_TESTS_RUNTIME=/usr/bin/crun` has that one serve every pod of every test, also those by a handler.

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::Settings;

const CHOICE: &str = "TRIPOD_TESTS_RUNTIME";

/// The handler that [`program`] serves.
pub const HANDLER: &str = "other";

/// The folders that handlers of these names have, empty; and tripod's own cgroup in trees that only runtimes use.
pub(crate) const SKELETON: [&str; 13] = [
    "cgroup /sys/fs/cgroup/systemd/tripod",
    "cgroup /sys/fs/cgroup/unified/tripod",
    "file /run/tripod/oci",
    "file /run/tripod/oci/absent",
    "file /run/tripod/oci/failing",
    "file /run/tripod/oci/failing/bundles",
    "file /run/tripod/oci/failing/runtime",
    "file /run/tripod/oci/other",
    "file /run/tripod/oci/other/bundles",
    "file /run/tripod/oci/other/runtime",
    "file /run/tripod/oci/chosen",
    "file /run/tripod/oci/chosen/bundles",
    "file /run/tripod/oci/chosen/runtime",
];

/// The runtime that the environment names, or the runc that `critest/build oci` makes.
pub fn program() -> PathBuf {
    if let Some(program) = env::var_os(CHOICE) {
        return program.into();
    }
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../critest/.build/bin/runc");
    assert!(program.exists(), "no {}: run critest/build oci", program.display());
    program.canonicalize().expect("its path")
}

/// Makes a program a RuntimeClass handler.
pub fn configure(settings: &mut Settings, handler: &str, program: &Path) {
    settings.text(&format!("runtimes.{handler}.type"), "oci");
    settings.text(&format!("runtimes.{handler}.path"), &program.to_string_lossy());
}

/// Has the runtime that the environment names, if it names one, serve all pods.
pub(crate) fn choose(settings: &mut Settings) {
    if let Some(program) = env::var_os(CHOICE) {
        configure(settings, "chosen", Path::new(&program));
        settings.text("default_runtime", "chosen");
    }
}
