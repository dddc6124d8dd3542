"""the closing specification section 6: close, kick, terminate and what was queued; section 7: abort styles on the wire."""

import time

import wire
from lab import (
    BACKLOG,
    CUT,
    MANY,
    QUIET_S,
    check,
    conserved,
    equal,
    first_is_cut,
    flood_numbers,
    frame_code,
    nothing_lost,
    on_time,
    record,
    rows,
)

COUNT, SIZE = map(int, MANY.split())
CUT_SIZE = int(CUT.split()[1])


def big(start, **options):
    """A server that takes the flood, with no timer in the way; and a peer that does not read by itself."""
    lab = start(**{"max_backlog": BACKLOG, "stall_timeout": "off", "close_timeout": 3000, **options})
    return lab, lab.peer("/big")


def flooded(lab, peer):
    return lab.wait("flood", id=peer.id)


# Section 6: close.


@rows(("few", 10, 100), ("many", 2000, 500), ("large", 20, 1 << 20))
def s6_close_goes_behind_everything_queued(start, count, size):
    """Section 6: close goes behind everything queued; nothing is lost for one who reads."""
    lab, peer = big(start)
    peer.text(f"flood-close {count} {size} 4000 behind it")
    numbers = flood_numbers([peer.recv() for _ in range(count)], size)
    equal(numbers, list(range(count)), "the numbers")
    peer.expect_close(4000, "behind it")
    peer.close(4000)
    event = record(peer.closed(), 4000, 4000, True, "Local", "LocalClose")
    nothing_lost(event)
    conserved(flooded(lab, peer), event, numbers, size=size)


def s6_flush_budget(start):
    """Section 6: at the budget's end what has not begun is dropped, the message on the wire completed, the Close goes
    out, and the rest of close_timeout waits for the answer."""
    lab, peer = big(start, flush_budget=300)
    peer.text(f"flood-close {MANY} 4000 still told")
    time.sleep(0.8)
    numbers = []
    while (frame := peer.recv()).opcode == wire.BINARY:
        numbers += flood_numbers([frame], SIZE)
    equal(
        (frame.opcode, frame.payload),
        (wire.CLOSE, wire.close_payload(4000, "still told")),
        "behind the messages",
    )
    check(0 < len(numbers) < COUNT, f"{len(numbers)} messages came")
    equal(numbers, list(range(len(numbers))), "the numbers")
    peer.close(4000)
    peer.expect_end("fin")
    event = record(peer.closed(), 4000, 4000, True, "Local", "LocalClose")
    conserved(flooded(lab, peer), event, numbers, size=SIZE)
    equal(event["lost"]["partial"], 0, "partial")


def s6_flush_budget_within_nothing_is_dropped(start):
    """Section 6: a reader that comes back within the budget gets everything."""
    lab, peer = big(start, flush_budget=2500)
    peer.text(f"flood-close {MANY} 4000 x")
    time.sleep(0.8)
    frames = [peer.recv() for _ in range(COUNT + 1)]
    equal(flood_numbers(frames, SIZE), list(range(COUNT)), "the numbers")
    equal(frames[-1].code, 4000, "the Close")
    peer.close(4000)
    nothing_lost(peer.closed())


def s6_slow_reader_still_learns_the_code(start):
    """Section 6: a merely slow reader still learns the code: whole messages, then the Close."""
    lab, peer = big(start, flush_budget=500, close_timeout=5000)
    peer.text(f"flood-close {MANY} 4000 for the slow")
    peer.read_slowly(1.5, 300_000, 0.1)
    frames = []
    while not frames or frames[-1].opcode != wire.CLOSE:
        frames.append(peer.recv())
    equal((frames[-1].code, frames[-1].reason), (4000, "for the slow"), "the Close")
    peer.close(4000)
    event = record(peer.closed(), 4000, 4000, True, "Local", "LocalClose")
    conserved(flooded(lab, peer), event, flood_numbers(frames, SIZE), size=SIZE)


