//! The one system call without a safe wrapper: how many bytes the kernel holds for a socket.

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub(super) fn unsent(socket: &impl std::os::fd::AsFd) -> Option<u32> {
    use rustix::ioctl;

    const SIOCOUTQ: ioctl::Opcode = 0x5411;
    // SAFETY: SIOCOUTQ (tcp(7)) writes one int to its argument and has no other effect; `Getter` passes a pointer to
    // an int that is valid for writes, and reads it only if the call succeeded.
    let unsent = unsafe { ioctl::ioctl(socket, ioctl::Getter::<SIOCOUTQ, std::ffi::c_int>::new()) };
    unsent.ok().and_then(|bytes| u32::try_from(bytes).ok())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn unsent<S>(_: &S) -> Option<u32> {
    None
}
