"""the closing specification section 4, the rows of Connecting and Refusing."""

import time

import wire
from lab import QUIET_S, check, equal, record, rows


def failed(lab, peer):
    return lab.wait("handshake_failed", peer=f"127.0.0.1:{peer.port}")["cause"]


def _line(old, new):
    """A valid request with one line changed."""
    head, _ = wire.request("/")
    changed = head.replace(old, new)
    assert changed != head
    return changed


def s4_connecting_valid_upgrade(start):
    """Connecting | valid upgrade, serving -> Open: 101, Open."""
    lab = start()
    peer = lab.tcp()
    answer = peer.upgrade("/x")
    check("sec-websocket-protocol" not in answer.headers, f"a subprotocol nobody asked for: {answer.text!r}")
    check("sec-websocket-extensions" not in answer.headers, f"an extension nobody asked for: {answer.text!r}")
    peer.expect_alive()


def s4_connecting_bytes_behind_the_head_are_frames(start):
    """Connecting | valid upgrade: bytes after the request head are parsed as frames."""
    lab = start()
    peer = lab.tcp()
    peer.upgrade("/x", behind=wire.encode(wire.TEXT, b"early") + wire.encode(wire.TEXT, b"bird")[:5])
    peer.expect_text("early")
    peer.send_raw(wire.encode(wire.TEXT, b"bird")[5:])
    peer.expect_text("bird")


def s4_connecting_close_behind_the_head(start):
    """Connecting | valid upgrade with a Close behind it: Open, Closing, Close; and FIN behind that."""
    lab = start()
    peer = lab.tcp()
    peer.upgrade("/x", behind=wire.encode(wire.CLOSE, wire.close_payload(4000, "at once")))
    peer.half_close()
    peer.expect_close(4000, "at once")
    peer.expect_end("fin")
    record(peer.closed(), 4000, 4000, True, "Remote", "PeerClose")


def s4_connecting_in_single_bytes(start):
    """Connecting: any split of the same bytes gives the same events."""
    lab = start()
    peer = lab.tcp()
    head, _ = wire.request("/bytes")
    for byte in head:
        peer.send_raw(bytes([byte]))
    equal(peer.recv_answer().status, 101, "the answer")
    for byte in wire.encode(wire.TEXT, b"bit by bit"):
        peer.send_raw(bytes([byte]))
    peer.expect_text("bit by bit")


