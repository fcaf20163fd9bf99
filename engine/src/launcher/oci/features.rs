//! What a runtime says that it can do: the features document of the OCI runtime specification.

use serde::Deserialize;

use super::program::Program;
use crate::{Error, Kind, Result, plugin::Features};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    mount_options: Vec<String>,
}

/// Asks a runtime.
pub(super) async fn ask(program: &Program) -> Result<Features> {
    program.check()?;
    read(&program.run(&["features"]).await?)
}

fn read(text: &[u8]) -> Result<Features> {
    let document: Document = serde_json::from_slice(text)
        .map_err(|error| Error::with(Kind::Internal, "read the features of an OCI runtime", error))?;
    let recursive_read_only = document.mount_options.iter().any(|option| option == "rro");
    // A user namespace would be made by the runtime, which has no way into the one that the shim made.
    Ok(Features { recursive_read_only, ..Features::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_not_there() {
        assert!(
            read(br#"{"ociVersionMin":"1.0.0","mountOptions":["ro","rro"],"linux":{}}"#).unwrap().recursive_read_only
        );
        assert!(!read(br#"{"mountOptions":["ro"]}"#).unwrap().recursive_read_only);
        assert!(!read(b"{}").unwrap().recursive_read_only);
        assert!(read(b"runc: no such command").is_err());
    }
}
