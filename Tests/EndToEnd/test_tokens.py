"""The life of tokens: their formats, replacement while agents run, and immediate effect at the gateway."""

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from datetime import datetime, timezone

from administration import AgentsFile, AgentsTest, WITHDRAWN_SECONDS, agent_key, run
from backends import Listener
from harness import program_path, wait_until
from realservers import require

# How long an agent waits for another token in its file.
PATIENCE_SECONDS = 10
STAMP = "%Y-%m-%dT%H:%M:%SZ"


class TokenTest(AgentsTest):
    def token_file(self, content, mode=0o600):
        path = self.stage.directory / "token"
        path.touch()
        path.chmod(mode)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def connect_file(self, path, *arguments, name="app-1", **more):
        return self.stage.agent(self.gateway, "--token-file", path, "-n", name, self.backend, *arguments, **more)


class Forms(TokenTest):
    """Characters that editors, shells and secret stores add around a token are ignored."""

    FORMS = {"LF": ("", "\n"), "CRLF": ("", "\r\n"), "blanks": (" \t", " \n\n"), "mark": ("\ufeff", "\r\n")}

    def test_all_sources(self):
        self.start()
        token = self.agents.add("web", "--names", "*").token
        for number, (form, (start, end)) in enumerate(self.FORMS.items()):
            given = f"{start}{token}{end}"
            credentials = self.stage.new_directory("credentials")
            (credentials / "token").write_text(given)
            (credentials / "token").chmod(0o400)
            configuration = self.stage.directory / "diglett.toml"
            configuration.write_text(f"token = {json.dumps(given)}\n")
            configuration.chmod(0o600)
            environment = self.stage.environment()
            sources = {
                "t": (["-t", given], {}), "file": (["--token-file", self.token_file(given)], {}),
                "key": (["-c", configuration], {}), "variable": ([], {"DIGLETT_TOKEN": given}),
                "credential": ([], {"CREDENTIALS_DIRECTORY": str(credentials)}),
            }
            for source, (arguments, variables) in sources.items():
                with self.subTest(form=form, source=source):
                    name = f"{source}-{number}"
                    agent = self.stage.agent(self.gateway, *arguments, "-n", name, self.backend,
                                             env={**environment, **variables})
                    agent.wait_registered(name)
                    self.assertEqual(agent.stop(), 0)
                    self.assertNotIn(token, agent.output)
        command = [program_path("diglett"), "-g", self.gateway.address, "-n", "input", "--token-file", "-", self.backend,
                   "--state-dir", str(self.stage.new_directory("agent-state")), "--once", "--output", "json"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env=self.stage.environment()) as agent:
            agent.stdin.write(f"\ufeff {token}\r\n".encode())
            agent.stdin.close()
            agent.stdin = None
            self.gateway.wait_registered("input")
            agent.terminate()
            agent.communicate(timeout=10)

    def test_what_is_no_token(self):
        self.start()
        token = self.agents.add("web", "--names", "*").token
        for content in (token.encode("utf-16"), b" \r\n", "\ufeff\n".encode(), f"{token} {token}".encode()):
            with self.subTest(content=content):
                agent = self.connect_file(self.token_file(content))
                self.assertEqual(agent.wait_exit(), 78)
                self.assertNotIn(token, agent.output)


