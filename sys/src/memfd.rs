//! A file that lives in memory and can never be changed again: what the daemon executes the shim from, so that no
//! container can reach the binary on the host's disk through `/proc/PID/exe`.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// Puts `bytes` into a new, executable memory file and seals it against every change. Closed on exec.
pub fn seal(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Since Linux 6.3 vm.memfd_noexec may demand that one says whether the file will be executed.
    let fd = memfd_create(name, flags | MemfdFlags::EXEC).or_else(|_| memfd_create(name, flags))?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};

    use super::*;

    #[test]
    fn sealed_bytes_are_read_back_and_cannot_be_changed() {
        let mut file = File::from(seal("test", b"bytes").unwrap());
        assert!(file.write_all(b"more").is_err());
        assert!(file.set_len(0).is_err());
        file.rewind().unwrap();
        let mut back = String::new();
        file.read_to_string(&mut back).unwrap();
        assert_eq!(back, "bytes");
    }
}
