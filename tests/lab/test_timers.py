"""the closing specification section 3: the timers, what starts them, and that nothing extends them which must not."""

import threading
import time

import wire
from lab import BACKLOG, CUT, MANY, QUIET_S, check, equal, first_is_cut, on_time, record, rows

# The Close and what follows it may be two turns.
PROMISED = 50


def s3_handshake_timeout(start):
    """handshake_timeout starts at accept: 408 if possible, HandshakeFailed(Timeout)."""
    lab = start(handshake_timeout=400)
    began = time.monotonic()
    peer = lab.tcp()
    event = lab.wait("handshake_failed", peer=f"127.0.0.1:{peer.port}")
    equal(event["cause"], "Timeout", "cause")
    on_time(event["at"] - began, 400, "Timeout")
    equal(peer.recv_answer().status, 408, "the answer")
    equal(peer.recv_end(), "fin", "the end")
    check(peer.end == "fin", "the answer was cut by a reset")


@rows(("half-request", b"GET / HTTP/1.1\r\nHost: x\r\n"), ("one-byte", b"G"))
def s3_handshake_timeout_with_half_a_request(start, sent):
    """handshake_timeout covers the whole request."""
    lab = start(handshake_timeout=400)
    began = time.monotonic()
    peer = lab.tcp()
    peer.send_raw(sent)
    event = lab.wait("handshake_failed", peer=f"127.0.0.1:{peer.port}")
    equal(event["cause"], "Timeout", "cause")
    on_time(event["at"] - began, 400, "Timeout")
    equal(peer.recv_answer().status, 408, "the answer")


def s3_handshake_timeout_is_not_extended(start):
    """handshake_timeout is extended by nothing: one byte each 50 ms does not help."""
    lab = start(handshake_timeout=500)
    began = time.monotonic()
    peer = lab.tcp()
    head, _ = wire.request("/" + "x" * 200)
    for byte in head[:30]:
        if not peer.try_send(bytes([byte])) or lab.all("handshake_failed"):
            break
        time.sleep(0.05)
    event = lab.wait("handshake_failed", peer=f"127.0.0.1:{peer.port}")
    equal(event["cause"], "Timeout", "cause")
    on_time(event["at"] - began, 500, "Timeout")


def s3_handshake_in_time_is_not_cut_later(start):
    """handshake_timeout ends with the handshake."""
    lab = start(handshake_timeout=300)
    peer = lab.peer()
    time.sleep(0.6)
    peer.expect_alive()
    lab.none("handshake_failed", 0)


def s3_heartbeat_ping_after_the_interval(start):
    """heartbeat.interval: after so long without an inbound byte a Ping is sent; and again after the Pong."""
    lab = start(heartbeat_interval=300, heartbeat_timeout=2000)
    peer = lab.peer()
    began = time.monotonic()
    for _ in range(2):
        frame = peer.recv()
        equal(frame.opcode, wire.PING, "the opcode")
        # The silence began a little before we looked at the clock.
        on_time(time.monotonic() - began, 300, "the Ping", early_ms=60)
        began = time.monotonic()
        peer.send(wire.PONG, frame.payload)
    lab.none("closing", 0, id=peer.id)


def s3_heartbeat_interval_is_extended_by_any_byte(start):
    """heartbeat.interval counts from the last inbound byte, be it part of a frame only."""
    lab = start(heartbeat_interval=400, heartbeat_timeout=2000)
    peer = lab.peer()
    data = wire.encode(wire.TEXT, b"0123456789")
    for at in range(len(data)):
        if at > 0:
            time.sleep(0.1)
        peer.send_raw(data[at : at + 1])
    last = time.monotonic()
    frame = peer.recv()
    equal(frame.opcode, wire.TEXT, "a Ping came while bytes came: the opcode")
    frame = peer.recv()
    equal(frame.opcode, wire.PING, "the opcode")
    on_time(time.monotonic() - last, 400, "the Ping", early_ms=120)


