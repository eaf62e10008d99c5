#!/usr/bin/env python3
"""Attackers of a gateway, one role per process, and a backend for honest visitors.

    hostile_peers.py pages                                 answers each connection with a page
    hostile_peers.py visitors PORT COUNT [--read N] [--upload]
    hostile_peers.py reader PORT
    hostile_peers.py agent HOST:PORT NAME MODE [--streams N]
    hostile_peers.py handshakes HOST:PORT COUNT
    hostile_peers.py key-updates HOST:PORT

Each prints "ready N" or "port N" when its attack has started, and runs until it is killed.
"""

import argparse
import asyncio
import contextlib
import itertools
import resource
import selectors
import socket
import struct
import sys
import time

import hostile
import rawtls
import v2peer

MOST_LIMIT = (1 << 63) - 1


def say(word, number):
    print(f"{word} {number}", flush=True)


def address(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


def source(index):
    """A source address: a single one would not have enough ports for all visitors."""
    return f"127.0.{1 + index % 100}.{1 + index // 100 % 200}", 0


# A backend.

class Page(asyncio.Protocol):
    ANSWER = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(hostile.PAGE) + hostile.PAGE

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(self.ANSWER)
        self.transport.close()


def pages(_):
    async def serve():
        server = await asyncio.get_running_loop().create_server(Page, "127.0.0.1", 0, backlog=1024)
        say("port", server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


# Visitors that read little or nothing.

class Visitors:
    UPLOAD = bytes(1 << 16)

    def __init__(self, arguments):
        self.port = arguments.port
        self.count = arguments.count
        self.read = arguments.read
        self.upload = arguments.upload
        self.selector = selectors.DefaultSelector()
        self.ended = 0

    def connect(self, index):
        visitor = socket.socket()
        # A small buffer: the kernel of a visitor that does not read absorbs few bytes.
        visitor.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        visitor.setblocking(False)
        visitor.bind(source(index))
        visitor.connect_ex(("127.0.0.1", self.port))
        self.selector.register(visitor, selectors.EVENT_WRITE)
        return visitor

    def run(self):
        left = set()
        numbers = iter(range(self.count))
        visitors = []
        is_ready = False
        next_read = time.monotonic() + 1
        while True:
            # Connect in batches: a listener's backlog is short.
            for index in itertools.islice(numbers, 200 - min(len(left), 200)):
                visitor = self.connect(index)
                visitors.append(visitor)
                left.add(visitor)
            for key, events in self.selector.select(0.1):
                visitor = key.fileobj
                self.handle(visitor, events, visitor in left)
                left.discard(visitor)
            if not is_ready and len(visitors) == self.count and not left:
                is_ready = True
                say("ready", self.count)
            if self.read and time.monotonic() >= next_read:
                next_read += 1
                for visitor in visitors:
                    with contextlib.suppress(OSError):
                        visitor.recv(self.read)

    def handle(self, visitor, events, is_new):
        try:
            if is_new:
                visitor.send(b"GET /endless HTTP/1.1\r\nHost: hostile\r\n\r\n")
            elif not events & selectors.EVENT_WRITE:
                return
            while self.upload:
                visitor.send(self.UPLOAD)
            # Upload disabled: the visitor has sent its request and needs no further events.
            self.selector.unregister(visitor)
        except BlockingIOError:
            pass
        except OSError:
            self.selector.unregister(visitor)
            visitor.close()
            self.ended += 1
            if self.ended % 100 == 1:
                say("ended", self.ended)


def visitors(arguments):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    Visitors(arguments).run()


def reader(arguments):
    """A visitor that reads everything."""
    with socket.create_connection(("127.0.0.1", arguments.port)) as visitor:
        visitor.sendall(b"x")
        say("ready", 1)
        while visitor.recv(1 << 20):
            pass
    print("closed", flush=True)


# Agents that log in and then misbehave.

class HostileAgent:
    def __init__(self, arguments):
        # In these modes, no credit before ACCEPT, and none after it.
        window = 0 if arguments.mode in ("never-grants", "never-accepts") else 65_536
        self.arguments = arguments
        self.peer = v2peer.connect(address(arguments.gateway))
        self.peer.log_in(hello=v2peer.hello_payload(window=window))
        say("port", self.peer.register(arguments.name).port)
        # Credit in bytes, by stream.
        self.credit = {}
        self.sent = {}

    def readable(self, timeout):
        return self.peer.tls.pending() or has_frame(self.peer) or hostile.readable(self.peer.tls, timeout)

    def frames(self, timeout):
        """Yields up to 1,000 received frames. Waits `timeout` seconds for the first."""
        most = 1_000
        while most > 0 and self.readable(timeout):
            timeout = 0
            most -= 1
            try:
                yield self.peer.recv_frame(0.001)
            except TimeoutError:
                # A partial frame, or a record without a frame.
                return

    def accept(self, opened, limit):
        granted = struct.unpack(">HQ", opened.payload[:10])[1]
        self.sent[opened.stream] = 0
        self.credit[opened.stream] = granted
        self.peer.send_frame(v2peer.ACCEPT, v2peer.u64(limit), stream=opened.stream)
        if len(self.credit) % 100 == 0 or len(self.credit) == self.arguments.streams:
            say("streams", len(self.credit))

    def take(self, frame, limit):
        if frame.type == v2peer.OPEN:
            if self.arguments.mode == "never-accepts":
                return
            self.accept(frame, limit)
        elif frame.type == v2peer.WINDOW and frame.stream in self.credit:
            self.credit[frame.stream] = struct.unpack(">Q", frame.payload)[0] - self.sent[frame.stream]
        elif frame.type == v2peer.RESET:
            self.credit.pop(frame.stream, None)
            self.sent.pop(frame.stream, None)

    def never_grants(self):
        while True:
            for frame in self.frames(1):
                self.take(frame, 0 if self.arguments.mode == "never-grants" else 65_536)

    never_accepts = never_grants

    def never_reads(self):
        """Stops reading when all visitors have arrived, or as many as the gateway admits."""
        count, since = 0, time.monotonic()
        while count < self.arguments.streams and (count == 0 or time.monotonic() - since < 1):
            for frame in self.frames(0.1):
                self.take(frame, MOST_LIMIT)
            if len(self.credit) != count:
                count, since = len(self.credit), time.monotonic()
        say("deaf", count)
        time.sleep(1 << 20)

    def pours(self):
        """Sends as much as the credit allows, on every stream."""
        full = bytes(v2peer.MAXIMUM_PAYLOAD)
        while True:
            for frame in self.frames(0.01):
                self.take(frame, 65_536)
            for stream, credit in list(self.credit.items()):
                if credit > 0:
                    payload = full[:credit]
                    self.peer.send_frame(v2peer.DATA, payload, stream=stream)
                    self.spend(stream, len(payload))

    def spend(self, stream, count):
        self.sent[stream] += count
        self.credit[stream] -= count

    def tiny_frames(self):
        """Sends frames of one byte, as many as fit in a TLS record."""
        count = 16_384 // 9
        while True:
            for frame in self.frames(0 if any(self.credit.values()) else 1):
                self.take(frame, 65_536)
            for stream, credit in list(self.credit.items()):
                if credit >= count:
                    self.peer.send_raw(v2peer.encode(v2peer.DATA, b"x", stream=stream) * count)
                    self.spend(stream, count)

    def tiny_records(self):
        """Sends each byte in its own TLS record, and, if the kernel does not merge them, in its own TCP segment."""
        while True:
            for frame in self.frames(0 if any(self.credit.values()) else 1):
                self.take(frame, 65_536)
            for stream, credit in list(self.credit.items()):
                for _ in range(min(credit, 50)):
                    for byte in v2peer.encode(v2peer.DATA, b"x", stream=stream):
                        self.peer.send_raw(bytes([byte]))
                    self.spend(stream, 1)


def has_frame(peer):
    """Whether a complete frame is already in the read buffer."""
    return len(peer._buffer) >= 8 and len(peer._buffer) >= 8 + struct.unpack(">H", peer._buffer[6:8])[0]


def agent(arguments):
    hostile_agent = HostileAgent(arguments)
    try:
        getattr(hostile_agent, arguments.mode.replace("-", "_"))()
    except v2peer.Closed as end:
        print(f"closed: {end}", flush=True)
        sys.exit(1)


# Unauthenticated connections.

def handshakes(arguments):
    """Repeatedly opens `count` connections at once, makes the gateway sign handshakes, and closes them."""
    hello = hostile.client_hello()
    gateway = address(arguments.gateway)
    for number in itertools.count(1):
        strangers = []
        for _ in range(arguments.count):
            stranger = socket.socket()
            stranger.setblocking(False)
            stranger.connect_ex(gateway)
            strangers.append(stranger)
        with selectors.DefaultSelector() as selector:
            for stranger in strangers:
                selector.register(stranger, selectors.EVENT_WRITE)
            deadline = time.monotonic() + 3
            while selector.get_map() and time.monotonic() < deadline:
                for key, events in selector.select(0.1):
                    with contextlib.suppress(OSError):
                        if events & selectors.EVENT_WRITE:
                            key.fileobj.send(hello)
                            selector.modify(key.fileobj, selectors.EVENT_READ)
                            continue
                        key.fileobj.recv(65_536)
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
        for stranger in strangers:
            stranger.close()
        say("ready", number * arguments.count)


def key_updates(arguments):
    """Repeatedly logs in and updates its key until the link ends."""
    total = 0
    for number in itertools.count(1):
        tls = rawtls.connect(address(arguments.gateway))
        with contextlib.suppress(OSError, v2peer.Closed), v2peer.Peer(tls) as peer:
            peer.log_in()
            say("ready", number)
            while True:
                tls.update_key(requests_answer=True)
                total += 1
                if total % 1_000 == 0:
                    say("updates", total)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    roles = parser.add_subparsers(required=True)
    role = roles.add_parser("pages")
    role.set_defaults(run=pages)
    role = roles.add_parser("visitors")
    role.add_argument("port", type=int)
    role.add_argument("count", type=int)
    role.add_argument("--read", type=int, default=0, help="bytes a second that each reads")
    role.add_argument("--upload", action="store_true", help="send until nothing more is taken")
    role.set_defaults(run=visitors)
    role = roles.add_parser("reader")
    role.add_argument("port", type=int)
    role.set_defaults(run=reader)
    role = roles.add_parser("agent")
    role.add_argument("gateway")
    role.add_argument("name")
    role.add_argument("mode")
    role.add_argument("--streams", type=int, default=1)
    role.set_defaults(run=agent)
    role = roles.add_parser("handshakes")
    role.add_argument("gateway")
    role.add_argument("count", type=int)
    role.set_defaults(run=handshakes)
    role = roles.add_parser("key-updates")
    role.add_argument("gateway")
    role.set_defaults(run=key_updates)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
