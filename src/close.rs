//! The vocabulary of endings: what a Close frame may say, and what is reported when a connection has ended.
//!
//! Facts are stored, judgements are derived: [`CloseReport`] holds the frames that passed and what was lost; `code`,
//! `effective_code` and `was_clean` are functions of them.

use std::{borrow::Cow, fmt, io, str, time::Duration};

use thiserror::Error;

use crate::error::{ProtocolError, Violation, names};

/// The longest reason a Close frame can carry, in bytes: 125 less the two of the code (RFC 6455 §5.5).
pub const MAX_REASON: usize = 123;

/// A code that may be on the wire: 1000-1003, 1007-1014, 3000-4999 (RFC 6455 §7.4 and its IANA registry).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(u16);

impl CloseCode {
    /// 1000: the purpose of the connection is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// 1001: the server goes down, or the page is left.
    pub const GOING_AWAY: Self = Self(1001);
    /// 1002: the peer broke the protocol.
    pub const PROTOCOL: Self = Self(1002);
    /// 1003: a type of data that is not accepted.
    pub const UNSUPPORTED: Self = Self(1003);
    /// 1007: text, or a Close reason, that is not UTF-8.
    pub const INVALID_DATA: Self = Self(1007);
    /// 1008: a policy of the application was violated.
    pub const POLICY: Self = Self(1008);
    /// 1009: a message over a limit.
    pub const TOO_BIG: Self = Self(1009);
    /// 1010: the client misses an extension.
    pub const MANDATORY_EXTENSION: Self = Self(1010);
    /// 1011: the server failed.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// 1012: the server restarts.
    pub const SERVICE_RESTART: Self = Self(1012);
    /// 1013: overload; try again later.
    pub const TRY_AGAIN_LATER: Self = Self(1013);
    /// 1014: a gateway got a bad answer.
    pub const BAD_GATEWAY: Self = Self(1014);

    /// The code, if it may be sent.
    pub const fn new(code: u16) -> Result<Self, CloseFrameError> {
        match code {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Ok(Self(code)),
            _ => Err(CloseFrameError::Code(code)),
        }
    }

