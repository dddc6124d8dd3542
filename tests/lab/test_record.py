"""the closing specification section 5: what Close carries; its table, row by row."""

import time

import wire
from lab import check, equal, first_is_cut, nothing_lost, on_time, record, rows
from situations import blocked, closing


def s5_local_close_answered(start):
    """Section 5: local close, answered with c: c, c, clean, Local."""
    lab, peer = closing(start)
    peer.close(4444, "c")
    event = record(peer.closed(), 4444, 4444, True, "Local")
    equal(event["reason"], "c", "reason")


def s5_local_close_answered_empty(start):
    """Section 5: local close, answered empty: 1005, 1005, clean, Local."""
    lab, peer = closing(start)
    peer.close()
    record(peer.closed(), 1005, 1005, True, "Local")


def s5_crossed(start):
    """Section 5: crossed, peer sent c: c, c, clean, Both."""
    lab, peer, _ = blocked(start)
    peer.text("close 4000 x")
    peer.close(4001)
    lab.wait("closing", id=peer.id)
    peer.recv_all()
    record(peer.closed(), 4001, 4001, True, "Both", "Crossed")


def s5_peers_close_answered(start):
    """Section 5: peer's Close c, answered: c, c, clean, Remote."""
    lab = start()
    peer = lab.peer()
    peer.close(4001)
    event = record(peer.closed(), 4001, 4001, True, "Remote")
    equal(event["sent_flushed"], True, "sent_flushed")


def s5_peers_close_answer_failed(start):
    """Section 5: peer's Close c, our answer failed: c, c, not clean, Remote."""
    lab, peer, _ = blocked(start, close_timeout=300)
    peer.close(4001)
    first_is_cut(record(peer.closed(), 4001, 4001, False, "Remote"))


@rows(("timeout", None), ("eof", wire.Peer.half_close), ("rst", wire.Peer.reset))
def s5_local_close_without_answer(start, act):
    """Section 5: local close(k), then timeout / EOF / RST: 1006, k, not clean, Local."""
    lab, peer = closing(start, close_timeout=400)
    if act:
        act(peer)
    record(peer.closed(), 1006, 4000, False, "Local")


def s5_local_empty_close_without_answer(start):
    """Section 5: effective_code of an empty Close of ours without an answer is 1005."""
    lab = start(close_timeout=300)
    peer = lab.peer()
    peer.text("close")
    peer.expect_close()
    record(peer.closed(), 1006, 1005, False, "Local", "CloseTimeout")


@rows(
    ("1002", wire.encode(5, b""), {}, 1002, "Protocol"),
    ("1007", wire.encode(wire.TEXT, b"\xff"), {}, 1007, "InvalidUtf8"),
    ("1009", wire.encode(wire.TEXT, b"", announced=101), {"max_payload": 100}, 1009, "TooBig"),
    ("1011", b"", {"heartbeat_interval": 200, "heartbeat_timeout": 200}, 1011, "HeartbeatTimeout"),
)
def s5_failed_by_us(start, sent, options, code, cause):
    """Section 5: we failed it with 1002/1007/1009/1011: 1006, that code, not clean, Local."""
    lab = start(**options)
    peer = lab.peer()
    peer.send_raw(sent)
    record(peer.closed(), 1006, code, False, "Local", cause)


@rows(("1002", wire.close_payload(1006), 1002), ("1007", wire.close_payload(1000, b"\xff"), 1007))
def s5_peer_sent_an_invalid_close(start, payload, code):
    """Section 5: peer sent an invalid Close: 1006, 1002 or 1007, not clean, Local."""
    lab = start()
    peer = lab.peer()
    peer.send(wire.CLOSE, payload)
    event = record(peer.closed(), 1006, code, False, "Local")
    equal(event["reason"], "", "reason")


@rows(("fin", wire.Peer.half_close), ("rst", wire.Peer.reset))
def s5_transport(start, act):
    """Section 5: FIN without Close, RST: 1006, 1006, not clean, Transport."""
    lab = start()
    peer = lab.peer()
    act(peer)
    record(peer.closed(), 1006, 1006, False, "Transport")


def s5_terminate_while_open(start):
    """Section 5: terminate while Open: 1006, 1006, not clean, Local."""
    lab = start()
    peer = lab.peer()
    peer.text("terminate")
    event = record(peer.closed(), 1006, 1006, False, "Local", "Terminated")
    equal(
        (event["sent"], event["received"], event["sent_flushed"]),
        (None, None, False),
        "sent, received, flushed",
    )


def s5_terminate_after_the_peers_close(start):
    """Section 5: terminate after the peer's Close: peer's, peer's, not clean, Remote."""
    lab, peer, _ = blocked(start)
    peer.close(4001)
    lab.wait("closing", id=peer.id)
    lab.command("terminate-where /blocked")
    record(peer.closed(), 4001, 4001, False, "Remote", "Terminated")


def s5_durations(start):
    """Section 5: duration is the life of the connection, close_phase from the first Close to the report."""
    lab, peer = closing(start)
    began = lab.wait("open", id=peer.id)["at"]
    time.sleep(0.3)
    peer.close(4000)
    event = peer.closed()
    lived = (event["at"] - began) * 1000
    check(abs(event["duration_ms"] - lived) < 150, f"duration_ms is {event['duration_ms']}, lived {lived:.0f}")
    on_time(event["close_phase_ms"] / 1000, 300, "close_phase_ms", early_ms=60)


def s5_nothing_lost_in_an_ordinary_life(start):
    """Section 5: all zero means that nothing which send accepted was dropped; so an ordinary life has all zero."""
    lab = start()
    peer = lab.peer()
    for size in (0, 10, 70000):
        peer.binary(bytes(size))
        peer.expect(wire.BINARY, bytes(size))
    peer.text("flood 50 1000")
    equal(len([peer.recv() for _ in range(50)]), 50, "the flood")
    peer.close(1000)
    nothing_lost(peer.closed())
