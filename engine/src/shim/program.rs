//! The shim's program, sealed in memory.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use crate::{Error, Result};

/// A copy of `tripod-shim` that nothing can change: a container that reached `/proc/PID/exe` of its shim would hold
/// this copy and never the file on the host.
#[derive(Debug)]
pub struct ShimProgram {
    memory: OwnedFd,
}

impl ShimProgram {
    /// Loads the program from a file of the host.
    pub fn load(file: &Path) -> Result<Self> {
        let bytes = std::fs::read(file).map_err(|error| {
            Error::io(
                format!("read the shim program {} (set shim.program in the configuration)", file.display()),
                error,
            )
        })?;
        let memory = tripod_sys::memfd::seal("tripod-shim", &bytes)
            .map_err(|error| Error::io(format!("seal a copy of the shim program {}", file.display()), error))?;
        Ok(Self { memory })
    }
}

impl AsFd for ShimProgram {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}
