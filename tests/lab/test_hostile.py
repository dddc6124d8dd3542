"""Peers that mean harm, each beside an honest one that must stay served; the closing specification section 11.

After each attack the harness looks whether connections and descriptors are back where they were.
"""

import threading
import time

import wire
from lab import BACKLOG, MANY, QUIET_S, SLACK_MS, check, equal, record, rows

MEGABYTE = 1 << 20


class Honest:
    """A second connection that is served throughout: the longest round trip is measured, in a thread of its own."""

    def __init__(self, lab):
        self.peer = lab.peer("/honest")
        self.stop = threading.Event()
        self.longest = 0.0
        self.count = 0
        self.error = None
        self.peer.expect_alive("before the attack")
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            while True:
                began = time.monotonic()
                self.peer.expect_alive(f"round {self.count}")
                self.longest = max(self.longest, time.monotonic() - began)
                self.count += 1
                if self.stop.wait(0.02):
                    return
        except Exception as error:
            self.error = error

    def check(self, limit_s=0.3):
        self.stop.set()
        self.thread.join(5)
        check(self.error is None, f"the honest one: {self.error}")
        check(self.count > 0, "the honest one had no turn")
        limit_s += SLACK_MS / 1000
        check(self.longest < limit_s, f"the honest one waited {self.longest:.2f} s")


# The handshake.


@rows(("one-write", 1 << 20), ("small-writes", 512))
def hostile_20_mb_header(start, piece):
    """A header of 20 MB: refused within a second, with little processor time."""
    lab = start()
    honest = Honest(lab)
    cpu = lab.cpu()
    peer = lab.tcp()
    head = wire.request("/")[0][:-2] + b"X-Long: "
    began = time.monotonic()
    peer.try_send(head)
    sent = 0
    while sent < 20 * MEGABYTE and peer.try_send(b"x" * piece, timeout=3):
        sent += piece
        if lab.all("handshake_failed"):
            break
    lab.wait("handshake_failed", peer=f"127.0.0.1:{peer.port}", cause="HeadTooLarge")
    check(time.monotonic() - began < 1 + SLACK_MS / 1000, "refused late")
    check(lab.cpu() - cpu < 1.0, f"{lab.cpu() - cpu:.1f} s of processor time")
    honest.check()


def hostile_header_in_single_bytes(start):
    """A long header in 1-byte writes is parsed linearly."""
    lab = start()
    honest = Honest(lab)
    cpu = lab.cpu()
    peer = lab.tcp()
    for byte in wire.request("/", ["X-Long: " + "x" * 3000])[0]:
        peer.send_raw(bytes([byte]))
    equal(peer.recv_answer().status, 101, "the answer")
    check(lab.cpu() - cpu < 1.0, f"{lab.cpu() - cpu:.1f} s of processor time")
    honest.check()


@rows(("2000", 2000), ("10000", 10000))
def hostile_many_headers(start, count):
    """Very many headers: refused, no crash."""
    lab = start()
    peer = lab.tcp()
    peer.try_send(wire.request("/", [f"X-{n}: {n}" for n in range(count)])[0])
    event = lab.wait("handshake_failed", peer=f"127.0.0.1:{peer.port}")
    check(event["cause"] in ("HeadTooLarge", "BadRequest"), f"cause {event['cause']}")
    lab.peer().expect_alive()


@rows(
    ("spaces", ["X-Spaces: " + " " * 7000]),
    ("extensions", ["Sec-WebSocket-Extensions: " + 'a; b="' + "\\c" * 3000]),
    ("protocols", ["Sec-WebSocket-Protocol: " + "a" + " " * 6000 + ","]),
    ("commas", ["Sec-WebSocket-Extensions: " + ",; " * 2300]),
)
def hostile_costly_header_grammar(start, headers):
    """Header grammar that is costly for backtracking parsers: answered at once, whatever the answer."""
    lab = start(deflate=True)
    cpu = lab.cpu()
    peer = lab.tcp()
    began = time.monotonic()
    peer.send_raw(wire.request("/", headers)[0])
    peer.recv_answer()
    check(time.monotonic() - began < 0.3 + SLACK_MS / 1000, "a slow answer")
    check(lab.cpu() - cpu < 0.3, "much processor time")


