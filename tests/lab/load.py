#!/usr/bin/env python3
"""Endings under load: thousands of connections, slow readers, floods. Prints every figure beside its limit.

    python3 tests/lab/load.py PATH/OF/close_lab [PATH/OF/bench_server] [-k PATTERN] [--slack MS] [--repeat N] [--list]

Build both with --release. The clients are a process of their own with 20,000 descriptors at most; `--slack` is what a
busy machine may add to a limit in time (default 150 ms), and a scenario of which only times fail is repeated, up to
`--repeat` times in all (default 3). The last line is `N passed, M failed`; the exit status is 1 when something failed.
Linux only: it reads /proc and asks sockets for what they hold.
"""

import argparse
import base64
import collections
import fcntl
import hashlib
import json
import os
import pathlib
import random
import re
import resource
import select
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.dont_write_bytecode = True

import lab  # noqa: E402
import wire  # noqa: E402

MB = 1_000_000
MIB = 1 << 20
DESCRIPTORS = 20_000
SLACK_MS = lab.SLACK_MS
# What closing adds to a promise, whatever peers do (the closing specification section 8).
SHUTDOWN_MS = 250
# No deadline later than this, with 10,000 connections closing at once.
LATE_MS = 100
# What may stay resident when 10,000 connections are gone: the allocator's holes, and in the lab its last 1,000 reports;
# and what a further round may add.
MARGIN_MIB, LAB_MARGIN_MIB, GROWTH_MIB = 4, 8, 1
# Source addresses of the clients, so that the ports of one do not run out.
SOURCES = [f"127.0.0.{n}" for n in range(2, 10)]
KEY = base64.b64encode(b"0123456789abcdef").decode()
ACCEPT = base64.b64encode(hashlib.sha1(KEY.encode() + wire.GUID).digest())
PIPE_SIZE = 1 << 20


# The record of checks.


class Record:
    """The checks of one run of a scenario."""

    def __init__(self):
        self.lines = []
        self.failed = self.late = 0

    def note(self, text):
        self.lines.append(f"      {text}")

    def check(self, good, what, figure, limit="", is_time=False):
        self.failed += not good
        self.late += is_time and not good
        limit = f"; limit: {limit}" if limit else ""
        self.lines.append(f"{'ok   ' if good else 'FAIL '} {what}: {figure}{limit}")

    def equal(self, got, wanted, what):
        self.check(got == wanted, what, got, f"= {wanted}")

    def at_most(self, got, limit, what, unit="", digits=0, **more):
        number = f"{got:,.{digits}f}{unit}"
        self.check(got <= limit, what, number, f"{limit:,.{digits}f}{unit}", **more)

    def in_time(self, got_ms, limit_ms, what, slack_ms=None):
        slack = SLACK_MS if slack_ms is None else slack_ms
        text = f"{limit_ms:.0f} ms + {slack:.0f} ms slack"
        self.check(got_ms <= limit_ms + slack, what, f"{got_ms:.1f} ms", text, is_time=True)


# The server.


def stamp(path):
    """Copies stdin to `path`, each piece behind the moment at which it came: in a process of its own, so that the time
    is right and the server never waits for a reader."""
    with open(path, "wb", buffering=0) as out:
        while data := os.read(0, PIPE_SIZE):
            out.write(struct.pack("<dI", time.monotonic(), len(data)) + data)


class Process:
    """A server, its memory and its end."""

    def __init__(self, command, **options):
        self.popen = subprocess.Popen(command, **options)
        self.exit_watch = os.pidfd_open(self.popen.pid)

    def memory(self):
        """Bytes by kind: Rss, Pss, Private_Dirty."""
        with open(f"/proc/{self.popen.pid}/smaps_rollup", encoding="ascii") as text:
            return {k: int(v) * 1024 for k, v in re.findall(r"^(Rss|Pss|Private_Dirty): +(\d+) kB", text.read(), re.M)}

    def rss(self):
        return self.memory()["Rss"]

    def peak(self):
        with open(f"/proc/{self.popen.pid}/status", encoding="ascii") as text:
            return int(re.search(r"VmHWM:\s*(\d+) kB", text.read())[1]) * 1024

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.popen.pid}/fd"))

    def cpu(self):
        with open(f"/proc/{self.popen.pid}/stat", encoding="ascii") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def waited(self):
        """Milliseconds for which its first loop was ready to run and had no processor."""
        with open(f"/proc/{self.popen.pid}/task/{self.popen.pid}/schedstat", encoding="ascii") as text:
            return int(text.read().split()[1]) / 1e6

    def kill(self):
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
        os.close(self.exit_watch)


