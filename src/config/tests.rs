//! Every setting that cannot work is refused by name, and the limits themselves work.

use std::time::Duration;

use super::{Config, ConnectionConfig, ControlRate};
use crate::id::MAX_SLOTS;

/// A change and the error that it has to give.
type Row<T> = (fn(&mut T), &'static str);

fn with(change: fn(&mut Config)) -> Config {
    let mut config = Config::default();
    change(&mut config);
    config
}

#[test]
fn what_cannot_work_is_refused_by_name() {
    let rows: &[Row<Config>] = &[
        (
            |c| c.listener.listen_backlog = 0,
            "listener.listen_backlog is 0, but has to be from 1 to 2147483647",
        ),
        (
            |c| c.listener.listen_backlog = 1 << 31,
            "listener.listen_backlog is 2147483648, but has to be from 1 to 2147483647",
        ),
        (|c| c.listener.accept_batch = 0, "listener.accept_batch is 0, but has to be at least 1"),
        (
            |c| c.listener.proxy_protocol = Some(super::ProxyProtocol::required_from(vec![])),
            "listener.proxy_protocol.trusted is [], but has to be one range at least, or trust_unix",
        ),
        (
            |c| c.handshake.handshake_timeout = Duration::ZERO,
            "handshake.handshake_timeout is 0ns, but has to be more than 0",
        ),
        (
            |c| c.client.connect_timeout = Duration::ZERO,
            "client.connect_timeout is 0ns, but has to be more than 0",
        ),
        (|c| c.handshake.max_head = 0, "handshake.max_head is 0, but has to be at least 1"),
        (|c| c.handshake.max_headers = 0, "handshake.max_headers is 0, but has to be at least 1"),
        (|c| c.client.resolver_threads = 0, "client.resolver_threads is 0, but has to be from 1 to 1024"),
        (
            |c| c.client.resolver_threads = 1025,
            "client.resolver_threads is 1025, but has to be from 1 to 1024",
        ),
        (
            |c| c.event_loop.max_connections = 0,
            "event_loop.max_connections is 0, but has to be from 1 to 16777216",
        ),
        (
            |c| c.event_loop.max_connections = MAX_SLOTS + 1,
            "event_loop.max_connections is 16777217, but has to be from 1 to 16777216",
        ),
        (
            |c| c.event_loop.max_connections_per_address = Some(0),
            "event_loop.max_connections_per_address is 0, but has to be at least 1",
        ),
        (
            |c| c.event_loop.max_handshakes = Some(0),
            "event_loop.max_handshakes is 0, but has to be at least 1",
        ),
        (
            |c| c.event_loop.max_handle_queue = 1023,
            "event_loop.max_handle_queue is 1023, but has to be at least 1024",
        ),
        (|c| c.event_loop.read_buffer = 0, "event_loop.read_buffer is 0, but has to be from 1 to 1073741824"),
        (|c| c.event_loop.reads_per_turn = 0, "event_loop.reads_per_turn is 0, but has to be from 1 to 255"),
        (
            |c| c.event_loop.reads_per_turn = 256,
            "event_loop.reads_per_turn is 256, but has to be from 1 to 255",
        ),
        (
            |c| c.event_loop.write_bytes_per_turn = 0,
            "event_loop.write_bytes_per_turn is 0, but has to be from 1 to 67107840",
        ),
        (
            |c| c.event_loop.write_bytes_per_turn = 64 << 20,
            "event_loop.write_bytes_per_turn is 67108864, but has to be from 1 to 67107840",
        ),
        (|c| c.event_loop.turn_bytes = 0, "event_loop.turn_bytes is 0, but has to be at least 1"),
        (|c| c.event_loop.turn_callbacks = 0, "event_loop.turn_callbacks is 0, but has to be at least 1"),
        (|c| c.event_loop.sweep_slice = 0, "event_loop.sweep_slice is 0, but has to be at least 1"),
        (
            |c| c.event_loop.max_backlog_total = Some(0),
            "event_loop.max_backlog_total is 0, but has to be at least 1",
        ),
        (
            |c| c.event_loop.notsent_lowat = Some(0),
            "event_loop.notsent_lowat is 0, but has to be from 1 to 2147483647",
        ),
        (
            |c| c.connection.control_rate = Some(ControlRate { per_second: 1, burst: (1 << 29) + 1 }),
            "connection.control_rate.burst is 536870913, but has to be from 1 to 536870912",
        ),
        (
            // The answer to the first heartbeat would fail every connection.
            |c| c.connection.control_rate = Some(ControlRate { per_second: 10, burst: 0 }),
            "connection.control_rate.burst is 0, but has to be from 1 to 536870912",
        ),
        (
            |c| c.connection.heartbeat.interval = Some(Duration::ZERO),
            "connection.heartbeat.interval is 0ns, but has to be more than 0; None switches heartbeats off",
        ),
        (
            |c| c.connection.heartbeat.interval = Some(Duration::from_secs(1_036_801)),
            "connection.heartbeat.interval is 1036801s, but has to be at most 12 days",
        ),
        (
            |c| c.connection.heartbeat.timeout = Duration::ZERO,
            "connection.heartbeat.timeout is 0ns, but has to be more than 0",
        ),
        (
            |c| c.connection.stall_timeout = Some(Duration::ZERO),
            "connection.stall_timeout is 0ns, but has to be more than 0; None switches it off",
        ),
        (
            |c| c.connection.flush_budget = Some(Duration::from_secs(11)),
            "connection.flush_budget is 11s, but has to be at most connection.close_timeout (10s)",
        ),
        (
            |c| c.connection.linger_bytes = u64::from(u32::MAX),
            "connection.linger_bytes is 4294967295, but has to be from 0 to 4294967294",
        ),
    ];
    for (change, expected) in rows {
        let error = with(*change).validate().expect_err(expected);
        assert_eq!(error.to_string(), *expected);
        assert_eq!(
            format!("{} is {}, but has to be {}", error.setting(), error.value(), error.limit()),
            *expected
        );
    }
}

#[cfg(feature = "deflate")]
#[test]
fn compression_that_does_not_exist_is_refused_by_name() {
    use super::Deflate;

    let rows: &[Row<Deflate>] = &[
        (|d| d.level = 10, "deflate.level is 10, but has to be from 0 to 9"),
        (|d| d.server_max_window_bits = 7, "deflate.server_max_window_bits is 7, but has to be from 8 to 15"),
        (
            |d| d.server_max_window_bits = 16,
            "deflate.server_max_window_bits is 16, but has to be from 8 to 15",
        ),
        (|d| d.client_max_window_bits = 7, "deflate.client_max_window_bits is 7, but has to be from 8 to 15"),
        (
            |d| d.client_max_window_bits = 16,
            "deflate.client_max_window_bits is 16, but has to be from 8 to 15",
        ),
        (|d| d.takeover_window_bits = 7, "deflate.takeover_window_bits is 7, but has to be from 8 to 15"),
        (
            |d| d.release_after = Some(Duration::ZERO),
            "deflate.release_after is 0ns, but has to be more than 0; None switches it off",
        ),
    ];
    for (change, expected) in rows {
        let mut deflate = Deflate::default();
        change(&mut deflate);
        let config = Config { deflate: Some(deflate), ..Config::default() };
        assert_eq!(config.validate().expect_err(expected).to_string(), *expected);
    }
}

#[test]
fn what_can_work_is_taken() {
    let rows: &[fn(&mut Config)] = &[
        |_| {},
        |c| c.event_loop.max_connections = MAX_SLOTS,
        |c| c.event_loop.reads_per_turn = 255,
        |c| c.event_loop.write_bytes_per_turn = 65_535 << 10,
        |c| c.event_loop.buffer_pool = 0,
        |c| (c.connection.max_payload, c.connection.max_backlog) = (0, 0),
        |c| (c.connection.close_timeout, c.connection.linger_timeout) = (Duration::ZERO, Duration::ZERO),
        |c| c.connection.flush_budget = Some(Duration::from_secs(10)),
        |c| (c.connection.heartbeat.interval, c.connection.heartbeat.timeout) = (None, Duration::ZERO),
        |c| c.connection.pause_timeout = Some(Duration::ZERO),
        |c| c.handshake.max_path_kept = 0,
        |c| c.connection.linger_bytes = 0,
        |c| c.connection.control_rate = Some(ControlRate { per_second: 0, burst: 1 }),
        |c| c.event_loop.max_handle_queue = 1024,
    ];
    for (row, change) in rows.iter().enumerate() {
        assert_eq!(with(*change).validate(), Ok(()), "row {row}");
    }
}

#[test]
fn settings_of_a_connection_are_checked_before_they_are_shared() {
    let mut own = ConnectionConfig { max_payload: 1024, ..ConnectionConfig::default() };
    let shared = own.clone().share().expect("valid");
    assert_eq!(*shared, own);
    own.stall_timeout = Some(Duration::ZERO);
    assert!(own.share().is_err());
}