def s3_heartbeat_timeout(start):
    """heartbeat.timeout after our Ping: Close 1011 with an empty backlog, cause HeartbeatTimeout, Local."""
    lab = start(heartbeat_interval=300, heartbeat_timeout=400)
    peer = lab.peer()
    began = time.monotonic()
    equal(peer.recv().opcode, wire.PING, "the opcode")
    peer.expect_code(1011)
    on_time(time.monotonic() - began, 700, "the Close", early_ms=60, late_ms=PROMISED)
    event = record(peer.closed(), 1006, 1011, False, "Local", "HeartbeatTimeout")
    on_time(event["at"] - began, 700, "the close event", early_ms=60, late_ms=PROMISED)
    equal(peer.recv_end(), "fin", "the end")


def s3_heartbeat_timeout_is_extended_by_any_byte(start):
    """heartbeat.timeout is extended by any inbound byte, a Pong or not."""
    lab = start(heartbeat_interval=200, heartbeat_timeout=400)
    peer = lab.peer()
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        peer.send_raw(wire.encode(wire.PONG, b"unasked"))
        time.sleep(0.3)
    check(not lab.all("close", id=peer.id), "closed in spite of inbound bytes")
    peer.text("alive")
    while peer.recv().opcode != wire.TEXT:
        pass


def s3_heartbeat_timeout_with_backlog(start):
    """heartbeat.timeout with a backlog: no Close can go out, abort; sent is null and effective 1006."""
    lab = start(heartbeat_interval=300, heartbeat_timeout=400, stall_timeout="off", max_backlog=BACKLOG)
    peer = lab.peer()
    peer.text(f"flood {CUT}")
    event = peer.closed()
    equal((event["cause"], event["initiator"], event["code"]), ("HeartbeatTimeout", "Local", 1006), "close")
    first_is_cut(event)
    frames, end = peer.recv_all()
    check(not [f for f in frames if f.opcode == wire.CLOSE], "a Close behind a cut backlog")
    equal(end, "reset", "the end")


def s3_heartbeat_off(start):
    """heartbeat.interval: None is off."""
    lab = start(heartbeat_interval="off", heartbeat_timeout=200)
    peer = lab.peer()
    peer.expect_silence(1.0)
    peer.expect_alive()


def s3_stall_timeout(start):
    """stall_timeout: backlog not empty and the kernel takes nothing: abort, WriteStall, Local, effective 1006."""
    lab = start(stall_timeout=500, max_backlog=BACKLOG)
    peer = lab.peer()
    began = time.monotonic()
    peer.text(f"flood {CUT}")
    event = record(peer.closed(), 1006, 1006, False, "Local", "WriteStall")
    # The kernel grows its buffer for a while. And a stall is probed by a write before it is judged: if the kernel has room
    # again and takes a part of the message, that is progress, and stall_timeout starts anew. That happens once at most,
    # because the probe fills the room, and a peer that reads nothing makes no more.
    on_time(event["at"] - began, 500, "WriteStall", late_ms=500 + 300)
    equal(event["sent"], None, "sent")
    first_is_cut(event)
    equal(peer.recv_end(), "reset", "the end")


def s3_stall_timeout_is_extended_by_a_byte_taken(start):
    """stall_timeout is extended by what the kernel takes: a slow reader is not a stalled one."""
    lab = start(stall_timeout=500, max_backlog=BACKLOG)
    peer = lab.peer()
    peer.text(f"flood {MANY}")
    check(peer.read_slowly(2.0, 1 << 20, 0.1), "cut while reading")
    check(not lab.all("close", id=peer.id), "a slow reader was taken for a stalled one")
    received = 0
    while received < 400:
        received += peer.recv().opcode == wire.BINARY
    peer.expect_alive()


def s3_stall_timeout_off(start):
    """stall_timeout: None is off."""
    lab = start(stall_timeout="off", max_backlog=BACKLOG)
    peer = lab.peer()
    peer.text(f"flood {MANY}")
    lab.none("close", 1.5, id=peer.id)