class Server(Process):
    """A `close_lab` whose lines carry the time at which each was written."""

    def __init__(self, binary, **options):
        command = [binary, "--listen", "127.0.0.1:0", "--lame-duck", "0"]
        for name, value in {"heartbeat_interval": "off", **options}.items():
            command += ["--" + name.replace("_", "-"), str(value)]
        self.log = tempfile.NamedTemporaryFile(prefix="load-", suffix=".log")
        super().__init__(command, stdout=subprocess.PIPE)
        fcntl.fcntl(self.popen.stdout, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        self.stamper = subprocess.Popen([sys.executable, __file__, "--stamp", self.log.name], stdin=self.popen.stdout)
        self.popen.stdout.close()
        self.reader = open(self.log.name, "rb")
        self.rest = b""
        self.events = []
        self.by_kind = collections.defaultdict(list)
        host, _, port = self.wait("listening")["addr"].rpartition(":")
        self.address = (host, int(port))
        self._control = None

    def read(self):
        """Takes in what the stamper has written."""
        while True:
            at = self.reader.tell()
            head = self.reader.read(12)
            moment, size = struct.unpack("<dI", head) if len(head) == 12 else (0, 0)
            data = self.reader.read(size)
            if len(head) < 12 or len(data) < size:
                self.reader.seek(at)
                return
            *lines, self.rest = (self.rest + data).split(b"\n")
            for line in lines:
                event = json.loads(line)
                event["at"] = moment
                self.events.append(event)
                self.by_kind[event["event"]].append(event)

    def all(self, kind):
        self.read()
        return self.by_kind[kind]

    def wait(self, kind, count=1, timeout=10.0):
        """The `count`-th event of that kind."""
        deadline = time.monotonic() + timeout
        while len(self.all(kind)) < count:
            if time.monotonic() > deadline:
                raise lab.Failure(f"{len(self.by_kind[kind])} of {count} {kind} within {timeout} s")
            time.sleep(0.01)
        return self.by_kind[kind][count - 1]

    def forget(self):
        """A round begins: only what comes from now on counts."""
        self.read()
        self.events.clear()
        self.by_kind.clear()

    @property
    def control(self):
        if self._control is None:
            self._control = wire.Peer(self.address)
            self._control.upgrade("/control")
        return self._control

    def command(self, text):
        self.control.text(text)

    def stats(self):
        self.control.text("stats")
        return json.loads(self.control.recv(10).payload)

    def back_to(self, baseline, timeout=10.0):
        """The stats when they are those of `baseline`, or the last ones when the time is up."""
        deadline = time.monotonic() + timeout
        while (now := self.stats()) != baseline and time.monotonic() < deadline:
            time.sleep(0.02)
        return now

    def kill(self):
        if self._control is not None:
            self._control.gone()
        super().kill()
        self.stamper.wait()
        self.reader.close()
        self.log.close()


# The clients.


class Frames:
    """Frames out of a stream, of which only the beginning is kept."""

    KEPT = 256

    def __init__(self):
        self.head = bytearray()
        self.left = None

    @property
    def is_cut(self):
        return self.left is not None or bool(self.head)

    def head_length(self):
        return {126: 4, 127: 10}.get(self.head[1], 2) if len(self.head) >= 2 else 2

    def feed(self, data):
        """[(opcode, length, beginning of the payload)]"""
        found, at, end = [], 0, len(data)
        while True:
            if self.left is None:
                if at == end:
                    return found
                while len(self.head) < self.head_length():
                    if at == end:
                        return found
                    self.head.append(data[at])
                    at += 1
                short = self.head[1]
                form = {126: (">H", 2), 127: (">Q", 2)}.get(short)
                self.length = struct.unpack_from(form[0], self.head, form[1])[0] if form else short
                self.opcode, self.left, self.kept = self.head[0] & 0xF, self.length, bytearray()
                self.head.clear()
            taken = min(self.left, end - at)
            room = self.KEPT - len(self.kept)
            if room > 0:
                self.kept += data[at : at + min(taken, room)]
            at, self.left = at + taken, self.left - taken
            if self.left:
                return found
            found.append((self.opcode, self.length, bytes(self.kept)))
            self.left = None


class Client:
    """One of a swarm. `answers`: whether it answers a Close; `reads`: whether it reads at all."""

    __slots__ = (
        "sock fd name path answers reads head frames closed_at code ended_at how numbers sizes others received".split()
    )

    def __init__(self, sock, path, answers, reads):
        self.sock, self.fd, self.path, self.answers, self.reads = sock, sock.fileno(), path, answers, reads
        self.name = sock.getsockname()
        self.head, self.frames = bytearray(), None
        self.closed_at = self.code = self.ended_at = self.how = None
        self.numbers, self.sizes, self.others, self.received = [], set(), 0, 0

    def send(self, data):
        """A small thing, which the kernel takes whole."""
        sent = self.sock.send(data)
        assert sent == len(data), "the kernel did not take a small frame"

    def text(self, text):
        self.send(wire.encode(wire.TEXT, text.encode()))


class Swarm:
    """Many clients in one loop."""

    def __init__(self, address):
        self.address = address
        self.epoll = select.epoll(DESCRIPTORS)
        self.clients = {}
        self.open = self.closing = self.ended = self.exited_at = 0
        self.exit_watch = None
        self.answers = {}
        self.moment = time.monotonic()

    def watch_exit(self, process):
        self.exit_watch = process.exit_watch
        self.epoll.register(self.exit_watch, select.EPOLLIN)

    def tcp(self, number):
        sock = socket.socket()
        sock.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
        sock.bind((SOURCES[number % len(SOURCES)], 0))
        sock.settimeout(10)
        sock.connect(self.address)
        return sock

    def connect(self, paths, answers=lambda number: True, reads=lambda number: True):
        """Established connections, one for each path."""
        wanted = self.open + len(paths)
        began = time.monotonic()
        for number, path in enumerate(paths):
            sock = self.tcp(number)
            sock.setblocking(False)
            client = Client(sock, path, answers(number), reads(number))
            client.send(wire.request(path, key=KEY)[0])
            self.clients[client.fd] = client
            self.epoll.register(client.fd, select.EPOLLIN)
            if number % 64 == 63:
                self.turn(0)
        self.run(lambda: self.open >= wanted, 30, f"{len(paths)} handshakes")
        return time.monotonic() - began

    def slow_reader(self, buffer, is_grown):
        """An established connection that is read by hand, with this receive buffer; `is_grown`: with the one that the
        kernel gives to a client that has just read 50 MB as fast as it could."""
        wanted = self.open + 1
        sock = socket.socket()
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        sock.connect(self.address)
        sock.setblocking(False)
        client = Client(sock, "/slow", True, is_grown)
        client.send(wire.request(client.path, key=KEY)[0])
        self.clients[client.fd] = client
        self.epoll.register(client.fd, select.EPOLLIN)
        self.run(lambda: self.open == wanted, 5, "a handshake")
        if is_grown:
            client.text(f"flood 50 {MB}")
            self.run(lambda: len(client.numbers) == 50, 20, "50 MB read fast")
            client.numbers, client.sizes, client.received = [], set(), 0
            self.epoll.unregister(client.fd)
        return client

    def run(self, done, timeout, what):
        deadline = time.monotonic() + timeout
        while not done():
            left = deadline - time.monotonic()
            if left <= 0:
                state = f"{self.open} opened, {self.closing} saw a Close, {self.ended} ended"
                raise lab.Failure(f"{what}: not within {timeout} s ({state})")
            self.turn(min(left, 0.1))

    def turn(self, timeout):
        ready = self.epoll.poll(timeout, DESCRIPTORS)
        # What came while a batch was worked off carries the time of the next: never too early.
        self.moment = time.monotonic()
        for fd, _ in ready:
            if fd == self.exit_watch:
                self.exited_at = self.moment
                self.epoll.unregister(fd)
            elif (client := self.clients.get(fd)) is not None:
                self.read(client)

    def read(self, client, size=1 << 18):
        try:
            data = client.sock.recv(size)
        except BlockingIOError:
            return 0
        except ConnectionResetError:
            return self.end(client, "reset")
        if not data:
            return self.end(client, "fin")
        client.received += len(data)
        if client.frames is None:
            client.head += data
            head, found, data = bytes(client.head).partition(b"\r\n\r\n")
            if not found:
                return 0
            if not head.startswith(b"HTTP/1.1 101 ") or ACCEPT not in head:
                raise lab.Failure(f"an upgrade was answered by {head!r}")
            client.head, client.frames, client.received = None, Frames(), len(data)
            self.open += 1
            if not client.reads:
                self.epoll.unregister(client.fd)
        for opcode, length, payload in client.frames.feed(data):
            if opcode == wire.BINARY:
                client.numbers.append(int.from_bytes(payload[:8], "big"))
                client.sizes.add(length)
            elif opcode == wire.CLOSE:
                self.close(client, payload)
            else:
                client.others += 1
        return len(data)

    def close(self, client, payload):
        if client.closed_at is not None:
            raise lab.Failure("a second Close")
        client.closed_at, client.code = self.moment, int.from_bytes(payload[:2], "big") if payload else None
        self.closing += 1
        if client.answers:
            if payload not in self.answers:
                self.answers[payload] = wire.encode(wire.CLOSE, payload)
            try:
                client.send(self.answers[payload])
            except (BrokenPipeError, ConnectionResetError):
                pass

    def end(self, client, how):
        client.ended_at, client.how = self.moment, how
        self.ended += 1
        del self.clients[client.fd]
        client.sock.close()
        return 0

    def gone(self):
        for client in list(self.clients.values()):
            client.sock.close()
        self.clients.clear()
        self.epoll.close()


def held(sock):
    """Bytes in the client's kernel that it has not read."""
    return struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, b"\0" * 4))[0]


