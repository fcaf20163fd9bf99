//! Requests for streaming URLs.

use tonic::Status;
use tripod_cri_api::v1::{AttachRequest, ExecRequest, PortForwardRequest};

use crate::Cri;

/// Which streams a session has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// A terminal, which has no standard error.
    pub tty: bool,
}

impl Wanted {
    /// No stream at all.
    pub const NOTHING: Self = Self { stdin: false, stdout: false, stderr: false, tty: false };
    /// Output and errors.
    pub const OUTPUT: Self = Self { stdin: false, stdout: true, stderr: true, tty: false };
    /// Input, output and errors.
    pub const ALL: Self = Self { stdin: true, stdout: true, stderr: true, tty: false };
    /// A terminal.
    pub const TERMINAL: Self = Self { stdin: true, stdout: true, stderr: false, tty: true };
}

impl Cri {
    /// A URL where a command runs.
    pub async fn exec_url(&self, id: &str, command: &[&str], wanted: Wanted) -> Result<String, Status> {
        let Wanted { stdin, stdout, stderr, tty } = wanted;
        let cmd = command.iter().map(|&word| word.to_owned()).collect();
        let request = ExecRequest { container_id: id.to_owned(), cmd, tty, stdin, stdout, stderr };
        Ok(self.runtime().exec(request).await?.into_inner().url)
    }

    /// A URL where a container can be listened and talked to.
    pub async fn attach_url(&self, id: &str, wanted: Wanted) -> Result<String, Status> {
        let Wanted { stdin, stdout, stderr, tty } = wanted;
        let request = AttachRequest { container_id: id.to_owned(), stdin, tty, stdout, stderr };
        Ok(self.runtime().attach(request).await?.into_inner().url)
    }

    /// A URL that leads to ports of a pod.
    pub async fn forward_url(&self, pod: &str, ports: &[u16]) -> Result<String, Status> {
        let port = ports.iter().map(|&port| i32::from(port)).collect();
        let request = PortForwardRequest { pod_sandbox_id: pod.to_owned(), port };
        Ok(self.runtime().port_forward(request).await?.into_inner().url)
    }
}