    /// The number.
    pub const fn as_u16(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for CloseCode {
    type Error = CloseFrameError;

    fn try_from(code: u16) -> Result<Self, CloseFrameError> {
        Self::new(code)
    }
}

impl From<CloseCode> for u16 {
    fn from(code: CloseCode) -> Self {
        code.0
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a [`CloseFrame`] could not be built. The fault is the caller's; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CloseFrameError {
    /// The code must not be on the wire.
    #[error("Close code {0} must not be sent; allowed are 1000-1003, 1007-1014 and 3000-4999")]
    Code(u16),
    /// The reason does not fit.
    #[error("Close reason of {0} bytes exceeds {MAX_REASON}")]
    ReasonTooLong(usize),
}

/// What a Close frame says: nothing, or a code and a reason. An illegal one cannot be built.
///
/// ```
/// use adjourn::{CloseCode, CloseFrame};
///
/// let frame = CloseFrame::new(CloseCode::GOING_AWAY, "see you soon")?;
/// assert_eq!(frame.code(), Some(1001));
/// let own = CloseFrame::new(CloseCode::new(4000)?, "kicked")?;
/// assert_eq!(own.to_string(), "4000 kicked");
/// assert!(CloseCode::new(1006).is_err());
/// # Ok::<(), adjourn::close::CloseFrameError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CloseFrame {
    code: Option<CloseCode>,
    reason: Cow<'static, str>,
}

impl CloseFrame {
    /// A Close frame without a payload; its receiver reports 1005.
    pub const EMPTY: Self = Self { code: None, reason: Cow::Borrowed("") };
    /// 1000 without a reason.
    pub const NORMAL: Self = Self::of(CloseCode::NORMAL);
    /// 1001 without a reason: what a server says that shuts down.
    pub const GOING_AWAY: Self = Self::of(CloseCode::GOING_AWAY);
    /// 1012 without a reason: what a server says that restarts.
    pub const SERVICE_RESTART: Self = Self::of(CloseCode::SERVICE_RESTART);

    /// A frame with `code` and no reason.
    pub const fn of(code: CloseCode) -> Self {
        Self::with_constant(code, "")
    }

    pub(crate) const fn with_constant(code: CloseCode, reason: &'static str) -> Self {
        Self { code: Some(code), reason: Cow::Borrowed(reason) }
    }

    /// A frame with a code and a reason of at most 123 bytes. Allocates nothing.
    ///
    /// # Errors
    /// If the reason is longer.
    pub fn new(code: CloseCode, reason: impl Into<Cow<'static, str>>) -> Result<Self, CloseFrameError> {
        let reason = reason.into();
        if reason.len() > MAX_REASON {
            return Err(CloseFrameError::ReasonTooLong(reason.len()));
        }
        Ok(Self { code: Some(code), reason })
    }

    /// Like [`CloseFrame::new`], but a reason that does not fit is cut at the last character boundary that does.
    pub fn truncating(code: CloseCode, reason: impl Into<Cow<'static, str>>) -> Self {
        let mut reason = reason.into();
        if reason.len() > MAX_REASON {
            let end = reason.floor_char_boundary(MAX_REASON);
            match &mut reason {
                Cow::Borrowed(text) => *text = text.get(..end).unwrap_or_default(),
                Cow::Owned(text) => text.truncate(end),
            }
        }
        Self { code: Some(code), reason }
    }

    /// Reads the payload of a received Close frame (RFC 6455 §5.5.1, §7.4). Allocates the reason.
    pub(crate) fn parse(payload: &[u8]) -> Result<Self, Violation> {
        let [high, low, reason @ ..] = payload else {
            return if payload.is_empty() { Ok(Self::EMPTY) } else { Err(ProtocolError::CloseLength.into()) };
        };
        let code = u16::from_be_bytes([*high, *low]);
        let code = CloseCode::new(code).map_err(|_| ProtocolError::CloseCode(code))?;
        let reason = str::from_utf8(reason).map_err(|_| Violation::InvalidUtf8)?;
        Ok(Self { code: Some(code), reason: Cow::Owned(reason.to_owned()) })
    }

    /// Bytes of the frame's payload: 0, or 2 and the reason.
    pub(crate) fn payload_len(&self) -> usize {
        self.code.map_or(0, |_| 2 + self.reason.len())
    }

    /// Appends the payload.
    pub(crate) fn write_payload(&self, out: &mut Vec<u8>) {
        if let Some(code) = self.code {
            out.extend_from_slice(&code.0.to_be_bytes());
            out.extend_from_slice(self.reason.as_bytes());
        }
    }

    /// The code, or `None` for an empty frame.
    pub fn code(&self) -> Option<u16> {
        self.code.map(CloseCode::as_u16)
    }

    /// The code as the WHATWG and RFC 6455 §7.1.5 report it: 1005 for an empty frame.
    pub fn code_or_1005(&self) -> u16 {
        self.code().unwrap_or(NO_STATUS)
    }

    /// The reason; empty if there is none.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// `1001 see you soon`, `1000`, or `empty`.
impl fmt::Display for CloseFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            None => f.write_str("empty"),
            Some(code) if self.reason.is_empty() => code.fmt(f),
            Some(code) => write!(f, "{code} {}", self.reason),
        }
    }
}

/// RFC 6455 §7.1.5: the Close frame had no code.
pub(crate) const NO_STATUS: u16 = 1005;
/// RFC 6455 §7.1.5: there was no Close frame.
pub(crate) const ABNORMAL: u16 = 1006;

/// Who ended the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Initiator {
    /// We did: `close`, `kick`, `terminate`, a timeout, or because the peer broke a rule.
    Local,
    /// The peer's Close came first.
    Remote,
    /// Both Close frames were under way at once.
    Both,
    /// Neither: FIN without a Close, a reset, an I/O error.
    Transport,
}

