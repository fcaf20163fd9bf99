//! What a runtime says that it can do: the features document of the OCI runtime specification.

use serde::Deserialize;

use super::program::Program;
use crate::{Error, Kind, Result, plugin::Features};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    mount_options: Vec<String>,
    #[serde(default)]
    linux: Linux,
}

#[derive(Debug, Default, Deserialize)]
struct Linux {
    #[serde(default)]
    namespaces: Vec<String>,
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
    // Mapped mounts and device nodes are the shim's to make: to enter the namespace is all that it takes.
    let user_namespaces = document.linux.namespaces.iter().any(|kind| kind == "user");
    Ok(Features { recursive_read_only, user_namespaces })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_not_there() {
        let features = |recursive_read_only, user_namespaces| Features { recursive_read_only, user_namespaces };
        let text = br#"{"ociVersionMin":"1.0.0","mountOptions":["ro","rro"],"linux":{}}"#;
        assert_eq!(read(text).unwrap(), features(true, false));
        let text = br#"{"mountOptions":["ro"],"linux":{"namespaces":["mount","user"]}}"#;
        assert_eq!(read(text).unwrap(), features(false, true));
        assert_eq!(read(b"{}").unwrap(), features(false, false));
        assert!(read(b"runc: no such command").is_err());
    }
}
