//! `tripod config dump`: every setting with its value and what it is for.

use std::fmt;

use super::Config;

/// What each setting is for, by its full name. A test holds this list against the settings that there are.
pub(super) const ABOUT: &[(&str, &str)] = &[
    ("root", "Folder of what survives a reboot: images, layers, records. (--root)"),
    ("state", "Folder of what does not: sockets and files of running pods; best on a tmpfs. (--state)"),
    ("socket", "The CRI socket for the kubelet and crictl, mode 0600. (--socket)"),
    (
        "default_runtime",
        "Which of the runtimes below serves pods that name none; empty is the launcher that is built in.",
    ),
    (
        "runtimes",
        "RuntimeClass handlers, a section each, as [runtimes.runc] with type = \"oci\" and path = \"/usr/sbin/runc\"; \
         args go before the runtime's command, and one call may take timeout_seconds (30).",
    ),
    (
        "hooks_dir",
        "Folder of hooks (JSON, as podman and CRI-O read it, often /usr/share/containers/oci/hooks.d) for \
         containers; empty is none.",
    ),
    (
        "timezone",
        "Time zone of containers: \"local\" for the node's, or a name such as \"Europe/Berlin\"; empty leaves it to images.",
    ),
    (
        "limits",
        "For containers and pods that ask for nothing else. A handler's own are a section [runtimes.NAME.limits], and win \
         key by key.",
    ),
    (
        "limits.capabilities",
        "What an ordinary container has, in place of the default; requests add to it and drop from it.",
    ),
    ("limits.pids", "Processes and threads of a container; \"unlimited\" takes a limit back from a handler."),
    (
        "limits.disk_bytes",
        "Bytes on disk of a container's writable layer (not its volumes or its log). Project quotas keep it from \
         taking more, where the filesystem has them; elsewhere one that does is killed.",
    ),
    (
        "limits.disk_interval_seconds",
        "How often that is looked at. A layer that takes long to count is counted less often.",
    ),
    (
        "limits.ulimits",
        "Limits of processes by their names in setrlimit(2), as nofile = \"1024:65536\" (soft:hard), core = 0, \
         memlock = \"unlimited\", nofile = { soft = 1024, hard = 65536 }.",
    ),
    (
        "limits.sysctls",
        "Sysctls of pods with a namespace of their own for them, as \"net.core.somaxconn\" = 1024; names in quotes.",
    ),
    ("image", "Images and registries."),
    (
        "image.certs_dir",
        "One folder for each registry with mirrors and certificates: HOST/hosts.toml in containerd's format.",
    ),
    (
        "image.provisioner",
        "\"overlay\": containers share the files of images; \"copy\": each has its own, for filesystems that overlayfs cannot \
         stand on; \"auto\": overlay where that works.",
    ),
    ("image.parallel_layers", "Layers that are downloaded and unpacked at the same time."),
    ("image.igzip", "Large layers of gzip are inflated by the program igzip, where it is installed (Debian: isal)."),
    (
        "image.deduplicate",
        "Files that layers have in common are stored once, as hard links; for layers that come from now on.",
    ),
    (
        "image.project_quotas",
        "Project quotas count what containers write, and hold it to limits.disk_bytes, where the filesystem has them in force.",
    ),
    (
        "image.keep_partial_seconds",
        "Layers of a failed pull are kept this long, so that the next try fetches only the others.",
    ),
    (
        "image.min_free_bytes",
        "Bytes of the filesystem that pulls leave free, or a twentieth of it where that is less; 0 is no limit. With less \
         than twice as much free, all that nothing refers to is deleted at once.",
    ),
    (
        "image.pinned",
        "Images that the kubelet's garbage collection leaves alone: references, or beginnings before a *.",
    ),
    (
        "image.policy_file",
        "Which images may be used: a file in the format of containers-policy.json(5), read anew at each pull; without \
         this line all may.",
    ),
    (
        "image.lookaside",
        "Where signatures by GPG (signedBy in the policy) lie: URLs (https, http, file) by registry, namespace or \
         repository, as \"registry.example\" = \"https://signatures.example/store\"; default is for all others.",
    ),
    ("image.verifiers", "Programs that are asked whether an image may be used, as containerd's image verifiers are."),
    ("image.verifiers.bin_dir", "Folder in which each file is such a program; without this line nobody is asked."),
    ("image.verifiers.max_verifiers", "Programs that the folder may have; with more, no image is let in."),
    ("image.verifiers.per_verifier_timeout_seconds", "One that takes longer lets no image in."),
    ("image.limits", "Limits on what registries send; whoever can push an image can send anything."),
    ("image.limits.manifest_bytes", "Bytes of a manifest or an index."),
    ("image.limits.config_bytes", "Bytes of an image's configuration."),
    ("image.limits.layers", "Layers of an image; overlayfs takes 500."),
    ("image.limits.layer_bytes", "Bytes of an unpacked layer."),
    ("image.limits.layer_entries", "Files, folders and links of a layer."),
    ("image.timeouts", "How long to wait for registries."),
    ("image.timeouts.connect_seconds", "Until a connection stands."),
    ("image.timeouts.response_seconds", "Until an answer begins."),
    ("image.timeouts.stall_seconds", "After this time with less than minimum_rate a download counts as stuck."),
    ("image.timeouts.minimum_rate", "Bytes per second."),
    ("image.timeouts.attempts", "Tries of a request, or of a download that makes no progress."),
    (
        "image.ranges",
        "Big blobs over several connections, where one is slower than what is unpacked and the registry sends parts.",
    ),
    ("image.ranges.connections", "Connections for one blob; 1 is never more than one."),
    ("image.ranges.piece_bytes", "Bytes of a piece."),
    ("image.ranges.memory_bytes", "Bytes of all pieces of all blobs that are on their way at the same time."),
    ("image.timeouts.backoff_milliseconds", "Wait before the second try; doubles with each further one, up to 10 s."),
    ("network", "Pod networks."),
    (
        "network.mode",
        "\"auto\": CNI if cni_conf_dir holds a configuration, else the built-in bridge; \"bridge\"; \"cni\".",
    ),
    (
        "network.instance",
        "Tells daemons on one host apart: names of bridge, firewall table and namespaces begin with it.",
    ),
    ("network.bridge", "Name of the built-in bridge; empty is the instance with a 0 behind it."),
    (
        "network.subnets",
        "Ranges of the built-in bridge, one of each family at most. Empty: the kubelet's pod CIDR, and until it is \
         known 10.86.0.0/16 and fd74:7269:706f:6400::/64.",
    ),
    ("network.mtu", "Largest packet on the built-in bridge; without this line that of the default route's interface."),
    ("network.cni_conf_dir", "Folder of CNI configurations; the first by name is used."),
    ("network.cni_bin_dirs", "Folders of CNI plugins; the first hit wins."),
    ("network.cni_add_timeout", "Seconds that each CNI plugin may take to add a pod."),
    ("network.cni_del_timeout", "Seconds that each CNI plugin may take to remove a pod."),
    ("network.cni_status_timeout", "Seconds that each CNI plugin may take to tell its state."),
    ("network.netns_dir", "Where the files of network namespaces are."),
    ("cgroup", "Cgroups."),
    ("cgroup.base", "Cgroup for pods that name no parent (the kubelet always does); one name, unique for each daemon."),
    (
        "cgroup.driver",
        "\"cgroupfs\", or \"systemd\": a scope for each pod in the kubelet's slices; needs cgroup v2 and systemd as PID \
         1. The kubelet follows by itself.",
    ),
    (
        "cgroup.oom_group",
        "On cgroup v2 the kernel ends a container as a whole when its memory runs out. false: only what the kubelet asks \
         for, so that its singleProcessOOMKill decides.",
    ),
    ("shim", "The small process that holds a pod."),
    ("shim.program", "Path of tripod-shim; empty looks beside the tripod program, then along PATH."),
    ("streaming", "Where clients of exec, attach and port-forward come to; the kubelet and crictl are told by URLs."),
    (
        "streaming.address",
        "Address to listen on; port 0 takes a free one. The kubelet is on this host: loopback will do.",
    ),
    (
        "streaming.base_url",
        "What URLs begin with when clients know the listener under another address; empty takes its own.",
    ),
    (
        "streaming.tls",
        "PEM files for https: the server's certificate and those behind it, and its private key; with client_ca, a \
         file with authorities, only clients with a certificate of theirs are served. Without this line: http.",
    ),
    ("streaming.token_seconds", "A URL must be used within this time, once."),
    ("streaming.max_tokens", "URLs that are given out and not used yet, at most."),
    ("streaming.creation_seconds", "A client must open the streams of its session within this time."),
    ("streaming.idle_seconds", "A session ends in which no byte moves for so long; 0 waits for ever."),
    ("streaming.max_sessions", "Sessions at the same time, at most."),
    ("log", "The log, on standard error."),
    (
        "log.level",
        "error, warn, info, debug or trace; or directives as \"info,tripod_image_service=debug\". (--log-level)",
    ),
    ("log.format", "\"text\" or \"json\". (--log-format)"),
    ("metrics", "Figures about the daemon itself."),
    (
        "metrics.address",
        "Address of an HTTP listener for /metrics, as \"127.0.0.1:9323\"; without this line there is none.",
    ),
];

