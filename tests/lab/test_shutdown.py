"""the closing specification section 8: shutdown of the whole server."""

import signal
import time

import wire
from lab import (
    BACKLOG,
    CUT,
    MANY,
    PHASES,
    PROMISED_MS,
    QUIET_S,
    SLACK_MS,
    Failure,
    check,
    equal,
    frame_code,
    on_time,
    record,
    rows,
)


def swept(peer, code=1001):
    """The peer sees the sweep's Close and answers it."""
    peer.expect_code(code)
    peer.close(code)


def done(lab, timeout=10.0):
    """The report, the moment of Done, and the exit."""
    event = lab.wait("shutdown", timeout)
    lab.expect_exit(0)
    phases = [e["phase"] for e in lab.all("phase")]
    order = [PHASES.index(p) for p in phases]
    check(order == sorted(set(order)), f"the phases are {phases}")
    check("SoftSweep" in phases or "HardSweep" in phases, f"the phases are {phases}")
    equal(lab.events[-1]["event"], "shutdown", "the last event")
    return event["report"], event["at"]


def adds_up(report):
    """Everyone who was live ends in one of the five counts."""
    ended = sum(report[k] for k in ("clean", "by_peer", "timed_out", "terminated", "failed"))
    equal(ended, report["live_at_start"], f"clean + by_peer + timed_out + terminated + failed of {report}: it")


def lost_adds_up(lab, report):
    """Messages and bytes lost are those of the connections."""
    closes = lab.all("close")
    messages = sum(e["lost"]["messages"] for e in closes)
    partial = sum(e["lost"]["partial"] for e in closes)
    check(
        messages <= report["lost_messages"] <= messages + partial,
        f"lost_messages {report['lost_messages']}: {messages}",
    )
    if not partial:
        equal(report["lost_bytes"], sum(e["lost"]["bytes"] for e in closes), "lost_bytes")


@rows(("sigterm", signal.SIGTERM), ("sigint", signal.SIGINT))
def s8_signal_without_connections(start, number):
    """Section 8: the first signal is the plan; with nobody left it is done at once, and the exit status is 0."""
    lab = start(grace=5000)
    began = time.monotonic()
    lab.signal(number)
    report, at = done(lab)
    check(at - began < 0.3 + SLACK_MS / 1000, "a grace for nobody")
    equal(report["live_at_start"], 0, "live_at_start")
    adds_up(report)


def s8_swept_and_answered(start):
    """Section 8: every Open connection gets close(1001); answered: clean, cause ShutdownSoft, 1001."""
    lab = start(grace=5000)
    peers = [lab.peer() for _ in range(5)]
    began = time.monotonic()
    lab.signal()
    for peer in peers:
        swept(peer)
        peer.expect_end("fin")
        peer.gone()
    report, at = done(lab)
    check(at - began < 1.0, "Done came late")
    for peer in peers:
        record(peer.closed(), 1001, 1001, True, "Local", "ShutdownSoft")
    equal((report["live_at_start"], report["clean"]), (5, 5), "live_at_start, clean")
    adds_up(report)
    check(report["took_ms"] <= (at - began) * 1000 + 50, f"took_ms is {report['took_ms']}")


def s8_grace_ends_in_a_hard_sweep(start):
    """Section 8: at the end of Grace what is left is aborted: ShutdownHard, 1006, effective 1001, terminated."""
    lab = start(grace=600, close_timeout=9000)
    mute, polite = lab.peer(), lab.peer()
    began = time.monotonic()
    lab.signal()
    swept(polite)
    mute.expect_code(1001)
    event = record(mute.closed(), 1006, 1001, False, "Local", "ShutdownHard")
    on_time(event["at"] - began, 600, "the hard sweep", late_ms=50)
    report, at = done(lab)
    check((at - began) * 1000 <= 600 + 250 + SLACK_MS, f"Done after {at - began:.2f} s")
    equal((report["live_at_start"], report["clean"], report["terminated"]), (2, 1, 1), "live, clean, terminated")
    adds_up(report)
    phases = [e["phase"] for e in lab.all("phase")]
    check("Grace" in phases and "HardSweep" in phases, f"the phases are {phases}")