@rows(("nul", b"GET /\x00 HTTP/1.1"), ("high-bytes", b"GET /\xff\xfe HTTP/1.1"), ("no-path", b"GET  HTTP/1.1"),
      ("http-9", b"GET / HTTP/9.9"), ("tls", b"\x16\x03\x01\x02\x00"), ("h2", b"PRI * HTTP/2.0"))  # fmt: skip
def hostile_request_line(start, line):
    """Garbage in the request line: refused, or answered; the process lives and reports at most one failure."""
    lab = start(handshake_timeout=500)
    peer = lab.tcp()
    head, _ = wire.request("/")
    peer.try_send(line + head[head.index(b"\r\n") :])
    end = peer.recv_end(1.5)
    check(end != "open", "the connection is still there")
    check(len(lab.all("handshake_failed")) <= 1, "more than one failure")
    lab.peer().expect_alive()


def hostile_slow_handshakes(start):
    """Slowloris: 200 sockets, a byte now and then: all are cut by the handshake timeout, the honest one connects."""
    lab = start(handshake_timeout=800)
    honest = Honest(lab)
    slow = [lab.tcp() for _ in range(200)]
    head, _ = wire.request("/")
    for at in range(3):
        for peer in slow:
            peer.try_send(head[at : at + 1])
        time.sleep(0.2)
    began = time.monotonic()
    lab.peer("/new").expect_alive()
    check(time.monotonic() - began < 0.3 + SLACK_MS / 1000, "a slow handshake for the honest one")
    for peer in slow:
        event = lab.wait("handshake_failed", peer=f"127.0.0.1:{peer.port}")
        equal(event["cause"], "Timeout", "cause")
    honest.check()


def hostile_connection_flood(start):
    """300 connections that come and go by reset, FIN and Close; descriptors and events are all accounted for."""
    lab = start()
    honest = Honest(lab)
    ids = []
    for number in range(300):
        peer = lab.peer("/flood")
        ids.append(peer.id)
        (peer.reset, peer.gone, peer.close)[number % 3]()
        if number % 3 == 2:
            peer.gone()
    for number in ids:
        lab.wait("close", id=number)
    honest.check()


STAGES = {
    "connected": lambda lab: lab.tcp(),
    "half-request": lambda lab: _sent(lab.tcp(), b"GET / HTTP/1.1\r\n"),
    "request": lambda lab: _sent(lab.tcp(), wire.request("/")[0]),
    "refused": lambda lab: _sent(lab.tcp(), b"NONSENSE\r\n\r\n"),
    "open": lambda lab: lab.peer(),
    "half-header": lambda lab: _sent(lab.peer(), b"\x81\xfe\x01"),
    "half-frame": lambda lab: _sent(lab.peer(), wire.encode(wire.TEXT, b"x" * 1000)[:500]),
    "half-message": lambda lab: _sent(lab.peer(), wire.encode(wire.TEXT, b"x" * 1000, fin=False)),
    "unread-echo": lambda lab: _sent(lab.peer(), wire.encode(wire.TEXT, b"x" * 1000) * 50),
    "backlog": lambda lab: _sent(lab.peer(), wire.encode(wire.TEXT, f"flood {MANY}".encode())),
    "paused": lambda lab: _sent(lab.peer(), wire.encode(wire.TEXT, b"pause") + wire.encode(wire.TEXT, b"x" * 1000)),
    "violation": lambda lab: _sent(lab.peer(), wire.encode(5, b"")),
    "close-sent": lambda lab: _sent(lab.peer(), wire.encode(wire.CLOSE, wire.close_payload(4000))),
    "closed-by-us": lambda lab: _sent(lab.peer(), wire.encode(wire.TEXT, b"close 4000 x")),
    "kicked": lambda lab: _sent(lab.peer(), wire.encode(wire.TEXT, b"kick 4000 x|y")),
    "flood-close": lambda lab: _sent(lab.peer(), wire.encode(wire.TEXT, b"flood-close 400 65536 4000 x")),
    "terminated": lambda lab: _sent(lab.peer(), wire.encode(wire.TEXT, b"terminate")),
}


