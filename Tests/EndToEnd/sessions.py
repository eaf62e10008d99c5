"""An agent that reaches its gateway through a relay, which breaks the connection."""

import socket
from contextlib import contextmanager

from harness import EndToEndTest, wait_until
from hostile import Relay
from visitors import read_exactly


class SessionTest(EndToEndTest):
    """An agent that reaches its gateway through a relay."""

    def start(self, backend, *options, batch=0.0, gateway=(), name="example"):
        self.gateway = self.stage.gateway("-d", *gateway)
        self.relay = self.stage.use(Relay(self.gateway.address, batch))
        self.agent = self.stage.agent(self.relay.address, "-d", *options, "-n", name, str(backend))
        self.port = self.agent.wait_registered(name)
        self.url = f"http://127.0.0.1:{self.port}"

    def connect(self, timeout=30.0):
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    @contextmanager
    def open_stream(self, timeout=30.0):
        """A visitor with a stream to an echo server."""
        with self.connect(timeout) as visitor:
            visitor.sendall(b"hello")
            self.assertEqual(read_exactly(visitor, 5), b"hello")
            yield visitor

    def lose(self):
        """The connection breaks, and new ones are swallowed."""
        self.relay.silence()
        self.relay.cut()
        self.agent.wait_event("interrupted")

    def pauses(self):
        return [event["seconds"] for event in self.agent.events("resumed")]

    def check_resumed(self, cuts, least=2):
        """The link was resumed after the cuts, and did not end. A cut may also meet an attempt to connect."""
        self.assertGreaterEqual(len(cuts), least)
        wait_until(lambda: len(self.pauses()) == len(self.agent.events("interrupted")) >= least,
                   "the link to be resumed")
        self.assertEqual(self.agent.events("lost"), [])
        self.note(f"{len(cuts)} cuts, pauses {min(self.pauses()):.2f} to {max(self.pauses()):.2f} s")
