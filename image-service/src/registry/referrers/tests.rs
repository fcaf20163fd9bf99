use reqwest::header::HeaderValue;

use super::*;

fn next_of(links: &[&str]) -> Option<String> {
    let mut headers = HeaderMap::new();
    for link in links {
        headers.append(LINK, HeaderValue::from_str(link).unwrap());
    }
    let from = "https://a.example/v2/app/referrers/x?artifactType=t".parse().unwrap();
    next(&headers, &from).map(Into::into)
}

#[test]
fn where_a_list_goes_on() {
    let two = "https://a.example/v2/app/referrers/x?last=2";
    assert_eq!(next_of(&[r#"</v2/app/referrers/x?last=2>; rel="next""#]).as_deref(), Some(two));
    assert_eq!(next_of(&["<?last=2>;rel=next"]).as_deref(), Some(two));
    assert_eq!(next_of(&[r#"<?last=1>; rel="first", <?last=2>; title="x"; rel="NEXT""#]).as_deref(), Some(two));
    assert_eq!(next_of(&["<?last=1>; rel=prev", "<?last=2>; rel=next"]).as_deref(), Some(two));
    let comma = "https://a.example/v2/app/referrers/x?last=1,2";
    assert_eq!(next_of(&["<?last=1,2>; rel=next"]).as_deref(), Some(comma));
    assert_eq!(next_of(&["<https://b.example/>; rel=next"]).as_deref(), Some("https://b.example/"));
    for none in
        ["", "<?last=2>", "<?last=2>; rel=prev", "?last=2; rel=next", "<?last=2; rel=next", "<http://[>; rel=next"]
    {
        assert_eq!(next_of(&[none]), None, "{none}");
    }
}

#[test]
fn what_is_wanted_of_a_list() {
    let wanted = Wanted { artifact_type: "t", is: |entry| entry.artifact_type == "t", max: 2 };
    let digest = |letter: &str| format!("sha256:{}", letter.repeat(64));
    let entry = |digest: &str, kind: &str| {
        format!(r#"{{"mediaType": "m", "digest": "{digest}", "size": 1, "artifactType": {kind}, "more": {{}}}}"#)
    };
    let taken = |entries: &[String]| {
        let mut found = Vec::new();
        let list = format!(r#"{{"manifests": [{}]}}"#, entries.join(", "));
        wanted
            .take(list.as_bytes(), &mut found)
            .map(|()| found.into_iter().map(|entry| entry.digest.to_string()).collect::<Vec<_>>())
    };
    let (a, b, c) = (digest("a"), digest("b"), digest("c"));
    let kept = taken(&[entry("md5:00", "\"t\""), entry(&a, "null"), entry(&b, "\"t\""), entry(&b, "\"t\"")]).unwrap();
    assert_eq!(kept, std::slice::from_ref(&b));
    let of_kind = |digest: &String| entry(digest, "\"t\"");
    assert_eq!(taken(&[of_kind(&a), of_kind(&b), of_kind(&c)]).unwrap(), [a, b], "no more than the limit");
    assert!(taken(&[]).unwrap().is_empty());
    for list in ["", "[", "{\"manifests\": {}}", "{\"manifests\": [{}]}", "<html>"] {
        assert!(wanted.take(list.as_bytes(), &mut Vec::new()).is_err(), "{list}");
    }
    let mut none = Vec::new();
    wanted.take(b"{}", &mut none).unwrap();
    wanted.take(br#"{"manifests": null}"#, &mut none).unwrap();
    assert!(none.is_empty());
}
