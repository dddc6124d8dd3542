//! Who may resume, and where the replay begins (specification 13.2, 13.3, 14): pure functions that every store shares.

use super::{Attach, AttachError, Millis, ResumeRefusal, SessionRecord, StoreError, StoreSettings};
use crate::offset::{Offset, Position};

/// What a store knows of a log when a client asks for a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogView {
    /// This life of the log's writer.
    pub(super) epoch: u64,
    /// The newest entry.
    pub(super) tail: Position,
    /// The newest entry trimmed.
    pub(super) floor: Position,
}

/// An offset as a position of this log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clamped {
    /// Everything up to here was received.
    At(Position),
    /// The offset is not of this log: it says nothing.
    Unknown,
    /// The offset is of the present epoch and above the tail.
    AboveTail,
}

/// Clamps an offset to what was logged: one of an earlier epoch to that epoch's end, which `end_of` knows.
///
/// What a crash took is above that end, and other entries have its positions now.
pub(super) fn clamp(offset: Offset, log: LogView, end_of: impl FnOnce(u64) -> Option<Position>) -> Clamped {
    if offset.epoch == log.epoch {
        return if offset.position > log.tail { Clamped::AboveTail } else { Clamped::At(offset.position) };
    }
    if offset.epoch > log.epoch {
        return Clamped::Unknown;
    }
    end_of(offset.epoch).map_or(Clamped::Unknown, |end| Clamped::At(offset.position.min(end).min(log.tail)))
}

/// Where the replay of `session` begins, if its client has received everything up to `received`.
///
/// Never below `first`: a client that has got nothing yet sends no offset, or one of an earlier session. At `checkpoint`
/// if it has all up to `last`, so that a session without events in a busy namespace outlives the trimming of the log; so with
/// earlier pairs of the two, if an event is on its way that ends such a quiet time.
pub(super) fn start(
    session: &SessionRecord,
    received: Option<Position>,
    log: LogView,
) -> Result<Position, ResumeRefusal> {
    // A session is never ahead of its log, whatever was saved before a commit that failed.
    let first = session.first.min(log.tail);
    let received = received.unwrap_or(first).max(first);
    let newest = (session.checkpoint, session.last);
    let pairs = std::iter::once(&newest).chain(&session.earlier);
    let known =
        pairs.filter(|(_, last)| received >= (*last).min(log.tail)).map(|(checkpoint, _)| *checkpoint);
    let start = known.max().map_or(received, |checkpoint| received.max(checkpoint.min(log.tail)));
    if start < log.floor { Err(ResumeRefusal::OffsetTrimmed { floor: log.floor }) } else { Ok(start) }
}

/// Steps 2 and 3 of a resume as one judgement: the start of the replay, or why there is none. Changes nothing.
///
/// `bytes_after` gives the bytes of log after a position.
pub(super) fn judge(
    ask: &Attach,
    session: Option<&SessionRecord>,
    log: LogView,
    settings: &StoreSettings,
    now: Millis,
    end_of: impl FnOnce(u64) -> Option<Position>,
    bytes_after: impl FnOnce(Position) -> Result<u64, StoreError>,
) -> Result<Position, AttachError> {
    let clamped = ask.offset.map_or(Clamped::Unknown, |offset| clamp(offset, log, end_of));
    let received = match clamped {
        Clamped::At(position) => Some(position),
        Clamped::AboveTail => Some(log.tail),
        Clamped::Unknown => None,
    };
    let refused = |why| AttachError::Refused { why, received: received.unwrap_or(Position::START) };
    let session = session
        .filter(|session| session.namespace == ask.namespace)
        .ok_or_else(|| refused(ResumeRefusal::UnknownSession))?;
    if session.away.is_some_and(|away| is_over(away, settings, now)) {
        return Err(refused(ResumeRefusal::Expired));
    }
    if ask.principal.as_ref().is_some_and(|principal| *principal != session.principal) {
        return Err(refused(ResumeRefusal::PrincipalMismatch));
    }
    if clamped == Clamped::AboveTail {
        return Err(refused(ResumeRefusal::OffsetInvalid));
    }
    let start = start(session, received, log).map_err(refused)?;
    if bytes_after(start)? > settings.max_replay {
        return Err(refused(ResumeRefusal::ReplayTooLarge));
    }
    Ok(start)
}

/// Is the time of a session over that is away since `away`?
pub(super) fn is_over(away: Millis, settings: &StoreSettings, now: Millis) -> bool {
    now >= away.saturating_add(super::millis(settings.window))
}
