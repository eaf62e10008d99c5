"""The machine-readable log, --log-format json."""

import contextlib
import os
import pty
import re
import socket
import subprocess

import backends
from administration import AgentsFile, run
from backends import Listener
from harness import free_port, program_path, wait_until
from logs import ADDRESS, JSON, REQUEST, LogTest, address_of
from visitors import get


class Lines(LogTest):
    def test_every_line_of_both_programs(self):
        """Logs of normal operation and of errors, at the most verbose level."""
        gateway = self.stage.gateway("-d", "-d", *JSON, "--listen-v1", "127.0.0.1:0")
        backend = self.stage.use(Listener(backends.answering(b"here"))).address
        agent = self.stage.agent(gateway, "-d", "-d", *JSON, "-n", f"good={backend}", "-n", f"bad=127.0.0.1:{free_port()}")
        for name in ("good", "bad"):
            port = agent.wait_registered(name)
            try:
                with socket.create_connection(("127.0.0.1", port), 10) as visitor:
                    visitor.sendall(REQUEST)
                    backends.read_all(visitor)
            except ConnectionError:
                self.assertEqual(name, "bad")
        thief = self.stage.agent(gateway, *JSON, "-n", "good", "9")
        self.assertEqual(thief.wait_exit(), 14)
        with socket.create_connection((gateway.host, gateway.port), 10) as stranger:
            stranger.sendall(b"\"\\\x1b[31m\r\n\x00 no hello")
            self.wait_entry(gateway, peer=address_of(stranger), message=re.compile("^no login from "))
        self.wait_entry(gateway, message=re.compile(r"\(refused|reset: refused"), name="bad")
        self.assertEqual(agent.stop(), 0)
        self.wait_entry(gateway, message="unregister domain 'good'")
        lonely = self.stage.agent(f"127.0.0.1:{free_port()}", "-d", *JSON, "--once", "-n", "example", "9")
        self.assertEqual(lonely.wait_exit(), 69)
        self.assertEqual(gateway.stop(), 0)
        for program, least in ((gateway, 12), (agent, 6), (thief, 1), (lonely, 2)):
            self.assertGreaterEqual(len(self.entries(program)), least)
        levels = {entry["level"] for program in (gateway, agent, thief) for entry in self.entries(program)}
        self.assertLessEqual({"debug", "info", "warning", "error"}, levels)

    def test_domains(self):
        gateway = self.stage.gateway(*JSON)
        agent = self.stage.agent(gateway, *JSON, "-n", "example", "9")
        port = agent.wait_registered()
        entry = self.wait_entry(gateway, message=f"register domain 'example' -> '{port}'")
        self.assertEqual((entry["level"], entry["name"], entry["port"]), ("info", "example", port))
        self.assertRegex(entry["agent"], "^instance-")
        entry = self.wait_entry(agent, name="example", port=port)
        self.assertEqual((entry["gateway"], entry["backend"]), (gateway.address, "localhost:9"))
        self.assertEqual(agent.stop(), 0)
        self.wait_entry(gateway, message="unregister domain 'example'", name="example", port=port)

    def test_refused_login(self):
        gateway = self.stage.gateway(*JSON)
        AgentsFile(self.stage, gateway).command("add", "web", "--names", "example")
        gateway.wait_log("read 1 agent")
        agent = self.stage.agent(gateway, *JSON, "-t", "dgl_web_wrong", "-n", "example", "9")
        self.assertEqual(agent.wait_exit(), 11)
        entry = self.wait_entry(gateway, code="login-refused")
        self.assertEqual(entry["level"], "warning")
        self.assertRegex(entry["peer"], ADDRESS)
        self.assertEqual(entry["message"].partition(" refused: ")[0], f"login from {entry['peer']}")
        last = self.entries(agent)[-1]
        self.assertEqual((last["level"], last["code"], last["exit"], last["gateway"]),
                         ("error", "login-refused", 11, gateway.address))

    def test_refused_name(self):
        gateway = self.stage.gateway(*JSON)
        invitation = AgentsFile(self.stage, gateway).add("web", "--names", "example")
        gateway.wait_log("read 1 agent")
        agent = self.stage.agent(gateway, *JSON, "-t", invitation.token, "-n", "other", "9")
        self.assertEqual(agent.wait_exit(), 13)
        entry = self.wait_entry(gateway, code="name-not-allowed")
        self.assertEqual((entry["agent"], entry["name"]), ("web", "other"))
        self.assertTrue(entry["message"].startswith(f"agent web at {entry['peer']}: "), entry)

    def test_lines_about_a_name_that_cannot_have_its_port_name_the_agent(self):
        state = self.stage.new_directory("gateway-state")
        gateway = self.stage.gateway(state=state)
        agent = self.stage.agent(gateway, "-n", "example", "9")
        port = agent.wait_registered()
        self.assertEqual(agent.stop(), 0)
        self.assertEqual(gateway.stop(), 0)
        with socket.create_server(("127.0.0.1", port)):
            gateway = self.stage.gateway(*JSON, state=state)
            self.stage.agent(gateway, "-n", "example", "9", state=agent.state).wait_registered()
        entry = self.wait_entry(gateway, message=re.compile("cannot get its previous port"))
        self.assertEqual((entry["name"], entry["port"]), ("example", port))
        self.assertIn(f"at {entry['peer']}: 'example'", entry["message"])

    def test_refused_visitor(self):
        gateway = self.stage.gateway(*JSON, "--accept-proxy-protocol", "127.0.0.1")
        tunnel = self.stage.expose("9", gateway=gateway)
        with tunnel.connect() as visitor:
            visitor.sendall(b"no header")
            entry = self.wait_entry(gateway, proxy=address_of(visitor))
        self.assertEqual(entry["name"], "example")
        self.assertNotIn("visitor", entry)
        self.assertIn("no PROXY header at the beginning", entry["message"])

    def check_complaint(self, result, code):
        self.assertEqual(result.returncode, code, result.stderr)
        lines = result.stderr.splitlines()
        self.assertTrue(lines)
        for line in lines:
            self.assertEqual(self.parse(line)["level"], "error")

    def test_what_is_wrong_with_the_settings(self):
        path = self.stage.directory / "server.toml"
        path.write_text('log-format = "json"\nexpose-ports = "many"\nunknown = 1\n')
        for arguments, code in (((*JSON, "--expose-ports", "many"), 64), (("-c", path), 78),
                                (("check", path, *JSON), 78), ((*JSON, "--state-dir", "/dev/null"), 73)):
            with self.subTest(arguments=arguments):
                self.check_complaint(run(self.stage, "diglett-server", *arguments), code)
        # `log-format` in the file is for the gateway's log, not for the output of `check`.
        self.assertIn("error: ", run(self.stage, "diglett-server", "check", path).stderr)
        path.write_text('log-format = "json"\ngateway = 1\n')
        for arguments, code in (((*JSON, "-g", "x", "-n", "example"), 64), (("-c", path), 78)):
            with self.subTest(arguments=arguments):
                self.check_complaint(run(self.stage, "diglett", *arguments), code)

    def test_unknown_format(self):
        for program, more in (("diglett-server", ()), ("diglett", ("-g", "x", "-n", "example", "9"))):
            result = run(self.stage, program, "--log-format", "xml", *more)
            self.assertEqual(result.returncode, 64, result.stderr)
            self.assertIn("option --log-format: 'xml' is neither text nor json", result.stderr)

    def test_format_of_the_file_and_of_the_command_line(self):
        path = self.stage.directory / "server.toml"
        path.write_text('log-format = "json"\n')
        self.wait_entry(self.stage.gateway("-c", path), message=re.compile("^pin sha256/"))
        gateway = self.stage.gateway("-c", path, "--log-format", "text")
        gateway.wait_log(r"^\S+Z INFO  pin sha256/\S+=$")

    def test_colours_are_for_text_on_terminals(self):
        """They mark the level in a log; errors of the command line are no log."""
        environment = self.stage.environment()
        environment.pop("NO_COLOR", None)
        path = self.stage.directory / "diglett-server.toml"
        path.write_text('expose-ports = "many"\n')
        for form, arguments, exit_code, has_colour in (
                ("text", ("-c", path), 78, True), ("json", ("-c", path), 78, False),
                ("text", ("--expose-ports", "many"), 64, False), ("json", ("--expose-ports", "many"), 64, False)):
            ours, theirs = pty.openpty()
            try:
                code = subprocess.run(
                    [program_path("diglett-server"), "--log-format", form, *arguments], stderr=theirs,
                    stdin=subprocess.DEVNULL, env=environment, timeout=30, check=False).returncode
                output = os.read(ours, 65_536).decode()
            finally:
                os.close(ours)
                os.close(theirs)
            self.assertEqual(code, exit_code)
            self.assertEqual("\x1b" in output, has_colour, output)
            if form == "json":
                self.parse(output.strip())
            elif exit_code == 64:
                self.assertTrue(output.startswith("error: option --expose-ports: "), output)

    def test_a_terminal_that_nobody_reads(self):
        """A stalled terminal does not stop a gateway that logs to it, and the gateway reports lost lines afterwards."""
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        address = f"127.0.0.1:{free_port()}"
        gateway = subprocess.Popen(
            [program_path("diglett-server"), "-l", address, *JSON, "--log-streams", "--state-dir",
             self.stage.new_directory("state")], stderr=theirs, stdin=subprocess.DEVNULL, env=self.stage.environment())
        self.addCleanup(gateway.wait)
        self.addCleanup(gateway.terminate)
        os.close(theirs)
        backend = self.stage.use(Listener(backends.answering(b"here"))).address
        port = self.stage.agent(address, "-n", "example", backend).wait_registered()
        # Ten times the terminal's buffer.
        for _ in range(200):
            self.assertEqual(get(f"http://127.0.0.1:{port}/"), b"here")
        os.set_blocking(ours, False)
        text = b""

        def told():
            nonlocal text
            with contextlib.suppress(BlockingIOError):
                while data := os.read(ours, 65_536):
                    text += data
            # Cause a line now that the terminal has room again.
            get(f"http://127.0.0.1:{port}/")
            return b'"lost":' in text and text.endswith(b"\n")

        wait_until(told, "a line that tells how many were lost", interval=0.05)
        lines = [line for line in text.decode().split("\r\n") if line]
        # At most one line is truncated, and no other line follows it on the same line.
        self.assertFalse([line for line in lines if line.count('"time"') > 1])
        self.assertLessEqual(sum(not line.endswith("}") for line in lines), 1)
        self.parse(lines[-1])

    def test_in_the_journal_the_priority_comes_before_the_object(self):
        ours, theirs = os.pipe()
        status = os.fstat(theirs)
        environment = {**self.stage.environment(), "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        try:
            subprocess.run([program_path("diglett-server"), *JSON, "--expose-ports", "many"], stderr=theirs,
                           stdin=subprocess.DEVNULL, env=environment, timeout=30, check=False)
            output = os.read(ours, 65_536).decode()
        finally:
            os.close(ours)
            os.close(theirs)
        self.assertEqual(output[:3], "<3>")
        self.assertEqual(self.parse(output[3:])["level"], "error")