def s6_small_receive_buffer(start):
    """Section 6: the same with a peer whose kernel takes little."""
    lab = start(max_backlog=BACKLOG, stall_timeout="off", close_timeout=5000, flush_budget=400)
    peer = lab.peer("/small", receive_buffer=32768)
    peer.text(f"flood-close {MANY} 4000 small")
    time.sleep(0.7)
    frames = []
    while not frames or frames[-1].opcode != wire.CLOSE:
        frames.append(peer.recv())
    peer.close(4000)
    event = record(peer.closed(), 4000, 4000, True, "Local", "LocalClose")
    conserved(flooded(lab, peer), event, flood_numbers(frames, SIZE), size=SIZE)


def s6_close_is_never_lost_under_back_pressure(start):
    """Section 6: limits on queues never apply to a Close: with the backlog full to the brim it still goes out."""
    lab = start(max_backlog=1 << 20, stall_timeout="off", close_timeout=4000, flush_budget=3500)
    peer = lab.peer("/full")
    # Refused for want of 100 bytes of room, so there is none for the 127 of the Close.
    peer.text("flood-close 50000 100 4000 " + "r" * 123)
    event = flooded(lab, peer)
    check(event["refused"] > 0, "the backlog is not full")
    frames = []
    while not frames or frames[-1].opcode != wire.CLOSE:
        frames.append(peer.recv())
    equal((frames[-1].code, frames[-1].reason), (4000, "r" * 123), "the Close")
    equal(len(frames) - 1, event["accepted"], "the messages before it")
    peer.close(4000)
    nothing_lost(peer.closed())


def s6_close_with_a_full_inbound_side(start):
    """Section 6: limits on fragments and buffers never apply to a Close either: an unfinished message at its limit."""
    lab = start(max_payload=1000, max_fragments=3, close_timeout=2000)
    peer = lab.peer("/frag")
    peer.send(wire.TEXT, b"x" * 999, fin=False)
    peer.send(wire.CONT, b"x", fin=False)
    lab.command("close-where /frag 4000 x")
    peer.expect_close(4000, "x")
    peer.close(4000)
    event = record(peer.closed(), 4000, 4000, True, "Local", "LocalClose")
    equal(event["lost"]["inbound_partial_bytes"], 1000, "inbound_partial_bytes")


def s6_send_after_close(start):
    """Section 6: after close, send fails at once with Closing; nothing is swallowed silently."""
    lab, peer = big(start)
    peer.text("late")
    lab.wait("send_refused", id=peer.id, error="Closing")
    peer.expect_close(1000)
    peer.close(1000)
    peer.expect_end("fin")


def s6_echo_and_close_in_order(start):
    """Section 6: what was accepted before a close goes out before it, in order, whatever asked for it."""
    lab = start()
    peer = lab.peer()
    data = b"".join(wire.encode(wire.TEXT, str(n).encode()) for n in range(500))
    peer.send_raw(data + wire.encode(wire.TEXT, b"close 4000 x") + wire.encode(wire.TEXT, b"not echoed"))
    for number in range(500):
        peer.expect_text(str(number))
    peer.expect_close(4000, "x")
    peer.expect_silence()
    peer.close(4000)
    nothing_lost(peer.closed())


@rows(("timeout", None), ("terminate", "terminate-where"), ("rst", wire.Peer.reset), ("eof", wire.Peer.half_close))
def s6_flush_budget_and_then_an_abort(start, act):
    """Sections 5, 6: conservation when the budget has dropped the queue and the frame on the wire is then cut."""
    lab, peer = big(start, close_timeout=900, flush_budget=200)
    peer.text(f"flood-close {CUT} 4000 x")
    time.sleep(0.5)
    if callable(act):
        act(peer)
    elif act:
        lab.command(f"{act} /big")
    event = peer.closed()
    equal(
        (event["code"], event["effective_code"], event["sent_flushed"]), (1006, 4000, False), "code, effective, flushed"
    )
    first_is_cut(event)


