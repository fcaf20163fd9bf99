//! Privileges and confinement.

use std::path::PathBuf;

use tripod_cri_api::v1::{
    Capability, LinuxContainerSecurityContext, NamespaceMode, NamespaceOption, SeLinuxOption, SecurityProfile,
    SupplementalGroupsPolicy, security_profile::ProfileType,
};
use tripod_engine::{
    AppArmorProfile, ContainerPid, GroupsPolicy, PidMode, PodConfig, SeccompProfile, Security, SelinuxOptions,
    isolator::capability,
};

use super::{
    Refusal, Refused,
    refusal::{absolute, plain, required},
    userns,
};

/// Security of a container, in its pod.
pub(super) fn security(asked: &LinuxContainerSecurityContext, pod: &PodConfig) -> Refused<Security> {
    let at = |name: &str| format!("config.linux.security_context.{name}");
    if asked.privileged && !pod.privileged {
        let problem = "a privileged container needs a pod sandbox that was made with privileged = true";
        return Err(Refusal::new(at("privileged"), problem));
    }
    let mut security = Security {
        privileged: asked.privileged,
        read_only_rootfs: asked.readonly_rootfs,
        no_new_privs: asked.no_new_privs,
        pid: pid(&at("namespace_options"), asked.namespace_options.as_ref(), pod)?,
        uid: asked.run_as_user.map(|id| self::id(&at("run_as_user"), id.value)).transpose()?,
        gid: asked.run_as_group.map(|id| self::id(&at("run_as_group"), id.value)).transpose()?,
        username: plain(&at("run_as_username"), &asked.run_as_username)?,
        supplemental_groups: asked
            .supplemental_groups
            .iter()
            .map(|group| id(&at("supplemental_groups"), *group))
            .collect::<Refused<_>>()?,
        supplemental_groups_policy: policy(&at("supplemental_groups_policy"), asked.supplemental_groups_policy)?,
        // What is privileged is not confined, whatever profile comes along.
        seccomp: match asked.privileged {
            true => SeccompProfile::Unconfined,
            false => seccomp(&at("seccomp"), asked.seccomp.as_ref(), profile_path(asked))?,
        },
        apparmor: apparmor(&at("apparmor"), asked.apparmor.as_ref(), former_apparmor(asked))?,
        selinux: selinux(&at("selinux_options"), asked.selinux_options.as_ref())?,
        masked_paths: paths(&at("masked_paths"), &asked.masked_paths)?,
        read_only_paths: paths(&at("readonly_paths"), &asked.readonly_paths)?,
        ..Security::default()
    };
    if security.uid.is_some() && !security.username.is_empty() {
        return Err(Refusal::new(at("run_as_username"), "cannot be given together with run_as_user"));
    }
    if security.gid.is_some() && security.uid.is_none() && security.username.is_empty() {
        return Err(Refusal::new(at("run_as_group"), "needs run_as_user or run_as_username beside it"));
    }
    if let Some(capabilities) = &asked.capabilities {
        add_capabilities(&mut security, &at("capabilities"), capabilities)?;
    }
    Ok(security)
}

// Older clients say it this way only.
#[allow(deprecated)]
fn profile_path(asked: &LinuxContainerSecurityContext) -> &str {
    &asked.seccomp_profile_path
}

#[allow(deprecated)]
fn former_apparmor(asked: &LinuxContainerSecurityContext) -> &str {
    &asked.apparmor_profile
}

fn profile_type(profile: &SecurityProfile) -> Option<ProfileType> {
    ProfileType::try_from(profile.profile_type).ok()
}

/// The AppArmor profile, in the field of today or that of older clients.
fn apparmor(field: &str, profile: Option<&SecurityProfile>, former: &str) -> Refused<AppArmorProfile> {
    const PREFIX: &str = "localhost/";
    let local = |field: &str, name: &str| {
        let name = required(field, name.strip_prefix(PREFIX).unwrap_or(name))?;
        if name.chars().any(char::is_control) {
            return Err(Refusal::new(field, format!("{name:?} is no name of a profile")));
        }
        Ok(AppArmorProfile::Localhost(name))
    };
    let Some(profile) = profile else {
        return match former {
            "" => Ok(AppArmorProfile::Unset),
            "unconfined" => Ok(AppArmorProfile::Unconfined),
            "runtime/default" | "docker/default" => Ok(AppArmorProfile::RuntimeDefault),
            other if other.starts_with(PREFIX) => local(&format!("{field}_profile"), other),
            other => {
                let problem = "is neither unconfined, runtime/default nor localhost/ and a name";
                Err(Refusal::new(format!("{field}_profile"), format!("{other:?} {problem}")))
            }
        };
    };
    match profile_type(profile) {
        Some(ProfileType::Localhost) => local(field, &profile.localhost_ref),
        Some(_) if !profile.localhost_ref.is_empty() => Err(superfluous(field, profile)),
        Some(ProfileType::Unconfined) => Ok(AppArmorProfile::Unconfined),
        Some(ProfileType::RuntimeDefault) => Ok(AppArmorProfile::RuntimeDefault),
        None => Err(Refusal::new(field, "unknown type of profile")),
    }
}

