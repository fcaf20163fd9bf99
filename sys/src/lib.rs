//! The system calls that tripod needs and no crate wraps safely: the only home of unsafe code.
