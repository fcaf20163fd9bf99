//! Messages, clients and servers of the package `tripod.v1`, generated from `proto/tripod/v1`. Daemon and commands are one
//! program, but of two versions while one is being replaced: fields are only added.

use std::fmt;

pub use generated::*;

#[allow(missing_docs, missing_debug_implementations, clippy::all, clippy::pedantic)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/tripod.v1.rs"));
}

impl fmt::Debug for CheckRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { images, repair, username, password: _ } = self;
        let mut shown = f.debug_struct("CheckRequest");
        shown.field("images", images).field("repair", repair).field("username", username).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn passwords_stay_out_of_debug_output() {
        let request = super::CheckRequest { password: "hunter2".to_owned(), ..Default::default() };
        assert!(!format!("{request:?}").contains("hunter2"));
    }
}