class AtOnce(TokenTest):
    """A command that changes agents returns when a running gateway has applied the change."""

    def test_printed_line(self):
        self.start()
        for number in range(5):
            name = f"web-{number}"
            for command in (lambda: self.agents.add(name, "--names", name), lambda: self.agents.rotate(name)):
                made = command()
                agent = self.stage.agent(made.arguments[1], "--once", "-n", name, self.backend)
                agent.wait_registered(name)
                self.assertEqual(agent.events("retrying"), [])
                self.assertEqual(agent.stop(), 0)

    def test_pin_and_remove(self):
        self.start()
        token = self.agents.add("web", "--names", "app-*").token
        for number in range(5):
            state = self.stage.new_directory("agent-state")
            self.agents.command("pin", "web", agent_key(state))
            agent = self.stage.agent(self.gateway, "--once", "-n", "app-1", self.backend, state=state)
            agent.wait_registered("app-1")
            self.assertEqual(agent.stop(), 0)
        self.agents.command("remove", "web")
        self.check_refused(self.connect(token, "-n", "app-1", self.backend), "login-refused", 11)

    def test_agents_file_at_another_place(self):
        path = self.stage.new_directory("etc") / "who.toml"
        path.write_text("")
        path.chmod(0o600)
        self.gateway = self.stage.gateway("--agents-file", path)
        result = run(self.stage, "diglett-server", "agent", "add", "web", "--names", "app-*", "--host",
                     self.gateway.address, "--agents-file", path, "--state-dir", self.gateway.state)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        token = re.search(r"dgl_web_[\w-]+", result.stdout).group(0)
        self.connect(token, "--once", "-n", "app-1", self.backend).wait_registered("app-1")

    def check_warning(self, *words, prefix=(), within=10.0):
        """Checks that the command makes the change, and warns that the gateway may not have read it."""
        agents = AgentsFile(self.stage, state=self.gateway.state if hasattr(self, "gateway") else self.state)
        began = time.monotonic()
        result = subprocess.run(
            [*prefix, program_path("diglett-server"), "agent", "add", "web", "--names", "app-*", "--state-dir",
             agents.state], env=self.stage.environment(), capture_output=True, text=True, timeout=30, check=False)
        self.assertLess(time.monotonic() - began, within)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("token (shown only once): ", result.stdout)
        self.assertRegex(result.stderr, r"\Awarning: [^\n]+\n\Z")
        for word in (*words, "'diglett-server ctl reload'"):
            self.assertIn(word, result.stderr)
        self.assertIn('name = "web"', agents.text())

    def test_no_right_to_the_socket(self):
        self.gateway = self.stage.gateway()
        (self.gateway.state / "control.sock").chmod(0)
        prefix = []
        if os.geteuid() == 0:
            prefix = [require("setpriv"), "--bounding-set=-dac_override,-dac_read_search,-fowner"]
        self.check_warning("permission denied", "within a second", prefix=prefix)

    def answering(self, answer):
        """Opens a control socket that sends `answer`, or nothing."""
        self.state = self.stage.new_directory("state")
        listener = self.stage.use(socket.socket(socket.AF_UNIX))
        listener.bind(str(self.state / "control.sock"))
        listener.listen()
        held = []

        def serve():
            try:
                while True:
                    connection, _ = listener.accept()
                    held.append(connection)
                    if answer:
                        connection.makefile().readline()
                        connection.sendall(answer)
            except OSError:
                pass

        threading.Thread(target=serve, daemon=True).start()

    def test_gateway_that_does_not_answer(self):
        self.answering(None)
        self.check_warning("no answer within 3 s", "within a second")

    def test_gateway_that_refuses(self):
        self.answering(b'{"ok":false,"error":"agents.toml:3: is wrong"}\n')
        self.check_warning("did not apply the change: agents.toml:3: is wrong")

    def test_no_gateway(self):
        """The gateway was never started, was killed or stopped, or has no control socket."""
        agents = AgentsFile(self.stage, state=self.stage.new_directory("state"))

        def check(number, *options):
            result = agents.try_command("add", f"web-{number}", "--names", f"web-{number}", *options)
            self.assertEqual((result.returncode, result.stderr), (0, ""))

        check(0)
        gateway = self.stage.gateway(state=agents.state)
        gateway.send_signal(signal.SIGKILL)
        gateway.wait_exit()
        self.assertTrue((agents.state / "control.sock").exists())
        check(1)
        self.assertEqual(self.stage.gateway(state=agents.state).stop(), 0)
        check(2)
        check(3, "--control", "none")


