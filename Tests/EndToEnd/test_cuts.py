"""Links end during transfers: no wrong bytes, no false end of stream. `test_sessions` has cuts that links survive."""

import random
import socket
import struct
import threading
import unittest

from backends import Listener
from harness import EndToEndTest, fast, long_run, wait_until
from hooks import configure
from hostile import RESET, Relay, collect
from visitors import read_exactly

MIB = 1 << 20
ROUNDS = 20 if long_run() else 2 if fast() else 3
# Each eight bytes are their own position, which reveals missing, duplicate or moved bytes.
PATTERN = b"".join(struct.pack(">Q", number) for number in range(4 * MIB // 8))


class CutTransfers(EndToEndTest):
    STREAMS = 4
    # The resume window.
    WINDOW = ""

    def setUp(self):
        super().setUp()
        self.random = random.Random(17)
        self.uploads = []
        self.changed = threading.Condition()

    def serve(self, connection):
        """Sends the pattern repeatedly, or receives it, as the first byte selects."""
        if connection.recv(1) == b"d":
            while True:
                connection.sendall(PATTERN)
        with self.changed:
            self.begun += 1
        outcome = collect(connection)
        with self.changed:
            self.uploads.append(outcome)
            self.changed.notify_all()

    def start(self):
        backend = self.stage.use(Listener(self.serve))
        self.gateway = self.stage.gateway(
            "-c", configure(self.stage, f"[limits]\nresume-window = \"{self.WINDOW}\"\n"))
        self.relay = self.stage.use(Relay(self.gateway.address))
        self.agent = self.stage.agent(self.relay.address, "-n", "example", backend.address)
        self.port = self.agent.wait_registered()

    def check(self, harm, timeout=15.0):
        """Calls `harm` during transfers in both directions, and checks how they end."""
        self.uploads.clear()
        self.begun = 0
        visitors = [socket.create_connection(("127.0.0.1", self.port), timeout) for _ in range(2 * self.STREAMS)]
        downloads, uploads = visitors[:self.STREAMS], visitors[self.STREAMS:]
        outcomes = []
        senders = [threading.Thread(target=send_pattern, args=(visitor,), daemon=True) for visitor in uploads]
        for visitor in downloads:
            visitor.sendall(b"d")
            read_exactly(visitor, len(PATTERN) // 8)
        for sender in senders:
            sender.start()
        wait_until(lambda: self.begun == self.STREAMS, "the uploads to begin")
        before = self.relay.passed
        wait_until(lambda: self.relay.passed > before + self.random.randrange(4 * MIB), "the transfers")
        harm()
        for visitor in downloads:
            outcomes.append(collect(visitor))
        for sender in senders:
            sender.join(timeout)
            self.assertFalse(sender.is_alive(), "an upload is not cut")
        with self.changed:
            self.assertTrue(self.changed.wait_for(lambda: len(self.uploads) == self.STREAMS, timeout),
                            "a backend waits for the rest of an upload")
        for visitor in visitors:
            visitor.close()
        for data, end in outcomes:
            self.assertEqual(end, RESET)
            self.assertTrue(is_pattern(data, len(PATTERN) // 8), "a download has wrong bytes")
        for data, end in self.uploads:
            self.assertEqual(end, RESET)
            self.assertTrue(is_pattern(data), "an upload has wrong bytes")


class CutPaths(CutTransfers):
    """Without a resume window a link ends with its connection, as with older agents and gateways."""

    WINDOW = "0"

    def check_rounds(self, **how):
        for number in range(ROUNDS):
            # Use a new agent every third round, because an agent waits longer after each cut.
            if number % 3 == 0:
                self.start()
            seen = len(self.agent.stdout)
            self.check(lambda: self.relay.cut(**how))
            self.port = self.agent.wait_registered(since=seen, timeout=30)

    def test_path_is_reset(self):
        self.check_rounds()

    def test_path_ends_in_order(self):
        """Like a proxy between the programs that closes the connection: a TCP FIN without GOAWAY and close_notify."""
        self.check_rounds(orderly=True)

    @unittest.skipUnless(long_run(), "takes a minute; only with --long")
    def test_path_falls_silent(self):
        """The programs can notice this only by timeouts."""
        self.start()
        self.check(self.relay.silence, timeout=90.0)


class KilledPrograms(CutTransfers):
    """The other program waits for the resume window at most, then it resets the streams."""

    WINDOW = "1s"

    def test_agent_killed(self):
        self.start()
        self.check(self.agent.kill)

    def test_gateway_killed(self):
        self.start()
        self.check(self.gateway.kill)


def send_pattern(visitor):
    try:
        visitor.sendall(b"u")
        while True:
            visitor.sendall(PATTERN)
    except OSError:
        pass


def is_pattern(data, offset=0):
    """Whether the data is a part of repeated patterns that begins at `offset`."""
    repeated = PATTERN * ((offset + len(data)) // len(PATTERN) + 1)
    return repeated[offset:offset + len(data)] == data