fn superfluous(field: &str, profile: &SecurityProfile) -> Refusal {
    let name = &profile.localhost_ref;
    Refusal::new(field, format!("localhost_ref {name:?} makes sense only for a Localhost profile"))
}

/// The seccomp profile, in the field of today or that of older clients. Nothing at all is Unconfined.
fn seccomp(field: &str, profile: Option<&SecurityProfile>, former: &str) -> Refused<SeccompProfile> {
    let local = |path: &str| Ok(SeccompProfile::Localhost(absolute(field, path)?));
    let Some(profile) = profile else {
        return match former {
            "" | "unconfined" => Ok(SeccompProfile::Unconfined),
            "runtime/default" | "docker/default" => Ok(SeccompProfile::RuntimeDefault),
            other => match other.strip_prefix("localhost/") {
                Some(path) => local(path),
                None => {
                    let problem = "is neither unconfined, runtime/default nor localhost/ and a path";
                    Err(Refusal::new(format!("{field}_profile_path"), format!("{other:?} {problem}")))
                }
            },
        };
    };
    match profile_type(profile) {
        Some(ProfileType::Localhost) => local(&profile.localhost_ref),
        Some(_) if !profile.localhost_ref.is_empty() => Err(superfluous(field, profile)),
        Some(ProfileType::Unconfined) => Ok(SeccompProfile::Unconfined),
        Some(ProfileType::RuntimeDefault) => Ok(SeccompProfile::RuntimeDefault),
        None => Err(Refusal::new(field, "unknown type of profile")),
    }
}

/// The profile of the sandbox itself. It has no process, so any is kept by having nothing to confine; containers come
/// with their own.
pub(super) fn sandbox_seccomp(field: &str, profile: Option<&SecurityProfile>, former: &str) -> Refused<()> {
    seccomp(field, profile, former).map(drop)
}

/// The parts of a SELinux label. Where there is no SELinux they are without effect, but checked all the same.
pub(super) fn selinux(field: &str, options: Option<&SeLinuxOption>) -> Refused<SelinuxOptions> {
    let Some(options) = options else { return Ok(SelinuxOptions::default()) };
    let name = |name: &str, part: &str| {
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "_-.".contains(letter);
        match part.len() < 64 && part.chars().all(plain) {
            true => Ok(part.to_owned()),
            false => Err(Refusal::new(format!("{field}.{name}"), format!("{part:?} is no name of a SELinux policy"))),
        }
    };
    if !options.level.is_empty() && !is_level(&options.level) {
        let problem = format!("{:?} is no SELinux level, as s0 or s0:c4,c5 or s0-s0:c0.c1023", options.level);
        return Err(Refusal::new(format!("{field}.level"), problem));
    }
    Ok(SelinuxOptions {
        user: name("user", &options.user)?,
        role: name("role", &options.role)?,
        kind: name("type", &options.r#type)?,
        level: options.level.clone(),
    })
}

/// A sensitivity or a range of them, and categories of 0 to 1023 or ranges of these.
fn is_level(text: &str) -> bool {
    let number = |text: &str, sign: char, most: u16| {
        let digits = text.strip_prefix(sign).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()))?;
        digits.parse().ok().filter(|number: &u16| *number <= most)
    };
    let range = |text: &str, between: char, sign: char, most: u16| match text.split_once(between) {
        None => number(text, sign, most).is_some(),
        Some((low, high)) => {
            number(low, sign, most).zip(number(high, sign, most)).is_some_and(|(low, high)| low <= high)
        }
    };
    let (sensitivity, categories) = match text.split_once(':') {
        None => (text, None),
        Some((sensitivity, categories)) => (sensitivity, Some(categories)),
    };
    // The kernel takes no longer value of a mount option.
    text.len() <= 128
        && range(sensitivity, '-', 's', 15)
        && categories.is_none_or(|categories| categories.split(',').all(|part| range(part, '.', 'c', 1023)))
}

