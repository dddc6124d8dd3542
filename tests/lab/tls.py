"""A client's TLS over a socket, by hand: so that an end with `close_notify`, one without, and a reset are three things."""

import os
import socket
import ssl
import subprocess
import time


def make_certificate(folder):
    """A certificate that signs itself, and its key: (path, path). No authority, or webpki would not take it for a server's."""
    certificate, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", key, "-out", certificate, "-subj", "/CN=localhost",
         "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:127.0.0.2"],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


class TlsSocket:
    """What the tests use of a socket, over TLS. The handshake comes with the first use that needs it."""

    def __init__(self, sock):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.secured = False
        self.closed_by_peer = False

    def __getattr__(self, name):
        return getattr(self.sock, name)

    def flush(self):
        data = self.outgoing.read()
        if data:
            self.sock.sendall(data)

    def feed(self):
        """Reads ciphertext once. False at FIN."""
        data = self.sock.recv(1 << 18)
        if not data:
            self.incoming.write_eof()
            return False
        self.incoming.write(data)
        return True

    def do_handshake(self):
        while not self.secured:
            try:
                self.tls.do_handshake()
                self.secured = True
            except ssl.SSLWantReadError:
                self.flush()
                if not self.feed():
                    raise ConnectionResetError("FIN in the handshake") from None
        self.flush()

    def sendall(self, data):
        self.do_handshake()
        view = memoryview(data)
        while view:
            n = self.tls.write(view[: 1 << 14])
            view = view[n:]
            self.flush()

    def recv(self, size):
        self.do_handshake()
        deadline = None if self.sock.gettimeout() is None else time.monotonic() + self.sock.gettimeout()
        while True:
            try:
                data = self.tls.read(size)
                self.flush()
                return data
            except ssl.SSLWantReadError:
                if deadline is not None:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        raise socket.timeout("nothing came in time") from None
                    self.sock.settimeout(left)
                if not self.feed():
                    return b""
            except ssl.SSLZeroReturnError:
                self.closed_by_peer = True
                return b""
            except ssl.SSLEOFError:
                return b""

    def shutdown(self, how):
        """FIN, after a `close_notify` if it is for writing."""
        if how == socket.SHUT_WR and self.secured:
            try:
                self.tls.unwrap()
            except ssl.SSLError:
                pass
            self.flush()
        self.sock.shutdown(how)
