"""A minimal gateway, which answers a REGISTER as a test requires (docs/protocol.md)."""

import contextlib
import socket
import ssl
import struct
import threading

HELLO, LOGIN, WELCOME, REGISTER, REGISTERED, PING, PONG = 1, 2, 3, 4, 5, 12, 13


class HandGateway(contextlib.AbstractContextManager):
    """Accepts every agent, and answers each REGISTER with `text` as the address.

    `identity` is a file with a key and its certificate, such as a gateway's identity.pem.
    """

    def __init__(self, identity, text, port=33605):
        self.text = text
        self.port = port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.load_cert_chain(identity)
        self._context.set_alpn_protocols(["diglett/2"])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __exit__(self, *_):
        self._listener.close()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with contextlib.suppress(OSError, EOFError):
            link = self._context.wrap_socket(connection, server_side=True)

            def send(kind, payload=b""):
                link.sendall(struct.pack(">IBBH", 0, kind, 0, len(payload)) + payload)

            def exactly(size):
                data = b""
                while len(data) < size:
                    part = link.recv(size - len(data))
                    if not part:
                        raise EOFError
                    data += part
                return data

            send(HELLO, b"DGL2" + struct.pack(">BBHII", 2, 2, 0, 65_536, 1_024))
            while True:
                _, kind, _, size = struct.unpack(">IBBH", exactly(8))
                payload = exactly(size)
                if kind == LOGIN:
                    send(WELCOME, struct.pack(">QHH", 1, 16, 0))
                elif kind == REGISTER:
                    send(REGISTERED, payload[:2] + struct.pack(">HH", 0, self.port) + self.text.encode())
                elif kind == PING:
                    send(PONG, payload)
