"""The agents file, which lists agents and their names: its commands, and changes at run time."""

import json
import re
import signal
import socket
import statistics
import subprocess
import time
import unittest
from datetime import datetime, timedelta, timezone
from pathlib import Path

import backends
from administration import WITHDRAWN_SECONDS, AgentsFile, AgentsTest, SteadyDownload, agent_key, run
from backends import Listener
from harness import PIN, REPOSITORY, EndToEndTest, fast, free_port, wait_until
from realservers import is_closed, require
from visitors import at_once, get, read_exactly

PIN_OF_ZEROS = "sha256/" + "A" * 43 + "="
STAMP = "%Y-%m-%dT%H:%M:%SZ"
FILTER = REPOSITORY / "scripts" / "fail2ban" / "diglett-server.conf"


class Tokens(AgentsTest):
    def test_token_as_argument_file_and_line(self):
        agents = self.start()
        made = agents.add("web", "--names", "app-*")
        self.agents.read_now()
        self.assertEqual(made.output.count(made.token), 2, "once by itself, once in the line")
        self.check_reachable(self.connect(made.token, "-n", "app-1", self.backend), "app-1")

        file = self.stage.directory / "token"
        file.write_text(made.token + "\n")
        file.chmod(0o600)
        agent = self.stage.agent(self.gateway, "--token-file", file, "-n", "app-2", self.backend)
        self.check_reachable(agent, "app-2")

        # The address in the printed command line, with another name and backend.
        self.assertEqual(made.arguments[0], "-g")
        self.assertEqual(made.arguments[2:], ["-n", "app-1", "localhost:9000"])
        agent = self.stage.agent(made.arguments[1], "-n", "app-3", self.backend)
        self.check_reachable(agent, "app-3")
        self.assertFalse((agent.state / "known_gateways").exists(), "the line's pin was not needed")

    def test_file_has_hashes_only_and_is_private(self):
        agents = self.start()
        made = agents.add("web", "--names", "app-*", "--v1")
        rotated = agents.rotate("web", "--v1")
        for token in (made.token, made.version1_token, rotated.token, rotated.version1_token):
            secret = token.split("_", 2)[2]
            self.assertGreaterEqual(len(secret), 43, "256 bits")
            for file in filter(Path.is_file, self.gateway.state.iterdir()):
                self.assertNotIn(secret.encode(), file.read_bytes(), f"{file} contains the token")
            self.assertNotIn(secret, self.gateway.output)
        self.assertEqual(agents.path.stat().st_mode & 0o777, 0o600)
        self.assertRegex(agents.text(), r'(?m)^token = "sha256:[0-9a-f]{64}"$')
        self.assertEqual(len(set(re.findall(r"sha256:\w{64}", agents.text()))), 2)

    def test_wrong_tokens_are_all_alike(self):
        """Neither the message nor the timing reveals how close a guess was."""
        agents = self.start()
        web = agents.add("web", "--names", "app-*").token
        other = agents.add("other", "--names", "other").token
        self.agents.read_now()
        secret = web.split("_", 2)[2]
        cases = {
            "wrong secret": web[:-5] + ("AAAAA" if web[-5:] != "AAAAA" else "BBBBB"),
            "unknown agent": f"dgl_nobody_{secret}",
            "another agent's secret": f"dgl_other_{secret}",
            "no token": "hello",
        }
        times = {case: [] for case in cases}
        messages = set()
        for _ in range(3 if fast() else 10):
            for case, token in cases.items():
                began = time.monotonic()
                agent = self.connect(token, "-n", "app-1", self.backend)
                event = self.check_refused(agent, "login-refused", 11)
                times[case].append(time.monotonic() - began)
                # The agent itself adds that a text is not a token of diglett.
                messages.add(event["message"].partition(": the token is not a complete token")[0])
                self.assertNotIn(secret, self.gateway.output)
        self.assertEqual(len(messages), 1, messages)
        medians = [statistics.median(each) for each in times.values()]
        self.assertLess(max(medians) - min(medians), 0.25, times)
        self.assertNotIn(secret, self.gateway.output)
        self.assertRegex(self.gateway.output, r"login from 127\.0\.0\.1:\d+ refused: a wrong token for 'web'")
        self.check_reachable(self.connect(other, "-n", "other", self.backend), "other")

    def test_no_token(self):
        agents = self.start()
        agents.add("web", "--names", "app-*")
        self.agents.read_now()
        self.check_refused(self.stage.agent(self.gateway, "-n", "app-1", "9"), "login-refused", 11)

    def test_name_outside_the_patterns(self):
        agents = self.start()
        token = agents.add("web", "--names", "app-*", "--names", "api,site").token
        agents.add("other", "--names", "b*")
        self.agents.read_now()
        for name in ("b", "ap", "xapp-1", "apis"):
            with self.subTest(name=name):
                agent = self.connect(token, "-n", name, self.backend)
                self.check_refused(agent, "name-refused", 13, name)
        agent = self.connect(token, *(word for name in ("app-1", "api", "site")
                                      for word in ("-n", f"{name}={self.backend}")))
        for name in ("app-1", "api", "site"):
            self.check_reachable(agent, name)

    def test_ports(self):
        low = free_port(5)
        agents = self.start()
        token = agents.add("web", "--names", "app-*", "--ports", f"{low}-{low + 3}").token
        self.agents.read_now()
        outside = self.connect(token, "--public-port", str(low + 4), "-n", "app-1", self.backend)
        self.check_refused(outside, "port-refused", 18, "port")
        wished = self.connect(token, "--public-port", str(low + 2), "-n", "app-2", self.backend)
        self.assertEqual(self.check_reachable(wished, "app-2"), low + 2)
        given = self.connect(token, "-n", "app-3", self.backend)
        self.assertIn(self.check_reachable(given, "app-3"), range(low, low + 4))

    def test_ports_of_the_system_are_not_given_unasked(self):
        agents = self.start()
        token = agents.add("web", "--names", "app-*", "--ports", "85-86").token
        agents.read_now()
        for wish in ((), ("--public-port", "85")):
            agent = self.connect(token, *wish, "-n", "app-1", self.backend)
            self.check_refused(agent, "port-refused", 18, "port")

    def test_limits(self):
        agents = self.start()
        token = agents.add("web", "--names", "app-*").token
        agents.set("web", "max-links = 1\nmax-names = 2\nmax-streams = 3")
        agents.read_now()
        too_many = self.connect(token, *(word for number in range(3) for word in ("-n", f"app-{number}=9")))
        self.assertIn("2", too_many.wait_event("missing", name="app-2", code="too-many-names")["message"])
        for name in ("app-0", "app-1"):
            too_many.wait_registered(name)
        too_many.stop()
        for name in ("app-0", "app-1"):
            self.gateway.wait_unregistered(name)
        echo = self.stage.use(Listener(backends.serve_echo))
        agent = self.connect(token, "-n", "app-1", echo.address)
        port = agent.wait_registered("app-1")
        second = self.connect(token, "-n", "app-2", echo.address)
        self.gateway.wait_log("link of web at .* refused: the agent has 1 links already")
        second.wait_event("retrying")

        visitors = [self.use_visitor(port) for _ in range(3)]
        for visitor in visitors:
            visitor.sendall(b"x")
            self.assertEqual(read_exactly(visitor, 1), b"x")
        with self.assertRaises((ConnectionResetError, BrokenPipeError)):
            one_too_many = self.use_visitor(port)
            one_too_many.sendall(b"x")
            one_too_many.recv(1)
        visitors[0].close()

        def admitted():
            try:
                visitor = self.use_visitor(port)
                visitor.sendall(b"y")
                return visitor.recv(1) == b"y"
            except OSError:
                return False

        wait_until(admitted, "room for a visitor after one has left")

    def test_lowered_limits(self):
        """Lowering a limit removes excess links and names, newest first; running streams continue."""
        agents = self.start()
        token = agents.add("web", "--names", "app-*").token
        other = agents.add("other", "--names", "other").token
        agents.set("web", "max-links = 2\nmax-names = 4\nmax-streams = 3")
        agents.read_now()
        echo = self.stage.use(Listener(backends.serve_echo))
        neighbour = self.connect(other, "-n", "other", echo.address)
        neighbour.wait_registered("other")
        first = self.connect(token, "-n", f"app-1={echo.address}")
        port = first.wait_registered("app-1")
        second = self.connect(token, "-n", f"app-2={echo.address}")
        second.wait_registered("app-2")
        visitors = [self.use_visitor(port) for _ in range(2)]

        def check_visitors():
            for visitor in visitors:
                visitor.sendall(b"x")
                self.assertEqual(read_exactly(visitor, 1), b"x")

        check_visitors()
        text = agents.text()
        agents.write(text.replace("max-names = 4", "max-names = 1"))
        self.assertEqual(second.wait_event("missing", name="app-2")["code"], "too-many-names")
        self.gateway.wait_log("'app-2' was withdrawn: its agent may now have at most 1 names")
        agents.write(text.replace("max-links = 2", "max-links = 1").replace("max-streams = 3", "max-streams = 1"))
        self.assertIn("too-many-links", second.wait_event("lost")["reason"])
        check_visitors()
        with self.assertRaises((ConnectionResetError, BrokenPipeError)):
            one_too_many = self.use_visitor(port)
            one_too_many.sendall(b"x")
            one_too_many.recv(1)
        check_visitors()
        self.assertEqual(first.events("missing") + first.events("lost"), [])
        self.assertEqual(neighbour.events("missing") + neighbour.events("lost"), [])

    def use_visitor(self, port):
        return self.stage.use(socket.create_connection(("127.0.0.1", port), 10))

    def test_expiry_as_it_is_typed(self):
        agents = self.start()
        now = datetime.now(timezone.utc)
        for number, (text, days) in enumerate((("90d", 90), ("12h", 0.5), ("30m", 30 / 1440))):
            agents.add(f"span-{number}", "--names", f"span-{number}", "--expires", text)
            expires = datetime.strptime(self.listed(f"span-{number}")["expires"], STAMP)
            distance = expires.replace(tzinfo=timezone.utc) - now - timedelta(days=days)
            self.assertLess(abs(distance.total_seconds()), 5)
        agents.add("day", "--names", "day", "--expires", "2099-02-21")
        self.assertEqual(self.listed("day")["expires"], "2099-02-21T00:00:00Z")
        for text in ("soon", "90", "-1d", "2027-02-31", "1w", ""):
            with self.subTest(text=text):
                result = agents.try_command("add", "bad", "--names", "bad", f"--expires={text}")
                self.assertEqual(result.returncode, 64)
                self.assertIn("--expires", result.stderr)
        self.assertIsNone(self.listed("bad"))

    def listed(self, name):
        agents = json.loads(self.agents.command("list", "--output", "json"))["agents"]
        return next((agent for agent in agents if agent["name"] == name), None)

    def test_list(self):
        agents = self.start()
        self.assertIn("no agents", agents.command("list"))
        made = agents.add("web", "--names", "app-*", "--ports", "30000-30010", "--v1")
        agents.set("web", "disabled = true")
        self.assertEqual(self.listed("web"), {
            "name": "web", "names": ["app-*"], "ports": ["30000-30010"], "pins": [], "token": True,
            "v1-token": True, "disabled": True, "expired": False})
        text = agents.command("list")
        self.assertRegex(text, r"web .*token.*app-\*.*30000-30010.*disabled")
        for output in (text, agents.command("list", "--output", "json")):
            self.assertNotIn(made.token.split("_", 2)[2], output)
            self.assertNotIn(re.search(r"sha256:(\w+)", agents.text()).group(1), output)

    def test_agents_file_at_another_place(self):
        """An option or the configuration sets the path, for the gateway and for the commands."""
        path = self.stage.new_directory("etc") / "who.toml"
        configuration = self.stage.directory / "gateway.toml"
        state = self.stage.new_directory("gateway-state")
        configuration.write_text(f'agents-file = "{path}"\nstate-dir = "{state}"\nlisten = "127.0.0.1:0"\n')
        result = run(self.stage, "diglett-server", "agent", "add", "web", "--names", "app-*",
                     "--host", "gateway.test", "-c", configuration)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertTrue(path.exists())
        self.assertTrue(result.stdout.startswith(f"added agent 'web' to {path}\n"), result.stdout)
        self.gateway = self.stage.gateway("--agents-file", path, state=state)
        self.assertIn(f"@gateway.test:20000#{self.gateway.pin}'", result.stdout)
        token = re.search(r"dgl_web_[\w-]+", result.stdout).group(0)
        self.check_reachable(self.connect(token, "-n", "app-1", self.backend), "app-1")
        result = run(self.stage, "diglett-server", "agent", "list", "--agents-file", path, "--state-dir", state)
        self.assertIn("web", result.stdout)

    def test_first_agent(self):
        """Adding the first agent ends access without a login; the printed address has the gateway's port."""
        self.gateway = self.stage.gateway()
        local = self.stage.agent(self.gateway, "-n", "app", self.backend)
        self.check_reachable(local, "app")
        result = run(self.stage, "diglett-server", "agent", "add", "web", "--names", "web", "--host", "gateway.test",
                     "-l", "127.0.0.1:20123", "--state-dir", self.gateway.state)
        self.assertIn("from now on the gateway accepts only agents in this file, also from this machine", result.stdout)
        self.assertIn("@gateway.test:20123#", result.stdout)
        self.check_refused(local, "login-refused", 11)
        self.gateway.wait_log("is a local agent without a login, and .*agents.toml exists now")
        again = self.stage.agent(self.gateway, "-n", "app", self.backend)
        self.check_refused(again, "login-refused", 11, "no token was given: pass --token-file FILE, -t TOKEN or DIGLETT_TOKEN")
        result = run(self.stage, "diglett-server", "agent", "add", "two", "--names", "two", "--state-dir",
                     self.gateway.state)
        self.assertNotIn("from now on", result.stdout)

    def test_bad_commands_change_nothing(self):
        agents = self.start()
        agents.add("web", "--names", "app-*")
        before = agents.text()
        cases = [
            (64, ("add", "Bad_Name", "--names", "x"), "letters"),
            (64, ("add", "new"), "--names"),
            (64, ("add", "new", "--names", "b*d!"), "b*d!"),
            (64, ("add", "new", "--names", "x", "--ports", "9-1"), "9-1"),
            (64, ("add", "new", "--names", "x", "--expires", "2020-01-01"), "'2020-01-01' is in the past"),
            (64, ("add", "new", "--names", "x", "--pin", "sha256/short"), "sha256/short"),
            (64, ("add", "new", "--names", "x", "--pin", PIN_OF_ZEROS, "--v1"), "leave out --v1 or --pin"),
            (78, ("add", "web", "--names", "x"), "rotate"),
            (78, ("add", "new", "--names", "*-1"), "app-*"),
            *((64, command, "no agent 'nobody' in ") for command in (
                ("remove", "nobody"), ("rotate", "nobody"), ("pin", "nobody", PIN_OF_ZEROS))),
            (64, ("pin", "web", "sha256/short"), "argument PIN: 'sha256/short' is not a pin: the part after 'sha256/' must have 44 characters, it has 5; copy all of it"),
            *((64, ("add", "new", "--names", "x", f"--host={host}"), "'" + host + "' is not a gateway address")
              for host in ("h:0", "x@evil#y", "a'b", "a/b", "-h", "[::1", "::1")),
            (64, ("rotate", "web", "--host", "h:0"), "'h:0'"),
            *((64, ("rotate", "web", f"--grace={span}"), f"option --grace: '{span}' is not a duration")
              for span in ("0s", "-1h", "24", "2099-01-01", "99999999d")),
        ]
        for code, arguments, word in cases:
            with self.subTest(arguments=arguments):
                result = agents.try_command(*arguments)
                self.assertEqual(result.returncode, code, result.stderr)
                self.assertIn(word, result.stderr)
                self.assertEqual(result.stdout, "")
                self.assertEqual(agents.text(), before)


