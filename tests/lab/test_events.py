"""the closing specification section 1: the vocabulary and the order of events. the lab's interface: commands, output, exit codes."""

import json
import subprocess
import time

import wire
from lab import QUIET_S, Failure, check, equal, frame_code, nothing_lost, record, rows

LEGAL = [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999]
ILLEGAL = [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535, 65536, 70000, -1]


def s1_events_come_in_order(start):
    """Section 1: Open, Message, Closing, Close, in this order and no other."""
    lab = start(log_messages=True)
    peer = lab.peer("/order")
    peer.expect_alive("one")
    peer.binary(b"two")
    peer.expect(wire.BINARY, b"two")
    peer.text("close 4000 over")
    peer.expect_close(4000, "over")
    peer.close(4000)
    peer.closed()
    events = [e["event"] for e in lab.events if e.get("id") == peer.id]
    equal(events, ["open", "message", "message", "message", "closing", "close"], "the events")
    messages = lab.all("message", id=peer.id)
    equal([(m["text"], m["bytes"]) for m in messages][:2], [(True, 3), (False, 3)], "the messages")


@rows(("short", "/some/path"), ("long", "/long" * 1000))
def s1_open_event_names_peer_and_path(start, path):
    """the lab's interface: the open event carries peer and path."""
    lab = start()
    peer = lab.peer(path)
    event = lab.wait("open", id=peer.id)
    equal(event["peer"], f"127.0.0.1:{peer.port}", "peer")
    equal(event["path"], path, "path")


def s1_ids_are_not_reused(start):
    """Section 1: ConnectionId = slab index + generation, so a slot's next tenant has another id."""
    lab = start()
    ids = []
    for _ in range(20):
        peer = lab.peer()
        ids.append(peer.id)
        peer.reset()
        peer.closed()
    equal(len(set(ids)), 20, "the number of different ids")


def s1_failed_handshake_is_one_event(start):
    """Section 1: a handshake that fails gives exactly one HandshakeFailed and neither Open nor Close."""
    lab = start()
    before = len(lab.events)
    peer = lab.tcp()
    peer.send_raw(b"NONSENSE\r\n\r\n")
    lab.wait("handshake_failed", peer=f"127.0.0.1:{peer.port}")
    peer.recv_end()
    peer.gone()
    time.sleep(QUIET_S)
    equal([e["event"] for e in lab.events[before:]], ["handshake_failed"], "the events")


def s1_one_closing_when_both_close(start):
    """Section 1: at most one Closing, also when both sides close at once."""
    lab = start()
    peer = lab.peer()
    peer.send_raw(wire.encode(wire.TEXT, b"close 4000 server") + wire.encode(wire.CLOSE, wire.close_payload(4001)))
    peer.closed()
    equal(len(lab.all("closing", id=peer.id)), 1, "the number of closing events")


def s1_closing_by_us_carries_our_frame(start):
    """Section 1: Closing { initiator, frame } when the first Close is queued by us."""
    lab = start()
    peer = lab.peer()
    peer.text("close 3001 a reason")
    peer.expect_close(3001, "a reason")
    event = lab.wait("closing", id=peer.id)
    equal((event["initiator"], event["code"], event["reason"]), ("Local", 3001, "a reason"), "closing")
    check(not lab.all("close", id=peer.id), "Close before the answer")


def s1_closing_by_peer_carries_its_frame(start):
    """Section 1: Closing { initiator, frame } when the first Close is received."""
    lab = start()
    peer = lab.peer()
    peer.close(3002, "mine")
    event = lab.wait("closing", id=peer.id)
    equal((event["initiator"], event["code"], event["reason"]), ("Remote", 3002, "mine"), "closing")


@rows(("local", "close"), ("remote", None))
def s1_closing_code_is_null_for_an_empty_frame(start, command):
    """the lab's interface: closing has code null for an empty frame."""
    lab = start()
    peer = lab.peer()
    if command:
        peer.text(command)
    else:
        peer.close()
    event = lab.wait("closing", id=peer.id)
    equal((event["code"], event["reason"] or ""), (None, ""), "closing")


@rows(*[(str(code), code) for code in LEGAL])
def s1_legal_code_goes_out(start, code):
    """Section 1: codes in {1000-1003, 1007-1014, 3000-4999} can be sent, with their reason."""
    lab = start()
    peer = lab.peer()
    peer.text(f"close {code} because of {code}")
    peer.expect_close(code, f"because of {code}")
    peer.close(code)
    record(peer.closed(), code, code, True, "Local", "LocalClose")


