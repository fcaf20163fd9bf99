use super::*;

#[test]
fn reads_lengths_of_time() {
    for (text, expected) in [
        ("3s", Some(3000)),
        ("500ms", Some(500)),
        ("1m30s", Some(90_000)),
        ("1.5s", Some(1500)),
        ("1h", Some(3_600_000)),
        (" 2s ", Some(2000)),
        ("", None),
        ("3", None),
        ("s", None),
        ("3 s", None),
        ("3d", None),
        ("-3s", None),
        ("1.2.3s", None),
    ] {
        assert_eq!(duration(text), expected.map(Duration::from_millis), "{text:?}");
    }
}
