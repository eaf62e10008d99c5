"""Both ends of a WebSocket echo over a blocking socket, with a minimal subset of RFC 6455.

It supports text, binary, ping, pong and close, but no fragments and no extensions.
"""

import base64
import hashlib
import os
import struct

from backends import read_head
from harness import Failure
from visitors import read_exactly

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA


def accept_key(key):
    """The server's Sec-WebSocket-Accept for the client's Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1(key + GUID).digest())


def xor(data, mask):
    """Applies a 4-byte mask, in one big number, because a loop over bytes is slow."""
    repeated = (mask * (len(data) // 4 + 1))[:len(data)]
    number = int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")
    return number.to_bytes(len(data), "big")


class WebSocket:
    """One end of an established connection; the client masks its frames."""

    def __init__(self, connection, masks):
        self._connection = connection
        self._masks = masks

    def send(self, opcode, payload=b""):
        length = len(payload)
        mask_bit = 0x80 if self._masks else 0
        if length < 126:
            head = struct.pack("!BB", 0x80 | opcode, mask_bit | length)
        elif length < 1 << 16:
            head = struct.pack("!BBH", 0x80 | opcode, mask_bit | 126, length)
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, mask_bit | 127, length)
        if self._masks:
            mask = os.urandom(4)
            head, payload = head + mask, xor(payload, mask)
        self._connection.sendall(head + payload)

    def receive(self):
        """Waits for the next frame; returns (opcode, payload)."""
        first, second = read_exactly(self._connection, 2)
        if first & 0xF0 != 0x80:
            raise Failure(f"unexpected first byte of a WebSocket frame: {first:#x}")
        length = second & 0x7F
        if length == 126:
            length, = struct.unpack("!H", read_exactly(self._connection, 2))
        elif length == 127:
            length, = struct.unpack("!Q", read_exactly(self._connection, 8))
        if bool(second & 0x80) == self._masks:
            raise Failure("a WebSocket frame is masked in the wrong direction")
        mask = b"" if self._masks else read_exactly(self._connection, 4)
        payload = read_exactly(self._connection, length)
        return first & 0x0F, xor(payload, mask) if mask else payload


def connect(connection, host, path="/echo"):
    """Performs the client's handshake; returns the WebSocket."""
    key = base64.b64encode(os.urandom(16))
    connection.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {host}".encode() + b"\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n")
    head = read_head(connection)
    wanted = b"sec-websocket-accept: " + accept_key(key).lower()
    if not head.startswith(b"HTTP/1.1 101 ") or wanted not in head.lower():
        raise Failure(f"no WebSocket handshake: {head!r}")
    return WebSocket(connection, masks=True)


def serve_echo(connection):
    """Runs the server: echoes messages, answers pings, and returns the close frame."""
    head = read_head(connection)
    key = next(line.split(b":", 1)[1].strip() for line in head.split(b"\r\n")
               if line.lower().startswith(b"sec-websocket-key:"))
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept_key(key) + b"\r\n\r\n")
    peer = WebSocket(connection, masks=False)
    while True:
        opcode, payload = peer.receive()
        peer.send(PONG if opcode == PING else opcode, payload)
        if opcode == CLOSE:
            return
