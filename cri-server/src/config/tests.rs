use std::{collections::BTreeSet, path::Path};

use super::{Config, ConfigError, LogFormat, Overrides, RuntimeConfig, RuntimeKind, dump};

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("/etc/tripod/config.toml"), text)
}

#[test]
fn an_empty_file_is_the_defaults() {
    assert_eq!(parse("").unwrap(), Config::default());
}

#[test]
fn what_is_dumped_reads_back_the_same() {
    let mut config = Config::default();
    config.image.pinned.push("registry.example/pause:*".into());
    config.metrics.address = Some("127.0.0.1:9323".parse().unwrap());
    let runc = RuntimeConfig { kind: RuntimeKind::Oci, path: "/usr/sbin/runc".into(), ..RuntimeConfig::default() };
    config.runtimes = [("runc".to_owned(), runc), ("plain".to_owned(), RuntimeConfig::default())].into();
    config.default_runtime = "runc".into();
    for config in [Config::default(), config] {
        let text = config.to_string();
        assert_eq!(parse(&text).unwrap(), config, "{text}");
    }
}

#[test]
fn every_setting_is_explained_and_nothing_else() {
    fn names(path: &str, table: &toml::Table, into: &mut BTreeSet<String>) {
        for (key, value) in table {
            let name = dump::join(path, key);
            if let toml::Value::Table(inner) = value {
                names(&name, inner, into);
            }
            into.insert(name);
        }
    }
    let mut there = BTreeSet::new();
    names("", &toml::Table::try_from(Config::default()).unwrap(), &mut there);
    there.extend(dump::ABSENT.iter().map(|(name, _)| (*name).to_owned()));
    let explained: BTreeSet<String> = dump::ABOUT.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(there, explained);
}

#[test]
fn absent_settings_are_shown_as_comments_that_work() {
    let text = Config::default().to_string();
    for (name, example) in dump::ABSENT {
        let key = name.rsplit('.').next().unwrap();
        let line = format!("{key} = {example}");
        assert!(text.contains(&format!("# {line}")), "{text}");
        parse(&text.replace(&format!("# {line}"), &line)).unwrap();
    }
}

#[test]
fn an_unknown_setting_is_named_with_file_and_line() {
    let error = parse("root = \"/a\"\n\n[image]\nparalel_layers = 3\n").unwrap_err().to_string();
    for part in ["/etc/tripod/config.toml", "line 4", "paralel_layers", "tripod config dump"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let error = parse("[imagee]\n").unwrap_err().to_string();
    assert!(error.contains("imagee") && error.contains("line 1"), "{error}");
}

#[test]
fn a_wrong_type_is_named_with_its_line() {
    let error = parse("[log]\nlevel = 3\n").unwrap_err().to_string();
    assert!(error.contains("line 2"), "{error}");
}

#[test]
fn flags_win_and_the_socket_follows_the_state() {
    let flags = Overrides {
        root: Some("/r".into()),
        state: Some("/s".into()),
        log_format: Some(LogFormat::Json),
        ..Overrides::default()
    };
    let config = parse("root = \"/file\"").unwrap().with(flags.clone());
    assert_eq!((config.root.as_path(), config.socket.as_path()), (Path::new("/r"), Path::new("/s/tripod.sock")));
    assert_eq!(config.log.format, LogFormat::Json);
    let config = parse("socket = \"/x.sock\"").unwrap().with(flags);
    assert_eq!(config.socket, Path::new("/x.sock"));
}

#[test]
fn values_that_cannot_work_are_refused() {
    for (text, setting) in [
        ("root = \"rel\"", "root"),
        ("hooks_dir = \"rel\"", "hooks_dir"),
        ("[image]\nparallel_layers = 0", "image.parallel_layers"),
        ("[image]\npolicy_file = \"rel\"", "image.policy_file"),
        ("[image.verifiers]\nbin_dir = \"rel\"", "image.verifiers.bin_dir"),
        ("[image.lookaside]\n\"a.example\" = \"ftp://b\"", "image.lookaside"),
        ("[image.ranges]\nconnections = 0", "image.ranges.connections"),
        ("[image.ranges]\npiece_bytes = 1", "image.ranges.piece_bytes"),
        ("[log]\nlevel = \"tripod=loudly\"", "log.level"),
    ] {
        let error = parse(text).unwrap().checked().unwrap_err().to_string();
        assert!(error.contains(setting), "{error}");
    }
}

#[test]
fn runtimes_that_cannot_work_are_refused() {
    let refused = |text: &str| parse(text).unwrap().checked().unwrap_err().to_string();
    for (text, told) in [
        ("default_runtime = \"kata\"", "kata"),
        ("[runtimes.Kata]", "Kata"),
        ("[runtimes.x]\ntype = \"oci\"", "absolute"),
        ("[runtimes.x]\ntype = \"oci\"\npath = \"runc\"", "runc"),
        ("[runtimes.x]\npath = \"/usr/sbin/runc\"", "type"),
        ("[runtimes.x]\ntimeout_seconds = 56", "55"),
    ] {
        assert!(refused(text).contains(told), "{text}: {}", refused(text));
    }
    assert!(parse("[runtimes.x]\ntype = \"vm\"").is_err());
    assert!(parse("[runtimes.x]\nbinary = \"/usr/sbin/runc\"").is_err());
    parse("default_runtime = \"x\"\n[runtimes.x]\ntype = \"oci\"\npath = \"/r\"").unwrap().checked().unwrap();
}

#[test]
fn an_error_tells_the_file_or_the_flag() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    std::fs::write(&file, "[runtimes.x]\ntimeout_seconds = 56").unwrap();
    let refused = |flags: Overrides| Config::load(Some(&file), flags).unwrap_err().to_string();
    let error = refused(Overrides::default());
    for part in [file.to_str().unwrap(), "runtimes.x.timeout_seconds", "56", "between 1 and 55"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let error = refused(Overrides { root: Some("rel".into()), ..Overrides::default() });
    assert!(error.contains("--root") && error.contains("rel"), "{error}");
}

#[test]
fn a_named_file_must_be_there() {
    let error = Config::load(Some(Path::new("/nonexistent/tripod.toml")), Overrides::default()).unwrap_err();
    assert!(matches!(error, ConfigError::Read { .. }));
}
