//! Profiles in files: the JSON of the OCI runtime specification, with the additions that profiles for Docker have
//! (`archMap`, `includes`, `excludes`, `name`).
//!
//! Whatever would make a filter that is not what its author wrote is refused with the place in the file.

use std::path::PathBuf;

use serde::Deserialize;

use super::{
    arch::{self, Arch},
    rules::{Action, Condition, Flags, Listener, Op, Rule, Rules},
};
use crate::isolator::capability;

/// The largest file that is read.
pub(super) const MAX_FILE: u64 = 1 << 20;

/// The most rules, and the most names in all of them.
const MAX_RULES: usize = 4096;
const MAX_NAMES: usize = 65536;

/// The errno that an action without one returns: EPERM.
const DEFAULT_ERRNO: u16 = 1;

/// What the conditions in a profile depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Situation {
    /// The bounding set of the container.
    pub(super) capabilities: u64,
    pub(super) native: Arch,
    /// Major and minor version of the running kernel.
    pub(super) kernel: (u32, u32),
}

/// Why a profile cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub(super) struct ProfileError {
    place: String,
    problem: String,
}

type Parsed<T> = Result<T, ProfileError>;

fn wrong<T>(place: impl Into<String>, problem: impl Into<String>) -> Parsed<T> {
    Err(ProfileError { place: place.into(), problem: problem.into() })
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    default_action: String,
    default_errno_ret: Option<u64>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<ArchMap>>,
    flags: Option<Vec<String>>,
    listener_path: Option<PathBuf>,
    listener_metadata: Option<String>,
    syscalls: Option<Vec<Entry>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u64>,
    args: Option<Vec<Argument>>,
    includes: Option<When>,
    excludes: Option<When>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u64,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct When {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// Reads a profile.
pub(super) fn parse(text: &[u8], situation: Situation) -> Parsed<Rules> {
    let file: File = match serde_json::from_slice(text) {
        Ok(file) => file,
        Err(error) => return wrong("JSON", error.to_string()),
    };
    let default = action("defaultAction", &file.default_action, ("defaultErrnoRet", file.default_errno_ret))?;
    let entries = file.syscalls.unwrap_or_default();
    if entries.len() > MAX_RULES {
        return wrong("syscalls", format!("{} entries; at most {MAX_RULES} are read", entries.len()));
    }
    let mut rules = Vec::with_capacity(entries.len());
    let mut names = 0;
    for (at, entry) in entries.into_iter().enumerate() {
        let Some(rule) = rule(&format!("syscalls[{at}]"), entry, situation)? else { continue };
        names += rule.names.len();
        if names > MAX_NAMES {
            return wrong("syscalls", format!("more than {MAX_NAMES} names"));
        }
        rules.push(rule);
    }
    let notifies = default == Action::Notify || rules.iter().any(|rule| rule.action == Action::Notify);
    Ok(Rules {
        default,
        arches: architectures(file.architectures, file.arch_map, situation.native)?,
        flags: flags(&file.flags.unwrap_or_default(), notifies)?,
        listener: listener(file.listener_path, file.listener_metadata, notifies)?,
        rules,
    })
}

fn architectures(plain: Option<Vec<String>>, map: Option<Vec<ArchMap>>, native: Arch) -> Parsed<Vec<Arch>> {
    let parse = |place: &str, names: &[String]| {
        let mut arches = Vec::new();
        for name in names {
            match Arch::parse(name) {
                Some(arch) => arches.extend(arch),
                None => return wrong(place, format!("unknown architecture {name:?}")),
            }
        }
        Ok(arches)
    };
    let (plain, map) = (plain.unwrap_or_default(), map.unwrap_or_default());
    if !plain.is_empty() && !map.is_empty() {
        return wrong("archMap", "cannot be given together with architectures");
    }
    let mut arches = parse("architectures", &plain)?;
    for (at, entry) in map.into_iter().enumerate() {
        let main = parse(&format!("archMap[{at}].architecture"), &[entry.architecture])?;
        let subs = parse(&format!("archMap[{at}].subArchitectures"), &entry.sub_architectures.unwrap_or_default())?;
        if main == [native] {
            arches = subs;
        }
    }
    Ok(arches)
}

fn flags(names: &[String], notifies: bool) -> Parsed<Flags> {
    let mut flags = Flags::default();
    for name in names {
        match name.as_str() {
            "SECCOMP_FILTER_FLAG_LOG" => flags.log = true,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => flags.spec_allow = true,
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" if notifies => flags.wait_killable = true,
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => {
                return wrong("flags", format!("{name} makes sense only where an action is SCMP_ACT_NOTIFY"));
            }
            // A process is alone while its filter is loaded.
            "SECCOMP_FILTER_FLAG_TSYNC" => {}
            _ => return wrong("flags", format!("unknown flag {name:?}")),
        }
    }
    Ok(flags)
}

fn listener(path: Option<PathBuf>, metadata: Option<String>, notifies: bool) -> Parsed<Option<Listener>> {
    let path = path.filter(|path| !path.as_os_str().is_empty());
    let metadata = metadata.unwrap_or_default();
    match path {
        None if notifies => wrong("listenerPath", "missing: SCMP_ACT_NOTIFY needs the socket of who decides"),
        None if !metadata.is_empty() => wrong("listenerMetadata", "makes no sense without listenerPath"),
        Some(path) if !path.is_absolute() => {
            wrong("listenerPath", format!("{} is not an absolute path", path.display()))
        }
        path => Ok(path.filter(|_| notifies).map(|path| Listener { path, metadata })),
    }
}

/// One entry, or `None` if it is not meant for this situation.
fn rule(place: &str, entry: Entry, situation: Situation) -> Parsed<Option<Rule>> {
    let at = |field: &str| format!("{place}.{field}");
    let names = match (entry.name.filter(|name| !name.is_empty()), entry.names.unwrap_or_default()) {
        (Some(_), names) if !names.is_empty() => return wrong(at("name"), "cannot be given together with names"),
        (Some(name), _) => vec![name],
        (None, names) if names.is_empty() => return wrong(at("names"), "no system call is named"),
        (None, names) => names,
    };
    let action = action(&at("action"), &entry.action, (&at("errnoRet"), entry.errno_ret))?;
    // The first name says more than a number where entries are many.
    let place = format!("{place} ({})", names[0]);
    if names.iter().any(String::is_empty) {
        return wrong(format!("{place}.names"), "an empty name");
    }
    let mut conditions = Vec::new();
    for (number, argument) in entry.args.unwrap_or_default().into_iter().enumerate() {
        conditions.push(condition(&format!("{place}.args[{number}]"), &argument)?);
    }
    let includes = entry.includes.unwrap_or_default();
    let excludes = entry.excludes.unwrap_or_default();
    if !included(&format!("{place}.includes"), &includes, situation)?
        || excluded(&format!("{place}.excludes"), &excludes, situation)?
    {
        return Ok(None);
    }
    for name in names.iter().filter(|name| !arch::known(name)) {
        tracing::debug!(name, "a seccomp profile names a system call that is not known and is left out");
    }
    Ok(Some(Rule { names, action, conditions }))
}

fn action(place: &str, name: &str, (errno_place, errno): (&str, Option<u64>)) -> Parsed<Action> {
    let value = |most: u16| match errno {
        None => Ok(DEFAULT_ERRNO),
        Some(value) => match u16::try_from(value) {
            Ok(value) if value <= most => Ok(value),
            _ => wrong(errno_place, format!("{value} is above {most}")),
        },
    };
    let plain = match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_NOTIFY" => Action::Notify,
        // The kernel takes no error above 4095.
        "SCMP_ACT_ERRNO" => return value(4095).map(Action::Errno),
        "SCMP_ACT_TRACE" => return value(u16::MAX).map(Action::Trace),
        _ => return wrong(place, format!("unknown action {name:?}")),
    };
    match errno {
        // Profiles written by programs have a zero where there is nothing to say.
        None | Some(0) => Ok(plain),
        Some(_) => wrong(errno_place, format!("{name} returns no errno")),
    }
}

fn condition(place: &str, argument: &Argument) -> Parsed<Condition> {
    let index = match u8::try_from(argument.index) {
        Ok(index) if index < 6 => index,
        _ => return wrong(format!("{place}.index"), format!("{} is not between 0 and 5", argument.index)),
    };
    let plain = |op: Op| Ok(Condition { index, op, value: argument.value });
    match argument.op.as_str() {
        "SCMP_CMP_NE" => plain(Op::Ne),
        "SCMP_CMP_LT" => plain(Op::Lt),
        "SCMP_CMP_LE" => plain(Op::Le),
        "SCMP_CMP_EQ" => plain(Op::Eq),
        "SCMP_CMP_GE" => plain(Op::Ge),
        "SCMP_CMP_GT" => plain(Op::Gt),
        "SCMP_CMP_MASKED_EQ" => {
            let (mask, value) = (argument.value, argument.value_two);
            if value & !mask != 0 {
                let problem = format!("{value:#x} has bits that are not in value, the mask {mask:#x}: never true");
                return wrong(format!("{place}.valueTwo"), problem);
            }
            Ok(Condition { index, op: Op::MaskedEq(mask), value })
        }
        other => wrong(format!("{place}.op"), format!("unknown operator {other:?}")),
    }
}

fn holds(name: &str, situation: Situation) -> bool {
    capability::parse(name).is_some_and(|number| situation.capabilities >> number & 1 == 1)
}

/// All capabilities are held, this is one of the architectures, and the kernel is new enough.
fn included(place: &str, when: &When, situation: Situation) -> Parsed<bool> {
    let arches = when.arches.as_deref().unwrap_or_default();
    Ok(when.caps.iter().flatten().all(|name| holds(name, situation))
        && (arches.is_empty() || arches.iter().any(|name| name == situation.native.go_name()))
        && recent(place, when, situation)?.unwrap_or(true))
}

/// Any of these is the case.
fn excluded(place: &str, when: &When, situation: Situation) -> Parsed<bool> {
    Ok(when.caps.iter().flatten().any(|name| holds(name, situation))
        || when.arches.iter().flatten().any(|name| name == situation.native.go_name())
        || recent(place, when, situation)?.unwrap_or(false))
}

/// Whether the kernel is at least as new as a condition says.
fn recent(place: &str, when: &When, situation: Situation) -> Parsed<Option<bool>> {
    let Some(text) = when.min_kernel.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
    match kernel_version(text) {
        Some(version) => Ok(Some(situation.kernel >= version)),
        None => wrong(format!("{place}.minKernel"), format!("{text:?} is no version as 4.8")),
    }
}

/// Major and minor version.
pub(super) fn kernel_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