def s3_close_timeout(start):
    """close_timeout starts at the close() call; abort, cause CloseTimeout{flushed: true}."""
    lab = start(close_timeout=500)
    peer = lab.peer()
    began = time.monotonic()
    peer.text("close 4000 answer me")
    peer.expect_close(4000, "answer me")
    event = record(peer.closed(), 1006, 4000, False, "Local", "CloseTimeout")
    on_time(event["at"] - began, 500, "CloseTimeout")
    equal(event["cause_fields"], {"flushed": True}, "cause_fields")
    check(abs(event["close_phase_ms"] - 500) <= 250, f"close_phase_ms is {event['close_phase_ms']}")


def _with_trickle(start, trickle, pause):
    lab = start(close_timeout=700, log_messages=True)
    peer = lab.peer()
    began = time.monotonic()
    peer.text("close 4000 x")
    peer.expect_close(4000, "x")
    while time.monotonic() - began < 2 and not lab.all("close", id=peer.id):
        if not peer.try_send(next(trickle)):
            break
        time.sleep(pause)
    event = record(peer.closed(), 1006, 4000, False, "Local", "CloseTimeout")
    on_time(event["at"] - began, 700, "CloseTimeout")


@rows(
    ("one-byte-per-100-ms", lambda: (bytes([b]) for b in wire.encode(wire.TEXT, b"slow" * 30)), 0.1),
    ("message-per-50-ms", lambda: iter(lambda: wire.encode(wire.TEXT, b"data"), None), 0.05),
    ("ping-per-50-ms", lambda: iter(lambda: wire.encode(wire.PING, b"ping"), None), 0.05),
    ("large-messages", lambda: iter(lambda: wire.encode(wire.BINARY, bytes(100_000)), None), 0.01),
    ("endless-fragments", lambda: iter(lambda: wire.encode(wire.BINARY, b"", fin=False), None), 9),
)
def s3_close_timeout_is_extended_by_nothing_inbound(start, trickle, pause):
    """close_timeout is extended by nothing: not by bytes, messages, Pings."""
    _with_trickle(start, trickle(), pause)


def s3_close_timeout_is_not_extended_by_draining(start):
    """close_timeout is not extended by drained bytes (uWebSockets' is): a reader of the backlog is cut on time."""
    lab = start(close_timeout=800, flush_budget=800, max_backlog=BACKLOG, stall_timeout="off")
    peer = lab.peer()
    began = time.monotonic()
    peer.text(f"flood-close {MANY} 4000 x")
    peer.read_slowly(0.7, 200_000, 0.1)
    event = peer.closed()
    on_time(event["at"] - began, 800, "CloseTimeout", late_ms=50)
    record(event, 1006, 4000, False, "Local", "CloseTimeout")


def s3_close_timeout_covers_a_blocked_writer(start):
    """One close_timeout bounds flush and answer: a peer that reads nothing; CloseTimeout{flushed: false}."""
    lab = start(close_timeout=500, max_backlog=BACKLOG, stall_timeout="off")
    peer = lab.peer()
    began = time.monotonic()
    peer.text(f"flood-close {CUT} 4000 x")
    event = record(peer.closed(), 1006, 4000, False, "Local", "CloseTimeout")
    on_time(event["at"] - began, 500, "CloseTimeout", late_ms=50)
    equal(event["cause_fields"], {"flushed": False}, "cause_fields")
    equal(event["sent_flushed"], False, "sent_flushed")
    first_is_cut(event)


def s3_close_timeout_after_the_peers_close(start):
    """close_timeout starts at the peer's Close too: our backlog cannot hold it open."""
    lab = start(close_timeout=500, max_backlog=BACKLOG, stall_timeout="off")
    peer = lab.peer()
    peer.text(f"flood {CUT}")
    lab.wait("flood", id=peer.id)
    began = time.monotonic()
    peer.close(4001, "mine")
    event = record(peer.closed(), 4001, 4001, False, "Remote", "CloseTimeout")
    on_time(event["at"] - began, 500, "CloseTimeout")
    first_is_cut(event)


def s3_close_timeout_after_a_failure(start):
    """close_timeout starts at the failure too; the cause stays the failure."""
    lab = start(close_timeout=500, max_backlog=BACKLOG, stall_timeout="off")
    peer = lab.peer()
    peer.text(f"flood {CUT}")
    lab.wait("flood", id=peer.id)
    began = time.monotonic()
    peer.send(3, b"reserved opcode")
    event = record(peer.closed(), 1006, 1002, False, "Local", "Protocol")
    on_time(event["at"] - began, 500, "the abort")
    first_is_cut(event)


