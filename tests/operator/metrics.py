"""/metrics of close_lab, read by curl and by the OpenMetrics parser of Prometheus' Python client: metrics.py PATH_TO_close_lab."""

import json
import socket
import subprocess
import sys
import time

from prometheus_client.openmetrics.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

PATIENCE = 10


class Lab:
    def __init__(self, binary, *options):
        self.process = subprocess.Popen(
            [binary, "--listen", "127.0.0.1:0", *options], stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.address = json.loads(self.process.stdout.readline())["addr"]

    def curl(self):
        """The headers and the body of /metrics."""
        command = ["curl", "--silent", "--show-error", "--max-time", str(PATIENCE), "--include", f"http://{self.address}/metrics"]
        head, _, body = subprocess.run(command, check=True, capture_output=True, text=True).stdout.partition("\n\n")
        return head, body

    def samples(self):
        """{(name, labels without the loop): value}, summed over the loops. The parser is strict: it raises for what is malformed."""
        _, body = self.curl()
        found = {}
        for family in text_string_to_metric_families(body):
            assert family.documentation, family
            for sample in family.samples:
                labels = tuple(sorted((name, value) for name, value in sample.labels.items() if name != "loop"))
                found[sample.name, labels] = found.get((sample.name, labels), 0) + sample.value
        return found

    def until(self, name, labels, value):
        give_up = time.monotonic() + PATIENCE
        while True:
            found = self.samples().get((name, tuple(sorted(labels.items()))))
            if found == value:
                return
            assert time.monotonic() < give_up, f"{name}{labels} is {found} instead of {value}"
            time.sleep(0.02)

    def kill(self):
        self.process.kill()
        self.process.wait()


def answered_as_openmetrics(binary):
    lab = Lab(binary)
    try:
        head, body = lab.curl()
        assert head.startswith("HTTP/1.1 200"), head
        assert "Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8" in head.replace("\r", ""), head
        assert body.endswith("# EOF\n")
        kinds = {family.name: family.type for family in text_string_to_metric_families(body)}
        assert kinds["adjourn_connections"] == "gauge" and kinds["adjourn_closed"] == "counter", kinds
        assert kinds["adjourn_deadline_lateness_seconds"] == "histogram", kinds
        assert all(name.startswith("adjourn_") for name in kinds)
    finally:
        lab.kill()


def counts_what_clients_do(binary):
    for options in ([], ["--workers", "2"]):
        lab = Lab(binary, *options)
        try:
            with connect(f"ws://{lab.address}/a", compression=None) as client:
                lab.until("adjourn_connections", {"state": "open"}, 1)
                client.send("hello")
                assert client.recv() == "hello"
                lab.until("adjourn_received_messages_total", {}, 1)
                lab.until("adjourn_sent_messages_total", {}, 1)
                client.send("close 4001 enough")
                try:
                    client.recv()
                except ConnectionClosed as closed:
                    assert closed.rcvd.code == 4001, closed
            lab.until("adjourn_closed_total", {"cause": "LocalClose", "clean": "true"}, 1)
            lab.until("adjourn_closed_by_code_total", {"code": "4000"}, 1)
            lab.until("adjourn_closed_by_initiator_total", {"initiator": "Local"}, 1)
            lab.until("adjourn_connections", {"state": "open"}, 0)
            lab.until("adjourn_connection_duration_seconds_count", {}, 1)
            # This scrape, and those before it.
            assert lab.samples()["adjourn_http_answers_total", (("status", "200"),)] > 5
        finally:
            lab.kill()


def answered_while_shutting_down(binary):
    lab = Lab(binary, "--plain-http-in-shutdown", "--grace", "2000", "--linger-timeout", "100")
    try:
        host, port = lab.address.rsplit(":", 1)
        mute = socket.create_connection((host, int(port)))
        mute.sendall(
            b"GET /mute HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        lab.until("adjourn_connections", {"state": "open"}, 1)
        lab.process.terminate()
        # It never answers the server's Close, so the grace is used up.
        lab.until("adjourn_shutdown_phase", {"phase": "Grace"}, 1)
        seen = lab.samples()
        assert seen["adjourn_shutdown_phase", (("phase", "Serving"),)] == 0, seen
        assert seen["adjourn_connections", (("state", "closing"),)] == 1, seen
        lines = lab.process.communicate(timeout=PATIENCE)[0].splitlines()
        assert json.loads(lines[-1])["report"]["terminated"] == 1, lines
        mute.close()
    finally:
        lab.kill()


def main():
    (binary,) = sys.argv[1:]
    passed = failed = 0
    for test in (answered_as_openmetrics, counts_what_clients_do, answered_while_shutting_down):
        try:
            test(binary)
            passed += 1
            print(f"ok    metrics: {test.__name__}", flush=True)
        except Exception as error:  # noqa: BLE001
            failed += 1
            print(f"FAIL  metrics: {test.__name__}: {type(error).__name__}: {error}", flush=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


main()
