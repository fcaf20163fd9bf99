//! The time zone of containers, where the operator wants one for all: a zone's file at /etc/localtime, unless a
//! container mounts something of its own there or at a folder above.

use std::{
    fs::File,
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

use async_trait::async_trait;
use tripod_shim_protocol::{LaunchPlan, Mount, MountFlags, MountSource};

use crate::{
    Error, Kind, Result,
    plugin::{ContainerContext, Isolator},
};

/// Where C libraries look, in containers and on the host.
const LOCALTIME: &str = "/etc/localtime";

/// Where the host keeps the zones (Debian: tzdata).
const ZONES: &str = "/usr/share/zoneinfo";

/// How the setting names the host's own zone.
const LOCAL: &str = "local";

/// How each zone's file begins (RFC 9636).
const MAGIC: [u8; 4] = *b"TZif";

/// Mounts the zone's file.
#[derive(Debug)]
pub struct Timezone {
    file: PathBuf,
}

impl Timezone {
    /// For the zone of the setting: `local` for the host's, or a name such as `Europe/Berlin`. It must be there.
    pub fn new(zone: &str) -> Result<Self> {
        Self::with(zone, Path::new(ZONES), Path::new(LOCALTIME))
    }

    fn with(zone: &str, zones: &Path, localtime: &Path) -> Result<Self> {
        let refused = |problem: String| Error::new(Kind::InvalidArgument, format!("timezone = {zone:?}: {problem}"));
        let plain = Path::new(zone).components().all(|part| matches!(part, Component::Normal(_)));
        let file = match zone {
            LOCAL => localtime.to_owned(),
            _ if plain && !zone.is_empty() => zones.join(zone),
            _ => return Err(refused("is neither \"local\" nor the name of a zone, such as \"Europe/Berlin\"".into())),
        };
        match is_zone(&file) {
            Ok(true) => Ok(Self { file }),
            Ok(false) => Err(refused(format!("{} is no file of a time zone", file.display()))),
            Err(error) => {
                let remedy = "look at the name, and whether the package tzdata is installed";
                Err(refused(format!("{} cannot be read ({error}): {remedy}", file.display())))
            }
        }
    }
}

fn is_zone(file: &Path) -> io::Result<bool> {
    if !file.metadata()?.is_file() {
        return Ok(false);
    }
    let mut begin = Vec::new();
    File::open(file)?.take(MAGIC.len() as u64).read_to_end(&mut begin)?;
    Ok(begin == MAGIC)
}

#[async_trait]
impl Isolator for Timezone {
    fn name(&self) -> &'static str {
        "timezone"
    }

    async fn prepare(&self, container: ContainerContext<'_>, plan: &mut LaunchPlan) -> Result<()> {
        let target = PathBuf::from(LOCALTIME);
        // What lies in a volume is not ours to cover, and least of all to take away.
        if container.config.mounts.iter().any(|mount| target.starts_with(&mount.container_path)) {
            return Ok(());
        }
        plan.mounts.push(Mount {
            target,
            source: MountSource::Bind { path: self.file.clone(), recursive: false },
            // Images have a link there, often to a zone that they do not bring.
            flags: MountFlags { read_only: true, over_link: true, ..MountFlags::default() },
            propagation: None,
            map_ids: false,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fixture::Fixture, *};
    use crate::VolumeMount;

    #[tokio::test]
    async fn volumes_are_left_alone() {
        let mut fixture = Fixture::new();
        let zone = Timezone { file: "/zone".into() };
        assert_eq!(fixture.prepare(&zone).await.unwrap().mounts.len(), 1);
        for target in ["/etc/localtime", "/etc//localtime/", "/etc/", "/"] {
            fixture.config.mounts = vec![VolumeMount { container_path: target.into(), ..VolumeMount::default() }];
            assert!(fixture.prepare(&zone).await.unwrap().mounts.is_empty(), "{target}");
        }
    }

    #[test]
    fn zones_are_files_of_the_zone_folder() {
        let temp = tempfile::tempdir().unwrap();
        let zones = temp.path().join("zones");
        std::fs::create_dir_all(zones.join("Europe")).unwrap();
        std::fs::write(zones.join("Europe/Berlin"), b"TZif2 and more").unwrap();
        std::fs::write(zones.join("tzdata.zi"), b"# version").unwrap();
        std::fs::write(temp.path().join("outside"), b"TZif2").unwrap();
        let localtime = temp.path().join("localtime");
        std::os::unix::fs::symlink(zones.join("Europe/Berlin"), &localtime).unwrap();
        let of = |zone: &str| Timezone::with(zone, &zones, &localtime).map(|zone| zone.file);
        assert_eq!(of("Europe/Berlin").unwrap(), zones.join("Europe/Berlin"));
        assert_eq!(of("local").unwrap(), localtime);
        for wrong in ["", "Europe", "Europe/Bern", "tzdata.zi", "../outside", "/etc/localtime", "./Europe/Berlin"] {
            let error = of(wrong).unwrap_err().to_string();
            assert!(error.contains(&format!("timezone = {wrong:?}")), "{error}");
        }
    }
}
