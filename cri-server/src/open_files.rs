//! How many files the daemon may have open. A session takes half a dozen, and shells give 1024.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the daemon's limit to what it is allowed to; containers keep the one that the daemon was started with.
pub(crate) fn raise() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, ?current, "the limit of open files stays as it is");
    }
}
