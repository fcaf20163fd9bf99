//! The system calls that tripod needs and no crate wraps safely: the only home of unsafe code.
//!
//! Two layers. Thin wrappers give a safe face to what rustix lacks ([`bpf`], [`fork`], [`caps`], [`signal`],
//! [`seccomp`], [`exec`], [`spawn`], [`userns`], [`quota`]). Composites put system calls together into things that both the daemon and the shim need and that are
//! easy to get wrong: paths that must not leave a root ([`inroot`]), mounts that are built before anybody sees them
//! ([`mount`]), root directories ([`root`]), messages with file descriptors ([`scm`]), sealed memory files ([`memfd`]) and programs that are waited for
//! ([`attend`]). Whether the kernel is young enough is asked once ([`kernel`]). What only tests need is in [`filesystem`].

pub mod attend;
pub mod bpf;
pub mod caps;
pub mod exec;
pub mod filesystem;
pub mod fork;
pub mod inroot;
pub mod kernel;
pub mod memfd;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod quota;
pub mod root;
pub mod scm;
pub mod seccomp;
pub mod signal;
pub mod spawn;
pub mod userns;
