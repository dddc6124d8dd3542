"""The attacks: what each does, and what must come of it. The words above each are those of the page that attacks.py
writes: first what the attacker does, then what the server answers.
"""

import signal
import socket
import struct
import subprocess
import time
import zlib

import wire
from attacks import MIB, BenchServer, Lab, SigpipeLab
from lab import check, equal

LIMIT = 16 * MIB  # the default of max_payload
TIMED_OUT = {"cause": "CloseTimeout"}
ROWS = {}


def attack(title, limit_mib, server=Lab, newcomers=True, headers=(), after_mib=None, **options):
    """`limit_mib`: what the server's memory may grow by; `after_mib`: what of that may be left five seconds after everyone has
    gone. `options` are those of its command line."""

    def decorate(body):
        ROWS[body.__name__] = {
            "body": body, "words": body.__doc__, "title": title, "limit_mib": limit_mib, "server": server,
            "newcomers": newcomers, "headers": list(headers), "options": options, "after_mib": after_mib,
        }  # fmt: skip
        return body

    return decorate


def failed_by(attacker, frames, code, cause, path="/attack", count=1):
    """`count` connections send `frames` each and get a Close with `code`; their reports say why."""
    for peer in attacker.peers_many(count, path):
        peer.try_send(frames)
        found, end = peer.recv_all(20)
        check(found and found[-1].opcode == wire.CLOSE, f"no Close but {found[-1:]}, {end}")
        equal((found[-1].code, end), (code, "fin"), f"code and end of {path}")
        peer.gone()
    attacker.target.closed(path, count, cause=cause, code=1006, effective_code=code, was_clean=False)


def is_alive(peer):
    peer.text("are you there")
    equal(peer.recv(30).payload, b"are you there", "the echo")


# The handshake.


@attack("Endless header", 2)
def endless_header(attacker):
    """One header line of 20 MB, in large writes, and one in writes of a single byte.

    431 as soon as `max_head` (16 KiB) is exceeded; each byte is looked at once.
    """
    head = wire.request("/")[0][:-2] + b"X-Long: "
    cpu = attacker.target.cpu()
    one, other = attacker.tcp(), attacker.tcp()
    one.try_send(head)
    began = time.monotonic()
    attacker.flood(one, b"x" * 65536, 20_000_000)
    check(time.monotonic() - began < 3, "refused late")
    other.send_raw(head)
    for _ in range(20_000):
        if not other.try_send(b"x"):
            break
    attacker.target.failed([one, other], "HeadTooLarge")
    spent = attacker.target.cpu() - cpu
    check(spent < 2, f"{spent:.1f} s of processor time")


@attack("Very many headers", 2)
def many_headers(attacker):
    """50 requests with 2,000 header lines and 50 with 10,000.

    431 at line 101 (`max_headers`), or at 16 KiB.
    """
    for lines in (2_000, 10_000):
        head = wire.request("/", [f"X-{n}: {n}" for n in range(lines)])[0]
        for _ in range(50):
            answer, _ = attacker.ask(head)
            equal(answer.status, 431, f"the answer to {lines} lines")


