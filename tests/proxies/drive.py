"""Drives close_lab through proxies that we did not write. Called by run.sh."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lab"))
import tls  # noqa: E402
import wire  # noqa: E402

HAPROXY = """
global
    maxconn 1000
defaults
    mode {mode}
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout tunnel 30s
    {check}
frontend clients
    bind 127.0.0.1:{port}
    default_backend lab
backend lab
    server lab {target} {send} check inter 100ms check-send-proxy
"""

NGINX = """
{user}
worker_processes 1;
pid {scratch}/nginx.pid;
error_log {scratch}/nginx.log;
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
events {{ worker_connections 100; }}
"""

NGINX_STREAM = NGINX + """
stream {{
    server {{
        listen 127.0.0.1:{port};
        proxy_pass {target};
        proxy_protocol on;
    }}
}}
"""

NGINX_HTTP = NGINX + """
http {{
    access_log off;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://{target};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
            proxy_read_timeout 30s;
        }}
    }}
}}
"""

# What it is called, its configuration, how it reaches the lab, and whether it sends a PROXY header.
PROXIES = [
    ("haproxy, HTTP, version 1", "haproxy", {"mode": "http", "send": "send-proxy"}, "tcp", True),
    ("haproxy, HTTP, version 2", "haproxy", {"mode": "http", "send": "send-proxy-v2"}, "tcp", True),
    ("haproxy, TCP, version 2, by a Unix domain socket", "haproxy", {"mode": "tcp", "send": "send-proxy-v2"}, "unix", True),
    ("nginx, stream, version 1", NGINX_STREAM, {}, "tcp", True),
    ("nginx, HTTP", NGINX_HTTP, {}, "tcp", False),
    ("nginx, HTTP, by a Unix domain socket", NGINX_HTTP, {}, "unix", False),
]


# If the lab has TLS, which the proxy passes through.
OVER_TLS = ("haproxy, TCP, version 2, before TLS", "haproxy", {"mode": "tcp", "send": "send-proxy-v2"}, "tls", True)


class Failure(AssertionError):
    """Something is not as it has to be."""


def equal(got, wanted, what):
    if got != wanted:
        raise Failure(f"{what} is {got!r}, wanted {wanted!r}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(what, condition, timeout=10.0):
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise Failure(f"{what}: not within {timeout} s")
        time.sleep(0.01)
    return found


class Lab:
    """close_lab, and what it says."""

    def __init__(self, binary, listen, options):
        self.events = []
        self.process = subprocess.Popen([binary, "--listen", listen, *options], stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()
        self.address = self.wait("listening")["addr"]

    def _read(self):
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def all(self, event, **fields):
        return [e for e in list(self.events) if e["event"] == event and all(e.get(k) == v for k, v in fields.items())]

    def wait(self, event, **fields):
        return wait_until(f"{event} {fields}", lambda: self.all(event, **fields))[0]


class World:
    """The lab, a proxy before it, and its clients."""

    def __init__(self, binary, scratch, proxy, *options):
        _, kind, settings, by, self.sends_header = proxy
        self.by = by
        self.scratch, self.peers = scratch, []
        listen = f"unix:{scratch}/lab.sock" if by == "unix" else "127.0.0.1:0"
        trusted = ["--proxy-protocol", "unix" if by == "unix" else "127.0.0.1"] if self.sends_header else []
        secured = ["--tls", *tls.make_certificate(scratch)] if by == "tls" else []
        self.lab = Lab(binary, listen, [*trusted, *secured, *options])
        self.port = free_port()
        self.proxy = self._start(kind, settings, by)
        wait_until("the proxy listens", self._listens)

    def _start(self, kind, settings, by):
        target = f"unix:{self.scratch}/lab.sock" if by == "unix" else self.lab.address
        values = {"port": self.port, "scratch": self.scratch, "user": "user root;" if os.getuid() == 0 else "", **settings}
        config = f"{self.scratch}/proxy.conf"
        if kind == "haproxy":
            values["target"] = target.replace("unix:", "unix@")
            values["check"] = "option httpchk GET /healthz" if settings["mode"] == "http" else ""
            text, command = HAPROXY.format(**values), ["haproxy", "-db", "-f", config]
        else:
            # A path ends in a colon where a path of HTTP may follow.
            values["target"] = target + ":" if by == "unix" and kind is NGINX_HTTP else target
            command = ["nginx", "-p", self.scratch, "-c", config, "-g", "daemon off;"]
            text = kind.format(**values)
        pathlib.Path(config).write_text(text, encoding="ascii")
        log = open(f"{self.scratch}/proxy.out", "wb")
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def _listens(self):
        if self.proxy.poll() is not None:
            raise Failure(pathlib.Path(f"{self.scratch}/proxy.out").read_text(encoding="utf-8"))
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def client(self, path, source="127.0.0.2"):
        """One that has asked for an upgrade, and the status of the answer; None if there was none."""
        peer = wire.Peer(("127.0.0.1", self.port), source=source)
        if self.by == "tls":
            peer.sock = tls.TlsSocket(peer.sock)
        self.peers.append(peer)
        try:
            peer.send_raw(wire.request(path)[0])
            return peer, peer.recv_answer(10).status
        except (wire.Ended, OSError):
            return peer, None

    def open(self, path, source="127.0.0.2"):
        """A client after its handshake, and its id in the lab."""
        peer, status = self.client(path, source)
        equal(status, 101, "the status")
        return peer, self.lab.wait("open", path=path)["id"]

    def end(self):
        for peer in self.peers:
            peer.gone()
        # Not SIGKILL: the workers of nginx would outlive their master.
        self.proxy.terminate()
        if self.lab.process.poll() is None:
            self.lab.process.kill()
        for process in (self.proxy, self.lab.process):
            process.wait(10)


def addresses_are_the_clients(world):
    """What the lab shows is the client's address, or the proxy's if that does not say whom it speaks for."""
    peer, _ = world.open("/who")
    shown = world.lab.wait("open", path="/who")["peer"]
    if world.sends_header:
        equal(shown, peer.name, "the address")
    else:
        equal(shown.rpartition(":")[0] in ("127.0.0.1", "0.0.0.0"), True, f"{shown}: the proxy's address")


def messages_pass(world):
    """Short ones, and one that is longer than the buffers of a proxy."""
    peer, _ = world.open("/echo")
    for payload in (b"hello", b"x" * 300_000):
        peer.binary(payload)
        equal(peer.recv(10).payload == payload, True, f"the echo of {len(payload)} bytes")


def closes_pass_with_code_and_reason(world):
    """Ours and the client's."""
    peer, number = world.open("/mine")
    peer.close(4000, "the client's")
    frame = peer.recv(10)
    equal((frame.opcode, frame.code, frame.reason), (wire.CLOSE, 4000, "the client's"), "the answer")
    report = world.lab.wait("close", id=number)
    equal((report["code"], report["reason"], report["was_clean"]), (4000, "the client's", True), "the report")

    peer, number = world.open("/theirs")
    peer.text("close 4001 the server's")
    frame = peer.recv(10)
    equal((frame.opcode, frame.code, frame.reason), (wire.CLOSE, 4001, "the server's"), "the Close")
    peer.close(4001, "the server's")
    report = world.lab.wait("close", id=number)
    equal((report["code"], report["was_clean"], report["initiator"]), (4001, True, "Local"), "the report")


