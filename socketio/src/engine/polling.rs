//! The state of a session on polling: queue, held GET, probe (SESSIONS.md 4).

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::links::{Frame, LinkId, RequestId, Response};
use crate::packet::{encoded_len, push_packet};

/// Shortest time between two noops that answer GETs during a probe.
const NOOP_INTERVAL: Duration = Duration::from_millis(100);

/// The state of a session on polling.
#[derive(Debug, Default)]
pub(super) struct Polling {
    pub(super) queue: Queue,
    /// The GET that is held. While there is one, the queue is empty.
    pub(super) held: Option<RequestId>,
    pub(super) probe: Option<Probe>,
}

/// Packets for the next GETs.
#[derive(Debug, Default)]
pub(super) struct Queue {
    frames: VecDeque<Frame>,
    /// Their length as encoded, separators included.
    bytes: usize,
}

/// A WebSocket connection that probes the session before it takes over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    pub(super) link: LinkId,
    /// Its deadline.
    pub(super) until: Duration,
    /// Earliest time at which a held GET is answered by a noop. `None` before `2probe`.
    pub(super) noop: Option<Duration>,
}

impl Polling {
    /// The next deadline of the probe.
    pub(super) fn next_timeout(&self) -> Option<Duration> {
        let probe = self.probe?;
        let noop = probe.noop.filter(|_| self.held.is_some());
        Some(noop.map_or(probe.until, |noop| noop.min(probe.until)))
    }

    /// Takes the held GET if it has to be answered by a noop now.
    pub(super) fn take_noop(&mut self, now: Duration) -> Option<RequestId> {
        let probe = self.probe.as_mut()?;
        if probe.noop? > now {
            return None;
        }
        let held = self.held.take()?;
        probe.noop = Some(now + NOOP_INTERVAL);
        Some(held)
    }
}

impl Queue {
    /// Adds all frames, or none if they would exceed `limit`.
    pub(super) fn push(&mut self, frames: &[Frame], limit: usize) -> bool {
        let bytes = frames.iter().map(encoded_len).sum::<usize>() + self.bytes;
        if bytes > limit {
            return false;
        }
        self.bytes = bytes;
        self.frames.extend(frames.iter().cloned());
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Length in bytes, as encoded.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Removes the packets of one response: up to `max` bytes, at least one packet. Allocates the body.
    pub(super) fn take(&mut self, max: usize) -> Response {
        let mut payload = String::with_capacity(self.bytes.min(max));
        while let Some(frame) = self.frames.front() {
            let length = encoded_len(frame);
            if !payload.is_empty() && payload.len() + length > max {
                break;
            }
            push_packet(&mut payload, frame);
            self.bytes = self.bytes.saturating_sub(length);
            self.frames.pop_front();
        }
        polled(payload)
    }

    /// All packets.
    pub(super) fn into_frames(self) -> Vec<Frame> {
        self.frames.into()
    }
}

/// 200 with packets.
pub(super) fn polled(payload: impl Into<Bytes>) -> Response {
    answer(200, Some("text/plain; charset=UTF-8"), payload.into())
}

/// 200 `ok`, to a POST.
pub(super) fn posted() -> Response {
    answer(200, Some("text/html"), Bytes::from_static(b"ok"))
}

/// 413. The connection closes, because the body may not have been read.
pub(super) fn too_large() -> Response {
    Response { close: true, ..answer(413, None, Bytes::new()) }
}

const fn answer(status: u16, content_type: Option<&'static str>, body: Bytes) -> Response {
    Response { status, content_type, body, close: false }
}
