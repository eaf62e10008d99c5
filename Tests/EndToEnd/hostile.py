"""Shared by the tests of hostile peers: attackers, a relay, latencies, the ends of connections.

An attacker is a separate process (hostile_peers.py), which does not slow down the test that measures at the same time.
It runs at low priority: a real attacker does not use the gateway's CPU.
"""

import collections
import contextlib
import ctypes
import fcntl
import re
import select
import socket
import ssl
import struct
import sys
import termios
import threading
import time
from pathlib import Path

import backends
import v2peer
from harness import PATIENCE, EndToEndTest, Failure, Program, wait_until

PEERS = Path(__file__).with_name("hostile_peers.py")
PAGE = b"behind the agent"

# Between two measured visits.
PAUSE_SECONDS = 0.008

# Limit for another agent's p99 during an attack: twice the p99 without attack plus this margin, but at least the floor,
# which a busy machine with two cores needs.
MARGIN_SECONDS = 0.005
FLOOR_SECONDS = 0.060


class Peer(Program):
    """A process of hostile_peers.py in one role."""

    def wait_ready(self, timeout=PATIENCE):
        """Waits for "ready N" or "port N", and returns N."""
        match = self.wait_line(self.stdout, re.compile(r"^(?:ready|port) (\d+)$").search, "ready", timeout)
        return int(match.group(1))

    def last(self, word):
        """The last number reported as `word`, or None."""
        for line in reversed(self.stdout):
            if match := re.match(rf"^{word} (\d+)$", line):
                return int(match.group(1))
        return None


def start_peer(stage, role, *arguments, nice=10):
    priority = ["nice", "-n", nice] if nice else []
    return stage.start(f"peer {role}", [*priority, sys.executable, PEERS, role, *arguments], Peer)


def start_pages(stage):
    """Starts a process as backend that answers each connection with PAGE; returns HOST:PORT."""
    return f"127.0.0.1:{start_peer(stage, 'pages', nice=0).wait_ready()}"


# Latencies.

class Latency(collections.namedtuple("Latency", "median p99 failures")):
    def __str__(self):
        failed = f", {self.failures} failed" if self.failures else ""
        return f"{self.median * 1000:.1f}/{self.p99 * 1000:.1f} ms{failed}"


def request(port, timeout=PATIENCE):
    """Sends one visitor's request and reads the answer; returns the seconds from connect to the end."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout) as visitor:
        visitor.sendall(b"GET / HTTP/1.1\r\nHost: honest\r\n\r\n")
        answer = backends.read_all(visitor)
    if not answer.endswith(PAGE):
        raise Failure(f"the answer is {answer!r}")
    return time.monotonic() - began


def latency(port, count=200):
    """p50 and p99 of sequential visitors. A failed visit counts as infinite."""
    seconds = []
    failures = 0
    for _ in range(count):
        # Spread the visits over about two seconds, because attacks come in waves.
        time.sleep(PAUSE_SECONDS)
        try:
            seconds.append(request(port))
        except (OSError, Failure):
            failures += 1
            seconds.append(float("inf"))
    seconds.sort()
    return Latency(seconds[len(seconds) // 2], seconds[len(seconds) * 99 // 100], failures)


class NeighbourTest(EndToEndTest):
    """A gateway with an honest agent, whose visitors an attack must not affect."""

    ROUNDS = 3

    def start_neighbour(self, *options, **more):
        self.gateway = self.stage.gateway(*options, **more)
        agent = self.stage.agent(self.gateway, "-n", "honest", start_pages(self.stage))
        self.honest = agent.wait_registered("honest")

    def measure_quiet(self):
        latency(self.honest, 50)
        self.quiet = latency(self.honest)

    def check_neighbour(self, what):
        """Checks the latency; repeats it up to ROUNDS times, because other load on the machine can only increase it."""
        limit = max(2 * self.quiet.p99 + MARGIN_SECONDS, FLOOR_SECONDS)
        measured = []
        while not measured or (measured[-1].p99 > limit and len(measured) < self.ROUNDS):
            measured.append(latency(self.honest))
            if measured[-1].failures:
                break
        self.note(f"p50/p99 quiet {self.quiet}, {what} {', '.join(map(str, measured))}")
        self.assertEqual(measured[-1].failures, 0, "honest visitors were turned away")
        self.assertLessEqual(measured[-1].p99, limit)

    def dial(self, **options):
        return self.stage.use(v2peer.connect((self.gateway.host, self.gateway.port), **options))

    def check_served(self, within=5.0):
        """An honest visitor retries until it is served, for `within` seconds; returns (seconds, refusals)."""
        began = time.monotonic()
        refusals = 0
        while True:
            left = began + within - time.monotonic()
            if left <= 0 or not self.gateway.running:
                raise Failure(f"the honest visitor was not served within {within:g} s ({refusals} refusals)")
            try:
                request(self.honest, left)
                return time.monotonic() - began, refusals
            except (OSError, Failure):
                refusals += 1
                select.select([], [], [], 0.05)


def client_hello():
    """The TLS ClientHello of an agent."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([v2peer.ALPN])
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="gateway").do_handshake()
    return outgoing.read()


