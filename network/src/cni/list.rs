//! CNI network configurations as they lie in `/etc/cni/net.d`: `.conflist`, or a single plugin in `.conf` and `.json`.
//!
//! The first file by name counts. If it is wrong the network is not ready: quietly taking the next one would put pods
//! into a network that nobody meant.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Error;

/// The versions of the protocol that we speak, the newest first.
pub(crate) const VERSIONS: [&str; 5] = ["1.1.0", "1.0.0", "0.4.0", "0.3.1", "0.3.0"];

/// A configuration of somebody else's making is never longer.
const LARGEST: u64 = 1 << 20;

/// A network: plugins that are called one after the other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct List {
    /// The file that it came from.
    pub(crate) source: PathBuf,
    /// Name of the network.
    pub(crate) name: String,
    /// The version that is spoken with the plugins.
    pub(crate) version: String,
    /// All that the configuration names and we speak, the newest first.
    pub(crate) versions: Vec<String>,
    /// What each plugin is given, in the order of ADD.
    pub(crate) plugins: Vec<Map<String, Value>>,
}

impl List {
    /// The first configuration of a folder; `None` if there is none.
    pub(crate) fn load(dir: &Path) -> Result<Option<Self>, Error> {
        let Some(path) = files(dir)?.into_iter().next() else { return Ok(None) };
        let read = |source| Error::Read { path: path.clone(), source };
        let file = fs::File::open(&path).map_err(read)?;
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, LARGEST + 1), &mut bytes).map_err(read)?;
        if bytes.len() as u64 > LARGEST {
            return Err(Error::Wrong { path, what: format!("longer than {LARGEST} bytes") });
        }
        Self::parse(&path, &bytes).map(Some)
    }

    /// Checks a configuration.
    pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, Error> {
        let wrong = |what: String| Error::Wrong { path: path.to_owned(), what };
        let mut top: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(|error| wrong(format!("no JSON object: {error}")))?;
        let name = text(&top, "name").map_err(&wrong)?.ok_or_else(|| wrong("\"name\" is missing".to_owned()))?;
        if !plain(&name) {
            return Err(wrong(format!("name {name:?} must be letters, digits, '_', '.' and '-'")));
        }
        let versions = versions(&top).map_err(&wrong)?;
        let is_list = path.extension().is_some_and(|extension| extension == "conflist");
        let plugins = match top.remove("plugins") {
            Some(Value::Array(plugins)) => plugins,
            Some(_) => return Err(wrong("\"plugins\" is no list".to_owned())),
            None if is_list => return Err(wrong("\"plugins\" is missing".to_owned())),
            None => vec![Value::Object(top)],
        };
        if plugins.is_empty() {
            return Err(wrong("\"plugins\" is empty".to_owned()));
        }
        let check = |(at, plugin): (usize, Value)| {
            let Value::Object(plugin) = plugin else { return Err(wrong(format!("plugin {at} is no object"))) };
            let kind = text(&plugin, "type").map_err(&wrong)?;
            let kind = kind.ok_or_else(|| wrong(format!("plugin {at} has no \"type\"")))?;
            if !plain(&kind) {
                return Err(wrong(format!("plugin {at}: type {kind:?} is no plain file name")));
            }
            if plugin.get("capabilities").is_some_and(|value| !value.is_object()) {
                return Err(wrong(format!("plugin {at} ({kind}): \"capabilities\" is no object")));
            }
            Ok(plugin)
        };
        let plugins = plugins.into_iter().enumerate().map(check).collect::<Result<_, _>>()?;
        Ok(Self { source: path.to_owned(), name, version: versions[0].clone(), versions, plugins })
    }

    /// Whether any plugin of the list wants to be told this.
    pub(crate) fn wants(&self, capability: &str) -> bool {
        self.plugins.iter().any(|plugin| wants(plugin, capability))
    }

    /// Whether plugins can be asked for their state.
    pub(crate) fn has_status(&self) -> bool {
        self.version == "1.1.0"
    }
}

/// The file name of a plugin.
pub(crate) fn kind(plugin: &Map<String, Value>) -> &str {
    plugin.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// Whether a plugin wants to be told this.
pub(crate) fn wants(plugin: &Map<String, Value>, capability: &str) -> bool {
    plugin.get("capabilities").and_then(|all| all.get(capability)).and_then(Value::as_bool).unwrap_or(false)
}

/// The configuration files of a folder by name. A folder that is not there is an empty one.
pub(crate) fn files(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let read = |source| Error::Read { path: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(read)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(read)?.path();
        let known =
            path.extension().is_some_and(|kind| ["conf", "conflist", "json"].iter().any(|known| kind == *known));
        // `metadata` follows links: configurations are often mounted by way of them.
        if known && fs::metadata(&path).is_ok_and(|meta| meta.is_file()) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn plain(name: &str) -> bool {
    name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn text(object: &Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    match object.get(key) {
        None => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("{key:?} is no text")),
    }
}

/// The versions that the configuration names and we speak, the newest first; at least one.
fn versions(top: &Map<String, Value>) -> Result<Vec<String>, String> {
    let mut named: Vec<String> = text(top, "cniVersion")?.into_iter().collect();
    if let Some(more) = top.get("cniVersions") {
        let more = more.as_array().ok_or("\"cniVersions\" is no list")?;
        named.extend(more.iter().filter_map(Value::as_str).map(str::to_owned));
    }
    let known: Vec<String> =
        VERSIONS.into_iter().filter(|known| named.iter().any(|name| name == known)).map(str::to_owned).collect();
    match named.as_slice() {
        [] => Err(format!("\"cniVersion\" is missing: write one of {}", VERSIONS.join(", "))),
        _ if !known.is_empty() => Ok(known),
        named => Err(format!("cniVersion {} is none of {}", named.join(", "), VERSIONS.join(", "))),
    }
}

#[cfg(test)]
mod tests;
