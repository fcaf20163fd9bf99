//! User and groups of a container: from the request, else from the image, with names looked up in the image's own
//! `/etc/passwd` and `/etc/group`. Sets `HOME` where the environment has none.

mod database;

use async_trait::async_trait;
use tripod_shim_protocol::{Credentials as Ids, LaunchPlan, UserMapping};

use super::{invalid, process};
use crate::{
    ContainerConfig, GroupsPolicy, Result,
    plugin::{ContainerContext, Isolator},
};
use database::{Database, User};

/// The most supplementary groups that the kernel takes (NGROUPS_MAX).
const MAX_GROUPS: usize = 65536;

/// Writes user and groups.
#[derive(Debug, Clone, Copy)]
pub struct Credentials;

#[async_trait]
impl Isolator for Credentials {
    fn name(&self) -> &'static str {
        "credentials"
    }

    async fn prepare(&self, container: ContainerContext<'_>, plan: &mut LaunchPlan) -> Result<()> {
        let (ids, home) = resolve(container.config, &Database::new(container.rootfs))?;
        container.pod.config.namespaces.user.map_or(Ok(()), |mapping| check(&ids, mapping))?;
        plan.process.credentials = ids;
        process::set_default(&mut plan.process.env, "HOME", &home);
        Ok(())
    }
}

/// Only IDs that the pod's user namespace has can be taken in it.
fn check(ids: &Ids, mapping: UserMapping) -> Result<()> {
    let groups = ids.groups.iter().chain([&ids.gid]);
    let user = Some((ids.uid, "user", mapping.uids)).filter(|(uid, _, range)| range.to_host(*uid).is_none());
    let group = groups.map(|gid| (*gid, "group", mapping.gids)).find(|(gid, _, range)| range.to_host(*gid).is_none());
    match user.or(group) {
        Some((id, what, range)) => Err(invalid(format!(
            "the {what} {id} is not in the user namespace of the pod, which has {range}; ask for one that is, or give \
             the pod more IDs"
        ))),
        None => Ok(()),
    }
}

/// Who runs, and where that user is at home.
fn resolve(config: &ContainerConfig, database: &Database<'_>) -> Result<(Ids, String)> {
    let security = &config.security;
    let image = config.image.config.user.as_str();
    let (user, group) = match (security.uid, security.username.as_str()) {
        (Some(_), name) if !name.is_empty() => {
            return Err(invalid(format!("both a user ID and the user name {name} are given; one of them must go")));
        }
        (Some(uid), _) => (by_id(database, uid)?, None),
        (None, "") if security.gid.is_some() => {
            return Err(invalid("a group (RunAsGroup) is given without a user (RunAsUser or RunAsUserName)"));
        }
        (None, "") => {
            let (user, group) = image.split_once(':').unwrap_or((image, ""));
            let user = if user.is_empty() { by_id(database, 0)? } else { by_name(database, user)? };
            (user, Some(group).filter(|group| !group.is_empty()))
        }
        (None, name) => (by_name(database, name)?, None),
    };
    let gid = match (security.gid, group) {
        (Some(gid), _) => gid,
        (None, Some(group)) => group_by_name(database, group)?,
        (None, None) => user.gid,
    };
    // The kernel takes the highest number for "leave it as it is".
    if user.uid == u32::MAX || gid == u32::MAX {
        return Err(invalid(format!("{} is not a user or group ID", u32::MAX)));
    }
    let mut groups = vec![gid];
    if security.supplemental_groups_policy == GroupsPolicy::Merge && !user.name.is_empty() {
        groups.extend(database.groups_of(&user.name)?);
    }
    groups.extend(&security.supplemental_groups);
    let mut seen = std::collections::HashSet::new();
    groups.retain(|group| seen.insert(*group));
    if groups.len() > MAX_GROUPS || groups.contains(&u32::MAX) {
        return Err(invalid(format!("there are more than {MAX_GROUPS} supplementary groups, or one is {}", u32::MAX)));
    }
    let home = if user.home.is_empty() || user.home.contains('\0') { "/".to_owned() } else { user.home };
    Ok((Ids { uid: user.uid, gid, groups, umask: None }, home))
}

/// A number need not be in /etc/passwd; then its group is 0, as with other runtimes.
fn by_id(database: &Database<'_>, uid: u32) -> Result<User> {
    Ok(database.user(|user| user.uid == uid)?.unwrap_or(User { uid, ..User::default() }))
}

/// A user as an image's `USER` writes it: a name, or a number.
fn by_name(database: &Database<'_>, name: &str) -> Result<User> {
    if let Some(uid) = number(name)? {
        return by_id(database, uid);
    }
    database.user(|user| user.name == name)?.ok_or_else(|| {
        invalid(format!("the user {name:?} is not in the image's /etc/passwd; use its number, or add it to the image"))
    })
}

fn group_by_name(database: &Database<'_>, name: &str) -> Result<u32> {
    if let Some(gid) = number(name)? {
        return Ok(gid);
    }
    database.group(name)?.ok_or_else(|| {
        invalid(format!("the group {name:?} is not in the image's /etc/group; use its number, or add it to the image"))
    })
}

/// Digits are a number, even where the image's files have them as a name: that could be root's, while who was told the
/// number takes it for somebody else's (CVE-2026-46680). Rust's own parser would take a sign as well.
fn number(text: &str) -> Result<Option<u32>> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|_| invalid(format!("{text} is not a user or group ID: they end at {}", u32::MAX - 1)))
}

#[cfg(test)]
mod tests;