# Section 6: kick.


def s6_kick(start):
    """Section 6: kick is one act: the final message, then the Close; cause Kicked."""
    lab = start()
    peer = lab.peer()
    peer.text("kick 4003 enough of you|goodbye | friend")
    peer.expect_text("goodbye | friend")
    peer.expect_close(4003, "enough of you")
    peer.close(4003)
    event = record(peer.closed(), 4003, 4003, True, "Local", "Kicked")
    nothing_lost(event)
    equal(lab.wait("closing", id=peer.id)["initiator"], "Local", "Closing")


def s6_kick_beyond_the_queue_limit(start):
    """Section 6: the kick's message goes past the queue limit."""
    lab = start(max_backlog=1 << 20, stall_timeout="off", close_timeout=4000, flush_budget=3500)
    peer = lab.peer()
    # Longer than what one more message of the flood would have needed.
    words = "last words " * 20_000
    peer.text(f"flood-kick {MANY} 4003 over|{words}")
    event = flooded(lab, peer)
    check(event["refused"] > 0, "the backlog was not full")
    frames = []
    while not frames or frames[-1].opcode != wire.CLOSE:
        frames.append(peer.recv())
    equal((frames[-2].opcode, frames[-2].payload), (wire.TEXT, words.encode()), "before the Close")
    equal((frames[-1].code, frames[-1].reason), (4003, "over"), "the Close")
    equal(len(flood_numbers(frames, SIZE)), event["accepted"], "the messages before it")
    peer.close(4003)
    record(peer.closed(), 4003, 4003, True, "Local", "Kicked")


def s6_kick_unanswered(start):
    """Section 6, 5: a kick without an answer ends like any close: not clean, its code effective."""
    lab = start(close_timeout=300)
    peer = lab.peer()
    peer.text("kick 4003 x|y")
    peer.expect_text("y")
    record(peer.closed(), 1006, 4003, False, "Local", ("CloseTimeout", "Kicked"))


def s6_kick_then_close_is_a_no_op(start):
    """Section 4: the first frame wins, a kick's too."""
    lab = start()
    peer = lab.peer()
    peer.send_raw(wire.encode(wire.TEXT, b"kick 4003 x|y") + wire.encode(wire.TEXT, b"close 4000 z"))
    peer.expect_text("y")
    peer.expect_close(4003, "x")
    peer.expect_silence(0.1)


# Section 6: the peer's Close and our queue.


@rows(("default", {}), ("flush", {"on_peer_close": "flush"}))
def s6_on_peer_close_flush(start, options):
    """Section 6: on_peer_close FlushQueued is the default: everything queued goes out before the answer."""
    lab, peer = big(start, flush_budget=2500, **options)
    peer.text(f"flood {MANY}")
    flood = flooded(lab, peer)
    peer.close(4001)
    frames, end = peer.recv_all()
    equal((len(frames), frames[-1].code, end), (COUNT + 1, 4001, "fin"), "frames, code, end")
    event = record(peer.closed(), 4001, 4001, True, "Remote", "PeerClose")
    conserved(flood, event, flood_numbers(frames, SIZE), size=SIZE)
    nothing_lost(event)


def s6_on_peer_close_flush_is_bounded(start):
    """Section 6: FlushQueued is bounded by flush_budget; the answer still goes out, behind whole messages."""
    lab, peer = big(start, flush_budget=300)
    peer.text(f"flood {MANY}")
    flood = flooded(lab, peer)
    peer.close(4001)
    time.sleep(0.8)
    frames, end = peer.recv_all()
    equal((frames[-1].code, end), (4001, "fin"), "code, end")
    check(len(frames) < COUNT + 1, "nothing was dropped")
    event = record(peer.closed(), 4001, 4001, True, "Remote", "PeerClose")
    conserved(flood, event, flood_numbers(frames, SIZE), size=SIZE)