@rows(*[(str(code), code) for code in ILLEGAL])
def s1_illegal_code_changes_nothing(start, code):
    """Section 1: an illegal CloseFrame cannot be built; checking comes before any change of state (no zombie)."""
    lab = start()
    peer = lab.peer()
    for command in (
        f"close {code} x",
        f"close-in 500 {code} x",
        f"kick {code} x|y",
        f"flood-close 3 100 {code} x",
    ):
        peer.text(command)
        answer = peer.recv()
        check(answer.opcode == wire.TEXT and answer.payload.startswith(b"error: "), f"{command} gave {answer}")
    peer.expect_alive()
    check(not lab.all("closing") or lab.all("closing")[-1]["id"] != peer.id, "closing after an illegal code")
    lab.none("close", 0.1, id=peer.id)


@rows(
    ("123-bytes", "r" * 123),
    ("123-bytes-utf8", "é" * 61 + "x"),
    ("four-byte", "𝄞🦀" * 15),
    ("quotes", 'say "no" \\ and \u0001 end'),
)
def s1_reason_goes_out_whole(start, reason):
    """Section 1: a reason of up to 123 bytes of UTF-8; the lab's interface: JSON carries it unharmed."""
    lab = start()
    peer = lab.peer()
    peer.text(f"close 4000 {reason}")
    peer.expect_close(4000, reason)
    peer.close(4000, reason)
    event = peer.closed()
    equal(event["reason"], reason, "the received reason")
    equal((frame_code(event["sent"]), event["sent"]["reason"]), (4000, reason), "sent")


@rows(("124", "r" * 124), ("126", "r" * 126), ("characters", "🦀" * 31), ("long", "ж" * 500))
def s1_reason_too_long_never_reaches_the_wire(start, reason):
    """Section 1: 124 bytes of reason are illegal: refused and nothing changed, or cut at a character's boundary."""
    lab = start()
    peer = lab.peer()
    peer.text(f"close 4000 {reason}")
    answer = peer.recv()
    if answer.opcode == wire.TEXT:
        check(answer.payload.startswith(b"error: "), f"got {answer}")
        peer.expect_alive()
    else:
        check(answer.opcode == wire.CLOSE and len(answer.payload) <= 125, f"got {answer}")
        check(reason.startswith(answer.reason), f"the reason on the wire is {answer.reason!r}")


def s1_close_without_code_is_an_empty_frame(start):
    """Section 1: CloseFrame = empty, or (code, reason)."""
    lab = start()
    peer = lab.peer()
    peer.text("close")
    peer.expect_close()
    peer.close()
    record(peer.closed(), 1005, 1005, True, "Local", "LocalClose")


def s1_operation_on_a_gone_connection_hits_nobody(start):
    """Section 1: an operation never touches the slot's next tenant."""
    lab = start()
    old = lab.peer("/old")
    old.reset()
    old.closed()
    new = lab.peer("/new")
    lab.command("close-where /old 4000 stale")
    equal(lab.wait("sweep_done")["matched"], 0, "matched")
    new.expect_alive()


# the lab's interface.


def lab_echo(start):
    """the lab's interface: everything that is no command is echoed, text as text, binary as binary."""
    lab = start()
    peer = lab.peer()
    for text in ("", "hello", "closed", "closefoo", "flooded", "🦀" * 1000, "x" * 70000):
        peer.text(text)
        peer.expect_text(text)
    for payload in (b"", b"\xff\x00", b"close 4000 x", b"y" * 70000):
        peer.binary(payload)
        peer.expect(wire.BINARY, payload)


@rows(
    ("close-word", "close abc"),
    ("close-in", "close-in abc 4000 x"),
    ("kick", "kick 99999 x|y"),
    ("terminate", "terminate sideways"),
    ("flood", "flood x y"),
    ("close-where", "close-where /t 1006 x"),
    ("shutdown", "shutdown soon"),
)
def lab_impossible_command(start, command):
    """the lab's interface: an impossible command is answered with a text that begins with `error: ` and changes nothing."""
    lab = start()
    peer = lab.peer()
    peer.text(command)
    answer = peer.recv()
    check(answer.opcode == wire.TEXT and answer.payload.startswith(b"error: "), f"got {answer}")
    peer.expect_alive()
    lab.none("closing", 0.1, id=peer.id)


def lab_flood(start):
    """the lab's interface: flood N SIZE sends N binary messages, the i-th beginning with i as u64 big-endian; the flood event."""
    lab = start(max_backlog=1 << 26)
    peer = lab.peer()
    peer.text("flood 100 1000")
    for number in range(100):
        frame = peer.recv()
        check(frame.opcode == wire.BINARY and len(frame.payload) == 1000, f"got {frame}")
        equal(int.from_bytes(frame.payload[:8], "big"), number, "the number")
    event = lab.wait("flood", id=peer.id)
    equal((event["accepted"], event["refused"]), (100, 0), "flood")
    peer.expect_alive()


