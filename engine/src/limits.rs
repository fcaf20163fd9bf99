//! What the operator sets for containers that ask for nothing else: for all of them, or for those of one RuntimeClass
//! handler. Comes checked from the daemon's settings; isolators take their part of it when they are made.

use std::collections::BTreeMap;

use tripod_shim_protocol::{Capability, Rlimit};

use crate::Map;

/// Limits of containers and pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Resource limits of processes, one of a kind.
    pub rlimits: Vec<Rlimit>,
    /// Sysctls of pods that have the namespace for them, by their dotted names.
    pub sysctls: Map,
    /// Capabilities of an ordinary container; `None` is the field's default set.
    pub capabilities: Option<Vec<Capability>>,
    /// Processes and threads of a container.
    pub pids: Option<u64>,
    /// Bytes that a container's writable layer may take.
    pub disk_bytes: Option<u64>,
}

/// Something for each RuntimeClass handler, and for all others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ByHandler<T> {
    common: T,
    own: BTreeMap<String, T>,
}

impl<T> ByHandler<T> {
    /// `own` for handlers that have something of their own; pods that name none have the empty name.
    pub fn new(common: T, own: BTreeMap<String, T>) -> Self {
        Self { common, own }
    }

    /// What is for a handler.
    pub fn of(&self, handler: &str) -> &T {
        self.own.get(handler).unwrap_or(&self.common)
    }

    /// Everything that there is.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.common).chain(self.own.values())
    }

    /// The same for other things.
    pub fn map<U>(&self, change: impl Fn(&T) -> U) -> ByHandler<U> {
        let own = self.own.iter().map(|(handler, own)| (handler.clone(), change(own))).collect();
        ByHandler { common: change(&self.common), own }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_without_its_own_has_what_all_have() {
        let numbers = ByHandler::new(1, [("runc".to_owned(), 2), (String::new(), 3)].into());
        assert_eq!((numbers.of("runc"), numbers.of(""), numbers.of("crun")), (&2, &3, &1));
        let doubled = numbers.map(|number| number * 2);
        assert_eq!((doubled.of("runc"), doubled.of("crun")), (&4, &2));
        assert_eq!(numbers.iter().sum::<i32>(), 6);
    }
}
