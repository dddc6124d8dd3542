//! What `Close` must carry, as rows: section 5 of `docs/specification.md`, and what sections 2, 4 and 7 say where that
//! table has no row. Nothing here knows how the crate arrives at it.

use adjourn::close::Initiator;

/// Who began the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// Nobody sent a Close, nobody read one.
    Nobody,
    /// The application, and the peer's Close was read, if at all, when ours was wholly in the kernel.
    Us,
    /// The peer's Close.
    Peer,
    /// Both: the peer's Close was read when ours was queued.
    Both,
    /// A failure that is not a violation.
    Failure,
    /// The peer's Close was invalid.
    InvalidClose,
    /// The same, in answer to ours.
    InvalidAnswer,
}

/// What fixed the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// What was to be written was written.
    Orderly,
    Fin,
    Reset,
    Timeout,
    Terminate,
    Heartbeat,
    Stall,
}

/// The peer's Close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Theirs {
    None,
    Empty,
    Code,
}

/// Our Close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ours {
    None,
    Queued,
    /// Wholly in the kernel.
    Flushed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// That of the peer's Close, 1005 if it was empty.
    Theirs,
    /// That of our Close, 1005 if it was empty.
    Ours,
    Abnormal,
}

#[derive(Debug)]
pub(super) struct Row {
    pub(super) case: &'static str,
    /// It stands in the table of section 5.
    pub(super) listed: bool,
    pub(super) begun: Begun,
    pub(super) theirs: &'static [Theirs],
    pub(super) ours: &'static [Ours],
    pub(super) ended: &'static [Ended],
    pub(super) code: Code,
    pub(super) effective: Code,
    pub(super) clean: bool,
    pub(super) initiator: Initiator,
}