def _sent(peer, data):
    peer.try_send(data)
    return peer


@rows(*[(f"{stage}-{when}", stage, delay) for stage in STAGES for when, delay in (("at-once", 0), ("later", 0.1))])
def hostile_rst_at_every_stage(start, stage, delay):
    """RST at every stage: one event at most for a handshake, exactly one Close for a connection, nothing kept."""
    lab = start(max_backlog=BACKLOG, close_timeout=1000, handshake_timeout=1000)
    for _ in range(5):
        peer = STAGES[stage](lab)
        time.sleep(delay)
        peer.reset()
    # Whether one that is paused sees an RST is not said: it does when it is resumed.
    lab.command("resume-where /t")
    lab.peer().expect_alive()


@rows(*[(stage, stage) for stage in STAGES])
def hostile_fin_at_every_stage(start, stage):
    """FIN at every stage, the peer then reads to the end: it ends, within the timers, and nothing is kept."""
    lab = start(max_backlog=BACKLOG, close_timeout=1000, handshake_timeout=1000)
    peer = STAGES[stage](lab)
    time.sleep(0.05)
    try:
        peer.half_close()
    except OSError:
        pass  # Reset by a terminate.
    try:
        peer.sock.settimeout(3)
        while True:
            peer.more(time.monotonic() + 3)
    except (wire.Ended, wire.Silent):
        pass
    if stage == "paused":
        # Nobody reads from a paused one, so its FIN is seen only when it is resumed.
        lab.command("resume-where /t")
    elif not peer.end:
        check(False, "still there 3 s after the FIN")


@rows(*[(stage, stage) for stage in STAGES])
def hostile_silence_at_every_stage(start, stage):
    """A peer that neither reads nor says anything further is ended by the shutdown at every stage, in time."""
    lab = start(max_backlog=BACKLOG, close_timeout=9000, handshake_timeout=9000, grace=400, linger_timeout=300)
    STAGES[stage](lab)
    time.sleep(0.1)
    began = time.monotonic()
    lab.signal()
    event = lab.wait("shutdown")
    check((event["at"] - began) * 1000 <= 400 + 250 + SLACK_MS, f"Done after {event['at'] - began:.2f} s")
    lab.expect_exit(0)


# The frames.


def hostile_announced_but_unsent(start):
    """300 headers that announce 15 MiB and send nothing: memory grows with what has arrived."""
    lab = start(max_payload=16 << 20)
    peers = [lab.peer("/x") for _ in range(300)]
    before = lab.memory()
    for peer in peers:
        peer.send_raw(wire.encode(wire.BINARY, b"some", announced=15 << 20))
    time.sleep(QUIET_S)
    lab.peer().expect_alive()
    grown = lab.memory() - before
    check(grown < 8 * MEGABYTE, f"{grown / MEGABYTE:.0f} MiB for 1200 bytes of payload")


@rows(("empty", b""), ("one-byte", b"x"))
def hostile_tiny_fragments(start, payload):
    """Endless FIN=0 frames: memory per byte on the wire is bounded, and so is the message (1009)."""
    lab = start()
    honest = Honest(lab)
    peer = lab.peer()
    before = lab.memory()
    fragment = wire.encode(wire.CONT, payload, fin=False)
    peer.try_send(wire.encode(wire.BINARY, payload, fin=False))
    sent = 0
    while sent < 4 * MEGABYTE and peer.try_send(fragment * 10_000, timeout=2):
        sent += len(fragment) * 10_000
    grown = lab.memory() - before
    check(grown < 8 * MEGABYTE, f"{grown / MEGABYTE:.0f} MiB for {sent / MEGABYTE:.1f} MiB on the wire")
    honest.check()
    if lab.all("close", id=peer.id):
        record(peer.closed(), 1006, 1009, False, "Local", "TooBig")


