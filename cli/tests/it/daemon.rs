//! A daemon that knows one pod with one container, and plays a part that a test writes when a client comes to a stream.

use std::{
    collections::HashMap,
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex},
};

use futures::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener},
};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{Request, Response as Upgrade},
        http::HeaderValue,
    },
};
use tonic::{Request as Call, Response, Status};
use tripod_cri_api::v1::{
    AttachRequest, AttachResponse, Container, ContainerMetadata, ContainerState, ContainerStatus,
    ContainerStatusRequest, ContainerStatusResponse, ExecRequest, ExecResponse, ListContainersRequest,
    ListContainersResponse, ListPodSandboxRequest, ListPodSandboxResponse, PodSandbox, PodSandboxMetadata,
    PortForwardRequest, PortForwardResponse, VersionRequest, VersionResponse,
    runtime_service_server::{RuntimeService, RuntimeServiceServer},
};

/// The end of a stream that a test plays.
pub(crate) type Socket = WebSocketStream<TcpStream>;

type Part = Arc<dyn Fn(TcpStream) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// What the daemon was asked, and what it says of its container.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) exec: Option<ExecRequest>,
    pub(crate) attach: Option<AttachRequest>,
    pub(crate) forwards: usize,
    pub(crate) exit_code: Option<i32>,
    pub(crate) terminal: bool,
    /// Path of its log.
    pub(crate) log: String,
    /// Whether it answers as a daemon that has ended.
    pub(crate) silent: bool,
}

/// The daemon, for as long as this lives.
pub(crate) struct Daemon {
    folder: tempfile::TempDir,
    pub(crate) state: Arc<Mutex<State>>,
}

#[derive(Clone)]
struct Service {
    url: String,
    state: Arc<Mutex<State>>,
}

impl Daemon {
    /// Starts one that plays a part for each WebSocket.
    pub(crate) async fn start<F>(part: impl Fn(Socket) -> F + Send + Sync + Clone + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::start_raw("http", move |stream| {
            let part = part.clone();
            async move { part(accept(stream).await).await }
        })
        .await
    }

    /// Starts one that plays a part for each connection to its streams.
    pub(crate) async fn start_raw<F>(scheme: &str, part: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{scheme}://localhost:{}/stream/token", listener.local_addr().unwrap().port());
        let part: Part = Arc::new(move |stream| Box::pin(part(stream)));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(part(stream));
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let service = Service { url, state: Arc::clone(&state) };
        let sockets = UnixListenerStream::new(UnixListener::bind(folder.path().join("cri.sock")).unwrap());
        let server = tonic::transport::Server::builder().add_service(RuntimeServiceServer::new(service));
        tokio::spawn(server.serve_with_incoming(sockets));
        Self { folder, state }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("cri.sock")
    }
}

/// Opens a WebSocket over a connection.
pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> WebSocketStream<S> {
    #[allow(clippy::result_large_err, reason = "the callback's type is the library's")]
    let choose = |request: &Request, mut answer: Upgrade| {
        let offered = request.headers()["sec-websocket-protocol"].to_str().unwrap();
        assert!(offered.split(", ").any(|name| name == "v5.channel.k8s.io"), "{offered}");
        answer.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("v5.channel.k8s.io"));
        Ok(answer)
    };
    accept_hdr_async(stream, choose).await.unwrap()
}

/// Sends a message on a channel.
pub(crate) async fn say(socket: &mut Socket, channel: u8, data: &[u8]) {
    let mut message = vec![channel];
    message.extend_from_slice(data);
    socket.send(Message::Binary(message.into())).await.unwrap();
}

/// Says how the command ended.
pub(crate) async fn say_exit(socket: &mut Socket, code: i32) {
    let status = match code {
        0 => r#"{"metadata":{},"status":"Success"}"#.to_owned(),
        code => format!(
            r#"{{"status":"Failure","message":"it failed","reason":"NonZeroExitCode",
                "details":{{"causes":[{{"reason":"ExitCode","message":"{code}"}}]}}}}"#
        ),
    };
    say(socket, 3, status.as_bytes()).await;
    let _ = socket.close(None).await;
}

/// The next message: its channel and data.
pub(crate) async fn hear(socket: &mut Socket) -> Option<(u8, Vec<u8>)> {
    loop {
        match socket.next().await? {
            Ok(Message::Binary(data)) => return Some((data[0], data[1..].to_vec())),
            Ok(Message::Close(_)) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

#[tonic::async_trait]
impl RuntimeService for Service {
    async fn version(&self, _: Call<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        Ok(Response::new(VersionResponse::default()))
    }

    async fn list_containers(
        &self,
        _: Call<ListContainersRequest>,
    ) -> Result<Response<ListContainersResponse>, Status> {
        let metadata = Some(ContainerMetadata { name: "web".into(), attempt: 0 });
        let state = ContainerState::ContainerRunning.into();
        let container =
            Container { id: "c1".into(), pod_sandbox_id: "p1".into(), metadata, state, ..Container::default() };
        Ok(Response::new(ListContainersResponse { containers: vec![container] }))
    }

    async fn list_pod_sandbox(
        &self,
        _: Call<ListPodSandboxRequest>,
    ) -> Result<Response<ListPodSandboxResponse>, Status> {
        let metadata = Some(PodSandboxMetadata { name: "web".into(), ..PodSandboxMetadata::default() });
        let pod = PodSandbox { id: "p1".into(), metadata, ..PodSandbox::default() };
        Ok(Response::new(ListPodSandboxResponse { items: vec![pod] }))
    }

    async fn container_status(
        &self,
        _: Call<ContainerStatusRequest>,
    ) -> Result<Response<ContainerStatusResponse>, Status> {
        let state = self.state.lock().unwrap();
        if state.silent {
            return Err(Status::unavailable("gone"));
        }
        let now =
            if state.exit_code.is_some() { ContainerState::ContainerExited } else { ContainerState::ContainerRunning };
        let status = ContainerStatus {
            id: "c1".into(),
            state: now.into(),
            exit_code: state.exit_code.unwrap_or_default(),
            log_path: state.log.clone(),
            ..ContainerStatus::default()
        };
        let info = format!(r#"{{"config":{{"tty":{},"stdin":true}}}}"#, state.terminal);
        let info = HashMap::from([("info".to_owned(), info)]);
        Ok(Response::new(ContainerStatusResponse { status: Some(status), info }))
    }

    async fn exec(&self, call: Call<ExecRequest>) -> Result<Response<ExecResponse>, Status> {
        self.state.lock().unwrap().exec = Some(call.into_inner());
        Ok(Response::new(ExecResponse { url: self.url.clone() }))
    }

    async fn attach(&self, call: Call<AttachRequest>) -> Result<Response<AttachResponse>, Status> {
        self.state.lock().unwrap().attach = Some(call.into_inner());
        Ok(Response::new(AttachResponse { url: self.url.clone() }))
    }

    async fn port_forward(&self, call: Call<PortForwardRequest>) -> Result<Response<PortForwardResponse>, Status> {
        assert_eq!(call.into_inner().pod_sandbox_id, "p1");
        self.state.lock().unwrap().forwards += 1;
        Ok(Response::new(PortForwardResponse { url: self.url.clone() }))
    }
}
