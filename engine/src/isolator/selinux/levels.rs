//! Levels of pods: two categories of 1024 that no other pod has, so that one pod's processes cannot reach another's files
//! even though both have the same types. Remembered in the pod's folder while the pod is there.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use crate::{Error, Kind, PodId, Result};

/// Categories of the policies for containers.
const CATEGORIES: u16 = 1024;

/// So often a pair is drawn before there seem to be none.
const DRAWS: u32 = 100_000;

/// File in the pod's folder.
const FILE: &str = "selinux-level";

/// Who has which level.
#[derive(Debug)]
pub struct Levels {
    /// Holds the pods' folders.
    pods: PathBuf,
    given: BTreeMap<PodId, String>,
}

impl Levels {
    /// Below the daemon's state folder.
    pub fn new(state: &Path) -> Self {
        Self { pods: state.join("pods"), given: BTreeMap::new() }
    }

    /// The level of a pod: what it has, or what it asks for, or one of its own.
    pub fn of(&mut self, pod: &PodId, asked: &str) -> Result<String> {
        if let Some(level) = self.given.get(pod) {
            return Ok(level.clone());
        }
        let level = if asked.is_empty() { self.draw(pod)? } else { asked.to_owned() };
        let file = self.file(pod);
        std::fs::write(&file, &level).map_err(|error| Error::io(format!("write {}", file.display()), error))?;
        self.given.insert(pod.clone(), level.clone());
        Ok(level)
    }

    fn draw(&self, pod: &PodId) -> Result<String> {
        for _ in 0..DRAWS {
            let (one, other) = (rand::random::<u16>() % CATEGORIES, rand::random::<u16>() % CATEGORIES);
            if one == other {
                continue;
            }
            let level = format!("s0:c{},c{}", one.min(other), one.max(other));
            if !self.given.values().any(|given| *given == level) {
                return Ok(level);
            }
        }
        let message = format!("SELinux level of pod {pod}: other pods have nearly all pairs of categories");
        Err(Error::new(Kind::ResourceExhausted, message))
    }

    /// Takes up what an earlier daemon gave.
    pub fn recover<'a>(&mut self, pods: impl IntoIterator<Item = &'a PodId>) {
        for pod in pods {
            if let Ok(level) = std::fs::read_to_string(self.file(pod)) {
                self.given.insert(pod.clone(), level);
            }
        }
    }

    /// Gives a pod's level free. Unknown pods are fine.
    pub fn release(&mut self, pod: &PodId) -> Result<()> {
        self.given.remove(pod);
        match std::fs::remove_file(self.file(pod)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(format!("remove the SELinux level of pod {pod}"), error))
            }
            _ => Ok(()),
        }
    }

    fn file(&self, pod: &PodId) -> PathBuf {
        self.pods.join(pod).join(FILE)
    }
}
