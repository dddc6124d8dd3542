"""Python websockets as the client: websockets_client.py ws://127.0.0.1:PORT"""

import asyncio
import os
import sys
import time

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

URL = sys.argv[1]
DEFLATE = os.environ.get("ECHO_DEFLATE") == "1"
SIZES = [0, 1, 125, 126, 127, 65535, 65536, 1024 * 1024]
CLOSE_LIMIT_S = 2
TESTS = []


def test(name):
    def register(body):
        TESTS.append((name, body))
        return body

    return register


def some_bytes(length):
    state, out = 0x9E3779B9 ^ length, bytearray(length)
    for i in range(length):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        out[i] = state >> 24
    return bytes(out)


def some_text(length):
    """A text of exactly `length` bytes of UTF-8, with characters of one to four bytes."""
    group = "aé漢🦀𝄞~"
    size = len(group.encode())
    text = group * (length // size)
    left = length % size
    for character in group:
        if len(character.encode()) > left:
            break
        text += character
        left -= len(character.encode())
    text += "x" * left
    assert len(text.encode()) == length
    return text


LONG_REASON = some_text(123)


def peer(**options):
    return connect(URL, max_size=None, **{"compression": None, **options})


def check(condition, message):
    if not condition:
        raise AssertionError(message)


def check_echo(got, sent):
    check(type(got) is type(sent), f"a {type(sent).__name__} came back as {type(got).__name__}")
    check(got == sent, f"echo of {len(sent)} differs ({len(got)} came)")


def received(ws):
    """(code, reason) of the Close that the server sent; None when it sent none."""
    frame = ws.protocol.close_rcvd
    return None if frame is None else (int(frame.code), frame.reason)


async def finish(ws, code=1000, reason=""):
    started = time.monotonic()
    await ws.close(code, reason)
    took = time.monotonic() - started
    check(received(ws) == (code, reason), f"the server's Close is {received(ws)}, wanted {(code, reason)}")
    check(took < CLOSE_LIMIT_S, f"the close took {took:.1f} s")


async def until_closed(ws):
    try:
        await ws.recv()
    except ConnectionClosed:
        return
    raise AssertionError("a message came where the Close was due")


for compression in (None, "deflate"):
    for size in SIZES:
        for make in (some_text, some_bytes):
            kind = make.__name__.removeprefix("some_")

            @test(f"{kind} of {size} bytes{' (deflate offered)' if compression else ''}")
            async def echo(make=make, size=size, compression=compression):
                async with peer(compression=compression) as ws:
                    data = make(size)
                    await ws.send(data)
                    check_echo(await ws.recv(), data)
                    await finish(ws)


def prices(number, length):
    """A text of so many characters that compresses well, and better behind another one."""
    return (f"round {number}: " + "".join(f'{{"id":{i * 7919 % 10007}}},' for i in range(length // 8)))[:length]


for label, options in (
    ("takeover on both sides", {}),
    ("no takeover", {"server_no_context_takeover": True, "client_no_context_takeover": True}),
    ("no takeover by the server", {"server_no_context_takeover": True}),
    ("no takeover by the client", {"client_no_context_takeover": True}),
    ("windows of 9 and 10 bits", {"server_max_window_bits": 9, "client_max_window_bits": 10}),
    ("the smallest window of the server", {"server_max_window_bits": 8, "client_max_window_bits": True}),
):

    @test(f"compression, {label}")
    async def compression(options=options):
        async with peer(extensions=[ClientPerMessageDeflateFactory(**options)]) as ws:
            agreed = ws.protocol.extensions
            check(bool(agreed) == DEFLATE, f"extensions {agreed}")
            if agreed:
                check(agreed[0].remote_no_context_takeover == ("server_no_context_takeover" in options), f"{agreed}")
            for number in range(3):
                for size in (*SIZES, 1024, 5000, 40_000):
                    await ws.send(prices(number, size))
                    check_echo(await ws.recv(), prices(number, size))
                    data = some_bytes(min(size, 70_000))
                    await ws.send(data)
                    check_echo(await ws.recv(), data)
            text = prices(4, 100_000)
            await ws.send([text[i : i + 7777] for i in range(0, len(text), 7777)])
            check_echo(await ws.recv(), text)
            await finish(ws)


@test("no subprotocol is chosen")
async def no_subprotocol():
    async with peer() as ws:
        check(ws.subprotocol is None, f"subprotocol {ws.subprotocol}")


@test("text in fragments")
async def text_in_fragments():
    async with peer() as ws:
        text = some_text(5000)
        await ws.send([text[i : i + 11] for i in range(0, len(text), 11)])
        check_echo(await ws.recv(), text)
        await finish(ws)


@test("binary in fragments, empty ones among them")
async def binary_in_fragments():
    async with peer() as ws:
        data = some_bytes(300_000)
        await ws.send([data[:1], b"", data[1:65537], b"", data[65537:], b""])
        check_echo(await ws.recv(), data)
        await finish(ws)


for size in (0, 1, 125):

    @test(f"ping of {size} bytes is answered with its payload")
    async def ping(size=size):
        async with peer() as ws:
            # The waiter is resolved by a Pong with exactly this payload.
            await asyncio.wait_for(await ws.ping(some_bytes(size)), 2)
            await finish(ws)


@test("an unsolicited pong is ignored")
async def unsolicited_pong():
    async with peer() as ws:
        await ws.pong(b"nobody asked")
        await ws.send("still here")
        check_echo(await ws.recv(), "still here")
        await finish(ws)


for code, reason in [
    (1000, ""),
    (1000, "bye"),
    (1001, "tab closed"),
    (1008, "policy"),
    (1012, "restart"),
    (1014, "gateway"),
    (3000, "three thousand"),
    (4999, "the last one"),
    (4000, "ключ 𝄞 🦀"),
    (4001, LONG_REASON),
]:

    @test(f"client closes with {code} and {len(reason.encode())} bytes of reason")
    async def client_closes(code=code, reason=reason):
        async with peer() as ws:
            await finish(ws, code, reason)


for code, reason in [
    (1000, ""),
    (1000, "done"),
    (1001, "going away"),
    (1011, "unexpected"),
    (1012, "restart"),
    (1013, "try again later"),
    (3000, "library"),
    (4000, "private use with words"),
    (4999, "ключ 𝄞 🦀"),
    (4002, LONG_REASON),
]:

    @test(f"server closes with {code} and {len(reason.encode())} bytes of reason")
    async def server_closes(code=code, reason=reason):
        async with peer() as ws:
            await ws.send(f"close {code} {reason}".rstrip())
            started = time.monotonic()
            await until_closed(ws)
            took = time.monotonic() - started
            check(received(ws) == (code, reason), f"the Close is {received(ws)}")
            check(ws.protocol.close_sent is not None, "the Close was not answered")
            check(took < CLOSE_LIMIT_S, f"the close took {took:.1f} s")


@test("1000 messages pipelined come back in order")
async def pipelined():
    async with peer() as ws:
        sent = [f"message {i} 🦀" for i in range(1000)]

        async def send_all():
            for message in sent:
                await ws.send(message)

        sender = asyncio.create_task(send_all())
        for message in sent:
            check_echo(await ws.recv(), message)
        await sender
        await finish(ws)


@test("a close on command behind 64 messages of 16 KiB: every echo comes first")
async def close_behind_messages():
    async with peer() as ws:
        data = some_bytes(16384)

        async def send_all():
            for _ in range(64):
                await ws.send(data)
            await ws.send("close 4000 after all")

        sender = asyncio.create_task(send_all())
        for _ in range(64):
            check_echo(await ws.recv(), data)
        await until_closed(ws)
        await sender
        check(received(ws) == (4000, "after all"), f"the Close is {received(ws)}")


@test("20 connections at once")
async def many():
    peers = await asyncio.gather(*(peer() for _ in range(20)))

    async def one(i, ws):
        await ws.send(f"I am {i}")
        check_echo(await ws.recv(), f"I am {i}")
        await finish(ws)

    await asyncio.gather(*(one(i, ws) for i, ws in enumerate(peers)))


async def main():
    failed = 0
    for name, body in TESTS:
        try:
            await asyncio.wait_for(body(), 20)
            print(f"ok    websockets: {name}", flush=True)
        except Exception as error:
            failed += 1
            print(f"FAIL  websockets: {name}: {type(error).__name__}: {error}", flush=True)
    print(f"{len(TESTS) - failed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(asyncio.run(main()))
