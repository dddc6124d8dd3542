//! A session on polling: what waits for its GETs, and the WebSocket that probes it (specification 4).

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::links::{Frame, LinkId, RequestId, Response};
use crate::packet::{encoded_len, push_packet};

/// Between two noops that answer GETs during a probe.
const NOOP_INTERVAL: Duration = Duration::from_millis(100);

/// A session on polling.
#[derive(Debug, Default)]
pub(super) struct Polling {
    pub(super) queue: Queue,
    /// The GET that waits. Nothing is queued while there is one.
    pub(super) held: Option<RequestId>,
    pub(super) probe: Option<Probe>,
}

/// What the next GETs fetch.
#[derive(Debug, Default)]
pub(super) struct Queue {
    frames: VecDeque<Frame>,
    /// As they will be encoded.
    bytes: usize,
}

/// A WebSocket that wants to take the session over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    pub(super) link: LinkId,
    /// Until when it has time.
    pub(super) until: Duration,
    /// From when on a held GET is answered by a noop; `None`: `2probe` has not come yet.
    pub(super) noop: Option<Duration>,
}

impl Polling {
    /// When something is to be done.
    pub(super) fn next_timeout(&self) -> Option<Duration> {
        let probe = self.probe?;
        let noop = probe.noop.filter(|_| self.held.is_some());
        Some(noop.map_or(probe.until, |noop| noop.min(probe.until)))
    }

    /// The GET that is to be answered by a noop now.
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

    /// Encoded bytes.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the answer to a GET: packets up to `max` bytes, at least one.
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

    /// All of it.
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

/// 413. The connection is closed, since the body may not have been read.
pub(super) fn too_large() -> Response {
    Response { close: true, ..answer(413, None, Bytes::new()) }
}

const fn answer(status: u16, content_type: Option<&'static str>, body: Bytes) -> Response {
    Response { status, content_type, body, close: false }
}
