use hyper::{HeaderMap, Method, StatusCode, header::HeaderName};
use proptest::prelude::*;

use super::{Encoding, Offer, Transport, Version, command_protocol};

fn headers(list: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in list {
        headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    headers
}

fn spdy(protocols: &[&str]) -> Offer {
    let mut list = vec![("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
    list.extend(protocols.iter().map(|name| ("x-stream-protocol-version", *name)));
    Offer::read(&Method::POST, &headers(&list)).unwrap()
}

fn websocket(protocols: &str) -> Offer {
    let list = [
        ("connection", "keep-alive, upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", protocols),
    ];
    Offer::read(&Method::GET, &headers(&list)).unwrap()
}

#[test]
fn names_of_protocols() {
    for (name, version, encoding) in [
        ("v5.channel.k8s.io", Version::V5, Encoding::Binary),
        ("v4.base64.channel.k8s.io", Version::V4, Encoding::Base64),
        ("channel.k8s.io", Version::V1, Encoding::Binary),
        ("base64.channel.k8s.io", Version::V1, Encoding::Base64),
    ] {
        assert_eq!(command_protocol(name), Some((version, encoding)));
    }
    for name in ["", "v1.channel.k8s.io", "v6.channel.k8s.io", "xchannel.k8s.io", "base64.v4.channel.k8s.io", "v4"] {
        assert_eq!(command_protocol(name), None, "{name}");
    }
}

#[test]
fn the_clients_order_counts() {
    let agreed = spdy(&["v9.channel.k8s.io, v3.channel.k8s.io", "v4.channel.k8s.io"]).command().unwrap();
    assert_eq!((agreed.transport, agreed.version), (Transport::Spdy, Version::V3));
    let agreed = spdy(&["base64.channel.k8s.io", "v2.channel.k8s.io"]).command().unwrap();
    assert_eq!(agreed.version, Version::V2);
    let agreed = websocket("v4.base64.channel.k8s.io, v5.channel.k8s.io").command().unwrap();
    assert_eq!((agreed.transport, agreed.version), (Transport::WebSocket(Encoding::Base64), Version::V4));
    let agreed = websocket("SPDY/3.1+portforward.k8s.io, v4.channel.k8s.io").forward(true).unwrap();
    assert_eq!(agreed.transport, Transport::Tunnel);
}

#[test]
fn clients_of_the_first_days_name_no_protocol() {
    let agreed = spdy(&[]).command().unwrap();
    assert_eq!(agreed.version, Version::V1);
    assert!(agreed.headers.iter().all(|(name, _)| name != "x-stream-protocol-version"));
    assert_eq!(spdy(&[]).forward(false).unwrap().transport, Transport::Spdy);
    assert_eq!(websocket("").command().unwrap().version, Version::V1);
}

#[test]
fn channels_need_named_ports() {
    assert_eq!(websocket("v4.channel.k8s.io").forward(false).unwrap_err().status, StatusCode::BAD_REQUEST);
    assert!(websocket("v4.channel.k8s.io").forward(true).is_ok());
    assert!(websocket("SPDY/3.1+portforward.k8s.io").forward(false).is_ok());
    assert!(spdy(&["portforward.k8s.io"]).forward(false).is_ok());
}

#[test]
fn one_kind_of_session_is_not_the_other() {
    for offer in [spdy(&["portforward.k8s.io"]), websocket("SPDY/3.1+portforward.k8s.io")] {
        assert_eq!(offer.command().unwrap_err().status, StatusCode::FORBIDDEN);
    }
    for offer in [spdy(&["v4.channel.k8s.io"]), websocket("v5.channel.k8s.io")] {
        assert_eq!(offer.forward(true).unwrap_err().status, StatusCode::FORBIDDEN);
    }
}

proptest! {
    #[test]
    fn any_headers_are_agreed_on_or_refused(names: Vec<String>, values in prop::collection::vec("[ -~]{0,40}", 0..6)) {
        let names = ["connection", "upgrade", "x-stream-protocol-version", "sec-websocket-protocol"]
            .into_iter()
            .chain(names.iter().map(String::as_str));
        let mut all = HeaderMap::new();
        for (name, value) in names.zip(&values) {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse()) {
                all.append(name, value);
            }
        }
        if let Ok(offer) = Offer::read(&Method::GET, &all) {
            let _ = offer.clone().command();
            let _ = offer.forward(true);
        }
    }
}