def s8_own_close_timeout_within_grace(start):
    """Section 8: one whose own close_timeout runs out first: CloseTimeout; and Done does not wait for the grace."""
    lab = start(grace=5000, close_timeout=400)
    peer = lab.peer()
    began = time.monotonic()
    lab.signal()
    peer.expect_code(1001)
    event = record(peer.closed(), 1006, 1001, False, "Local", "CloseTimeout")
    on_time(event["at"] - began, 400, "CloseTimeout", late_ms=50)
    peer.gone()
    report, at = done(lab)
    check(at - began < 1.5, "Done waited for the grace")
    equal((report["live_at_start"], report["timed_out"]), (1, 1), "live, timed out")
    adds_up(report)


def s8_lame_duck(start):
    """Section 8: LameDuck: ready is false at once (healthz 503), new upgrades get 503 and Retry-After, established
    connections are untouched; then the sweep."""
    lab = start(lame_duck=1000, grace=3000)
    peer = lab.peer()
    equal(lab.http("/healthz")[0], 200, "healthz before")
    began = time.monotonic()
    lab.signal()
    lab.wait("phase", phase="LameDuck")
    equal(lab.http("/healthz")[0], 503, "healthz in the lame duck")
    late = lab.tcp()
    late.send_raw(wire.request("/late")[0])
    answer = late.recv_answer()
    equal(answer.status, 503, "an upgrade in the lame duck")
    check(answer.headers.get("retry-after", "").isdigit(), f"Retry-After: {answer.text!r}")
    equal(answer.headers.get("connection", "").lower(), "close", "Connection")
    late.recv_end()
    check(late.end == "fin", "the 503 was cut by a reset")
    late.gone()
    equal(lab.wait("handshake_failed", peer=f"127.0.0.1:{late.port}")["cause"], "ShuttingDown", "cause")
    peer.expect_alive()
    check(not lab.all("closing", id=peer.id), "swept in the lame duck")
    peer.expect_code(1001)
    on_time(time.monotonic() - began, 1000, "the sweep", late_ms=50)
    peer.close(1001)
    peer.gone()
    report, at = done(lab)
    check((at - began) * 1000 <= 1000 + 250 + SLACK_MS, f"Done after {at - began:.2f} s")
    check(report["refused_503"] >= 1, f"refused_503 is {report['refused_503']}")
    equal((report["live_at_start"], report["clean"]), (1, 1), "live, clean")


def s8_connections_may_leave_in_the_lame_duck(start):
    """Section 8: a connection that its peer ends in the lame duck ends by the peer's Close, not by the shutdown."""
    lab = start(lame_duck=800, grace=3000)
    peer, other = lab.peer(), lab.peer()
    lab.signal()
    lab.wait("phase", phase="LameDuck")
    peer.close(1000)
    peer.expect_close(1000)
    record(peer.closed(), 1000, 1000, True, "Remote", "PeerClose")
    swept(other)
    other.gone()
    report, _ = done(lab)
    # Whether live_at_start is that of the lame duck or of the sweep is not said; nobody was cut in either case.
    adds_up(report)
    equal((report["terminated"], report["timed_out"]), (0, 0), "terminated, timed out")


def s8_sigint_skips_the_lame_duck(start):
    """Section 8: first SIGINT: the plan without lame duck."""
    lab = start(lame_duck=5000, grace=2000)
    peer = lab.peer()
    began = time.monotonic()
    lab.signal(signal.SIGINT)
    swept(peer)
    check(time.monotonic() - began < 0.5, "SIGINT waited for the lame duck")
    peer.gone()
    done(lab)


@rows(("term-term", signal.SIGTERM, signal.SIGTERM), ("term-int", signal.SIGTERM, signal.SIGINT),
      ("int-int", signal.SIGINT, signal.SIGINT))  # fmt: skip