class Keys(AgentsTest):
    """An agent with a key needs no token."""

    def test_pin_of_diglett_key(self):
        state = self.stage.new_directory("agent-state")
        first = run(self.stage, "diglett", "key", "--state-dir", state)
        self.assertEqual(first.returncode, 0, first.stderr)
        self.assertRegex(first.stdout, rf"^{PIN}\n$")
        second = run(self.stage, "diglett", "key", "--state-dir", state)
        self.assertEqual(second.stdout, first.stdout, "the key stays")
        agents = self.start()
        agents.add("web", "--names", "app-*", "--pin", first.stdout.strip())
        self.agents.read_now()
        agent = self.stage.agent(self.gateway, "-n", "app-1", self.backend, state=state)
        self.check_reachable(agent, "app-1")

    def test_pin_instead_of_a_token(self):
        agents = self.start()
        state = self.stage.new_directory("agent-state")
        pin = agent_key(state)
        made = agents.add("web", "--names", "app-*", "--pin", pin)
        self.assertIsNone(made.token, "a key needs no token")
        self.assertNotIn("token", agents.text())
        self.agents.read_now()
        agent = self.stage.agent(self.gateway, "-n", "app-1", self.backend, state=state)
        self.check_reachable(agent, "app-1")
        self.gateway.wait_log("register domain 'app-1'")

        stranger = self.stage.new_directory("agent-state")
        agent_key(stranger)
        agent = self.stage.agent(self.gateway, "-n", "app-2", self.backend, state=stranger)
        self.check_refused(agent, "login-refused", 11)

    def test_pin_beside_a_token(self):
        agents = self.start()
        token = agents.add("web", "--names", "app-*").token
        state = self.stage.new_directory("agent-state")
        pin = agent_key(state)
        agents.command("pin", "web", pin)
        agents.command("pin", "web", pin)
        self.assertEqual(agents.text().count(pin), 1)
        agents.read_now()
        with_key = self.stage.agent(self.gateway, "-n", "app-1", self.backend, state=state)
        self.check_reachable(with_key, "app-1")
        with_token = self.connect(token, "-n", "app-2", self.backend)
        self.check_reachable(with_token, "app-2")

        # Removing the key ends the link with the key, but not the one with the token.
        since = time.monotonic()
        agents.edit(f'pins = ["{pin}"]\n', "")
        self.check_refused(with_key, "login-refused", 11)
        self.assertLess(time.monotonic() - since, WITHDRAWN_SECONDS)
        self.check_reachable(with_token, "app-2")


