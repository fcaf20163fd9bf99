//! Commands in containers whose output is waited for.

use std::time::Duration;

use tonic::Status;
use tripod_cri_api::v1::{ExecSyncRequest, ExecSyncResponse};

use super::Runtime;
use crate::status_code::status;

/// Bytes of output that fit into an answer: clients take messages of 16 MiB, and the fields' heads count too.
const ROOM: usize = (16 << 20) - 64;

impl Runtime {
    /// A command that fails is a good answer; one that runs too long is not. No time-out means no limit.
    pub(super) async fn exec_sync(&self, request: ExecSyncRequest) -> Result<ExecSyncResponse, Status> {
        let id = &request.container_id;
        let limit = match u64::try_from(request.timeout) {
            Ok(0) => None,
            Ok(seconds) => Some(Duration::from_secs(seconds)),
            Err(_) => {
                let message = format!("exec in container {id}: timeout: {} must not be negative", request.timeout);
                return Err(Status::invalid_argument(message));
            }
        };
        if request.cmd.is_empty() || request.cmd.iter().any(|argument| argument.contains('\0')) {
            let message = format!("exec in container {id}: cmd: must name a program, and hold no NUL character");
            return Err(Status::invalid_argument(message));
        }
        let output = self.engine.exec_sync(id, request.cmd, limit).await.map_err(status)?;
        let (mut stdout, mut stderr) = (output.stdout, output.stderr);
        // Where both are long each gets half.
        stderr.truncate(ROOM.saturating_sub(stdout.len()).max(ROOM / 2));
        stdout.truncate(ROOM - stderr.len());
        Ok(ExecSyncResponse { stdout, stderr, exit_code: output.code })
    }
}