def s8_second_signal_is_the_hard_sweep(start, first, second):
    """Section 8: the second signal is HardSweep, whatever the phase; the report says that somebody escalated."""
    lab = start(grace=9000, close_timeout=9000)
    peer = lab.peer()
    lab.signal(first)
    peer.expect_code(1001)
    time.sleep(0.2)
    began = time.monotonic()
    lab.signal(second)
    event = record(peer.closed(), 1006, 1001, False, "Local", "ShutdownHard")
    check(event["at"] - began < 0.3 + SLACK_MS / 1000, "the hard sweep came late")
    report, at = done(lab)
    check(at - began < 0.5 + SLACK_MS / 1000, "Done came late")
    check(report["escalated_by"], f"escalated_by is {report['escalated_by']!r}")
    equal((report["live_at_start"], report["terminated"]), (1, 1), "live, terminated")


def s8_second_signal_in_the_lame_duck(start):
    """Section 8: HardSweep out of the lame duck: Open connections are aborted, with no Close sent."""
    lab = start(lame_duck=9000, grace=9000)
    peer = lab.peer()
    lab.signal()
    lab.wait("phase", phase="LameDuck")
    began = time.monotonic()
    lab.signal()
    event = peer.closed()
    equal((event["code"], event["cause"], event["was_clean"]), (1006, "ShutdownHard", False), "the close")
    report, at = done(lab)
    check(at - began < 0.5 + SLACK_MS / 1000, "Done came late")
    equal(report["terminated"], 1, "terminated")


def s8_third_signal_is_the_default_disposition(start):
    """Section 8: the third signal has the default disposition, so a process whose callback hangs can still be ended."""
    lab = start(grace=9000)
    peer = lab.peer()
    peer.text("block 4000")
    time.sleep(0.3)
    for _ in range(3):
        lab.signal(signal.SIGTERM)
        time.sleep(0.15)
    lab.expect_exit(-signal.SIGTERM, 1.5)


def s8_no_escalation_no_name(start):
    """Section 8: without an escalation nobody is named."""
    lab = start()
    lab.signal()
    report, _ = done(lab)
    check(not report["escalated_by"], f"escalated_by is {report['escalated_by']!r}")
    check(not report["slowest"], f"slowest of nobody is {report['slowest']!r}")


def s8_shutdown_command(start):
    """the lab's interface, section 8: the shutdown command: no lame duck, its own grace."""
    lab = start(lame_duck=5000, grace=9000, close_timeout=9000)
    peer, mute = lab.peer(), lab.peer()
    began = time.monotonic()
    peer.text("shutdown 500")
    swept(peer)
    event = record(mute.closed(), 1006, 1001, False, "Local", "ShutdownHard")
    on_time(event["at"] - began, 500, "the hard sweep", late_ms=50)
    report, at = done(lab)
    check((at - began) * 1000 <= 500 + 250 + SLACK_MS, f"Done after {at - began:.2f} s")
    adds_up(report)


@rows(("shorter", 5000, 400, 700), ("longer", 700, 5000, 700))
def s8_second_shutdown_can_only_shorten(start, first, second, wanted):
    """Section 8: a second shutdown() can only shorten."""
    lab = start(close_timeout=9000)
    peer, mute = lab.peer(), lab.peer()
    began = time.monotonic()
    peer.text(f"shutdown {first}")
    mute.expect_code(1001)
    time.sleep(0.3)
    peer.text(f"shutdown {second}")
    event = mute.closed()
    on_time(event["at"] - began, wanted, "the hard sweep", late_ms=50)
    done(lab)


def s8_spread(start):
    """Section 8: Spread(duration): closes at uniformly random instants, each deadline from its own close."""
    lab = start(close_timeout=400, grace=3000)
    peers = [lab.peer() for _ in range(40)]
    began = time.monotonic()
    peers[0].text("shutdown 3000 1000")
    closings = [lab.wait("closing", id=p.id)["at"] - began for p in peers]
    check(max(closings) * 1000 <= 1000 + PROMISED_MS + SLACK_MS, f"the last close after {max(closings):.2f} s")
    quarters = [sum(q / 4 <= t < (q + 1) / 4 + (q == 3) for t in closings) for q in range(4)]
    # 40 draws: fewer than 2 in a quarter has a chance of about 0.0001 each.
    check(min(quarters) >= 2, f"not spread: {quarters} in the quarters")
    for peer in peers:
        event = record(peer.closed(), 1006, 1001, False, "Local", "CloseTimeout")
        on_time(event["at"] - lab.wait("closing", id=peer.id)["at"], 400, "its own deadline", early_ms=40)
    report, _ = done(lab)
    equal(report["timed_out"], 40, "timed out")
    adds_up(report)


