"""The harness: one `close_lab` process, its JSON lines with the time each came, and what must hold in every run."""

import inspect
import json
import os
import re
import signal
import subprocess
import threading
import time

import tls
import wire

# A deadline fires within [T, T + 50 ms] (the closing specification section 3); the rest is for a noisy machine.
PROMISED_MS = 50
SLACK_MS = int(os.environ.get("LAB_SLACK_MS", "150"))
# Certificate and key: then everything is over TLS.
TLS = os.environ.get("LAB_TLS", "").split(":") if os.environ.get("LAB_TLS") else None
# "flood N SIZE" for a peer that does not read. The first is several times what both kernels hold, in many messages:
# some are sent, most wait. Of the second the first message alone is more than both kernels hold (tcp_wmem ends at
# 4 MiB), so it stays cut on the wire, and no Close gets past it.
MANY = "400 65536"
CUT = "4 8388608"
BACKLOG = 1 << 26
# For an absent reaction: how long we listen to silence.
QUIET_S = 0.25

CAUSES = set(
    "PeerClose LocalClose Crossed Kicked Protocol TooBig InvalidUtf8 Overflow HeartbeatTimeout WriteStall CloseTimeout "
    "Internal PeerFin PeerFinDuringClose PeerReset PeerResetDuringClose Io Terminated ShutdownSoft ShutdownHard".split()
)
HANDSHAKE_CAUSES = set(
    "Timeout BadRequest HeadTooLarge BadVersion Rejected OriginRefused Tls ProxyHeader PeerFin PeerReset Io ShuttingDown "
    "TooManyConnections".split()
)
INITIATORS = {"Local", "Remote", "Both", "Transport"}
PHASES = ["Serving", "LameDuck", "SoftSweep", "Grace", "HardSweep", "Done"]
LOST = (
    "messages bytes partial inbound_messages inbound_bytes inbound_partial_bytes trailing_bytes kernel_unsent".split()
)
KEYS = {
    "listening": ["addr"],
    "open": ["id", "peer", "path"],
    "message": ["id", "text", "bytes", "closing"],
    "closing": ["id", "initiator", "code", "reason"],
    "close": "id code effective_code reason was_clean initiator cause cause_fields sent sent_flushed received lost "
    "truncated duration_ms close_phase_ms".split(),
    "handshake_failed": ["peer", "cause"],
    "flood": ["id", "accepted", "refused"],
    "send_refused": ["id", "error"],
    "sweep_done": ["matched", "clean", "timed_out", "lost_messages"],
    "phase": ["phase"],
    "shutdown": ["report"],
}
REPORT = (
    "live_at_start refused_503 handshakes_cut clean by_peer timed_out terminated failed lost_messages lost_bytes "
    "took_ms escalated_by slowest longest_callback_ms"
).split()
STATS = ["open", "closing", "lingering", "connecting", "fds"]


class Failure(AssertionError):
    """A rule that does not hold."""


def check(condition, message):
    if not condition:
        raise Failure(message)


def equal(got, wanted, what):
    check(got == wanted, f"{what} is {got!r}, wanted {wanted!r}")


def on_time(took_s, wanted_ms, what, early_ms=5, late_ms=0):
    """Within [T, T + 50 ms], give or take what measuring from outside costs."""
    took = took_s * 1000
    limit = wanted_ms + PROMISED_MS + SLACK_MS + late_ms
    check(wanted_ms - early_ms <= took <= limit, f"{what} after {took:.0f} ms, wanted {wanted_ms} to {limit}")


def rows(*table):
    """One test per row; the first cell names it, the others are passed on."""

    def decorate(body):
        body.rows = table
        return body

    return decorate


def tests_of(module):
    """[(name, function, row)] of a module, in the order of its text."""
    found = []
    for name, body in vars(module).items():
        if not re.match(r"(s\d+|lab|hostile)_", name) or not inspect.isfunction(body):
            continue
        if not (body.__doc__ or "").strip():
            raise SystemExit(f"{name} does not say which rule it tests")
        for row in getattr(body, "rows", [None]):
            found.append((name if row is None else f"{name}[{row[0]}]", body, row))
    return found


