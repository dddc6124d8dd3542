"""the closing specification sections 3, 4 and 8, where a turn is late, a callback is slow, or reading is paused."""

import signal
import time

import wire
from lab import QUIET_S, SLACK_MS, check, equal, on_time, record, rows

# More than a loop takes from the kernel at once (128 events), so that deadlines expire before all of it is read.
CROWD = 400


class Stopped:
    """The process is stopped, as by a lack of processor time: while the block runs, and `seconds` more."""

    def __init__(self, lab, seconds):
        self.lab = lab
        self.seconds = seconds

    def __enter__(self):
        self.lab.signal(signal.SIGSTOP)
        return self

    def __exit__(self, *_):
        time.sleep(self.seconds)
        self.lab.signal(signal.SIGCONT)


def s3_answers_to_pings_survive_a_stall(start):
    """Section 3: probe before judgement: after a stall nobody whose Pong is in the kernel is called silent."""
    lab = start(heartbeat_interval=1500, heartbeat_timeout=2000)
    peers = [lab.peer("/crowd") for _ in range(CROWD)]
    for peer in peers:
        equal(peer.recv().opcode, wire.PING, "the frame")
    with Stopped(lab, 2.3):
        for peer in peers:
            peer.send(wire.PONG)
    time.sleep(0.3)
    silent = lab.all("close", cause="HeartbeatTimeout")
    check(not silent, f"{len(silent)} of {CROWD} that had answered ended by HeartbeatTimeout")
    for peer in peers[:: CROWD // 10]:
        peer.expect_alive()


def s3_answers_to_a_close_survive_a_stall(start):
    """Section 3: probe before judgement: after a stall whoever has answered our Close ends clean."""
    lab = start(close_timeout=700)
    peers = [lab.peer("/crowd") for _ in range(CROWD)]
    lab.command("close-where /crowd 4000 x")
    for peer in peers:
        peer.expect_close(4000, "x")
    with Stopped(lab, 1.0):
        for peer in peers:
            peer.close(4000)
    ends = [peer.closed() for peer in peers]
    late = [event for event in ends if event["cause"] == "CloseTimeout"]
    check(not late, f"{len(late)} of {CROWD} that had answered ended by CloseTimeout")
    for event in ends:
        record(event, 4000, 4000, True, "Local", "LocalClose")


def s3_upgrades_survive_a_stall(start):
    """Section 3: probe before judgement: after a stall a request that has come completely is accepted."""
    lab = start(handshake_timeout=1000)
    peers = [lab.tcp() for _ in range(CROWD)]
    for peer in peers:
        peer.send_raw(wire.request("/crowd")[0][:-2])
    time.sleep(0.2)
    with Stopped(lab, 1.0):
        for peer in peers:
            peer.send_raw(b"\r\n")
    answers = [peer.recv_answer().status for peer in peers]
    equal(answers.count(101), CROWD, f"101 of {CROWD}, beside {sorted(set(answers) - {101})}: the number")


def s3_close_timeout_starts_with_the_call(start):
    """Section 3: a deadline that a callback asks for is armed when it returns, whatever the turn did before."""
    lab = start()
    peer = lab.peer()
    peer.send_raw(wire.encode(wire.TEXT, b"block 600") + wire.encode(wire.TEXT, b"close-in 400 4000 x"))
    peer.expect_close(4000, "x")
    time.sleep(0.05)
    peer.try_send(wire.encode(wire.CLOSE, wire.close_payload(4000)))
    event = record(peer.closed(), 4000, 4000, True, "Local", "LocalClose")
    check(event["close_phase_ms"] < 300, f"a close phase of {event['close_phase_ms']} ms, its answer took 50")


def s3_close_timeout_after_a_slow_callback(start):
    """Section 3: and it fires on time, neither early nor by that callback late."""
    lab = start()
    peer = lab.peer()
    peer.send_raw(wire.encode(wire.TEXT, b"block 600") + wire.encode(wire.TEXT, b"close-in 400 4000 x"))
    peer.expect_close(4000, "x")
    began = time.monotonic()
    event = record(peer.closed(), 1006, 4000, False, "Local", "CloseTimeout")
    on_time(event["at"] - began, 400, "CloseTimeout", early_ms=30)


# Open and paused.


def paused(start, **options):
    lab = start(close_timeout=600, log_messages=True, **options)
    peer = lab.peer("/paused")
    peer.text("pause")
    lab.wait("message", id=peer.id)
    return lab, peer


@rows(("nothing-unread", b""), ("unread", wire.encode(wire.TEXT, b"unread") * 1000))
def s4_paused_rst(start, unread):
    """Open, paused | RST: Close(1006, PeerReset) at once; unread input is discarded."""
    lab, peer = paused(start)
    peer.send_raw(unread)
    time.sleep(QUIET_S)
    began = time.monotonic()
    peer.reset()
    event = record(peer.closed(2), 1006, 1006, False, "Transport", "PeerReset")
    on_time(event["at"] - began, 0, "the report")


@rows(("nothing-unread", b""), ("unread", wire.encode(wire.TEXT, b"unread") * 1000))
def s4_paused_fin(start, unread):
    """Open, paused | FIN: Close(1006, PeerFin) when close_timeout is over; what is discarded is counted."""
    lab, peer = paused(start)
    peer.send_raw(unread)
    time.sleep(QUIET_S)
    began = time.monotonic()
    peer.half_close()
    event = record(peer.closed(), 1006, 1006, False, "Transport", "PeerFin")
    on_time(event["at"] - began, 600, "the report")
    equal(event["lost"]["inbound_messages"], 1000 if unread else 0, "inbound_messages")


def s4_paused_fin_behind_a_close(start):
    """Open, paused | FIN: a Close that is found at the end of close_timeout is answered."""
    lab, peer = paused(start)
    began = time.monotonic()
    peer.send_raw(wire.encode(wire.TEXT, b"unread") + wire.encode(wire.CLOSE, wire.close_payload(4001, "bye")))
    peer.half_close()
    frame = peer.recv()
    equal((frame.opcode, frame.code), (wire.CLOSE, 4001), "the answer")
    on_time(time.monotonic() - began, 600, "the answer")
    event = record(peer.closed(), 4001, 4001, True, "Remote", "PeerClose")
    equal(event["lost"]["inbound_messages"], 1, "inbound_messages")


def s4_paused_fin_resumed_in_time(start):
    """Open, paused | FIN: resumed before the end of close_timeout, everything is delivered."""
    lab, peer = paused(start)
    peer.text("unread")
    peer.half_close()
    time.sleep(QUIET_S)
    lab.none("close", 0, id=peer.id)
    lab.command("resume-where /paused")
    lab.wait("message", id=peer.id, bytes=6)
    event = record(peer.closed(1), 1006, 1006, False, "Transport", "PeerFin")
    equal(event["lost"]["inbound_messages"], 0, "inbound_messages")


def s4_paused_without_an_end(start):
    """Open, paused: without a FIN nothing ends it: pause_timeout is off by default, heartbeats rest."""
    lab, peer = paused(start, heartbeat_interval=200, heartbeat_timeout=200)
    peer.expect_silence(1.0)
    lab.command("resume-where /paused")
    peer.expect_alive()


def s4_paused_timeout(start):
    """Open, paused | pause_timeout: then close_timeout, then reading goes on and discards; a Close is answered."""
    lab, peer = paused(start, pause_timeout=400)
    began = time.monotonic()
    peer.send_raw(wire.encode(wire.TEXT, b"unread") + wire.encode(wire.CLOSE, wire.close_payload(4001)))
    frame = peer.recv()
    equal((frame.opcode, frame.code), (wire.CLOSE, 4001), "the answer")
    on_time(time.monotonic() - began, 1000, "the answer", early_ms=100)
    event = record(peer.closed(), 4001, 4001, True, "Remote", "PeerClose")
    equal(event["lost"]["inbound_messages"], 1, "inbound_messages")


# The pace of a shutdown.


def s8_spread_ends_when_nobody_is_left(start):
    """Section 8: a paced sweep does not wait for connections that are gone."""
    lab = start(spread=8000, grace=1000)
    peers = [lab.peer() for _ in range(6)]
    began = time.monotonic()
    lab.signal()
    lab.wait("phase", phase="SoftSweep")
    for peer in peers:
        peer.try_send(wire.encode(wire.CLOSE, wire.close_payload(1000)))
        peer.recv_all(2)
        peer.gone()
    lab.report(4)
    took = time.monotonic() - began
    check(took < 2, f"Done after {took:.1f} s, with nobody left")
    lab.expect_exit()


def s8_second_shutdown_shortens_the_pace(start):
    """Section 8: a second shutdown can only shorten, its Spread too."""
    lab = start(close_timeout=300)
    peers = [lab.peer() for _ in range(20)]
    peers[0].text("shutdown 1000 9000")
    lab.wait("phase", phase="SoftSweep")
    began = time.monotonic()
    # A connection that is closing is obeyed, too.
    peers[0].text("shutdown 1000 500")
    report = lab.report(12)
    took = (time.monotonic() - began) * 1000
    limit = 500 + 1000 + 250 + SLACK_MS
    check(took <= limit, f"Done {took:.0f} ms after a shutdown that allows {limit:.0f}; its report: {report['took_ms']}")
    lab.expect_exit()


def s8_rate_of_several_loops(start):
    """Section 8: a rate is that of the server: Done by live / rate, also where one loop holds all connections."""
    lab = start(workers=4, rate=10, grace=1000)
    loops = {}
    for _ in range(80):
        peer = lab.peer()
        loops.setdefault(peer.id.split("-")[0], []).append(peer)
    check(len(loops) > 1, f"the loops of {list(loops)}")
    peers = max(loops.values(), key=len)
    for peer in sum(loops.values(), []):
        if peer not in peers:
            peer.close(1000)
            peer.closed()
    began = time.monotonic()
    lab.signal()
    closings = sorted(lab.wait("closing", timeout=15, id=peer.id)["at"] - began for peer in peers)
    wanted = len(peers) / 10
    limit = wanted + (250 + SLACK_MS) / 1000
    check(
        wanted * 0.7 <= closings[-1] <= limit,
        f"the last of {len(peers)} closes after {closings[-1]:.2f} s, wanted {wanted} to {limit:.2f}",
    )
    for peer in peers:
        peer.try_send(wire.encode(wire.CLOSE, wire.close_payload(1001)))
        peer.gone()
    lab.report()
    lab.expect_exit()
