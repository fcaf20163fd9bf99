use super::*;

struct Plugins(tempfile::TempDir);

impl Plugins {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    /// A plugin that is a shell script; `$DIR` is the folder it lies in.
    fn write(&self, name: &str, script: &str) {
        let path = self.0.path().join(name);
        crate::script::write(&path, &format!("#!/bin/sh\nDIR={}\n{script}\n", self.0.path().display()));
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.path().join(name)).unwrap_or_default()
    }

    fn runtime(&self, timeout: u64) -> Cni {
        Cni::new(&NetworkConfig {
            cni_conf_dir: self.0.path().join("net.d"),
            cni_bin_dirs: vec!["/nonexistent".into(), self.0.path().to_owned()],
            cni_add_timeout: timeout,
            cni_del_timeout: timeout,
            cni_status_timeout: timeout,
            ..NetworkConfig::default()
        })
    }

    fn configure(&self, text: &str) {
        let dir = self.0.path().join("net.d");
        fs::create_dir_all(&dir).expect("a folder");
        fs::write(dir.join("10-net.conflist"), text).expect("a configuration");
    }
}

fn list(version: &str, plugins: &str) -> List {
    let text = format!(r#"{{"cniVersion": "{version}", "name": "net", "plugins": {plugins}}}"#);
    List::parse(Path::new("/n/x.conflist"), text.as_bytes()).expect("a list")
}

fn sandbox<'a>(runtime: &'a Map<String, Value>) -> Sandbox<'a> {
    Sandbox { id: "pod1", netns: Some(Path::new("/run/netns/x")), args: "IgnoreUnknown=1", runtime }
}

const TWO: &str = r#"[{"type": "one", "mine": 7}, {"type": "two", "capabilities": {"portMappings": true}}]"#;

#[test]
fn plugins_are_chained_and_undone_in_reverse() {
    let plugins = Plugins::new();
    let script = |name: &str| {
        format!(
            "cat > $DIR/{name}.$CNI_COMMAND; echo {name}.$CNI_COMMAND >> $DIR/calls; env | sort > $DIR/env\n\
                 echo '{{\"cniVersion\": \"1.0.0\", \"ips\": [{{\"address\": \"10.0.0.2/24\"}}], \"by\": \"{name}\"}}'"
        )
    };
    plugins.write("one", &script("one"));
    plugins.write("two", &script("two"));
    let (cni, list) = (plugins.runtime(10), list("1.0.0", TWO));
    let runtime = json!({"portMappings": [{"hostPort": 1}], "dns": {}}).as_object().cloned().expect("an object");
    let result = cni.add(&list, &sandbox(&runtime)).expect("a result");
    assert_eq!(result["by"], "two");
    let first: Value = serde_json::from_str(&plugins.read("one.ADD")).expect("input");
    assert_eq!(first, json!({"type": "one", "mine": 7, "cniVersion": "1.0.0", "name": "net"}));
    let second: Value = serde_json::from_str(&plugins.read("two.ADD")).expect("input");
    assert_eq!(second["prevResult"]["by"], "one");
    assert_eq!(second["runtimeConfig"], json!({"portMappings": [{"hostPort": 1}]}), "only what it declared");
    assert!(second.get("capabilities").is_none());

    cni.del(&list, &sandbox(&runtime), Some(&result)).expect("removed");
    assert_eq!(plugins.read("calls"), "one.ADD\ntwo.ADD\ntwo.DEL\none.DEL\n");
    let input: Value = serde_json::from_str(&plugins.read("one.DEL")).expect("input");
    assert_eq!(input["prevResult"]["by"], "two");
    let environment = plugins.read("env");
    let names: Vec<&str> = environment.lines().filter_map(|line| line.split('=').next()).collect();
    // The shell adds PWD (and some shells OLDPWD, _ and SHLVL) itself.
    let ours = ["CNI_ARGS", "CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_PATH", "PATH"];
    let names: Vec<&str> = names.into_iter().filter(|name| !["PWD", "OLDPWD", "_", "SHLVL"].contains(name)).collect();
    assert_eq!(names, ours);
}