def sending(port):
    """{the client's (host, port): bytes in the server's kernel that are not acknowledged}, for the server's `port`."""
    queues = {}
    with open("/proc/net/tcp", encoding="ascii") as table:
        for line in list(table)[1:]:
            fields = line.split()
            local, remote = fields[1], fields[2]
            if int(local[9:], 16) == port:
                host = socket.inet_ntoa(struct.pack("=I", int(remote[:8], 16)))
                queues[host, int(remote[9:], 16)] = int(fields[4][:8], 16)
    return queues


def spread(values):
    """Least, median, 99th of a hundred, most."""
    values = sorted(values)
    if not values:
        return "none"
    low, middle, high = values[0], statistics.median(values), values[int(len(values) * 0.99)]
    return f"least {low:.1f}, median {middle:.1f}, p99 {high:.1f}, most {values[-1]:.1f} ms"


def mib(amount):
    return f"{amount / MIB:.2f} MiB"


# 1. SIGTERM with 1,000 clients.


def shutdown_of_1000(record, binaries, started, workers=1):
    """1,000 clients, 10 % silent, one not reading with 25 MB queued: SIGTERM to exit within grace + 250 ms, everyone
    who reads sees 1001, and the report adds up."""
    count, grace, (messages, size) = 1000, 2000, (25, MB)
    server = started(Server(binaries[0], grace=grace, workers=workers, stall_timeout="off"))
    swarm = started(Swarm(server.address))
    paths = [f"/c{n}" for n in range(count - 1)] + ["/stuck"]
    swarm.connect(paths, answers=lambda n: n % 10 != 0, reads=lambda n: n != count - 1)
    everyone = sorted(swarm.clients.values(), key=lambda client: client.fd)
    stuck = next(client for client in everyone if not client.reads)
    stuck.text(f"flood {messages} {size}")
    flood = server.wait("flood")
    record.equal((flood["accepted"], flood["refused"]), (messages, 0), "1 MB messages that the flood queued")
    time.sleep(0.3)

    swarm.watch_exit(server)
    began = time.monotonic()
    server.popen.send_signal(signal.SIGTERM)
    swarm.run(lambda: swarm.exited_at, grace / 1000 + 10, "the exit")
    took = (swarm.exited_at - began) * 1000
    record.in_time(took, grace + SHUTDOWN_MS, f"SIGTERM to exit (grace {grace} ms)")
    record.equal(server.popen.wait(), 0, "exit status")
    server.stamper.wait()
    # The one that does not read looks at last at what its kernel has.
    if stuck.how is None:
        swarm.epoll.register(stuck.fd, select.EPOLLIN)
    swarm.run(lambda: swarm.ended == count, 5, "the end of all sockets")

    readers = [client for client in everyone if client.reads]
    record.equal(collections.Counter(c.code for c in readers), {1001: count - 1}, "codes seen by those who read")
    waits = [(client.closed_at - began) * 1000 for client in readers]
    record.note(f"SIGTERM to the Close at the client: {spread(waits)}")
    record.note(f"ends on the wire: {dict(collections.Counter(c.how for c in readers))}, the stuck one: {stuck.how}")

    closes, report = server.all("close"), server.wait("shutdown")["report"]
    causes = collections.Counter(event["cause"] for event in closes)
    record.note(f"causes: {dict(causes)}; phases: " + ", ".join(
        f"{p['phase']} {p['length_ms']:.1f} ms" for p in report["phases"]))  # fmt: skip
    record.in_time(report["took_ms"], grace + SHUTDOWN_MS, "took_ms of the report")
    record.equal(report["live_at_start"], count, "live_at_start")
    kinds = ("clean", "by_peer", "timed_out", "terminated", "failed")
    ended = sum(report[kind] for kind in kinds)
    text = " + ".join(f"{report[kind]} {kind}" for kind in kinds)
    record.equal(ended, count, f"ended ({text})")
    record.equal(len(closes), count, "close lines")
    clean = sum(event["was_clean"] for event in closes)
    silent = sum(not client.answers for client in everyone)
    record.equal((clean, report["clean"]), (count - silent - 1, count - silent - 1), "clean, by the lines and the report")
    record.equal(report["terminated"], silent + 1, "terminated")
    sums = {key: sum(event["lost"][key] for event in closes) for key in ("messages", "bytes", "partial")}
    wanted = {key: report["lost_" + key] for key in sums}
    record.equal(sums, wanted, "lost, summed over the lines, is that of the report")
    # To the byte: what its kernel got and what ours still had is what was handed over, in frames with heads of 10 bytes.
    mine = next(event["lost"] for event in closes if event["id"] == flood["id"])
    handed = (stuck.received + mine["kernel_unsent"]) // (size + 10)
    whole = len(stuck.numbers)
    record.note(f"the stuck client's kernel had {stuck.received:,} bytes; kernel_unsent {mine['kernel_unsent']:,}")
    text = f"{mine['messages']} lost + {mine['partial']} cut + {whole} received whole + {handed - whole} in our kernel"
    record.equal(mine["messages"] + mine["partial"] + handed, messages, text)
    record.equal(mine["bytes"], mine["messages"] * size, "bytes of the lost messages")
    slowest = report["slowest"][0]["close_phase_ms"]
    record.in_time(slowest, grace + SHUTDOWN_MS, "close phase of the slowest in the report")


