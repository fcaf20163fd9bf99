//! SELinux contexts: `user:role:type:level`, and the file in which a node's policy names those of containers.

use std::{fmt, path::Path};

use crate::SelinuxOptions;

/// A context. A policy without levels has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    pub user: String,
    pub role: String,
    pub kind: String,
    pub level: Option<String>,
}

impl Context {
    /// Reads one; `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |part: &str| !part.is_empty() && !part.contains(char::is_whitespace) && !part.contains('\0');
        let mut parts = text.splitn(4, ':').map(str::to_owned);
        let (user, role, kind, level) = (parts.next()?, parts.next()?, parts.next()?, parts.next());
        let good = [&user, &role, &kind].into_iter().chain(&level).all(|part| plain(part));
        good.then_some(Self { user, role, kind, level })
    }

    /// With another level, where the policy has any.
    #[must_use]
    pub fn at(mut self, level: &str) -> Self {
        if let Some(own) = &mut self.level {
            level.clone_into(own);
        }
        self
    }

    /// With what was asked for in place of what the policy says.
    #[must_use]
    pub fn with(mut self, asked: &SelinuxOptions) -> Self {
        for (part, wanted) in
            [(&mut self.user, &asked.user), (&mut self.role, &asked.role), (&mut self.kind, &asked.kind)]
        {
            if !wanted.is_empty() {
                part.clone_from(wanted);
            }
        }
        self
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.user, self.role, self.kind)?;
        self.level.iter().try_for_each(|level| write!(f, ":{level}"))
    }
}

/// What a policy for containers says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Of their processes.
    pub process: Context,
    /// Of their files.
    pub file: Context,
}

impl Policy {
    /// Reads `lxc_contexts`: `KEY = "CONTEXT"`, comments after `#` or `;`.
    pub fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| {
            text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])).find_map(|line| {
                let (name, value) = line.split_once('=')?;
                (name.trim() == key).then(|| value.trim().trim_matches('"'))
            })
        };
        Some(Self { process: Context::parse(value("process")?)?, file: Context::parse(value("file")?)? })
    }

    /// The policy of the node, from the first of the two files that is there.
    pub fn of_node(root: &Path) -> Option<Self> {
        let config = std::fs::read_to_string(root.join("etc/selinux/config")).unwrap_or_default();
        let name = config.lines().find_map(|line| line.trim().strip_prefix("SELINUXTYPE=")).unwrap_or("targeted");
        let files = [
            root.join("usr/share/containers/selinux/contexts"),
            root.join("etc/selinux").join(name.trim()).join("contexts/lxc_contexts"),
        ];
        let text = files.iter().find_map(|file| std::fs::read_to_string(file).ok())?;
        Self::parse(&text)
    }
}