def s8_spread_of_the_signals_plan(start):
    """the lab's interface: --spread shapes the plan of the signals."""
    lab = start(spread=800, grace=2000)
    peers = [lab.peer() for _ in range(20)]
    began = time.monotonic()
    lab.signal()
    closings = [lab.wait("closing", id=p.id)["at"] - began for p in peers]
    check(max(closings) - min(closings) > 0.2, f"not spread: {min(closings):.2f} to {max(closings):.2f} s")
    check(max(closings) * 1000 <= 800 + PROMISED_MS + SLACK_MS, f"the last close after {max(closings):.2f} s")
    for peer in peers:
        swept(peer)
        peer.gone()
    report, at = done(lab)
    equal(report["clean"], 20, "clean")


def s8_rate(start):
    """Section 8: Rate(per second): so many closes a second, no faster; Done by live / rate."""
    lab = start(rate=20, grace=2000)
    peers = [lab.peer() for _ in range(20)]
    began = time.monotonic()
    lab.signal()
    closings = sorted(lab.wait("closing", id=p.id)["at"] - began for p in peers)
    check(closings[-1] > 0.7, f"20 closes at 20 per second within {closings[-1]:.2f} s")
    check(closings[-1] * 1000 <= 1000 + PROMISED_MS + SLACK_MS, f"the last close after {closings[-1]:.2f} s")
    within = max(sum(t <= u < t + 0.25 for u in closings) for t in closings)
    check(within <= 10, f"{within} closes in 250 ms at 20 per second")
    for peer in peers:
        swept(peer)
        peer.gone()
    report, _ = done(lab)
    equal(report["clean"], 20, "clean")


def s8_unswept_ones_live_on_while_paced(start):
    """Section 8: a connection not yet swept is Open: it is served until its instant comes."""
    lab = start(grace=3000)
    peers = [lab.peer() for _ in range(10)]
    peers[0].text("shutdown 3000 1500")
    served = 0
    for peer in peers[1:]:
        peer.text("still here")
        try:
            served += peer.recv(1).opcode == wire.TEXT
        except wire.Silent:
            pass
    check(served >= 1, "nobody was served during the spread")
    for peer in peers:
        peer.try_send(wire.encode(wire.CLOSE, wire.close_payload(1000)))
    done(lab)


def s8_already_closing_keep_their_frame(start):
    """Section 8: those already closing keep their frame; their deadline is cut to the end of Grace."""
    lab = start(close_timeout=9000)
    closing, other = lab.peer(), lab.peer()
    closing.text("close 4000 mine")
    closing.expect_close(4000, "mine")
    began = time.monotonic()
    other.text("shutdown 500")
    swept(other)
    event = record(closing.closed(), 1006, 4000, False, "Local", ("ShutdownHard", "CloseTimeout"))
    on_time(event["at"] - began, 500, "the end", late_ms=50)
    equal(event["sent"], {"code": 4000, "reason": "mine"}, "sent")
    closing.expect_end("fin")
    report, _ = done(lab)
    equal(report["live_at_start"], 2, "live_at_start")


def s8_already_closing_may_finish_in_grace(start):
    """Section 8: one already closing that is answered within Grace is clean, by its own frame and cause."""
    lab = start(close_timeout=9000)
    closing, other = lab.peer(), lab.peer()
    closing.text("close 4000 mine")
    closing.expect_close(4000, "mine")
    other.text("shutdown 2000")
    swept(other)
    closing.close(4000)
    record(closing.closed(), 4000, 4000, True, "Local", "LocalClose")
    closing.gone()
    other.gone()
    report, _ = done(lab)
    equal(report["clean"], 2, "clean")


