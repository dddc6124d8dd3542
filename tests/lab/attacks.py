#!/usr/bin/env python3
"""Known attacks on WebSocket servers, each against a fresh `close_lab`, measured: memory, descriptors, processor time, and
how long an honest client waits beside it.

    python3 tests/lab/attacks.py PATH/OF/close_lab [PATH/OF/bench_server] [--quick] [-k PATTERN] [--table FILE] [--list]

Build both with --release. What is done, and with which answer, is said above each attack in attack_rows.py; this file
measures. The honest client is a process of its own: one connection that echoes throughout, and a new one every now and
then that connects, echoes and closes. `--quick` makes floods a tenth as large. `--table` writes the figures and the words
as a page. The last line is `N passed, M failed`; the exit status is 1 when something failed. Linux only, 127.0.0.0/8 only.
"""

import argparse
import json
import os
import pathlib
import re
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.dont_write_bytecode = True

import wire  # noqa: E402
from lab import Failure, check  # noqa: E402

MIB = 1 << 20
# What an honest client may wait: not a promise, only far from being locked out, on any machine.
WORST_S = 5.0
# Between two messages, and between two new connections, of the honest client.
PAUSE_S, NEWCOMER_S = 0.002, 0.1
ENDS_WITHIN_S = 15


# The honest client.


def echo(peer, text):
    """One round trip, in seconds."""
    began = time.perf_counter()
    peer.text(text)
    while (frame := peer.recv(60)).opcode == wire.PING:
        peer.send(wire.PONG, frame.payload)
    check(frame.payload == text.encode(), f"an echo of {text!r} is {frame}")
    return time.perf_counter() - began


def newcomer(address, headers):
    """Connects, echoes and closes: in seconds, up to the echo."""
    began = time.perf_counter()
    peer = wire.Peer(address)
    peer.sock.settimeout(60)
    peer.upgrade("/new", headers, timeout=60)
    echo(peer, "new here")
    took = time.perf_counter() - began
    peer.close(1000)
    check(peer.recv(60).opcode == wire.CLOSE and peer.recv_end(60) == "fin", "a newcomer's close was not answered")
    peer.gone()
    return took


def honest(address, newcomers, headers):
    """Until stdin ends; then prints what it saw, as JSON."""
    waits, arrivals, error = [], [], None
    try:
        peer = wire.Peer(address)
        peer.upgrade("/honest", headers)
        echo(peer, "before the attack")
        print("ready", flush=True)
        next_arrival = time.monotonic()
        while not select.select([sys.stdin], [], [], PAUSE_S)[0]:
            waits.append(echo(peer, f"round {len(waits)}"))
            if newcomers and time.monotonic() >= next_arrival:
                arrivals.append(newcomer(address, headers))
                next_arrival = time.monotonic() + NEWCOMER_S
        peer.close(1000)
        check(peer.recv(60).opcode == wire.CLOSE and peer.recv_end(60) == "fin", "the close was not answered")
        peer.gone()
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
    print(json.dumps({"waits": waits, "arrivals": arrivals, "error": error}), flush=True)


class Honest:
    """That process, seen from here."""

    def __init__(self, address, newcomers, headers):
        command = [sys.executable, __file__, "--honest", json.dumps([address, newcomers, headers])]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        check(self.process.stdout.readline() == b"ready\n", "the honest client was not served before the attack")

    def stop(self):
        self.process.stdin.close()
        said = json.loads(self.process.stdout.read())
        self.process.wait()
        check(said["error"] is None, f"the honest client: {said['error']}")
        check(len(said["waits"]) > 0, "the honest client had no turn")
        return said["waits"], said["arrivals"]


# The server.


