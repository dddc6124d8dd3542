"""the closing specification section 4, the rows of LocalClosing, RemoteClosing and Lingering."""

import time

import wire
from lab import (
    QUIET_S,
    check,
    conserved,
    equal,
    first_is_cut,
    flood_numbers,
    frame_code,
    nothing_lost,
    record,
    rows,
)
from situations import COUNT, SIZE, blocked, closing

# LocalClosing.


@rows(("text", wire.TEXT, b"x" * 5000), ("binary", wire.BINARY, bytes(100_000)))
def s4_local_closing_data_is_delivered(start, opcode, payload):
    """LocalClosing | data: Message, marked closing; not echoed."""
    lab, peer = closing(start)
    peer.send(opcode, payload)
    event = lab.wait("message", id=peer.id, closing=True)
    equal((event["text"], event["bytes"]), (opcode == wire.TEXT, len(payload)), "the message")
    peer.close(4000)
    peer.expect_end("fin")
    event = record(peer.closed(), 4000, 4000, True, "Local", "LocalClose")
    equal((event["lost"]["inbound_messages"], event["lost"]["inbound_bytes"]), (0, 0), "inbound lost")


def s4_local_closing_data_discarded(start):
    """LocalClosing | data with closing data discarded: counted, and the peer's Close still comes through."""
    lab, peer = closing(start, closing_data="discard")
    for _ in range(7):
        peer.binary(bytes(1000))
    peer.close(4000)
    peer.expect_end("fin")
    event = record(peer.closed(), 4000, 4000, True, "Local", "LocalClose")
    equal((event["lost"]["inbound_messages"], event["lost"]["inbound_bytes"]), (7, 7000), "inbound lost")
    check(not lab.all("message", id=peer.id, closing=True), "delivered though it was to be discarded")


def s4_local_closing_reads_even_if_paused(start):
    """Open | close: reading resumes even if paused; what comes is counted and discarded, never unread."""
    lab = start(close_timeout=3000)
    peer = lab.peer("/paused")
    peer.text("pause")
    peer.expect_silence()
    lab.command("close-where /paused 4000 x")
    peer.expect_close(4000, "x")
    for _ in range(50):
        peer.binary(bytes(100_000))
    peer.close(4000)
    peer.expect_end("fin")
    record(peer.closed(), 4000, 4000, True, "Local")


def s4_local_closing_never_stops_reading(start):
    """LocalClosing | data: 30 MB of messages before the peer's Close, all read."""
    lab, peer = closing(start)
    for _ in range(30):
        peer.binary(bytes(1_000_000))
    peer.close(4000)
    peer.expect_end("fin")
    record(peer.closed(), 4000, 4000, True, "Local", "LocalClose")


def s4_local_closing_ping_is_answered(start):
    """LocalClosing | Ping: Pong, behind the Close."""
    lab, peer = closing(start)
    for payload in (b"one", b"two"):
        peer.ping(payload)
        peer.expect(wire.PONG, payload)
    peer.close(4000)
    peer.expect_end("fin")
    record(peer.closed(), 4000, 4000, True, "Local", "LocalClose")


def s4_local_closing_pong_goes_behind_the_queued_close(start):
    """LocalClosing | Ping with our Close queued: at most one Pong pending, and nothing else behind the Close."""
    lab, peer, _ = blocked(start, flush_budget=4000)
    peer.text("close 4000 x")
    lab.wait("closing", id=peer.id)
    for number in range(500):
        peer.ping(str(number).encode())
    time.sleep(QUIET_S)
    frames, _ = peer.recv_all(1.0)
    opcodes = [f.opcode for f in frames]
    equal(opcodes.count(wire.CLOSE), 1, "the number of Close frames")
    behind = frames[opcodes.index(wire.CLOSE) + 1 :]
    equal([f.opcode for f in behind], [wire.PONG] * len(behind), "what is behind the Close")
    check(opcodes.count(wire.PONG) <= 2, f"{opcodes.count(wire.PONG)} Pongs")
    check(behind and behind[-1].payload == b"499", f"behind the Close: {behind}")


@rows(("same-code", 4000), ("another", 4001), ("1000", 1000), ("empty", None))
def s4_local_closing_answered(start, code):
    """LocalClosing | valid Close, ours flushed -> Lingering: code := peer's, clean, FIN, no second Close."""
    lab, peer = closing(start)
    began = time.monotonic()
    peer.close(code)
    peer.expect_end("fin")
    wanted = 1005 if code is None else code
    event = record(peer.closed(), wanted, wanted, True, "Local", "LocalClose")
    check(event["at"] - began < 0.3, "Close came late")
    equal((frame_code(event["sent"]), event["sent"]["reason"]), (4000, "ours"), "sent")
    nothing_lost(event)