def s8_connecting_without_a_byte_is_closed_at_once(start):
    """Section 8, 4: a Connecting socket without one request byte: plain close, HandshakeFailed(ShuttingDown)."""
    lab = start(grace=3000)
    silent = lab.tcp()
    time.sleep(0.1)
    began = time.monotonic()
    lab.signal()
    event = lab.wait("handshake_failed", peer=f"127.0.0.1:{silent.port}")
    equal(event["cause"], "ShuttingDown", "cause")
    check(event["at"] - began < 0.3, "closed late")
    silent.expect_end("fin", 1)
    report, at = done(lab)
    check(at - began < 0.8, "Done waited for a silent one")


def s8_half_a_handshake_finishing_in_grace(start):
    """Section 8: a handshake finishing after the latch gets 503 and never becomes an unswept connection."""
    lab = start(grace=4000, close_timeout=9000)
    mute = lab.peer()
    half = lab.tcp()
    head, _ = wire.request("/late")
    half.send_raw(head[:40])
    time.sleep(0.1)
    lab.signal()
    mute.expect_code(1001)
    time.sleep(0.2)
    half.send_raw(head[40:])
    answer = half.recv_answer()
    equal(answer.status, 503, "the answer")
    check("retry-after" in answer.headers, f"no Retry-After: {answer.text!r}")
    equal(lab.wait("handshake_failed", peer=f"127.0.0.1:{half.port}")["cause"], "ShuttingDown", "cause")
    half.gone()
    mute.close(1001)
    mute.gone()
    report, _ = done(lab)
    check(report["refused_503"] >= 1, f"refused_503 is {report['refused_503']}")


def s8_half_a_handshake_never_finishing(start):
    """Section 8: Done comes in time whatever half-open handshakes do; they are reported once each."""
    lab = start(grace=600, handshake_timeout=9000)
    halves = []
    for _ in range(5):
        half = lab.tcp()
        half.send_raw(b"GET / HTTP/1.1\r\nHost: x\r\n")
        halves.append(half)
    time.sleep(0.1)
    began = time.monotonic()
    lab.signal()
    report, at = done(lab)
    check((at - began) * 1000 <= 600 + 250 + SLACK_MS, f"Done after {at - began:.2f} s")
    for half in halves:
        equal(len(lab.all("handshake_failed", peer=f"127.0.0.1:{half.port}")), 1, "handshake_failed events")
    check(report["handshakes_cut"] + report["refused_503"] >= 5, f"{report}")


def s8_listener_closes_with_the_soft_sweep(start):
    """Section 8: SoftSweep: the listener closes; no Open after the latch."""
    lab = start(grace=2000, close_timeout=9000)
    mute = lab.peer()
    lab.signal()
    lab.wait("phase", phase="SoftSweep")
    mute.expect_code(1001)
    try:
        late = lab.tcp()
        late.send_raw(wire.request("/late")[0])
        status = late.recv_answer(1.0).status
    except (ConnectionError, wire.Ended):
        status = None
    check(status is None, f"the listener still answers, with {status}")
    mute.close(1001)
    mute.gone()
    done(lab)


def s8_lingering_holds_grace_for_linger_timeout_at_most(start):
    """Section 8: lingering sockets hold Grace for at most linger_timeout."""
    lab = start(grace=9000, linger_timeout=500)
    peer = lab.peer()
    began = time.monotonic()
    lab.signal()
    swept(peer)
    peer.expect_end("fin")
    report, at = done(lab)
    check((at - began) * 1000 <= 500 + 250 + SLACK_MS, f"Done after {at - began:.2f} s")
    equal(report["clean"], 1, "clean")


