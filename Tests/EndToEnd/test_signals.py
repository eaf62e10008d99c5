"""SIGHUP, closed terminals, and programs as process 1."""

import os
import shutil
import signal
import socket
import subprocess
import unittest
from pathlib import Path

from backends import Listener, TaggingEcho, serve_echo
from harness import EndToEndTest, free_port, program_path, wait_until
from hooks import configure, registrar
from terminals import Terminal
from visitors import read_exactly


def file_text(exposes):
    lines = []
    for name, backend in exposes.items():
        lines += ["[[expose]]", f'name = "{name}"', f'backend = "{backend}"']
    return "\n".join(lines) + "\n"


class ReloadTest(EndToEndTest):
    def setUp(self):
        super().setUp()
        self.gateway = self.stage.gateway()
        self.file = self.stage.new_directory("agent") / "agent.toml"
        self.echo = self.stage.use(Listener(serve_echo))

    def write(self, **exposes):
        self.file.write_text(file_text(exposes))

    def start(self, *options, **exposes):
        self.write(**exposes)
        self.agent = self.stage.agent(self.gateway, "-c", self.file, *options)
        return {name: self.agent.wait_registered(name) for name in exposes}

    def reload(self, **exposes):
        self.write(**exposes)
        self.agent.send_signal(signal.SIGHUP)

    def says(self, port, text):
        with self.stage.use(self.visitor(port)) as visitor:
            visitor.sendall(text)
            return read_exactly(visitor, len(text)) == text

    @staticmethod
    def visitor(port):
        return socket.create_connection(("127.0.0.1", port), 15)


class Names(ReloadTest):
    def test_names_come_and_go(self):
        ports = self.start(stays=self.echo.address, goes=self.echo.address)
        with self.visitor(ports["stays"]) as visitor, self.visitor(ports["goes"]) as leaving:
            for connection in (visitor, leaving):
                connection.sendall(b"before")
                read_exactly(connection, 6)
            self.reload(stays=self.echo.address, comes=self.echo.address)
            port = self.agent.wait_registered("comes")
            self.gateway.wait_log("unregister domain 'goes'")
            self.assertTrue(self.says(port, b"hello"))
            # Streams of existing visitors continue, even those of a removed name.
            for connection in (visitor, leaving):
                connection.sendall(b"after")
                self.assertEqual(read_exactly(connection, 5), b"after")
        self.assertEqual(len(self.agent.events("connected")), 1)
        self.assertEqual(len([event for event in self.agent.events("registered") if event["name"] == "stays"]), 1)

    def test_many_names_come(self):
        """The agent prints an event for each name, although it started with one."""
        self.start(example=self.echo.address)
        self.reload(**{f"n{number}": self.echo.address for number in range(99)})
        wait_until(lambda: len(self.agent.events("registered")) == 100, "an event for each name")
        self.assertEqual(self.agent.events("omitted"), [])

    def test_another_backend(self):
        other = self.stage.use(TaggingEcho("other "))
        ports = self.start(example=self.echo.address)
        self.assertTrue(self.says(ports["example"], b"hello"))
        self.reload(example=other.address)
        self.agent.wait_log("SIGHUP: changed 'example', which now forwards to")
        with self.visitor(ports["example"]) as visitor:
            visitor.sendall(b"hello\n")
            self.assertEqual(read_exactly(visitor, 12), b"other hello\n")

    def test_another_port(self):
        self.start(example=self.echo.address)
        wanted = free_port()
        self.file.write_text(self.file.read_text() + f"public-port = {wanted}\n")
        self.agent.send_signal(signal.SIGHUP)
        wait_until(lambda: self.agent.events("registered")[-1]["port"] == wanted, "the other port")

    def test_mistake(self):
        """After an invalid change the agent continues unchanged, and the log has the file and line."""
        ports = self.start(example=self.echo.address)
        self.file.write_text("gateway = 7\n")
        self.agent.send_signal(signal.SIGHUP)
        self.agent.wait_log(r"ERROR SIGHUP: nothing was changed: .*agent.toml:1: ")
        self.assertTrue(self.says(ports["example"], b"hello"))
        self.reload(example=self.echo.address, another=self.echo.address)
        self.agent.wait_registered("another")

    def test_what_needs_a_new_start(self):
        self.start(example=self.echo.address)
        self.file.write_text('once = true\n' + self.file.read_text())
        self.agent.send_signal(signal.SIGHUP)
        self.agent.wait_log("only names are reloaded; restart the agent to apply once$")
        self.agent.wait_log("the names have not changed")

    def test_while_there_is_no_gateway(self):
        self.start(example=self.echo.address)
        self.gateway.kill()
        self.agent.wait_event("retrying")
        self.reload(another=self.echo.address)
        self.agent.wait_log("SIGHUP: added 'another'")
        self.gateway = self.stage.gateway(state=self.gateway.state, listen=f"127.0.0.1:{self.gateway.port}")
        self.agent.wait_registered("another", timeout=60)
        self.assertEqual(len([event for event in self.agent.events("registered") if event["name"] == "example"]), 1)

    def test_status_and_addresses(self):
        path = self.stage.directory / "addresses"
        ports = self.start("--url-file", path, one=self.echo.address, two=self.echo.address)
        wait_until(path.exists, "the file of addresses")
        self.reload(two=self.echo.address, three=self.echo.address)
        ports["three"] = self.agent.wait_registered("three")
        wanted = "".join(f"127.0.0.1:{ports[name]}\n" for name in ("two", "three"))
        wait_until(lambda: path.read_text() == wanted, "the new addresses")
        shown = subprocess.run(
            [program_path("diglett"), "status", "--state-dir", self.agent.state], capture_output=True, text=True,
            timeout=30, check=True).stdout
        self.assertIn("three", shown)
        self.assertNotIn("one", shown)


