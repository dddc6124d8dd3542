"""the closing specification section 4, the rows of Open and Failing: data, control frames, violations."""

import time

import wire
from lab import (
    BACKLOG,
    MANY,
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
from situations import failing

COUNT, SIZE = map(int, MANY.split())


@rows(
    ("0", 0),
    ("1", 1),
    ("125", 125),
    ("126", 126),
    ("127", 127),
    ("65535", 65535),
    ("65536", 65536),
    ("1M", 1 << 20),
)
def s4_open_data(start, size):
    """Open | data message complete: Message, whatever its length's form; echoed with the shortest form."""
    lab = start()
    peer = lab.peer()
    text, binary = "t" * size, bytes(range(256)) * (size // 256) + bytes(size % 256)
    peer.text(text)
    peer.expect_text(text)
    peer.binary(binary)
    peer.expect(wire.BINARY, binary)


def s4_open_fragments(start):
    """Open | data message complete: fragments, empty ones too, with control frames between them."""
    lab = start(log_messages=True)
    peer = lab.peer()
    peer.send(wire.TEXT, b"Hel", fin=False)
    peer.send(wire.CONT, b"", fin=False)
    peer.ping(b"between")
    peer.expect(wire.PONG, b"between")
    peer.send(wire.PONG, b"unasked")
    peer.send(wire.CONT, b"lo", fin=True)
    peer.expect_text("Hello")
    equal(lab.wait("message", id=peer.id)["bytes"], 5, "bytes")
    equal(len(lab.all("message", id=peer.id)), 1, "the number of messages")


def s4_open_fragment_cut_in_a_character(start):
    """Open: UTF-8 is checked over the whole message, a cut within a character is legal."""
    lab = start()
    peer = lab.peer()
    data = "κόσμε 🦀 𝄞".encode()
    for at in range(len(data)):
        peer.send(wire.TEXT if at == 0 else wire.CONT, data[at : at + 1], fin=at == len(data) - 1)
    peer.expect_text("κόσμε 🦀 𝄞")


@rows(("empty", b""), ("125", bytes(range(125))))
def s4_open_ping(start, payload):
    """Open | Ping: Pong with the same payload."""
    lab = start()
    peer = lab.peer()
    peer.ping(payload)
    peer.expect(wire.PONG, payload)


def s4_open_ping_keeps_the_newest_pong(start):
    """Open | Ping: at most one unsent Pong is kept, the newest."""
    lab = start(max_backlog=BACKLOG, stall_timeout="off")
    peer = lab.peer()
    peer.text(f"flood {MANY}")
    lab.wait("flood", id=peer.id)
    for number in range(1000):
        peer.ping(str(number).encode())
    peer.text("behind the pings")
    time.sleep(QUIET_S)
    pongs, texts, numbers = [], [], 0
    while not (pongs and texts and numbers == COUNT):
        frame = peer.recv()
        numbers += frame.opcode == wire.BINARY
        pongs += [frame.payload] * (frame.opcode == wire.PONG)
        texts += [frame.payload] * (frame.opcode == wire.TEXT)
    check(len(pongs) <= 2, f"{len(pongs)} Pongs were kept")
    equal(pongs[-1], b"999", "the newest Pong")
    peer.expect_alive()


def s4_open_unasked_pong(start):
    """Open: a Pong that nobody asked for is legal."""
    lab = start()
    peer = lab.peer()
    peer.send(wire.PONG, b"hello")
    peer.expect_alive()


def s4_open_peer_close(start):
    """Open | valid Close -> RemoteClosing: Closing{Remote}, Close with the same code and reason, FIN."""
    lab = start()
    peer = lab.peer()
    peer.close(4321, "I leave")
    peer.expect_close(4321, "I leave")
    peer.expect_end("fin")
    event = record(peer.closed(), 4321, 4321, True, "Remote", "PeerClose")
    equal((event["reason"], event["received"]), ("I leave", {"code": 4321, "reason": "I leave"}), "received")
    equal((event["sent"]["code"], event["sent"]["reason"] or ""), (4321, "I leave"), "sent")
    nothing_lost(event)


def s4_open_empty_close(start):
    """Open | valid Close: an empty one is answered with an empty one, code 1005."""
    lab = start()
    peer = lab.peer()
    peer.close()
    peer.expect_close()
    peer.expect_end("fin")
    record(peer.closed(), 1005, 1005, True, "Remote", "PeerClose")


@rows(*[(str(c), c) for c in (1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999)])
def s10_received_code_is_valid(start, code):
    """Section 10: received and valid are 1000-1003, 1007-1014, 3000-4999; answered with the same code and reason."""
    lab = start()
    peer = lab.peer()
    peer.close(code, "r" * 123)
    peer.expect_close(code, "r" * 123)
    event = record(peer.closed(), code, code, True, "Remote", "PeerClose")
    equal(event["reason"], "r" * 123, "reason")


@rows(*[(str(c), c) for c in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)])
def s10_received_code_is_invalid(start, code):
    """Section 10: all other codes get 1002; section 4, Open | invalid Close payload -> Failing, Closing{Local}."""
    lab = start()
    peer = lab.peer()
    peer.close(code, "no")
    peer.expect_code(1002)
    peer.expect_end("fin")
    event = record(peer.closed(), 1006, 1002, False, "Local", "Protocol")
    equal(frame_code(event["sent"]), 1002, "sent.code")
    equal(lab.wait("closing", id=peer.id)["initiator"], "Local", "Closing")


def s4_open_close_of_one_byte(start):
    """Open | invalid Close payload: one byte is neither empty nor a code: 1002."""
    lab = start()
    peer = lab.peer()
    peer.send(wire.CLOSE, b"\x03")
    peer.expect_code(1002)
    peer.expect_end("fin")
    record(peer.closed(), 1006, 1002, False, "Local", "Protocol")


@rows(
    ("lone-continuation", b"\x80"),
    ("cut", "🦀".encode()[:3]),
    ("surrogate", b"\xed\xa0\x80"),
    ("overlong", b"\xc0\xaf"),
)
def s4_open_close_with_bad_utf8(start, reason):
    """Open | invalid Close payload: 1007 for the reason's UTF-8, cause InvalidUtf8."""
    lab = start()
    peer = lab.peer()
    peer.send(wire.CLOSE, wire.close_payload(1000, b"ok" + reason))
    peer.expect_code(1007)
    peer.expect_end("fin")
    record(peer.closed(), 1006, 1007, False, "Local", "InvalidUtf8")


VIOLATIONS = [
    ("rsv1", wire.encode(wire.TEXT, b"x", rsv=4)),
    ("rsv2", wire.encode(wire.TEXT, b"x", rsv=2)),
    ("rsv3", wire.encode(wire.BINARY, b"x", rsv=1)),
    ("rsv-ping", wire.encode(wire.PING, b"x", rsv=4)),
    ("rsv-close", wire.encode(wire.CLOSE, wire.close_payload(1000), rsv=1)),
    *[(f"opcode-{n:x}", wire.encode(n, b"x")) for n in (3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF)],
    ("ping-fragmented", wire.encode(wire.PING, b"x", fin=False)),
    ("pong-fragmented", wire.encode(wire.PONG, b"x", fin=False)),
    ("close-fragmented", wire.encode(wire.CLOSE, wire.close_payload(1000), fin=False)),
    ("ping-126", wire.encode(wire.PING, bytes(126))),
    ("close-126", wire.encode(wire.CLOSE, wire.close_payload(1000, "r" * 124))),
    ("pong-64-bit", wire.encode(wire.PONG, b"", announced=1 << 32)),
    ("unmasked-text", wire.encode(wire.TEXT, b"x", mask=False)),
    ("unmasked-ping", wire.encode(wire.PING, b"x", mask=False)),
    ("unmasked-close", wire.encode(wire.CLOSE, wire.close_payload(1000), mask=False)),
    ("long-form-16", wire.encode(wire.TEXT, b"x" * 5, length_form=16)),
    ("long-form-16-at-125", wire.encode(wire.TEXT, b"x" * 125, length_form=16)),
    ("long-form-64", wire.encode(wire.TEXT, b"x" * 200, length_form=64)),
    ("long-form-64-at-65535", wire.encode(wire.BINARY, bytes(65535), length_form=64)),
    ("top-bit", wire.encode(wire.BINARY, b"", announced=1 << 63)),
    ("top-bit-all-ones", wire.encode(wire.BINARY, b"", announced=(1 << 64) - 1)),
    ("continuation-first", wire.encode(wire.CONT, b"x")),
    ("continuation-after-message", wire.encode(wire.TEXT, b"close-where") + wire.encode(wire.CONT, b"x")),
    ("text-in-fragments", wire.encode(wire.TEXT, b"x", fin=False) + wire.encode(wire.TEXT, b"y")),
    (
        "binary-in-fragments",
        wire.encode(wire.TEXT, b"x", fin=False) + wire.encode(wire.BINARY, b"y", fin=False),
    ),
]


@rows(*VIOLATIONS)
def s4_open_violation(start, sent):
    """Open | protocol violation -> Failing: 1002, Closing{Local}, cause Protocol, FIN; code 1006, effective 1002."""
    lab = start()
    peer = lab.peer()
    check(peer.try_send(sent), "reset while sending")
    frames, end = peer.recv_all()
    closes = [f for f in frames if f.opcode == wire.CLOSE]
    check(len(closes) == 1 and frames[-1] is closes[0], f"got {frames}")
    equal(closes[0].code, 1002, "the code on the wire")
    equal(end, "fin", "the end")
    event = record(peer.closed(), 1006, 1002, False, "Local", "Protocol")
    equal((frame_code(event["sent"]), event["sent_flushed"]), (1002, True), "sent, sent_flushed")
    equal(lab.wait("closing", id=peer.id)["initiator"], "Local", "Closing")


@rows(
    ("whole", lambda: wire.encode(wire.BINARY, bytes(1001)), 1001),
    ("header-only", lambda: wire.encode(wire.BINARY, b"", announced=1001), 0),
    ("huge-header", lambda: wire.encode(wire.BINARY, b"", announced=1 << 62), 0),
    ("fragments", lambda: wire.encode(wire.TEXT, b"x" * 600, fin=False) + wire.encode(wire.CONT, b"x" * 401), 1001),
    ("next-fragments-header", lambda: wire.encode(wire.TEXT, b"x" * 999, fin=False)
        + wire.encode(wire.CONT, b"", announced=2), 999),
    ("overflowing-sum", lambda: wire.encode(wire.TEXT, b"x" * 999, fin=False)
        + wire.encode(wire.CONT, b"", announced=(1 << 63) - 1), 999),
)  # fmt: skip
def s4_open_too_big(start, sent, _payload):
    """Open | too big -> Failing: 1009 at the header, before the payload comes; cause TooBig{limit}."""
    lab = start(max_payload=1000)
    peer = lab.peer()
    peer.send_raw(sent())
    peer.expect_code(1009)
    equal(peer.recv_end(), "fin", "the end")
    event = record(peer.closed(), 1006, 1009, False, "Local", "TooBig")
    equal(event["cause_fields"], {"limit": 1000}, "cause_fields")


def s4_open_exactly_as_big_as_allowed(start):
    """Open: max_payload itself is allowed, in one frame and over fragments; control frames do not count."""
    lab = start(max_payload=1000)
    peer = lab.peer()
    peer.binary(bytes(1000))
    peer.expect(wire.BINARY, bytes(1000))
    peer.send(wire.BINARY, bytes(600), fin=False)
    peer.ping(bytes(125))
    peer.expect(wire.PONG, bytes(125))
    peer.send(wire.CONT, bytes(400))
    peer.expect(wire.BINARY, bytes(1000))


def s10_too_many_fragments(start):
    """Section 10: too many fragments are 1009, cause TooBig."""
    lab = start(max_fragments=10)
    peer = lab.peer()
    for number in range(10):
        peer.send(wire.TEXT if number == 0 else wire.CONT, b"x", fin=number == 9)
    peer.expect_text("x" * 10)
    for number in range(12):
        if not peer.try_send(wire.encode(wire.TEXT if number == 0 else wire.CONT, b"x", fin=False)):
            break
    peer.expect_code(1009)
    record(peer.closed(), 1006, 1009, False, "Local", "TooBig")


BAD_UTF8 = [
    ("lone-continuation", b"\x80"),
    ("ff", b"abc\xff"),
    ("overlong-2", b"\xc0\xaf"),
    ("overlong-3", b"\xe0\x80\xaf"),
    ("overlong-4", b"\xf0\x80\x80\xaf"),
    ("surrogate", b"\xed\xa0\x80"),
    ("beyond-10ffff", b"\xf4\x90\x80\x80"),
    ("cut-at-the-end", "🦀".encode()[:3]),
]


@rows(*BAD_UTF8)
def s4_open_bad_utf8(start, data):
    """Open | bad UTF-8 in a text -> Failing: 1007, cause InvalidUtf8."""
    lab = start(log_messages=True)
    peer = lab.peer()
    peer.send(wire.TEXT, b"some text " + data)
    peer.expect_code(1007)
    peer.expect_end("fin")
    record(peer.closed(), 1006, 1007, False, "Local", "InvalidUtf8")
    check(not lab.all("message", id=peer.id), "the bad text was delivered")


def s4_open_bad_utf8_fails_at_the_first_bad_byte(start):
    """Open | bad UTF-8: found in the first fragment, not at the message's end (RFC 6455, 8.1)."""
    lab = start()
    peer = lab.peer()
    peer.send(wire.TEXT, b"abc\xff", fin=False)
    peer.expect_code(1007)
    record(peer.closed(), 1006, 1007, False, "Local", "InvalidUtf8")


def s4_open_binary_is_not_checked(start):
    """Open: UTF-8 is a matter of texts only."""
    lab = start()
    peer = lab.peer()
    peer.binary(b"\xff\xfe\x80")
    peer.expect(wire.BINARY, b"\xff\xfe\x80")


def s4_open_nothing_is_parsed_behind_a_violation(start):
    """Open | violation: nothing later is parsed, in the same read or a later one."""
    lab = start(log_messages=True)
    peer = lab.peer()
    peer.send_raw(wire.encode(3, b"") + wire.encode(wire.TEXT, b"flood 5 100") + wire.encode(wire.PING, b"hi"))
    peer.expect_code(1002)
    peer.try_send(wire.encode(wire.TEXT, b"flood 5 100"))
    peer.expect_end("fin")
    peer.closed()
    check(not lab.all("message", id=peer.id), "a message behind a violation")


def s4_open_messages_before_a_violation_count(start):
    """Open | violation: what came before it is delivered; an answer not begun is sent or counted as lost."""
    lab = start(log_messages=True)
    peer = lab.peer()
    peer.send_raw(wire.encode(wire.TEXT, b"before") + wire.encode(3, b""))
    frames, _ = peer.recv_all()
    event = peer.closed()
    equal(len(lab.all("message", id=peer.id)), 1, "the messages delivered")
    texts = [f for f in frames if f.opcode == wire.TEXT]
    equal(len(texts) + event["lost"]["messages"], 1, "echoes received or lost")
    equal(frames[-1].code, 1002, "the code on the wire")


def s5_trailing_bytes_behind_a_violation(start):
    """Section 5: trailing_bytes counts everything behind a failure, headers too; lost and inbound stay apart."""
    lab = start()
    peer = lab.peer()
    behind = wire.encode(wire.TEXT, b"never parsed")
    peer.send_raw(wire.encode(3, b"") + behind)
    peer.expect_code(1002)
    trailing = peer.closed()["lost"]["trailing_bytes"]
    # Whether the violating header is itself "behind the failure" is not said.
    check(len(behind) <= trailing <= len(behind) + 6, f"trailing_bytes is {trailing}, {len(behind)} came behind")


def s4_open_eof(start):
    """Open | EOF: Close(1006, PeerFin), Transport, FIN back."""
    lab = start()
    peer = lab.peer()
    peer.half_close()
    event = record(peer.closed(), 1006, 1006, False, "Transport", "PeerFin")
    equal((event["sent"], event["received"]), (None, None), "sent, received")
    peer.expect_end("fin")
    check(not lab.all("closing", id=peer.id), "Closing without a Close")


def s4_open_eof_in_a_message(start):
    """Open | EOF within a frame: the payload received of it is counted."""
    lab = start()
    peer = lab.peer()
    peer.send_raw(wire.encode(wire.BINARY, bytes(1000))[:508])
    peer.half_close()
    event = record(peer.closed(), 1006, 1006, False, "Transport", "PeerFin")
    equal(event["lost"]["inbound_partial_bytes"], 500, "inbound_partial_bytes")


def s4_open_eof_with_backlog(start):
    """Open | EOF with a backlog: closed at once, and what was not sent is lost and counted."""
    lab = start(max_backlog=BACKLOG, stall_timeout="off")
    peer = lab.peer()
    peer.text(f"flood {MANY}")
    flood = lab.wait("flood", id=peer.id)
    peer.half_close()
    event = record(peer.closed(), 1006, 1006, False, "Transport", "PeerFin")
    check(event["lost"]["messages"] > 0, f"lost is {event['lost']}")
    frames, _ = peer.recv_all()
    conserved(flood, event, flood_numbers(frames, SIZE), exact=False, size=SIZE)


def s4_open_rst(start):
    """Open | RST: Close(1006, PeerReset), Transport."""
    lab = start()
    peer = lab.peer()
    peer.reset()
    record(peer.closed(), 1006, 1006, False, "Transport", "PeerReset")


def s4_open_rst_with_unread_messages(start):
    """Open | RST right behind messages: still exactly one Close."""
    lab = start()
    for _ in range(20):
        peer = lab.peer()
        peer.send_raw(wire.encode(wire.TEXT, b"hello") * 100)
        peer.reset()
        event = peer.closed()
        check(event["cause"] in ("PeerReset", "Io"), f"cause {event['cause']}")


def s4_open_rst_with_backlog(start):
    """Open | RST with a backlog: PeerReset, and what was not sent is counted."""
    lab = start(max_backlog=BACKLOG, stall_timeout="off")
    peer = lab.peer()
    peer.text(f"flood {MANY}")
    lab.wait("flood", id=peer.id)
    peer.reset()
    event = record(peer.closed(), 1006, 1006, False, "Transport", ("PeerReset", "Io"))
    check(event["lost"]["messages"] > 0, f"lost is {event['lost']}")


def s4_open_close_between_fragments(start):
    """Section 4: a Close between fragments is legal: answered, and the unfinished message reported as lost."""
    lab = start(log_messages=True)
    peer = lab.peer()
    peer.send(wire.BINARY, bytes(300), fin=False)
    peer.send(wire.CONT, bytes(200), fin=False)
    peer.close(4000, "in between")
    peer.expect_close(4000, "in between")
    peer.expect_end("fin")
    event = record(peer.closed(), 4000, 4000, True, "Remote", "PeerClose")
    equal(event["lost"]["inbound_partial_bytes"], 500, "inbound_partial_bytes")
    check(not lab.all("message", id=peer.id), "half a message was delivered")


@rows(("same-read", False), ("later-read", True))
def s4_nothing_is_parsed_behind_a_close(start, later):
    """Section 4: frames behind a Close, in the same read or later, MUST NOT be parsed."""
    lab = start(log_messages=True)
    peer = lab.peer()
    behind = wire.encode(wire.TEXT, b"flood 3 100") + wire.encode(wire.PING, b"x") + wire.encode(wire.CLOSE, b"")
    if later:
        peer.close(4000)
        peer.try_send(behind)
    else:
        peer.send_raw(wire.encode(wire.CLOSE, wire.close_payload(4000)) + behind)
    peer.expect_close(4000)
    peer.expect_end("fin")
    event = record(peer.closed(), 4000, 4000, True, "Remote", "PeerClose")
    check(not lab.all("message", id=peer.id), "a message behind a Close")
    if not later:
        equal(event["lost"]["trailing_bytes"], len(behind), "trailing_bytes")


def s4_garbage_behind_a_close_is_no_violation(start):
    """Section 4: bytes behind a Close are not parsed, so they cannot be a violation."""
    lab = start()
    peer = lab.peer()
    peer.send_raw(wire.encode(wire.CLOSE, wire.close_payload(4000)) + b"\xff" * 1000)
    peer.expect_close(4000)
    peer.expect_end("fin")
    event = record(peer.closed(), 4000, 4000, True, "Remote", "PeerClose")
    equal(event["lost"]["trailing_bytes"], 1000, "trailing_bytes")


def s10_our_reasons_are_short_constants(start):
    """Section 10: reasons of ours are short constants, the same each time, never error text of the handler."""
    lab = start()
    seen = {}
    for _ in range(2):
        for name, sent in (
            ("opcode", wire.encode(5, b"secret")),
            ("utf8", wire.encode(wire.TEXT, b"\xffsecret")),
            ("code", wire.encode(wire.CLOSE, wire.close_payload(1006, "secret"))),
        ):
            peer = lab.peer()
            peer.send_raw(sent)
            frame = peer.recv()
            reason = frame.reason
            check(len(reason.encode()) <= 60 and "secret" not in reason, f"the reason is {reason!r}")
            equal(seen.setdefault(name, reason), reason, "the reason")


# Failing.


def s4_failing_drops_what_had_not_begun(start):
    """Failing: what had not begun is dropped, the frame on the wire is completed, the error Close follows."""
    lab, peer, flood = failing(start)
    frames, end = peer.recv_all()
    equal(frames[-1].code, 1002, "the code on the wire")
    equal(end, "fin", "the end")
    event = record(peer.closed(), 1006, 1002, False, "Local", "Protocol")
    check(event["lost"]["messages"] > 0, f"lost is {event['lost']}")
    equal(event["lost"]["partial"], 0, "partial")
    conserved(flood, event, flood_numbers(frames, 8 << 20), size=8 << 20)


def s4_failing_discards_a_close(start):
    """Failing | inbound bytes, a Close too: discarded."""
    lab, peer, _ = failing(start)
    peer.close(4000, "too late")
    lab.none("close", id=peer.id)
    frames, end = peer.recv_all()
    equal((frames[-1].opcode, frames[-1].code, end), (wire.CLOSE, 1002, "fin"), "the end")
    event = record(peer.closed(), 1006, 1002, False, "Local", "Protocol")
    equal(event["received"], None, "received")
    check(event["lost"]["trailing_bytes"] >= 8 + 8, f"trailing_bytes: {event['lost']}")


@rows(("eof", wire.Peer.half_close), ("rst", wire.Peer.reset))
def s4_failing_then_the_end(start, act):
    """Failing | EOF, RST -> Closed: the cause stays the first failure."""
    lab, peer, _ = failing(start)
    act(peer)
    event = record(peer.closed(), 1006, 1002, False, "Local", "Protocol")
    first_is_cut(event)


def s4_failing_then_terminate(start):
    """Failing | terminate -> Closed: the cause stays the first failure."""
    lab, peer, _ = failing(start)
    lab.command("terminate-where /failing")
    event = record(peer.closed(1.0), 1006, 1002, False, "Local", "Protocol")
    equal(event["sent_flushed"], False, "sent_flushed")
    first_is_cut(event)