class Target:
    """A server under attack. Its lines go to a file, so that it never waits for a reader."""

    environment = None

    def __init__(self, command):
        self.log = tempfile.NamedTemporaryFile(prefix="attacks-", suffix=".log")
        self.process = subprocess.Popen(command, stdout=self.log, env=self.environment)
        self.address = None

    def wait(self, done, what, timeout=ENDS_WITHIN_S):
        deadline = time.monotonic() + timeout
        while not (found := done()):
            check(time.monotonic() < deadline and self.process.poll() is None, f"{what}: not within {timeout} s")
            time.sleep(0.02)
        return found

    def events(self, kind, **fields):
        with open(self.log.name, "rb") as log:
            lines = [line for line in log if line.endswith(b"\n") and f'"{kind}"'.encode() in line]
        found = (json.loads(line) for line in lines)
        return [e for e in found if e["event"] == kind and all(e.get(k) == v for k, v in fields.items())]

    def failed(self, peers, cause):
        """Whether the handshake of each of these has failed for that cause."""
        names = {peer.name for peer in peers}

        def all_of_them():
            events = [event for event in self.events("handshake_failed") if event["peer"] in names]
            return len(events) == len(names) and all(event["cause"] == cause for event in events)

        self.wait(all_of_them, f"{len(names)} handshakes failed by {cause}")

    def closed(self, path, count, **fields):
        """The `Close` reports of the `count` connections of that path; each has these fields."""
        ids = {event["id"] for event in self.events("open", path=path)}
        check(len(ids) == count, f"{len(ids)} connections of {path}, wanted {count}")

        def reports():
            found = [event for event in self.events("close") if event["id"] in ids]
            return found if len(found) == count else None

        found = self.wait(reports, f"{count} reports of {path}")
        odd = [e for e in found if any(e[k] != v for k, v in fields.items())]
        check(not odd, f"{fields} wanted of {odd[:1]}")
        return found

    def memory(self, field="VmRSS"):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            return int(re.search(rf"{field}:\s*(\d+) kB", status.read())[1]) * 1024

    def forget_peak(self):
        """From now on VmHWM is the peak since."""
        with open(f"/proc/{self.process.pid}/clear_refs", "w", encoding="ascii") as file:
            file.write("5")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def cpu(self):
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rest(self):
        """Waits until it has done what it was asked: it uses hardly any processor time."""
        before = self.cpu()
        while (now := (time.sleep(0.5), self.cpu())[1]) > before + 0.1:
            before = now

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.close()


class Lab(Target):
    """A `close_lab`."""

    def __init__(self, binary, options):
        command = [binary, "--listen", "127.0.0.1:0", "--lame-duck", "0"]
        for name, value in options.items():
            command += ["--" + name.replace("_", "-"), *([] if value is True else [str(value)])]
        super().__init__(command)
        listening = self.wait(lambda: self.events("listening"), "listening")[0]["addr"]
        host, _, port = listening.rpartition(":")
        self.address = (host, int(port))