class Terminals(ReloadTest):
    def arguments(self):
        self.addresses = self.stage.directory / "addresses"
        return [program_path("diglett"), "-g", f"{self.gateway.host}:{self.gateway.port}", "--state-dir",
                self.stage.new_directory("state"), "--url-file", self.addresses, "-n", "example", self.echo.address]

    def test_closed_terminal(self):
        """A closed terminal stops the agent like SIGTERM: gracefully, and without leftover files."""
        with Terminal(self.arguments(), self.stage) as terminal:
            terminal.await_text("is reachable at")
            wait_until(self.addresses.exists, "the file of addresses")
            self.assertEqual(terminal.hang_up(), 0)
        self.gateway.wait_log("unregister domain 'example'")
        self.assertFalse(self.addresses.exists())

    def test_closed_terminal_of_the_gateway(self):
        arguments = [program_path("diglett-server"), "-l", "127.0.0.1:0", "--state-dir", self.stage.new_directory("s")]
        with Terminal(arguments, self.stage) as terminal:
            terminal.await_text("listening for agents")
            self.assertEqual(terminal.hang_up(), 0)

    def test_signal_at_a_terminal(self):
        with Terminal(self.arguments(), self.stage) as terminal:
            terminal.await_text("is reachable at")
            os.kill(terminal.pid, signal.SIGHUP)
            terminal.await_text("the names have not changed")

    def test_ignored_from_the_start(self):
        """SIGHUP stays ignored if it was at the start, as with nohup(1)."""
        self.write(example=self.echo.address)
        self.agent = self.stage.agent(
            self.gateway, "-c", self.file, prefix=["/bin/sh", "-c", 'trap "" HUP; exec "$@"', "sh"])
        self.agent.wait_registered("example")
        self.agent.send_signal(signal.SIGHUP)
        self.agent.send_signal(signal.SIGTERM)
        self.assertEqual(self.agent.wait_exit(), 0)
        self.assertFalse(any("SIGHUP" in line for line in self.agent.stderr))


class ProcessOne(ReloadTest):
    """In a container a program is process 1, and must reap orphans of other processes."""

    # Eight processes whose parents exit at once.
    LEAVES = "for i in 1 2 3 4 5 6 7 8; do (sh -c 'sleep 0.1 & exec true' &); done"

    def setUp(self):
        super().setUp()
        if os.geteuid() != 0 or not shutil.which("unshare"):
            raise unittest.SkipTest("making a PID namespace needs root and unshare")
        self.prefix = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "--"]

    @staticmethod
    def children(process):
        text = Path(f"/proc/{process}/task/{process}/children").read_text()
        return [int(word) for word in text.split()]

    def check_reaps(self, program):
        inner, = self.children(program.pid)

        wait_until(lambda: not self.children(inner), "the end of all that was adopted")
        os.kill(inner, signal.SIGTERM)
        self.assertEqual(program.wait_exit(), 0)

    def test_agent(self):
        done = self.stage.directory / "done"
        agent = self.stage.agent(
            self.gateway, "--exec-on-ready", f"{self.LEAVES}; touch {done}", "-n", "example", self.echo.address,
            prefix=self.prefix)
        agent.wait_registered("example")
        wait_until(done.exists, "the program of exec-on-ready")
        self.check_reaps(agent)

    def test_gateway(self):
        script = self.stage.directory / "leaves"
        script.write_text(
            f"#!/bin/sh\n{self.LEAVES} </dev/null >/dev/null 2>&1\n" + """echo '{"ok":true}'\n""")
        script.chmod(0o755)
        gateway = self.stage.gateway("-c", configure(self.stage, registrar([script])), prefix=self.prefix)
        agent = self.stage.agent(gateway, "-n", "another", self.echo.address)
        agent.wait_registered("another")
        agent.send_signal(signal.SIGTERM)
        agent.wait_exit()
        gateway.wait_log("unregister domain 'another'")
        self.check_reaps(gateway)