class Version1Tokens(AgentsTest):
    def test_each_version_has_its_own(self):
        agents = self.start("--listen-v1", "127.0.0.1:0")
        address = self.gateway.wait_listening_v1()
        made = agents.add("web", "--names", "app-*", "--v1")
        self.assertTrue(made.version1_token)
        self.agents.read_now()
        self.connect(made.version1_token, "--v1", "-n", "app-1", self.backend, gateway=address)
        port = self.gateway.wait_registered("app-1")
        self.assertEqual(get(f"http://127.0.0.1:{port}/"), b"behind the agent")
        self.check_reachable(self.connect(made.token, "-n", "app-2", self.backend), "app-2")

        crossed = self.connect(made.version1_token, "-n", "app-3", self.backend)
        self.check_refused(crossed, "login-refused", 11)
        since = len(self.gateway.stderr)
        crossed = self.connect(made.token, "--v1", "-n", "app-4", self.backend, gateway=address)
        self.check_refused(crossed, "login-refused", 11)
        self.gateway.wait_log(r"login from 127\.0\.0\.1:\d+ refused: ", since=since)
        self.assertNotIn("register domain 'app-4'", self.gateway.output)

    def test_patterns_and_removal_hold_for_version_1(self):
        agents = self.start("--listen-v1", "127.0.0.1:0")
        address = self.gateway.wait_listening_v1()
        token = agents.add("web", "--names", "app-*", "--v1").version1_token
        self.agents.read_now()
        outside = self.connect(token, "--v1", "-n", "other", self.backend, gateway=address)
        self.gateway.wait_log("name 'other' refused")
        self.assertNotEqual(outside.wait_exit(), 0)
        self.connect(token, "--v1", "-n", "app-1", self.backend, gateway=address)
        port = self.gateway.wait_registered("app-1")
        since = time.monotonic()
        agents.command("remove", "web")
        wait_until(lambda: is_closed(port), "the name to be gone")
        self.assertLess(time.monotonic() - since, WITHDRAWN_SECONDS)
        self.gateway.wait_unregistered("app-1")

    def test_removal_and_rotation_of_a_v1_token(self):
        agents = self.start("--listen-v1", "127.0.0.1:0")
        address = self.gateway.wait_listening_v1()
        made = agents.add("web", "--names", "app-*", "--v1")
        self.agents.read_now()
        self.connect(made.version1_token, "--v1", "-n", "app-1", self.backend, gateway=address)
        port = self.gateway.wait_registered("app-1")
        since = time.monotonic()
        rotated = agents.rotate("web")
        self.assertTrue(rotated.version1_token, "an agent that had a v1 token gets a new one")
        wait_until(lambda: is_closed(port), "the name to be gone")
        self.assertLess(time.monotonic() - since, WITHDRAWN_SECONDS)


