//! What the layer counts, as `OpenMetrics` text.

use adjourn::stats::LoopStats;
use adjourn_socketio::Reason;
use adjourn_socketio::metrics::text;
use adjourn_socketio::stats::SocketIoStats;

#[test]
fn every_number_is_there_with_its_type() {
    let mut stats = SocketIoStats::default();
    (stats.events_in, stats.rooms, stats.sockets) =
        (7, 3, vec![("/".into(), 2), ("/made-by-a-client".into(), 1)]);
    stats.disconnects = vec![(Reason::PingTimeout, 5)];
    stats.decode_error_kinds = vec![("json", 4)];
    let page = text(&LoopStats::default(), &stats);
    let gauges = [
        "connections_polling",
        "connections_websocket",
        "requests_waiting",
        "sessions_connected",
        "sessions_unsaved",
        "acks_pending",
        "namespaces",
        "logs_unused",
        "rooms",
        "replays",
        "store_queue",
    ];
    for (name, _) in stats.counters() {
        let kind = if gauges.contains(&name) { "gauge" } else { "counter" };
        assert!(page.contains(&format!("# TYPE adjourn_socketio_{name} {kind}\n")), "{name}: {page}");
        assert!(page.contains(&format!("# HELP adjourn_socketio_{name} ")), "{name}");
    }
    for line in [
        "adjourn_socketio_events_in_total 7",
        "adjourn_socketio_rooms 3",
        "adjourn_socketio_sockets 3",
        "adjourn_socketio_disconnects_total{reason=\"ping timeout\"} 5",
        "adjourn_socketio_decode_error_kinds_total{kind=\"json\"} 4",
        "adjourn_socketio_store_down_seconds_total 0.0",
        "adjourn_opened_total 0",
    ] {
        assert!(page.contains(&format!("\n{line}\n")), "{line}: {page}");
    }
    assert!(!page.contains("made-by-a-client"), "clients choose no label");
    assert!(page.ends_with("# EOF\n"));
}
