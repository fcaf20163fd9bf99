//! Ways to registries that lead over a proxy.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};
use tripod_image_service::Proxies;

use super::{
    fake::Fake,
    fixture::{Image, Tar},
    root::Root,
};

/// A proxy that leads everything to one address, and what it was asked.
struct Proxy {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Keeps the head of the first request of each connection.
    async fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let all = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (all, target) = (Arc::clone(&all), target.clone());
                connections.spawn(async move {
                    let mut client = BufReader::new(client);
                    let mut head = String::new();
                    while !head.ends_with("\r\n\r\n") {
                        if client.read_line(&mut head).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    all.lock().unwrap().push(head.clone());
                    let Ok(mut server) = TcpStream::connect(target).await else { return };
                    let begun = match head.starts_with("CONNECT ") {
                        true => client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await,
                        false => server.write_all(head.as_bytes()).await,
                    };
                    if begun.is_ok() {
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Self { address, asked, task }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn image() -> Image {
    Image::new(vec![Tar::new().file("a", "first").gzip()])
}

fn serve_as(root: &Root, host: &str, lines: &str) {
    let folder = root.folder.path().join("certs.d").join(host);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("hosts.toml"), lines).unwrap();
}

#[tokio::test]
async fn registries_are_reached_over_the_proxy() {
    let image = image();
    let fake = Fake::with(&image, |_| None).await;
    let proxy = Proxy::to(fake.address.clone()).await;
    let proxies =
        Proxies { http: format!("http://me:pass@{}", proxy.address), none: "direct.test".into(), ..Proxies::default() };
    let root = Root::with(|config| config.proxies = proxies).await;
    serve_as(&root, "registry.test", "server = \"http://registry.test\"\n");
    assert_eq!(root.pull("registry.test/x:v1").await.unwrap().id, image.id());
    let asked = proxy.asked();
    assert!(!asked.is_empty());
    for head in &asked {
        assert!(head.starts_with("GET http://registry.test/v2/x/") || head.starts_with("HEAD http://"), "{head}");
        assert!(head.to_lowercase().contains("proxy-authorization: basic bwu6cgfzcw=="), "{head}");
    }
    // What is on this host, or listed, is reached directly; the latter does not exist.
    root.pull(&fake.name()).await.unwrap();
    serve_as(&root, "direct.test", "server = \"http://direct.test.invalid\"\n");
    let none = Proxies { none: "test.invalid".into(), http: proxy.address.clone(), ..Proxies::default() };
    let other = Root::with(|config| {
        config.proxies = none;
        config.certs_dir = root.folder.path().join("certs.d");
    })
    .await;
    other.pull("direct.test/x:v1").await.unwrap_err();
    assert_eq!(proxy.asked(), asked);
}

#[tokio::test]
async fn tls_goes_through_the_proxy_as_a_tunnel() {
    let proxy = Proxy::to("127.0.0.1:1".into()).await;
    let proxies = Proxies { https: format!("http://me:pass@{}", proxy.address), ..Proxies::default() };
    let root = Root::with(|config| config.proxies = proxies).await;
    let error = root.pull("registry.test/x:v1").await.unwrap_err();
    let asked = proxy.asked();
    assert!(asked[0].starts_with("CONNECT registry.test:443 HTTP/1.1\r\n"), "{}", asked[0]);
    assert!(asked[0].to_lowercase().contains("proxy-authorization: basic bwu6cgfzcw=="), "{}", asked[0]);
    assert!(!error.to_string().contains("pass"), "{error}");
}

#[tokio::test]
async fn a_proxy_that_cannot_be_used_is_told() {
    let proxies = Proxies { https: "socks5://proxy:1080".into(), ..Proxies::default() };
    let root = Root::with(|config| config.proxies = proxies).await;
    let error = root.pull("registry.test/x:v1").await.unwrap_err();
    assert_eq!(error.kind(), tripod_engine::Kind::FailedPrecondition);
    assert!(error.to_string().contains("HTTPS_PROXY") && error.to_string().contains("socks5"), "{error}");
}