def s4_local_closing_crossed(start):
    """LocalClosing | valid Close, ours not flushed -> RemoteClosing: no second Close, the queued one stands."""
    lab, peer, flood = blocked(start, flush_budget=4000)
    lab.command("close-where /blocked 4000 ours")
    lab.wait("closing", id=peer.id)
    peer.close(4001, "theirs")
    time.sleep(QUIET_S)
    frames, end = peer.recv_all()
    equal(end, "fin", "the end")
    closes = [f for f in frames if f.opcode == wire.CLOSE]
    equal([(f.code, f.reason) for f in closes], [(4000, "ours")], "the Close frames on the wire")
    check(frames[-1] is closes[0], "frames behind our Close")
    event = record(peer.closed(), 4001, 4001, True, "Both", "Crossed")
    equal(event["received"], {"code": 4001, "reason": "theirs"}, "received")
    conserved(flood, event, flood_numbers(frames, SIZE), size=SIZE)


def s4_local_closing_crossed_in_one_read(start):
    """Section 4: our Close and the peer's in the same turn: one Close on the wire, code the peer's, clean."""
    lab = start()
    peer = lab.peer()
    peer.send_raw(wire.encode(wire.TEXT, b"close 4000 ours") + wire.encode(wire.CLOSE, wire.close_payload(4001)))
    peer.expect_close(4000, "ours")
    peer.expect_end("fin")
    event = peer.closed()
    equal((event["code"], event["was_clean"]), (4001, True), "code, clean")
    # Whether ours was in the kernel before theirs was parsed is the implementation's business.
    pair = (event["initiator"], event["cause"])
    check(pair in (("Both", "Crossed"), ("Local", "LocalClose")), f"initiator and cause are {pair}")


@rows(
    ("bad-code", wire.encode(wire.CLOSE, wire.close_payload(1005))),
    ("one-byte", wire.encode(wire.CLOSE, b"\x03")),
    ("rsv", wire.encode(wire.TEXT, b"x", rsv=2)),
    ("opcode", wire.encode(5, b"")),
    ("unmasked", wire.encode(wire.TEXT, b"x", mask=False)),
)
def s4_local_closing_violation(start, sent):
    """LocalClosing | invalid Close, violation -> Lingering: no second Close; 1006, not clean, Protocol."""
    lab, peer = closing(start)
    began = time.monotonic()
    peer.send_raw(sent)
    peer.expect_end("fin")
    event = record(peer.closed(), 1006, 4000, False, "Local", "Protocol")
    check(event["at"] - began < 0.3, "Close came late")


def s4_local_closing_bad_reason(start):
    """LocalClosing | invalid Close (its reason's UTF-8) -> Lingering: no second Close; 1006, not clean."""
    lab, peer = closing(start)
    peer.send(wire.CLOSE, wire.close_payload(1000, b"\xff"))
    peer.expect_end("fin")
    record(peer.closed(), 1006, 4000, False, "Local", ("Protocol", "InvalidUtf8"))


def s4_local_closing_eof(start):
    """LocalClosing | EOF -> Closed: 1006, not clean, PeerFinDuringClose; effective is our code."""
    lab, peer = closing(start)
    peer.half_close()
    event = record(peer.closed(1.0), 1006, 4000, False, "Local", "PeerFinDuringClose")
    equal(event["sent_flushed"], True, "sent_flushed")
    peer.expect_end("fin")


def s4_local_closing_rst(start):
    """LocalClosing | RST -> Closed: 1006, not clean, PeerResetDuringClose."""
    lab, peer = closing(start)
    peer.reset()
    record(peer.closed(1.0), 1006, 4000, False, "Local", "PeerResetDuringClose")


def s4_local_closing_rst_with_backlog(start):
    """LocalClosing | RST with the Close unflushed: it counts as sent, with sent_flushed false."""
    lab, peer, _ = blocked(start)
    peer.text("close 4000 x")
    lab.wait("closing", id=peer.id)
    peer.reset()
    event = record(peer.closed(1.0), 1006, 4000, False, "Local", ("PeerResetDuringClose", "Io"))
    equal((frame_code(event["sent"]), event["sent_flushed"]), (4000, False), "sent, sent_flushed")
    first_is_cut(event)


