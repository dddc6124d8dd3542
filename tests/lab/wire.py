"""A raw WebSocket client for tests: it sends any bytes and sees how a connection ends, FIN or RST.

It knows RFC 6455 and TCP on Linux, and nothing of the server under test. Nothing here answers by itself: no Pong, no
Close, no FIN, unless the test says so.
"""

import base64
import hashlib
import os
import select
import socket
import struct
import time
from typing import NamedTuple

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Ended(Exception):
    """The connection ended where a frame or an answer was due; `how` is "fin" or "reset"."""

    def __init__(self, how, leftover=b""):
        super().__init__(f"the connection ended with {how}" + (f" after {bytes(leftover[:40])!r}" if leftover else ""))
        self.how = how


class Silent(Exception):
    """Nothing came in time."""


class Frame(NamedTuple):
    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0
    masked: bool = False

    @property
    def code(self):
        return struct.unpack(">H", self.payload[:2])[0] if len(self.payload) >= 2 else None

    @property
    def reason(self):
        return self.payload[2:].decode("utf-8")

    def __repr__(self):
        odd = ("" if self.fin else ", fin=False") + (f", rsv={self.rsv}" if self.rsv else "")
        return f"Frame(opcode={self.opcode:#x}, {len(self.payload)} bytes, {self.payload[:40]!r}{odd})"


def encode(opcode, payload=b"", fin=True, rsv=0, mask=True, length_form=None, announced=None):
    """A frame. `length_form` 16 or 64 forces a longer length field than needed; `announced` lies about the length."""
    length = len(payload) if announced is None else announced
    first = (0x80 if fin else 0) | (rsv << 4) | opcode
    bit = 0x80 if mask else 0
    if length_form == 64 or length > 0xFFFF:
        head = struct.pack(">BBQ", first, bit | 127, length)
    elif length_form == 16 or length > 125:
        head = struct.pack(">BBH", first, bit | 126, length)
    else:
        head = struct.pack(">BB", first, bit | length)
    if not mask:
        return head + payload
    key = b"\x5a\xc3\x17\x81"
    return head + key + xor(payload, key)