#[test]
fn failures_name_the_plugin_and_what_it_said() {
    let plugins = Plugins::new();
    plugins.write("one", r#"echo '{"code": 11, "msg": "no addresses", "details": "pool x"}'; exit 1"#);
    let cni = plugins.runtime(10);
    let none = Map::new();
    let add = |cni: &Cni| cni.add(&list("1.0.0", TWO), &sandbox(&none)).expect_err("a failure").to_string();
    assert_eq!(add(&cni), "CNI plugin one failed to ADD: code 11: no addresses: pool x");
    plugins.write("one", "echo 'panic: oh\tno' >&2; exit 2");
    assert_eq!(add(&cni), "CNI plugin one failed to ADD: panic: oh no");
    plugins.write("one", "exit 2");
    assert!(add(&cni).contains("gave no reason"));
    plugins.write("one", "echo hello");
    assert!(add(&cni).contains("what is no result: hello"));
    plugins.write("one", "head -c 3000000 /dev/zero");
    assert!(add(&cni).contains("far too long"));
    let error = cni.add(&list("1.0.0", r#"[{"type": "absent"}]"#), &sandbox(&none)).expect_err("no such plugin");
    assert!(error.to_string().contains("absent is in none of"), "{error}");
}

#[test]
fn a_plugin_that_hangs_is_killed_with_its_children() {
    let plugins = Plugins::new();
    plugins.write("one", "sleep 60 & echo $! > $DIR/child; sleep 60");
    let started = std::time::Instant::now();
    let none = Map::new();
    let error = plugins.runtime(1).add(&list("1.0.0", TWO), &sandbox(&none)).expect_err("a time-out");
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    assert_gone(&plugins);
}

#[test]
fn children_that_hold_the_output_open_do_not_hang_us() {
    let plugins = Plugins::new();
    plugins.write("one", "sleep 60 & echo $! > $DIR/child; echo '{}'");
    plugins.write("two", "echo '{\"done\": 1}'");
    let started = std::time::Instant::now();
    let none = Map::new();
    let result = plugins.runtime(20).add(&list("1.0.0", TWO), &sandbox(&none)).expect("a result");
    assert_eq!(result, json!({"done": 1}));
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    assert_gone(&plugins);
}

/// The process whose number is in `child` is gone, or dead and waiting for its new parent.
fn assert_gone(plugins: &Plugins) {
    let child = plugins.read("child");
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let status = fs::read_to_string(format!("/proc/{}/status", child.trim())).unwrap_or_default();
        if status.is_empty() || status.contains("State:\tZ") || status.contains("State:\tX") {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "process {child} runs on: {status}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn del_goes_on_after_an_error() {
    let plugins = Plugins::new();
    plugins.write("one", "echo one >> $DIR/calls; cat > $DIR/input");
    plugins.write("two", "echo two >> $DIR/calls; exit 1");
    let none = Map::new();
    let old = list("0.3.1", TWO);
    let errors = plugins.runtime(10).del(&old, &sandbox(&none), Some(&json!({}))).expect_err("one fails");
    assert_eq!(errors.len(), 1);
    assert_eq!(plugins.read("calls"), "two\none\n");
    assert!(!plugins.read("input").contains("prevResult"), "0.3.1 knows none at DEL");
}

#[test]
fn the_configuration_is_read_again_when_it_changes() {
    let plugins = Plugins::new();
    let cni = plugins.runtime(30);
    assert_eq!(cni.refresh(), View::Absent);
    plugins.configure(r#"{"cniVersion": "1.1.0", "name": "net", "plugins": [{"type": "one"}]}"#);
    assert!(matches!(cni.refresh(), View::Loaded(list) if list.name == "net"));
    plugins.configure("{");
    assert!(matches!(cni.refresh(), View::Broken(why) if why.contains("10-net.conflist")));
    fs::remove_file(plugins.0.path().join("net.d/10-net.conflist")).expect("removed");
    assert_eq!(cni.refresh(), View::Absent);
}

#[test]
fn plugins_are_asked_for_their_state() {
    let plugins = Plugins::new();
    let (cni, slow) = (plugins.runtime(30), plugins.runtime(1));
    plugins.configure(r#"{"cniVersion": "1.1.0", "name": "net", "plugins": [{"type": "one"}]}"#);
    cni.refresh();
    let unready = || {
        cni.check();
        cni.unready()
    };
    assert!(unready().expect("no plugin").contains("is in none of"));
    plugins.write("one", r#"echo '{"code": 50, "msg": "pool not loaded"}'; exit 1"#);
    assert!(unready().expect("not ready").contains("pool not loaded"));
    plugins.write("one", r#"echo '{"code": 4, "msg": "unknown CNI_COMMAND: STATUS"}'; exit 1"#);
    assert_eq!(unready(), None, "an older plugin is not unready");
    plugins.write("one", "sleep 30");
    slow.refresh();
    slow.check();
    assert!(slow.unready().expect("hangs").contains("did not finish STATUS"));
    plugins.write("one", "exit 0");
    assert_eq!(unready(), None);
}

#[test]
fn both_sides_agree_on_the_newest_version() {
    let plugins = Plugins::new();
    let cni = plugins.runtime(30);
    let configure = |versions: &str| {
        plugins.configure(&format!(r#"{{"cniVersions": {versions}, "name": "net", "plugins": [{{"type": "one"}}]}}"#));
        cni.refresh();
        cni.check();
        match cni.view() {
            View::Loaded(list) => list.version.clone(),
            view => panic!("{view:?}"),
        }
    };
    plugins.write("one", r#"echo '{"cniVersion": "1.0.0", "supportedVersions": ["0.4.0", "1.0.0"]}'"#);
    assert_eq!(configure(r#"["0.4.0", "1.0.0", "1.1.0"]"#), "1.0.0");
    assert_eq!(cni.unready(), None);
    cni.refresh();
    cni.check();
    assert!(matches!(cni.view(), View::Loaded(list) if list.version == "1.0.0"), "it stays");
    configure(r#"["1.1.0"]"#);
    let why = cni.unready().expect("no common version");
    assert!(why.contains("speaks 0.4.0, 1.0.0") && why.contains("10-net.conflist"), "{why}");
}

#[test]
fn addresses_of_a_result() {
    let result = json!({
        "interfaces": [{"name": "cni0"}, {"name": "eth0", "sandbox": "/run/netns/x"}],
        "ips": [
            {"address": "10.1.0.5/24", "interface": 1},
            {"address": "10.1.0.1/24", "interface": 0},
            {"address": "fd00::5/64"},
            {"address": "10.1.0.5/24", "interface": 1},
            {"address": "nonsense"},
            {"address": "10.1.0.9/24", "interface": 99},
        ],
    });
    let found: Vec<String> = addresses(&result).iter().map(ToString::to_string).collect();
    assert_eq!(found, ["10.1.0.5/24", "fd00::5/64"]);
    assert!(addresses(&json!({"ips": 7})).is_empty());
}