/// A mode that the contract has.
pub(super) fn mode(field: &str, mode: i32) -> Refused<NamespaceMode> {
    NamespaceMode::try_from(mode).map_err(|_| Refusal::new(field, format!("{mode} is no namespace mode")))
}

/// The PID namespace of a container. POD is also what a silent client sends, so it means "as the pod says".
fn pid(field: &str, options: Option<&NamespaceOption>, pod: &PodConfig) -> Refused<ContainerPid> {
    let as_the_pod = match pod.namespaces.pid {
        PidMode::Container => ContainerPid::Container,
        PidMode::Pod => ContainerPid::Pod,
        PidMode::Node => ContainerPid::Node,
    };
    let Some(options) = options else { return Ok(as_the_pod) };
    userns::of_container(field, options, pod)?;
    for (name, asked, host) in
        [("network", options.network, pod.namespaces.host_network), ("ipc", options.ipc, pod.namespaces.host_ipc)]
    {
        let field = format!("{field}.{name}");
        match mode(&field, asked)? {
            NamespaceMode::Pod => {}
            NamespaceMode::Node if host => {}
            NamespaceMode::Node => {
                return Err(Refusal::new(field, "NODE needs a pod sandbox that was made with NODE"));
            }
            _ => return Err(Refusal::new(field, "must be POD or NODE")),
        }
    }
    let field = format!("{field}.pid");
    match mode(&field, options.pid)? {
        NamespaceMode::Pod => Ok(as_the_pod),
        NamespaceMode::Container => Ok(ContainerPid::Container),
        NamespaceMode::Node if as_the_pod == ContainerPid::Node => Ok(ContainerPid::Node),
        NamespaceMode::Node => Err(Refusal::new(field, "NODE needs a pod sandbox that was made with NODE")),
        NamespaceMode::Target if options.target_id.is_empty() => {
            Err(Refusal::new(field, "TARGET needs the container's ID in target_id"))
        }
        NamespaceMode::Target => Ok(ContainerPid::Target(options.target_id.clone())),
    }
}

/// A user or group ID. The kernel keeps the highest number for "no change".
pub(super) fn id(field: &str, value: i64) -> Refused<u32> {
    u32::try_from(value)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| Refusal::new(field, format!("{value} is outside of 0 to 4294967294")))
}

fn policy(field: &str, policy: i32) -> Refused<GroupsPolicy> {
    match SupplementalGroupsPolicy::try_from(policy) {
        Ok(SupplementalGroupsPolicy::Merge) => Ok(GroupsPolicy::Merge),
        Ok(SupplementalGroupsPolicy::Strict) => Ok(GroupsPolicy::Strict),
        Err(_) => Err(Refusal::new(field, format!("{policy} is neither Merge (0) nor Strict (1)"))),
    }
}

fn paths(field: &str, paths: &[String]) -> Refused<Vec<PathBuf>> {
    paths.iter().map(|path| absolute(field, path)).collect()
}

fn add_capabilities(security: &mut Security, field: &str, asked: &Capability) -> Refused<()> {
    let parse = |list: &str, names: &[String]| -> Refused<(bool, Vec<u8>)> {
        let mut all = false;
        let mut numbers = Vec::new();
        for name in names {
            if ["ALL", "CAP_ALL"].contains(&name.to_ascii_uppercase().as_str()) {
                all = true;
                continue;
            }
            let unknown = || Refusal::new(format!("{field}.{list}"), format!("{name:?} is no Linux capability"));
            numbers.push(capability::parse(name).ok_or_else(unknown)?);
        }
        Ok((all, numbers))
    };
    let (add_all, mut add) = parse("add_capabilities", &asked.add_capabilities)?;
    let (drop_all, drop) = parse("drop_capabilities", &asked.drop_capabilities)?;
    let (ambient_all, mut ambient) = parse("add_ambient_capabilities", &asked.add_ambient_capabilities)?;
    if ambient_all {
        ambient = (0..).take_while(|number| capability::parse(&capability::name(*number)).is_some()).collect();
    }
    // What is ambient has to be in every other set too.
    add.extend(&ambient);
    security.add_all_capabilities = add_all || ambient_all;
    security.add_capabilities = add;
    security.drop_all_capabilities = drop_all;
    security.drop_capabilities = drop;
    security.ambient_capabilities = ambient;
    Ok(())
}
