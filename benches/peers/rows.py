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
]
