//! [`Links`] over adjourn's connections and the HTTP thread.

use std::time::Duration;

use adjourn::clients::SentTo;
use adjourn::close::{CloseTiming, Initiator};
use adjourn::shutdown::ShutdownPhase;
use adjourn::{Clients, CloseCode, CloseFrame, ConnectionId, Payload, SendError};

use super::conn::Conn;
#[cfg(feature = "polling")]
use super::polling::Http;
use crate::links::{Frame, LinkClose, LinkId, Links, RequestId, Response, SendRefused};
use crate::reason::Reason;

/// How long a close that is not to wait for the peer may take at most.
const QUICK: Duration = Duration::from_secs(2);

/// Which connection a link is, by its slot.
#[derive(Debug)]
pub(super) struct LinkTable {
    slots: Vec<Option<ConnectionId>>,
    /// Kept between two calls.
    ids: Vec<ConnectionId>,
    /// How long a quick close may take.
    quick: Duration,
}

impl LinkTable {
    pub(super) fn new(close_timeout: Duration) -> Self {
        Self { slots: Vec::new(), ids: Vec::new(), quick: close_timeout.min(QUICK) }
    }

    /// The link of a connection that has opened.
    pub(super) fn open(&mut self, id: ConnectionId) -> LinkId {
        if self.slots.len() <= id.slot() {
            self.slots.resize(id.slot() + 1, None);
        }
        if let Some(slot) = self.slots.get_mut(id.slot()) {
            *slot = Some(id);
        }
        link_of(id)
    }

    /// The connection has ended.
    pub(super) fn close(&mut self, id: ConnectionId) {
        if let Some(slot) = self.slots.get_mut(id.slot()).filter(|slot| **slot == Some(id)) {
            *slot = None;
        }
    }

    fn get(&self, link: LinkId) -> Option<ConnectionId> {
        // The slot's place in `ConnectionId`; whatever is found is compared.
        let slot = usize::try_from(link.0 >> 32 & 0x00ff_ffff).ok()?;
        self.slots.get(slot).copied().flatten().filter(|id| id.as_u64() == link.0)
    }
}

/// The link of a connection.
pub(super) const fn link_of(id: ConnectionId) -> LinkId {
    LinkId(id.as_u64())
}

/// What the core acts on during one input.
pub(super) struct DriverLinks<'d, 'c> {
    pub(super) clients: &'d mut Clients<'c, Conn>,
    pub(super) table: &'d mut LinkTable,
    #[cfg(feature = "polling")]
    pub(super) http: Option<&'d mut Http>,
}

impl Links for DriverLinks<'_, '_> {
    fn send(&mut self, link: LinkId, frames: &[Frame]) -> Result<(), SendRefused> {
        let id = self.table.get(link).ok_or(SendRefused::Gone)?;
        if let [frame] = frames {
            return self.clients.send(id, payload(frame)).map_err(|error| refused(&error));
        }
        let SentTo { refused: why, .. } = self.clients.send_to([id], frames.iter().map(payload));
        why.first().map_or(Ok(()), |(_, error)| Err(refused(error)))
    }

    fn send_to(&mut self, links: &[LinkId], frames: &[Frame], not_sent: &mut Vec<(LinkId, SendRefused)>) {
        let mut ids = std::mem::take(&mut self.table.ids);
        for link in links {
            match self.table.get(*link) {
                Some(id) => ids.push(id),
                None => not_sent.push((*link, SendRefused::Gone)),
            }
        }
        let sent = self.clients.send_to(ids.drain(..), frames.iter().map(payload));
        not_sent.extend(sent.refused.iter().map(|(id, error)| (link_of(*id), refused(error))));
        self.table.ids = ids;
    }

    fn unsent(&mut self, link: LinkId) -> usize {
        let client = self.table.get(link).and_then(|id| self.clients.get(id));
        client.map_or(0, |client| client.buffered_amount())
    }

    fn close(&mut self, link: LinkId, how: LinkClose) {
        let Some(id) = self.table.get(link) else { return };
        let quickly = Some(self.table.quick);
        let (frame, timing) = match how {
            LinkClose::Empty { quick } => {
                let close_timeout = quickly.filter(|_| quick);
                (CloseFrame::EMPTY, CloseTiming { close_timeout, flush_budget: None })
            }
            LinkClose::SlowConsumer => {
                let timing = CloseTiming { close_timeout: quickly, flush_budget: Some(Duration::ZERO) };
                (CloseFrame::of(CloseCode::TRY_AGAIN_LATER), timing)
            }
            LinkClose::Cut => {
                self.clients.terminate(id);
                return;
            }
        };
        self.clients.close_with(id, frame, timing);
    }

    #[cfg(feature = "polling")]
    fn respond(&mut self, request: RequestId, response: Response) {
        if let Some(http) = &mut self.http {
            http.respond(request, response);
        }
    }