COSTLY = {
    "blanks": lambda n: ["X-Blanks: " + " " * n],
    "an unclosed quotation": lambda n: ['Sec-WebSocket-Extensions: a; b="' + "\\c" * (n // 2)],
    "subprotocols": lambda n: ["Sec-WebSocket-Protocol: a" + " " * n + ","],
    "empty extensions": lambda n: ["Sec-WebSocket-Extensions: " + ",; " * (n // 3)],
}


@attack("Costly header grammar", 2, deflate=True)
def costly_grammar(attacker):
    """Headers on which parsers that backtrack take quadratic or exponential time: 8 KB of blanks, `a; b="\\c\\c…`, `,; ,; …`;
    with half the length and with the whole.

    An answer at once, 101 or 400. Twice the length takes at most twice the time: parsers are linear.
    """
    spent = []
    for length in (4_000, 8_000):
        before = attacker.target.cpu()
        for make in COSTLY.values():
            head = wire.request("/", make(length))[0]
            for _ in range(attacker.many(200)):
                peer = attacker.tcp()
                peer.send_raw(head)
                check(peer.recv_answer(5).status in (101, 400), "the answer")
                peer.reset()
        spent.append(attacker.target.cpu() - before)
    check(spent[1] <= 3 * spent[0] + 0.3, f"{spent} s of processor time")


@attack("Odd extensions", 2, deflate=True)
def odd_extensions(attacker):
    """Offers of extensions called `constructor` or `__proto__`, of nothing but separators, of one twice with the same
    parameter, of windows of 0, 7, 16, 99 and `abc` bits.

    Names are text: what is not known is ignored, what is out of range is declined, what is malformed gets 400. A connection
    without compression comes about in the first two cases.
    """
    rows = [
        ("constructor", 101, None),
        ("__proto__; toString=1, hasOwnProperty", 101, None),
        (",;", 400, None),
        ("permessage-deflate; =1", 400, None),
        ("permessage-deflate; client_no_context_takeover; client_no_context_takeover", 101, None),
        ("permessage-deflate; unheard_of", 101, None),
        ("permessage-deflate; server_no_context_takeover=1", 101, None),
        *((f"permessage-deflate; {who}_max_window_bits={bits}", 101, None)
          for who in ("client", "server") for bits in ("0", "7", "16", "99", "abc", '"1', "08")),
        ("permessage-deflate; client_max_window_bits=15", 101, "permessage-deflate"),
        ("permessage-deflate; client_max_window_bits=99, permessage-deflate", 101, "permessage-deflate"),
    ]  # fmt: skip
    for offer, status, agreed in rows:
        peer = attacker.tcp()
        peer.send_raw(wire.request("/odd", [f"Sec-WebSocket-Extensions: {offer}"])[0])
        answer = peer.recv_answer()
        if offer.count('"') % 2:
            status = 400
        equal(answer.status, status, f"the answer to {offer!r}")
        got = answer.headers.get("sec-websocket-extensions")
        equal(got and got.split(";")[0], agreed, f"the extension agreed on for {offer!r}")
        if status == 101:
            is_alive(peer)


@attack("Slow handshakes", 4, handshake_timeout=2500)
def slow_handshakes(attacker):
    """500 sockets send a request at two bytes a second (slowloris).

    408 when `handshake_timeout` (here 2.5 s) is over, which no byte extends. Newcomers are served meanwhile.
    """
    peers = attacker.tcp_many(500)
    head = wire.request("/")[0]
    for at in range(6):
        for peer in peers:
            peer.try_send(head[at : at + 1])
        time.sleep(0.5)
    attacker.target.failed(peers, "Timeout")
    for peer in peers:
        equal(peer.recv_answer().status, 408, "the answer")


@attack("Half-open flood", 4, max_handshakes=256)
def half_open_flood(attacker):
    """10,000 sockets connect and send half a request, as fast as they can.

    Beyond `max_handshakes` (here 256) the oldest of them is closed, so newcomers still complete theirs.
    """
    count = attacker.many(10_000)
    peers, head = [], wire.request("/")[0][:40]
    for _ in range(count):
        peers.append(attacker.tcp())
        peers[-1].try_send(head)
        if len(peers) > 2000:
            peers.pop(0).gone()
    target = attacker.target
    evicted = target.wait(
        lambda: len(found := target.events("handshake_failed", cause="TooManyConnections")) >= count - 256 and found,
        "the oldest ones were cut off",
    )
    held = target.descriptors()
    check(held < 256 + 50, f"{held} descriptors")
    return f"{len(evicted):,} of {count:,} were cut off"


@attack("Half-open flood, few places", 2, max_connections=64)
def half_open_flood_with_few_places(attacker):
    """1,000 sockets connect, send half a request and stay, where `max_connections` is 64.

    Half-open connections take some of the places and never all: newcomers still complete their handshakes.
    """
    head = wire.request("/")[0][:40]
    for _ in range(attacker.many(1_000)):
        attacker.tcp().try_send(head)
        time.sleep(0.002)


@attack("Refused ones that linger", 4, max_connections=1_000)
def refused_ones_that_linger(attacker):
    """600 bad requests a second for five seconds, whose senders stay, where `max_connections` is 1,000.

    400 each. Connections that were refused wait for the end of their input (`linger_timeout`), but they keep nobody out.
    """
    began, refused = time.monotonic(), []
    for number in range(3_000):
        refused.append(attacker.tcp(f"127.0.0.{2 + number % 8}"))
        refused[-1].try_send(b"HELLO\r\n\r\n")
        time.sleep(max(0.0, began + number / 600 - time.monotonic()))
    answered = 0
    for peer in refused:
        try:
            answered += peer.recv_answer(1).status == 400
        except (wire.Ended, wire.Silent):
            pass
    return f"{answered:,} of {len(refused):,} were answered"


@attack("Flood from one address", 4, max_per_address=200)
def flood_from_one_address(attacker):
    """5,000 connections from one address, each with a complete handshake.

    `max_connections_per_address` (here 200) of them are taken, the others closed at `accept`. Newcomers from another
    address are served.
    """
    count, taken = attacker.many(5_000), 0
    request = wire.request("/flood")[0]
    for _ in range(count):
        peer = attacker.tcp("127.0.0.9")
        try:
            peer.send_raw(request)
            taken += peer.recv_answer().status == 101
        except (wire.Ended, OSError):
            peer.gone()
    equal(taken, 200, "connections of one address")
    refused = attacker.target.events("handshake_failed", cause="TooManyConnections")
    equal(len(refused), count - 200, "those refused")


@attack("Flood beyond the limit", 4, newcomers=False, max_connections=1000)
def flood_beyond_the_limit(attacker):
    """5,000 connections, from as many addresses as it likes, where `max_connections` is 1,000.

    1,000 in all, the others are closed at `accept`. Those that are there are served; newcomers again as soon as some of
    the others are gone.
    """
    count, taken = attacker.many(5_000) + 1_000, []
    request = wire.request("/flood")[0]
    for number in range(count):
        peer = attacker.tcp(f"127.0.0.{2 + number % 8}")
        try:
            peer.send_raw(request)
            if peer.recv_answer().status == 101:
                taken.append(peer)
        except (wire.Ended, OSError):
            peer.gone()
    equal(len(taken), 999, "connections beside the honest one")
    check(attacker.target.descriptors() < 1_030, "descriptors")
    for peer in taken[:500]:
        peer.gone()
    attacker.target.wait(lambda: attacker.target.descriptors() < 600, "500 have gone")
    is_alive(attacker.peer("/again"))


OURS = "https://example.com"


@attack("Foreign pages", 2, headers=[f"Origin: {OURS}"], origin=OURS)
def foreign_pages(attacker):
    """Upgrades from pages of other origins (cross-site hijacking): absent, foreign, `null`, look-alikes with a suffix, a
    prefix, another scheme or port, two `Origin` lines.

    403 before any 101, 400 for two lines, where `origins` names one. An origin matches as a whole.
    """
    rows = [
        ([], 403), (["null"], 403), (["https://evil.example"], 403), ([OURS + ".evil.example"], 403),
        (["https://evil-example.com"], 403), (["https://www.example.com"], 403), (["http://example.com"], 403),
        ([OURS + ":8443"], 403), ([OURS + "/"], 403), (["https://example.com@evil.example"], 403),
        (["https://evil.example?https://example.com"], 403), ([f"{OURS} https://evil.example"], 403),
        ([OURS, OURS], 400), ([OURS, "https://evil.example"], 400), ([OURS], 101), ([OURS + ":443"], 101),
        (["HTTPS://EXAMPLE.COM"], 101),
    ]  # fmt: skip
    for _ in range(attacker.many(50)):
        for origins, status in rows:
            answer, end = attacker.ask(wire.request("/", [f"Origin: {origin}" for origin in origins])[0])
            equal((answer.status, end), (status, "open" if status == 101 else "fin"), f"the answer to {origins}")


@attack("Smuggled upgrades", 2)
def smuggled_upgrades(attacker):
    """Requests on which a proxy and the server might differ: wrong version, a body, two lengths, chunks, HTTP/1.0, two lines
    of `Upgrade`, key or version, a folded line, a bare LF; after each a frame with a command.

    Never 101: 426 with `Sec-WebSocket-Version: 13` for the version, 4xx for the others, and what follows is no frame.
    Only after a 101 it is one.
    """
    valid, behind = wire.request("/smuggle")[0], wire.encode(wire.TEXT, b"stats")

    def with_lines(*lines):
        return wire.request("/smuggle", lines)[0]

    rows = [
        ("version 777", wire.request("/smuggle", version="777")[0], 426),
        ("a body", with_lines("Content-Length: 11"), 400),
        ("chunks", with_lines("Transfer-Encoding: chunked"), 400),
        ("both", with_lines("Content-Length: 0", "Transfer-Encoding: chunked"), 400),
        ("two lengths", with_lines("Content-Length: 0", "Content-Length: 11"), 400),
        ("HTTP/1.0", valid.replace(b"HTTP/1.1", b"HTTP/1.0"), 400),
        ("two keys", with_lines("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400),
        ("two versions", with_lines("Sec-WebSocket-Version: 13"), 400),
        ("two Hosts", with_lines("Host: evil"), 400),
        ("a folded line", with_lines("X-Folded: a", " b"), 400),
        ("a bare LF", valid.replace(b"\r\nUpgrade", b"\nUpgrade"), 400),
        ("a blank before the colon", with_lines("Content-Length : 11"), 400),
        ("POST", valid.replace(b"GET", b"POST"), 405),
    ]
    for _ in range(attacker.many(50)):
        for what, head, status in rows:
            answer, end = attacker.ask(head + behind)
            equal((answer.status, end), (status, "fin"), f"the answer to {what}")
            if status == 426:
                equal(answer.headers.get("sec-websocket-version"), "13", "the version asked for")
    check(not attacker.target.events("open", path="/smuggle"), "a connection came about")
    peer = attacker.tcp()
    peer.send_raw(valid + behind)
    equal(peer.recv_answer().status, 101, "the answer to a valid request")
    check(peer.recv().payload.startswith(b"{"), "the frame behind a valid request is obeyed")


@attack("CR LF in an answer", 2)
def injected_lines(attacker):
    """CR LF, raw and percent-encoded, in whatever an answer might repeat: path, query, subprotocol, extension, key.

    What is malformed gets 400. No answer has a line that the server did not mean: strings of an application are checked when
    an answer is built, and a subprotocol can only be one that was offered, which is a token.
    """
    evil, raw = "a%0d%0aX-Evil: 1", "a\r\nX-Evil: 1"
    known = set(
        "content-type content-length connection upgrade sec-websocket-accept sec-websocket-protocol sec-websocket-version "
        "allow retry-after".split()
    )
    heads = [
        f"GET /report?path={evil.replace(' ', '')} HTTP/1.1\r\nHost: a\r\n\r\n".encode(),
        f"GET /{evil.replace(' ', '')} HTTP/1.1\r\nHost: a\r\n\r\n".encode(),
        f"GET /{raw} HTTP/1.1\r\nHost: a\r\n\r\n".encode(),
        f"G\rET / HTTP/1.1\r\nHost: {evil}\r\n\r\n".encode(),
        *(wire.request("/", [f"{name}: {value}"])[0]
          for name in ("Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "Origin", "Cookie")
          for value in (evil, raw, "a\rX-Evil: 1", "a\nX-Evil: 1", "a\0")),
        wire.request("/", key=evil)[0],
    ]  # fmt: skip
    for _ in range(attacker.many(50)):
        for head in heads:
            answer, _ = attacker.ask(head)
            check(set(answer.headers) <= known, f"{answer.text!r} is the answer to {head!r}")


@attack("Reconnect storm", 4)
def reconnect_storm(attacker):
    """10,000 times: connect, in every other case a whole request, and reset.

    Each is forgotten with its reset.
    """
    request, linger = wire.request("/storm")[0], struct.pack("ii", 1, 0)
    count = attacker.many(10_000)
    for number in range(count):
        with socket.socket() as sock:
            sock.connect(attacker.address)
            if number % 2:
                sock.send(request)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    target = attacker.target
    for opened in target.events("open", path="/storm")[-1:]:
        target.wait(lambda: target.events("close", id=opened["id"]), "the last one has ended")


# The frames.


@attack("Lengths of 2^63 and more", 8, max_payload=MIB)
def absurd_lengths(attacker):
    """Headers that announce 2^63, 2^64 - 1, 2^63 - 1 and one byte too many, and a whole message of one byte less than
    `max_payload` (here 1 MiB) with a continuation after it.

    1002 for the top bit, 1009 for the rest, at the header: nothing is reserved.
    """
    count = attacker.many(100)
    for length in (1 << 63, (1 << 64) - 1):
        frame = wire.encode(wire.BINARY, b"x" * 100, length_form=64, announced=length)
        failed_by(attacker, frame, 1002, "Protocol", f"/{length}", count)
    for length in ((1 << 63) - 1, MIB + 1):
        frame = wire.encode(wire.BINARY, b"x" * 100, length_form=64, announced=length)
        failed_by(attacker, frame, 1009, "TooBig", f"/{length}", count)
    rest = wire.encode(wire.CONT, announced=2) + b"x"
    failed_by(attacker, wire.encode(wire.BINARY, bytes(MIB - 1), fin=False) + rest, 1009, "TooBig", "/rest")


@attack("Lengths in a longer form", 2)
def longer_forms(attacker):
    """A payload of 5 bytes with a 16-bit length, of 200 and of 5 with a 64-bit one; a Ping of 126 bytes.

    1002.
    """
    for opcode, size, form in ((1, 5, 16), (2, 200, 64), (1, 5, 64), (wire.PING, 5, 16), (wire.PING, 126, None)):
        frame = wire.encode(opcode, b"x" * size, length_form=form)
        failed_by(attacker, frame, 1002, "Protocol", f"/{opcode}-{size}-{form}", attacker.many(50))


@attack("Announced and not sent", 16)
def announced_and_not_sent(attacker):
    """10,000 connections announce 16 MiB each, send four bytes of it, and wait.

    Memory grows with what has arrived: the figure is for all 10,000, their sockets' slots included.
    """
    count = attacker.many(10_000)
    peers = attacker.peers_many(count, "/announced")
    frame = wire.encode(wire.BINARY, b"some", announced=LIMIT)
    before = attacker.target.memory()
    for peer in peers:
        peer.send_raw(frame)
    is_alive(attacker.peer("/behind"))
    each = (attacker.target.memory() - before) / count
    check(each < 1500, f"{each:.0f} bytes each")
    return f"{each:.0f} bytes each"


@attack("Unmasked frames", 2)
def unmasked_frames(attacker):
    """A text, a Ping and a Close without a mask.

    1002.
    """
    for opcode in (wire.TEXT, wire.PING, wire.CLOSE):
        failed_by(attacker, wire.encode(opcode, b"\x03\xe8", mask=False), 1002, "Protocol", f"/{opcode}", attacker.many(50))


@attack("Tiny frames in millions", 4)
def tiny_frames(attacker):
    """4 million messages of one byte and 4 million empty ones, and reads their echoes.

    Echoes, in turns with the others: a connection has `reads_per_turn` reads, then the next one has.
    """
    for payload in (b"x", b""):
        peer, frame = attacker.peer("/tiny"), wire.encode(wire.BINARY, payload)
        count = attacker.many(4_000_000) // 10_000 * 10_000
        sent, read, end = attacker.flood_and_read(peer, frame * 10_000, count * len(frame), patience=1.0)
        equal((sent, read, end), (count * len(frame), count * (len(payload) + 2), "open"), "bytes sent, read")
        peer.gone()


@attack("Empty and tiny fragments", 4)
def tiny_fragments(attacker):
    """A message of empty fragments without end, and one of fragments of one byte.

    A fragment costs what it carries: they are joined in one buffer. 1009 at `max_fragments` (2^20).
    """
    for payload in (b"", b"x"):
        path = f"/{len(payload)}"
        peer, fragment = attacker.peer(path), wire.encode(wire.CONT, payload, fin=False)
        peer.send(wire.BINARY, payload, fin=False)
        attacker.flood_and_read(peer, fragment * 10_000, (1 << 20) * len(fragment) + 100_000)
        attacker.target.closed(path, 1, cause="TooBig", effective_code=1009)
        check(wire.close_payload(1009) in peer.last, "no Close 1009")


@attack("Endless continuation", 40)
def endless_continuation(attacker):
    """Fragments of 60,000 bytes, each far below any limit, without end.

    1009 at 16 MiB of the whole message (`max_payload`). What has come by then is held, in a buffer that doubles.
    """
    peer, fragment = attacker.peer("/endless"), wire.encode(wire.CONT, bytes(60_000), fin=False)
    peer.send(wire.BINARY, bytes(60_000), fin=False)
    attacker.flood_and_read(peer, fragment, 2 * LIMIT)
    attacker.target.closed("/endless", 1, cause="TooBig", effective_code=1009)
    check(wire.close_payload(1009) in peer.last, "no Close 1009")


def bomb(megabytes):
    """So many megabytes of zeros, as a message of permessage-deflate."""
    packer, zeros = zlib.compressobj(9, zlib.DEFLATED, -15), bytes(1_000_000)
    packed = b"".join(packer.compress(zeros) for _ in range(megabytes)) + packer.flush(zlib.Z_SYNC_FLUSH)
    return packed[:-4]


DEFLATE = ["Sec-WebSocket-Extensions: permessage-deflate"]


@attack("Compression bomb", 40, deflate=True)
def compression_bomb(attacker):
    """1 GB of zeros in 1 MB, as one frame and in fragments of 1,000 bytes, ten times each.

    1009 when 16 MiB have come out (`max_payload`): the limit is looked at while inflating, and its error is an ordinary
    close. The server lives.
    """
    packed = bomb(1_000)
    single = wire.encode(wire.BINARY, packed, rsv=4)
    pieces = [packed[at : at + 1_000] for at in range(0, len(packed), 1_000)]
    fragments = [wire.encode(wire.CONT, piece, fin=False) for piece in pieces[1:-1]]
    first = wire.encode(wire.BINARY, pieces[0], fin=False, rsv=4)
    cut = first + b"".join(fragments) + wire.encode(wire.CONT, pieces[-1])
    for path, message in (("/single", single), ("/fragments", cut)):
        for _ in range(10):
            peer = attacker.peer(path, DEFLATE)
            peer.try_send(message)
            found, end = peer.recv_all(20)
            equal(([f.code for f in found], end), ([1009], "fin"), "the answer")
            peer.gone()
        attacker.target.closed(path, 10, cause="TooBig", effective_code=1009)
    return f"{len(packed) / 1e6:.1f} MB packed"


@attack("Compression contexts", 6, deflate=True)
def compression_contexts(attacker):
    """1,000 connections that agreed on compression, exchange a compressed message each, and stay.

    No context is kept between messages by default: the loop has one inflater and one compressor, of 416 KiB together. The
    figure is for all 1,000.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = (packer.compress(b"hello " * 400) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
    peers = attacker.peers_many(1_000, "/idle", DEFLATE)
    for peer in peers:
        peer.send(wire.TEXT, packed, rsv=4)
    for peer in peers:
        frame = peer.recv()
        equal((frame.opcode, frame.rsv), (wire.TEXT, 4), "the echo")


@attack("Unfinished compression bombs", 16, deflate=True)
def unfinished_bombs(attacker):
    """500 connections send 16 KB each, of a message that would inflate to nearly 16 MiB, and not its end: 8 GB, were it
    inflated.

    What was sent is held, and nothing is inflated before a message is all here. The figure is for all 500.
    """
    frame = wire.encode(wire.BINARY, bomb(16)[:-10], fin=False, rsv=4)
    for peer in attacker.peers_many(500, "/unfinished", DEFLATE):
        peer.send_raw(frame)
    is_alive(attacker.peer("/behind"))


@attack("Messages never finished", 32)
def messages_never_finished(attacker):
    """1,000 connections send 10 KB of a message in two fragments, and then a byte of the third every half a second.

    What has arrived is held, for as long as bytes come: the limits are `max_payload` and `max_connections`. The figure is for
    10 MB on the wire.
    """
    start = wire.encode(wire.BINARY, bytes(5_000), fin=False) + wire.encode(wire.CONT, bytes(5_000), fin=False)
    start += wire.encode(wire.CONT, announced=1_000_000, fin=False)
    peers = attacker.peers_many(1_000, "/unfinished")
    for peer in peers:
        peer.send_raw(start)
    for _ in range(3):
        time.sleep(0.5)
        for peer in peers:
            peer.send_raw(b"x")


PINGS = wire.encode(wire.PING, bytes(125)) * 1_000


@attack("Ping flood", 2, close_timeout=1000)
def ping_flood(attacker):
    """A million Pings of 125 bytes, reading nothing; a million empty ones, reading every Pong.

    1008 beyond `control_rate`: 100,000 at once, 1,000 a second. One that does not read that Close either is cut off after
    `close_timeout` (here 1 s).
    """
    unread = attacker.peer("/unread")
    attacker.flood(unread, PINGS, attacker.many(1_000_000) * 131)
    read = attacker.peer("/read")
    empty = wire.encode(wire.PING) * 1_000
    attacker.flood_and_read(read, empty, attacker.many(1_000_000) * 6, patience=1.0)
    for path in ("/unread", "/read") if not attacker.quick else ():
        attacker.target.closed(path, 1, cause="Protocol", effective_code=1008)


@attack("Ping flood, no rate", 2, control_rate="off")
def ping_flood_without_a_rate(attacker):
    """The same flood, unread, at a server that has `control_rate` off.

    At most one Pong is queued, the newest (§5.5.3).
    """
    attacker.flood(attacker.peer("/unread"), PINGS, attacker.many(1_000_000) * 131)


@attack("Slow reader", 80, stall_timeout=1500)
def slow_reader(attacker):
    """Sends 1 GB of messages to be echoed, and reads none.

    64 MiB are queued (`max_backlog`), then `send` says no. After `stall_timeout` (here 1.5 s) it is cut off.
    """
    peer, frame = attacker.peer("/slow"), wire.encode(wire.BINARY, bytes(1_000_000))
    attacker.flood(peer, frame, attacker.many(1_000_000_000))
    attacker.target.closed("/slow", 1, cause="WriteStall")


@attack("A sleeper among listeners", 80, server=BenchServer, newcomers=False)
def sleeping_listener(attacker):
    """Of 20 listeners to a broadcast of 400 MB one does not read (against `bench_server`).

    The sleeper's backlog ends at 64 MiB; the others get every message.
    """
    listeners = attacker.peers_many(19, "/broadcast")
    attacker.peer("/broadcast")  # The sleeper.
    speaker = attacker.peer("/broadcast")
    size, count = 200_000, attacker.many(400_000_000) // 200_000
    frame = wire.encode(wire.BINARY, bytes(size))
    for _ in range(count):
        speaker.send_raw(frame)
        for peer in listeners:
            left = size + 10
            while left:
                left -= len(peer.sock.recv(min(left, 1 << 18)))


@attack("Slow readers of one broadcast", 48, server=BenchServer, newcomers=False, after_mib=12)
def slow_readers_of_a_broadcast(attacker):
    """500 clients join a broadcast and read nothing, and 4 MB in messages of 1,000 bytes wait for each of them, besides what the
    kernel holds (against `bench_server`). Then they leave.

    They share one copy of what waits for them, and it is freed when they are gone.
    """
    for _ in range(500):
        peer = wire.Peer(attacker.address, receive_buffer=4096)
        attacker.peers.append(peer)
        peer.upgrade("/broadcast")
    speaker = attacker.peer("/broadcast")
    frames = wire.encode(wire.BINARY, bytes(1_000)) * 100
    # The kernel takes four megabytes for one that does not read.
    for _ in range((4_000_000 + attacker.many(4_000_000)) // 100_000):
        speaker.send_raw(frames)
    attacker.target.rest()


# Closing.


@attack("Close abuse", 4, close_timeout=1000, linger_bytes=2 * MIB)
def close_abuse(attacker):
    """Close frames with codes that must not be sent, with one byte, with bad UTF-8; data without end after a Close; 500
    peers that never answer ours.

    1002, and 1007 for the text. What follows a Close is discarded, within `linger_bytes` (here 2 MiB). Those that do not
    answer are cut off after `close_timeout` (here 1 s).
    """
    for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535):
        failed_by(attacker, wire.encode(wire.CLOSE, wire.close_payload(code)), 1002, "Protocol", f"/{code}", 10)
    failed_by(attacker, wire.encode(wire.CLOSE, b"\x03"), 1002, "Protocol", "/one-byte", 10)
    failed_by(attacker, wire.encode(wire.CLOSE, b"\x03\xe8\xff"), 1007, "InvalidUtf8", "/reason", 10)
    talker = attacker.peer("/talker")
    talker.close(1000)
    sent = attacker.flood(talker, bytes(100_000), 100_000_000)
    check(sent < 50_000_000, f"{sent} bytes behind a Close")
    attacker.target.closed("/talker", 1, code=1000, was_clean=True)
    attacker.peers_many(500, "/deaf")
    attacker.peer("/commander").text("close-where /deaf 4000 x")
    attacker.target.closed("/deaf", 500, cause="CloseTimeout", effective_code=4000)


@attack("Peers that vanish", 4, heartbeat_interval=500, heartbeat_timeout=500)
def vanished_peers(attacker):
    """500 peers say nothing any more, as after a power cut: no FIN, no reset, no Pong.

    A Ping after `heartbeat.interval`, Close 1011 after `heartbeat.timeout` (here 0.5 s each), then the descriptor is closed.
    """
    attacker.peers_many(500, "/vanished")
    attacker.target.closed("/vanished", 500, cause="HeartbeatTimeout", effective_code=1011)


@attack("Leaving while paused", 4, close_timeout=1000)
def leaving_while_paused(attacker):
    """The application pauses reading from 300 connections, as a relay does whose other leg is slow; a third of them reset, a
    third send FIN, a third reset with input that nobody has read.

    A reset is an end at once. A FIN is one within `close_timeout` (here 1 s).
    """
    count = attacker.many(300)
    for path, sent, leave, cause in (
        ("/reset", b"", wire.Peer.reset, "PeerReset"),
        ("/fin", b"", wire.Peer.half_close, "PeerFin"),
        ("/unread", wire.encode(wire.TEXT, b"unread") * 1_000, wire.Peer.reset, "PeerReset"),
    ):
        peers = attacker.peers_many(count // 3, path)
        for peer in peers:
            peer.text("pause")
        time.sleep(0.3)
        for peer in peers:
            peer.send_raw(sent)
        time.sleep(0.2)
        for peer in peers:
            leave(peer)
        attacker.target.closed(path, count // 3, cause=cause)


@attack("A stall of the server", 4, heartbeat_interval=1500, heartbeat_timeout=2000)
def stall_of_the_server(attacker):
    """None of the peers': the server's process gets no time for 2.3 s, which is more than `heartbeat.timeout` (here 2 s). Meanwhile
    1,000 peers answer their Pings.

    Whatever deadline has passed, what is in the kernel is read first. All 1,000 stay.
    """
    peers = attacker.peers_many(attacker.many(1_000), "/answers")
    for peer in peers:
        equal(peer.recv().opcode, wire.PING, "the frame")
    attacker.target.process.send_signal(signal.SIGSTOP)
    for peer in peers:
        peer.send(wire.PONG)
    time.sleep(2.3)
    attacker.target.process.send_signal(signal.SIGCONT)
    time.sleep(0.5)
    ids = {event["id"] for event in attacker.target.events("open", path="/answers")}
    silent = [event for event in attacker.target.events("close", cause="HeartbeatTimeout") if event["id"] in ids]
    check(not silent, f"{len(silent)} of {len(ids)} that had answered were called silent")
    is_alive(peers[0])


@attack("Broken pipes", 16, server=SigpipeLab, close_timeout=1000)
def broken_pipes(attacker):
    """Makes the server write to connections that are broken: asks for a flood, reads none of it, and sends FIN, a Close and FIN, or
    nothing, and then a reset. SIGPIPE has its default disposition, which is fatal.

    No write raises SIGPIPE: each is an error that ends its own connection.
    """
    def lives(number):
        try:
            status = attacker.target.process.wait(0.01)
        except subprocess.TimeoutExpired:
            return
        check(False, f"the server ended with status {status} after {number} connections")

    for number in range(attacker.many(600)):
        peer = wire.Peer(attacker.address, receive_buffer=4096)
        attacker.peers.append(peer)
        peer.upgrade("/pipe")
        peer.text("flood 60 65536")
        time.sleep(0.002)
        if number % 3 == 1:
            peer.close(1000)
        if number % 3:
            peer.half_close()
            time.sleep(0.002)
        peer.reset()
        lives(number + 1)
    is_alive(attacker.peer("/after"))