class BecomingClosed(AgentsTest):
    def test_open_until_there_is_a_file(self):
        agents = self.start()
        guest = self.stage.agent(self.gateway, "-n", "guest", self.backend)
        port = self.check_reachable(guest, "guest")
        since = time.monotonic()
        token = agents.add("web", "--names", "app-*").token
        self.check_refused(guest, "login-refused", 11)
        self.assertLess(time.monotonic() - since, WITHDRAWN_SECONDS)
        wait_until(lambda: is_closed(port), "the name to be gone")
        again = self.stage.agent(self.gateway, "-n", "guest", self.backend, state=guest.state)
        self.check_refused(again, "login-refused", 11)
        self.check_reachable(self.connect(token, "-n", "app-1", self.backend), "app-1")

    def test_removed_file_does_not_open_the_gateway(self):
        agents = self.start()
        token = agents.add("web", "--names", "app-*").token
        self.agents.read_now()
        agent = self.connect(token, "-n", "app-1", self.backend)
        self.check_reachable(agent, "app-1")
        agents.path.unlink()
        self.gateway.wait_log(rf"{re.escape(str(agents.path))}: .*no such file")
        guest = self.stage.agent(self.gateway, "-n", "guest", self.backend)
        self.check_refused(guest, "login-refused", 11)
        self.check_reachable(agent, "app-1")

    def test_file_that_is_demanded_must_be_there(self):
        gateway = self.stage.gateway("--auth", "file", ready=False)
        self.assertEqual(gateway.wait_exit(), 78)
        self.assertIn("agents.toml", gateway.output)

    def test_file_that_cannot_be_reached_does_not_open_the_gateway(self):
        """The file is not missing: the symbolic link may point to a disk that is not mounted yet."""
        state = self.stage.new_directory("gateway-state")
        path = state / "agents.toml"
        path.symlink_to("/nonexistent/agents.toml")
        gateway = self.stage.gateway(state=state, ready=False)
        self.assertEqual(gateway.wait_exit(), 78)
        self.assertIn(f"{path}: cannot be read: no such file", gateway.output)
        for command in (("agent", "list"), ("check",)):
            result = run(self.stage, "diglett-server", *command, "--state-dir", state)
            self.assertEqual(result.returncode, 78, result.stdout)
            self.assertIn(f"{path}: cannot be read: no such file", result.stderr)


class ManyAgents(AgentsTest):
    """A gateway with thousands of agents, whose file changes often."""

    def test_reloads(self):
        count, rounds = 3_000, 20
        state = self.stage.new_directory("gateway-state")
        file = state / "agents.toml"
        file.write_text("".join(
            f'[[agent]]\nname = "a{n}"\ntoken = "sha256:{n:064x}"\nnames = ["a{n}-*", "b{n}"]\n' for n in range(count)))
        file.chmod(0o600)
        gateway = self.stage.gateway(state=state)
        before = None
        for number in range(rounds):
            seen = len(gateway.stderr)
            gateway.send_signal(signal.SIGHUP)
            gateway.wait_log(f"read {count} agents", since=seen)
            # By the fifth reload the allocator has reached its final size.
            if number == 4:
                before = gateway.resident_kib()
        grown = gateway.resident_kib() - before
        self.note(f"{count} agents, {rounds - 5} reloads: grown by {grown} KiB")
        self.assertLess(grown, 2_000)