def s4_local_closing_send_fails(start):
    """LocalClosing | send: Err(Closing), at once, nothing queued."""
    lab, peer = closing(start)
    peer.text("flood 5 100")
    event = lab.wait("flood", id=peer.id)
    equal((event["accepted"], event["refused"]), (0, 5), "flood")
    peer.expect_silence()
    peer.close(4000)
    peer.expect_end("fin")
    nothing_lost(peer.closed())


def s4_local_closing_close_again(start):
    """LocalClosing | close again: no-op, the first frame wins; one Closing."""
    lab, peer = closing(start)
    for again in ("close 4001 second", "close", "kick 4002 third|message", "late"):
        peer.text(again)
    peer.expect_silence()
    peer.close(4000)
    peer.expect_end("fin")
    event = record(peer.closed(), 4000, 4000, True, "Local", "LocalClose")
    equal(event["sent"], {"code": 4000, "reason": "ours"}, "sent")
    equal(len(lab.all("closing", id=peer.id)), 1, "the number of closing events")


def s4_local_closing_terminate(start):
    """LocalClosing | terminate -> Closed: abort, 1006, not clean, Terminated; effective is our code."""
    lab, peer = closing(start)
    began = time.monotonic()
    lab.command("terminate-where /closing")
    event = record(peer.closed(1.0), 1006, 4000, False, "Local", "Terminated")
    check(event["at"] - began < 0.3, "Close came late")
    equal(peer.recv_end(), "reset", "the end")


def s4_local_closing_terminate_by_command(start):
    """LocalClosing | terminate from the connection's own message."""
    lab, peer = closing(start)
    peer.text("terminate")
    record(peer.closed(1.0), 1006, 4000, False, "Local", "Terminated")


def s4_local_closing_deadline(start):
    """LocalClosing | deadline -> Closed: CloseTimeout{flushed: true}."""
    lab, peer = closing(start, close_timeout=300)
    event = record(peer.closed(), 1006, 4000, False, "Local", "CloseTimeout")
    equal(event["cause_fields"], {"flushed": True}, "cause_fields")


def s4_local_closing_hard_sweep(start):
    """LocalClosing | hard sweep -> Closed: ShutdownHard."""
    lab, peer = closing(start, close_timeout=9000)
    lab.command("shutdown 200")
    record(peer.closed(), 1006, 4000, False, "Local", "ShutdownHard")
    lab.report()
    lab.expect_exit(0)


# RemoteClosing.


def s4_remote_closing_flushes(start):
    """RemoteClosing | flushed -> Lingering: the backlog, then Close(peer's code, clean), FIN."""
    lab, peer, flood = blocked(start, flush_budget=4000)
    peer.close(4001, "theirs")
    lab.wait("closing", id=peer.id, initiator="Remote")
    lab.none("close", id=peer.id)
    frames, end = peer.recv_all()
    equal((frames[-1].opcode, frames[-1].payload, end), (wire.CLOSE, wire.close_payload(4001, "theirs"), "fin"), "the end")
    event = record(peer.closed(), 4001, 4001, True, "Remote", "PeerClose")
    conserved(flood, event, flood_numbers(frames, SIZE), size=SIZE)
    equal(len(frames), COUNT + 1, "the frames")
    nothing_lost(event)


def s4_remote_closing_counts_trailing_bytes(start):
    """RemoteClosing | inbound bytes: discarded, counted as trailing; never parsed."""
    lab, peer, _ = blocked(start, flush_budget=4000)
    behind = (wire.encode(wire.TEXT, b"flood 5 100") + wire.encode(5, b"")) * 200
    peer.close(4001)
    lab.wait("closing", id=peer.id)
    peer.send_raw(behind)
    time.sleep(QUIET_S)
    frames, end = peer.recv_all()
    equal((frames[-1].code, end), (4001, "fin"), "the end")
    event = record(peer.closed(), 4001, 4001, True, "Remote", "PeerClose")
    equal(event["lost"]["trailing_bytes"], len(behind), "trailing_bytes")
    equal(len(lab.all("message", id=peer.id)), 1, "the messages delivered")


