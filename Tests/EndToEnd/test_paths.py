"""Paths that drop large packets: the agent notices, and sends small ones."""

import re
import signal
import subprocess
import unittest

from harness import EndToEndTest, long_run, wait_until
from hooks import configure
from namespaces import NarrowPath
from realservers import require
from visitors import sha256


class LargePacketsAreLost(EndToEndTest):
    SIZE = 300_000
    LOST = r"WARN  large packets to \S+ are lost and small ones arrive"

    def setUp(self):
        super().setUp()
        self.curl = require("curl")
        self.path = self.stage.use(NarrowPath())
        self.gateway = self.stage.gateway(
            "--auth", "open", "--expose-bind", NarrowPath.FAR_ADDRESS, listen=f"{NarrowPath.FAR_ADDRESS}:0",
            prefix=self.path.far)
        files = self.stage.new_directory("files")
        self.data = bytes(range(256)) * (self.SIZE // 256)
        (files / "large").write_bytes(self.data)
        (files / "small").write_bytes(b"small")
        backend = self.stage.start(
            "backend", [*self.path.near, "/usr/bin/python3", "-u", "-m", "http.server", "--bind", "127.0.0.1",
                        "--directory", files, "0"])
        backend_port = backend.wait_line(
            backend.stdout, re.compile(r"port (\d+)").search, "its port").group(1)
        self.agent = None
        self.backend = f"127.0.0.1:{backend_port}"

    def start(self, *options):
        self.agent = self.stage.agent(
            self.gateway, *options, "--pin", self.gateway.pin, "-n", "example", self.backend, prefix=self.path.near)
        self.port = self.agent.wait_registered("example")

    def get(self, name, seconds):
        result = subprocess.run(
            [*self.path.far, self.curl, "-sS", "-m", str(seconds),
             f"http://{NarrowPath.FAR_ADDRESS}:{self.port}/{name}"], capture_output=True, check=False)
        return result.stdout if result.returncode == 0 else None

    def segment(self):
        """The kernel's segment size of the link, in bytes; None without a link."""
        host, port = self.gateway.address.rsplit(":", 1)
        text = subprocess.run([*self.path.near, require("ss"), "-tin", "dst", host, "dport", "=", f":{port}"],
                              capture_output=True, text=True, check=True).stdout
        match = re.search(r"\bmss:(\d+)", text)
        return int(match.group(1)) if match else None

    def test_setting(self):
        for options in (["--link-mss", "1200"], ["-c", configure(self.stage, "link-mss = 1200\n")]):
            with self.subTest(options[0]):
                self.start(*options)
                # 1,200 without 12 bytes of timestamps.
                self.assertEqual(self.segment(), 1_188)
                self.assertEqual(sha256(self.get("large", 20) or b""), sha256(self.data))
                self.agent.stop()

    def test_values(self):
        for value in ("535", "8961", "x"):
            with self.subTest(value):
                agent = self.stage.agent(self.gateway, "--link-mss", value, "-n", "example", "9",
                                         prefix=self.path.near)
                self.assertEqual(agent.wait_exit(), 64)
                self.assertIn(f"'{value}' is not a number from 536 to 8960", agent.output)

    @unittest.skipUnless(long_run(), "takes a minute; only with --long")
    def test_found_out(self):
        self.start()
        self.assertEqual(self.get("small", 10), b"small")
        seen = len(self.agent.stdout)
        self.assertIsNone(self.get("large", 90))
        self.agent.wait_log(self.LOST, timeout=60)
        self.port = self.agent.wait_registered("example", since=seen, timeout=60)
        self.assertEqual(self.segment(), 1_188)
        self.assertEqual(sha256(self.get("large", 20) or b""), sha256(self.data))

    @unittest.skipUnless(long_run(), "takes a minute; only with --long")
    def test_gateway_that_stops_answering(self):
        """A link that dies without unsent bytes does not cause small segments."""
        self.start()
        self.gateway.send_signal(signal.SIGSTOP)
        self.agent.wait_event("lost", timeout=90)
        self.gateway.send_signal(signal.SIGCONT)
        wait_until(lambda: self.segment() == 1_448, "the next link", timeout=60)
        self.assertNotRegex(self.agent.output, self.LOST)