def shutdown_of_1000_on_two_loops(record, binaries, started):
    """The same with two loops: one report, one bound."""
    shutdown_of_1000(record, binaries, started, workers=2)


# 2. Slow readers.


def slow_readers(record, binaries, started):
    """Readers of 1 MB/s with 25 MB queued, close timeout 10 s: a whole number of messages, then the Close within the
    timeout, and `lost` says the rest; with small, default, grown and large receive buffers, closed in the callback of
    the flood or a second after it. What the kernels hold when the flush budget ends cannot be overtaken: with more than
    is read in the rest of the timeout the Close is read late, but nothing is destroyed and it is said."""
    timeout, budget, rate = 10.0, 5.0, MB
    buffers = {"small": 32 << 10, "default": None, "grown": None, "large": 1 << 19, "huge": 4 << 20}
    server = started(Server(binaries[0], close_timeout=10000))
    swarm = started(Swarm(server.address))
    readers = []
    for way in ("close in the callback of the flood", "close a second after the flood"):
        for messages, size in ((400, 65536), (25, MB)):
            for name, buffer in buffers.items():
                client = swarm.slow_reader(buffer, name == "grown")
                readers.append((client, messages, size, way, f"{messages} x {size}, {name} buffer, {way}"))
    server.wait("open", len(readers))
    idents = [event["id"] for event in server.all("open")]
    for client, messages, size, way, _ in readers:
        if "second" in way:
            client.text(f"flood {messages} {size}")
    time.sleep(1)
    for client, messages, size, way, _ in readers:
        client.text("close 4000 enough" if "second" in way else f"flood-close {messages} {size} 4000 enough")
    server.wait("closing", len(readers))
    begins = {event["id"]: event["at"] for event in server.all("closing")}
    # The last flood of each.
    floods = {event["id"]: event for event in server.all("flood")}

    # They read in small steps, as fast as 1 MB/s and not faster.
    began = time.monotonic()
    at_budget = {}
    while len(swarm.clients) and time.monotonic() < began + 40:
        time.sleep(0.01)
        swarm.moment = time.monotonic()
        for (client, *_), ident in zip(readers, idents, strict=True):
            if client.how is not None:
                continue
            due = int((swarm.moment - begins[ident]) * rate)
            # Behind the Close there is nothing to be slow about.
            while client.how is None and (client.received < due or client.closed_at):
                if not swarm.read(client, 1 << 16 if client.closed_at else min(due - client.received, 1 << 16)):
                    break
        if not at_budget and time.monotonic() > began + budget - 0.1:
            queues = sending(server.address[1])
            for (client, *_), ident in zip(readers, idents, strict=True):
                ours = queues.get(client.name, 0)
                at_budget[ident] = (client.received, held(client.sock) if client.how is None else 0, ours)
    server.wait("close", len(readers), 5)
    closes = {event["id"]: event for event in server.all("close")}

    for (client, messages, size, _, what), ident in zip(readers, idents, strict=True):
        event, lost = closes[ident], closes[ident]["lost"]
        record.equal((floods[ident]["accepted"], floods[ident]["refused"]), (messages, 0), f"{what}: accepted, refused")
        record.equal(
            (client.code, client.how, client.frames.is_cut),
            (4000, "fin", False),
            f"{what}: the Close's code, the end, whether a frame is cut",
        )
        whole = len(client.numbers)
        in_order = client.numbers == list(range(whole)) and client.sizes == {size}
        # A large enough kernel may take them all.
        record.check(in_order and 0 < whole <= messages, f"{what}: whole messages before the Close, in order", whole)
        text = f"{what}: {lost['messages']} lost + {lost['partial']} cut + {whole} received"
        record.equal(lost["messages"] + lost["partial"] + whole, messages, text)
        record.equal(lost["bytes"], lost["messages"] * size, f"{what}: bytes lost")
        read, theirs, ours = at_budget.get(ident, (0, 0, 0))
        took = (client.closed_at - begins[ident]) * 1000 if client.closed_at else float("inf")
        record.note(
            f"{what}: {budget - 0.1:.1f} s after the close {read:,} bytes read, {theirs:,} in the client's kernel, "
            f"{ours:,} in the server's, {client.received - read - theirs:,} came after that"
        )
        record.note(
            f"{what}: the Close was read after {took:.0f} ms; cause {event['cause']} {event['cause_fields']}, "
            f"clean {event['was_clean']}, close phase {event['close_phase_ms']:.0f} ms"
        )
        # What no Close can overtake: the kernels', and the message on the wire.
        backlog_s = (client.received - read) / rate
        if backlog_s < timeout - budget:
            record.in_time(took, timeout * 1000, f"{what}: the Close is read within the close timeout", 0)
            record.equal((event["cause"], event["was_clean"]), ("LocalClose", True), f"{what}: cause, clean")
        else:
            record.note(f"{what}: {backlog_s:.1f} s of reading were left then, more than the timeout has")
            record.equal((event["cause"], event["was_clean"]), ("CloseTimeout", False), f"{what}: cause, clean")
            late = event["close_phase_ms"] - timeout * 1000
            record.in_time(late, LATE_MS, f"{what}: lateness of the timeout")


