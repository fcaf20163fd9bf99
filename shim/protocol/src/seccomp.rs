//! A seccomp filter, ready to be loaded.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};

/// A filter and how it is to be loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompFilter {
    /// `struct sock_filter`s, in the host's byte order. Base64 in messages. Shared, as a node has many containers and
    /// few filters.
    #[serde(with = "base64_bytes")]
    pub program: Arc<[u8]>,
    /// Actions other than "allow" are written to the kernel's log.
    #[serde(default)]
    pub log: bool,
    /// Does not turn on the mitigation against speculative store bypass.
    #[serde(default)]
    pub spec_allow: bool,
    /// A call that its listener has begun to look at waits for nothing but a fatal signal.
    #[serde(default)]
    pub wait_killable: bool,
    /// Who decides about calls that the filter does not decide about.
    #[serde(default)]
    pub listener: Option<Box<SeccompListener>>,
}

/// A program on the host that gets the filter's descriptor, as the OCI runtime specification says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompListener {
    /// Its unix socket, on the host.
    pub path: PathBuf,
    /// Opaque text for it.
    #[serde(default)]
    pub metadata: String,
    /// Container ID.
    pub container: String,
    /// The container's annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

mod base64_bytes {
    use std::sync::Arc;

    use base64::{Engine, engine::general_purpose::STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &Arc<[u8]>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<[u8]>, D::Error> {
        let text = String::deserialize(from)?;
        STANDARD.decode(text).map(Arc::from).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_travel_as_base64() {
        let filter = SeccompFilter { program: Arc::from([6, 0, 0, 0, 255]), ..SeccompFilter::default() };
        let json = serde_json::to_string(&filter).unwrap();
        assert!(json.contains(r#""program":"BgAAAP8=""#), "{json}");
        assert_eq!(serde_json::from_str::<SeccompFilter>(&json).unwrap(), filter);
    }

    #[test]
    fn the_options_may_be_absent_and_the_program_must_be_base64() {
        assert!(serde_json::from_str::<SeccompFilter>(r#"{"program":""}"#).is_ok());
        assert!(serde_json::from_str::<SeccompFilter>(r#"{"program":"?"}"#).is_err());
    }
}