def hostile_endless_continuation(start):
    """Fragments below the frame limit until 1009: one cap for the whole message."""
    lab = start(max_payload=MEGABYTE)
    peer = lab.peer()
    before = lab.memory()
    peer.try_send(wire.encode(wire.BINARY, bytes(60_000), fin=False))
    for _ in range(200):
        if not peer.try_send(wire.encode(wire.CONT, bytes(60_000), fin=False)):
            break
    peer.expect_code(1009)
    check(lab.memory() - before < 8 * MEGABYTE, "memory beyond the cap")
    record(peer.closed(), 1006, 1009, False, "Local", "TooBig")


def hostile_ping_flood_unread(start):
    """100,000 Pings of 125 bytes, never reading: memory bounded, the honest one served."""
    lab = start(stall_timeout=2000)
    honest = Honest(lab)
    peer = lab.peer()
    before = lab.memory()
    pings = wire.encode(wire.PING, bytes(125)) * 1000
    for _ in range(100):
        if not peer.try_send(pings, timeout=3):
            break
    time.sleep(QUIET_S)
    grown = lab.memory() - before
    check(grown < 4 * MEGABYTE, f"{grown / MEGABYTE:.1f} MiB for Pongs")
    honest.check()


def hostile_ping_flood_while_closing(start):
    """100,000 Pings behind our Close, never reading: bounded, and the close timeout holds."""
    lab = start(close_timeout=1000)
    peer = lab.peer()
    began = time.monotonic()
    peer.text("close 4000 x")
    before = lab.memory()
    pings = wire.encode(wire.PING, bytes(125)) * 500
    for _ in range(200):
        if not peer.try_send(pings, timeout=1):
            break
    event = record(peer.closed(), 1006, 4000, False, "Local", "CloseTimeout")
    check(event["at"] - began < 1.3 + SLACK_MS / 1000, "the close timeout did not hold")
    check(lab.memory() - before < 4 * MEGABYTE, "memory for Pongs")


def hostile_slow_reader(start):
    """Echoes of 200 MB asked for and never read: the backlog's limit holds, memory is bounded."""
    lab = start(max_backlog=4 * MEGABYTE, stall_timeout=3000)
    honest = Honest(lab)
    peer = lab.peer()
    before = lab.memory()
    data = wire.encode(wire.BINARY, bytes(100_000))
    for _ in range(300):
        if not peer.try_send(data, timeout=2):
            break
    grown = lab.memory() - before
    check(grown < 16 * MEGABYTE, f"{grown / MEGABYTE:.0f} MiB for a backlog of 4")
    honest.check()


def hostile_close_never_answered(start):
    """200 peers that never answer the Close: all end at the close timeout."""
    lab = start(close_timeout=600)
    honest = Honest(lab)
    peers = [lab.peer("/deaf") for _ in range(200)]
    lab.command("close-where /deaf 4000 x")
    for peer in peers:
        record(peer.closed(), 1006, 4000, False, "Local", "CloseTimeout")
    equal(lab.wait("sweep_done")["timed_out"], 200, "timed out")
    honest.check()


def hostile_data_behind_close_without_end(start):
    """A peer that sends Close and then data for ever, reading nothing: cut by the linger budget, clean."""
    lab = start(linger_bytes=2 * MEGABYTE, linger_timeout=5000)
    honest = Honest(lab)
    peer = lab.peer()
    peer.close(4000)
    sent = 0
    while sent < 100 * MEGABYTE and peer.try_send(bytes(100_000), timeout=3):
        sent += 100_000
    check(sent < 50 * MEGABYTE, "no limit for data behind a Close")
    record(peer.closed(), 4000, 4000, True, "Remote", "PeerClose")
    honest.check()