def lab_flood_beyond_the_backlog_is_refused(start):
    """the lab's interface, section 4 Open | send: queued, or Err(Overflow) and nothing queued."""
    lab = start(max_backlog=1 << 20)
    peer = lab.peer()
    peer.text("flood 1000 65536")
    event = lab.wait("flood", id=peer.id)
    equal(event["accepted"] + event["refused"], 1000, "accepted + refused")
    check(event["refused"] > 0, f"1 MiB of backlog took {event['accepted']} messages of 64 KiB")
    numbers = []
    while len(numbers) < event["accepted"]:
        frame = peer.recv()
        numbers.append(int.from_bytes(frame.payload[:8], "big"))
    equal(numbers, sorted(set(numbers)), "the order of the numbers")
    peer.expect_alive()


def lab_pause_and_resume(start):
    """the lab's interface: pause stops reading (frames already read behind it wait), resume-where resumes by prefix."""
    lab = start()
    peer, other = lab.peer("/paused"), lab.peer("/other")
    peer.send_raw(wire.encode(wire.TEXT, b"pause") + wire.encode(wire.TEXT, b"same read"))
    peer.text("later read")
    peer.expect_silence()
    other.expect_alive()
    lab.command("resume-where /nobody")
    peer.expect_silence(0.1)
    lab.command("resume-where /pau")
    peer.expect_text("same read")
    peer.expect_text("later read")


def lab_ping(start):
    """the lab's interface: ping PAYLOAD sends a Ping."""
    lab = start()
    peer = lab.peer()
    peer.text("ping beat")
    peer.expect(wire.PING, "beat")
    peer.send(wire.PONG, b"beat")
    peer.expect_alive()


def lab_late(start):
    """Sections 2, 6: after close, send fails at once with Closing and nothing is queued."""
    lab = start()
    peer = lab.peer()
    peer.text("late")
    peer.expect_close(1000)
    equal(lab.wait("send_refused", id=peer.id)["error"], "Closing", "error")
    peer.close(1000)
    peer.expect_end("fin")
    nothing_lost(peer.closed())


def lab_stats(start):
    """the lab's interface: stats counts open, closing, lingering and connecting ones, and the descriptors."""
    lab = start(close_timeout=5000)
    base = lab.control.stats()
    equal(
        (base["open"], base["closing"], base["lingering"], base["connecting"]),
        (1, 0, 0, 0),
        "stats of one connection",
    )
    lab.peer("/a")
    closing = lab.peer("/b")
    closing.text("close 1000")
    closing.expect_close(1000)
    half = lab.tcp()
    half.send_raw(b"GET / HTTP/1.1\r\n")
    time.sleep(0.1)
    now = lab.control.stats()
    equal((now["open"], now["closing"], now["lingering"], now["connecting"]), (2, 1, 0, 1), "stats")
    equal(now["fds"] - base["fds"], 3, "the further descriptors")


def lab_commands_are_obeyed_while_closing(start):
    """the lab's interface: a command is obeyed also while the connection is closing; nothing is echoed then."""
    lab = start(close_timeout=3000)
    peer, victim = lab.peer("/boss"), lab.peer("/victim")
    peer.text("close 1000")
    peer.expect_close(1000)
    peer.text("not echoed")
    peer.text("close-where /victim 4000 by a closing one")
    victim.expect_close(4000, "by a closing one")
    peer.expect_silence()


def lab_message_events(start):
    """the lab's interface: message events come with --log-messages only, and carry text, bytes, closing."""
    lab = start(log_messages=True)
    peer = lab.peer()
    peer.text("twelve bytes")
    peer.binary(b"\x00" * 300)
    first = lab.wait("message", id=peer.id)
    second = lab.wait("message", id=peer.id, count=2)
    equal((first["text"], first["bytes"], first["closing"]), (True, 12, False), "the text")
    equal((second["text"], second["bytes"], second["closing"]), (False, 300, False), "the binary")
    quiet = start()
    quiet.peer().expect_alive()
    check(not quiet.all("message"), "message events without --log-messages")


def lab_healthz(start):
    """the lab's interface: GET /healthz answers 200 while ready; plain HTTP that the lab answers itself is no failure."""
    lab = start()
    status, _, _, end = lab.http("/healthz")
    equal(status, 200, "status")
    check(end != "reset", "the answer was followed by a reset")
    lab.none("handshake_failed")


