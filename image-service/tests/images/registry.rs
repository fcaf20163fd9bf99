//! Debian's registry on a free port of the loopback interface, with a folder of its own.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// A registry; it ends with this value.
pub struct Registry {
    child: Child,
    pub address: String,
    folder: TempDir,
}

impl Registry {
    #[allow(dead_code, reason = "the measuring tool keeps its folder")]
    pub async fn start() -> Self {
        Self::start_in(None).await
    }

    /// Keeps its images in a folder that outlives it.
    pub async fn start_in(data: Option<&Path>) -> Self {
        for _ in 0..5 {
            if let Some(registry) = Self::try_start(data).await {
                return registry;
            }
        }
        panic!("docker-registry does not start: is Debian's package docker-registry installed?");
    }

    async fn try_start(data: Option<&Path>) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let config = folder.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp: {{addr: {address}}}\n",
            data.map_or_else(|| folder.path().join("data"), Path::to_owned).display()
        );
        std::fs::write(&config, text).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("docker-registry cannot be run: install Debian's package docker-registry");
        let mut registry = Self { child, address, folder };
        let deadline = Instant::now() + Duration::from_secs(20);
        let client = crate::fixture::client();
        while Instant::now() < deadline {
            if registry.child.try_wait().unwrap().is_some() {
                // Somebody else was quicker with the port.
                return None;
            }
            let answer = client.get(format!("http://{}/v2/", registry.address)).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Some(registry);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!(
            "docker-registry does not answer: {}",
            std::fs::read_to_string(registry.folder.path().join("log")).unwrap()
        );
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