# The runtime of Rust has SIGPIPE ignored before `main` begins; in a program that is not Rust's, or that asks for it, a write
# to a broken connection is fatal unless it asks not to be.
SIGPIPE_STAYS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
sighandler_t signal(int number, sighandler_t handler) {
    if (number == SIGPIPE) return SIG_DFL;
    return ((sighandler_t (*)(int, sighandler_t))dlsym(RTLD_NEXT, "signal"))(number, handler);
}
"""


class SigpipeLab(Lab):
    """A `close_lab` in which SIGPIPE has its default disposition. Needs a C compiler."""

    def __init__(self, binary, options):
        self.directory = tempfile.TemporaryDirectory(prefix="attacks-")
        shim = self.directory.name + "/sigpipe_stays.so"
        command = ["cc", "-shared", "-fPIC", "-x", "c", "-o", shim, "-", "-ldl"]
        subprocess.run(command, input=SIGPIPE_STAYS.encode(), check=True)
        self.environment = {**os.environ, "LD_PRELOAD": shim}
        super().__init__(binary, options)
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            ignored = int(re.search(r"SigIgn:\s*(\w+)", status.read())[1], 16)
        check(not ignored & 1 << (signal.SIGPIPE - 1), "SIGPIPE is ignored")


class BenchServer(Target):
    """A `bench_server`."""

    def __init__(self, binary, _options):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self_chosen = probe.getsockname()
        super().__init__([binary, str(self_chosen[1])])
        self.address = self_chosen

        def listens():
            with socket.socket() as probe:
                return probe.connect_ex(self_chosen) == 0

        self.wait(listens, "listening")
        time.sleep(0.1)  # Until the probe is forgotten.


# The attacker.


class Attacker:
    """Its sockets, all of which are closed when the attack is over."""

    def __init__(self, target, quick):
        self.target, self.address, self.quick = target, target.address, quick
        self.peers = []

    def many(self, count):
        """A tenth of it when there is no time."""
        return count // 10 if self.quick else count

    def tcp(self, source=None):
        peer = wire.Peer(self.address, source=source)
        self.peers.append(peer)
        return peer

    def tcp_many(self, count, source=None):
        return [self.tcp(source) for _ in range(count)]

    def peer(self, path="/attack", headers=()):
        peer = self.tcp()
        peer.answer = peer.upgrade(path, headers)
        return peer

    def peers_many(self, count, path="/attack", headers=(), sources=(None,)):
        """Established connections. The requests of a batch go out together."""
        found = []
        request = wire.request(path, headers)[0]
        while len(found) < count:
            batch = [self.tcp(sources[n % len(sources)]) for n in range(min(200, count - len(found)))]
            for peer in batch:
                peer.send_raw(request)
            for peer in batch:
                answer = peer.recv_answer(30)
                check(answer.status == 101, f"the upgrade was answered by {answer.text!r}")
            found += batch
        return found

    def ask(self, head):
        """What an HTTP request is answered with: status, header lines in lower case, how it ended."""
        peer = self.tcp()
        peer.try_send(head)
        answer = peer.recv_answer()
        end = "open" if answer.status == 101 else peer.recv_end()
        peer.gone()
        return answer, end

    def flood(self, peer, data, total, patience=2.0):
        """Sends `data` again and again, `total` bytes in all, reading nothing: how many bytes got out."""
        sent = 0
        while sent < total and peer.try_send(data, timeout=patience):
            sent += len(data)
        return sent

    def flood_and_read(self, peer, data, total, patience=5.0):
        """The same, but throws away what comes: (bytes sent, bytes read, how it ended)."""
        view, sent, read, at, sock = memoryview(data), 0, 0, 0, peer.sock
        sock.setblocking(False)
        while True:
            wants = select.POLLIN | (select.POLLOUT if sent < total else 0)
            poll = select.poll()
            poll.register(sock, wants)
            ready = poll.poll(patience * 1000)
            if not ready:
                return sent, read, "open"
            try:
                if ready[0][1] & (select.POLLIN | select.POLLHUP | select.POLLERR):
                    got = sock.recv(1 << 20)
                    if not got:
                        return sent, read, "fin"
                    read += len(got)
                    peer.last = got
                if ready[0][1] & select.POLLOUT and sent < total:
                    n = sock.send(view[at:])
                    sent, at = sent + n, (at + n) % len(data)
            except BlockingIOError:
                continue
            except (ConnectionResetError, BrokenPipeError):
                return sent, read, "reset"

    def leave(self):
        for peer in self.peers:
            peer.gone()


# One attack.


class Outcome:
    """The figures of one attack."""

    def __init__(self, name, rule):
        self.name, self.rule, self.note = name, rule, ""
        self.peak = self.after = self.cpu = self.seconds = 0.0
        self.descriptors = (0, 0)
        self.waits, self.arrivals = [], []
        self.error = self.trace = None

    def line(self):
        if self.error:
            return f"FAIL  {self.name}: {self.error}"
        before, after = self.descriptors
        return (
            f"ok    {self.name}: {self.peak:+.1f} MiB at most (limit {self.rule['limit_mib']}), {self.after:+.1f} after;"
            f" descriptors {before} -> {after}; {self.cpu:.2f} s of processor time in {self.seconds:.1f} s;"
            f" honest {waits(self.waits)}; newcomers {waits(self.arrivals)}" + (f"; {self.note}" if self.note else "")
        )

    def row(self):
        before, after = self.descriptors
        does, answer = (" ".join(part.split()) for part in self.rule["words"].split("\n\n", 1))
        note = f" {self.note[0].upper()}{self.note[1:]}." if self.note else ""
        return (
            f"| **{self.rule['title']}** | {does} | {answer}{note} | {self.peak:.1f}, {self.after:.1f}, {self.rule['limit_mib']} |"
            f" {before}, {after} | {self.cpu:.2f} | {waits(self.waits)} | {waits(self.arrivals)} |"
        )


def waits(seconds):
    """Median, 99th of a hundred, most."""
    if not seconds:
        return "-"
    ms = sorted(s * 1000 for s in seconds)
    return f"{statistics.median(ms):.2f} / {ms[int(len(ms) * 0.99)]:.1f} / {ms[-1]:.0f} ms"


def run(name, rule, binaries, quick):
    outcome = Outcome(name, rule)
    target = witness = attacker = None
    began = time.monotonic()
    try:
        target = rule["server"](binaries[rule["server"]], rule["options"])
        baseline = target.descriptors()
        witness = Honest(target.address, rule["newcomers"], rule["headers"])
        time.sleep(0.2)
        memory, cpu = target.memory(), target.cpu()
        target.forget_peak()
        attacker = Attacker(target, quick)
        outcome.note = rule["body"](attacker) or ""
        outcome.peak = (target.memory("VmHWM") - memory) / MIB
        attacker.leave()
        outcome.waits, outcome.arrivals = witness.stop()
        target.wait(lambda: target.descriptors() <= baseline, f"descriptors back to {baseline}")
        outcome.descriptors = (baseline, target.descriptors())
        outcome.cpu = target.cpu() - cpu
        if rule["after_mib"] is not None:
            limit = memory + rule["after_mib"] * MIB
            target.wait(lambda: target.memory() <= limit, f"memory back to {rule['after_mib']} MiB above", 5)
        outcome.after = (target.memory() - memory) / MIB
        check(outcome.peak <= rule["limit_mib"], f"{outcome.peak:.1f} MiB, limit {rule['limit_mib']}")
        worst = max(outcome.waits + outcome.arrivals)
        check(worst <= WORST_S, f"the honest client waited {worst:.1f} s")
        check(bool(outcome.arrivals) == rule["newcomers"], "no newcomer was served")
        target.process.send_signal(signal.SIGINT)
        check(target.process.wait(10) == 0, "the server did not end in order")
    except Exception as error:
        outcome.error = str(error) if isinstance(error, Failure) else f"{type(error).__name__}: {error}"
        outcome.trace = traceback.format_exc()
    finally:
        if attacker:
            attacker.leave()
        if witness:
            witness.process.kill()
            witness.process.wait()
        if target:
            target.kill()
    outcome.seconds = time.monotonic() - began
    return outcome


PAGE = """# Known attacks, and what they come to

