//! A file that lives in memory and can never be changed again: what the daemon executes the shim from, so that no
//! container can reach the binary on the host's disk through `/proc/PID/exe`.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    io::Errno,
};

/// How often a busy file is tried again.
const PATIENCE: u32 = 40;

/// Puts `bytes` into a new, executable memory file and seals it against every change. Closed on exec.
pub fn seal(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Since Linux 6.3 vm.memfd_noexec may demand that one says whether the file will be executed.
    let fd = memfd_create(name, flags | MemfdFlags::EXEC).or_else(|_| memfd_create(name, flags))?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    for _ in 0..PATIENCE {
        match fcntl_add_seals(&file, seals) {
            // Somebody else of the kernel (reclaim, compaction) holds one of the pages for a moment. The call has
            // waited for it already, 150 ms.
            Err(Errno::BUSY) => {}
            result => return result.map(|()| file.into()).map_err(io::Error::from),
        }
    }
    fcntl_add_seals(&file, seals)?;
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