/// Settings that have no value by default; they are shown as comments.
pub(super) const ABSENT: &[(&str, &str)] = &[
    (
        "limits.capabilities",
        "[\"CHOWN\", \"DAC_OVERRIDE\", \"FOWNER\", \"FSETID\", \"KILL\", \"SETGID\", \"SETUID\", \"SETPCAP\", \
         \"NET_BIND_SERVICE\", \"NET_RAW\", \"SYS_CHROOT\", \"MKNOD\", \"AUDIT_WRITE\", \"SETFCAP\"]",
    ),
    ("limits.pids", "4096"),
    ("limits.disk_bytes", "10737418240"),
    ("limits.disk_interval_seconds", "10"),
    ("image.policy_file", "\"/etc/containers/policy.json\""),
    ("image.verifiers.bin_dir", "\"/opt/tripod/image-verifier/bin\""),
    ("network.mtu", "1500"),
    ("streaming.tls", "{ certificate = \"/etc/tripod/streaming.crt\", key = \"/etc/tripod/streaming.key\" }"),
    ("metrics.address", "\"127.0.0.1:9323\""),
];

/// Writes the settings as TOML, a comment above each.
pub(super) fn write(config: &Config, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let table = toml::Table::try_from(config).map_err(|_| fmt::Error)?;
    writeln!(f, "# Settings of tripod. Each may be left out; an unknown one is an error.")?;
    section("", &table, f)
}

