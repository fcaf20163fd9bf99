//! Our own CNI runtime: calls the plugins of a network configuration, as the specification (1.1) says.
//!
//! Every call happens on a thread of its own with a time-out; readers only ever see the [`View`] that the last look at
//! the folder and the plugins has left.

use std::{
    collections::BTreeMap,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Map, Value, json};

mod list;
mod plugin;
pub(crate) mod runtime;

pub(crate) use list::List;

use crate::config::NetworkConfig;

/// What went wrong with a configuration or a plugin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The configuration cannot be read.
    #[error("CNI configuration {path}: {source}", path = path.display())]
    Read {
        /// File or folder.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The configuration is wrong.
    #[error("CNI configuration {path}: {what}", path = path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        what: String,
    },
    /// There is no such plugin.
    #[error("CNI plugin {plugin} is in none of {dirs:?}: install it there, or set network.cni_bin_dirs")]
    Missing {
        /// Its file name.
        plugin: String,
        dirs: Vec<PathBuf>,
    },
    /// The plugin could not be run.
    #[error("running CNI plugin {plugin} ({command}): {source}")]
    Run {
        /// Its file name.
        plugin: String,
        command: &'static str,
        #[source]
        source: io::Error,
    },
    /// The plugin hung and was killed.
    #[error("CNI plugin {plugin} did not finish {command} in {limit:?} and was killed")]
    TimedOut {
        /// Its file name.
        plugin: String,
        command: &'static str,
        limit: Duration,
    },
    /// The plugin said that it failed.
    #[error("CNI plugin {plugin} failed to {command}: {message}")]
    Failed {
        /// Its file name.
        plugin: String,
        command: &'static str,
        message: String,
    },
    /// The plugin's answer makes no sense.
    #[error("CNI plugin {plugin} answered {command} with what is no result: {what}")]
    Answer {
        /// Its file name.
        plugin: String,
        command: &'static str,
        what: String,
    },
}

/// What is known about the configuration at the moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum View {
    /// There is none.
    #[default]
    Absent,
    /// This one is used.
    Loaded(Arc<List>),
    /// There is one, and it cannot be used: why.
    Broken(String),
}

/// A pod as plugins see it.
#[derive(Debug)]
pub(crate) struct Sandbox<'a> {
    pub(crate) id: &'a str,
    /// Path of the namespace; `None` if it is gone.
    pub(crate) netns: Option<&'a Path>,
    pub(crate) args: &'a str,
    pub(crate) runtime: &'a Map<String, Value>,
}

/// Names, times and sizes of the files that may count; when it is the same nothing has changed.
type Fingerprint = Vec<(PathBuf, Option<SystemTime>, u64)>;

/// The CNI runtime of one daemon.
#[derive(Debug)]
pub(crate) struct Cni {
    conf_dir: PathBuf,
    bin_dirs: Vec<PathBuf>,
    add: Duration,
    del: Duration,
    status: Duration,
    seen: Mutex<(Option<Fingerprint>, View)>,
    /// Why a plugin is not ready, as it said when it was asked last.
    unready: Mutex<Option<String>>,
}

impl Cni {
    pub(crate) fn new(config: &NetworkConfig) -> Self {
        Self {
            conf_dir: config.cni_conf_dir.clone(),
            bin_dirs: config.cni_bin_dirs.clone(),
            add: Duration::from_secs(config.cni_add_timeout),
            del: Duration::from_secs(config.cni_del_timeout),
            status: Duration::from_secs(config.cni_status_timeout),
            seen: Mutex::default(),
            unready: Mutex::default(),
        }
    }

    pub(crate) fn conf_dir(&self) -> &Path {
        &self.conf_dir
    }

