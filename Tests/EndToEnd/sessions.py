"""An agent that reaches its gateway through a relay, which breaks the connection."""

import socket

from harness import EndToEndTest, wait_until
from hostile import Relay


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

    def pauses(self):
        return [event["seconds"] for event in self.agent.events("resumed")]

    def check_resumed(self, cuts, least=2):
        """The link was resumed after the cuts, and did not end. A cut may also meet an attempt to connect."""
        self.assertGreaterEqual(len(cuts), least)
        wait_until(lambda: len(self.pauses()) == len(self.agent.events("interrupted")) >= least,
                   "the link to be resumed")
        self.assertEqual(self.agent.events("lost"), [])
        self.note(f"{len(cuts)} cuts, pauses {min(self.pauses()):.2f} to {max(self.pauses()):.2f} s")