class Withdrawal(AgentsTest):
    """Links and names that lose their right are closed within a second; all others continue."""

    def setUp(self):
        super().setUp()
        self.start()
        other = self.agents.add("other", "--names", "other").token
        self.agents.read_now()
        self.slowest = 0.0

        def expose(address):
            self.other = self.connect(other, "-n", "other", address)
            return self.other.wait_registered("other")

        self.download = SteadyDownload(self.stage, expose)
        self.echo = self.stage.use(Listener(backends.serve_echo))

    def let_in(self, name, *options):
        """Adds and connects an agent; returns it and a visitor with a running stream."""
        made = self.agents.add(name, "--names", f"{name}-*", *options)
        self.agents.read_now()
        agent = self.connect(made.token, "-n", f"{name}-1", self.echo.address)
        return agent, self.visit(agent.wait_registered(f"{name}-1"))

    def visit(self, port):
        visitor = self.stage.use(socket.create_connection(("127.0.0.1", port), 10))
        visitor.sendall(b"hello")
        self.assertEqual(read_exactly(visitor, 5), b"hello")
        return visitor

    def check_cut(self, visitor, since):
        """Checks that the visitor's stream is cut in time, too."""
        visitor.settimeout(max(0.1, since + WITHDRAWN_SECONDS - time.monotonic()))
        try:
            self.assertEqual(visitor.recv(1), b"")
        except ConnectionResetError:
            pass
        except TimeoutError:
            self.fail("a visitor's stream goes on over a name to which the right is gone")

    def check_runs(self, visitor):
        visitor.sendall(b"still")
        self.assertEqual(read_exactly(visitor, 5), b"still")

    def measure(self, since):
        elapsed = time.monotonic() - since
        self.slowest = max(self.slowest, elapsed)
        self.assertLess(elapsed, WITHDRAWN_SECONDS)

    def check_others_are_unharmed(self):
        self.download.check()
        self.assertEqual(self.other.events("lost"), [])
        self.assertEqual(len(self.other.events("registered")), 1)
        self.note(f"slowest {self.slowest:.2f} s, pause {self.download.longest_pause:.2f} s")

    def check_revoked(self, name, change, *options, words=""):
        """Checks that the whole link ends when `change(name)` revokes the agent's right."""
        agent, visitor = self.let_in(name, *options)
        port = agent.wait_registered(f"{name}-1")
        change(name)
        since = time.monotonic()
        event = agent.wait_event("refused")
        self.measure(since)
        self.assertEqual((event["code"], event["exit"], agent.wait_exit()), ("login-refused", 11, 11))
        self.check_cut(visitor, since)
        wait_until(lambda: is_closed(port), "the name to be gone")
        self.measure(since)
        self.gateway.wait_log(rf"agent {name} at \S+: access revoked: .*{words}")
        self.gateway.wait_unregistered(f"{name}-1")

    def test_remove_rotate_disable_and_expire(self):
        self.check_revoked("gone", lambda name: self.agents.command("remove", name), words="no longer in")
        self.check_revoked("rotated", lambda name: self.agents.rotate(name), words="used a token or key that was removed")
        self.check_revoked("off", lambda name: self.agents.set(name, "disabled = true"), words="disabled")
        self.check_revoked("past", lambda name: self.agents.set(name, 'expires = "2020-01-01"'), words="expired")
        self.check_others_are_unharmed()

    def test_agent_that_does_not_listen(self):
        """An agent that has lost its right cannot keep its name by not responding."""
        agent, visitor = self.let_in("silent")
        port = agent.wait_registered("silent-1")
        agent.send_signal(signal.SIGSTOP)
        since = time.monotonic()
        self.agents.command("remove", "silent")
        self.check_cut(visitor, since)
        wait_until(lambda: is_closed(port), "the name to be gone")
        self.measure(since)
        self.gateway.wait_unregistered("silent-1")
        self.check_others_are_unharmed()

    def test_expiry_while_it_runs(self):
        began = time.time()
        agent, visitor = self.let_in("brief", "--expires", "3s")
        text = re.search(r'expires = "(.*)"', self.agents.text()).group(1)
        expires = datetime.strptime(text, STAMP).replace(tzinfo=timezone.utc).timestamp()
        self.assertLess(abs(expires - began - 3), 1.5)
        self.check_runs(visitor)
        event = agent.wait_event("refused")
        late = time.time() - expires
        self.assertGreaterEqual(late, 0)
        self.assertLess(late, WITHDRAWN_SECONDS)
        self.assertEqual((event["exit"], agent.wait_exit()), (11, 11))
        self.check_cut(visitor, time.monotonic())
        self.gateway.wait_log("the agent 'brief' has expired")
        self.check_others_are_unharmed()

    def test_changed_names(self):
        """Revoking one name does not affect the agent's other names."""
        token = self.agents.add("web", "--names", "keep-*,go-*").token
        self.agents.read_now()
        agent = self.connect(token, "-n", f"keep-1={self.echo.address}", "-n", f"go-1={self.echo.address}")
        keep, gone = agent.wait_registered("keep-1"), agent.wait_registered("go-1")
        kept_visitor, cut_visitor = self.visit(keep), self.visit(gone)
        since = time.monotonic()
        self.agents.edit('"keep-*", "go-*"', '"keep-*"')
        event = agent.wait_event("missing", name="go-1")
        self.measure(since)
        self.assertEqual(event["code"], "revoked")
        self.assertTrue(is_closed(gone))
        self.check_runs(kept_visitor)
        self.check_runs(self.visit(keep))
        self.assertEqual(agent.events("lost"), [])
        self.assertEqual([event["name"] for event in agent.events("missing")], ["go-1"])
        self.check_others_are_unharmed()
        self.check_cut(cut_visitor, since)

    def test_changed_ports(self):
        low = free_port(2)
        token = self.agents.add("web", "--names", "app-*", "--ports", str(low)).token
        self.agents.read_now()
        agent = self.connect(token, "-n", "app-1", self.echo.address)
        self.assertEqual(agent.wait_registered("app-1"), low)
        visitor = self.visit(low)
        since = time.monotonic()
        self.agents.edit(f'ports = ["{low}"]', f'ports = ["{low + 1}"]')
        self.assertEqual(agent.wait_event("missing", name="app-1")["code"], "port-not-allowed")
        self.measure(since)
        self.assertTrue(is_closed(low))
        self.check_others_are_unharmed()
        self.check_cut(visitor, since)

    @unittest.skipIf(fast(), "an agent asks again after half a minute")
    def test_name_that_is_given_back(self):
        """When the right is restored, the running agent registers the name again."""
        token = self.agents.add("web", "--names", "keep-*,go-*").token
        self.agents.read_now()
        agent = self.connect(token, "-n", f"keep-1={self.echo.address}", "-n", f"go-1={self.echo.address}")
        agent.wait_registered("go-1")
        before = self.agents.text()
        self.agents.edit('"keep-*", "go-*"', '"keep-*"')
        agent.wait_event("missing", name="go-1")
        self.agents.write(before)
        since = len(agent.stdout)
        agent.wait_registered("go-1", timeout=40, since=since)

    def test_changes_that_take_nothing_away(self):
        agent, visitor = self.let_in("web")
        mark = len(self.gateway.stderr)
        self.agents.set("web", 'max-streams = 5\nports = []\nexpires = "2099-01-01"')
        self.agents.wait_read(mark)
        mark = len(self.gateway.stderr)
        self.agents.add("third", "--names", "third")
        self.agents.wait_read(mark)
        self.check_runs(visitor)
        self.assertEqual([event["event"] for event in agent.events()], ["connected", "registered"])
        self.check_others_are_unharmed()