const RECEIVED: &[Theirs] = &[Theirs::Empty, Theirs::Code];
const ANY: &[Ended] = &[
    Ended::Orderly,
    Ended::Fin,
    Ended::Reset,
    Ended::Timeout,
    Ended::Terminate,
    Ended::Heartbeat,
    Ended::Stall,
];

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    Row { case: "local close, answered with c", listed: true,
          begun: Begun::Us, theirs: &[Theirs::Code], ours: &[Ours::Flushed], ended: &[Ended::Orderly],
          code: Code::Theirs, effective: Code::Theirs, clean: true, initiator: Initiator::Local },
    Row { case: "local close, answered empty", listed: true,
          begun: Begun::Us, theirs: &[Theirs::Empty], ours: &[Ours::Flushed], ended: &[Ended::Orderly],
          code: Code::Theirs, effective: Code::Theirs, clean: true, initiator: Initiator::Local },
    Row { case: "crossed, peer sent c", listed: true,
          begun: Begun::Both, theirs: RECEIVED, ours: &[Ours::Flushed], ended: &[Ended::Orderly],
          code: Code::Theirs, effective: Code::Theirs, clean: true, initiator: Initiator::Both },
    Row { case: "peer's Close c, answered", listed: true,
          begun: Begun::Peer, theirs: RECEIVED, ours: &[Ours::Flushed], ended: &[Ended::Orderly],
          code: Code::Theirs, effective: Code::Theirs, clean: true, initiator: Initiator::Remote },
    Row { case: "peer's Close c, our answer failed", listed: true,
          begun: Begun::Peer, theirs: RECEIVED, ours: &[Ours::Queued], ended: &[Ended::Reset, Ended::Timeout],
          code: Code::Theirs, effective: Code::Theirs, clean: false, initiator: Initiator::Remote },
    Row { case: "local close(k), then timeout / EOF / RST", listed: true,
          begun: Begun::Us, theirs: &[Theirs::None], ours: &[Ours::Queued, Ours::Flushed],
          ended: &[Ended::Timeout, Ended::Fin, Ended::Reset],
          code: Code::Abnormal, effective: Code::Ours, clean: false, initiator: Initiator::Local },
    Row { case: "we failed it with 1002/1007/1009/1011/1013", listed: true,
          begun: Begun::Failure, theirs: &[Theirs::None], ours: &[Ours::Queued, Ours::Flushed], ended: ANY,
          code: Code::Abnormal, effective: Code::Ours, clean: false, initiator: Initiator::Local },
    Row { case: "peer sent an invalid Close", listed: true,
          begun: Begun::InvalidClose, theirs: &[Theirs::None], ours: &[Ours::Queued, Ours::Flushed], ended: ANY,
          code: Code::Abnormal, effective: Code::Ours, clean: false, initiator: Initiator::Local },
    Row { case: "FIN without Close, RST, I/O error", listed: true,
          begun: Begun::Nobody, theirs: &[Theirs::None], ours: &[Ours::None], ended: &[Ended::Fin, Ended::Reset],
          code: Code::Abnormal, effective: Code::Abnormal, clean: false, initiator: Initiator::Transport },
    Row { case: "terminate while Open", listed: true,
          begun: Begun::Nobody, theirs: &[Theirs::None], ours: &[Ours::None], ended: &[Ended::Terminate],
          code: Code::Abnormal, effective: Code::Abnormal, clean: false, initiator: Initiator::Local },
    Row { case: "terminate after the peer's Close", listed: true,
          begun: Begun::Peer, theirs: RECEIVED, ours: &[Ours::Queued], ended: &[Ended::Terminate],
          code: Code::Theirs, effective: Code::Theirs, clean: false, initiator: Initiator::Remote },
    // Section 4, LocalClosing: terminate.
    Row { case: "terminate after our Close", listed: false,
          begun: Begun::Us, theirs: &[Theirs::None], ours: &[Ours::Queued, Ours::Flushed], ended: &[Ended::Terminate],
          code: Code::Abnormal, effective: Code::Ours, clean: false, initiator: Initiator::Local },
    // Section 4, LocalClosing: violation.
    Row { case: "our Close, answered by an invalid one", listed: false,
          begun: Begun::InvalidAnswer, theirs: &[Theirs::None], ours: &[Ours::Queued, Ours::Flushed], ended: ANY,
          code: Code::Abnormal, effective: Code::Ours, clean: false, initiator: Initiator::Local },
    // Section 4, below the table: both of our own accord, and ours did not get out.
    Row { case: "crossed, and ours failed", listed: false,
          begun: Begun::Both, theirs: RECEIVED, ours: &[Ours::Queued],
          ended: &[Ended::Reset, Ended::Timeout, Ended::Terminate],
          code: Code::Theirs, effective: Code::Theirs, clean: false, initiator: Initiator::Both },
    // Section 5: "a heartbeat or stall timeout is Local".
    Row { case: "heartbeat or stall timeout with a backlog", listed: false,
          begun: Begun::Nobody, theirs: &[Theirs::None], ours: &[Ours::None], ended: &[Ended::Heartbeat, Ended::Stall],
          code: Code::Abnormal, effective: Code::Abnormal, clean: false, initiator: Initiator::Local },
];

/// Rows of section 5 that these worlds can not meet, and why.
pub(super) const NEVER_MET: &[(&str, &str)] = &[];

/// Who began, what fixed the outcome, and the name of the cause; a local close's is another where it was a kick.
#[rustfmt::skip]
pub(super) const CAUSES: &[(&[Begun], &[Ended], &str)] = &[
    (&[Begun::Us],                                   &[Ended::Orderly],   "LocalClose"),
    (&[Begun::Peer],                                 &[Ended::Orderly],   "PeerClose"),
    (&[Begun::Both],                                 &[Ended::Orderly],   "Crossed"),
    (&[Begun::Us, Begun::Peer, Begun::Both],         &[Ended::Timeout],   "CloseTimeout"),
    (&[Begun::Us, Begun::Peer, Begun::Both],         &[Ended::Reset],     "PeerResetDuringClose"),
    (&[Begun::Us],                                   &[Ended::Fin],       "PeerFinDuringClose"),
    (&[Begun::Nobody, Begun::Us, Begun::Peer, Begun::Both], &[Ended::Terminate], "Terminated"),
    (&[Begun::Nobody],                               &[Ended::Fin],       "PeerFin"),
    (&[Begun::Nobody],                               &[Ended::Reset],     "PeerReset"),
    (&[Begun::Nobody],                               &[Ended::Heartbeat], "HeartbeatTimeout"),
    (&[Begun::Nobody],                               &[Ended::Stall],     "WriteStall"),
    // The cause stays the first failure.
    (&[Begun::Failure],                              ANY,                 "HeartbeatTimeout"),
    (&[Begun::InvalidClose, Begun::InvalidAnswer],   ANY,                 "Protocol"),
];