@rows(
    ("garbage", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 not http at all\r\n\r\n"),
    ("empty-lines", b"\r\n\r\n\r\n\r\n"),
    ("post", _line(b"GET", b"POST")),
    ("no-key", _line(b"Sec-WebSocket-Key", b"X-Key")),
    ("short-key", _line(b"Sec-WebSocket-Key: ", b"Sec-WebSocket-Key: aGk=\r\nX: ")),
    ("key-not-base64", _line(b"Sec-WebSocket-Key: ", b"Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!==\r\nX: ")),
    ("two-keys", _line(b"Upgrade: websocket", b"Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")),
    ("no-connection-upgrade", _line(b"Connection: Upgrade", b"Connection: keep-alive")),
    ("body", _line(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\nhello")),
    ("chunked-body", _line(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")),
    ("both-lengths", _line(b"\r\n\r\n", b"\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello")),
    ("folded-header", _line(b"Host: 127.0.0.1", b"Host: 127.0.0.1\r\nX-Fold: a\r\n b")),
    ("space-before-colon", _line(b"Upgrade: websocket", b"Upgrade : websocket")),
)  # fmt: skip
def s4_connecting_bad_request(start, sent):
    """Connecting | bad request (a request body too): 4xx where possible, HandshakeFailed; never 101."""
    lab = start(handshake_timeout=1500)
    peer = lab.tcp()
    check(peer.try_send(sent), "reset while sending")
    cause = failed(lab, peer)
    check(cause in ("BadRequest", "Rejected", "BadVersion"), f"cause {cause}")
    answer = peer.recv_answer()
    check(400 <= answer.status < 500, f"answered with {answer.text!r}")
    equal(peer.recv_end(), "fin", "the end")


@rows(
    ("all", {"max_connections": 1}, "max_connections"),
    ("address", {"max_per_address": 1}, "max_connections_per_address"),
    ("handshakes", {"max_handshakes": 1}, "max_handshakes"),
)
def lab_too_many_connections_name_their_limit(start, limits, name):
    """TooManyConnections has `cause_fields.limit`: which of the limits it was."""
    lab = start(**limits)
    peers = [lab.tcp(), lab.tcp()]
    event = lab.wait("handshake_failed", cause="TooManyConnections")
    equal(event["cause_fields"], {"limit": name}, "cause_fields")
    check(event["peer"].rpartition(":")[2] in [str(peer.port) for peer in peers], "whose it is")


@rows(
    ("no-upgrade-header", _line(b"Upgrade: websocket\r\n", b"")),
    ("other-upgrade", _line(b"websocket\r\n", b"h2c\r\n")),
    # RFC 9110, 7.8: an Upgrade in an HTTP/1.0 request is ignored.
    ("http-1.0", _line(b"HTTP/1.1", b"HTTP/1.0")),
)
def s4_connecting_no_websocket_upgrade(start, sent):
    """Connecting | a request that is no upgrade: answered by plain HTTP or refused; never 101."""
    lab = start()
    peer = lab.tcp()
    peer.send_raw(sent)
    check(peer.recv_answer().status != 101, "upgraded")
    check(peer.recv_end() != "reset", "reset behind the answer")


@rows(("777", "777"), ("8", "8"), ("word", "thirteen"), ("list", "13, 8"))
def s4_connecting_bad_version(start, version):
    """Connecting | wrong Sec-WebSocket-Version: 426 with the version that we speak; never 101."""
    lab = start()
    peer = lab.tcp()
    peer.send_raw(wire.request("/", version=version)[0])
    answer = peer.recv_answer()
    check(answer.status in (400, 426), f"answered with {answer.text!r}")
    if version in ("777", "8"):
        equal(answer.status, 426, "the answer")
        equal(answer.headers.get("sec-websocket-version"), "13", "Sec-WebSocket-Version")
        equal(failed(lab, peer), "BadVersion", "cause")
    else:
        check(failed(lab, peer) in ("BadVersion", "BadRequest"), "cause")


@rows(
    ("connection-list", b"Connection: Upgrade", b"Connection: keep-alive, Upgrade"),
    ("case", b"Upgrade: websocket\r\nConnection: Upgrade", b"upgrade: WebSocket\r\nCONNECTION: upgrade"),
    ("no-spaces", b"Host: 127.0.0.1", b"Host:127.0.0.1"),
    ("many-spaces", b"Upgrade: websocket", b"Upgrade:   websocket  "),
    ("zero-body", b"Host: 127.0.0.1", b"Host: 127.0.0.1\r\nContent-Length: 0"),
)
def s4_connecting_unusual_but_valid(start, old, new):
    """Connecting | valid upgrade: header names and tokens are case-insensitive, Connection is a list."""
    lab = start()
    peer = lab.tcp()
    peer.send_raw(_line(old, new))
    status = peer.recv_answer().status
    if old == b"Host: 127.0.0.1" and b"Length" in new and status == 400:
        return  # A declared body, though empty: refusing it is strict, not wrong.
    equal(status, 101, "the answer")
    peer.expect_alive()


def s4_connecting_head_too_large(start):
    """Connecting | too long a head: 431 (or 400), HandshakeFailed(HeadTooLarge)."""
    lab = start()
    peer = lab.tcp()
    head, _ = wire.request("/", ["X-Long: " + "x" * 100_000])
    peer.try_send(head)
    equal(failed(lab, peer), "HeadTooLarge", "cause")
    check(peer.recv_answer().status in (400, 414, 431), "the answer")
    equal(peer.recv_end(), "fin", "the end")


@rows(("nothing", b""), ("half", b"GET / HTTP/1.1\r\nHost: x\r\n"))
def s4_connecting_eof(start, sent):
    """Connecting | EOF: HandshakeFailed(PeerFin), neither Open nor Close."""
    lab = start()
    peer = lab.tcp()
    peer.send_raw(sent)
    peer.half_close()
    equal(failed(lab, peer), "PeerFin", "cause")
    check(peer.recv_end() == "fin", "FIN was answered with a reset")


@rows(("nothing", b""), ("half", b"GET / HTTP/1.1\r\nHost: x\r\n"))
def s4_connecting_rst(start, sent):
    """Connecting | RST: HandshakeFailed(PeerReset)."""
    lab = start()
    peer = lab.tcp()
    peer.send_raw(sent)
    time.sleep(0.1)
    peer.reset()
    equal(failed(lab, peer), "PeerReset", "cause")


def s4_connecting_is_silent_in_the_accept_queue(start):
    """Connecting | a reset that comes before accept is no event of an established connection."""
    lab = start()
    for _ in range(50):
        lab.tcp().reset()
    time.sleep(QUIET_S)
    check(len(lab.all("open")) == 1, "open without a handshake")


def s4_plain_http_is_no_failure(start):
    """Connecting | plain HTTP answered by the application -> Refusing: its answer, no event."""
    lab = start()
    before = len(lab.events)
    peer = lab.tcp()
    peer.send_raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    equal(peer.recv_answer().status, 200, "the answer")
    equal(peer.recv_end(), "fin", "the end")
    peer.gone()
    time.sleep(QUIET_S)
    equal(lab.events[before:], [], "the events")


def s4_refusing_answer_survives_a_long_request(start):
    """Refusing -> Lingering: unread input of the peer must not turn the answer into a reset."""
    lab = start()
    peer = lab.tcp()
    head = _line(b"\r\n\r\n", b"\r\nContent-Length: 2000000\r\n\r\n")
    peer.send_raw(head)
    sent = all(peer.try_send(bytes(100_000)) for _ in range(20))
    check(sent, "reset while sending the body")
    check(400 <= peer.recv_answer().status < 500, "not refused")
    peer.recv_end()
    equal(peer.end, "fin", "the end")
    check(not peer.reset_behind_fin(0.1), "reset behind the answer")


def s4_refusing_then_rst(start):
    """Refusing, Lingering | RST: the descriptor is freed and nothing further is reported."""
    lab = start()
    peer = lab.tcp()
    peer.send_raw(b"NONSENSE\r\n\r\n")
    failed(lab, peer)
    peer.reset()
    time.sleep(QUIET_S)
    now = lab.control.stats()
    equal((now["lingering"], now["connecting"]), (0, 0), "lingering, connecting")


def s4_refusing_ignores_a_second_request(start):
    """Refusing: what comes behind the refused request is discarded, a valid upgrade too."""
    lab = start()
    peer = lab.tcp()
    peer.send_raw(b"GET /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n!" + wire.request("/")[0])
    check(peer.recv_answer().status != 101, "upgraded")
    check(b"101 Switching" not in bytes(peer.buffer), "the second request was answered")
    peer.recv_end()
    check(len(lab.all("open")) == 1, "open for a refused connection")


def s4_upgrade_of_an_offered_subprotocol(start):
    """Connecting | valid upgrade: a subprotocol is never chosen that was not offered."""
    lab = start()
    peer = lab.tcp()
    answer = peer.upgrade("/x", ["Sec-WebSocket-Protocol: chat, superchat"])
    check(answer.headers.get("sec-websocket-protocol", "chat") in ("chat", "superchat"), f"{answer.text!r}")
    peer.expect_alive()


@rows(
    ("unknown", "x-unknown"),
    ("constructor", "constructor"),
    ("unclosed-quote", 'a; b="\\c\\c\\c\\c\\c\\c\\c\\c\\c\\c\\c\\c\\c\\c\\c\\c'),
    ("commas", ",;,,;"),
)
def s4_upgrade_with_odd_extensions(start, offered):
    """Connecting: unknown extensions are ignored (or the request refused); nothing is negotiated, nothing crashes."""
    lab = start(deflate=True)
    peer = lab.tcp()
    peer.send_raw(wire.request("/", [f"Sec-WebSocket-Extensions: {offered}"])[0])
    answer = peer.recv_answer()
    check(answer.status in (101, 400), f"answered with {answer.text!r}")
    check("sec-websocket-extensions" not in answer.headers, f"negotiated: {answer.text!r}")
    lab.peer().expect_alive()