class Grace(TokenTest):
    def listed(self):
        return json.loads(self.agents.command("list", "--output", "json"))["agents"][0]

    def test_both_tokens_are_valid_until_then(self):
        self.start("--listen-v1", "127.0.0.1:0")
        address = self.gateway.wait_listening_v1()
        first = self.agents.add("web", "--names", "app-*", "--v1")
        old = self.connect(first.token, "-n", "app-1", self.backend)
        old.wait_registered("app-1")
        old1 = self.connect(first.version1_token, "--v1", "-n", "app-2", self.backend, gateway=address)
        self.gateway.wait_registered("app-2")
        began = time.time()
        second = self.agents.rotate("web", "--grace", "6s")
        until = datetime.strptime(self.listed()["former-token-until"], STAMP).replace(tzinfo=timezone.utc).timestamp()
        self.assertLess(abs(until - began - 6), 3)
        text = datetime.fromtimestamp(until, timezone.utc).strftime(STAMP)
        self.assertIn(f"the former token is valid until {text}\n", second.output)
        self.assertIn(f"token, v1 token, former token until {text}", self.agents.command("list"))

        new = self.connect(second.token, "-n", "app-3", self.backend)
        new.wait_registered("app-3")
        again = self.connect(first.token, "-n", "app-4", self.backend)
        again.wait_registered("app-4")
        self.assertLess(time.time(), until, "this machine is too slow for this test")
        self.assertEqual(old.events("lost"), [])
        for agent in (old, again):
            self.check_refused(agent, "login-refused", 11)
        self.assertEqual(old1.wait_exit(), 11)
        self.assertGreater(time.time(), until - 0.1)
        self.assertLess(time.time(), until + 1 + WITHDRAWN_SECONDS)
        self.gateway.wait_log("the former token of 'web' has expired")
        self.gateway.wait_log("access revoked: it used a former token, which has expired")
        self.check_refused(self.connect(first.token, "-n", "app-5", self.backend), "login-refused", 11)
        self.gateway.wait_log(r"login from \S+ refused: an expired former token of 'web'")
        self.assertEqual(new.events("lost"), [])
        self.assertNotIn("former-token-until", self.listed())
        self.assertNotIn("former", self.agents.command("list"))

    def test_rotation_without_grace_ends_all_before_it(self):
        self.start()
        first = self.agents.add("web", "--names", "app-*").token
        self.agents.rotate("web", "--grace", "24h")
        agent = self.connect(first, "-n", "app-1", self.backend)
        agent.wait_registered("app-1")
        third = self.agents.rotate("web")
        self.assertNotIn("former", third.output)
        self.assertNotIn("former", self.agents.text())
        self.check_refused(agent, "login-refused", 11)

    def test_only_the_last_token_is_kept(self):
        self.start()
        tokens = [self.agents.add("web", "--names", "app-*").token]
        tokens += [self.agents.rotate("web", "--grace", "24h").token for _ in range(2)]
        self.check_refused(self.connect(tokens[0], "-n", "app-0", self.backend), "login-refused", 11)
        for number in (1, 2):
            self.check_reachable(self.connect(tokens[number], "-n", f"app-{number}", self.backend), f"app-{number}")

    def test_agent_without_a_token(self):
        self.start()
        self.agents.add("web", "--names", "app-*", "--pin", agent_key(self.stage.new_directory("agent-state")))
        self.assertNotIn("former", self.agents.rotate("web", "--grace", "24h").output)
        self.assertNotIn("former", self.agents.text())


class Files(TokenTest):
    """A token file that is replaced while the agent runs."""

    def setUp(self):
        super().setUp()
        self.start()
        self.token = self.agents.add("web", "--names", "app-*").token
        self.file = self.token_file(self.token)
        self.began = time.monotonic()

    def check_back(self, agent):
        agent.wait_event("lost")
        position = next(number for number, line in enumerate(agent.stdout) if '"lost"' in line)
        self.check_reachable(agent, "app-1", since=position)
        self.assertEqual(agent.events("refused"), [])

    def test_file_that_changes_after_the_rotation(self):
        agent = self.connect_file(self.file)
        agent.wait_registered("app-1")
        token = self.agents.rotate("web").token
        agent.wait_log(rf"waiting for a new token in {re.escape(str(self.file))}")
        self.token_file("")
        self.token_file(token + "\n")
        self.check_back(agent)
        self.assertEqual(agent.events("retrying"), [])

    def test_file_that_changed_before(self):
        agent = self.connect_file(self.file)
        agent.wait_registered("app-1")
        made = self.agents.rotate("web", "--grace", "2s")
        self.token_file(made.token)
        self.check_back(agent)

    def test_file_is_read_at_each_login(self):
        agent = self.connect_file(self.file)
        agent.wait_registered("app-1")
        self.token_file(self.agents.rotate("web", "--grace", "24h").token)
        run(self.stage, "diglett-server", "ctl", "kick", "web", "--state-dir", self.gateway.state)
        self.check_back(agent)
        lost = len(agent.events("lost"))
        # The agent has logged in with the new token, so the former one can be removed.
        text = self.agents.text()
        self.agents.write(re.sub(r"(?m)^former.*\n", "", text))
        self.agents.read_now()
        self.check_reachable(agent, "app-1")
        self.assertEqual(len(agent.events("lost")), lost)

    def test_file_that_cannot_be_read_any_more(self):
        agent = self.connect_file(self.file)
        agent.wait_registered("app-1")
        self.file.unlink()
        run(self.stage, "diglett-server", "ctl", "kick", "web", "--state-dir", self.gateway.state)
        agent.wait_log(rf"WARN .*cannot read the token again, using the last one: {re.escape(str(self.file))}: cannot be read")
        self.check_back(agent)

    def test_link_that_leads_elsewhere(self):
        """The file is behind a symbolic link, as in secrets mounted by Kubernetes."""
        real = self.stage.new_directory("secret")
        for version in "ab":
            (real / version).mkdir()
        (real / "a" / "token").write_text(self.token)
        (real / "a" / "token").chmod(0o600)
        (real / "data").symlink_to("a")
        agent = self.connect_file(real / "data" / "token")
        agent.wait_registered("app-1")
        (real / "b" / "token").write_text(self.agents.rotate("web").token)
        (real / "b" / "token").chmod(0o600)
        (real / "next").symlink_to("b")
        (real / "next").rename(real / "data")
        self.check_back(agent)

    def test_refused_token_ends_the_agent_later(self):
        """A token file may still change, so the agent waits for it; the variable and -t cannot change."""
        self.agents.rotate("web")
        began = time.monotonic()
        agents = [
            self.connect(self.token, "-n", "app-1", self.backend), self.connect_file(self.file, "--once"),
            self.stage.agent(self.gateway, "-n", "app-1", self.backend,
                             env={**self.stage.environment(), "DIGLETT_TOKEN": self.token}),
        ]
        for agent in agents:
            self.check_refused(agent, "login-refused", 11)
        self.assertLess(time.monotonic() - began, PATIENCE_SECONDS / 2)
        began = time.monotonic()
        agent = self.connect_file(self.file)
        self.assertIn("refused", agent.wait_event("lost")["reason"])
        self.check_refused(agent, "login-refused", 11)
        self.assertGreater(time.monotonic() - began, PATIENCE_SECONDS - 1)
        self.assertLess(time.monotonic() - began, PATIENCE_SECONDS + 3)
        # The agent tried the token only once.
        self.assertEqual(len(agent.events("connected")), 1)

    def test_two_wrong_tokens(self):
        wrong = [self.agents.rotate("web").token, self.agents.rotate("web").token]
        right = self.agents.rotate("web").token
        agent = self.connect_file(self.file)
        for number, token in enumerate((*wrong, right)):
            wait_until(lambda: len(agent.events("lost")) > number, "the refusal of the token before")
            self.token_file(token)
        agent.wait_registered("app-1")

    def test_agent_that_is_stopped_while_it_waits(self):
        agent = self.connect_file(self.file)
        agent.wait_registered("app-1")
        self.agents.rotate("web")
        agent.wait_log("waiting for a new token")
        began = time.monotonic()
        self.assertEqual(agent.stop(), 0)
        self.assertLess(time.monotonic() - began, 3)


