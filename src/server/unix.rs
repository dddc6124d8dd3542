//! Sockets of the Unix domain: what of them differs from TCP.

use std::os::fd::AsFd;

use socket2::SockRef;

use crate::newcomer::PeerCredentials;

/// Who connected, as the kernel knows it. `None` where it does not say.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn credentials(stream: &impl AsFd) -> Option<PeerCredentials> {
    let credentials = rustix::net::sockopt::socket_peercred(stream).ok()?;
    let pid = credentials.pid.as_raw_nonzero().get().unsigned_abs();
    Some(PeerCredentials::new(pid, credentials.uid.as_raw(), credentials.gid.as_raw()))
}

/// Who connected, as the kernel knows it. `None` where it does not say.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn credentials(_: &impl AsFd) -> Option<PeerCredentials> {
    None
}

/// Whether this socket is one of them.
pub(super) fn is_unix(stream: &impl AsFd) -> bool {
    SockRef::from(stream).local_addr().is_ok_and(|address| address.is_unix())
}
