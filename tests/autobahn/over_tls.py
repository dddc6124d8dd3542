#!/usr/bin/env python3
"""Puts TLS between the Autobahn suite, which speaks plain WebSocket, and ours: a server or client under test for run.sh.

    over_tls.py server BIN 127.0.0.1:PORT    runs `BIN 127.0.0.1:0 CERT KEY`, and passes on what comes to PORT
    over_tls.py client BIN ws://HOST:PORT    runs `BIN wss://127.0.0.2:PORT CERT`, and passes on what comes there: the suite
                                             wants its own port in `Host`

Whatever passes is not looked at. An end of one side is the end of the other.
"""

import asyncio
import pathlib
import re
import signal
import ssl
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lab"))
sys.dont_write_bytecode = True

import tls  # noqa: E402


async def pump(reader, writer):
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except (ConnectionError, ssl.SSLError, TimeoutError):
        writer.transport.abort()
        return
    if writer.can_write_eof():
        writer.write_eof()
    else:
        writer.close()


def relay(connect):
    """A callback of `start_server` that connects by `connect` and passes everything on."""

    async def accepted(reader, writer):
        try:
            there, to = await connect()
        except OSError:
            return writer.transport.abort()
        await asyncio.gather(pump(reader, to), pump(there, writer))
        for one in (writer, to):
            one.close()

    return accepted


def trusting(certificate):
    return ssl.create_default_context(cafile=certificate)


def serving(certificate, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


async def main(role, binary, address):
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = tls.make_certificate(folder)
        if role == "server":
            host, _, port = address.rpartition(":")
            ours = await asyncio.create_subprocess_exec(
                binary, "127.0.0.1:0", certificate, key, stdout=asyncio.subprocess.PIPE
            )
            line = (await ours.stdout.readline()).decode()
            secure = int(re.fullmatch(r"listening on wss://127\.0\.0\.1:(\d+)\s*", line)[1])
            context = trusting(certificate)
            connect = lambda: asyncio.open_connection(  # noqa: E731
                "127.0.0.1", secure, ssl=context, server_hostname="localhost"
            )
            server = await asyncio.start_server(relay(connect), host, int(port))
            print(f"listening on ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        else:
            host, port = re.fullmatch(r"ws://([^:/]+):(\d+)/?", address).groups()
            connect = lambda: asyncio.open_connection(host, int(port))  # noqa: E731
            context = serving(certificate, key)
            server = await asyncio.start_server(relay(connect), "127.0.0.2", int(port), ssl=context)
            ours = await asyncio.create_subprocess_exec(binary, f"wss://127.0.0.2:{port}", certificate)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, ours.send_signal, number)
        return await ours.wait()


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in ("server", "client"):
        sys.exit(__doc__)
    sys.exit(asyncio.run(main(*sys.argv[1:])))