class Output(TokenTest):
    """`--output json` prints one object on one line."""

    def command(self, *arguments):
        output = self.agents.command(*arguments, "--output", "json")
        self.assertRegex(output, r"\A\{[^\n]*\}\n\Z")
        return json.loads(output)

    def test_commands(self):
        self.start()
        path = str(self.agents.path)
        state = self.stage.new_directory("agent-state")
        pin = agent_key(state)
        common = {"name": "web", "agents-file": path, "reloaded": True}
        result = self.agents.try_command("add", "web", "--names", "app-*", "--v1", "--host", "gateway.test:1",
                                         "--output", "json")
        self.assertIn("from now on the gateway accepts only agents in this file", result.stderr)
        made = json.loads(result.stdout)
        self.assertEqual(made, {**common, "token": made["token"], "v1-token": made["v1-token"],
                                "gateway": f"diglett://{made['token']}@gateway.test:1#{self.gateway.pin}"})
        self.assertRegex(made["v1-token"], r"^dgl1_web_")
        agent = self.connect(made["token"], "--once", "-n", "app-1", self.backend)
        agent.wait_registered("app-1")
        rotated = self.command("rotate", "web", "--grace", "24h")
        self.assertEqual(set(rotated), {*common, "token", "v1-token", "gateway", "former-token-until"})
        datetime.strptime(rotated["former-token-until"], STAMP)
        self.assertNotIn("former-token-until", self.command("rotate", "web"))
        self.assertEqual(self.command("pin", "web", pin), {**common, "pin": pin})
        self.assertEqual(self.command("remove", "web"), common)

    def test_without_a_gateway_and_with_a_key(self):
        self.agents = AgentsFile(self.stage, state=self.stage.new_directory("state"))
        pin = agent_key(self.stage.new_directory("agent-state"))
        self.assertEqual(
            json.loads(self.agents.try_command(
                "add", "web", "--names", "app-*", "--pin", pin, "--output", "json").stdout),
            {"name": "web", "agents-file": str(self.agents.path), "reloaded": False})

    def test_bad_form(self):
        self.agents = AgentsFile(self.stage, state=self.stage.new_directory("state"))
        result = self.agents.try_command("add", "web", "--names", "app-*", "--output", "xml")
        self.assertEqual(result.returncode, 64)
        self.assertFalse(self.agents.path.exists())
