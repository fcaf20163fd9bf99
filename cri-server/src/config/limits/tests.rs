use std::path::Path;

use super::*;
use crate::config::{ConfigError, Overrides};

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("/etc/tripod/config.toml"), text)
}

/// The limits of a handler by this file.
fn limits(text: &str, handler: &str) -> Limits {
    parse(text).unwrap().handler_limits().unwrap().of(handler).clone()
}

fn rlimit(resource: Resource, soft: u64, hard: u64) -> Rlimit {
    Rlimit { resource, soft, hard }
}

#[test]
fn nothing_is_set_by_default() {
    assert_eq!(limits("", ""), Limits::default());
    assert_eq!(limits("[runtimes.x]", "x"), Limits::default());
}

#[test]
fn ulimits_are_read_in_every_form() {
    let text = "[limits.ulimits]\nnofile = \"1024:65536\"\ncore = 0\nmemlock = \"unlimited\"\n\
                nproc = { soft = 10, hard = \"unlimited\" }\nstack = \"8388608\"";
    let wanted = [
        rlimit(Resource::Core, 0, 0),
        rlimit(Resource::Memlock, u64::MAX, u64::MAX),
        rlimit(Resource::Nofile, 1024, 65536),
        rlimit(Resource::Nproc, 10, u64::MAX),
        rlimit(Resource::Stack, 8_388_608, 8_388_608),
    ];
    assert_eq!(limits(text, "").rlimits, wanted);
}

#[test]
fn a_handlers_keys_win_one_by_one() {
    let text = "default_runtime = \"b\"\n\
        [limits]\npids = 100\ndisk_bytes = 1073741824\ncapabilities = [\"CHOWN\", \"cap_kill\"]\n\
        [limits.ulimits]\nnofile = 10\ncore = 0\n\
        [limits.sysctls]\n\"net.core.somaxconn\" = 7\n\"kernel/msgmax\" = \"9\"\n\
        [runtimes.a.limits]\npids = \"unlimited\"\ndisk_bytes = \"unlimited\"\n[runtimes.a.limits.ulimits]\nnofile = 20\n\
        [runtimes.b.limits]\ncapabilities = []\npids = 5\n[runtimes.b.limits.sysctls]\n\"net/core/somaxconn\" = 8\n";
    let sysctls = |somaxconn: &str| {
        let all = [("kernel.msgmax", "9"), ("net.core.somaxconn", somaxconn)];
        all.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    };
    let common = Limits {
        rlimits: vec![rlimit(Resource::Core, 0, 0), rlimit(Resource::Nofile, 10, 10)],
        sysctls: sysctls("7"),
        capabilities: Some(vec![0, 5]),
        pids: Some(100),
        disk_bytes: Some(1 << 30),
    };
    assert_eq!(limits(text, "not configured"), common);
    let nofile = vec![rlimit(Resource::Core, 0, 0), rlimit(Resource::Nofile, 20, 20)];
    assert_eq!(limits(text, "a"), Limits { rlimits: nofile, pids: None, disk_bytes: None, ..common.clone() });
    let b = Limits { capabilities: Some(Vec::new()), pids: Some(5), sysctls: sysctls("8"), ..common };
    assert_eq!(limits(text, "b"), b);
    assert_eq!(limits(text, ""), b, "pods that name no handler have the default one");
}

#[test]
fn what_cannot_work_is_named_with_file_key_value_and_what_can() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    for (text, told) in [
        ("[limits]\npids = 0", &["limits.pids", "0", "between 1 and 4194304"][..]),
        ("[limits]\npids = 99999999", &["limits.pids", "99999999", "4194304", "unlimited"]),
        ("[limits]\npids = -1", &["pids = -1", "line 2", "-1 is no limit", "from 0", "unlimited"]),
        ("[limits]\npids = \"many\"", &["\"many\" is no limit"]),
        ("[limits]\npids = 1.5", &["line 2", "a number, or \"unlimited\""]),
        ("[limits]\npid = 1", &["line 2", "pid", "pids"]),
        ("[limits]\ndisk_bytes = 4096", &["limits.disk_bytes", "4096", "1048576"]),
        ("[limits]\ndisk_bytes = -5", &["disk_bytes = -5", "-5 is no limit"]),
        ("[limits]\ndisk_interval_seconds = 0", &["limits.disk_interval_seconds", "0", "between 1 and 3600"]),
        (
            "[runtimes.x.limits]\ndisk_interval_seconds = 5",
            &["runtimes.x.limits.disk_interval_seconds", "one interval for all", "limits.disk_interval_seconds"],
        ),
        ("[limits]\ncapabilities = [\"CHOWN\", \"FLY\"]", &["limits.capabilities", "\"FLY\"", "NET_RAW"]),
        ("[limits]\ncapabilities = [\"ALL\"]", &["limits.capabilities", "\"ALL\""]),
        ("[limits.ulimits]\nnofile = \"2:1\"", &["limits.ulimits.nofile", "2", "above the hard limit 1"]),
        ("[limits.ulimits]\nnofile = 0", &["limits.ulimits.nofile", "at least 1"]),
        ("[limits.ulimits]\nnofile = \"unlimited\"", &["limits.ulimits.nofile", "unlimited", "fs.nr_open"]),
        ("[limits.ulimits]\ncore = -1", &["core = -1", "-1 is no limit"]),
        ("[limits.ulimits]\ncore = \"0:-1\"", &["\"-1\" is no limit"]),
        ("[limits.ulimits]\ncore = { soft = 1 }", &["hard"]),
        ("[limits.ulimits]\ncore = []", &["SOFT:HARD"]),
        ("[limits.ulimits]\nfiles = 1", &["files", "nofile"]),
        (
            "[limits.sysctls]\n\"kernel.panic\" = 1",
            &["limits.sysctls", "kernel.panic", "not kept per namespace", "kernel.shm*"],
        ),
        ("[limits.sysctls]\n\"net.core.somaxconn\" = \"\"", &["limits.sysctls", "net.core.somaxconn", "empty"]),
        ("[limits.sysctls]\nnet.core.somaxconn = 1", &["quotes"]),
        ("[runtimes.x.limits]\npids = 0", &["runtimes.x.limits.pids"]),
        ("[runtimes.x.limits.sysctls]\n\"vm.swappiness\" = 1", &["runtimes.x.limits.sysctls", "vm.swappiness"]),
    ] {
        std::fs::write(&file, text).unwrap();
        let error = Config::load(Some(&file), Overrides::default()).unwrap_err().to_string();
        for part in told.iter().copied().chain([file.to_str().unwrap()]) {
            assert!(error.contains(part), "{text:?}: {part:?} is not in {error}");
        }
    }
}

#[test]
fn what_is_dumped_reads_back_the_same() {
    let text = "[limits]\npids = \"unlimited\"\ncapabilities = [\"CHOWN\"]\n[limits.ulimits]\nnofile = 5\n\
                nproc = { soft = 1, hard = \"unlimited\" }\n[limits.sysctls]\n\"net.ipv4.tcp_rmem\" = \"1 2 3\"\n\
                [runtimes.x.limits]\npids = 7\n[runtimes.x.limits.sysctls]\n\"net.core.somaxconn\" = 9";
    let config = parse(text).unwrap();
    let dumped = config.to_string();
    assert_eq!(parse(&dumped).unwrap(), config, "{dumped}");
    for part in ["nproc = \"1:unlimited\"", "[runtimes.x.limits.sysctls]", "\"net.core.somaxconn\" = \"9\""] {
        assert!(dumped.contains(part), "{part}: {dumped}");
    }
}