fn section(path: &str, table: &toml::Table, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    // Plain settings before sections: a section ends only where the next one begins.
    for (key, value) in table.iter().filter(|(_, value)| !value.is_table()) {
        let name = join(path, key);
        writeln!(f)?;
        comment(&name, f)?;
        writeln!(f, "{} = {value}", bare(key))?;
    }
    for (name, example) in ABSENT {
        if let Some((parent, key)) = name.rsplit_once('.')
            && parent == path
            && !table.contains_key(key)
        {
            writeln!(f)?;
            comment(name, f)?;
            writeln!(f, "# {key} = {example}")?;
        }
    }
    for (key, value) in table {
        if let toml::Value::Table(inner) = value {
            let name = join(path, key);
            writeln!(f)?;
            comment(&name, f)?;
            writeln!(f, "[{name}]")?;
            section(&name, inner, f)?;
        }
    }
    Ok(())
}

fn comment(name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match ABOUT.iter().find(|(known, _)| *known == name) {
        Some((_, about)) => writeln!(f, "# {about}"),
        None => Ok(()),
    }
}

/// A key as it stands in a file: in quotes where it has more than letters in it.
fn bare(key: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if key.bytes().all(plain) { key.to_owned() } else { toml::Value::from(key).to_string() }
}

pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
