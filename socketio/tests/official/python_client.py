"""A second implementation: the python-socketio client against socketio_lab."""
import json
import os
import subprocess
import threading
import traceback

import socketio

PATIENCE = 15


class Lab:
    def __init__(self, *args):
        self.process = subprocess.Popen([os.environ["LAB"], "--port=0", *args], stdout=subprocess.PIPE, text=True)
        self.url = "http://" + json.loads(self.process.stdout.readline())["addr"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def client(lab, **options):
    made = socketio.Client(reconnection=False)
    made.got = []
    made.on("*", lambda name, *args: made.got.append((name, args)))
    made.connect(lab.url, wait_timeout=PATIENCE, **options)
    return made


def echo(lab, **options):
    one = client(lab, **options)
    assert one.call("echo", ("a", 1, {"b": [None, True]}), timeout=PATIENCE) == ("a", 1, {"b": [None, True]})
    answer = []
    done = threading.Event()
    one.emit("echo", ("é漢🦀", b"\x00\x01", {"deep": [b"xyz"]}), callback=lambda *args: (answer.extend(args), done.set()))
    assert done.wait(PATIENCE)
    assert answer == ["é漢🦀", b"\x00\x01", {"deep": [b"xyz"]}], answer
    one.disconnect()


def rooms(lab, **options):
    one, two = client(lab, **options), client(lab, **options)
    assert sorted(one.call("join", "r", timeout=PATIENCE)) == sorted([one.get_sid(), "r"])
    # This client refuses a polling payload of more than 16 packets.
    assert two.call("burst", ("r", 12, "t", 0), timeout=PATIENCE) == 12
    for _ in range(PATIENCE * 100):
        if len(one.got) >= 12:
            break
        one.sleep(0.01)
    assert [args[:2] for _, args in one.got] == [("t", i) for i in range(12)], one.got
    one.disconnect()
    two.disconnect()


def namespaces(lab, **options):
    one = socketio.Client(reconnection=False)
    one.connect(lab.url, namespaces=["/", "/plain"], auth={"token": "good"}, wait_timeout=PATIENCE, **options)
    assert one.call("echo", 5, namespace="/plain", timeout=PATIENCE) == 5
    one.disconnect()


def refused(lab, **options):
    one = socketio.Client(reconnection=False)
    errors = []
    one.on("connect_error", errors.append, namespace="/auth")
    try:
        one.connect(lab.url, namespaces=["/auth"], wait_timeout=PATIENCE, **options)
    except socketio.exceptions.ConnectionError:
        assert errors == [{"message": "unauthorized", "data": {"code": 401}}], errors
    else:
        raise AssertionError("connected without a token")


def main():
    passed = failed = 0
    with Lab() as lab:
        for test in (echo, rooms, namespaces, refused):
            for options in ({}, {"transports": ["websocket"]}, {"transports": ["polling"]}):
                try:
                    test(lab, **options)
                    passed += 1
                except Exception:
                    failed += 1
                    print(f"FAILED {test.__name__} {options}\n{traceback.format_exc()}")
    print(f"{passed} passed, {failed} failed")
    raise SystemExit(failed != 0)


main()
