//! Bytes and file descriptors over unix stream sockets, blocking or not as the socket is.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// The most descriptors that one message carries.
pub const MAX_FDS: usize = 128;

const SPACE: usize = rustix::cmsg_space!(ScmRights(MAX_FDS));

/// Sends some of `bytes`, and `fds` beside the first of them; returns how many bytes went.
///
/// Descriptors must be sent with a call that sends at least one byte: when it returns, all of them have gone.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many file descriptors for one message"));
    }
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Receives up to `buffer.len()` bytes; descriptors that came with them are added to `fds`, closed on exec.
/// 0 bytes is the end of the stream.
pub fn receive(socket: impl AsFd, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            fds.extend(received);
        }
    }
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the peer sent too many file descriptors"));
    }
    Ok(message.bytes)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read, os::unix::net::UnixStream};

    use super::*;

    #[test]
    fn a_descriptor_arrives_with_its_byte() {
        let (a, b) = UnixStream::pair().unwrap();
        let memory = crate::memfd::seal("test", b"inside").unwrap();
        assert_eq!(send(&a, b"x", &[memory.as_fd()]).unwrap(), 1);
        let mut fds = Vec::new();
        let mut byte = [0; 8];
        assert_eq!(receive(&b, &mut byte, &mut fds).unwrap(), 1);
        let mut file = File::from(fds.pop().unwrap());
        std::io::Seek::rewind(&mut file).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "inside");
        drop(a);
        assert_eq!(receive(&b, &mut byte, &mut fds).unwrap(), 0);
    }
}
