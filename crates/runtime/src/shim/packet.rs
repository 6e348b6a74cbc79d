//! Packets: one JSON message and its descriptors, over a `SOCK_SEQPACKET` socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest packet: a command line can be 128 KiB a word, and the kernel's default for a socket's buffer holds
/// little more than this.
pub(crate) const MAX_PACKET: usize = 192 * 1024;

/// The most descriptors in a packet: stdin, stdout, stderr.
const MAX_DESCRIPTORS: usize = 3;

/// A message on its way out.
#[derive(Debug)]
pub(crate) struct Packet {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Packet {
    pub(crate) fn new<T: Serialize>(message: &T, descriptors: Vec<OwnedFd>) -> io::Result<Self> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > MAX_PACKET {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a message of {} bytes is over the limit of {MAX_PACKET}", bytes.len()),
            ));
        }
        Ok(Self { bytes, descriptors })
    }

    /// Sends the packet whole, or answers `WouldBlock`.
    pub(crate) fn send(&self, socket: impl AsFd) -> io::Result<()> {
        let raw: Vec<RawFd> = self.descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        sendmsg::<UnixAddr>(
            socket.as_fd().as_raw_fd(),
            &[IoSlice::new(&self.bytes)],
            if raw.is_empty() { &[] } else { &rights },
            MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
            None,
        )?;
        Ok(())
    }
}

/// Receives one packet into `buffer`; `None` is the end of the connection.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    flags: MsgFlags,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut space = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let (length, descriptors, truncated) = loop {
        let mut parts = [IoSliceMut::new(&mut *buffer)];
        match recvmsg::<UnixAddr>(
            socket.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC | flags,
        ) {
            Ok(message) => {
                let mut descriptors = Vec::new();
                for control in message.cmsgs()? {
                    if let ControlMessageOwned::ScmRights(raw) = control {
                        // SAFETY: the kernel has just made these descriptors for this process, and nothing else
                        // has seen their numbers.
                        descriptors.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                    }
                }
                let truncated = message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
                break (message.bytes, descriptors, truncated);
            }
            Err(Errno::EINTR) => continue,
            Err(Errno::ECONNRESET) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
    };
    if length == 0 {
        return Ok(None);
    }
    if truncated {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a message is longer than {} bytes", buffer.len()),
        ));
    }
    let message = serde_json::from_slice(&buffer[..length])?;
    Ok(Some((message, descriptors)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed call fails the test

    use std::fs::File;
    use std::io::{Read, Write};

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    #[test]
    fn messages_travel_with_their_descriptors() {
        let (left, right) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let (reader, writer) = nix::unistd::pipe().unwrap();
        Packet::new(&"first", vec![writer]).unwrap().send(&left).unwrap();
        Packet::new(&"second", vec![]).unwrap().send(&left).unwrap();
        drop(left);

        let mut buffer = vec![0; MAX_PACKET];
        let (message, descriptors) = receive::<String>(right.as_fd(), &mut buffer, MsgFlags::empty())
            .unwrap()
            .unwrap();
        assert_eq!(message, "first");
        let mut descriptors = descriptors.into_iter();
        File::from(descriptors.next().unwrap()).write_all(b"through").unwrap();
        assert!(descriptors.next().is_none());
        let mut text = String::new();
        File::from(reader).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");

        let (message, descriptors) = receive::<String>(right.as_fd(), &mut buffer, MsgFlags::empty())
            .unwrap()
            .unwrap();
        assert_eq!((message.as_str(), descriptors.len()), ("second", 0));
        assert!(
            receive::<String>(right.as_fd(), &mut buffer, MsgFlags::empty())
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn a_message_over_the_limit_is_refused() {
        let message = "x".repeat(MAX_PACKET);
        let err = Packet::new(&message, vec![]).unwrap_err();
        assert!(err.to_string().contains("over the limit"), "{err}");
    }
}
