use proptest::prelude::*;

use super::*;

fn parse(file: &str, text: &str) -> Result<List, String> {
    List::parse(Path::new(file), text.as_bytes()).map_err(|error| error.to_string())
}

#[test]
fn lists_and_single_plugins_are_taken() {
    let list = parse(
        "/n/10-x.conflist",
        r#"{"cniVersion": "1.0.0", "cniVersions": ["0.4.0", "1.1.0", "9.0.0"], "name": "net", "plugins": [
            {"type": "bridge"}, {"type": "portmap", "capabilities": {"portMappings": true, "dns": false}}]}"#,
    )
    .expect("a list");
    assert_eq!((list.name.as_str(), list.version.as_str(), list.plugins.len()), ("net", "1.1.0", 2));
    assert!(list.wants("portMappings") && !list.wants("dns") && !list.wants("bandwidth"));

    let list = parse("/n/20-x.conf", r#"{"cniVersion": "0.3.1", "name": "one", "type": "macvlan", "master": "e0"}"#)
        .expect("a single plugin");
    assert_eq!(list.plugins.len(), 1);
    assert_eq!(kind(&list.plugins[0]), "macvlan");
    assert_eq!(list.plugins[0]["master"], "e0");
}

#[test]
fn what_is_wrong_is_named_with_its_file() {
    for (text, says) in [
        ("[]", "no JSON object"),
        ("{", "no JSON object"),
        (r#"{"cniVersion": "1.0.0"}"#, "\"name\" is missing"),
        (r#"{"cniVersion": "1.0.0", "name": "../x", "plugins": []}"#, "must be letters"),
        (r#"{"cniVersion": "1.0.0", "name": "x"}"#, "\"plugins\" is missing"),
        (r#"{"cniVersion": "1.0.0", "name": "x", "plugins": []}"#, "is empty"),
        (r#"{"cniVersion": "1.0.0", "name": "x", "plugins": [7]}"#, "plugin 0 is no object"),
        (r#"{"cniVersion": "1.0.0", "name": "x", "plugins": [{}]}"#, "no \"type\""),
        (r#"{"cniVersion": "1.0.0", "name": "x", "plugins": [{"type": "../../bin/sh"}]}"#, "no plain file name"),
        (r#"{"cniVersion": "1.0.0", "name": "x", "plugins": [{"type": "a", "capabilities": []}]}"#, "is no object"),
        (r#"{"name": "x", "plugins": [{"type": "a"}]}"#, "is missing"),
        (r#"{"cniVersion": "0.1.0", "name": "x", "plugins": [{"type": "a"}]}"#, "0.1.0 is none of"),
        (r#"{"cniVersion": 1, "name": "x", "plugins": [{"type": "a"}]}"#, "no text"),
    ] {
        let error = parse("/n/x.conflist", text).expect_err(text);
        assert!(error.contains(says) && error.contains("/n/x.conflist"), "{text}: {error}");
    }
}

#[test]
fn the_first_file_by_name_counts() {
    let dir = tempfile::tempdir().expect("a folder");
    assert_eq!(List::load(&dir.path().join("absent")).expect("no folder"), None);
    assert_eq!(List::load(dir.path()).expect("an empty folder"), None);
    let write = |name: &str, net: &str| {
        let text = format!(r#"{{"cniVersion": "1.0.0", "name": "{net}", "plugins": [{{"type": "bridge"}}]}}"#);
        fs::write(dir.path().join(name), text).expect("a file");
    };
    write("20-second.conflist", "second");
    write("00-readme.txt", "none");
    fs::create_dir(dir.path().join("05-dir.conf")).expect("a folder");
    write("10-first.conflist", "first");
    assert_eq!(List::load(dir.path()).expect("files").expect("a list").name, "first");
    fs::write(dir.path().join("01-broken.conf"), "{").expect("a file");
    List::load(dir.path()).expect_err("a broken one is not passed over");
}

proptest! {
    #[test]
    fn nothing_makes_the_parser_panic(text in ".{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse("/n/x.conflist", &text);
        let _ = List::parse(Path::new("/n/x.conf"), &bytes);
    }
}