def hostile_trickle_everywhere(start):
    """One byte per 100 ms to 50 closing connections: no close timeout is extended."""
    lab = start(close_timeout=700)
    peers = [lab.peer("/t") for _ in range(50)]
    began = time.monotonic()
    lab.command("close-where /t 4000 x")
    while time.monotonic() - began < 1.2:
        for peer in peers:
            peer.try_send(b"\x82", timeout=0.1) if not peer.end else None
        time.sleep(0.1)
    for peer in peers:
        event = peer.closed()
        check(event["at"] - began < 0.75 + SLACK_MS / 1000, f"extended to {event['at'] - began:.2f} s")


def hostile_close_frames_in_a_row(start):
    """10,000 Close frames: the first is answered, the rest is trailing bytes."""
    lab = start()
    peer = lab.peer()
    peer.try_send(wire.encode(wire.CLOSE, wire.close_payload(4000)) * 10_000)
    peer.expect_close(4000)
    peer.expect_end("fin")
    record(peer.closed(), 4000, 4000, True, "Remote", "PeerClose")


def hostile_seeded_garbage(start):
    """Seeded random bytes behind the handshake: always one Close, never a crash, no answer but one Close frame."""
    import random

    lab = start(max_payload=100_000)
    for seed in range(60):
        peer = lab.peer()
        peer.try_send(random.Random(seed).randbytes(2000))
        peer.try_send(b"")
        try:
            peer.half_close()
        except OSError:
            pass
        frames, end = peer.recv_all(3)
        check(end != "open", f"seed {seed}: still there")
        check([f.opcode for f in frames].count(wire.CLOSE) <= 1, f"seed {seed}: {frames}")
        peer.closed()


# Section 11.


@rows(
    ("echo", lambda: wire.encode(wire.BINARY, bytes(50_000)) * 4),
    ("tiny", lambda: wire.encode(wire.TEXT, b"") * 20_000),
)
def s11_fairness(start, make):
    """Section 11: at most N frames or M bytes per connection per turn: a flooding one does not starve another."""
    lab = start(max_backlog=4 * MEGABYTE)
    honest = Honest(lab)
    peer = lab.peer("/loud")
    data, stop = make(), threading.Event()

    def read():
        while not stop.is_set():
            try:
                peer.buffer.clear()
                peer.more(time.monotonic() + 0.5)
            except (wire.Ended, OSError):
                return
            except wire.Silent:
                continue

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    until = time.monotonic() + 1.5
    while time.monotonic() < until and peer.try_send(data, timeout=2):
        pass
    honest.check(0.2)
    stop.set()
    reader.join(2)


def s11_quiet_connections_are_small(start):
    """Section 11: a quiet connection owns no buffer, also after a large message; resident memory per connection."""
    lab = start()
    lab.peer().expect_alive("x" * 20_000)
    before = lab.memory()
    peers = [lab.peer("/quiet") for _ in range(800)]
    for peer in peers:
        peer.expect_alive("x" * 20_000)
    time.sleep(QUIET_S)
    each = (lab.memory() - before) / 800
    # The plan is 128 bytes; the allocator and the events on stdout have their share too.
    check(each < 3000, f"{each:.0f} bytes for a quiet connection")


def s11_a_closed_connection_gives_its_queue_back(start):
    """Sections 2, 11: all buffers go with Close: the same 75 MiB again and again need no further memory."""
    lab = start(max_backlog=BACKLOG, stall_timeout="off", linger_timeout=9000)
    peaks = []
    for number in range(5):
        peers = [lab.peer(f"/{number}") for _ in range(3)]
        for peer in peers:
            peer.text(f"flood {MANY}")
            lab.wait("flood", id=peer.id)
        peaks.append(lab.memory())
        lab.command(f"terminate-where /{number}")
        for peer in peers:
            peer.closed()
    check(peaks[-1] < peaks[1] + 20 * MEGABYTE, f"MiB at each peak: {[peak // MEGABYTE for peak in peaks]}")