def s4_remote_closing_half_close(start):
    """RemoteClosing | EOF: keep flushing, half-close is legal; clean, nothing lost."""
    lab, peer, flood = blocked(start, flush_budget=4000)
    peer.close(4001)
    peer.half_close()
    lab.none("close", id=peer.id)
    frames, end = peer.recv_all()
    equal((frames[-1].code, end), (4001, "fin"), "the end")
    event = record(peer.closed(), 4001, 4001, True, "Remote", "PeerClose")
    conserved(flood, event, flood_numbers(frames, SIZE), size=SIZE)
    nothing_lost(event)


def s4_remote_closing_rst(start):
    """RemoteClosing | EPIPE, RST -> Closed: peer's code, not clean, PeerResetDuringClose."""
    lab, peer, _ = blocked(start)
    peer.close(4001, "theirs")
    lab.wait("closing", id=peer.id)
    peer.reset()
    event = record(peer.closed(1.0), 4001, 4001, False, "Remote", ("PeerResetDuringClose", "Io"))
    equal((frame_code(event["sent"]), event["sent_flushed"]), (4001, False), "sent, sent_flushed")
    first_is_cut(event)


def s4_remote_closing_terminate(start):
    """RemoteClosing | terminate -> Closed: peer's code, not clean, Terminated."""
    lab, peer, _ = blocked(start)
    peer.close(4001, "theirs")
    lab.wait("closing", id=peer.id)
    lab.command("terminate-where /blocked")
    event = record(peer.closed(1.0), 4001, 4001, False, "Remote", "Terminated")
    first_is_cut(event)


def s4_remote_closing_hard_sweep(start):
    """RemoteClosing | hard sweep -> Closed: peer's code, not clean, ShutdownHard."""
    lab, peer, _ = blocked(start, close_timeout=9000, flush_budget=9000)
    peer.close(4001, "theirs")
    lab.wait("closing", id=peer.id)
    lab.command("shutdown 200")
    event = record(peer.closed(), 4001, 4001, False, "Remote", "ShutdownHard")
    first_is_cut(event)
    lab.report()
    lab.expect_exit(0)


def s4_remote_closing_is_not_swept_again(start):
    """RemoteClosing | close: no-op; the answer stays the peer's code."""
    lab, peer, _ = blocked(start, flush_budget=4000)
    peer.close(4001)
    lab.wait("closing", id=peer.id)
    lab.command("close-where /blocked 4000 ours")
    equal(lab.wait("sweep_done")["matched"], 0, "matched")
    frames, _ = peer.recv_all()
    equal([f.code for f in frames if f.opcode == wire.CLOSE], [4001], "the Close frames on the wire")
    record(peer.closed(), 4001, 4001, True, "Remote", "PeerClose")


# Lingering.


def s2_close_is_reported_on_entering_lingering(start):
    """Section 2: Close is reported at the first moment at which the outcome cannot change; the socket lingers on."""
    lab, peer = closing(start, linger_timeout=5000)
    base = lab.control.stats()
    began = time.monotonic()
    peer.close(4000)
    check(peer.closed()["at"] - began < 0.2, "Close came late")
    now = lab.control.stats()
    equal((now["open"], now["closing"], now["lingering"]), (base["open"], 0, 1), "open, closing, lingering")


@rows(("eof", wire.Peer.gone), ("half", wire.Peer.half_close), ("rst", wire.Peer.reset))
def s4_lingering_ends(start, act):
    """Lingering | EOF, RST -> Closed: the descriptor is closed, no event."""
    lab, peer = closing(start, linger_timeout=9000)
    peer.close(4000)
    peer.expect_end("fin")
    peer.closed()
    before = len(lab.events)
    act(peer)
    deadline = time.monotonic() + 1
    while lab.control.stats()["lingering"]:
        check(time.monotonic() < deadline, "still lingering")
        time.sleep(0.01)
    equal([e for e in lab.events[before:] if e.get("id") == peer.id], [], "events behind Close")


def s4_lingering_bytes_are_no_event(start):
    """Lingering | bytes: discarded, frames or garbage; nothing follows Close."""
    lab, peer = closing(start, linger_timeout=1000)
    peer.close(4000)
    peer.expect_end("fin")
    peer.closed()
    before = len(lab.events)
    for data in (wire.encode(wire.TEXT, b"flood 3 100"), wire.encode(wire.CLOSE, b""), b"\xff" * 1000):
        check(peer.try_send(data), "reset within the linger time")
    check(not peer.reset_behind_fin(0.1), "reset within the linger time")
    equal([e for e in lab.events[before:] if e.get("id") == peer.id], [], "events behind Close")