def s8_done_in_time_whatever_peers_do(start):
    """Section 8: Done <= lame duck + spread + grace + 250 ms, whatever peers, slow readers or descriptors do."""
    lab = start(
        lame_duck=300, spread=300, grace=700, max_backlog=BACKLOG, stall_timeout="off", close_timeout=9000,
        handshake_timeout=9000, linger_timeout=9000,
    )  # fmt: skip
    polite = [lab.peer("/polite") for _ in range(5)]
    mute = [lab.peer("/mute") for _ in range(5)]
    blocked = [lab.peer("/blocked") for _ in range(3)]
    for peer in blocked:
        peer.text(f"flood {CUT}")
        lab.wait("flood", id=peer.id)
    failing = lab.peer("/failing")
    failing.text(f"flood {CUT}")
    lab.wait("flood", id=failing.id)
    failing.send(5, b"")
    remote = lab.peer("/remote")
    remote.text(f"flood {CUT}")
    lab.wait("flood", id=remote.id)
    remote.close(4001)
    lingering = lab.peer("/lingering")
    lingering.close(1000)
    lingering.closed()
    half = lab.tcp()
    half.send_raw(b"GET / HT")
    lab.tcp()
    time.sleep(0.1)
    began = time.monotonic()
    lab.signal()
    for peer in polite:
        swept(peer)
    report, at = done(lab)
    check((at - began) * 1000 <= 1300 + 250 + SLACK_MS, f"Done after {at - began:.2f} s")
    for peer in mute:
        record(peer.closed(), 1006, 1001, False, "Local", "ShutdownHard")
    for peer in blocked:
        event = peer.closed()
        equal((event["cause"], event["sent_flushed"]), ("ShutdownHard", False), "cause, sent_flushed")
        check(event["lost"]["messages"] > 0, f"lost is {event['lost']}")
    equal(failing.closed()["cause"], "Protocol", "the failing one's cause")
    equal(remote.closed()["code"], 4001, "the code of the one whose peer had closed")
    check(report["live_at_start"] >= 15, f"live_at_start is {report['live_at_start']}")
    adds_up(report)
    lost_adds_up(lab, report)
    check(1 <= len(report["slowest"]) <= 10, f"slowest has {len(report['slowest'])} entries")


def s8_report_of_a_mixed_end(start):
    """Section 8: the report's counts: clean, terminated, ended by the peer's FIN; the sum is live_at_start."""
    lab = start(grace=800, close_timeout=9000)
    clean = [lab.peer("/clean") for _ in range(4)]
    mute = [lab.peer("/mute") for _ in range(3)]
    fins = [lab.peer("/fin") for _ in range(2)]
    lab.signal()
    for peer in clean:
        swept(peer)
    for peer in fins:
        peer.expect_code(1001)
        peer.half_close()
        record(peer.closed(), 1006, 1001, False, "Local", "PeerFinDuringClose")
    report, _ = done(lab)
    equal((report["live_at_start"], report["clean"], report["terminated"]), (9, 4, 3), "live, clean, terminated")
    adds_up(report)
    for peer in mute:
        record(peer.closed(), 1006, 1001, False, "Local", "ShutdownHard")


def s8_report_counts_the_lost(start):
    """Section 8: messages and bytes lost of the report are those of the connections' own reports."""
    lab = start(max_backlog=BACKLOG, stall_timeout="off", close_timeout=9000)
    blocked = [lab.peer("/blocked") for _ in range(2)]
    for peer in blocked:
        peer.text(f"flood {MANY}")
        lab.wait("flood", id=peer.id)
    lab.command("shutdown 400")
    report, _ = done(lab)
    lost_adds_up(lab, report)
    check(report["lost_messages"] > 0 and report["lost_bytes"] > 0, f"{report}")


def s8_queued_messages_go_out_before_the_sweeps_close(start):
    """Sections 6, 8: a sweep is a close: what is queued goes out first, within the flush budget."""
    lab = start(max_backlog=BACKLOG, close_timeout=4000, flush_budget=3000, grace=4000)
    peer = lab.peer()
    peer.text(f"flood {MANY}")
    lab.wait("flood", id=peer.id)
    lab.signal()
    lab.wait("closing", id=peer.id)
    frames = []
    while not frames or frames[-1].opcode != wire.CLOSE:
        frames.append(peer.recv())
    equal((len(frames), frames[-1].code), (401, 1001), "the frames and the code")
    peer.close(1001)
    record(peer.closed(), 1001, 1001, True, "Local", "ShutdownSoft")
    peer.gone()
    report, _ = done(lab)
    equal(report["lost_messages"], 0, "lost_messages")