@rows(("shorter", 300), ("longer", 900))
def s3_the_calls_own_timeout_has_precedence(start, milliseconds):
    """Precedence: argument of the call, then the connection's setting, then the server's."""
    lab = start(close_timeout=600)
    peer = lab.peer()
    began = time.monotonic()
    peer.text(f"close-in {milliseconds} 4000 x")
    peer.expect_close(4000, "x")
    event = record(peer.closed(), 1006, 4000, False, "Local", "CloseTimeout")
    on_time(event["at"] - began, milliseconds, "CloseTimeout")


def s3_a_second_close_can_shorten(start):
    """close_timeout can only be shortened: a second close with a shorter one; the first frame wins."""
    lab = start(close_timeout=5000)
    peer = lab.peer()
    peer.text("close 4000 first")
    peer.expect_close(4000, "first")
    began = time.monotonic()
    peer.text("close-in 300 4001 second")
    event = record(peer.closed(), 1006, 4000, False, "Local", "CloseTimeout")
    on_time(event["at"] - began, 300, "CloseTimeout")
    equal(event["sent"]["code"], 4000, "sent.code")


@rows(("same", "close 4001 again"), ("longer", "close-in 5000 4001 longer"))
def s3_a_second_close_cannot_lengthen(start, again):
    """close_timeout is extended by nothing, a second close included."""
    lab = start(close_timeout=600)
    peer = lab.peer()
    began = time.monotonic()
    peer.text("close 4000 first")
    peer.expect_close(4000, "first")
    time.sleep(0.3)
    peer.text(again)
    event = record(peer.closed(), 1006, 4000, False, "Local", "CloseTimeout")
    on_time(event["at"] - began, 600, "CloseTimeout")


def s3_deadline_while_the_loop_is_busy(start):
    """A deadline fires within [T, T + 50 ms] plus the turn in progress, also while the loop is busy."""
    lab = start(close_timeout=500)
    busy = [lab.peer("/busy") for _ in range(4)]
    stop = threading.Event()

    def hammer(peer):
        data = wire.encode(wire.BINARY, bytes(1000)) * 50
        while not stop.is_set():
            if not peer.try_send(data):
                return
            received = 0
            while received < 50:
                peer.recv()
                received += 1

    threads = [threading.Thread(target=hammer, args=(peer,), daemon=True) for peer in busy]
    for thread in threads:
        thread.start()
    try:
        peer = lab.peer()
        began = time.monotonic()
        peer.text("close 4000 x")
        event = record(peer.closed(), 1006, 4000, False, "Local", "CloseTimeout")
        on_time(event["at"] - began, 500, "CloseTimeout", late_ms=50)
    finally:
        stop.set()
        for thread in threads:
            thread.join(5)


def s3_deadline_behind_a_blocking_callback(start):
    """A deadline that fell into a blocking callback fires right after it."""
    lab = start(close_timeout=300)
    peer, other = lab.peer(), lab.peer("/block")
    peer.text("close 4000 x")
    peer.expect_close(4000, "x")
    began = time.monotonic()
    other.text("block 800")
    event = peer.closed()
    on_time(event["at"] - began, 800, "CloseTimeout")
    equal(event["cause"], "CloseTimeout", "cause")


def s3_many_deadlines_at_once(start):
    """All deadlines of one instant fire within the promise."""
    lab = start(close_timeout=500)
    peers = [lab.peer("/many") for _ in range(100)]
    began = time.monotonic()
    lab.command("close-where /many 4000 x")
    for peer in peers:
        event = record(peer.closed(), 1006, 4000, False, "Local", "CloseTimeout")
        on_time(event["at"] - began, 500, "CloseTimeout")


