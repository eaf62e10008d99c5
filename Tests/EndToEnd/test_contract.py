"""The first run, verbatim from the manual."""

import functools
import unittest

from harness import EndToEndTest, Gateway, Program, hold_port, listens, program_path, wait_until
from realservers import python_http_server
from visitors import get

GATEWAY_PORT = 20000
BACKEND_PORT = 9000


class Contract(EndToEndTest):
    """The only tests with fixed ports, which are part of the contract."""

    def setUp(self):
        super().setUp()
        for port in (GATEWAY_PORT, BACKEND_PORT):
            # Another test run holds them only for a few seconds.
            lock = wait_until(functools.partial(hold_port, port), f"port {port}", timeout=60, interval=0.2)
            self.addCleanup(lock.close)
            if listens(port):
                raise unittest.SkipTest(f"port {port} is taken by another program")

    def command(self, line, kind=Program, cwd=None):
        """Starts a command line of the manual."""
        program, *arguments = line.split()
        return self.stage.start(program, [program_path(program), *arguments], kind, cwd=cwd)

    def test_first_run(self):
        files = self.stage.new_directory("files")
        (files / "greeting.txt").write_text("hello from below\n")

        gateway = self.command("diglett-server -d", Gateway)
        gateway.wait_listening()
        python_http_server(self.stage, BACKEND_PORT, files, bind="::")
        agent = self.command("diglett -d -g localhost:20000 -n example -d localhost:9000")

        port = gateway.wait_registered("example")
        self.assertIn(b"greeting.txt", get(f"localhost:{port}"))
        self.assertEqual(get(f"localhost:{port}/greeting.txt"), b"hello from below\n")

        self.assertEqual(agent.stop(), 0)
        gateway.wait_unregistered("example")
        self.assertEqual(gateway.stop(), 0)

    def test_default_listeners_and_log_format(self):
        """Both address families by default; time and level before each message."""
        gateway = self.command("diglett-server", Gateway).wait_listening()
        gateway.wait_log(r"listening for agents on 0\.0\.0\.0:20000\b")
        gateway.wait_log(r"listening for agents on \[::\]:20000\b")
        self.command("diglett -g localhost -n example 9000")

        gateway.wait_registered("example")
        line = next(line for line in gateway.stderr if "register domain" in line)
        self.assertRegex(line, r"(?i)^\S*\d\d:\d\d:\d\d.*\binfo\b.*register domain 'example' -> '\d+'$",
                         "time and level must stand at the line's beginning")
        self.assertNotRegex("\n".join(gateway.stderr), r"(?i)\bdebug\b",
                            "debug messages without -d")