def s8_zero_grace(start):
    """Section 8: any phase may have length zero."""
    lab = start(close_timeout=9000)
    peer = lab.peer()
    began = time.monotonic()
    peer.text("shutdown 0")
    event = peer.closed()
    check(event["cause"] in ("ShutdownHard", "ShutdownSoft"), f"cause {event['cause']}")
    _, at = done(lab)
    check((at - began) * 1000 <= 250 + SLACK_MS, f"Done after {at - began:.2f} s")


def s8_shutdown_of_many(start):
    """Section 8: a thousand connections, half of them mute: all closed, the report adds up, Done in time."""
    lab = start(grace=1000, close_timeout=9000)
    peers = [lab.peer("/many") for _ in range(600)]
    began = time.monotonic()
    lab.signal()
    for peer in peers[::2]:
        swept(peer)
    report, at = done(lab)
    check((at - began) * 1000 <= 1000 + 250 + SLACK_MS, f"Done after {at - began:.2f} s")
    equal(
        (report["live_at_start"], report["clean"], report["terminated"]),
        (600, 300, 300),
        "live, clean, terminated",
    )
    equal(len(report["slowest"]), 10, "the slowest ones")
    equal(len(lab.all("close")), 601, "the close events (with that of the harness)")


def s8_shutdown_with_workers(start):
    """Section 8: the plan covers all loops; one report."""
    lab = start(workers=2, grace=800, close_timeout=9000)
    peers = [lab.peer() for _ in range(10)]
    began = time.monotonic()
    lab.signal()
    for peer in peers[:5]:
        swept(peer)
    event = lab.wait("shutdown")
    check((event["at"] - began) * 1000 <= 800 + 250 + SLACK_MS, f"Done after {event['at'] - began:.2f} s")
    lab.expect_exit(0)
    equal(len(lab.all("shutdown")), 1, "the number of reports")
    report = event["report"]
    equal(
        (report["live_at_start"], report["clean"], report["terminated"]),
        (10, 5, 5),
        "live, clean, terminated",
    )


def s8_blocking_callback_delays_but_does_not_lose(start):
    """Section 8: a callback that blocks through the deadline is measured; the shutdown still ends right after it."""
    lab = start(grace=300, close_timeout=9000)
    blocker, mute = lab.peer(), lab.peer()
    blocker.text("block 900")
    time.sleep(0.1)
    began = time.monotonic()
    lab.signal()
    report, at = done(lab)
    check(at - began < 0.9 + 0.3 + 0.25 + SLACK_MS / 1000, f"Done after {at - began:.2f} s")
    check(report["longest_callback_ms"] >= 900, f"longest_callback_ms is {report['longest_callback_ms']}")
    equal(mute.closed()["effective_code"], 1001, "effective code")


def s9_sweep_then_shutdown(start):
    """Sections 8, 9: a shutdown during a sweep: the swept keep their frame, SweepDone still comes, before Done."""
    lab = start(close_timeout=9000)
    peer = lab.peer("/x")
    lab.command("close-where /x 4000 sweep")
    peer.expect_close(4000, "sweep")
    lab.command("shutdown 400")
    event = peer.closed()
    equal((event["effective_code"], frame_code(event["sent"])), (4000, 4000), "effective code, sent")
    report, _ = done(lab)
    equal(len(lab.all("sweep_done")), 1, "the number of SweepDone")


def s8_shutdown_code_is_1001(start):
    """Section 10: shutdown is 1001."""
    lab = start(grace=1000)
    peer = lab.peer()
    lab.signal(signal.SIGINT)
    try:
        reason = peer.expect_code(1001)
    except wire.Ended as ended:
        raise Failure(f"no Close: {ended}") from None
    check(len(reason.encode()) <= 60, f"the reason is {reason!r}")
    peer.close(1001)
    time.sleep(QUIET_S)
    peer.gone()
    done(lab)