Made by `python3 tests/lab/attacks.py CLOSE_LAB BENCH_SERVER --table docs/attacks.md`; do not edit. Each attack meets a
fresh server with default settings, but for those that are named, and an honest client beside it: one connection that echoes
a message every few milliseconds, and a new one ten times a second that connects, echoes and closes. The attacks are of the
kinds for which advisories against widely used libraries exist. A run asserts the limit on memory, that descriptors return to
where they were before anyone connected, that the server then ends in order, and that the honest client is never lost; what
it waited is a figure of that day's machine ({cores} cores for the server, the attacker and the honest client), not a
promise.

Limits are per connection, and what they allow adds up: in the worst case `max_connections` times `max_payload` and
`max_backlog`. Choose them together. But a peer has to send every byte that it makes us hold, compressed or not (in a buffer that
doubles as it grows), and has to let us send it every byte that we queue.

* **MiB**: the server's resident memory above what it was before the attack: its peak, what was left when everyone had gone,
  and the limit for the peak. What is left belongs to the C library's allocator, which keeps some of what it was given back:
  after megabytes in one piece up to all of it (with `MALLOC_MMAP_THRESHOLD_=131072` it keeps none). The next attack of the
  kind finds it there.
* **Descriptors**: of the server, before anyone connected and after everyone left.
* **CPU**: processor time of the server in seconds, the honest client's share included.
* **Echo**, **newcomer**: what the honest client waited for an echo, and for a new connection and its echo: median, 99th
  of a hundred, most.

| Attack | What the attacker does | What the server answers | MiB | Descriptors | CPU | Echo | Newcomer |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


def main():
    import attack_rows

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("close_lab", nargs="?")
    parser.add_argument("bench_server", nargs="?")
    parser.add_argument("-k", action="append", metavar="PATTERN", help="only attacks whose name matches")
    parser.add_argument("--quick", action="store_true", help="floods a tenth as large")
    parser.add_argument("--table", metavar="FILE", help="writes the figures and the words as a page")
    parser.add_argument("--list", action="store_true", help="names and words, nothing is run")
    parser.add_argument("--honest", help=argparse.SUPPRESS)
    parser.add_argument("-v", action="store_true", help="a traceback for each failure")
    arguments = parser.parse_args()
    if arguments.honest:
        address, newcomers, headers = json.loads(arguments.honest)
        honest(tuple(address), newcomers, headers)
        return 0
    chosen = {n: r for n, r in attack_rows.ROWS.items() if not arguments.k or any(re.search(k, n) for k in arguments.k)}
    if arguments.list:
        for name, rule in chosen.items():
            print(f"{name}: {' '.join(rule['words'].split())}")
        return 0
    if not arguments.close_lab:
        parser.error("no close_lab")
    binaries = {Lab: arguments.close_lab, SigpipeLab: arguments.close_lab, BenchServer: arguments.bench_server}
    outcomes = []
    for name, rule in chosen.items():
        if binaries[rule["server"]] is None:
            print(f"      {name}: left out, no bench_server", flush=True)
            continue
        outcomes.append(run(name, rule, binaries, arguments.quick))
        print(outcomes[-1].line(), flush=True)
        if arguments.v and outcomes[-1].trace:
            print(outcomes[-1].trace, flush=True)
    failed = sum(outcome.error is not None for outcome in outcomes)
    if arguments.table and not failed:
        page = PAGE.format(cores=os.cpu_count()) + "".join(outcome.row() + "\n" for outcome in outcomes)
        pathlib.Path(arguments.table).write_text(page, encoding="utf-8")
    print(f"{len(outcomes) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    # The rows import this file by its name: it must be one module, not two.
    sys.modules["attacks"] = sys.modules["__main__"]
    sys.exit(main())
