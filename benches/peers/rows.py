"""What is measured (ROWS) and who takes part (PEERS)."""

# The order is that of the table's columns. `bin` and `script` are here; `adjourn` is examples/bench_server.
PEERS = {
    "epoll": {"name": "bare epoll, sends last", "bin": "peer_epoll_tcp"},
    "mio": {"name": "bare mio TCP", "bin": "peer_mio_tcp", "crate": "mio"},
    "adjourn": {"name": "adjourn"},
    "tungstenite": {"name": "tungstenite on mio", "bin": "peer_tungstenite_mio", "crate": "tungstenite"},
    "tokio-tungstenite": {
        "name": "tokio-tungstenite",
        "bin": "peer_tokio_tungstenite",
        "crate": "tokio-tungstenite",
    },
    "fastwebsockets": {"name": "fastwebsockets", "bin": "peer_fastwebsockets", "crate": "fastwebsockets"},
    "sockudo": {"name": "sockudo-ws", "bin": "peer_sockudo_ws", "crate": "sockudo-ws"},
    "bun": {"name": "Bun", "script": "bun.mjs", "runtime": "bun"},
    "ws": {"name": "npm ws", "script": "ws.mjs", "runtime": "node"},
}
FLOOR = "mio"
# They look at no byte, so they are no peers.
FLOORS = ("epoll", "mio")
OURS = "adjourn"

NO_TLS = (*FLOORS, "tungstenite", "fastwebsockets", "sockudo")
NO_DEFLATE = (*FLOORS, "tungstenite", "tokio-tungstenite", "fastwebsockets")


def part(name, mode, env=None, cores=None, **args):
    return {
        "name": name,
        "mode": mode,
        "env": env or {},
        "cores": cores,
        "args": {key.replace("_", "-"): value for key, value in args.items()},
    }


# BENCH_READ_BUFFER is for the two tungstenite peers, whose best read buffer depends on the work.
SMALL = {"BENCH_READ_BUFFER": 4096}
MIDDLE = {"BENCH_READ_BUFFER": 32768}
LARGE = {"BENCH_READ_BUFFER": 131072}
DEFLATE = {"BENCH_DEFLATE": 1}
TAKEOVER = {"BENCH_DEFLATE": 2}


def work(key, title, run, floor=None, best=None, **more):
    """A row whose result is the server's CPU time per unit. `floor` and `best` are the targets for our ratio to the
    bare mio server and to the best peer."""
    return {"key": key, "title": title, "kind": "work", "parts": [run], "floor": floor, "best": best, **more}