class BrokenFile(AgentsTest):
    def broken(self, good):
        """Cases of broken files: {case: (content, regex of the log message after the line number)}."""
        pin = PIN_OF_ZEROS
        return {
            "syntax": (good + "\n[[agent]\n", ""),
            "unknown key": (good + 'colour = "red"\n', "unknown key 'colour'"),
            "overlap": (good + '\n[[agent]]\nname = "second"\nnames = ["app-2*"]\n', r"'app-2\*' of 'second' overlaps"),
            "bad pattern": (good.replace('"app-*"', '"app_*"'), "'app_\\*'"),
            "two with one name": (good + '\n[[agent]]\nname = "web"\n', "'web' is already defined at"),
            "token instead of its hash": (re.sub('"sha256:.*"', '"dgl_web_secret"', good), "not a token hash"),
            "bad pin": (good + 'pins = ["sha256/x"]\n', "not a pin"),
            "bad date": (good + 'expires = "2027-02-31"\n', "not a date"),
            "bad number": (good + 'max-names = 0\n', "max-names"),
            "wrong type": (good + 'disabled = "yes"\n', "disabled"),
            "pin of two": (good + f'pins = ["{pin}"]\n\n[[agent]]\nname = "s"\npins = ["{pin}"]\n', "belongs to 'web'"),
        }

    def test_changes_nothing_and_is_named(self):
        agents = self.start()
        token = agents.add("web", "--names", "app-*").token
        self.agents.read_now()
        agent = self.connect(token, "-n", "app-1", self.backend)
        self.check_reachable(agent, "app-1")
        good = agents.text()
        place = re.escape(str(agents.path))
        for case, (text, words) in self.broken(good).items():
            with self.subTest(case=case):
                mark = len(self.gateway.stderr)
                agents.write(text)
                if case not in ("syntax", "overlap"):
                    # The gateway must notice the other two cases by polling.
                    self.gateway.send_signal(signal.SIGHUP)
                self.gateway.wait_log(rf"ERROR.*{place}:\d+: .*{words}", since=mark, timeout=3)
                self.gateway.wait_log("the agents remain unchanged until this is fixed", since=mark)
                self.assertNotIn("dgl_web_secret", self.gateway.output)
        # All rights are unchanged.
        self.check_reachable(agent, "app-1")
        self.check_reachable(self.connect(token, "-n", "app-2", self.backend), "app-2")
        self.assertEqual([event["event"] for event in agent.events()], ["connected", "registered"])
        # A valid file, with a change that shows that it is in effect.
        mark = len(self.gateway.stderr)
        agents.write(good.replace('"app-*"', '"app-1"'))
        agents.wait_read(mark)
        outside = self.connect(token, "-n", "app-3", self.backend)
        self.check_refused(outside, "name-refused", 13)

    def test_mode(self):
        """If other users can read the hashes, the file is rejected until its mode is changed."""
        agents = self.start()
        agents.add("web", "--names", "app-*")
        self.agents.read_now()
        mark = len(self.gateway.stderr)
        agents.path.chmod(0o644)
        self.gateway.wait_log(rf"{re.escape(str(agents.path))}: .*chmod 600", since=mark, timeout=3)
        result = agents.try_command("list")
        self.assertEqual(result.returncode, 78)
        self.assertIn("chmod 600", result.stderr)
        mark = len(self.gateway.stderr)
        agents.path.chmod(0o600)
        agents.wait_read(mark)

    def test_at_the_start(self):
        state = self.stage.new_directory("gateway-state")
        agents = AgentsFile(self.stage, state=state)
        agents.write('[[agent]]\nname = "web"\nnames = ["b!"]\ncolour = "red"\n')
        gateway = self.stage.gateway(state=state, ready=False)
        self.assertEqual(gateway.wait_exit(), 78)
        self.assertIn(f"{agents.path}:3: ", gateway.output)
        self.assertIn(f"{agents.path}:4: ", gateway.output)

    def test_sighup_reads_at_once(self):
        agents = self.start()
        token = agents.add("web", "--names", "app-*").token
        self.agents.read_now()
        agent = self.connect(token, "-n", "app-1", self.backend)
        self.check_reachable(agent, "app-1")
        agents.set("web", "disabled = true")
        since = time.monotonic()
        self.gateway.send_signal(signal.SIGHUP)
        agent.wait_event("refused")
        self.note(f"{time.monotonic() - since:.2f} s")
        self.gateway.wait_log("SIGHUP")
        self.assertTrue(self.gateway.running)
        # SIGHUP also works if nothing has changed, and if the file is broken.
        mark = len(self.gateway.stderr)
        self.gateway.send_signal(signal.SIGHUP)
        agents.wait_read(mark)
        mark = len(self.gateway.stderr)
        agents.write("[[agent]\n")
        self.gateway.send_signal(signal.SIGHUP)
        self.gateway.wait_log("the agents remain unchanged until this is fixed", since=mark)
        self.assertTrue(self.gateway.running)

    def test_sighup_at_an_open_gateway(self):
        self.start()
        agent = self.stage.agent(self.gateway, "-n", "guest", self.backend)
        self.check_reachable(agent, "guest")
        self.gateway.send_signal(signal.SIGHUP)
        self.gateway.wait_log("SIGHUP")
        self.check_reachable(agent, "guest")
        self.assertEqual(agent.events("lost"), [])


