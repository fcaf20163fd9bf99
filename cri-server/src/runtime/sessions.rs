//! Exec, Attach and PortForward: a request is checked, and answered with a URL that its client goes to.

use std::{net::TcpStream, sync::Arc};

use async_trait::async_trait;
use tonic::Status;
use tripod_cri_api::v1::{
    AttachRequest, AttachResponse, ExecRequest, ExecResponse, PortForwardRequest, PortForwardResponse,
};
use tripod_engine::{Engine, Error, Session, SessionStreams};
use tripod_streaming::{self as streaming, Backend, End, Process, Refusal, Streams, UrlError};

use super::Runtime;
use crate::{convert::Refusal as Wrong, status_code::status};

impl Runtime {
    pub(super) fn exec_url(&self, request: ExecRequest) -> Result<ExecResponse, Status> {
        let ExecRequest { container_id, cmd: command, tty, stdin, stdout, stderr } = request;
        let object = || format!("exec in container {container_id}");
        let streams = streams(Streams { stdin, stdout, stderr, terminal: tty }).map_err(|wrong| wrong.of(object()))?;
        if command.is_empty() || command.iter().any(|argument| argument.contains('\0')) {
            return Err(Wrong::new("cmd", "must name a program, and hold no NUL character").of(object()).into());
        }
        let container = self.engine.check_session(&container_id).map_err(status)?;
        let url = self.streaming.exec_url(streaming::ExecRequest { container, command, streams });
        Ok(ExecResponse { url: url.map_err(no_url)? })
    }

    pub(super) fn attach_url(&self, request: AttachRequest) -> Result<AttachResponse, Status> {
        let AttachRequest { container_id, stdin, tty, stdout, stderr } = request;
        let streams = streams(Streams { stdin, stdout, stderr, terminal: tty })
            .map_err(|wrong| wrong.of(format!("attach to container {container_id}")))?;
        let container = self.engine.check_session(&container_id).map_err(status)?;
        let url = self.streaming.attach_url(streaming::AttachRequest { container, streams });
        Ok(AttachResponse { url: url.map_err(no_url)? })
    }

    pub(super) fn port_forward_url(&self, request: &PortForwardRequest) -> Result<PortForwardResponse, Status> {
        let port = |port: &i32| {
            let wrong = || {
                let wrong = Wrong::new("port", format!("{port} is not between 1 and 65535"));
                wrong.of(format!("forward ports of pod {}", request.pod_sandbox_id))
            };
            u16::try_from(*port).ok().filter(|port| *port > 0).ok_or_else(wrong)
        };
        let ports = request.port.iter().map(port).collect::<Result<Vec<u16>, _>>()?;
        let pod = self.engine.check_ports(&request.pod_sandbox_id).map_err(status)?;
        let url = self.streaming.port_forward_url(streaming::PortForwardRequest { pod, ports });
        Ok(PortForwardResponse { url: url.map_err(no_url)? })
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it ends here, and map_err takes it by name")]
fn no_url(error: UrlError) -> Status {
    match error {
        UrlError::TooMany { .. } => Status::resource_exhausted(error.to_string()),
        UrlError::Invalid(_) => Status::invalid_argument(error.to_string()),
    }
}

/// What clients may combine: something, and no standard error beside a terminal, which shows both.
fn streams(streams: Streams) -> Result<Streams, Wrong> {
    let Streams { stdin, stdout, stderr, terminal } = streams;
    if !(stdin || stdout || stderr) {
        return Err(Wrong::new("stdin, stdout, stderr", "one of them must be true"));
    }
    if terminal && stderr {
        return Err(Wrong::new("stderr", "must be false with tty: a terminal shows both outputs as one"));
    }
    Ok(streams)
}

/// Connects clients of the streaming server to what the engine runs.
#[derive(Debug)]
pub(crate) struct Sessions {
    engine: Arc<Engine>,
}

impl Sessions {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }
}

#[async_trait]
impl Backend for Sessions {
    async fn exec(&self, request: &streaming::ExecRequest) -> Result<Process, Refusal> {
        let streams = wanted(request.streams);
        self.engine.exec(&request.container, request.command.clone(), streams).await.map(process).map_err(refusal)
    }

    async fn attach(&self, request: &streaming::AttachRequest) -> Result<Process, Refusal> {
        self.engine.attach(&request.container, wanted(request.streams)).await.map(process).map_err(refusal)
    }

    async fn connect(&self, pod: &str, port: u16) -> Result<TcpStream, Refusal> {
        self.engine.connect(pod, port).await.map_err(refusal)
    }
}

fn wanted(Streams { stdin, stdout, stderr, terminal }: Streams) -> SessionStreams {
    SessionStreams { stdin, stdout, stderr, terminal }
}

fn process(Session { stdin, stdout, stderr, terminal, leaves_with_input, end }: Session) -> Process {
    let end = async move { end.await.map(|code| code.map_or(End::Detached, End::Exited)).map_err(refusal) };
    Process { stdin, stdout, stderr, terminal, leaves_with_input, end: Box::pin(end) }
}

#[allow(clippy::needless_pass_by_value, reason = "it ends here, and map_err takes it by name")]
fn refusal(error: Error) -> Refusal {
    Refusal { message: error.to_string() }
}
