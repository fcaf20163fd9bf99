//! Names of pods and containers.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// A new random ID: 256 bits as 64 hexadecimal digits.
            pub fn random() -> Self {
                Self(rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect())
            }

            /// Takes an ID that came from outside, if it is one: 64 hexadecimal digits, safe as a file name.
            pub fn parse(text: &str) -> Option<Self> {
                let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
                (text.len() == 64 && text.bytes().all(hex)).then(|| Self(text.to_owned()))
            }

            /// As text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first 13 digits, as tools show them.
            pub fn short(&self) -> &str {
                &self.0[..13]
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.short())
            }
        }

        impl AsRef<std::path::Path> for $name {
            fn as_ref(&self) -> &std::path::Path {
                self.0.as_ref()
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

id!(
    /// ID of a pod sandbox.
    PodId
);
id!(
    /// ID of a container.
    ContainerId
);
