//! What the page shows, as JSON.

use std::cmp::Reverse;

use adjourn::{Client, Clients, stats::LoopStats};
use serde_json::{Map, Value, json};

/// Connections that the page lists: those with the largest backlogs, and then the newest.
const LISTED: usize = 200;

/// One loop, or all of them.
#[derive(Clone, Default)]
pub(crate) struct View {
    stats: LoopStats,
    rows: Vec<Row>,
}

#[derive(Clone)]
struct Row {
    backlog: usize,
    age: u64,
    json: Value,
}

impl View {
    /// This loop as it is. `who` says what a connection is to the application.
    pub(crate) fn of<D>(
        stats: LoopStats,
        clients: &Clients<'_, D>,
        who: impl Fn(&D) -> &'static str,
    ) -> Self {
        let mut all: Vec<_> = clients.iter().collect();
        // What nobody will see is not described: there may be many, and they wait meanwhile.
        if all.len() > LISTED {
            all.select_nth_unstable_by_key(LISTED, |client| order(client.backlog(), client.age().as_secs()));
            all.truncate(LISTED);
        }
        let rows = all.iter().map(|client| row(client, who(client.data()))).collect();
        Self { stats, rows }
    }

    pub(crate) fn sum(views: &[Self]) -> Self {
        let mut sum = Self {
            stats: LoopStats::sum(views.iter().map(|view| &view.stats)),
            rows: views.iter().flat_map(|view| &view.rows).cloned().collect(),
        };
        sum.cut();
        sum
    }

    fn cut(&mut self) {
        self.rows.sort_by_key(|row| order(row.backlog, row.age));
        self.rows.truncate(LISTED);
    }

    pub(crate) fn json(&self) -> Value {
        let LoopStats { connections, totals, caps, .. } = &self.stats;
        let counters: Map<_, _> =
            totals.counters().map(|(name, _, count)| (name.to_owned(), count.into())).collect();
        let histogram = |histogram: &adjourn::stats::Histogram| -> Vec<_> {
            let bucket = |(bound, count): (Option<std::time::Duration>, u64)| {
                json!([bound.map(|bound| bound.as_secs_f64() * 1e3), count])
            };
            histogram.buckets().map(bucket).collect()
        };
        let ended: Vec<_> = totals.closed.by_cause().filter(|(.., count)| *count > 0).collect();
        let refused: Vec<_> = totals.handshakes_failed.iter().filter(|(_, count)| *count > 0).collect();
        let caps: Vec<_> = caps
            .iter()
            .map(|(name, cap)| json!({"name": name, "used": cap.used, "limit": cap.limit}))
            .collect();
        let longest = totals.longest_callback;
        json!({
            "phase": self.stats.phase.name(),
            "connections": {
                "connecting": connections.connecting, "open": connections.open,
                "closing": connections.closing, "lingering": connections.lingering,
            },
            "counters": counters,
            "ended": ended,
            "refused": refused,
            "lost_messages": totals.lost.messages + totals.lost.partial,
            "caps": caps,
            "lateness": histogram(&totals.lateness),
            "turns": histogram(&totals.turns),
            "longest_callback": longest.map(|slow| json!({"ms": slow.took.as_secs_f64() * 1e3, "event": slow.event})),
            "rows": self.rows.iter().map(|row| &row.json).collect::<Vec<_>>(),
        })
    }
}

/// What is listed first.
const fn order(backlog: usize, age: u64) -> (Reverse<usize>, u64) {
    (Reverse(backlog), age)
}

fn row<D>(client: &Client<'_, D>, who: &str) -> Row {
    let traffic = client.traffic().unwrap_or_default();
    let (backlog, age) = (client.backlog(), client.age());
    let json = json!({
        "id": client.id().to_string(),
        "peer": client.peer_addr().to_string(),
        "path": client.path(),
        "who": who,
        "state": client.state().to_string(),
        "paused": client.is_paused(),
        "backlog": backlog,
        "age": age.as_secs_f64(),
        "idle": client.idle_for().as_secs_f64(),
        "in_messages": traffic.received_messages, "in_bytes": traffic.received_bytes,
        "out_messages": traffic.sent_messages, "out_bytes": traffic.sent_bytes,
    });
    Row { backlog, age: age.as_secs(), json }
}