def limits_count_clients(world):
    """Two of one address, and no third one; others have theirs. Health checks do not count."""
    (first, _), _ = world.open("/limit/1"), world.open("/limit/2")
    peer, status = world.client("/limit/3")
    # Before there is a TLS session, no answer could be read.
    equal(status, None if world.by == "tls" else 503, "the status of the third client")
    failed = world.lab.wait("handshake_failed", cause="TooManyConnections")
    equal(failed["peer"], peer.name, "the address")
    world.open("/limit/4", source="127.0.0.3")
    first.close(1000)
    first.recv(10)
    first.gone()
    # It is not counted until its socket is closed.
    wait_until("the place is free", lambda: world.client("/limit/5")[1] == 101)


def strangers_are_refused(world):
    """Whoever goes around the proxy."""
    host, _, port = world.lab.address.rpartition(":")
    for source, header in (("127.0.0.1", b""), ("127.0.0.9", b""), ("127.0.0.9", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n")):
        peer = wire.Peer((host, int(port)), source=source)
        world.peers.append(peer)
        try:
            peer.send_raw(header + wire.request("/around")[0])
            status = peer.recv_answer(10).status
        except (wire.Ended, OSError):
            status = None
        equal(status, 400 if source == "127.0.0.1" else None, f"the status for {source}, {header!r}")
        world.lab.wait("handshake_failed", cause="ProxyHeader", peer=peer.name)


def a_shutdown_reaches_everybody(world):
    """1001 for each client, and a clean report."""
    peers = [world.open(f"/down/{n}", source=f"127.0.1.{n + 1}")[0] for n in range(10)]
    # The lame duck is what a health check sees; these clients do not wait for it.
    world.lab.process.send_signal(signal.SIGTERM)
    for peer in peers:
        frame = peer.recv(10)
        equal((frame.opcode, frame.code), (wire.CLOSE, 1001), "the Close")
        peer.close(1001)
    report = world.lab.wait("shutdown")["report"]
    equal((report["timed_out"], report["terminated"], report["failed"]), (0, 0, 0), "the report")
    equal(world.lab.process.wait(10), 0, "the exit status")


# With the options of close_lab, and the proxies that they are for.
CASES = [
    (addresses_are_the_clients, [], lambda by, sends_header: True),
    (messages_pass, [], lambda by, sends_header: True),
    (closes_pass_with_code_and_reason, [], lambda by, sends_header: True),
    (limits_count_clients, ["--max-per-address", "2"], lambda by, sends_header: sends_header),
    (strangers_are_refused, [], lambda by, sends_header: sends_header and by == "tcp"),
    (a_shutdown_reaches_everybody, ["--grace", "5000"], lambda by, sends_header: True),
]


def main(binary, *has_tls):
    passed = failed = 0
    for proxy in PROXIES + [OVER_TLS] * len(has_tls):
        for case, options, is_for in CASES:
            if not is_for(*proxy[3:]):
                continue
            name = f"{proxy[0]}: {case.__name__.replace('_', ' ')}"
            with tempfile.TemporaryDirectory(prefix="adjourn-") as scratch:
                world = None
                try:
                    world = World(binary, scratch, proxy, *options)
                    case(world)
                    passed += 1
                    print(f"ok    {name}")
                except Exception:  # noqa: BLE001 -- whatever it is, the others are to run
                    failed += 1
                    print(f"FAIL  {name}")
                    traceback.print_exc(file=sys.stdout)
                    print(f"      the last events: {world.lab.events[-3:] if world else None}")
                finally:
                    if world:
                        world.end()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