class LabPeer(wire.Peer):
    """A client of the lab: knows its id there."""

    def __init__(self, lab, path, **options):
        super().__init__(lab.address, **options)
        if TLS:
            self.sock = tls.TlsSocket(self.sock)
        self.lab = lab
        self.path = path
        self._id = None

    @property
    def id(self):
        if self._id is None:
            self._id = self.lab.wait("open", peer=f"127.0.0.1:{self.port}")["id"]
        return self._id

    def expect(self, opcode, payload, timeout=5.0):
        frame = self.recv(timeout)
        payload = payload.encode() if isinstance(payload, str) else payload
        check(
            frame.opcode == opcode and frame.payload == payload,
            f"got {frame}, wanted {opcode:#x} {payload[:60]!r}",
        )
        check(frame.fin and not frame.rsv and not frame.masked, f"the frame is {frame}, masked: {frame.masked}")
        return frame

    def expect_text(self, text, timeout=5.0):
        return self.expect(wire.TEXT, text, timeout)

    def expect_close(self, code=None, reason="", timeout=5.0):
        return self.expect(wire.CLOSE, wire.close_payload(code, reason), timeout)

    def expect_code(self, code, timeout=5.0):
        """A Close with this code and a reason as section 10 wants ours: short and UTF-8."""
        frame = self.recv(timeout)
        check(frame.opcode == wire.CLOSE, f"got {frame}, wanted a Close")
        equal(frame.code, code, "the code on the wire")
        check(len(frame.payload) <= 125, f"a Close of {len(frame.payload)} bytes")
        return frame.reason

    def expect_end(self, how, timeout=5.0):
        """The end, with nothing before it."""
        frames, end = self.recv_all(timeout)
        check(not frames and not self.buffer, f"{frames[:3]} {bytes(self.buffer[:40])!r} came before the end")
        equal(end, how, "the end")

    def expect_silence(self, seconds=QUIET_S):
        try:
            frame = self.recv(seconds)
        except wire.Silent:
            return
        raise Failure(f"{frame} came where nothing was due")

    def expect_alive(self, word="are you there"):
        self.text(word)
        self.expect_text(word)

    def stats(self):
        self.text("stats")
        got = json.loads(self.recv().payload)
        equal(sorted(got), sorted(STATS), "the keys of stats")
        check(all(isinstance(n, int) and n >= 0 for n in got.values()), f"stats is {got}")
        return got

    def closed(self, timeout=5.0):
        return self.lab.wait("close", timeout=timeout, id=self.id)