def s3_linger_timeout_frees_the_descriptor(start):
    """linger_timeout: starts at our FIN; on expiry the descriptor is closed. Close was reported long before."""
    lab = start(linger_timeout=500)
    base = lab.control.stats()
    peer = lab.peer()
    peer.close(1000)
    peer.expect_close(1000)
    peer.expect_end("fin")
    began = time.monotonic()
    check(lab.wait("close", id=peer.id)["at"] - began < 0.2, "Close came late")
    equal(lab.control.stats()["lingering"], 1, "lingering")
    while lab.control.stats()["lingering"]:
        check(time.monotonic() - began < 3, "lingers for ever")
        time.sleep(0.01)
    on_time(time.monotonic() - began, 500, "the end of lingering", early_ms=80)
    equal(lab.control.stats()["fds"], base["fds"], "the descriptors")


def s3_linger_timeout_is_extended_by_nothing(start):
    """linger_timeout: bytes that keep coming do not extend it."""
    lab = start(linger_timeout=500)
    peer = lab.peer()
    peer.close(1000)
    peer.expect_close(1000)
    began = time.monotonic()
    while time.monotonic() - began < 2 and (lab.control.stats()["lingering"] or time.monotonic() - began < 0.2):
        peer.try_send(b"trickle")
        time.sleep(0.05)
    on_time(time.monotonic() - began, 500, "the end of lingering", early_ms=80, late_ms=60)


def s3_linger_bytes(start):
    """linger_bytes: with the budget of discarded bytes used up the descriptor is closed, with a reset."""
    lab = start(linger_timeout=10000, linger_bytes=200_000)
    peer = lab.peer()
    peer.close(1000)
    peer.expect_close(1000)
    lab.wait("close", id=peer.id)
    sent = 0
    while sent < 50_000_000 and peer.try_send(bytes(50_000), timeout=2):
        sent += 50_000
    check(sent < 50_000_000, "no budget for discarded bytes")
    check(sent >= 200_000, f"cut after {sent} bytes of 200000")
    lab_lingering = lab.control.stats()["lingering"]
    equal(lab_lingering, 0, "lingering")


def s3_within_linger_bytes_nothing_is_reset(start):
    """linger_bytes: what comes within the budget is discarded quietly until EOF, which frees at once."""
    lab = start(linger_timeout=5000, linger_bytes=10_000_000)
    peer = lab.peer()
    peer.close(1000)
    peer.expect_close(1000)
    peer.expect_end("fin")
    for _ in range(20):
        check(peer.try_send(bytes(100_000)), "reset within the budget")
    check(not peer.reset_behind_fin(0.1), "reset within the budget")
    equal(lab.control.stats()["lingering"], 1, "lingering")
    peer.gone()
    time.sleep(QUIET_S)
    equal(lab.control.stats()["lingering"], 0, "lingering after EOF")


def s3_linger_timeout_of_a_refusal(start):
    """linger_timeout for Refusing: starts at the answer's first byte."""
    lab = start(linger_timeout=500)
    peer = lab.tcp()
    peer.send_raw(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
    began = time.monotonic()
    check(400 <= peer.recv_answer().status < 500, "not refused")
    while True:
        now = lab.control.stats()
        if not now["lingering"] and not now["connecting"]:
            break
        check(time.monotonic() - began < 3, f"a refused one stays: {now}")
        time.sleep(0.01)
    on_time(time.monotonic() - began, 500, "the end of lingering", early_ms=80)


def s3_default_flush_budget_is_half(start):
    """flush_budget: half of close_timeout by default; at its end what has not begun is dropped."""
    lab = start(close_timeout=2000, max_backlog=BACKLOG, stall_timeout="off")
    peer = lab.peer()
    peer.text(f"flood-close {MANY} 4000 x")
    time.sleep(1.4)
    frames, _ = peer.recv_all(1.0)
    check(frames and frames[-1].opcode == wire.CLOSE, f"no Close at the end of {len(frames)} frames")
    check(len(frames) - 1 < 400, "nothing was dropped at half the close timeout")
    early = lab.peer()
    early.text(f"flood-close {MANY} 4000 x")
    time.sleep(0.4)
    frames, _ = early.recv_all(1.0)
    equal(len(frames), 401, "the frames of one who reads within the budget")
