use std::net::SocketAddr;

use super::base_url;
use crate::Config;

async fn base(url: &str, address: &str) -> Option<String> {
    let config = Config { base_url: url.into(), ..Config::default() };
    base_url(&config, address.parse::<SocketAddr>().unwrap()).await.ok()
}

#[tokio::test]
async fn the_configured_base_wins() {
    assert_eq!(base("https://a.example/x/", "127.0.0.1:1").await.as_deref(), Some("https://a.example/x"));
    assert_eq!(base("a.example", "127.0.0.1:1").await, None);
    assert_eq!(base("https://", "127.0.0.1:1").await, None);
}

#[tokio::test]
async fn the_listener_is_named_as_clients_reach_it() {
    assert_eq!(base("", "127.0.0.1:1").await.as_deref(), Some("http://127.0.0.1:1"));
    assert_eq!(base("", "[::1]:1").await.as_deref(), Some("http://[::1]:1"));
    for all in ["0.0.0.0:1", "[::]:1"] {
        let url = base("", all).await.unwrap();
        assert!(!url.contains("0.0.0.0") && !url.contains("[::]"), "{url}");
    }
}