class Lab:
    """One server process and its peers."""

    def __init__(self, binary, options):
        # `flag=True` is a bare switch; a lame duck would make every end of a test slow.
        merged = {"listen": "127.0.0.1:0", "lame_duck": 0, "grace": 2000, **options}
        command = [binary]
        for name, value in merged.items():
            command.append("--" + name.replace("_", "-"))
            if value is not True:
                command.append(str(value))
        if TLS:
            command += ["--tls", *TLS]
        self.peers = []
        self.events = []
        self.problems = []
        self.condition = threading.Condition()
        self.ended = False
        self.exit_wanted = False
        self._control = None
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.errors = []
        threading.Thread(target=self._read_events, daemon=True).start()
        self.error_reader = threading.Thread(target=self._read_errors, daemon=True)
        self.error_reader.start()
        host, _, port = self.wait("listening")["addr"].rpartition(":")
        self.address = (host, int(port))
        self.baseline = self.control.stats()
        equal(
            {k: self.baseline[k] for k in ("closing", "lingering", "connecting")},
            {"closing": 0, "lingering": 0, "connecting": 0},
            "stats of a fresh server",
        )
        self.leave_control()

    # What it says.

    def _read_events(self):
        for line in self.process.stdout:
            at = time.monotonic()
            with self.condition:
                try:
                    event = json.loads(line)
                    problem = schema_problem(event)
                    if problem:
                        self.problems.append(f"{problem} in {line!r}")
                except ValueError:
                    self.problems.append(f"a line that is not JSON: {line!r}")
                    continue
                event["at"] = at
                self.events.append(event)
                self.condition.notify_all()
        with self.condition:
            self.ended = True
            self.condition.notify_all()

    def _read_errors(self):
        for line in self.process.stderr:
            self.errors.append(line.decode(errors="replace"))

    def all(self, event, **fields):
        with self.condition:
            return [e for e in self.events if e["event"] == event and all(e.get(k) == v for k, v in fields.items())]

    def wait(self, event, timeout=5.0, count=1, **fields):
        """The `count`-th event of that kind and fields."""
        deadline = time.monotonic() + timeout
        while True:
            with self.condition:
                found = self.all(event, **fields)
                if len(found) >= count:
                    return found[count - 1]
                left = deadline - time.monotonic()
                if left <= 0 or self.ended:
                    raise Failure(f"no {event} {fields or ''} within {timeout} s (number {count}); {self.tail()}")
                self.condition.wait(left)

    def none(self, event, seconds=QUIET_S, **fields):
        time.sleep(seconds)
        found = self.all(event, **fields)
        check(not found, f"unexpected {found[:1]}")

    def tail(self):
        if self.ended:
            self.error_reader.join(1)
        text = "; ".join(json.dumps({k: v for k, v in e.items() if k != "at"}) for e in self.events[-3:])
        errors = "".join(self.errors[-5:])
        return f"last events: {text}" + (f"; stderr: {errors!r}" if errors else "")

    # Its clients.

    def tcp(self, **options):
        """A TCP connection without a handshake."""
        peer = LabPeer(self, None, **options)
        self.peers.append(peer)
        return peer

    def peer(self, path="/t", headers=(), **options):
        """An established connection whose `open` event has come."""
        peer = LabPeer(self, path, **options)
        self.peers.append(peer)
        peer.upgrade(path, headers)
        peer.id  # noqa: B018 -- waits for the event
        return peer

    @property
    def control(self):
        """A connection beside those under test, for commands about them."""
        if self._control is None:
            self._control = self.peer("/control")
        return self._control

    def leave_control(self):
        control, self._control = self._control, None
        self.peers.remove(control)
        control.close(1000)
        control.expect_close(1000)
        control.gone()
        self.wait("close", id=control.id)

    def command(self, text):
        self.control.text(text)

    def http(self, path, timeout=5.0):
        """A plain GET: (status, headers, body, how it ended)."""
        peer = self.tcp()
        peer.send_raw(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        answer = peer.recv_answer(timeout)
        deadline = time.monotonic() + timeout
        length = int(answer.headers["content-length"]) if "content-length" in answer.headers else None
        end = "open"
        try:
            while length is None or len(peer.buffer) < length:
                peer.more(deadline)
        except wire.Ended as ended:
            end = ended.how
        body = bytes(peer.buffer)
        peer.gone()
        return answer.status, answer.headers, body, end

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def memory(self):
        """Resident bytes of the process."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            return int(re.search(r"VmRSS:\s*(\d+) kB", status.read())[1]) * 1024

    def cpu(self):
        """Seconds of processor time so far."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    # Its end.

    def expect_exit(self, code=0, timeout=5.0):
        """The process ends by itself, with this code (negative: by a signal)."""
        self.exit_wanted = True
        try:
            got = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Failure(f"the process is still there after {timeout} s; {self.tail()}") from None
        with self.condition:
            self.condition.wait_for(lambda: self.ended, 2)
        check(got == code, f"exit status {got}, wanted {code}; {self.tail()}")

    def report(self, timeout=10.0):
        return self.wait("shutdown", timeout)["report"]

    def finish(self):
        """What must hold at the end of every test: all is given back, and the log is consistent."""
        for peer in self.peers:
            peer.gone()
        self._control = None
        if not self.exit_wanted:
            for opened in self.all("open"):
                self.wait("close", timeout=8, id=opened["id"])
            self._expect_baseline()
            self.leave_control()
            self.signal(signal.SIGINT)
            self.expect_exit(0, 6)
        check(not self.problems, "; ".join(self.problems[:3]))
        check_log(self.events)
        panics = [line for line in self.errors if "panick" in line]
        check(not panics, f"stderr: {panics}")

    def _expect_baseline(self):
        deadline = time.monotonic() + 5
        while True:
            now = self.control.stats()
            if now == self.baseline:
                return
            check(time.monotonic() < deadline, f"stats do not return to {self.baseline}: {now}")
            time.sleep(0.02)

    def kill(self):
        for peer in self.peers:
            peer.gone()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def schema_problem(event):
    """What is wrong with the form of an event, or None."""
    if not isinstance(event, dict) or event.get("event") not in KEYS:
        return "an unknown event"
    missing = [key for key in KEYS[event["event"]] if key not in event]
    if missing:
        return f"no {missing}"
    kind = event["event"]
    if kind == "close":
        if not isinstance(event["lost"], dict) or sorted(event["lost"]) != sorted(LOST):
            return "wrong keys in lost"
        if any(not isinstance(v, int) or v < 0 for k, v in event["lost"].items() if k != "kernel_unsent"):
            return "not a number in lost"
        if event["cause"] not in CAUSES or event["initiator"] not in INITIATORS:
            return "an unknown cause or initiator"
        for frame in (event["sent"], event["received"]):
            if frame is not None and sorted(frame) != ["code", "reason"]:
                return "sent or received is not null or {code, reason}"
    if kind == "closing" and event["initiator"] not in INITIATORS:
        return "an unknown initiator"
    if kind == "handshake_failed" and event["cause"] not in HANDSHAKE_CAUSES:
        return "an unknown cause"
    if kind == "phase" and event["phase"] not in PHASES:
        return "an unknown phase"
    if kind == "shutdown":
        missing = [key for key in REPORT if key not in event["report"]]
        if missing:
            return f"no {missing} in the report"
    return None


def check_log(events):
    """The order of events (section 1) and the derivations (section 5) over a whole log."""
    state = {}
    opened_peers, failed_peers = [], []
    soft_swept = False
    for event in events:
        kind, number = event["event"], event.get("id")
        if kind == "open":
            check(number not in state, f"open twice: {event}")
            check(not soft_swept, f"open after the latch: {event}")
            state[number] = "open"
            opened_peers.append(event["peer"])
        elif kind == "handshake_failed":
            failed_peers.append(event["peer"])
        elif kind == "closing":
            check(state.get(number) == "open", f"closing in state {state.get(number)}: {event}")
            state[number] = event["initiator"]
        elif kind == "message":
            check(state.get(number) in ("open", "Local"), f"message in state {state.get(number)}: {event}")
            check(event["closing"] == (state[number] == "Local"), f"closing is wrong: {event}")
        elif kind == "close":
            check(state.get(number, "closed") != "closed", f"close in state {state.get(number)}: {event}")
            state[number] = "closed"
            check_closed(event)
        elif kind == "phase":
            soft_swept = soft_swept or event["phase"] in ("SoftSweep", "Grace", "HardSweep", "Done")
        elif kind == "shutdown":
            still = [n for n, s in state.items() if s != "closed"]
            check(not still, f"Done before the close of {still[:3]}")
    both = set(opened_peers) & set(failed_peers)
    if len(opened_peers) == len(set(opened_peers)) and len(failed_peers) == len(set(failed_peers)):
        check(not both, f"open and handshake_failed both for {sorted(both)[:3]}")


def frame_code(frame):
    """1005 for an empty frame, however it is written."""
    return 1005 if frame["code"] is None else frame["code"]


def check_closed(event):
    """Section 5: what is derived agrees with the facts."""
    received, sent = event["received"], event["sent"]
    code = 1006 if received is None else frame_code(received)
    equal(event["code"], code, f"code by section 5 in {event}: it")
    if received is not None:
        equal(event["reason"], received["reason"], f"reason in {event}: it")
    check(not (event["sent_flushed"] and sent is None), f"flushed without sent: {event}")
    clean = received is not None and sent is not None and event["sent_flushed"]
    equal(event["was_clean"], clean, f"was_clean by section 5 in {event}: it")
    if received is None and event["initiator"] == "Local":
        effective = 1006 if sent is None else frame_code(sent)
    else:
        effective = code
    equal(event["effective_code"], effective, f"effective_code by section 5 in {event}: it")
    if event["cause"] == "Crossed":
        equal(event["initiator"], "Both", f"initiator in {event}: it")
    check(event["lost"]["partial"] in (0, 1), f"partial: {event}")
    phase = event["close_phase_ms"]
    check(phase is None or 0 <= phase <= event["duration_ms"] + 1, f"close phase longer than life: {event}")


def record(event, code, effective, clean, initiator, cause=None):
    """One row of the table of section 5."""
    got = (event["code"], event["effective_code"], event["was_clean"], event["initiator"])
    wanted = (code, effective, clean, initiator)
    check(got == wanted, f"(code, effective, clean, initiator) is {got}, wanted {wanted}: {event}")
    if cause is not None:
        causes = cause if isinstance(cause, tuple) else (cause,)
        check(event["cause"] in causes, f"cause {event['cause']}, wanted {cause}: {event}")
    return event


def nothing_lost(event):
    lost = {k: v for k, v in event["lost"].items() if v and k != "kernel_unsent"}
    check(not lost, f"lost: {lost}")


def flood_numbers(frames, size):
    """The numbers of the flood's messages among `frames`, checked: whole, and in order."""
    numbers = []
    for frame in frames:
        if frame.opcode == wire.BINARY:
            equal(len(frame.payload), size, "the size of a flood message")
            numbers.append(int.from_bytes(frame.payload[:8], "big"))
    check(all(a < b for a, b in zip(numbers, numbers[1:], strict=False)), "flood messages out of order")
    return numbers


def conserved(flood, event, numbers, exact=True, size=None):
    """Conservation: accepted by send = wholly handed to the kernel + lost.messages + lost.partial.

    After a reset what the kernel held may be gone, so the peer can have less (`exact=False`), never more.
    """
    lost = event["lost"]
    handed = flood["accepted"] - lost["messages"] - lost["partial"]
    text = f"{len(numbers)} received, accepted {flood['accepted']}, lost {lost}"
    check(handed == len(numbers) if exact else handed >= len(numbers), text)
    if size is not None:
        equal(lost["bytes"], lost["messages"] * size, f"lost.bytes ({text}): it")


def first_is_cut(event):
    """After `flood CUT` and an abort: the first message is cut on the wire and the others never began."""
    lost, (count, size) = event["lost"], map(int, CUT.split())
    got = (lost["messages"], lost["bytes"], lost["partial"])
    equal(got, (count - 1, (count - 1) * size, 1), f"(messages, bytes, partial) of {lost}, all but one of {count}: it")