# 3. Styles of terminate.


def terminate_styles(record, binaries, started):
    """terminate with nothing queued, with unread input, with 25 MB queued: the style, on the wire."""
    server = started(lab.Lab(binaries[0], {"stall_timeout": "off"}))
    table = (
        ("nothing queued", "", {"reset": "reset", "fin": "fin", "auto": "fin", "": "reset"}),
        ("unread input", "input", {"reset": "reset", "fin": "fin", "auto": "fin", "": "reset"}),
        ("25 MB queued", "flood", {"reset": "reset", "fin": "fin", "auto": "reset", "": "reset"}),
    )
    for name, kind, styles in table:
        for style, wanted in styles.items():
            peer = server.peer("/end")
            what = f"terminate {style or '(default)'}, {name}"
            if kind == "flood":
                peer.text("flood 25 1000000")
                server.wait("flood", id=peer.id)
                time.sleep(0.1)
            command = f"terminate {style}".strip()
            # The input is behind the command in the same write, and more of it than one turn reads.
            behind = wire.encode(wire.BINARY, bytes(2 * MIB)) if kind == "input" else b""
            peer.try_send(wire.encode(wire.TEXT, command.encode()) + behind)
            _, how = peer.recv_all(5)
            followed = how == "fin" and peer.reset_behind_fin(0.1)
            event = peer.closed()
            got = (how, followed, event["cause"], event["lost"]["messages"] + event["lost"]["partial"] > 0)
            record.equal(got, (wanted, False, "Terminated", kind == "flood"), f"{what}: end, RST behind it, cause, lost")
            peer.gone()
    server.finish()


