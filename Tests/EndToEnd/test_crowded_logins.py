"""Many logins from one source, while the authenticator is slow."""

import re
import socket

import backends
import v1peer
from backends import Listener
from harness import EndToEndTest, wait_until
from hooks import Hook, authenticator, configure
from version1 import SECRET, Link


class CrowdedLogins(EndToEndTest):
    """One source with many logins, and a slow hook."""

    # The gateway's limits for one source: logins that are running or queued, and hook processes.
    MOST, RUNNING = 64, 3

    # The crowd's logins wait for the switch `open`; honest logins do not.
    BODY = """
token = request.get("token", "")
while token.startswith("crowd") and not is_on("open"):
    time.sleep(0.01)
answer(**({"identity": token} if token else {}))
"""

    def log_in(self, address, number):
        """Sends a version 1 login from another address of this machine; returns the link, which stays open."""
        host, port = address.rsplit(":", 1)
        connection = socket.create_connection((host, int(port)), 15, source_address=("127.0.0.2", 0))
        self.addCleanup(connection.close)
        link = Link(connection, client=True, secret=SECRET)
        link.send(v1peer.LOGIN, 0, f"crowd{number}".encode())
        return link

    def test_source_with_many_logins(self):
        hook = Hook(self.stage, self.BODY)
        backend = self.stage.use(Listener(backends.answering(b"judged"))).address
        gateway = self.stage.gateway(
            "-c", configure(self.stage, authenticator([hook.path], timeout=9)), "--listen-v1", "127.0.0.1:0")
        address = gateway.wait_listening_v1()
        links = [self.log_in(address, number) for number in range(self.MOST + 6)]
        for link in links[self.MOST:]:
            self.assertEqual(link.receive()[0], v1peer.ERROR)
        refusals = re.compile(r"cannot authenticate the login from 127.0.0.2:\d+: too many logins are waiting")
        wait_until(lambda: len(refusals.findall(gateway.output)) >= 6, "a line for each refusal")
        self.assertEqual(len(refusals.findall(gateway.output)), 6)
        hook.wait_requests(self.RUNNING, "authenticate")
        # Another source gets a hook process, however long the others run.
        self.stage.agent(gateway, "-t", "honest", "-n", "example", backend).wait_registered()
        tokens = [request["token"] for request in hook.requests("authenticate")]
        self.assertEqual((len(tokens), tokens[-1]), (self.RUNNING + 1, "honest"))
        # After an answer there is room for another login.
        hook.switch("open")
        for link in links[:self.MOST]:
            link.expect(v1peer.OK)
        self.log_in(address, 1_000).expect(v1peer.OK)