# The ends of connections.

RESET, END, OPEN = "reset", "end", "open"


def collect(connection, at_most=256 << 20):
    """Reads until the connection ends; returns (bytes, RESET or END). Fails after more bytes than `at_most`."""
    parts = []
    count = 0
    try:
        while part := connection.recv(1 << 18):
            parts.append(part)
            count += len(part)
            if count > at_most:
                raise Failure(f"the connection continues after {count} bytes")
        return b"".join(parts), END
    except (ConnectionResetError, BrokenPipeError):
        return b"".join(parts), RESET


def unacknowledged(connection):
    """Bytes that the peer's kernel has not acknowledged (tcp(7), SIOCOUTQ)."""
    return struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, b"\0" * 4))[0]


def reset(connection):
    backends.reset_on_close(connection)
    connection.close()


def reset_when_acknowledged(connection):
    """Resets the connection after the peer's kernel has received all bytes sent."""
    wait_until(lambda: unacknowledged(connection) == 0, "the peer to acknowledge", interval=0.001)
    reset(connection)


def disconnect(connection):
    """Resets the connection immediately (connect(2), AF_UNSPEC). Unlike close it wakes a blocked reader."""
    ctypes.CDLL(None).connect(connection.fileno(), bytes(16), 16)


def is_reset(connection):
    """Whether a reset has arrived, even if bytes before it are unread."""
    poller = select.poll()
    poller.register(connection, 0)
    return any(events & select.POLLERR for _, events in poller.poll(0))


class Relay:
    """A relay between agent and gateway that a test can slow down, cut or silence.

    It delays bytes by `batch` seconds and forwards them together, as a long network path does.
    """

    def __init__(self, target, batch=0.0):
        host, port = target.rsplit(":", 1)
        self._target = (host, int(port))
        self._batch = batch
        self._lock = threading.Lock()
        self._pairs = []
        self._silent = threading.Event()
        # Bytes forwarded in both directions.
        self.passed = 0
        self._listener = backends.Listener(self._serve)
        self.address = self._listener.address

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.cut()
        self._listener.__exit__()

    def _serve(self, near):
        with socket.create_connection(self._target, PATIENCE) as far:
            for end in (near, far):
                end.settimeout(None)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._pairs.append((near, far))
            back = threading.Thread(target=self._pump, args=(far, near), daemon=True)
            back.start()
            self._pump(near, far)
            back.join()

    def _pump(self, source, sink):
        silent = self._silent
        try:
            while True:
                select.select([source], [], [])
                if self._batch:
                    time.sleep(self._batch)
                data = source.recv(1 << 20)
                if silent.is_set():
                    continue
                if not data:
                    break
                sink.sendall(data)
                self.passed += len(data)
            sink.shutdown(socket.SHUT_WR)
        except (OSError, ValueError):
            # One end was reset, or the test cut both: end the other one too.
            with contextlib.suppress(OSError):
                disconnect(source)
            with contextlib.suppress(OSError):
                disconnect(sink)

    def silence(self):
        """Drops all bytes from now on, like a broken network path. `heal` ends it for new connections."""
        self._silent.set()

    def heal(self):
        """New connections are relayed again. Those made before stay silent."""
        with self._lock:
            self._silent, self._pairs = threading.Event(), []

    @contextlib.contextmanager
    def cutting(self, interval):
        """Resets the connections every `interval` seconds while the context lasts; yields a list with a time for each."""
        times, done = [], threading.Event()

        def work():
            while not done.wait(interval):
                self.cut()
                times.append(time.monotonic())

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield times
        finally:
            done.set()
            thread.join()

    def cut(self, orderly=False):
        """Ends all current connections by a reset, or by an orderly shutdown. New ones are relayed again."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for end in (end for pair in pairs for end in pair):
            with contextlib.suppress(OSError):
                if orderly:
                    end.shutdown(socket.SHUT_RDWR)
                else:
                    disconnect(end)


def readable(connection, timeout):
    """Whether the socket becomes readable within `timeout` seconds."""
    return bool(select.select([connection], [], [], timeout)[0])
