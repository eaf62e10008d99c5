"""The log for programs (--log-format json), and a line for each stream (--log-streams)."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import backends
import version1
from administration import AgentsFile, run
from backends import Listener
from harness import REPOSITORY, EndToEndTest, free_port, program_path, wait_until
from visitors import read_exactly

JSON = ("--log-format", "json")
STREAMS = (*JSON, "--log-streams")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
ADDRESS = re.compile(r"127\.0\.0\.1:\d+")
LEVELS = {"trace", "debug", "info", "warning", "error"}
REQUEST = b"GET / HTTP/1.0\r\nHost: example\r\n\r\n"
MIB = 1 << 20


def documented_fields():
    """The names of docs/operations.md, with the types that their values have."""
    text = (REPOSITORY / "docs" / "operations.md").read_text()
    rows = re.search(r"<!-- fields -->\n((?:\|.*\n)+)", text).group(1)
    found = re.findall(r"(?m)^\| (`.*?`) \| (text|number) \|", rows)
    return {name: {"text": str, "number": (int, float)}[kind]
            for names, kind in found for name in re.findall(r"`([^`]+)`", names)}


def address_of(connection):
    return "{}:{}".format(*connection.getsockname()[:2])


class LogTest(EndToEndTest):
    FIELDS = documented_fields()

    def parse(self, line):
        """A line as an object, which must have what is documented and nothing else."""
        try:
            entry = json.loads(line, object_pairs_hook=self.object_of)
        except ValueError:
            self.fail(f"no JSON: {line!r}")
        self.assertLessEqual({"time", "level", "message"}, entry.keys(), line)
        self.assertRegex(entry["time"], TIME)
        self.assertIn(entry["level"], LEVELS)
        for name, value in entry.items():
            self.assertIn(name, self.FIELDS, line)
            self.assertIsInstance(value, self.FIELDS[name], line)
            self.assertNotIsInstance(value, bool, line)
        self.assertLess(len(line.encode()), 4096)
        return entry

    def object_of(self, pairs):
        names = [name for name, _ in pairs]
        self.assertEqual(len(names), len(set(names)), f"a name twice: {names}")
        return dict(pairs)

    def entries(self, program, **wanted):
        """All lines of the log so far that have these values."""
        entries = [self.parse(line) for line in list(program.stderr)]
        return [entry for entry in entries if wanted.items() <= entry.items()]

    def wait_entry(self, program, **wanted):
        """Waits for a line with these values; one that is a pattern is searched."""
        def match(line):
            entry = self.parse(line)
            for name, value in wanted.items():
                given = entry.get(name)
                if not (value.search(str(given)) if hasattr(value, "search") else value == given):
                    return None
            return entry

        return program.wait_line(program.stderr, match, f"a line of the log with {wanted}")


class Lines(LogTest):
    def test_every_line_of_both_programs(self):
        """All that is said in a long life, with its nasty moments, at the most talkative level."""
        gateway = self.stage.gateway("-d", "-d", *JSON, "--listen-v1", "127.0.0.1:0")
        backend = self.stage.use(Listener(backends.answering(b"here"))).address
        agent = self.stage.agent(gateway, "-d", "-d", *JSON, "-n", f"good={backend}", "-n", f"bad=127.0.0.1:{free_port()}")
        for name in ("good", "bad"):
            port = agent.wait_registered(name)
            with socket.create_connection(("127.0.0.1", port), 10) as visitor:
                try:
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
        gateway.wait_log("read 1 agents")
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
        gateway.wait_log("read 1 agents")
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
        entry = self.wait_entry(gateway, message=re.compile("cannot have its port"))
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
        self.assertIn("it does not begin with a PROXY header", entry["message"])

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
        # The file is about the gateway's log, and who checks it is no gateway.
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
        environment = self.stage.environment()
        environment.pop("NO_COLOR", None)
        for form, has_colour in (("text", True), ("json", False)):
            ours, theirs = pty.openpty()
            try:
                code = subprocess.run(
                    [program_path("diglett-server"), "--log-format", form, "--expose-ports", "many"], stderr=theirs,
                    stdin=subprocess.DEVNULL, env=environment, timeout=30, check=False).returncode
                output = os.read(ours, 65_536).decode()
            finally:
                os.close(ours)
                os.close(theirs)
            self.assertEqual(code, 64)
            self.assertEqual("\x1b" in output, has_colour, output)
            if not has_colour:
                self.parse(output.strip())

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


class Streams(LogTest):
    def start(self, backend, *options, gateway=STREAMS, agent=STREAMS):
        return self.stage.expose(
            backend, *agent, gateway=self.stage.gateway(*gateway, *options))

    def wait_record(self, program, **wanted):
        """The record of the one stream; it has all that a record always has."""
        record = self.wait_entry(program, event="stream", **wanted)
        self.assertEqual(record["level"], "info")
        self.assertEqual(record["name"], "example")
        self.assertGreaterEqual(record["duration-ms"], record.get("first-byte-ms", 0))
        self.assertEqual("first-byte-ms" in record, record["bytes-to-visitor"] > 0)
        return record

    def check_counts(self, record, sent, received):
        self.assertEqual((record["bytes-to-backend"], record["bytes-to-visitor"]), (sent, received))

    def check_end(self, record, reason, side):
        self.assertEqual((record["reason"], record["ended-by"]), (reason, side), record)
        self.assertEqual("error" in record, reason == "socket-error")

    def test_finished_download(self):
        backend = self.stage.use(Listener(backends.answering(os.urandom(5 * MIB)))).address
        tunnel = self.start(backend)
        with tunnel.connect() as visitor:
            began = time.monotonic()
            visitor.sendall(REQUEST)
            received = len(backends.read_all(visitor))
            source = address_of(visitor)
        at_gateway = self.wait_record(tunnel.gateway)
        took = (time.monotonic() - began) * 1000
        at_agent = self.wait_record(tunnel.agent)
        for record in (at_gateway, at_agent):
            self.check_counts(record, len(REQUEST), received)
            self.check_end(record, "finished", "backend")
            self.assertEqual(record["visitor"], source)
            self.assertGreater(record["first-byte-ms"], 0)
            # The connection was there a moment before the clock was read.
            self.assertLess(record["duration-ms"], took + 1000)
        self.assertRegex(at_gateway["agent"], "^instance-")
        self.assertRegex(at_gateway["peer"], ADDRESS)
        self.assertEqual((at_agent["backend"], at_agent["gateway"]), (backend, tunnel.gateway.address))
        self.assertNotIn("proxy", at_gateway)

    def test_upload_and_the_time_of_the_first_byte(self):
        """The answer begins 200 ms after the last byte of the request."""
        def serve(connection):
            read_exactly(connection, 3 * MIB)
            time.sleep(0.2)
            connection.sendall(b"thanks")

        tunnel = self.start(self.stage.use(Listener(serve)).address)
        with tunnel.connect() as visitor:
            visitor.sendall(os.urandom(3 * MIB))
            self.assertEqual(backends.read_all(visitor), b"thanks")
        for program in (tunnel.gateway, tunnel.agent):
            record = self.wait_record(program)
            self.check_counts(record, 3 * MIB, 6)
            self.assertGreaterEqual(record["first-byte-ms"], 200)

    def test_half_close(self):
        """The visitor has ended when the answer begins, so it is the visitor who began the end."""
        tunnel = self.start(self.stage.use(Listener(backends.answering_after_end(b"late"))).address)
        with tunnel.connect() as visitor:
            visitor.sendall(REQUEST)
            visitor.shutdown(socket.SHUT_WR)
            received = len(backends.read_all(visitor))
        for program in (tunnel.gateway, tunnel.agent):
            record = self.wait_record(program)
            self.check_counts(record, len(REQUEST), received)
            self.check_end(record, "finished", "visitor")

    def test_visitor_breaks_off(self):
        began = threading.Event()

        def serve(connection):
            read_exactly(connection, 1000)
            began.set()
            backends.read_all(connection)

        tunnel = self.start(self.stage.use(Listener(serve)).address)
        visitor = tunnel.connect()
        visitor.sendall(b"x" * 1000)
        self.assertTrue(began.wait(10))
        backends.reset_on_close(visitor)
        visitor.close()
        record = self.wait_record(tunnel.gateway)
        self.check_counts(record, 1000, 0)
        self.check_end(record, "socket-error", "visitor")
        self.assertIn("reset", record["error"])
        record = self.wait_record(tunnel.agent)
        self.check_counts(record, 1000, 0)
        self.check_end(record, "aborted", "visitor")

    def test_backend_breaks_off(self):
        def serve(connection):
            backends.read_head(connection)
            connection.sendall(b"y" * 10)
            # What was said is on its way before the reset.
            connection.recv(1)
            backends.reset_on_close(connection)

        tunnel = self.start(self.stage.use(Listener(serve)).address)
        with tunnel.connect() as visitor:
            visitor.sendall(REQUEST)
            read_exactly(visitor, 10)
            visitor.sendall(b"z")
            with self.assertRaises(ConnectionResetError):
                visitor.recv(1)
        for program, reason in ((tunnel.gateway, "aborted"), (tunnel.agent, "socket-error")):
            record = self.wait_record(program)
            self.check_counts(record, len(REQUEST) + 1, 10)
            self.check_end(record, reason, "backend")

    def test_backend_refused(self):
        tunnel = self.start(f"127.0.0.1:{free_port()}")
        with tunnel.connect() as visitor, self.assertRaises(ConnectionResetError):
            visitor.recv(1)
        for program in (tunnel.gateway, tunnel.agent):
            record = self.wait_record(program)
            self.check_counts(record, 0, 0)
            self.check_end(record, "refused", "backend")

    def endless_download(self):
        script = Path(__file__).with_name("endless_download.py")
        backend = self.stage.start("backend", [sys.executable, script, "close"])
        tunnel = self.start(f"127.0.0.1:{backend.wait_line(backend.stdout, str.strip, 'its port')}")
        visitor = self.stage.use(tunnel.connect())
        visitor.sendall(REQUEST)
        read_exactly(visitor, MIB)
        return tunnel, visitor

    def test_agent_killed(self):
        tunnel, _ = self.endless_download()
        tunnel.agent.kill()
        record = self.wait_record(tunnel.gateway)
        self.check_end(record, "dead", "agent")
        self.assertEqual(record["bytes-to-backend"], len(REQUEST))
        self.assertGreaterEqual(record["bytes-to-visitor"], MIB)

    def test_gateway_killed(self):
        tunnel, _ = self.endless_download()
        tunnel.gateway.kill()
        self.check_end(self.wait_record(tunnel.agent), "dead", "gateway")

    def test_gateway_cuts(self):
        """A second signal does not wait for the streams."""
        tunnel, _ = self.endless_download()
        tunnel.gateway.send_signal(signal.SIGTERM)
        self.wait_entry(tunnel.gateway, message=re.compile("^stopping when 1 streams"))
        self.assertEqual(tunnel.gateway.stop(), 0)
        self.check_end(self.wait_record(tunnel.gateway), "dead", "gateway")
        self.check_end(self.wait_record(tunnel.agent), "dead", "gateway")

    def test_through_a_proxy(self):
        backend = self.stage.use(Listener(backends.answering(b"here"))).address
        tunnel = self.start(backend, "--accept-proxy-protocol", "127.0.0.1")
        with tunnel.connect() as proxy:
            proxy.sendall(b"PROXY TCP4 203.0.113.7 203.0.113.8 4711 80\r\n" + REQUEST)
            received = len(backends.read_all(proxy))
            source = address_of(proxy)
        record = self.wait_record(tunnel.gateway)
        self.check_counts(record, len(REQUEST), received)
        self.assertEqual((record["visitor"], record["proxy"]), ("203.0.113.7:4711", source))
        self.assertEqual(self.wait_record(tunnel.agent)["visitor"], "203.0.113.7:4711")

    def test_through_a_unix_socket(self):
        """Nobody knows who comes there."""
        sockets = self.stage.directory / "names"
        backend = self.stage.use(Listener(backends.answering(b"here"))).address
        tunnel = self.start(backend, "--expose-sockets", sockets, "--expose-ports", "none")
        with socket.socket(socket.AF_UNIX) as visitor:
            visitor.settimeout(10)
            visitor.connect(str(sockets / "example.sock"))
            visitor.sendall(REQUEST)
            received = len(backends.read_all(visitor))
        for program in (tunnel.gateway, tunnel.agent):
            record = self.wait_record(program)
            self.check_counts(record, len(REQUEST), received)
            self.assertNotIn("visitor", record)
        self.assertEqual(self.wait_record(tunnel.gateway)["proxy"], "the unix socket")
        status = run(self.stage, "diglett-server", "--state-dir", tunnel.gateway.state, "ctl", "status", "--output", "json")
        self.assertEqual(json.loads(status.stdout)["visitors"], 0, "a place was not given back")

    def test_proxy_header_to_the_backend_does_not_count(self):
        def serve(connection):
            read_exactly(connection, len(b"PROXY TCP4 ") + 1)
            connection.sendall(backends.read_all(connection)[-5:])

        backend = self.stage.use(Listener(serve)).address
        tunnel = self.start(backend, agent=(*STREAMS, "--proxy-protocol", "v1"))
        with tunnel.connect() as visitor:
            visitor.sendall(b"hello")
            visitor.shutdown(socket.SHUT_WR)
            self.assertEqual(backends.read_all(visitor), b"hello")
        self.check_counts(self.wait_record(tunnel.agent), 5, 5)

    def test_version_1(self):
        backend = self.stage.use(Listener(backends.answering(os.urandom(MIB)))).address
        gateway = version1.own_gateway(self.stage, *STREAMS)
        agent = version1.own_agent(self.stage, gateway.address_v1, backend, *STREAMS)
        agent.wait_event("registered")
        port = self.wait_entry(gateway, message=re.compile("^register domain 'example'"))["port"]
        with socket.create_connection(("127.0.0.1", port), 10) as visitor:
            visitor.sendall(REQUEST)
            received = len(backends.read_all(visitor))
            source = address_of(visitor)
        record = self.wait_record(gateway)
        self.check_counts(record, len(REQUEST), received)
        self.check_end(record, "finished", "backend")
        self.assertEqual(record["visitor"], source)
        self.assertRegex(record["agent"], "^version1-")
        record = self.wait_record(agent)
        self.check_counts(record, len(REQUEST), received)
        self.check_end(record, "finished", "backend")
        self.assertNotIn("visitor", record, "version 1 does not tell it")

    def test_are_all_there_however_many_there_are(self):
        """Where other lines about visitors are left out when there are too many."""
        count = 60
        tunnel = self.start(f"127.0.0.1:{free_port()}")
        for _ in range(count):
            with tunnel.connect() as visitor, self.assertRaises(ConnectionResetError):
                visitor.recv(1)
        for program in (tunnel.gateway, tunnel.agent):
            records = wait_until(
                lambda program=program: len(self.entries(program, event="stream")) >= count and
                self.entries(program, event="stream"), f"{count} records of the {program.label}")
            self.assertEqual(len(records), count)
            self.assertEqual(len({record["visitor"] for record in records}), count)

    def test_as_text(self):
        backend = self.stage.use(Listener(backends.answering(b"here"))).address
        switch = ("--log-streams",)
        tunnel = self.start(backend, gateway=switch, agent=switch)
        tunnel.gateway.wait_registered("example")
        with tunnel.connect() as visitor:
            visitor.sendall(REQUEST)
            received = len(backends.read_all(visitor))
            source = address_of(visitor)
        end = (rf"visitor {source}; finished by the backend after [\d.]+ ms; {len(REQUEST)} bytes to the backend, "
               rf"{received} to the visitor, the first after [\d.]+ ms$")
        tunnel.gateway.wait_log(rf"^\S+Z INFO  stream of 'example' by instance-\w+: {end}")
        tunnel.agent.wait_log(rf"^\S+Z INFO  stream of 'example' to {backend}: {end}")

    def test_by_the_file(self):
        server = self.stage.directory / "server.toml"
        server.write_text('log-format = "json"\nlog-streams = true\n')
        backend = self.stage.use(Listener(backends.answering(b"here"))).address
        tunnel = self.start(backend, gateway=("-c", server), agent=("-c", self.agent_file()))
        with tunnel.connect() as visitor:
            visitor.sendall(REQUEST)
            backends.read_all(visitor)
        self.wait_record(tunnel.gateway)
        self.wait_record(tunnel.agent)

    def agent_file(self):
        path = self.stage.directory / "agent.toml"
        path.write_text('log-format = "json"\nlog-streams = true\n')
        return path

    def test_none_without_the_switch(self):
        backend = self.stage.use(Listener(backends.answering(b"here"))).address
        without = ("-d", *JSON)
        tunnel = self.start(backend, gateway=without, agent=without)
        with tunnel.connect() as visitor:
            visitor.sendall(REQUEST)
            backends.read_all(visitor)
            done = {"visitor": address_of(visitor), "message": re.compile(" done$")}
        for program in (tunnel.gateway, tunnel.agent):
            self.wait_entry(program, name="example", **done)
            self.assertEqual(self.entries(program, event="stream"), [])