class Editing(AgentsTest):
    def test_twenty_at_once(self):
        state = self.stage.new_directory("gateway-state")
        agents = AgentsFile(self.stage, state=state)
        made = at_once(20, lambda number: agents.add(f"agent-{number}", "--names", f"name-{number}"))
        listed = json.loads(agents.command("list", "--output", "json"))["agents"]
        self.assertEqual(sorted(agent["name"] for agent in listed),
                         sorted(f"agent-{number}" for number in range(20)))
        self.assertEqual(len({each.token for each in made}), 20)
        lines = {each.arguments[1].rsplit("#", 1)[1] for each in made}
        self.assertEqual(len(lines), 1, "all of them made the gateway's key at once: it must be one")
        self.gateway = self.stage.gateway(state=state)
        self.assertEqual(lines, {self.gateway.pin})
        self.check_reachable(self.connect(made[13].token, "-n", "name-13", self.backend), "name-13")

    def test_at_once_with_all_commands(self):
        state = self.stage.new_directory("gateway-state")
        agents = AgentsFile(self.stage, state=state)
        for number in range(5):
            agents.add(f"old-{number}", "--names", f"old-{number}")

        def work(number):
            kind, index = number % 3, number // 3
            if kind == 0:
                agents.add(f"new-{index}", "--names", f"new-{index}")
            elif kind == 1:
                agents.rotate(f"old-{index}")
            elif index % 2:
                agents.command("list")
            else:
                agents.command("pin", f"old-{index}", "sha256/" + str(index) * 42 + "A=")

        at_once(15, work)
        listed = {agent["name"]: agent for agent in json.loads(agents.command("list", "--output", "json"))["agents"]}
        self.assertEqual(sorted(listed), sorted(f"{kind}-{index}" for kind in ("new", "old") for index in range(5)))
        self.assertEqual([len(listed[f"old-{index}"]["pins"]) for index in range(5)], [1, 0, 1, 0, 1])

    def test_comments_and_order_survive(self):
        agents = self.start()
        agents.add("first", "--names", "a")
        agents.add("second", "--names", "b")
        agents.add("third", "--names", "c")
        text = agents.text()
        text = "# Ours.\n" + text.replace(
            '[[agent]]\nname = "second"\n',
            '# The second one,\n# asked for by Anna.\n[[agent]]\n# Its name:\nname = "second" # two\n'
            'max-names = 3   # enough\n')
        text = text.replace('names = ["b"]', 'names = [\n  "b", # the main one\n  "b2",\n]') + "\n# The end.\n"
        agents.write(text)
        agents.rotate("second")
        agents.command("pin", "second", PIN_OF_ZEROS)
        agents.rotate("third")
        agents.add("fourth", "--names", "d")
        agents.command("remove", "first")
        after = agents.text()
        for line in ("# Ours.", "# The second one,", "# asked for by Anna.", "# Its name:", 'name = "second" # two',
                     "max-names = 3   # enough", '  "b", # the main one', "# The end."):
            self.assertIn(line + "\n", after)
        self.assertNotIn("first", after)
        names = re.findall(r'(?m)^name = "(\w+)"', after)
        self.assertEqual(names, ["second", "third", "fourth"])
        anna = after.index("asked for by Anna.\n[[agent]]\n# Its name:\n")
        self.assertLess(anna, after.index('name = "third"'))
        self.assertIn("names", json.loads(agents.command("list", "--output", "json"))["agents"][0])

    def test_removed_agent_takes_its_own_comment_only(self):
        agents = self.start()
        agents.write('# About one.\n[[agent]]\nname = "one"\nnames = ["a"]\n\n'
                     '# About two.\n[[agent]]\nname = "two"\nnames = ["b"]\n')
        agents.command("remove", "one")
        self.assertIn('# About two.\n[[agent]]\nname = "two"\n', agents.text())
        agents.command("remove", "two")
        self.assertNotIn("[[agent]]", agents.text())
        self.assertIn("no agents", agents.command("list"))


class Check(AgentsTest):
    def check(self, configuration, *options):
        """Runs `diglett-server check` on a configuration; returns (exit code, output)."""
        file = self.stage.directory / "gateway.toml"
        file.write_text(configuration)
        before = self.snapshot()
        result = run(self.stage, "diglett-server", "check", file, *options)
        self.assertEqual(self.snapshot(), before, "something was made or changed")
        return result.returncode, result.stdout + result.stderr

    def snapshot(self):
        return {path: path.lstat().st_mtime_ns for path in self.stage.directory.rglob("*")}

    def test_several_mistakes_at_once(self):
        code, output = self.check(
            f'state-dir = "{self.stage.directory}/not-there"\n'
            'listen = "nonsense:port"\n'
            'expose-ports = "9-1"\n'
            'colour = "red"\n'
            '[[registrar]]\n'
            'kind = "nginx"\n'
            'domain = "gateway.test"\n'
            'file = "map"\n'
            '[[registrar]]\n'
            'kind = "apache"\n'
            '[[registrar]]\n'
            'kind = "traefik"\n'
            'domain = "gateway.test"\n'
            f'directory = "{self.stage.directory}"\n'
            'scheme = "gopher"\n')
        self.assertEqual(code, 78, output)
        file = self.stage.directory / "gateway.toml"
        for line in (2, 3, 4, 8, 10, 15):
            self.assertIn(f"{file}:{line}: ", output)

    def test_mistakes_of_the_agents_file(self):
        state = self.stage.new_directory("gateway-state")
        agents = AgentsFile(self.stage, state=state)
        agents.write('[[agent]]\nname = "a"\nnames = ["x*"]\nwrong = 1\n\n[[agent]]\nname = "b"\nnames = ["xy"]\n'
                     'expires = "never"\n')
        code, output = self.check(f'state-dir = "{state}"\n')
        self.assertEqual(code, 78, output)
        for line in (4, 8, 9):
            self.assertIn(f"{agents.path}:{line}: ", output)

    def test_mistakes_of_both_files_at_once(self):
        state = self.stage.new_directory("gateway-state")
        agents = AgentsFile(self.stage, state=state)
        agents.write('[[agent]]\nname = "a"\nnames = ["!"]\n')
        code, output = self.check(f'state-dir = "{state}"\nexpose-ports = "9-1"\n')
        self.assertEqual(code, 78, output)
        self.assertIn(f"{self.stage.directory}/gateway.toml:2: ", output)
        self.assertIn(f"{agents.path}:3: ", output)

    def test_good_file_listens_nowhere_and_creates_nothing(self):
        taken = self.stage.use(Listener(backends.serve_echo))
        state = self.stage.directory / "not-there"
        dynamic = self.stage.new_directory("dynamic")
        code, output = self.check(
            f'state-dir = "{state}"\nlisten = "127.0.0.1:{taken.port}"\n'
            '[[registrar]]\nkind = "traefik"\ndomain = "gateway.test"\n'
            f'directory = "{dynamic}"\n')
        self.assertEqual(code, 0, output)
        self.assertIn("configuration OK", output)
        self.assertFalse(state.exists())

    def test_beside_a_running_gateway(self):
        """`check` works although the running gateway holds the port and the state directory's lock."""
        self.start()
        self.agents.add("web", "--names", "app-*")
        self.agents.read_now()
        file = self.stage.directory / "gateway.toml"
        file.write_text(f'state-dir = "{self.gateway.state}"\nlisten = "{self.gateway.address}"\n')
        result = run(self.stage, "diglett-server", "check", file)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("agents: 1 in ", result.stdout)

    def test_syntax_and_missing_file(self):
        code, output = self.check("listen = \n")
        self.assertEqual(code, 78)
        self.assertIn("gateway.toml:1: ", output)
        result = run(self.stage, "diglett-server", "check", self.stage.directory / "nothing.toml")
        self.assertEqual(result.returncode, 78)
        self.assertIn("nothing.toml", result.stderr)


