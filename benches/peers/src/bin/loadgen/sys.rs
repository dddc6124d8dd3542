//! The few system calls that neither `std` nor `socket2` has: affinity, another process's CPU clock, rusage.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::time::Duration;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Throws away up to `max` received bytes without copying them: the load generator has to stay the faster side.
pub fn discard(fd: RawFd, max: usize) -> io::Result<usize> {
    // SAFETY: with MSG_TRUNC on a TCP socket the kernel counts and writes nothing to the (null) buffer.
    let n = unsafe { libc::recv(fd, std::ptr::null_mut(), max, libc::MSG_TRUNC | libc::MSG_DONTWAIT) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// Reads, and says when the last of the bytes arrived (`CLOCK_REALTIME`), if the kernel has noted it.
pub fn recv_stamped(fd: RawFd, buffer: &mut [u8]) -> io::Result<(usize, Option<Duration>)> {
    #[repr(C, align(8))]
    struct Control([u8; 128]);
    let mut control = Control([0; 128]);
    let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: `iov` and `control` outlive the call and describe memory of the stated sizes; the control messages are
    // walked with the libc macros, and a timespec is read only from a message that says it holds one.
    unsafe {
        let mut msg: libc::msghdr = std::mem::zeroed();
        msg.msg_iov = &raw mut iov;
        msg.msg_iovlen = 1;
        msg.msg_control = (&raw mut control).cast();
        msg.msg_controllen = std::mem::size_of::<Control>() as _;
        let n = libc::recvmsg(fd, &raw mut msg, libc::MSG_DONTWAIT);
        let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
        let mut stamp = None;
        let mut cmsg = libc::CMSG_FIRSTHDR(&raw const msg);
        while !cmsg.is_null() {
            if (*cmsg).cmsg_level == libc::SOL_SOCKET && (*cmsg).cmsg_type == libc::SCM_TIMESTAMPNS {
                let at: libc::timespec = libc::CMSG_DATA(cmsg).cast::<libc::timespec>().read_unaligned();
                stamp = Some(duration(&at));
            }
            cmsg = libc::CMSG_NXTHDR(&raw const msg, cmsg);
        }
        Ok((n, stamp))
    }
}

/// Asks the kernel to note arrival times, see [`recv_stamped`].
pub fn stamp_arrivals(fd: RawFd) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS)
}

/// A source port is chosen at `connect`, where the whole four-tuple counts, and not already at `bind`.
pub fn bind_address_no_port(fd: RawFd) -> io::Result<()> {
    set_option(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT)
}

fn set_option(fd: RawFd, level: libc::c_int, name: libc::c_int) -> io::Result<()> {
    let one: libc::c_int = 1;
    let len = libc::socklen_t::try_from(std::mem::size_of::<libc::c_int>()).unwrap_or(4);
    // SAFETY: the option is an int that lives through the call.
    check(unsafe { libc::setsockopt(fd, level, name, (&raw const one).cast(), len) }).map(drop)
}

fn duration(at: &libc::timespec) -> Duration {
    Duration::new(u64::try_from(at.tv_sec).unwrap_or(0), u32::try_from(at.tv_nsec).unwrap_or(0))
}

fn clock(id: libc::clockid_t) -> io::Result<Duration> {
    // SAFETY: the kernel fills a timespec on this stack.
    unsafe {
        let mut at: libc::timespec = std::mem::zeroed();
        check(libc::clock_gettime(id, &raw mut at))?;
        Ok(duration(&at))
    }
}

/// The wall clock that arrival times are given in.
pub fn realtime() -> io::Result<Duration> {
    clock(libc::CLOCK_REALTIME)
}

/// CPU time of this process.
pub fn own_cpu() -> io::Result<Duration> {
    clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// CPU time of another process, all its threads (finished ones, too), user and system, in nanoseconds.
pub fn cpu_of(pid: u32) -> io::Result<Duration> {
    // SAFETY: the kernel fills a clock id on this stack.
    let id = unsafe {
        let mut id: libc::clockid_t = 0;
        let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
        let error = libc::clock_getcpuclockid(pid, &raw mut id);
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        id
    };
    clock(id)
}

/// Reaps a child that has ended: its status and all the CPU time it ever used. `None` while it runs.
pub fn reap(pid: u32) -> io::Result<Option<(i32, Duration)>> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: the kernel fills an int and an rusage on this stack.
    unsafe {
        let mut status = 0;
        let mut usage: libc::rusage = std::mem::zeroed();
        if check(libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut usage))? == 0 {
            return Ok(None);
        }
        let time = |at: libc::timeval| {
            Duration::from_secs(u64::try_from(at.tv_sec).unwrap_or(0))
                + Duration::from_micros(u64::try_from(at.tv_usec).unwrap_or(0))
        };
        let code = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) };
        Ok(Some((code, time(usage.ru_utime) + time(usage.ru_stime))))
    }
}

pub fn signal(pid: u32, signal: libc::c_int) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: a plain system call; the pid is that of our own child, which we have not reaped.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// A descriptor that becomes readable when the process ends.
pub fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: a plain system call; the descriptor it returns is ours alone.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0);
        let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
        Ok(OwnedFd::from_raw_fd(check(fd)?))
    }
}

/// Keeps this process (or a child about to start) on the given cores.
pub fn pin(cores: &[usize]) -> io::Result<()> {
    if cores.is_empty() {
        return Ok(());
    }
    // SAFETY: the set lives on this stack; CPU_SET checks nothing, so numbers beyond the set are left out.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for &core in cores.iter().filter(|&&core| core < 1024) {
            libc::CPU_SET(core, &mut set);
        }
        check(libc::sched_setaffinity(0, std::mem::size_of::<libc::cpu_set_t>(), &raw const set)).map(drop)
    }
}

/// Ends this process after `seconds`, whatever happens, and the server with it (see [`spawn`]).
pub fn time_limit(seconds: u32) {
    // SAFETY: a plain system call; the default action of SIGALRM is what we want.
    unsafe {
        libc::alarm(seconds);
    }
}

/// Raises the limit of descriptors as far as allowed, but to no more than 20,000.
pub fn raise_descriptor_limit() -> io::Result<()> {
    // SAFETY: the kernel reads and fills an rlimit on this stack.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        check(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit))?;
        limit.rlim_cur = limit.rlim_max.min(20_000);
        check(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)).map(drop)
    }
}

/// Starts the server on its cores; it is killed when this process ends without having reaped it.
pub fn spawn(command: &[String], cores: &[usize]) -> io::Result<Child> {
    let (program, args) = command.split_first().ok_or_else(|| io::Error::other("no server command"))?;
    let cores = cores.to_vec();
    let mut command = Command::new(program);
    command.args(args).stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    // SAFETY: between fork and exec only system calls are made, on memory that was allocated before.
    unsafe {
        command.pre_exec(move || {
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            pin(&cores)
        });
    }
    command.spawn()
}