def s6_on_peer_close_drop(start):
    """Section 6: DropQueued: what had not begun is dropped and counted, the message on the wire completed."""
    lab, peer = big(start, on_peer_close="drop")
    peer.text(f"flood {MANY}")
    flood = flooded(lab, peer)
    time.sleep(0.1)
    peer.close(4001)
    lab.wait("closing", id=peer.id)
    frames, end = peer.recv_all()
    equal((frames[-1].code, end), (4001, "fin"), "code, end")
    event = record(peer.closed(), 4001, 4001, True, "Remote", "PeerClose")
    check(event["lost"]["messages"] > 0, f"lost is {event['lost']}")
    conserved(flood, event, flood_numbers(frames, SIZE), size=SIZE)


# Section 6: terminate.


def s6_terminate(start):
    """Section 6: terminate is immediate: no Close frame, no FIN exchange, reset by default; the event at once."""
    lab = start()
    peer = lab.peer()
    began = time.monotonic()
    peer.text("terminate")
    event = record(peer.closed(), 1006, 1006, False, "Local", "Terminated")
    check(event["at"] - began < 0.3, "the event came late")
    peer.expect_end("reset")
    check(not lab.all("closing", id=peer.id), "Closing without a Close")


def s6_terminate_writes_nothing_further(start):
    """Section 6: user space writes no further byte: of a flood in the same callback what is unsent is lost,
    and what came is whole or counted as cut."""
    lab, peer = big(start)
    peer.text(f"flood-terminate {MANY}")
    frames, end = peer.recv_all()
    equal(end, "reset", "the end")
    check(not [f for f in frames if f.opcode == wire.CLOSE], "a Close frame")
    event = record(peer.closed(), 1006, 1006, False, "Local", "Terminated")
    conserved(flooded(lab, peer), event, flood_numbers(frames, SIZE), exact=False, size=SIZE)
    if peer.buffer:
        check(
            event["lost"]["partial"] == 1 or event["lost"]["kernel_unsent"],
            f"a cut frame came: {event['lost']}",
        )


def s6_terminate_behind_an_echo_in_the_same_read(start):
    """Section 5: conservation: an echo accepted in the same turn as a terminate is sent or counted."""
    lab = start()
    peer = lab.peer()
    peer.send_raw(wire.encode(wire.BINARY, bytes(100)) + wire.encode(wire.TEXT, b"terminate fin"))
    frames, _ = peer.recv_all()
    lost = peer.closed()["lost"]
    equal(len(frames) + lost["messages"] + lost["partial"], 1, "echo received or lost")


def s6_commands_behind_terminate_do_nothing(start):
    """Section 6: on return the slot is dead to the caller: nothing behind a terminate is delivered, nothing crashes."""
    lab = start(log_messages=True)
    peer = lab.peer()
    peer.send_raw(
        b"".join(wire.encode(wire.TEXT, t) for t in (b"terminate", b"flood 3 100", b"close 4000 x", b"stats"))
    )
    peer.recv_end()
    record(peer.closed(), 1006, 1006, False, "Local", "Terminated")
    equal(len(lab.all("close", id=peer.id)), 1, "the number of close events")
    check(len(lab.all("message", id=peer.id)) <= 1, "messages behind a terminate")
    lab.peer().expect_alive()


def s6_terminate_twice(start):
    """Section 4: every call is legal in every state: terminate and terminate-where on the same connection."""
    lab = start()
    peer = lab.peer("/twice")
    peer.text("terminate-where /twice")
    record(peer.closed(), 1006, 1006, False, "Local", "Terminated")
    lab.command("terminate-where /twice")
    lab.wait("sweep_done", count=2)
    lab.control.expect_alive()


# Section 7.


@rows(("default", "terminate", "reset"), ("reset", "terminate reset", "reset"), ("fin", "terminate fin", "fin"),
      ("auto", "terminate auto", "fin"))  # fmt: skip
def s7_terminate_with_nothing_queued(start, command, end):
    """Section 7: terminate's default is Reset; Fin; Auto with an empty backlog is FIN."""
    lab = start()
    peer = lab.peer()
    peer.text(command)
    peer.expect_end(end)
    record(peer.closed(), 1006, 1006, False, "Local", "Terminated")


