//! The daemon's socket: taken only when nobody listens on it.

use std::{
    io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};

/// A listening socket, whose file goes with it.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
    inode: u64,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// somebody else listens
    #[error("another tripod answers at {0}: stop it, or give this one its own --root, --state and --socket")]
    Taken(PathBuf),
    /// something else is there
    #[error("{0} is not a socket: remove it, or choose another --socket")]
    NotASocket(PathBuf),
    /// a step failed
    #[error("{step} {path}: {source}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl Socket {
    /// The socket's path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the place of a dead daemon's socket, never that of a live one. Only root may connect.
    pub(crate) async fn bind(path: &Path) -> Result<(Self, UnixListener), SocketError> {
        let failed = |step| move |source| SocketError::Io { step, path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o711).create(folder);
            made.map_err(failed("make the folder of the socket"))?;
        }
        match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("look at the socket")(error)),
            Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NotASocket(path.to_owned())),
            Ok(_) => match UnixStream::connect(path).await {
                Ok(_) => return Err(SocketError::Taken(path.to_owned())),
                // The rename below replaces it, so that there is never a moment without a socket.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(failed("see who listens at the socket")(error)),
            },
        }
        // The final name appears only after the mode is right: nobody gets in between. The rename is atomic.
        let draft = path.with_extension(format!("{}.new", std::process::id()));
        let _ = std::fs::remove_file(&draft);
        let listener = UnixListener::bind(&draft).map_err(failed("bind the socket"))?;
        let publish = || {
            std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o600))?;
            let inode = std::fs::symlink_metadata(&draft)?.ino();
            std::fs::rename(&draft, path)?;
            Ok(inode)
        };
        match publish() {
            Ok(inode) => Ok((Self { path: path.to_owned(), inode }, listener)),
            Err(error) => {
                let _ = std::fs::remove_file(&draft);
                Err(failed("publish the socket")(error))
            }
        }
    }
}

/// Removes the file, unless a next daemon has put its own there.
impl Drop for Socket {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::{Socket, SocketError};

    #[tokio::test]
    async fn a_live_socket_is_never_taken_and_a_dead_one_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/tripod.sock");
        let (socket, listener) = Socket::bind(&path).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(Socket::bind(&path).await, Err(SocketError::Taken(_))));
        drop(listener);
        let (next, _listener) = Socket::bind(&path).await.unwrap();
        drop(socket);
        assert!(path.exists(), "the first daemon must leave the second one's socket alone");
        drop(next);
        assert!(!path.exists());
        assert_eq!(std::fs::read_dir(folder.path().join("a")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tripod.sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(Socket::bind(&path).await, Err(SocketError::NotASocket(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