def xor(payload, key):
    if not payload:
        return b""
    pad = (key * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(len(payload), "big")


def close_payload(code=None, reason=""):
    if code is None:
        return b""
    return struct.pack(">H", code) + (reason if isinstance(reason, bytes) else reason.encode())


def request(path="/", headers=(), version="13", key=None):
    """A valid upgrade request; `headers` are further whole lines."""
    key = key or base64.b64encode(os.urandom(16)).decode()
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        f"Sec-WebSocket-Version: {version}",
        *headers,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"), key


class Answer(NamedTuple):
    """The head of an HTTP answer."""

    status: int
    headers: dict
    text: bytes


class Peer:
    """One TCP connection, plain until `upgrade`."""

    def __init__(self, address, receive_buffer=None, source=None):
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if source:
            # The port is chosen at connect, so that there are as many as there are destinations.
            self.sock.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
            self.sock.bind((source, 0))
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.settimeout(5)
        self.sock.connect(address)
        host, self.port = self.sock.getsockname()
        self.name = f"{host}:{self.port}"
        self.buffer = bytearray()
        self.end = None
        self.is_gone = False

    # Out.

    def send_raw(self, data, timeout=10):
        self.sock.settimeout(timeout)
        try:
            self.sock.sendall(data)
        except ConnectionResetError:
            # The error is reported once only: remember it for the reader.
            self.end = "reset"
            raise

    def try_send(self, data, timeout=10):
        """False when the other side takes no more."""
        try:
            self.send_raw(data, timeout)
            return True
        except (ConnectionResetError, BrokenPipeError, socket.timeout):
            return False

    def send(self, opcode, payload=b"", **how):
        self.send_raw(encode(opcode, payload, **how))

    def text(self, text):
        self.send(TEXT, text.encode())

    def binary(self, payload):
        self.send(BINARY, payload)

    def ping(self, payload=b""):
        self.send(PING, payload)

    def close(self, code=None, reason=""):
        self.send(CLOSE, close_payload(code, reason))

    def half_close(self):
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self):
        """RST, at once."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.gone()

    def gone(self):
        if not self.is_gone:
            self.is_gone = True
            self.sock.close()

    # In.

    def more(self, deadline):
        """Reads once into the buffer; raises at the end or when the time is up."""
        if self.end:
            raise Ended(self.end, self.buffer)
        left = deadline - time.monotonic()
        if left <= 0:
            raise Silent("nothing came in time")
        self.sock.settimeout(left)
        try:
            data = self.sock.recv(1 << 18)
        except socket.timeout:
            raise Silent("nothing came in time") from None
        except ConnectionResetError:
            self.end = "reset"
            raise Ended("reset", self.buffer) from None
        if not data:
            self.end = "fin"
            raise Ended("fin", self.buffer)
        self.buffer += data

    def parse(self):
        """One frame off the buffer, or None."""
        data = self.buffer
        if len(data) < 2:
            return None
        length, at = data[1] & 0x7F, 2
        if length == 126:
            if len(data) < 4:
                return None
            length, at = struct.unpack_from(">H", data, 2)[0], 4
        elif length == 127:
            if len(data) < 10:
                return None
            length, at = struct.unpack_from(">Q", data, 2)[0], 10
        if data[1] & 0x80:
            at += 4
        if len(data) < at + length:
            return None
        payload = bytes(data[at : at + length])
        frame = Frame(data[0] & 0xF, payload, bool(data[0] & 0x80), data[0] >> 4 & 7, bool(data[1] & 0x80))
        del data[: at + length]
        return frame

    def recv(self, timeout=5.0):
        """The next frame."""
        deadline = time.monotonic() + timeout
        while True:
            frame = self.parse()
            if frame is not None:
                return frame
            self.more(deadline)

    def recv_all(self, timeout=10.0):
        """Everything up to the end: (frames, "fin" | "reset" | "open"). A cut frame stays in `buffer`."""
        deadline = time.monotonic() + timeout
        frames = []
        while True:
            frame = self.parse()
            if frame is not None:
                frames.append(frame)
                continue
            try:
                self.more(deadline)
            except Ended as ended:
                return frames, ended.how
            except Silent:
                return frames, "open"

    def recv_end(self, timeout=5.0):
        """How the connection ended; whatever still comes is thrown away."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.buffer.clear()
                self.more(deadline)
            except Ended as ended:
                return ended.how
            except Silent:
                return "open"

    def read_slowly(self, seconds, chunk, pause):
        """Reads `chunk` bytes every `pause` seconds into the buffer; False once the connection ended."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            wanted = len(self.buffer) + chunk
            while len(self.buffer) < wanted:
                try:
                    self.more(min(until, time.monotonic() + pause))
                except Ended:
                    return False
                except Silent:
                    break
            time.sleep(pause)
        return True

    def reset_behind_fin(self, within):
        """Whether an RST follows the FIN that was read (recv does not tell: it says 0 for ever)."""
        poll = select.poll()
        poll.register(self.sock, 0)
        for _, happened in poll.poll(within * 1000):
            if happened & select.POLLERR:
                return True
            if happened & select.POLLHUP:
                return self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
        return False

    # HTTP.

    def recv_answer(self, timeout=5.0):
        """The head of an HTTP answer; what is behind it stays in the buffer."""
        deadline = time.monotonic() + timeout
        while b"\r\n\r\n" not in self.buffer:
            self.more(deadline)
        head, _, _ = bytes(self.buffer).partition(b"\r\n\r\n")
        del self.buffer[: len(head) + 4]
        lines = head.decode("latin-1").split("\r\n")
        version, status = lines[0].split(" ")[:2]
        assert version == "HTTP/1.1", f"the status line is {lines[0]!r}"
        headers = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            assert colon and name == name.strip(), f"a header line is {line!r}"
            headers[name.lower()] = value.strip()
        return Answer(int(status), headers, head)

    def upgrade(self, path="/", headers=(), behind=b"", timeout=5.0):
        """The opening handshake, `behind` in the same write; checks the answer as a client must."""
        head, key = request(path, headers)
        self.send_raw(head + behind)
        answer = self.recv_answer(timeout)
        assert answer.status == 101, f"the upgrade was answered with {answer.text!r}"
        accept = base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()
        assert answer.headers.get("upgrade", "").lower() == "websocket", answer.text
        assert "upgrade" in answer.headers.get("connection", "").lower(), answer.text
        assert answer.headers.get("sec-websocket-accept") == accept, answer.text
        return answer
