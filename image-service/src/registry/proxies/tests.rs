use super::*;

#[test]
fn reads_the_environment() {
    let read = |pairs: &[(&str, &str)]| {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Proxies::read(move |wanted| pairs.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone()))
    };
    assert_eq!(read(&[]), Proxies::default());
    let lower = read(&[("http_proxy", "a:1"), ("HTTPS_PROXY", " https://b:2 "), ("no_proxy", "x,y")]);
    assert_eq!(lower, Proxies { http: "a:1".into(), https: "https://b:2".into(), none: "x,y".into() });
    let all = read(&[("ALL_PROXY", "http://all"), ("HTTP_PROXY", ""), ("HTTPS_PROXY", "http://s")]);
    assert_eq!((all.http.as_str(), all.https.as_str()), ("http://all", "http://s"));
}

#[test]
fn finds_who_is_reached_directly() {
    let none = "example.com, .below.org,*.star.net,10.0.0.0/8, 192.168.1.1,[fd00::1]:5000,with.port:5000,fd01::/16,Upper.Case,bad:port";
    let direct: Vec<Direct> = none.split(',').filter_map(Direct::parse).collect();
    for (url, expected) in [
        ("https://example.com", true),
        ("https://a.b.example.com:5000", true),
        ("https://notexample.com", false),
        ("https://below.org", false),
        ("https://a.below.org", true),
        ("https://a.star.net", true),
        ("https://star.net", false),
        ("http://10.1.2.3:5000", true),
        ("http://11.1.2.3", false),
        ("http://192.168.1.1", true),
        ("http://192.168.1.11", false),
        ("http://[fd00::1]:5000", true),
        ("http://[fd00::1]:5001", false),
        ("http://[fd01:2::1]", true),
        ("http://with.port:5000", true),
        ("https://with.port", false),
        ("https://upper.case", true),
        ("https://example.com.", true),
        ("http://localhost:5000", true),
        ("http://127.3.4.5", true),
        ("http://[::1]", true),
        ("https://registry.test", false),
    ] {
        assert_eq!(is_direct(&direct, &Url::parse(url).unwrap()), expected, "{url}");
    }
    assert!(is_direct(&[Direct::All], &Url::parse("https://anything").unwrap()));
}

#[test]
fn says_what_is_wrong_without_the_password() {
    for (value, word) in [("socks5://me:secret@proxy:1080", "socks5"), ("http://me:secret@:x", "not a proxy's address")]
    {
        let message = Proxies { https: value.into(), ..Proxies::default() }.rule().unwrap_err().to_string();
        assert!(message.contains("HTTPS_PROXY") && message.contains(word) && !message.contains("secret"), "{message}");
    }
    assert!(Proxies { none: "x".into(), ..Proxies::default() }.rule().unwrap().is_none());
    assert!(Proxies { http: "proxy:3128".into(), ..Proxies::default() }.rule().unwrap().is_some());
    assert!(!format!("{:?}", Proxies { http: "http://me:secret@p".into(), ..Proxies::default() }).contains("secret"));
}
