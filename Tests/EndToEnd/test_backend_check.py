"""If a backend is down when its name is registered, the agent warns at once, and otherwise continues."""

import socket
import threading

from backends import Listener, serve_echo
from harness import EndToEndTest, free_port
from visitors import read_exactly

LATER = "; visitors will be reset until it is up$"


class BackendCheckTest(EndToEndTest):
    def test_down(self):
        port = free_port()
        tunnel = self.stage.expose(port)
        tunnel.agent.wait_log(rf"WARN  localhost:{port} refuses connections{LATER}")
        with socket.create_server(("127.0.0.1", port)) as server:
            threading.Thread(target=lambda: server.accept()[0].sendall(b"up"), daemon=True).start()
            with tunnel.connect() as visitor:
                self.assertEqual(read_exactly(visitor, 2), b"up")

    def test_missing_socket(self):
        path = self.stage.directory / "missing.sock"
        tunnel = self.stage.expose(f"unix:{path}")
        tunnel.agent.wait_log(rf"WARN  unix:{path} does not exist{LATER}")

    def test_up(self):
        """The check takes no connection of the backend: the first one is the visitor's."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            tunnel = self.stage.expose(f"127.0.0.1:{server.getsockname()[1]}")
            with tunnel.connect() as visitor:
                connection, _ = server.accept()
                with connection:
                    connection.sendall(b"yours")
                    self.assertEqual(read_exactly(visitor, 5), b"yours")
        self.assertFalse(any("until it is up" in line for line in tunnel.agent.stderr))

    def test_several(self):
        """The backend that is down causes one warning, which is not repeated after a reconnect."""
        echo = self.stage.use(Listener(serve_echo))
        gateway = self.stage.gateway()
        port = free_port()
        agent = self.stage.agent(gateway, "-n", f"good={echo.address}", "-n", f"bad=127.0.0.1:{port}")
        agent.wait_registered("good")
        agent.wait_registered("bad")
        agent.wait_log(f"127.0.0.1:{port} refuses connections")
        gateway.kill()
        agent.wait_event("retrying")
        again = self.stage.gateway(state=gateway.state, listen=gateway.address)
        again.wait_registered("bad", timeout=60)
        again.wait_registered("good", timeout=60)
        self.assertEqual(sum("until it is up" in line for line in agent.stderr), 1)