    /// What the last look has found. Never waits.
    pub(crate) fn view(&self) -> View {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// Why a plugin is not ready, as far as is known. Never waits.
    pub(crate) fn unready(&self) -> Option<String> {
        self.unready.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the folder, and reads the configuration again if anything has changed.
    pub(crate) fn refresh(&self) -> View {
        let fingerprint = fingerprint(&self.conf_dir);
        {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if fingerprint.is_some() && seen.0 == fingerprint {
                return seen.1.clone();
            }
        }
        let view = match List::load(&self.conf_dir) {
            Ok(None) => View::Absent,
            Ok(Some(list)) => View::Loaded(Arc::new(list)),
            Err(error) => View::Broken(error.to_string()),
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.1 != view {
            match &view {
                View::Absent => tracing::info!(dir = %self.conf_dir.display(), "there is no CNI configuration"),
                View::Loaded(list) => tracing::info!(network = list.name, file = %list.source.display(), "CNI network"),
                View::Broken(why) => tracing::warn!(why, "the CNI configuration cannot be used"),
            }
        }
        *seen = (fingerprint, view.clone());
        view
    }

    /// Asks which versions the plugins speak, whether they are there, and from version 1.1 on whether they are ready.
    /// For the background: it may take long.
    pub(crate) fn check(&self) {
        let unready = match self.view() {
            View::Loaded(list) => {
                self.agree(&list).and_then(|list| self.ask(&list)).err().map(|error| error.to_string())
            }
            _ => None,
        };
        *self.unready.lock().unwrap_or_else(PoisonError::into_inner) = unready;
    }

    /// Settles on the newest version that all sides speak.
    fn agree(&self, list: &Arc<List>) -> Result<Arc<List>, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Spoken {
            supported_versions: Vec<String>,
        }
        let mut common = list.versions.clone();
        for plugin in &list.plugins {
            let kind = list::kind(plugin);
            plugin::find(kind, &self.bin_dirs)?;
            let input = json!({"cniVersion": list.versions[0]});
            // A plugin that cannot say what it speaks will say what it thinks of our request.
            let Ok(answer) = self.call("VERSION", kind, Vec::new(), &input, self.status) else { continue };
            let Ok(spoken) = serde_json::from_slice::<Spoken>(&answer) else { continue };
            common.retain(|version| spoken.supported_versions.contains(version));
            if common.is_empty() {
                let what = format!(
                    "plugin {kind} speaks {}, the configuration {}: change its cniVersion, or the plugin",
                    shorten(&spoken.supported_versions.join(", ")),
                    list.versions.join(", ")
                );
                return Err(Error::Wrong { path: list.source.clone(), what });
            }
        }
        if common[0] == list.version {
            return Ok(list.clone());
        }
        let agreed = Arc::new(List { version: common.swap_remove(0), ..List::clone(list) });
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(&seen.1, View::Loaded(now) if Arc::ptr_eq(now, list)) {
            seen.1 = View::Loaded(agreed.clone());
        }
        Ok(agreed)
    }

    fn ask(&self, list: &List) -> Result<(), Error> {
        if !list.has_status() {
            return Ok(());
        }
        let none = Map::new();
        for plugin in &list.plugins {
            let input = configuration(list, plugin, &none, None);
            match self.call("STATUS", list::kind(plugin), Vec::new(), &input, self.status) {
                // Codes 1 and 4 are an unknown version or command: a plugin older than the list. It is not unready.
                Err(Error::Failed { message, .. })
                    if message.starts_with("code 4:") || message.starts_with("code 1:") => {}
                result => drop(result?),
            }
        }
        Ok(())
    }

    /// Adds a pod to the network. What the plugins have made when one fails is for [`Self::del`].
    pub(crate) fn add(&self, list: &List, sandbox: &Sandbox<'_>) -> Result<Value, Error> {
        let mut previous: Option<Value> = None;
        for plugin in &list.plugins {
            let kind = list::kind(plugin);
            let input = configuration(list, plugin, sandbox.runtime, previous.as_ref());
            let answer = self.call("ADD", kind, environment(sandbox), &input, self.add)?;
            let result = serde_json::from_slice::<Value>(&answer).ok().filter(Value::is_object);
            previous = Some(result.ok_or_else(|| Error::Answer {
                plugin: kind.to_owned(),
                command: "ADD",
                what: shorten(&String::from_utf8_lossy(&answer)),
            })?);
        }
        Ok(previous.unwrap_or_else(|| json!({})))
    }

    /// Removes a pod from the network: all plugins in reverse, whatever each says. Fine if it was never added.
    pub(crate) fn del(&self, list: &List, sandbox: &Sandbox<'_>, result: Option<&Value>) -> Result<(), Vec<Error>> {
        // Plugins have got the result at DEL since 0.4.0.
        let previous = result.filter(|_| !list.version.starts_with("0.3."));
        let call = |plugin: &Map<String, Value>| {
            let input = configuration(list, plugin, sandbox.runtime, previous);
            let error = self.call("DEL", list::kind(plugin), environment(sandbox), &input, self.del).err();
            // One that is not installed is why the ADD did not come to its end, and has made nothing.
            error.filter(|error| result.is_some() || !matches!(error, Error::Missing { .. }))
        };
        let errors: Vec<Error> = list.plugins.iter().rev().filter_map(call).collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn call(
        &self,
        command: &'static str,
        plugin: &str,
        environment: Vec<(&'static str, String)>,
        input: &Value,
        timeout: Duration,
    ) -> Result<Vec<u8>, Error> {
        let input = input.to_string().into_bytes();
        let output = plugin::run(&plugin::Call { command, plugin, dirs: &self.bin_dirs, environment, input, timeout })?;
        if plugin::too_long(&output.stdout) {
            return Err(Error::Answer { plugin: plugin.to_owned(), command, what: "it is far too long".to_owned() });
        }
        if output.success {
            return Ok(output.stdout);
        }
        Err(Error::Failed { plugin: plugin.to_owned(), command, message: complaint(&output) })
    }
}

/// What a plugin is given on its standard input.
fn configuration(
    list: &List,
    plugin: &Map<String, Value>,
    runtime: &Map<String, Value>,
    previous: Option<&Value>,
) -> Value {
    let mut input = plugin.clone();
    input.remove("capabilities");
    input.insert("cniVersion".to_owned(), list.version.clone().into());
    input.insert("name".to_owned(), list.name.clone().into());
    let wanted: Map<String, Value> = runtime
        .iter()
        .filter(|(key, _)| list::wants(plugin, key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if !wanted.is_empty() {
        input.insert("runtimeConfig".to_owned(), wanted.into());
    }
    if let Some(previous) = previous {
        input.insert("prevResult".to_owned(), previous.clone());
    }
    input.into()
}

fn environment(sandbox: &Sandbox<'_>) -> Vec<(&'static str, String)> {
    vec![
        ("CNI_CONTAINERID", sandbox.id.to_owned()),
        ("CNI_NETNS", sandbox.netns.map(|path| path.display().to_string()).unwrap_or_default()),
        ("CNI_IFNAME", crate::bridge::POD_LINK.to_owned()),
        ("CNI_ARGS", sandbox.args.to_owned()),
    ]
}

/// What a plugin says about its failure: its error object if it gave one, else what it wrote.
fn complaint(output: &plugin::Output) -> String {
    #[derive(Deserialize)]
    struct Complaint {
        code: u64,
        msg: String,
        #[serde(default)]
        details: String,
    }
    match serde_json::from_slice::<Complaint>(&output.stdout) {
        Ok(Complaint { code, msg, details }) if details.is_empty() => shorten(&format!("code {code}: {msg}")),
        Ok(Complaint { code, msg, details }) => shorten(&format!("code {code}: {msg}: {details}")),
        Err(_) => {
            let said = [output.stderr.as_slice(), output.stdout.as_slice()].concat();
            let said = String::from_utf8_lossy(&said).trim().to_owned();
            if said.is_empty() { "it gave no reason".to_owned() } else { shorten(&said) }
        }
    }
}

/// Foreign text in an error: one line, no control characters, of a bearable length.
fn shorten(text: &str) -> String {
    const MOST: usize = 1000;
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MOST).collect();
    if text.chars().nth(MOST).is_some() { format!("{clean}…") } else { clean }
}

fn fingerprint(dir: &Path) -> Option<Fingerprint> {
    let files = list::files(dir).ok()?;
    let print = |path: PathBuf| {
        let meta = fs::metadata(&path).ok()?;
        Some((path, meta.modified().ok(), meta.len()))
    };
    Some(files.into_iter().filter_map(print).collect())
}

/// The addresses of the pod in a result, in its order.
pub(crate) fn addresses(result: &Value) -> Vec<IpNet> {
    let interfaces = result.get("interfaces").and_then(Value::as_array);
    // An address without interface is the pod's; one with is if the interface is in a sandbox.
    let in_pod = |ip: &Value| match (ip.get("interface").and_then(Value::as_u64), interfaces) {
        (Some(at), Some(all)) => usize::try_from(at)
            .ok()
            .and_then(|at| all.get(at))
            .and_then(|link| link.get("sandbox"))
            .and_then(Value::as_str)
            .is_some_and(|sandbox| !sandbox.is_empty()),
        _ => true,
    };
    let ips = result.get("ips").and_then(Value::as_array).into_iter().flatten();
    let mut found: Vec<IpNet> = Vec::new();
    for ip in ips.filter(|ip| in_pod(ip)) {
        let Some(text) = ip.get("address").and_then(Value::as_str) else { continue };
        let parsed = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        found.extend(parsed.filter(|net| !found.contains(net)));
    }
    found
}

/// Keys and values as JSON, for plugins that ask for a pod's annotations.
pub(crate) fn object(map: &BTreeMap<String, String>) -> Value {
    map.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect::<Map<_, _>>().into()
}

#[cfg(test)]
mod tests;
