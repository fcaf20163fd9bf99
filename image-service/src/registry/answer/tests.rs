use reqwest::header::HeaderValue;

use super::*;

#[test]
fn waits_as_long_as_it_is_asked_to_within_reason() {
    // 6 November 1994, 08:49:30 UTC.
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
    for (value, expected) in [
        ("0", Some(0)),
        (" 7 ", Some(7)),
        ("86400", Some(60)),
        ("99999999999999999999", None),
        ("-1", None),
        ("soon", None),
        ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7)),
        ("Sunday, 06-Nov-94 08:49:37 GMT", Some(7)),
        ("Sun Nov  6 08:49:37 1994", Some(7)),
        ("Sun, 06 Nov 1994 09:49:37 GMT", Some(60)),
        ("Sun, 06 Nov 1994 08:49:20 GMT", Some(0)),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static(value));
        assert_eq!(retry_after(&headers, now), expected.map(Duration::from_secs), "{value:?}");
    }
    assert_eq!(retry_after(&HeaderMap::new(), now), None);
}

#[test]
fn passes_on_what_a_registry_says() {
    let json = br#"{"errors":[{"code":"DENIED","message":"go\n away"},{"code":"X"}]}"#;
    assert_eq!(words(json, false), ", DENIED: go away; X: ");
    assert_eq!(words(b"Client sent an HTTP request to an HTTPS server.\n", true).len(), 49);
    assert_eq!(words(b"<html>", false), "");
    assert_eq!(words(b"", true), "");
    assert!(words(&[b'x'; 5000], true).len() < 310);
}