impl fmt::Display for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Why the connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The peer closed; we answered, or tried to.
    PeerClose,
    /// `close` was called and the peer answered.
    LocalClose,
    /// Our Close and the peer's crossed.
    Crossed,
    /// `kick` was called and the peer answered.
    Kicked,
    /// The peer broke a rule of RFC 6455.
    Protocol(ProtocolError),
    /// A message, or the number of its fragments, was over the limit (bytes, or fragments).
    TooBig {
        /// The limit that was exceeded.
        limit: u64,
    },
    /// Text or a Close reason was not UTF-8.
    InvalidUtf8,
    /// The peer reads too slowly and the policy is to end it.
    Overflow {
        /// Bytes that were queued for it.
        queued: u64,
    },
    /// Nothing came for `heartbeat.interval` and `heartbeat.timeout`.
    HeartbeatTimeout,
    /// The kernel took nothing for `stall_timeout`.
    WriteStall,
    /// `close_timeout` ran out.
    CloseTimeout {
        /// Whether our Close was wholly in the kernel by then, so that only the answer was missing.
        flushed: bool,
    },
    /// An invariant of this crate did not hold: a bug of ours. The peer gets 1011, unless the connection was
    /// closing already: then it is reset.
    Internal,
    /// The peer sent FIN without a Close.
    PeerFin,
    /// The peer sent FIN instead of answering our Close.
    PeerFinDuringClose,
    /// The peer reset the TCP connection.
    PeerReset,
    /// The peer reset the TCP connection during the closing handshake.
    PeerResetDuringClose,
    /// The socket failed otherwise.
    Io(io::ErrorKind),
    /// `terminate` was called.
    Terminated,
    /// The server's shutdown closed it and the peer answered.
    ShutdownSoft,
    /// The server's shutdown aborted it.
    ShutdownHard,
}

impl Cause {
    names! {
        PeerClose,
        LocalClose,
        Crossed,
        Kicked,
        Protocol,
        TooBig,
        InvalidUtf8,
        Overflow,
        HeartbeatTimeout,
        WriteStall,
        CloseTimeout,
        Internal,
        PeerFin,
        PeerFinDuringClose,
        PeerReset,
        PeerResetDuringClose,
        Io,
        Terminated,
        ShutdownSoft,
        ShutdownHard,
    }
}

/// The name, and what the fields say: `TooBig: more than 1024`.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Protocol(error) => write!(f, ": {error}"),
            Self::TooBig { limit } => write!(f, ": more than {limit}"),
            Self::Overflow { queued } => write!(f, ": {queued} bytes queued"),
            Self::CloseTimeout { flushed: true } => f.write_str(": no answer"),
            Self::CloseTimeout { flushed: false } => f.write_str(": the Close was not flushed"),
            Self::Io(kind) => write!(f, ": {kind}"),
            _ => Ok(()),
        }
    }
}

impl From<Violation> for Cause {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::Protocol(kind) => Self::Protocol(kind),
            Violation::TooBig { limit } => Self::TooBig { limit },
            Violation::InvalidUtf8 => Self::InvalidUtf8,
        }
    }
}

/// What an ending cost. All zero means: nothing that `send` accepted was dropped before the kernel.
///
/// In every run, what `send` accepted = what was wholly handed to the kernel + `messages` + `partial`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lost {
    /// Whole messages that were accepted and never begun on the wire.
    pub messages: u64,
    /// Their payload, in bytes; compressed, where it was to be.
    pub bytes: u64,
    /// 1 if a message was cut on the wire.
    pub partial: u64,
    /// Messages that were received and discarded.
    pub inbound_messages: u64,
    /// Their payload, in bytes.
    pub inbound_bytes: u64,
    /// Payload received of a message that was never finished.
    pub inbound_partial_bytes: u64,
    /// Bytes received after the peer's Close or after a failure, headers included, until `Close` was reported.
    pub trailing_bytes: u64,
    /// Bytes that the kernel held and had not yet got acknowledged at an abort. `None` where it was not asked for.
    pub kernel_unsent: Option<u32>,
}

/// What one connection has received and sent, if [`ConnectionConfig::count_traffic`](crate::config::ConnectionConfig::count_traffic) asks for that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Data messages received whole.
    pub received_messages: u64,
    /// Bytes read from its socket since it opened.
    pub received_bytes: u64,
    /// Data messages accepted for sending.
    pub sent_messages: u64,
    /// Bytes that the kernel took since it opened, the 101 too.
    pub sent_bytes: u64,
}

/// The report of an ending: who, why, with which frames, and what was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloseReport {
    /// Who ended it.
    pub initiator: Initiator,
    /// Why.
    pub cause: Cause,
    /// The Close frame that we sent, or queued.
    pub sent: Option<CloseFrame>,
    /// Whether it was wholly in the kernel.
    pub sent_flushed: bool,
    /// The first Close frame that we received.
    pub received: Option<CloseFrame>,
    /// What was lost.
    pub lost: Lost,
    /// From `Open` to `Close`.
    pub duration: Duration,
    /// From the first Close, in whichever direction, to `Close`; zero if there was none.
    pub close_phase: Duration,
    /// The peer's FIN came without the `close_notify` that ends a TLS session.
    pub(crate) truncated: bool,
    /// What it received and sent, if that was counted: see [`ConnectionConfig::count_traffic`](crate::config::ConnectionConfig::count_traffic).
    pub traffic: Option<Traffic>,
}