def lab_page(start):
    """the lab's interface: GET / is a page for a browser, with the browser's CloseEvent."""
    lab = start()
    status, headers, body, end = lab.http("/")
    equal(status, 200, "status")
    check(headers.get("content-type", "").startswith("text/html"), f"{headers}")
    check(b"CloseEvent" in body or b"onclose" in body or b"wasClean" in body, "no CloseEvent in the page")
    check(end != "reset", "the page was followed by a reset")
    lab.none("handshake_failed")


def lab_block_is_measured(start):
    """the lab's interface, section 8: block MS; a callback that blocks is measured and named in the report."""
    lab = start()
    peer = lab.peer()
    peer.text("block 300")
    started = time.monotonic()
    peer.expect_alive()
    check(time.monotonic() - started > 0.25, "block 300 did not block")
    lab.signal()
    peer.expect_code(1001)
    peer.close(1001)
    report = lab.report()
    check(300 <= report["longest_callback_ms"] < 1000, f"longest_callback_ms is {report['longest_callback_ms']}")
    lab.expect_exit(0)


@rows(
    ("unknown-option", ["--listen", "127.0.0.1:0", "--no-such-option"]),
    ("bad-number", ["--listen", "127.0.0.1:0", "--close-timeout", "soon"]),
    ("negative", ["--listen", "127.0.0.1:0", "--close-timeout", "-1"]),
    ("no-value", ["--listen", "127.0.0.1:0", "--close-timeout"]),
    ("bad-style", ["--listen", "127.0.0.1:0", "--abort", "gently"]),
    ("bad-policy", ["--listen", "127.0.0.1:0", "--on-peer-close", "maybe"]),
    ("bad-address", ["--listen", "nowhere"]),
    ("listen-no-value", ["--listen"]),
    ("stray-word", ["--listen", "127.0.0.1:0", "word"]),
    ("endless-close", ["--listen", "127.0.0.1:0", "--close-timeout", "off"]),
)
def lab_unusable_command_line(start, arguments):
    """the lab's interface: exit 2 on an unusable command line, with one line on stderr. Section 3: there is no wait for ever."""
    try:
        done = subprocess.run([start.binary, *arguments], capture_output=True, timeout=5, check=False)
    except subprocess.TimeoutExpired:
        raise Failure(f"{arguments} was accepted") from None
    equal(done.returncode, 2, "the exit status")
    lines = done.stderr.decode().splitlines()
    check(len(lines) == 1 and lines[0].strip(), f"stderr is {lines}")
    equal(done.stdout, b"", "stdout")


def lab_every_option_is_accepted(start):
    """the lab's interface: the options and their forms, `off` where a timer is optional."""
    lab = start(
        close_timeout=1000, flush_budget=500, handshake_timeout=1000, linger_timeout=500, linger_bytes=100000,
        heartbeat_interval="off", heartbeat_timeout=1000, stall_timeout="off", pause_timeout="off", max_payload=100000,
        max_backlog=100000, max_fragments=100, abort="fin", on_peer_close="drop", closing_data="discard", lame_duck=0,
        grace=500, spread=0, workers=1, deflate=True, log_messages=True,
    )  # fmt: skip
    lab.peer().expect_alive()
    start(rate=100, pause_timeout=1000).peer().expect_alive()


def lab_workers_share_the_work(start):
    """the lab's interface: --workers; events, sweeps and stats cover all loops."""
    lab = start(workers=2, close_timeout=2000)
    peers = [lab.peer(f"/w/{i}") for i in range(12)]
    for peer in peers:
        peer.expect_alive()
    lab.command("close-where /w/ 4000 all of you")
    for peer in peers:
        peer.expect_close(4000, "all of you")
        peer.close(4000)
    for peer in peers:
        record(peer.closed(), 4000, 4000, True, "Local")
    matched = 0
    deadline = time.monotonic() + 3
    while matched < 12 and time.monotonic() < deadline:
        time.sleep(0.05)
        matched = sum(e["matched"] for e in lab.all("sweep_done"))
    equal(matched, 12, "matched, over all loops")


def lab_json_survives_hostile_strings(start):
    """the lab's interface: one JSON object a line, whatever the strings are."""
    lab = start()
    peer = lab.peer("/%22%0A?x='<&")
    reason = 'a"b\\c\nd\re\u0000f\u2028g🦀h\u007f'
    peer.close(4000, reason)
    event = peer.closed()
    equal(event["reason"], reason, "the reason")
    equal(event["received"]["reason"], reason, "received.reason")
    json.dumps(event)
