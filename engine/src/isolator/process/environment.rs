//! The environment: what tripod sets, then the image, then the request; the last one wins, in the place of the first.

use super::invalid;
use crate::{ContainerConfig, Result};

/// Where programs are searched when neither image nor request says it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// All variables of the container as `NAME=VALUE`.
pub fn merge(config: &ContainerConfig, hostname: &str) -> Result<Vec<String>> {
    let mut merged = Merged::default();
    merged.set("PATH", PATH);
    if config.terminal {
        merged.set("TERM", "xterm");
    }
    merged.set("HOSTNAME", hostname);
    for entry in &config.image.config.env {
        // An image that carries half an entry has always been run all the same.
        if let Some((name, value)) = entry.split_once('=')
            && check(name, value).is_ok()
        {
            merged.set(name, value);
        }
    }
    for (name, value) in &config.env {
        check(name, value)?;
        merged.set(name, value);
    }
    Ok(merged.entries)
}

/// Sets a variable that is not set yet.
pub fn set_default(env: &mut Vec<String>, name: &str, value: &str) {
    let set = env.iter().any(|entry| entry.strip_prefix(name).is_some_and(|rest| rest.starts_with('=')));
    if !set {
        env.push(format!("{name}={value}"));
    }
}

fn check(name: &str, value: &str) -> Result<()> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(invalid(format!("{name:?} cannot be the name of an environment variable")));
    }
    if value.contains('\0') {
        return Err(invalid(format!("the value of the environment variable {name} contains a NUL byte")));
    }
    Ok(())
}

/// A thousand services give thousands of variables, so names are found by hash.
#[derive(Debug, Default)]
struct Merged {
    entries: Vec<String>,
    places: std::collections::HashMap<String, usize>,
}

impl Merged {
    fn set(&mut self, name: &str, value: &str) {
        let entry = format!("{name}={value}");
        match self.places.get(name) {
            Some(&place) => self.entries[place] = entry,
            None => {
                self.places.insert(name.to_owned(), self.entries.len());
                self.entries.push(entry);
            }
        }
    }
}
