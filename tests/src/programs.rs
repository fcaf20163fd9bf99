//! The programs under test: named by the environment, or built by cargo as these tests were.

use std::{env, path::PathBuf, process::Command};

/// Path of the daemon in the environment.
pub(crate) const TRIPOD: &str = "TRIPOD_BIN";
/// Path of the shim in the environment.
pub(crate) const SHIM: &str = "TRIPOD_SHIM";

/// The programs under test.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) tripod: PathBuf,
    pub(crate) shim: PathBuf,
}

impl Programs {
    /// Those that the environment names; what it does not name is built, in the folder and the profile of this program.
    pub(crate) fn find() -> Result<Self, String> {
        let named = |name: &str| env::var_os(name).map(PathBuf::from);
        if let (Some(tripod), Some(shim)) = (named(TRIPOD), named(SHIM)) {
            return Ok(Self { tripod, shim });
        }
        let built = build()?;
        Ok(Self { tripod: named(TRIPOD).unwrap_or(built.tripod), shim: named(SHIM).unwrap_or(built.shim) })
    }
}

fn build() -> Result<Programs, String> {
    let own = env::current_exe().map_err(|error| format!("where is this program: {error}"))?;
    // TARGET/PROFILE/deps/it-HASH
    let folder = own.ancestors().nth(2).ok_or("this program is in no target folder")?;
    let target = folder.parent().ok_or("this program is in no target folder")?;
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(other) => other,
    };
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(&cargo)
        .args(["build", "--quiet", "--package", "tripod-cri-server", "--package", "tripod-shim", "--bins"])
        .args(["--profile", profile, "--target-dir"])
        .arg(target)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status()
        .map_err(|error| format!("{}: {error}", cargo.display()))?;
    if !status.success() {
        return Err(format!("the daemon does not build ({status}); {TRIPOD} and {SHIM} can name one that is built"));
    }
    Ok(Programs { tripod: folder.join("tripod"), shim: folder.join("tripod-shim") })
}