impl Lost {
    /// Nothing was lost.
    pub(crate) const ZERO: Self = Self {
        messages: 0,
        bytes: 0,
        partial: 0,
        inbound_messages: 0,
        inbound_bytes: 0,
        inbound_partial_bytes: 0,
        trailing_bytes: 0,
        kernel_unsent: None,
    };
}

impl CloseReport {
    /// RFC 6455 §7.1.5: the code received; 1005 if the frame had none, 1006 if there was no frame.
    pub fn code(&self) -> u16 {
        self.received.as_ref().map_or(ABNORMAL, CloseFrame::code_or_1005)
    }

    /// RFC 6455 §7.1.6: the reason received.
    pub fn reason(&self) -> &str {
        self.received.as_ref().map_or("", CloseFrame::reason)
    }

    /// Both Close frames passed, and ours is wholly in the kernel.
    pub fn was_clean(&self) -> bool {
        self.received.is_some() && self.sent_flushed
    }

    /// Over TLS: the peer's FIN came before its Close and without the `close_notify` that ends a TLS session (RFC 8446 §6.1), so
    /// somebody on the way may have cut off what it sent. Without TLS nothing says so, and this is false.
    pub const fn truncated(&self) -> bool {
        self.truncated && self.received.is_none()
    }

    /// The code to log: the one received, else the one we sent if we ended it, else 1006 (specification 5.2).
    pub fn effective_code(&self) -> u16 {
        match (&self.received, self.initiator, &self.sent) {
            (Some(received), _, _) => received.code_or_1005(),
            (None, Initiator::Local, Some(sent)) => sent.code_or_1005(),
            (None, _, _) => ABNORMAL,
        }
    }
}

/// One line for a log: the code to log, the cause, who ended it, whether cleanly, and what was lost.
///
/// ```text
/// 1001 LocalClose, initiator Local, clean, open for 2.5s
/// 1006 PeerReset, initiator Transport, not clean, open for 2.5s, lost 3 messages (3072 bytes)
/// ```
impl fmt::Display for CloseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clean = if self.was_clean() { "clean" } else { "not clean" };
        let (code, cause, by) = (self.effective_code(), self.cause, self.initiator);
        write!(f, "{code} {cause}, initiator {by}, {clean}, open for {:?}", self.duration)?;
        let lost = self.lost.messages + self.lost.partial;
        if lost > 0 {
            write!(f, ", lost {lost} messages ({} bytes)", self.lost.bytes)?;
        }
        Ok(())
    }
}

/// How long a closing handshake may take, where the caller says otherwise than the settings.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloseTiming {
    /// See [`ConnectionConfig::close_timeout`](crate::config::ConnectionConfig::close_timeout).
    pub close_timeout: Option<Duration>,
    /// See [`ConnectionConfig::flush_budget`](crate::config::ConnectionConfig::flush_budget).
    pub flush_budget: Option<Duration>,
}

impl CloseTiming {
    /// As the settings have it.
    pub(crate) const DEFAULT: Self = Self { close_timeout: None, flush_budget: None };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_one_line() {
        let mut report = CloseReport {
            initiator: Initiator::Local,
            cause: Cause::CloseTimeout { flushed: true },
            sent: Some(CloseFrame::GOING_AWAY),
            sent_flushed: true,
            received: None,
            lost: Lost::ZERO,
            duration: Duration::from_millis(2500),
            close_phase: Duration::ZERO,
            truncated: false,
            traffic: None,
        };
        assert_eq!(
            report.to_string(),
            "1001 CloseTimeout: no answer, initiator Local, not clean, open for 2.5s"
        );
        (report.received, report.cause) = (Some(CloseFrame::EMPTY), Cause::LocalClose);
        (report.lost.messages, report.lost.partial, report.lost.bytes) = (2, 1, 30);
        assert_eq!(
            report.to_string(),
            "1005 LocalClose, initiator Local, clean, open for 2.5s, lost 3 messages (30 bytes)"
        );
        assert_eq!(
            Cause::Protocol(ProtocolError::Unmasked).to_string(),
            "Protocol: client frame is not masked"
        );
    }
}