@rows(("reset", "reset", "reset"), ("auto", "auto", "reset"), ("fin", "fin", "fin"))
def s7_terminate_with_32_mb_queued(start, style, wanted):
    """Section 7: Auto with a frame cut or unsent is a reset: FIN after a cut frame looks like an orderly end."""
    lab, peer = big(start)
    peer.text(f"flood-terminate {CUT} {style}")
    frames, end = peer.recv_all()
    event = record(peer.closed(), 1006, 1006, False, "Local", "Terminated")
    lost = event["lost"]
    if lost["messages"] or lost["partial"]:
        equal(end, wanted, "the end")
    check(lost["messages"] > 0, f"32 MB went out in no time: {lost}")
    conserved(flooded(lab, peer), event, flood_numbers(frames, CUT_SIZE), exact=wanted == "fin", size=CUT_SIZE)


def s7_terminate_auto_with_unread_input(start):
    """Section 7: Auto with unread input: FIN after a short linger, since closing with unread input sends RST."""
    lab = start()
    peer = lab.peer()
    peer.text("last message before the end")
    peer.expect_text("last message before the end")
    peer.send_raw(wire.encode(wire.TEXT, b"terminate auto") + wire.encode(wire.BINARY, bytes(500_000)))
    peer.expect_end("fin")
    check(not peer.reset_behind_fin(0.05), "FIN, and then a reset")
    record(peer.closed(), 1006, 1006, False, "Local", "Terminated")


def s7_terminate_reset_with_unread_input(start):
    """Section 7: Reset is a reset whatever is unread."""
    lab = start()
    peer = lab.peer()
    peer.try_send(wire.encode(wire.TEXT, b"terminate reset") + wire.encode(wire.BINARY, bytes(500_000)))
    equal(peer.recv_end(), "reset", "the end")
    record(peer.closed(), 1006, 1006, False, "Local", "Terminated")


@rows(("default", {}, "fin"), ("auto", {"abort": "auto"}, "fin"), ("fin", {"abort": "fin"}, "fin"),
      ("reset", {"abort": "reset"}, "reset"))  # fmt: skip
def s7_close_timeout_with_everything_flushed(start, options, end):
    """Section 7: `abort` is for timeouts, default Auto; with all our bytes in the kernel Auto is FIN."""
    lab = start(close_timeout=300, **options)
    peer = lab.peer()
    peer.text("close 4000 x")
    peer.expect_close(4000, "x")
    peer.expect_end(end)
    record(peer.closed(), 1006, 4000, False, "Local", "CloseTimeout")


@rows(("auto", "auto", "reset"), ("reset", "reset", "reset"), ("fin", "fin", "fin"))
def s7_close_timeout_with_32_mb_queued(start, style, wanted):
    """Section 7: a timeout with a frame cut: Auto is a reset; and the lost are counted."""
    lab, peer = big(start, close_timeout=500, flush_budget=500, abort=style)
    peer.text(f"flood-close {CUT} 4000 x")
    event = record(peer.closed(), 1006, 4000, False, "Local", "CloseTimeout")
    equal(event["cause_fields"], {"flushed": False}, "cause_fields")
    frames, end = peer.recv_all()
    equal(end, wanted, "the end")
    first_is_cut(event)
    conserved(flooded(lab, peer), event, flood_numbers(frames, CUT_SIZE), exact=wanted == "fin", size=CUT_SIZE)


def s7_close_timeout_with_unread_input(start):
    """Section 7: a Close that the peer's kernel holds is not destroyed by a reset: the peer keeps sending, answers
    nothing, and still finds the Close and a FIN."""
    lab = start(close_timeout=400, closing_data="discard")
    peer = lab.peer()
    peer.text("close 4000 hear me")
    until = time.monotonic() + 1.5
    while time.monotonic() < until and not lab.all("close", id=peer.id):
        if not peer.try_send(wire.encode(wire.BINARY, bytes(60_000)), timeout=1):
            break
    peer.expect_close(4000, "hear me")
    equal(peer.recv_end(), "fin", "the end")