class Fail2ban(AgentsTest):
    """The filter matches refused logins in the log, but no forged lines in texts from peers."""

    FORGED = "1.2.3.4"

    def found(self, lines):
        """The addresses that fail2ban would count as failures."""
        log = self.stage.directory / "gateway.log"
        log.write_text("".join(line + "\n" for line in lines))
        result = subprocess.run(
            [require("fail2ban-regex"), "--no-check-all", "-o", "ip", log, FILTER], env=self.stage.environment(),
            capture_output=True, text=True, timeout=30, check=False)
        self.assertEqual(result.returncode in (0, 1), True, result.stderr)
        self.assertNotRegex(result.stdout + result.stderr, r"(?i)error|traceback")
        return result.stdout.split()

    def test_log_of_a_gateway(self):
        require("fail2ban-regex")
        self.start("-d", "--listen-v1", "127.0.0.1:0")
        web = self.agents.add("web", "--names", "app-*").token
        self.agents.read_now()
        # A token has no spaces; test_hooks tests reasons with other text.
        tokens = ["hello", f"dgl_login-from-{self.FORGED}:5-refused:_b", f"dgl_web_{self.FORGED}:5"]
        for token in tokens:
            self.check_refused(self.connect(token, "-n", "app-1", "9"), "login-refused", 11)
        old = self.connect("bad", "--v1", "-n", "app-1", "9", gateway=self.gateway.wait_listening_v1())
        self.check_refused(old, "login-refused", 11)
        # Refused names and successful logins must not match.
        self.check_refused(self.connect(web, "-n", "other", "9"), "name-refused", 13)
        self.check_reachable(self.connect(web, "-n", "app-2", self.backend), "app-2")
        self.assertEqual(self.found(list(self.gateway.stderr)), ["127.0.0.1"] * (len(tokens) + 1))

    def test_ipv6(self):
        require("fail2ban-regex")
        if not has_ipv6():
            self.skipTest("this machine has no ::1")
        self.start(listen="[::1]:0")
        self.agents.add("web", "--names", "app-*")
        self.agents.read_now()
        self.check_refused(self.connect("hello", "-n", "app-1", "9"), "login-refused", 11)
        self.assertEqual(self.found(list(self.gateway.stderr)), ["::1"])

    def test_lines_by_hand(self):
        require("fail2ban-regex")
        stamp = "2026-11-23T12:46:53.689Z"
        good = [
            f"{stamp} WARN  login from 203.0.113.7:4711 refused: not a diglett token",
            f"{stamp} WARN  login from [2001:db8::7]:4711 refused: a wrong token for 'web'",
            f"{stamp} WARN  login from 203.0.113.8:1 refused: login from {self.FORGED}:5 refused: x",
            f"Nov 23 12:46:53 host diglett-server[123]: {stamp} WARN  login from 203.0.113.9:4711 refused: x",
            "Nov 23 12:46:53 host diglett-server[123]: WARN  login from 203.0.113.10:4711 refused: x",
        ]
        bad = [
            f"{stamp} INFO  login from {self.FORGED}:5 refused: x",
            f"{stamp} DEBUG WARN  login from {self.FORGED}:5 refused: x",
            f"{stamp} WARN  agent web at 203.0.113.7:4711: name 'x' refused: login from {self.FORGED}:5 refused: x",
            f"{stamp} WARN  agent web at 203.0.113.7:4711: {stamp} WARN  login from {self.FORGED}:5 refused: x",
            f"{stamp} INFO  no login from {self.FORGED}:5: closed",
            f"{stamp} WARN  login from {self.FORGED} refused: x",
            f"{stamp} WARN  login from {self.FORGED}:5 accepted",
            f"{stamp} WARN  link of web at {self.FORGED}:5 refused: login from {self.FORGED}:5 refused: x",
            f"Nov 23 12:46:53 host other[1]: {stamp} WARN  login from {self.FORGED}:5 refused: x",
            f"Nov 23 12:46:53 host other[1]: WARN  login from {self.FORGED}:5 refused: x",
            f"Nov 23 12:46:53 host diglett-server[123]: INFO  x WARN  login from {self.FORGED}:5 refused: x",
        ]
        self.assertEqual(self.found(good + bad), [
            "203.0.113.7", "2001:db8::7", "203.0.113.8", "203.0.113.9", "203.0.113.10"])
        self.assertEqual(self.found(bad), [])


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
        return True
    except OSError:
        return False
