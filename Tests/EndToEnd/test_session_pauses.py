"""How long visitors wait when the network drops everything, or when the agent's machine changes networks."""

import re
import struct
import threading
import time
import unittest

from backends import Listener, serve_echo, write_random_file
from harness import EndToEndTest, wait_until
from namespaces import Roaming
from realservers import require
from sessions import SessionTest
from visitors import file_sha256, read_exactly

# The tests measure times.
ALONE = True

MIB = 1 << 20


class Positions:
    """Checks that a connection delivers 0, 1, 2, ... as eight bytes each."""

    def __init__(self, connection):
        self.connection = connection
        self.count = 0
        self.rest = b""

    def receive(self):
        """Receives more; returns False at the end of the connection, and from the first wrong number on."""
        data = self.connection.recv(1 << 16)
        self.rest += data
        whole = len(self.rest) // 8 * 8
        for (number,) in struct.iter_unpack(">Q", self.rest[:whole]):
            if number != self.count:
                return False
            self.count += 1
        self.rest = self.rest[whole:]
        return bool(data)

    def read(self, seconds):
        """Receives for a while; returns how many numbers arrived, or 0 if the connection ended or one was wrong."""
        deadline, before = time.monotonic() + seconds, self.count
        while time.monotonic() < deadline:
            if not self.receive():
                return 0
        return self.count - before


class Detection(SessionTest):
    """The network drops everything silently."""

    # With traffic, and while idle; and the time of a new connection on a busy machine.
    TRAFFIC, IDLE, MARGIN = 6.0, 16.0, 1.5

    def swallow(self):
        """The present connection goes silent, and new ones work. Returns the seconds until the link is resumed."""
        began = time.monotonic()
        self.relay.silence()
        self.relay.heal()
        self.agent.wait_event("resumed", timeout=30)
        seconds = time.monotonic() - began
        self.assertEqual(self.agent.events("lost"), [])
        self.note(f"{seconds:.1f} s")
        return seconds

    def sending(self, connection):
        """Sends each position as eight bytes, until the connection ends."""
        with connection:
            number = 0
            while True:
                connection.sendall(b"".join(struct.pack(">Q", n) for n in range(number, number + 1_000)))
                number += 1_000

    def test_during_a_download(self):
        self.start(self.stage.use(Listener(self.sending)).address, batch=0.01)
        with self.connect() as visitor:
            positions = Positions(visitor)
            positions.read(0.5)
            reader = threading.Thread(target=positions.read, args=(9,), daemon=True)
            reader.start()
            self.assertLess(self.swallow(), self.TRAFFIC + self.MARGIN)
            reader.join(20)
            self.assertGreater(positions.read(0.5), 0, "the download does not continue")

    def test_during_an_upload(self):
        received = threading.Event()
        after = threading.Event()

        def receive(connection):
            positions = Positions(connection)
            while positions.receive():
                received.set()
                if self.agent.events("resumed"):
                    after.set()

        self.start(self.stage.use(Listener(receive)).address, batch=0.01)
        visitor = self.connect()
        threading.Thread(target=self.send_until_reset, args=(visitor,), daemon=True).start()
        self.assertTrue(received.wait(15))
        self.assertLess(self.swallow(), self.TRAFFIC + self.MARGIN)
        self.assertTrue(after.wait(15), "the upload does not continue")
        visitor.close()

    def send_until_reset(self, visitor):
        try:
            self.sending(visitor)
        except OSError:
            pass

    def test_while_idle(self):
        self.start(self.stage.use(Listener(serve_echo)).address)
        with self.open_stream() as visitor:
            # The PING after this exchange has been answered.
            time.sleep(3)
            self.assertLess(self.swallow(), self.IDLE + self.MARGIN)
            visitor.sendall(b"again")
            self.assertEqual(read_exactly(visitor, 5), b"again")

    def test_a_slow_link_that_moves_is_left_alone(self):
        self.start(self.stage.use(Listener(self.sending)).address, batch=0.3)
        with self.connect() as visitor:
            self.assertGreater(Positions(visitor).read(8), 0)
        self.assertEqual(self.agent.events("interrupted"), [])
        self.assertEqual(self.agent.events("resumed"), [])


class Moves(EndToEndTest):
    """The agent's machine changes its network during a download."""

    SIZE = 24 * MIB
    LONGEST_SECONDS = 3.0
    AWAY_SECONDS = 2

    def setUp(self):
        super().setUp()
        self.curl = require("curl")
        self.hosts = self.stage.use(Roaming())
        self.gateway = self.stage.gateway(
            "-d", "--auth", "open", listen=f"{Roaming.FAR_ADDRESS}:0", prefix=self.hosts.far)
        self.file = self.stage.new_directory("files") / "file"
        write_random_file(self.file, self.SIZE)
        backend = self.stage.start(
            "backend", [*self.hosts.near, "/usr/bin/python3", "-u", "-m", "http.server", "--bind", "127.0.0.1",
                        "--directory", self.file.parent, "0"])
        port = backend.wait_line(backend.stdout, re.compile(r"port (\d+)").search, "its port").group(1)
        self.agent = self.stage.agent(
            self.gateway, "-d", "--pin", self.gateway.pin, "-n", "example", f"127.0.0.1:{port}",
            prefix=self.hosts.near)
        self.agent.wait_registered()

    def check(self, change, away=0):
        port = self.gateway.wait_registered("example")
        target = self.stage.directory / "download"
        visitor = self.stage.start("curl", [
            *self.hosts.far, self.curl, "-sS", "--limit-rate", "6M", "--max-time", "60", "-o", target,
            f"http://127.0.0.1:{port}/file"])
        wait_until(lambda: target.exists() and target.stat().st_size > MIB, "the download to be under way")
        change()
        self.agent.wait_event("resumed")
        self.assertEqual(visitor.wait_exit(60), 0)
        self.assertEqual(file_sha256(target), file_sha256(self.file))
        pauses = [event["seconds"] for event in self.agent.events("resumed")]
        self.note(f"pauses of {pauses} s")
        self.assertLess(max(pauses), self.LONGEST_SECONDS + away)
        self.assertEqual(self.agent.events("lost"), [])

    def test_to_another_interface(self):
        def change():
            self.hosts.lose_cable(1)
            self.hosts.use_cable(2)

        self.check(change)

    def test_to_another_interface_after_two_seconds_without_any(self):
        def change():
            self.hosts.lose_cable(1)
            time.sleep(self.AWAY_SECONDS)
            self.hosts.use_cable(2)

        self.check(change, self.AWAY_SECONDS)

    def test_to_another_address(self):
        self.check(lambda: self.hosts.change_address(1))


if __name__ == "__main__":
    unittest.main()
