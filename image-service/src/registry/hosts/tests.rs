use super::*;

fn with(name: &str, text: &str, registry: &str) -> Result<Vec<Host>, HostsError> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join(name)).unwrap();
    std::fs::write(dir.path().join(name).join("hosts.toml"), text).unwrap();
    hosts(dir.path(), registry)
}

fn bases(hosts: &[Host]) -> Vec<&str> {
    hosts.iter().map(|host| host.base.as_str()).collect()
}

#[test]
fn without_a_file_there_is_the_registry_alone() {
    let dir = tempfile::tempdir().unwrap();
    for (registry, base) in [
        ("docker.io", "https://registry-1.docker.io/v2"),
        ("quay.io", "https://quay.io/v2"),
        ("localhost:5000", "http://localhost:5000/v2"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000/v2"),
        ("[::1]:5000", "http://[::1]:5000/v2"),
        ("localhost:443", "https://localhost/v2"),
        ("10.0.0.1:5000", "https://10.0.0.1:5000/v2"),
    ] {
        let hosts = hosts(dir.path(), registry).unwrap();
        assert_eq!(bases(&hosts), [base]);
        assert!(hosts[0].upstream && hosts[0].pull && hosts[0].resolve);
    }
}

#[test]
fn mirrors_keep_the_order_of_the_file() {
    let text = r#"
        server = "https://registry.example"
        [host."https://z.example"]
        capabilities = ["pull", "resolve"]
        [host."http://a.example:5000/proxy/v2"]
        capabilities = ["pull"]
        override_path = true
        skip_verify = true
        [host."https://m.example/sub"]
        ca = "ca.pem"
        dial_timeout = "1.5s"
        client = [["c.pem", "k.pem"], ["both.pem", ""]]
        [host."https://m.example/sub".header]
        x-one = "1"
        x-many = ["2", "3"]
    "#;
    let hosts = with("registry.example", text, "registry.example").unwrap();
    assert_eq!(
        bases(&hosts),
        [
            "https://z.example/v2",
            "http://a.example:5000/proxy/v2",
            "https://m.example/sub/v2",
            "https://registry.example/v2"
        ]
    );
    assert!(!hosts[1].resolve && hosts[1].pull && hosts[1].skip_verify);
    assert_eq!(hosts[2].dial_timeout, Some(std::time::Duration::from_millis(1500)));
    assert_eq!(hosts[3].dial_timeout, None);
    assert!(hosts[2].ca[0].ends_with("registry.example/ca.pem"));
    assert!(
        hosts[2].client[0].1.as_ref().unwrap().ends_with("registry.example/k.pem") && hosts[2].client[1].1.is_none()
    );
    assert_eq!(hosts[2].headers.get_all("x-many").iter().count(), 2);
    assert_eq!(hosts.iter().map(|host| host.upstream).collect::<Vec<_>>(), [false, false, false, true]);
}

#[test]
fn a_server_that_is_listed_as_a_mirror_too_is_still_the_server() {
    let text = "server = \"http://inner:5000\"\n[host.\"http://inner:5000\"]\n[host.\"http://mirror:5000\"]\n";
    let hosts = with("registry.example", text, "registry.example").unwrap();
    assert_eq!(hosts.iter().map(|host| host.upstream).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(bases(&hosts)[0], "http://inner:5000/v2");
}

#[test]
fn a_default_serves_every_registry_but_gets_no_credentials() {
    let hosts = with("_default", "server = \"http://mirror:5000\"\n", "registry.k8s.io").unwrap();
    assert_eq!(bases(&hosts), ["http://mirror:5000/v2"]);
    assert!(!hosts[0].upstream);
    let hosts = with("_default", "[host.\"http://mirror:5000\"]\n", "registry.k8s.io").unwrap();
    assert_eq!(bases(&hosts), ["http://mirror:5000/v2", "https://registry.k8s.io/v2"]);
    let hosts = with("localhost_5000_", "server = \"https://localhost:5000\"", "localhost:5000").unwrap();
    assert_eq!(bases(&hosts), ["https://localhost:5000/v2"]);
    assert!(hosts[0].upstream);
}

#[test]
fn says_what_is_wrong_and_where() {
    for (text, expected) in [
        ("server = 1", "server is not a string"),
        ("host = 1", "host is not a table"),
        ("[host.\"ftp://x\"]", "not an HTTP"),
        ("[host.\"https://user:pass@x\"]", "credentials"),
        ("[host.\"https://x\"]\nca = 3", "https://x"),
        ("[host.\"https://x\".header]\n\"a b\" = \"c\"", "not the name of a header"),
        ("capabilities = [\"push\"]", "capability"),
        ("[host.\"https://x\"]\ncapabilities = [\"pul\"]", "\"pul\" is not a capability (pull, resolve, push)"),
        ("[host.\"https://x\"]\nskip-verify = true", "https://x: there is no setting \"skip-verify\""),
        ("servers = \"https://x\"", "there is no setting \"servers\""),
        ("[hosts.\"https://x\"]", "there is no setting \"hosts\""),
        ("[host]\nx = 3", "not a table"),
        ("[host.\"https://x\"]\ndial_timeout = \"soon\"", "not a length of time"),
        ("[host.\"https://x\"]\ndial_timeout = 3", "https://x"),
        ("[", "hosts.toml"),
    ] {
        let message = with("r.example", text, "r.example").unwrap_err().to_string();
        assert!(message.contains(expected), "{text}: {message}");
    }
}

#[test]
fn takes_certificates_in_dockers_layout() {
    let dir = tempfile::tempdir().unwrap();
    let host = dir.path().join("r.example");
    std::fs::create_dir(&host).unwrap();
    for name in ["ca.crt", "c.cert", "c.key"] {
        std::fs::write(host.join(name), "").unwrap();
    }
    let hosts = hosts(dir.path(), "r.example").unwrap();
    assert_eq!((hosts[0].ca.len(), hosts[0].client.len()), (1, 1));
    assert!(hosts[0].upstream);
}