ROWS = [
    work("echo-64", "echo 64 conns x 125 B, one in flight", part("", "echo", SMALL, conns=64, size=125), 1.03, 0.99),
    work("echo-512", "echo 512 x 125 B, one in flight", part("", "echo", SMALL, conns=512, size=125), 1.05, 0.95),
    work(
        "echo-64-deep",
        "echo 64 x 125 B, 16 in flight",
        part("", "echo", SMALL, conns=64, size=125, depth=16),
        1.15,
        0.90,
    ),
    work(
        "echo-512-deep",
        "echo 512 x 1 KiB, 16 in flight",
        part("", "echo", MIDDLE, conns=512, size=1024, depth=16),
        1.12,
        0.92,
    ),
    work("echo-16k", "echo 64 x 16 KiB", part("", "echo", MIDDLE, conns=64, size=16384), 1.05, 1.00),
    work("echo-1m", "echo 4 x 1 MiB", part("", "echo", LARGE, conns=4, size=1048576), 1.40, 0.80),
    work(
        "relay-16k",
        "relay of 16 KiB to one other",
        part("", "broadcast", MIDDLE, receivers=1, size=16384),
        1.05,
        0.95,
    ),
    work("relay-1m", "relay of 1 MiB to one other", part("", "broadcast", LARGE, receivers=1, size=1048576), 1.40, 0.80),
    work(
        "broadcast-16k",
        "broadcast of 16 KiB to 100, per delivery",
        part("", "broadcast", MIDDLE, receivers=100, size=16384),
        1.05,
        0.95,
    ),
    work(
        "broadcast-1m",
        "broadcast of 1 MiB to 8, per delivery",
        part("", "broadcast", LARGE, receivers=8, size=1048576),
        1.40,
        0.80,
    ),
    work(
        "broadcast",
        "broadcast to 2,000, 125 B, per delivery",
        part("", "broadcast", SMALL, receivers=2000, size=125),
        1.03,
        1.00,
    ),
    work(
        "broadcast-burst",
        "the same, 8 messages in one burst",
        part("", "broadcast", SMALL, receivers=2000, size=125, burst=8),
        1.06,
        0.95,
    ),
    work("accept", "accept + upgrade, per connection", part("", "accept", SMALL, batch=64), 1.00, 0.95),
    work(
        "deflate-1k",
        "compressed echo 1 KiB JSON, no takeover",
        part("", "echo", DEFLATE, conns=64, size=1024, deflate=1),
        None,
        0.95,
        without=NO_DEFLATE,
    ),
    work(
        "deflate-16k",
        "compressed echo 16 KiB JSON, no takeover",
        part("", "echo", DEFLATE, conns=64, size=16384, deflate=1),
        None,
        0.95,
        without=NO_DEFLATE,
    ),
    work(
        "deflate-takeover-1k",
        "compressed echo 1 KiB JSON, context takeover",
        part("", "takeover", TAKEOVER, conns=64, size=1024, deflate=1, takeover=1),
        None,
        0.80,
        without=NO_DEFLATE,
    ),
    work(
        "deflate-takeover-16k",
        "compressed echo 16 KiB JSON, context takeover",
        part("", "takeover", TAKEOVER, conns=64, size=16384, deflate=1, takeover=1),
        None,
        0.80,
        without=NO_DEFLATE,
    ),
    work("tls-echo-64", "TLS: echo 64 x 125 B", part("", "echo", SMALL, conns=64, size=125, tls=1), without=NO_TLS),
    work("tls-echo-16k", "TLS: echo 64 x 16 KiB", part("", "echo", MIDDLE, conns=64, size=16384, tls=1), without=NO_TLS),
    work(
        "tls-accept",
        "TLS: accept, whole handshake and upgrade, per connection",
        part("", "accept", SMALL, batch=64, tls=1),
        without=NO_TLS,
    ),
    {
        "key": "tls-memory",
        "title": "TLS: bytes per quiet connection, of 5,000",
        "kind": "memory",
        "parts": [part("", "idle", SMALL, conns=5000, tls=1)],
        "metrics": (("bytes_opened", "opened", None), ("bytes_exchanged", "after a message each", None)),
        "bar": "bytes_exchanged",
        "unit": "bytes",
        "without": NO_TLS,
    },
    {
        "key": "memory",
        "title": "bytes per quiet connection, of 10,000",
        "kind": "memory",
        "parts": [part("", "idle", SMALL, conns=10000)],
        "metrics": (("bytes_opened", "opened", 128), ("bytes_exchanged", "after a message each", 128)),
        "bar": "bytes_exchanged",
        "unit": "bytes",
    },
    {
        "key": "slow-readers",
        "title": "MiB for 500 that do not read 8 MB of a broadcast in messages of 1,000 bytes",
        "kind": "memory",
        "parts": [part("", "slow", SMALL, conns=500, size=1000)],
        "metrics": (("mib_held", "held", 48), ("mib_left", "5 s after they left", 12)),
        "bar": "mib_held",
        "unit": "MiB",
        "without": FLOORS,
    },
    work(
        "sweep",
        "SIGTERM to exit, 10,000 polite clients, per connection",
        part("", "sweep", SMALL, conns=10000),
        1.05,
        None,
    ),
    {
        "key": "sweep-half-open",
        "title": "SIGTERM, 1,000 polite clients and 1,000 that answer nothing, grace 2 s",
        "kind": "sweep",
        "parts": [part("", "sweep", {**SMALL, "BENCH_CLOSE_TIMEOUT_MS": 2000}, conns=1000, silent=1000)],
        "grace_ms": 2000,
    },
    {
        "key": "sweep-unread",
        "title": "SIGTERM, 500 clients with 1 MiB of unread echoes each, grace 10 s",
        "kind": "sweep",
        "parts": [
            part("", "sweep", {**MIDDLE, "BENCH_CLOSE_TIMEOUT_MS": 10000}, conns=500, unread=16, size=65536)
        ],
        "grace_ms": 10000,
    },
    {
        "key": "broadcast-scale",
        "title": "broadcast, per delivery: to 10,000 against to 100",
        "kind": "ratio",
        "parts": [
            part("to 100", "broadcast", SMALL, receivers=100, size=125),
            part("to 10,000", "broadcast", SMALL, receivers=10000, size=125),
        ],
        "limit": 1.20,
    },
    {
        "key": "busy",
        "title": "one busy connection: beside 10,000 quiet ones against alone",
        "kind": "ratio",
        "parts": [
            part("alone", "echo", SMALL, conns=1, size=125),
            part("beside 10,000", "echo", SMALL, conns=1, size=125, quiet=10000),
        ],
        "limit": 1.05,
    },
    {
        "key": "workers",
        "title": "echoes per second: two workers against one",
        "kind": "workers",
        "parts": [
            part("one", "echo", {**SMALL, "BENCH_WORKERS": 1}, "all", conns=512, size=125),
            part("two", "echo", {**SMALL, "BENCH_WORKERS": 2}, "all", conns=512, size=125),
        ],
        "only": ("adjourn",),
        "limit": 1.8,
    },
    {
        "key": "workers-paced",
        "title": "20,000 echoes a second over 512 connections, by a load generator that sleeps in between",
        "kind": "facts",
        "parts": [
            part("one loop", "paced", {**SMALL, "BENCH_WORKERS": 1}, "all", conns=512, size=125, rate=20000),
            part("two loops", "paced", {**SMALL, "BENCH_WORKERS": 2}, "all", conns=512, size=125, rate=20000),
        ],
        "facts": (("CPU µs per echo", "cpu_us_per_unit"), ("p50, µs", "paced_p50_us"), ("p99, µs", "paced_p99_us")),
        "only": ("adjourn",),
    },
    {
        "key": "workers-deflate",
        "title": "compressed echoes of 16 KiB, where the server has five times the work of the load generator",
        "kind": "facts",
        "parts": [
            part("one loop", "echo", {**DEFLATE, "BENCH_WORKERS": 1}, "all", conns=64, size=16384, deflate=1),
            part("two loops", "echo", {**DEFLATE, "BENCH_WORKERS": 2}, "all", conns=64, size=16384, deflate=1),
        ],
        "facts": (
            ("echoes a second", "units_per_sec"),
            ("cores used by the server", "server_busy"),
            ("by the load generator", "client_busy"),
        ),
        "only": ("adjourn",),
    },
    {
        "key": "latency",
        "title": "echo of 125 B over 1,000 connections: µs from the instant at which the message was due",
        "kind": "latency",
        "parts": [part("", "latency", SMALL, conns=1000, size=125)],
        "only": ("mio", "adjourn", "tungstenite", "bun"),
    },
    {
        "key": "crowd",
        "title": "18,000 connections on one loop, 1 % of which exchange 10 messages a second, 31 s with a heartbeat of 30 s",
        "kind": "facts",
        "parts": [part("", "crowd", {**SMALL, "BENCH_IDLE_S": 30}, conns=18000, busy=180, rate=1800, window=31)],
        "facts": (
            ("CPU, cores", "crowd_server_busy"),
            ("bytes per connection", "bytes_per_conn"),
            ("resident memory, MiB", "rss_mib"),
            ("Pings answered", "pings"),
            ("echo p50, µs", "crowd_p50_us"),
            ("echo p99, µs", "crowd_p99_us"),
        ),
        "only": ("adjourn", "bun"),
        "rounds": 1,
    },
    {
        "key": "storm",
        "title": "18,000 newcomers, 256 at a time, while 1,000 connections echo 10,000 messages a second",
        "kind": "facts",
        "parts": [part("", "storm", SMALL, conns=1000, storm=18000, flight=256, rate=10000)],
        "facts": (
            ("newcomers a second", "accepts_per_sec"),
            ("echo alone, p50 µs", "alone_p50_us"),
            ("echo alone, p99 µs", "alone_p99_us"),
            ("echo beside them, p50 µs", "beside_p50_us"),
            ("echo beside them, p99 µs", "beside_p99_us"),
            ("echo beside them, most µs", "beside_max_us"),
            ("of it the load generator's own delay, p99 µs", "beside_late_p99_us"),
        ),
        "only": ("mio", "adjourn", "tungstenite", "bun"),
    },
    {
        "key": "paces",
        "title": "SIGTERM with 18,000 polite clients",
        "kind": "facts",
        "parts": [
            part("at once", "sweep", {**SMALL, "BENCH_CLOSE_TIMEOUT_MS": 5000}, conns=18000),
            part("9,000 a second", "sweep", {**SMALL, "BENCH_CLOSE_TIMEOUT_MS": 5000, "BENCH_PACE_RATE": 9000}, conns=18000),
            part("over 2 s", "sweep", {**SMALL, "BENCH_CLOSE_TIMEOUT_MS": 5000, "BENCH_PACE_MS": 2000}, conns=18000),
        ],
        "facts": (
            ("got Close 1001", "going_away"),
            ("cut off before it", "cut_off"),
            ("last Close, ms", "last_close_ms"),
            ("exit, ms", "exit_ms"),
            ("CPU µs per connection", "cpu_us_per_unit"),
        ),
        "only": ("adjourn",),
    },
    {
        "key": "turn-scale",
        "title": "instructions of ours (callgrind) with 100, 10,000 and 1,000,000 connections in one loop over memory",
        "kind": "instructions",
        "parts": [],
        "only": ("adjourn",),
    },
]
