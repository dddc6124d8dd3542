//! What happened, as JSON.

use std::io::Write as _;

use adjourn::{
    CloseFrame, CloseReport, ConnectionId, clients::Stats, close::Cause, shutdown::ShutdownReport,
};
use serde_json::{Value, json};

/// One line on stdout, flushed at once. That nobody reads stdout any more is no error.
pub(crate) fn print(line: &Value) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}");
    let _ = stdout.flush();
}

pub(crate) fn stats(stats: &Stats) -> Value {
    json!({
        "open": stats.open, "closing": stats.closing, "lingering": stats.lingering, "connecting": stats.connecting,
    })
}

/// Descriptors of this process, less the one that counts them.
pub(crate) fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1))
}

pub(crate) fn closed(id: ConnectionId, closed: &CloseReport) -> Value {
    let lost = &closed.lost;
    json!({
        "event": "close",
        "id": id.to_string(),
        "code": closed.code(),
        "effective_code": closed.effective_code(),
        "reason": closed.reason(),
        "was_clean": closed.was_clean(),
        "initiator": format!("{:?}", closed.initiator),
        "cause": closed.cause.name(),
        "cause_fields": fields(closed.cause),
        "sent": closed.sent.as_ref().map(frame),
        "sent_flushed": closed.sent_flushed,
        "received": closed.received.as_ref().map(frame),
        "truncated": closed.truncated(),
        "lost": {
            "messages": lost.messages, "bytes": lost.bytes, "partial": lost.partial,
            "inbound_messages": lost.inbound_messages, "inbound_bytes": lost.inbound_bytes,
            "inbound_partial_bytes": lost.inbound_partial_bytes, "trailing_bytes": lost.trailing_bytes,
            "kernel_unsent": lost.kernel_unsent,
        },
        "duration_ms": closed.duration.as_secs_f64() * 1e3,
        "close_phase_ms": closed.close_phase.as_secs_f64() * 1e3,
    })
}

fn frame(frame: &CloseFrame) -> Value {
    json!({"code": frame.code(), "reason": frame.reason()})
}

fn fields(cause: Cause) -> Value {
    match cause {
        Cause::Protocol(kind) => json!({"kind": format!("{kind:?}"), "text": kind.to_string()}),
        Cause::TooBig { limit } => json!({"limit": limit}),
        Cause::Overflow { queued } => json!({"queued": queued}),
        Cause::CloseTimeout { flushed } => json!({"flushed": flushed}),
        Cause::Io(kind) => json!({"kind": format!("{kind:?}")}),
        _ => json!({}),
    }
}

pub(crate) fn shutdown(report: &ShutdownReport) -> Value {
    let ms = |duration: std::time::Duration| duration.as_secs_f64() * 1e3;
    let phases: Vec<_> = report
        .phases
        .iter()
        .map(|phase| json!({"phase": phase.phase.name(), "start_ms": ms(phase.start), "length_ms": ms(phase.length)}))
        .collect();
    let slowest: Vec<_> = report
        .slowest
        .iter()
        .map(|slow| {
            json!({
                "id": slow.id.to_string(), "peer": slow.peer.to_string(), "state": format!("{:?}", slow.state),
                "queued": slow.queued, "close_phase_ms": ms(slow.close_phase),
            })
        })
        .collect();
    json!({"event": "shutdown", "report": {
        "phases": phases,
        "live_at_start": report.live_at_start,
        "refused_503": report.refused_503,
        "handshakes_cut": report.handshakes_cut,
        "clean": report.clean,
        "by_peer": report.by_peer,
        "timed_out": report.timed_out,
        "terminated": report.terminated,
        "failed": report.failed,
        "close_phases": report.close_phases,
        "lost_messages": report.lost.messages,
        "lost_bytes": report.lost.bytes,
        "lost_partial": report.lost.partial,
        "lost_kernel_unsent": report.lost.kernel_unsent,
        "took_ms": ms(report.took),
        "escalated_by": report.escalated_by.map(|by| format!("{by:?}")),
        "slowest": slowest,
        "longest_callback_ms": report.longest_callback.map_or(0.0, |longest| ms(longest.0)),
        "longest_callback_of": report.longest_callback.and_then(|longest| longest.1).map(|id| id.to_string()),
    }})
}
