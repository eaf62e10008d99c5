"""Version 1 of the protocol: the independent peer as a program, and hand-written links."""

import contextlib
import re
import socket
import sys
import unittest
from pathlib import Path

from harness import PATIENCE, Failure, Program, Tunnel, wait_until

try:
    import v1peer
except ImportError as error:
    raise unittest.SkipTest(f"v1peer.py needs python3-cryptography: {error}") from None

HERE = "127.0.0.1"
# Any number works; this one avoids the peer's slow arithmetic.
SECRET = 1


class PeerAgent(Program):
    """`v1peer.py agent`."""

    def wait_registered(self):
        self.wait_line(self.stdout, "registered".__eq__, "its registration")


class PeerServer(Program):
    """`v1peer.py server`."""

    def wait_listening(self):
        port = self.wait_line(self.stdout, re.compile(r"^listening on (\d+)$").search, "its port").group(1)
        self.address = f"{HERE}:{port}"
        return self

    def wait_registered(self, name="example"):
        pattern = re.compile(rf"^register domain '{re.escape(name)}' -> '(\d+)'$")
        return int(self.wait_line(self.stdout, pattern.search, f"the registration of {name!r}").group(1))


def start_peer(stage, role, *arguments, kind):
    return stage.start(f"v1peer {role}", [sys.executable, Path(v1peer.__file__), role, *arguments], kind)


def peer_agent(stage, gateway, backend, name="example", ready=True):
    """Starts the peer as an agent; `gateway` is a HOST:PORT."""
    agent = start_peer(stage, "agent", "--gateway", gateway, "--name", name, backend, kind=PeerAgent)
    if ready:
        agent.wait_registered()
    return agent


def peer_server(stage, *options, listen=f"{HERE}:0"):
    return start_peer(stage, "server", "--listen", listen, *options, kind=PeerServer).wait_listening()


def own_gateway(stage, *options, listen_v1=f"{HERE}:0", **more):
    """Starts our gateway; its `address_v1` is the address for agents of version 1."""
    gateway = stage.gateway("--listen-v1", listen_v1, *options, **more)
    gateway.address_v1 = gateway.wait_listening_v1()
    return gateway


def own_agent(stage, gateway, backend, *options, name="example", **more):
    """Starts our agent; `gateway` is a HOST:PORT."""
    return stage.agent(gateway, "--v1", "-n", name, *options, backend, **more)


def peer_agent_at_our_gateway(stage, backend):
    gateway = own_gateway(stage)
    agent = peer_agent(stage, gateway.address_v1, backend)
    return Tunnel(gateway, agent, gateway.wait_registered("example"))


def our_agent_at_peer_server(stage, backend):
    server = peer_server(stage)
    agent = own_agent(stage, server.address, backend)
    agent.wait_event("registered")
    return Tunnel(server, agent, server.wait_registered())


def our_agent_at_our_gateway(stage, backend):
    gateway = own_gateway(stage)
    agent = own_agent(stage, gateway.address_v1, backend)
    agent.wait_event("registered")
    return Tunnel(gateway, agent, gateway.wait_registered("example"))


class Link(v1peer.Wire):
    """One end of a hand-written link, in either role."""

    @classmethod
    def dial(cls, address, wrap=lambda connection: connection):
        connection = socket.create_connection(v1peer.address(address), PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(wrap(connection), client=True, secret=SECRET)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def expect(self, kind, ident=0, payload=b""):
        frame = self.receive()
        if frame != (kind, ident, payload):
            raise Failure(f"expected the frame {(kind, ident, payload)}, got {frame}")

    def log_in(self, token=b""):
        self.send(v1peer.LOGIN, 0, token)
        self.expect(v1peer.OK)

    def register(self, name, registration=0):
        """Logs in and registers a name; then streams may start."""
        self.log_in()
        self.send(v1peer.REGISTER, registration, name.encode())
        self.expect(v1peer.OK)
        self.send(v1peer.FINISH_REGISTER)

    def collect(self, size):
        """Reads at least `size` bytes, all from one stream; returns (stream id, bytes)."""
        data, streams = b"", set()
        while len(data) < size:
            kind, ident, payload = self.receive()
            if kind != v1peer.PAYLOAD:
                raise Failure(f"a frame of kind {kind} after {len(data)} bytes")
            data += payload
            streams.add(ident)
        if len(streams) != 1:
            raise Failure(f"streams {streams} instead of one")
        return streams.pop(), data

    def last_words(self):
        """Reads until the peer ends the link; returns the frames."""
        frames = []
        try:
            while True:
                frames.append(self.receive())
        except (EOFError, ConnectionResetError):
            return frames
        except TimeoutError:
            raise Failure("the link is kept open") from None


class HandServer:
    """A hand-written gateway: it listens, and accepts one link after the other."""

    def __init__(self):
        self._listener = socket.create_server((HERE, 0))
        self._listener.settimeout(PATIENCE)
        self.address = f"{HERE}:{self._listener.getsockname()[1]}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.close()

    def accept_connection(self):
        """Accepts an agent's connection, before reading any byte."""
        connection, _ = self._listener.accept()
        connection.settimeout(PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def accept_agent(self, wrap=lambda connection: connection):
        """Accepts an agent, its login and its name; returns the link."""
        link = Link(wrap(self.accept_connection()), client=False, secret=SECRET)
        link.expect(v1peer.LOGIN)
        link.send(v1peer.OK)
        link.expect(v1peer.REGISTER, 0, b"example")
        link.send(v1peer.OK)
        link.expect(v1peer.FINISH_REGISTER)
        return link


class CutSocket:
    """A socket that splits outgoing bytes at the offsets for which `is_cut(offset)` is true.

    It sends the bytes after a split only when the peer has read those before: otherwise the kernel would merge them.
    """

    def __init__(self, connection, is_cut):
        self.sent = 0
        self._connection = connection
        self._is_cut = is_cut

    def recv(self, size):
        return self._connection.recv(size)

    def close(self):
        self._connection.close()

    def sendall(self, data):
        start = 0
        for end in range(1, len(data) + 1):
            if end < len(data) and not self._is_cut(self.sent + end):
                continue
            self._connection.sendall(data[start:end])
            start = end
            if self._is_cut(self.sent + end):
                wait_until(self._is_read, "the peer to read", interval=0.0005)
        self.sent += len(data)

    def _is_read(self):
        """Whether the peer's receive queue is empty; both ends are on this machine."""
        ours, theirs = self._connection.getsockname()[1], self._connection.getpeername()[1]
        queue = re.search(rf": \w+:{theirs:04X} \w+:{ours:04X} \w+ \w+:(\w+)", Path("/proc/net/tcp").read_text())
        return queue is None or int(queue.group(1), 16) == 0


def refuses(port):
    """Whether a port has no listener any more."""
    with contextlib.suppress(ConnectionRefusedError):
        socket.create_connection((HERE, port), 5).close()
        return False
    return True