# 4. 10,000 connections closing at once.


def ten_thousand_closing(record, binaries, started):
    """10,000 connections closing at once, half of them silent: no deadline later than 100 ms; memory and descriptors
    back to the baseline; a second and a third round do not grow."""
    count, timeout = 10_000, 2000
    server = started(Server(binaries[0], close_timeout=timeout))
    # A few go through everything first, so that what is allocated once for all is not counted as growth.
    baseline, fresh = server.stats(), server.rss()
    afters, strict = [], []
    for turn in ("first", "second", "third"):
        server.forget()
        swarm = started(Swarm(server.address))
        began = time.monotonic()
        took = swarm.connect([f"/all/{n}" for n in range(count)], answers=lambda n: n % 2 == 0)
        everyone = list(swarm.clients.values())
        server.wait("open", count)
        record.equal(server.stats()["open"], count + 1, f"{turn} round: open (connected in {took:.1f} s)")
        idle = server.rss()
        asked = time.monotonic()
        server.command("close-where /all 4000 all of you")
        before_timeouts = asked + timeout / 1000 - 0.1
        swarm.run(lambda: time.monotonic() > before_timeouts, timeout / 1000, "the time of the timeouts")
        waited = server.waited()
        swarm.run(lambda: swarm.ended == count, timeout / 1000 + 15, "the end of all")
        done = server.wait("sweep_done")
        waited = server.waited() - waited
        record.note(f"{turn} round: during the timeouts the server waited {waited:.1f} ms for a processor in all")
        server.wait("close", count)
        record.equal([done[k] for k in ("matched", "clean", "timed_out", "lost_messages")],
                     [count, count // 2, count // 2, 0],
                     f"{turn} round: sweep_done matched, clean, timed_out, lost")  # fmt: skip
        codes = collections.Counter((client.code, client.how) for client in everyone)
        record.equal(codes, {(4000, "fin"): count}, f"{turn} round: code and end at the clients")

        closing = {event["id"]: event["at"] for event in server.all("closing")}
        silent = [event for event in server.all("close") if event["cause"] == "CloseTimeout"]
        polite = [event for event in server.all("close") if event["cause"] == "LocalClose"]
        record.equal((len(silent), len(polite)), (count // 2, count // 2), f"{turn} round: timed out, answered")
        record.note(f"{turn} round: the command to the last closing line "
                    f"{(max(closing.values()) - asked) * 1000:.0f} ms; Close at the clients after "
                    f"{spread([(c.closed_at - asked) * 1000 for c in everyone])}")  # fmt: skip
        record.note(f"{turn} round: close phases of those who answered: {spread([e['close_phase_ms'] for e in polite])}")
        phases = [event["close_phase_ms"] - timeout for event in silent]
        # A line comes a little after the moment that it tells of; so does the clock that reads it.
        first = min(closing.values())
        lines = [(event["at"] - closing[event["id"]]) * 1000 - timeout for event in silent]
        ends = [(c.ended_at - c.closed_at) * 1000 - timeout for c in everyone if not c.answers]
        last = (max(event["at"] for event in silent) - first) * 1000 - timeout
        record.check(min(phases) >= 0, f"{turn} round: no deadline early", f"{min(phases):.2f} ms", ">= 0")
        record.note(f"{turn} round: lateness by close_phase_ms: {spread(phases)}")
        record.in_time(max(phases), LATE_MS, f"{turn} round: latest deadline by close_phase_ms")
        record.note(f"{turn} round: lateness by the lines: {spread(lines)}")
        record.in_time(max(lines), LATE_MS, f"{turn} round: latest deadline by the lines, closing to close")
        strict.append(max(*phases, *lines))
        record.note(f"{turn} round: from the first closing line of all to the last timeout's line: {last:.1f} ms late")
        record.note(f"{turn} round: lateness at the clients, Close to FIN: {spread(ends)}")
        record.in_time(max(ends), LATE_MS, f"{turn} round: latest FIN at a client")

        record.equal(server.back_to(baseline), baseline, f"{turn} round: stats and descriptors afterwards")
        swarm.gone()
        time.sleep(0.5)
        after = server.rss()
        afters.append(after)
        record.note(f"{turn} round: resident {mib(fresh)} before, {mib(idle)} with {count:,} idle "
                    f"({(idle - fresh) / count:.0f} bytes each), peak {mib(server.peak())}, {mib(after)} after; "
                    f"{time.monotonic() - began:.1f} s")  # fmt: skip
        if turn == "first":
            # The lab keeps its last 1,000 reports, strewn over the heap, and the control connection keeps the slab.
            what = "first round: resident above the baseline afterwards"
            record.at_most((after - fresh) / MIB, LAB_MARGIN_MIB, what, " MiB", 2)
        else:
            record.at_most((after - afters[0]) / MIB, GROWTH_MIB, f"{turn} round: growth since the first", " MiB", 2)
    # A busy machine spoils one round or another, but not each.
    record.in_time(min(strict), LATE_MS, "latest deadline of the best round, by phases and by lines", 0)
    cpu = server.cpu()
    time.sleep(1)
    record.at_most((server.cpu() - cpu) * 1000, 50, "processor time of the second after it all", " ms")


# 5. Quiet connections.


def quiet_connections(record, binaries, started):
    """10,000 quiet connections on one loop: user memory of each, before and after each has exchanged one message. The
    target is 128 bytes; above 256 it fails."""
    count = 10_000
    for name, path in (("close_lab", "/quiet"), ("bench_server", "/echo")):
        if name == "close_lab":
            server = started(Server(binaries[0]))
            address = server.address
        elif not binaries[1]:
            record.note("no bench_server given: only close_lab is measured")
            continue
        else:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                address = probe.getsockname()
            server = started(Process([binaries[1], str(address[1])]))
        until = time.monotonic() + 5
        while True:
            try:
                # One connection goes before: what the first of all costs is nobody's share.
                first = wire.Peer(address)
                first.upgrade(path)
                first.text("hello")
                first.recv()
                break
            except ConnectionRefusedError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)
        time.sleep(0.2)
        swarm = started(Swarm(address))
        before = server.memory()
        swarm.connect([path] * (count // 2))
        time.sleep(0.3)
        half = server.memory()
        swarm.connect([path] * (count - count // 2))
        time.sleep(0.3)
        idle = server.memory()
        for number, client in enumerate(list(swarm.clients.values())):
            client.text("a message of 32 bytes, or almost")
            if number % 64 == 63:
                swarm.turn(0)
        everyone = list(swarm.clients.values())
        swarm.run(lambda: all(client.others for client in everyone), 20, "an echo for each")
        time.sleep(0.3)
        spoken = server.memory()
        for moment, state in (("before a message", idle), ("after a message", spoken)):
            each = {kind: (state[kind] - before[kind]) / count for kind in state}
            record.note(f"{name}, {moment}: " + ", ".join(f"{kind} {value:.0f}" for kind, value in each.items())
                        + f" bytes per connection; {mib(state['Rss'])} in all")  # fmt: skip
            for kind in ("Rss", "Private_Dirty"):
                goal = "met" if each[kind] <= 128 else "missed"
                text = f"{name}, {moment}: {kind} per connection (the target of 128 is {goal})"
                record.at_most(each[kind], 256, text, " bytes")
        slope = (idle["Private_Dirty"] - half["Private_Dirty"]) / (count - count // 2)
        record.note(f"{name}: {slope:.0f} bytes for each of the second {count - count // 2:,}; "
                    f"baseline {mib(before['Rss'])}, Private_Dirty {mib(before['Private_Dirty'])}")  # fmt: skip
        record.at_most(server.descriptors() - count, 32, f"{name}: descriptors beyond one per connection")

        # They leave, all at once: half by a Close, half by a FIN.
        began = time.monotonic()
        for number, client in enumerate(everyone):
            if number % 2:
                client.answers = False
                client.send(wire.encode(wire.CLOSE, wire.close_payload(1000)))
            else:
                client.sock.shutdown(socket.SHUT_WR)
        swarm.run(lambda: swarm.ended == count, 20, "the end of all")
        took = time.monotonic() - began
        ends = collections.Counter((client.code, client.how) for client in everyone)
        record.equal(ends, {(1000, "fin"): count // 2, (None, "fin"): count // 2}, f"{name}: ends of those who leave")
        time.sleep(0.5)
        left = server.rss()
        record.note(f"{name}: resident {mib(before['Rss'])} with one connection before, {mib(spoken['Rss'])} with "
                    f"{count:,}, peak {mib(server.peak())}, {mib(left)} with one after they left in {took:.1f} s")  # fmt: skip
        first.gone()
        time.sleep(0.5)
        record.note(f"{name}: resident {mib(server.rss())} with none")
        margin = LAB_MARGIN_MIB if name == "close_lab" else MARGIN_MIB
        record.at_most((left - before["Rss"]) / MIB, margin, f"{name}: resident above the baseline", " MiB", 2)
        swarm.gone()


# 6. Floods.


def floods(record, binaries, started):
    """5,000 connections that end by RST at different points, 2,000 that send garbage, and some that are full of it after
    the upgrade: descriptors and slots are at the baseline afterwards."""
    server = started(Server(binaries[0], handshake_timeout=2000, close_timeout=1000, linger_timeout=500))
    swarm = started(Swarm(server.address))
    baseline = server.stats()
    fresh = server.rss()
    resets, garbage, rude = 5000, 2000, 500
    head = wire.request("/flood", key=KEY)[0]
    linger = struct.pack("ii", 1, 0)

    began = time.monotonic()
    for number in range(resets):
        sock = swarm.tcp(number)
        # At once; after half a request; after a whole one; after a whole one and half a frame.
        piece = (b"", head[:40], head, head + wire.encode(wire.TEXT, b"half a frame")[:9])[number % 4]
        if piece:
            sock.send(piece)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        sock.close()
    took = time.monotonic() - began
    record.equal(server.back_to(baseline), baseline, f"stats after {resets:,} connects and resets in {took:.1f} s")
    server.read()
    ends = collections.Counter(event["cause"] for event in server.by_kind["close"])
    fails = collections.Counter(event["cause"] for event in server.by_kind["handshake_failed"])
    record.equal(sum(ends.values()) + sum(fails.values()), resets, f"ends told (Close {dict(ends)}, failed {dict(fails)})")
    record.equal(len(server.by_kind["open"]), sum(ends.values()) + 1, "one Close for each Open (and the control)")

    server.forget()
    rng = random.Random(6)
    socks = []
    began = time.monotonic()
    for number in range(garbage):
        sock = swarm.tcp(number)
        sock.setblocking(False)
        try:
            sock.send(rng.randbytes(rng.choice((1, 10, 100, 1000, 20_000))))
        except BlockingIOError:
            pass
        socks.append(sock)
    # Some stay, and end by the handshake timeout or the linger; some go away.
    for sock in socks[::2]:
        sock.close()
    now = server.back_to(baseline)
    took = time.monotonic() - began
    record.equal(now, baseline, f"stats after {garbage:,} senders of random bytes, half of them staying; {took:.1f} s")
    fails = collections.Counter(event["cause"] for event in server.all("handshake_failed"))
    record.equal(sum(fails.values()), garbage, f"handshake_failed lines {dict(fails)}")
    for sock in socks:
        sock.close()

    server.forget()
    swarm.connect(["/rude"] * rude)
    for client in list(swarm.clients.values()):
        client.sock.send(rng.randbytes(rng.choice((4, 40, 400, 4000))))
        client.sock.shutdown(socket.SHUT_WR)
    swarm.run(lambda: swarm.ended == rude, 10, "the end of those who send garbage behind the upgrade")
    record.equal(server.back_to(baseline), baseline, f"stats after {rude} senders of garbage behind the upgrade")
    ends = collections.Counter(event["cause"] for event in server.all("close"))
    record.equal(sum(ends.values()), rude, f"close lines {dict(ends)}")

    time.sleep(0.3)
    record.at_most((server.rss() - fresh) / MIB, 4, f"resident beyond the baseline of {mib(fresh)}", " MiB", 2)
    cpu = server.cpu()
    time.sleep(1)
    record.at_most((server.cpu() - cpu) * 1000, 50, "processor time of the second after it all", " ms")


SCENARIOS = (
    shutdown_of_1000,
    shutdown_of_1000_on_two_loops,
    slow_readers,
    terminate_styles,
    ten_thousand_closing,
    quiet_connections,
    floods,
)


def run(scenario, binaries):
    record = Record()
    owned = []

    def started(thing):
        owned.append(thing)
        return thing

    try:
        scenario(record, binaries, started)
    except Exception as error:
        record.check(False, type(error).__name__, error)
        if not isinstance(error, lab.Failure):
            record.lines += ["      " + line for line in traceback.format_exc().splitlines()]
    finally:
        for thing in reversed(owned):
            if isinstance(thing, Swarm):
                if not thing.epoll.closed:
                    thing.gone()
            else:
                thing.kill()
    return record


def main():
    global SLACK_MS
    if sys.argv[1:2] == ["--stamp"]:
        return stamp(sys.argv[2])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("close_lab", nargs="?")
    parser.add_argument("bench_server", nargs="?")
    parser.add_argument("-k", action="append", metavar="PATTERN", help="only scenarios whose name matches")
    parser.add_argument("--slack", type=float, default=SLACK_MS, metavar="MS", help="for a busy machine (default 150)")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="runs of a scenario that is late (default 3)")
    parser.add_argument("--list", action="store_true", help="names and what they prove, nothing is run")
    arguments = parser.parse_args()
    if arguments.list:
        for scenario in SCENARIOS:
            print(f"{scenario.__name__}: {' '.join(scenario.__doc__.split())}")
        return 0
    binaries = [path and str(pathlib.Path(path).resolve()) for path in (arguments.close_lab, arguments.bench_server)]
    if not binaries[0] or not all(os.access(path, os.X_OK) for path in binaries if path):
        parser.error("give the paths of close_lab and, if you like, of bench_server")
    SLACK_MS = arguments.slack
    limit = min(DESCRIPTORS, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    # A server that dies must not take us along.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    passed = failed = 0
    for scenario in SCENARIOS:
        if arguments.k and not any(re.search(pattern, scenario.__name__) for pattern in arguments.k):
            continue
        for attempt in range(1, arguments.repeat + 1):
            loads = " ".join(f"{load:.1f}" for load in os.getloadavg())
            print(f"\n{scenario.__name__}, run {attempt} (load of the machine {loads})", flush=True)
            record = run(scenario, binaries)
            print("\n".join(record.lines), flush=True)
            if not record.failed or record.failed > record.late:
                break
            print(f"      {record.late} of its times are late", flush=True)
        passed += sum(line.startswith("ok ") for line in record.lines)
        failed += record.failed
    print(f"\n{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
