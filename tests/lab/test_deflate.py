"""permessage-deflate (RFC 7692) behind `--deflate`; the closing specification section 11; bombs."""

import zlib

import wire
from lab import BACKLOG, check, equal, record, rows

MEGABYTE = 1 << 20
OFFER = "Sec-WebSocket-Extensions: permessage-deflate"


def deflate(payload):
    packer = zlib.compressobj(wbits=-15)
    data = packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH)
    return data[:-4]


class Inflater:
    def __init__(self):
        self.unpacker = zlib.decompressobj(wbits=-15)

    def __call__(self, frame):
        if not frame.rsv & 4:
            return frame.payload
        return self.unpacker.decompress(frame.payload + b"\x00\x00\xff\xff")


def deflated(start, parameters="", **options):
    lab = start(deflate=True, **options)
    peer = lab.tcp()
    answer = peer.upgrade("/deflate", [OFFER + parameters])
    check(
        answer.headers.get("sec-websocket-extensions", "").startswith("permessage-deflate"),
        f"{answer.text!r}",
    )
    return lab, peer, answer


@rows(("plain", ""), ("no-context", "; client_no_context_takeover; server_no_context_takeover"),
      ("window", "; client_max_window_bits"))  # fmt: skip
def s11_deflate_echo(start, parameters):
    """--deflate: negotiated when offered; compressed, fragmented and uncompressed messages are echoed right."""
    lab, peer, answer = deflated(start, parameters)
    inflate = Inflater()
    if "server_no_context_takeover" in parameters:
        check("server_no_context_takeover" in answer.headers["sec-websocket-extensions"], f"{answer.text!r}")
    for text in ("hello", "hello", "🦀" * 5000, ""):
        peer.send(wire.TEXT, deflate(text.encode()), rsv=4)
        equal(inflate(peer.recv()), text.encode(), "the echo")
    data = deflate(b"fragments " * 1000)
    peer.send(wire.BINARY, data[:10], rsv=4, fin=False)
    peer.send(wire.CONT, data[10:])
    equal(inflate(peer.recv()), b"fragments " * 1000, "the echo of fragments")
    peer.send(wire.TEXT, b"not compressed")
    equal(inflate(peer.recv()), b"not compressed", "the echo")
    peer.close(4000)
    frame = peer.recv()
    equal((frame.opcode, frame.code, frame.rsv), (wire.CLOSE, 4000, 0), "the Close")


def s11_deflate_is_not_negotiated_unasked(start):
    """--deflate: nothing is negotiated that was not offered; RSV1 is then a violation."""
    lab = start(deflate=True)
    peer = lab.tcp()
    answer = peer.upgrade("/x")
    check("sec-websocket-extensions" not in answer.headers, f"{answer.text!r}")
    peer.send(wire.TEXT, deflate(b"x"), rsv=4)
    peer.expect_code(1002)


def s11_deflate_without_the_switch(start):
    """Without --deflate the offer is declined."""
    lab = start()
    peer = lab.tcp()
    answer = peer.upgrade("/x", [OFFER])
    check("sec-websocket-extensions" not in answer.headers, f"{answer.text!r}")
    peer.expect_alive()


@rows(*[(bits, bits) for bits in ("0", "7", "16", "99", "abc", "-1", "015")])
def hostile_deflate_window_bits(start, bits):
    """Window bits beyond 8-15: the offer is declined (or the request refused), the process lives."""
    lab = start(deflate=True)
    for name in ("client_max_window_bits", "server_max_window_bits"):
        peer = lab.tcp()
        peer.send_raw(wire.request("/x", [f"{OFFER}; {name}={bits}"])[0])
        answer = peer.recv_answer()
        check(answer.status in (101, 400), f"{answer.text!r}")
        check("sec-websocket-extensions" not in answer.headers, f"accepted: {answer.text!r}")


@rows(("continuation", wire.encode(wire.TEXT, deflate(b"x"), rsv=4, fin=False) + wire.encode(wire.CONT, b"", rsv=4)),
      ("ping", wire.encode(wire.PING, b"", rsv=4)), ("close", wire.encode(wire.CLOSE, b"", rsv=4)))  # fmt: skip
def s11_deflate_rsv1_where_it_must_not_be(start, sent):
    """RFC 7692, 6.1: RSV1 on a continuation or a control frame is a violation: 1002."""
    lab, peer, _ = deflated(start)
    peer.send_raw(sent)
    peer.expect_code(1002)
    record(peer.closed(), 1006, 1002, False, "Local", "Protocol")


def s11_deflate_of_invalid_data(start):
    """--deflate: data that is no deflate stream fails the connection with 1002 or 1007, and the process lives."""
    lab, peer, _ = deflated(start)
    peer.send(wire.BINARY, b"\xff" * 50, rsv=4)
    frame = peer.recv()
    check(frame.opcode == wire.CLOSE and frame.code in (1002, 1007), f"got {frame}")
    equal(peer.closed()["code"], 1006, "code")


def s11_deflate_bad_utf8_inside(start):
    """--deflate: UTF-8 is checked behind the inflating: 1007."""
    lab, peer, _ = deflated(start)
    peer.send(wire.TEXT, deflate(b"abc\xff"), rsv=4)
    peer.expect_code(1007)
    record(peer.closed(), 1006, 1007, False, "Local", "InvalidUtf8")


@rows(("one-frame", 1), ("fragments", 20))
def hostile_deflate_bomb(start, pieces):
    """A deflate bomb: the inflated size is limited while inflating, over all fragments: 1009, TooBig, memory flat."""
    lab, peer, _ = deflated(start, max_payload=MEGABYTE)
    packer = zlib.compressobj(9, wbits=-15)
    bomb = b"".join(packer.compress(bytes(MEGABYTE)) for _ in range(300)) + packer.flush(zlib.Z_SYNC_FLUSH)[:-4]
    check(len(bomb) < MEGABYTE, "the bomb is too big by itself")
    before = lab.memory()
    size = len(bomb) // pieces + 1
    parts = [bomb[at : at + size] for at in range(0, len(bomb), size)]
    for at, part in enumerate(parts):
        first, last = at == 0, at == len(parts) - 1
        if not peer.try_send(wire.encode(wire.BINARY if first else wire.CONT, part, rsv=4 if first else 0, fin=last)):
            break
    peer.expect_code(1009)
    check(lab.memory() - before < 16 * MEGABYTE, f"{(lab.memory() - before) / MEGABYTE:.0f} MiB")
    record(peer.closed(), 1006, 1009, False, "Local", "TooBig")
    lab.peer().expect_alive()


def s11_deflate_counts_in_lost(start):
    """Sections 5, 11: conservation holds with compression: a flood and a close, read to the end."""
    lab, peer, _ = deflated(start, max_backlog=BACKLOG)
    peer.send(wire.TEXT, b"flood-close 200 5000 4000 x")
    inflate = Inflater()
    numbers = []
    while (frame := peer.recv()).opcode != wire.CLOSE:
        numbers.append(int.from_bytes(inflate(frame)[:8], "big"))
    equal(numbers, list(range(200)), "the numbers")
    peer.close(4000)
    event = record(peer.closed(), 4000, 4000, True, "Local", "LocalClose")
    equal((event["lost"]["messages"], event["lost"]["bytes"]), (0, 0), "lost")