    #[cfg(feature = "polling")]
    fn abort(&mut self, request: RequestId) {
        if let Some(http) = &mut self.http {
            http.abort(request);
        }
    }

    #[cfg(not(feature = "polling"))]
    fn respond(&mut self, _: RequestId, _: Response) {}

    #[cfg(not(feature = "polling"))]
    fn abort(&mut self, _: RequestId) {}
}

fn payload(frame: &Frame) -> Payload<'_> {
    match frame {
        Frame::Text(text) => text.as_str().into(),
        // Shared if it is large, so that many receivers wait for one copy.
        Frame::Binary(bytes) => bytes.clone().into(),
    }
}

fn refused(error: &SendError) -> SendRefused {
    match error {
        SendError::Overflow { .. } => SendRefused::Full,
        _ => SendRefused::Gone,
    }
}

/// What the first Close of a connection means, where the core has not given a reason (specification 21).
pub(super) fn reason_of_closing(initiator: Initiator, frame: &CloseFrame, phase: ShutdownPhase) -> Reason {
    if initiator != Initiator::Local {
        return Reason::TransportClose;
    }
    match frame.code() {
        Some(1002 | 1007 | 1008 | 1009 | 1011) => Reason::TransportError,
        Some(1013) if phase < ShutdownPhase::SoftSweep => Reason::SlowConsumer,
        _ if phase >= ShutdownPhase::SoftSweep => Reason::ServerShuttingDown,
        _ => Reason::ForcedClose,
    }
}

/// What the end of a connection means, where no Close came before.
pub(super) fn reason_of_end(cause: &adjourn::close::Cause) -> Reason {
    use adjourn::close::Cause;
    match cause {
        Cause::Protocol(_) | Cause::TooBig { .. } | Cause::InvalidUtf8 | Cause::Internal => {
            Reason::TransportError
        }
        Cause::Overflow { .. } | Cause::WriteStall => Reason::SlowConsumer,
        Cause::ShutdownSoft | Cause::ShutdownHard => Reason::ServerShuttingDown,
        Cause::LocalClose | Cause::Terminated | Cause::Kicked | Cause::CloseTimeout { .. } => {
            Reason::ForcedClose
        }
        // The rest is the peer's or the network's; the raw heartbeat is off.
        _ => Reason::TransportClose,
    }
}

#[cfg(test)]
mod tests {
    use adjourn::close::Cause;

    use super::*;

    #[test]
    fn raw_causes_have_the_reasons_of_the_table() {
        for (cause, reason) in [
            (Cause::PeerClose, Reason::TransportClose),
            (Cause::Crossed, Reason::TransportClose),
            (Cause::PeerFin, Reason::TransportClose),
            (Cause::PeerReset, Reason::TransportClose),
            (Cause::Io(std::io::ErrorKind::TimedOut), Reason::TransportClose),
            (Cause::PeerFinDuringClose, Reason::TransportClose),
            (Cause::PeerResetDuringClose, Reason::TransportClose),
            (Cause::TooBig { limit: 1 }, Reason::TransportError),
            (Cause::InvalidUtf8, Reason::TransportError),
            (Cause::Internal, Reason::TransportError),
            (Cause::Overflow { queued: 1 }, Reason::SlowConsumer),
            (Cause::WriteStall, Reason::SlowConsumer),
            (Cause::ShutdownSoft, Reason::ServerShuttingDown),
            (Cause::ShutdownHard, Reason::ServerShuttingDown),
            (Cause::LocalClose, Reason::ForcedClose),
            (Cause::Terminated, Reason::ForcedClose),
            (Cause::Kicked, Reason::ForcedClose),
            (Cause::CloseTimeout { flushed: true }, Reason::ForcedClose),
        ] {
            assert_eq!(reason_of_end(&cause), reason, "{cause:?}");
        }
    }

    #[test]
    fn the_first_close_says_who_began() {
        let serving = ShutdownPhase::Serving;
        for (initiator, frame, phase, reason) in [
            (Initiator::Remote, CloseFrame::NORMAL, serving, Reason::TransportClose),
            (Initiator::Remote, CloseFrame::EMPTY, ShutdownPhase::Grace, Reason::TransportClose),
            (Initiator::Local, CloseFrame::GOING_AWAY, ShutdownPhase::SoftSweep, Reason::ServerShuttingDown),
            (Initiator::Local, CloseFrame::of(CloseCode::PROTOCOL), serving, Reason::TransportError),
            (Initiator::Local, CloseFrame::of(CloseCode::TRY_AGAIN_LATER), serving, Reason::SlowConsumer),
            (Initiator::Local, CloseFrame::NORMAL, serving, Reason::ForcedClose),
        ] {
            assert_eq!(
                reason_of_closing(initiator, &frame, phase),
                reason,
                "{initiator:?} {frame:?} {phase:?}"
            );
        }
    }
}