def s7_kernel_unsent(start):
    """Section 5: kernel_unsent is what the kernel had not sent at the abort (SIOCOUTQ)."""
    lab, peer = big(start)
    peer.text(f"flood {MANY}")
    flooded(lab, peer)
    time.sleep(0.2)
    lab.command("terminate-where /big")
    lost = peer.closed()["lost"]
    check(isinstance(lost["kernel_unsent"], int) and lost["kernel_unsent"] > 0, f"kernel_unsent: {lost}")
    check(lost["messages"] > 0, f"messages: {lost}")


@rows(("by-us", "close 4000 x"), ("by-peer", None))
def s7_orderly_end_with_unread_input(start, command):
    """Section 7: every orderly path is shutdown(write), read and discard until EOF, close: junk behind the peer's
    Close never turns our Close into a reset."""
    lab = start()
    peer = lab.peer()
    if command:
        peer.text(command)
    check(
        peer.try_send(wire.encode(wire.CLOSE, wire.close_payload(4000)) + bytes(2_000_000)),
        "reset while sending",
    )
    peer.expect_close(4000, "x" if command else "")
    peer.expect_end("fin")
    check(not peer.reset_behind_fin(0.1), "FIN, and then a reset")
    event = peer.closed()
    record(event, 4000, 4000, True, event["initiator"])
    check(
        event["initiator"] in (("Local", "Both") if command else ("Remote",)),
        f"initiator {event['initiator']}",
    )


def s7_failure_with_unread_input(start):
    """Section 7: the error Close survives too: 2 MB behind a violation are discarded, not left unread."""
    lab = start()
    peer = lab.peer()
    check(peer.try_send(wire.encode(5, b"") + bytes(2_000_000)), "reset while sending")
    peer.expect_code(1002)
    peer.expect_end("fin")
    check(not peer.reset_behind_fin(0.1), "FIN, and then a reset")


@rows(("auto", "auto", "fin"), ("fin", "fin", "fin"), ("reset", "reset", "reset"))
def s7_hard_sweep_with_nothing_queued(start, style, end):
    """Section 7: `abort` is for the hard sweep too."""
    lab = start(abort=style)
    peer = lab.peer()
    peer.text("shutdown 200")
    peer.expect_code(1001)
    peer.expect_end(end)
    record(peer.closed(), 1006, 1001, False, "Local", "ShutdownHard")
    lab.report()
    lab.expect_exit(0)


@rows(("auto", "auto", "reset"), ("fin", "fin", "fin"))
def s7_hard_sweep_with_32_mb_queued(start, style, wanted):
    """Section 7: the hard sweep of a blocked connection; it adds up."""
    lab, peer = big(start, abort=style)
    peer.text(f"flood {CUT}")
    flood = flooded(lab, peer)
    lab.command("shutdown 300")
    event = record(peer.closed(), 1006, 1001, False, "Local", "ShutdownHard")
    frames, end = peer.recv_all()
    equal(end, wanted, "the end")
    first_is_cut(event)
    conserved(flood, event, flood_numbers(frames, CUT_SIZE), exact=wanted == "fin", size=CUT_SIZE)
    equal(event["sent_flushed"], False, "sent_flushed")
    equal(frame_code(event["sent"]), 1001, "sent.code")
    lab.report()
    lab.expect_exit(0)


def s7_timing_of_abort_with_fin(start):
    """Section 7: a FIN that ends an abort does not hold the report: CloseTimeout is reported at the deadline."""
    lab = start(close_timeout=300, abort="auto")
    peer = lab.peer()
    began = time.monotonic()
    peer.text("close 4000 x")
    on_time(peer.closed()["at"] - began, 300, "CloseTimeout")
    time.sleep(QUIET_S)
