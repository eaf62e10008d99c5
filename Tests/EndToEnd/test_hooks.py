"""Hooks: the operator's programs that act as authenticators and registrars."""

import json
import re
import signal
import socket
import subprocess
import time
import unittest

import backends
import v2peer
from administration import agent_key
from backends import Listener
from harness import REPOSITORY, EndToEndTest, fast, free_port, wait_until
from hooks import Hook, authenticator, configure, registrar, schema, wait_file, wait_gone
from realservers import is_closed, require
from visitors import get, read_exactly

# Duration of the slow hook, of which up to four processes run at a time.
SLOW_SECONDS = 0.1 if fast() else 1.0


class HookTest(EndToEndTest):
    def setUp(self):
        super().setUp()
        self.backend = self.stage.use(Listener(backends.answering(b"judged"))).address

    def start(self, text, *options, **more):
        self.gateway = self.stage.gateway("-c", configure(self.stage, text), *options, **more)
        return self.gateway

    def connect(self, token, *arguments, **more):
        return self.stage.agent(self.gateway, "-t", token, *arguments, **more)

    def check_reachable(self, agent, name="example", since=0):
        port = agent.wait_registered(name, since=since)
        self.assertEqual(get(f"http://127.0.0.1:{port}/"), b"judged")
        return port

    def check_refused(self, agent, code, exit_code):
        status, event = agent.refusal()
        self.assertEqual((event["code"], event["exit"], status), (code, exit_code, exit_code))
        return event


class Schema(unittest.TestCase):
    def test_its_examples_and_those_of_the_documentation(self):
        examples = [example for definition in schema().schema["$defs"].values()
                    for example in definition.get("examples", [])]
        page = (REPOSITORY / "docs/hooks.md").read_text()
        shown = [json.loads(line) for line in re.findall(r"^    [→←] (\{.*\})$", page, re.MULTILINE)]
        self.assertGreaterEqual(len(shown), 4)
        for example in examples + shown:
            schema().validate(example)
        for mistake in ({"ok": True, "limit": {}}, {"ok": True, "limits": {"names": 0}}, {"identity": "alice"},
                        {"version": 1, "action": "publish", "name": "a", "identity": "alice"}):
            self.assertFalse(schema().is_valid(mistake), mistake)


class Examples(HookTest):
    """The programs in docs/hooks.md, verbatim."""

    TOKEN = "s3cret-of-alice"

    @staticmethod
    def example(form):
        page = (REPOSITORY / "docs/hooks.md").read_text()
        return re.search(rf"<!-- example: {form} -->\n```python\n(.*?)```", page, re.DOTALL)[1]

    def write(self, text):
        path = self.stage.new_directory("example") / "judge"
        path.write_text(text)
        path.chmod(0o700)
        return path

    def check_judges(self):
        agent = self.connect(self.TOKEN, "-n", "alice-web", self.backend)
        self.check_reachable(agent, "alice-web")
        self.check_refused(self.connect(self.TOKEN, "-n", "bob", self.backend), "name-refused", 13)
        self.check_refused(self.connect("guessed", "-n", "alice-web", self.backend), "login-refused", 11)
        self.gateway.wait_log("no agent has this token")
        self.gateway.wait_log("the name begins otherwise")

    def test_program(self):
        path = self.write(self.example("exec"))
        self.start(authenticator([path]) + registrar([path]))
        self.check_judges()

    def test_web_service(self):
        lines = self.example("exec").splitlines()
        self.assertIn("stdin", lines[-1])
        port = free_port()
        text = "\n".join(lines[:-1]) + "\n" + self.example("webhook").replace("8080", str(port))
        service = subprocess.Popen([self.write(text)], stderr=subprocess.DEVNULL)
        self.addCleanup(service.wait)
        self.addCleanup(service.terminate)
        wait_until(lambda: not is_closed(port), "the web service")
        self.start(f'auth = "webhook"\n[auth-webhook]\nurl = "http://127.0.0.1:{port}/"\n')
        self.check_judges()


class Judgement(HookTest):
    BODY = '''
if request["action"] == "authenticate":
    if request.get("token") == "good":
        answer(identity="alice", limits={"links": 1, "names": 2, "streams": 1})
    answer(False, reason="the moon is wrong for %s" % request.get("token"))
if request["action"] == "authorize":
    if request["name"].startswith("a"):
        answer(ports=PORTS)
    answer(False, reason="only a*")
answer()
'''

    def judged(self, ports=()):
        self.hook = Hook(self.stage, self.BODY.replace("PORTS", repr(list(ports))))
        return self.start(authenticator([self.hook.path, "first", "--second word", "$HOME"]))

    def test_yes_and_no(self):
        self.judged()
        agent = self.connect("good", "-n", "app", self.backend)
        port = self.check_reachable(agent, "app")
        self.check_refused(self.connect("bad", "-n", "app", self.backend), "login-refused", 11)
        other = self.connect("good", "-n", "bpp", self.backend, state=agent.state)
        self.gateway.wait_log("link of alice at .* refused")
        other.stop()
        agent.stop()
        self.check_refused(self.connect("good", "-n", "bpp", self.backend), "name-refused", 13)
        self.gateway.wait_log(
            rf"agent alice at 127\.0\.0\.1:\d+: name 'bpp' refused: exec {self.hook.path}: only a\*$")
        self.assertTrue(is_closed(port))

    def test_request_fields(self):
        self.judged()
        agent = self.connect("good", "--public-port", str(wanted := free_port()), "-n", "app", self.backend)
        self.assertEqual(self.check_reachable(agent, "app"), wanted)
        login, = self.hook.calls("authenticate")
        request = login["request"]
        self.assertEqual(request["version"], 1)
        self.assertEqual(request["protocol"], 2)
        self.assertEqual(request["token"], "good")
        self.assertRegex(request["instance"], r"^[0-9a-f.]{32,}$")
        self.assertEqual(sorted(request["peer"]), ["host", "port"])
        self.assertEqual(request["peer"]["host"], "127.0.0.1")
        self.assertIn(request["peer"]["port"], range(1, 65536))
        self.assertEqual(sorted(request), ["action", "instance", "peer", "protocol", "token", "version"])
        self.assertEqual(login["rest"], "", "one line and the end")
        self.assertEqual(login["arguments"], ["first", "--second word", "$HOME"], "no shell")
        self.assertEqual(login["directory"], "/")
        self.assertLessEqual(set(login["environment"]), {"PATH", "HOME", "LANG", "TZ", "LC_CTYPE"})
        authorize, = self.hook.requests("authorize")
        self.assertEqual(authorize, {
            "version": 1, "action": "authorize", "identity": "alice", "name": "app", "port": wanted,
            "peer": request["peer"]})

        # The same state directory gives the same instance, another one gives another.
        agent.stop()
        self.check_reachable(self.connect("good", "-n", "app", self.backend, state=agent.state), "app")
        again = self.hook.requests("authenticate")[1]
        self.assertEqual(again["instance"], request["instance"])
        self.connect("bad", "-n", "app", "9").wait_exit()
        self.assertNotEqual(self.hook.requests("authenticate")[2]["instance"], request["instance"])

    def test_version_1_and_keys(self):
        hook = Hook(self.stage)
        self.start(authenticator([hook.path]), "--listen-v1", "127.0.0.1:0")
        state = self.stage.new_directory("agent-state")
        pin = agent_key(state)
        agent = self.stage.agent(self.gateway, "-n", "keyed", self.backend, state=state)
        self.check_reachable(agent, "keyed")
        request, = hook.requests("authenticate")
        self.assertEqual(request["pin"], pin)
        self.assertNotIn("token", request)
        old = self.stage.agent(self.gateway.wait_listening_v1(), "--v1", "-t", "old", "-n", "former", self.backend)
        old.wait_event("registered")
        request = hook.requests("authenticate")[1]
        self.assertEqual(sorted(request), ["action", "peer", "protocol", "token", "version"])
        self.assertEqual((request["protocol"], request["token"]), (1, "old"))

    def test_ports_from_the_answer(self):
        low = free_port()
        self.judged([f"{low}", f"{low}-{low}"])
        agent = self.connect("good", "-n", "app", self.backend)
        self.assertEqual(self.check_reachable(agent, "app"), low)

    def test_wanted_port_outside_the_answer(self):
        """The hook's answer limits the ports of the name."""
        low, wanted = free_port(), free_port()
        self.judged([f"{low}"])
        agent = self.connect("good", "--public-port", str(wanted), "-n", "app", self.backend)
        answer = agent.wait_line(agent.stdout, lambda line: line, "an answer", since=1)
        self.assertNotIn('"registered"', answer)
        self.check_refused(agent, "port-refused", 18)

    def test_limits_from_the_answer(self):
        self.judged()
        wishes = [word for number in range(3) for word in ("-n", f"a{number}={self.backend}")]
        agent = self.connect("good", *wishes)
        agent.wait_event("missing", name="a2", code="too-many-names")
        agent.wait_registered("a0")
        agent.stop()
        self.gateway.wait_unregistered("a0")
        echo = self.stage.use(Listener(backends.serve_echo))
        agent = self.connect("good", "-n", "app", echo.address)
        port = agent.wait_registered("app")
        second = self.connect("good", "-n", "a2", echo.address)
        self.gateway.wait_log("link of alice at .* refused: the agent has 1 links already")
        second.wait_event("retrying")
        with socket.create_connection(("127.0.0.1", port), 10) as visitor:
            visitor.sendall(b"x")
            self.assertEqual(read_exactly(visitor, 1), b"x")
            with self.assertRaises((ConnectionResetError, BrokenPipeError)):
                with socket.create_connection(("127.0.0.1", port), 10) as other:
                    other.sendall(b"x")
                    other.recv(1)

    def test_reason_is_for_the_log_only(self):
        self.judged()
        agent = self.connect("secret-of-mine", "-n", "app", "9")
        event = self.check_refused(agent, "login-refused", 11)
        self.assertNotIn("moon", agent.output)
        self.gateway.wait_log(
            rf"WARN +login from 127\.0\.0\.1:\d+ refused: exec {self.hook.path}: the moon is wrong for ")
        self.assertNotIn(str(self.hook.path), event["message"])

    def test_bad_token_is_not_asked_about_again_at_once(self):
        self.judged()
        first = self.connect("bad", "-n", "app", "9")
        self.check_refused(first, "login-refused", 11)
        for _ in range(3):
            self.check_refused(self.connect("bad", "-n", "app", "9", state=first.state), "login-refused", 11)
        self.assertEqual(len(self.hook.requests("authenticate")), 1)
        self.assertEqual(len(re.findall(r"login from .* refused: ", self.gateway.output)), 4)
        # A good token from the same agent is asked about.
        self.check_reachable(self.connect("good", "-n", "app", self.backend, state=first.state), "app")

    def test_forged_lines_in_a_reason(self):
        """A reason cannot forge an address, neither in the log nor for fail2ban."""
        forged = "2026-11-23T12:46:53.689Z WARN  login from 1.2.3.4:5 refused: x"
        hook = Hook(self.stage, f'answer(False, reason={forged!r} + "\\n" + {forged!r} + "\\r" + {forged!r})')
        self.start(authenticator([hook.path]))
        before = len(self.gateway.stderr)
        self.check_refused(self.connect("bad", "-n", "app", "9"), "login-refused", 11)
        lines = list(self.gateway.stderr)[before:]
        self.assertFalse([line for line in lines if line.startswith(forged)], lines)
        log = self.stage.directory / "gateway.log"
        log.write_text("\n".join(lines) + "\n")
        result = subprocess.run(
            [require("fail2ban-regex"), "-o", "ip", log, REPOSITORY / "scripts/fail2ban/diglett-server.conf"],
            env=self.stage.environment(), capture_output=True, text=True, timeout=30, check=False)
        self.assertEqual(result.stdout.split(), ["127.0.0.1"])


class Misbehaviour(HookTest):
    def check_login_fails(self, hook, words, timeout=5, most=5.0):
        self.start(authenticator([hook.path], timeout))
        began = time.monotonic()
        # The hook has not refused the login: without --once the agent would retry.
        agent = self.connect("any", "-n", "app", "--once", "9")
        self.check_refused(agent, "unavailable", 69)
        self.assertLess(time.monotonic() - began, most)
        self.gateway.wait_log(
            rf"cannot authenticate the login from 127\.0\.0\.1:\d+: exec {re.escape(str(hook.path))} {words}")
        self.assertTrue(self.gateway.running)
        self.assertNotIn("exec", agent.output)
        return agent

    def test_hangs_with_a_grandchild(self):
        pids = self.stage.directory / "pids"
        hook = Hook(self.stage, f'''
import subprocess
child = subprocess.Popen(["sleep", "300"])
with open({str(pids)!r} + ".new", "w") as file: file.write("%d %d" % (os.getpid(), child.pid))
os.rename({str(pids)!r} + ".new", {str(pids)!r})
time.sleep(300)
''')
        # On a busy machine Python takes more than a second to start.
        self.check_login_fails(hook, "timed out and was killed", timeout=3, most=6)
        for pid in wait_file(pids).split():
            wait_gone(int(pid))

    def test_ends_but_leaves_its_output_open(self):
        hook = Hook(self.stage, '''
if os.fork() == 0:
    time.sleep(300)
answer(identity="alice")
''')
        self.check_login_fails(hook, "timed out and was killed", timeout=0.7, most=2.5)

    def test_floods(self):
        for stream in ("stdout", "stderr"):
            with self.subTest(stream=stream):
                hook = Hook(self.stage, f'while True: sys.{stream}.write("x" * 65536)')
                self.check_login_fails(hook, "wrote too much output and was killed")

    def test_garbage(self):
        cases = {
            'print("certainly")': "sent an answer that is not valid JSON: 'certainly",
            'pass': "sent an empty answer",
            'print("[]")': "sent an answer that is not valid JSON",
            'print(\'{"ok": "yes"}\')': "sent an answer that is not valid JSON",
            'print(\'{"ok": true, "version": 2, "identity": "x"}\')': "answered with schema version 2 instead of 1",
            'os.write(1, bytes(range(128, 256)))': "sent an answer that is not valid JSON",
            'print(\'{"ok": true, "identity": "a"}\' * 2)': "sent an answer that is not valid JSON",
        }
        for body, words in cases.items():
            with self.subTest(body=body):
                self.check_login_fails(Hook(self.stage, body), words)

    def test_answer_without_identity(self):
        for identity in ("", "two words", "x" * 129, "line\nbreak", None):
            with self.subTest(identity=identity):
                hook = Hook(self.stage, f"answer(identity={identity!r})")
                self.start(authenticator([hook.path]))
                self.check_refused(self.connect("any", "-n", "app", "9"), "login-refused", 11)
                self.gateway.wait_log(r"login from .* refused: .*identity")

    def test_a_name_that_nobody_judges_is_not_called_forbidden(self):
        hook = Hook(self.stage, 'answer(identity="alice") if request["action"] == "authenticate" else sys.exit(1)')
        self.start(authenticator([hook.path]))
        agent = self.connect("any", "-n", "app", "9")
        event = agent.wait_event("missing")
        self.assertEqual(event["code"], "overloaded")
        self.assertIn("the gateway cannot authorize names now", event["message"])

    def test_fails_with_words(self):
        hook = Hook(self.stage, 'sys.stderr.write("the directory\\nis down\\x1b[31m\\n"); sys.exit(1)')
        self.check_login_fails(hook, "exited with code 1: is down")
        self.assertNotIn("\x1b", self.gateway.output)

    def test_killed_by_a_signal(self):
        hook = Hook(self.stage, f"os.kill(os.getpid(), {signal.SIGSEGV.value})")
        self.check_login_fails(hook, "was killed by signal 11")

    def test_does_not_read(self):
        """A hook need not read its request."""
        path = self.stage.new_directory("hook") / "hook"
        path.write_text('#!/bin/sh\nexec <&-\necho \'{"ok":true,"identity":"anybody"}\'\n')
        path.chmod(0o700)
        self.start(authenticator([path]))
        self.check_reachable(self.connect("any", "-n", "app", self.backend), "app")

    def test_goes_away_while_the_gateway_runs(self):
        hook = Hook(self.stage)
        self.start(authenticator([hook.path]))
        agent = self.connect("any", "-n", "app", self.backend)
        port = self.check_reachable(agent, "app")
        hidden = hook.path.with_name("hidden")
        hook.path.rename(hidden)
        late = self.connect("any", "-n", "other", self.backend)
        self.gateway.wait_log("cannot authenticate the login from .*: .*cannot be started: .*no such file")
        self.assertEqual(get(f"http://127.0.0.1:{port}/"), b"judged")
        hidden.rename(hook.path)
        self.check_reachable(late, "other")

    def test_cannot_be_started(self):
        """The gateway reports it at the start, with the line."""
        plain = self.stage.directory / "plain"
        plain.write_text("echo\n")
        plain.chmod(0o600)
        for program in (self.stage.directory / "nothing", plain, self.stage.directory, "relative"):
            for text, line in ((authenticator([program]), 3), (registrar([program]), 3)):
                with self.subTest(program=program, text=text):
                    file = configure(self.stage, text)
                    gateway = self.stage.gateway("-c", file, ready=False)
                    self.assertEqual(gateway.wait_exit(), 78)
                    self.assertIn(f"{file}:{line}: ", gateway.output)
                    self.assertIn(str(program), gateway.output)

    def test_bad_timeouts(self):
        hook = Hook(self.stage)
        for timeout in ("0", "10", '"5"', "-1"):
            with self.subTest(timeout=timeout):
                file = configure(self.stage, authenticator([hook.path], timeout))
                gateway = self.stage.gateway("-c", file, ready=False)
                self.assertEqual(gateway.wait_exit(), 78)
                self.assertIn(f"{file}:4: ", gateway.output)

    def slow_and_many(self, count):
        """Starts `count` agents at once with a slow hook, and waits for all of them; returns (hook, agents)."""
        hook = Hook(self.stage, f'''
if request["action"] == "authenticate":
    time.sleep({SLOW_SECONDS})
answer(identity=request.get("token", "anybody"))
''')
        self.start(authenticator([hook.path]))
        began = time.monotonic()
        agents = [self.connect(f"agent-{number}", "-n", f"app-{number}", self.backend) for number in range(count)]
        for number, agent in enumerate(agents):
            agent.wait_registered(f"app-{number}", timeout=60)
        self.note(f"{time.monotonic() - began:.1f} s")
        return hook, agents

    def test_slow_and_sixteen_agents_at_once(self):
        """As many unauthenticated connections as one source may have: each agent is authenticated once."""
        hook, agents = self.slow_and_many(16)
        # One of the four processes is reserved for other sources.
        self.assertIn(hook.most_at_once("authenticate"), (2, 3) if fast() else (3,))
        self.assertEqual(len(hook.requests("authenticate")), 16)
        self.assertEqual([agent.events("lost") for agent in agents], [[]] * 16)

    @unittest.skipIf(fast(), "takes long")
    def test_slow_and_thirty_agents_at_once(self):
        """More than that: some are rejected, but all are admitted in the end."""
        hook, _ = self.slow_and_many(30)
        self.assertIn(hook.most_at_once("authenticate"), (2, 3) if fast() else (3,))
        self.note(f"{len(hook.requests('authenticate'))} questions")

    def test_agent_that_leaves_while_it_is_judged(self):
        hook = Hook(self.stage, '''
if is_on("slow"):
    time.sleep(1)
answer(identity="alice")
''')
        hook.switch("slow")
        self.start(authenticator([hook.path]))
        agent = self.connect("any", "-n", "app", "9")
        hook.wait_requests(1)
        agent.kill()
        hook.switch("slow", False)
        self.check_reachable(self.connect("any", "-n", "app", self.backend), "app")
        self.assertTrue(self.gateway.running)


class NarrowedPorts(HookTest):
    """On SIGHUP the gateway asks the hook about ports again, too."""

    BODY = '''
if request["action"] == "authorize":
    answer(ports=[open(os.path.dirname(os.path.abspath(__file__)) + "/ports-" + request["name"]).read()])
answer(identity="alice")
'''

    def test_port_that_is_not_allowed_any_more(self):
        hook = Hook(self.stage, self.BODY)
        files = {name: hook.path.parent / f"ports-{name}" for name in ("one", "two")}
        ports = {name: free_port() for name in files}
        for name, file in files.items():
            file.write_text(str(ports[name]))
        self.start(authenticator([hook.path]))
        agent = self.connect("any", "-n", f"one={self.backend}", "-n", f"two={self.backend}")
        for name, port in ports.items():
            self.assertEqual(self.check_reachable(agent, name), port)
        files["one"].write_text(str(free_port()))
        self.gateway.send_signal(signal.SIGHUP)
        self.assertEqual(agent.wait_event("missing", name="one")["code"], "port-not-allowed")
        self.gateway.wait_log(f"'one' was withdrawn: its agent may no longer use the port {ports['one']}")
        self.assertTrue(is_closed(ports["one"]))
        self.assertEqual(get(f"http://127.0.0.1:{ports['two']}/"), b"judged")
        self.assertEqual(agent.events("lost"), [])


class SecondThoughts(HookTest):
    """On SIGHUP the gateway asks the hook again about the agents' names."""

    BODY = '''
if request["action"] == "authorize":
    if is_on("broken"):
        sys.exit(3)
    answer(not is_on("no-" + request["name"]), reason="not any more")
answer(identity="alice")
'''

    def setUp(self):
        super().setUp()
        self.hook = Hook(self.stage, self.BODY)
        self.start(authenticator([self.hook.path]))
        self.agent = self.connect("any", "-n", f"one={self.backend}", "-n", f"two={self.backend}")
        self.one, self.two = (self.check_reachable(self.agent, name) for name in ("one", "two"))
        self.assertEqual(len(self.hook.requests("authorize")), 2)

    def test_refused_names_are_withdrawn(self):
        self.hook.switch("no-one")
        since = time.monotonic()
        self.gateway.send_signal(signal.SIGHUP)
        event = self.agent.wait_event("missing", name="one")
        self.note(f"{time.monotonic() - since:.2f} s")
        self.assertEqual(event["code"], "revoked")
        self.assertNotIn("not any more", self.agent.output)
        self.gateway.wait_log("'one' was withdrawn: .*not any more")
        self.assertTrue(is_closed(self.one))
        self.assertEqual(get(f"http://127.0.0.1:{self.two}/"), b"judged")
        asked = self.hook.wait_requests(4, "authorize")[2:]
        self.assertEqual(sorted((request["name"], request["port"]) for request in asked),
                         [("one", self.one), ("two", self.two)])
        self.assertEqual(self.agent.events("lost"), [])

    def test_hook_that_fails_withdraws_nothing(self):
        """A failure is not a refusal."""
        self.hook.switch("broken")
        self.gateway.send_signal(signal.SIGHUP)
        wait_until(lambda: len(self.hook.requests("authorize")) >= 4, "the questions")
        # A later request is answered after theirs.
        self.hook.switch("broken", False)
        self.check_reachable(self.connect("any", "-n", "three", self.backend), "three")
        self.assertEqual(self.agent.events("missing"), [])
        for port in (self.one, self.two):
            self.assertEqual(get(f"http://127.0.0.1:{port}/"), b"judged")


class Reviews(HookTest):
    """After a reload the hook authorizes every name again."""

    BODY = '''
if request["action"] == "authenticate":
    answer(identity=request["token"])
if is_on("broken"):
    sys.exit(1)
answer(not is_on("closed"), reason="closed")
'''

    def expose(self, agents, names):
        self.hook = Hook(self.stage, self.BODY)
        self.start(authenticator([self.hook.path]))
        agents = [self.connect(f"agent{number}", *(
            word for name in range(names) for word in ("-n", f"n{number}-{name}={self.backend}")))
            for number in range(agents)]
        for number, agent in enumerate(agents):
            for name in range(names):
                agent.wait_registered(f"n{number}-{name}", timeout=40)
        return agents

    def check_missing(self, agents, names):
        for number, agent in enumerate(agents):
            for name in range(names):
                # Some may have been refused because too many were pending, and then requested again.
                agent.wait_event("missing", timeout=40, name=f"n{number}-{name}", code="revoked")

    @unittest.skipIf(fast(), "takes long")
    def test_more_names_than_logins_may_wait(self):
        agents = self.expose(*((2, 4) if fast() else (20, 16)))
        self.hook.switch("closed")
        self.gateway.send_signal(signal.SIGHUP)
        self.check_missing(agents, 4 if fast() else 16)
        self.assertNotIn("stays until the authenticator answers", self.gateway.output)

    def test_no_answer_is_asked_for_again(self):
        agent, = self.expose(1, 2)
        self.hook.switch("broken")
        self.gateway.send_signal(signal.SIGHUP)
        self.gateway.wait_log("'n0-1' stays until the authenticator answers: exec .* exited with code 1")
        self.assertEqual(get(f"http://127.0.0.1:{agent.wait_registered('n0-0')}/"), b"judged")
        self.hook.switch("closed")
        self.hook.switch("broken", on=False)
        self.check_missing([agent], 2)

    @unittest.skipIf(fast(), "takes long")
    def test_signals_without_end(self):
        """Signals cause at most two reloads a second."""
        agent, = self.expose(1, 8)
        before = len(self.hook.requests("authorize"))
        began = time.monotonic()
        for _ in range(200):
            self.gateway.send_signal(signal.SIGHUP)
            self.assertEqual(get(f"http://127.0.0.1:{agent.wait_registered('n0-0')}/"), b"judged")
        self.hook.switch("closed")
        self.gateway.send_signal(signal.SIGHUP)
        self.check_missing([agent], 8)
        readings = 2 * (time.monotonic() - began) + 2
        self.assertLessEqual(sum("SIGHUP" in line for line in self.gateway.stderr), readings)
        self.assertLessEqual(len(self.hook.requests("authorize")) - before, 8 * readings)


class Registration(HookTest):
    """Hooks as registrars, which receive the names and their addresses."""

    BODY = '''
if is_on("broken-" + request["action"]):
    sys.stderr.write("the proxy is away\\n")
    sys.exit(1)
if is_on("slow-" + request["action"]):
    time.sleep(1)
answer()
'''

    def setUp(self):
        super().setUp()
        self.hook = Hook(self.stage, self.BODY)
        self.configuration = registrar([self.hook.path])

    def test_requests(self):
        self.start(self.configuration)
        reset, = self.hook.wait_requests(1, "reset")
        self.assertEqual(reset, {"version": 1, "action": "reset"})
        agent = self.stage.agent(self.gateway, "-n", "example", self.backend)
        port = self.check_reachable(agent)
        publish, = self.hook.requests("publish")
        self.assertEqual(sorted(publish), ["action", "address", "identity", "name", "version"])
        self.assertEqual(publish["address"], {"host": "127.0.0.1", "port": port})
        self.assertEqual((publish["name"], publish["version"]), ("example", 1))
        self.assertTrue(publish["identity"])
        agent.stop()
        withdraw, = self.hook.wait_requests(1, "withdraw")
        self.assertEqual(withdraw, dict(publish, action="withdraw"))
        self.assertEqual([request["action"] for request in self.hook.requests()], ["reset", "publish", "withdraw"])

    @unittest.skipIf(fast(), "takes long")
    def test_many_names_at_once(self):
        """After a crash all names are published, however long that takes, and agents need not register them again."""
        agents, names = (3, 4) if fast() else (24, 16)
        file = configure(self.stage, self.configuration)
        self.gateway = self.stage.gateway("-c", file)
        clients = [self.stage.agent(self.gateway, *(
            word for name in range(names) for word in ("-n", f"n{number}-{name}=9"))) for number in range(agents)]
        # The timeout is long because the gateway starts a hook process for each name.
        for number, client in enumerate(clients):
            client.wait_registered(f"n{number}-{names - 1}", timeout=120)
        self.gateway.kill()
        self.gateway = self.stage.gateway("-c", file, listen=self.gateway.address, state=self.gateway.state)
        for number, client in enumerate(clients):
            for name in range(names):
                self.gateway.wait_registered(f"n{number}-{name}", timeout=120)
        self.assertNotIn("registrar-failed", "".join(client.output for client in clients))
        self.assertNotIn("ERROR", self.gateway.output)

    def test_a_port_is_kept_until_nothing_leads_there(self):
        """Other agents do not get the port of a name that cannot be withdrawn: a proxy still sends visitors to it."""
        port = free_port()
        self.hook.switch("broken-withdraw")
        self.start(self.configuration, "--expose-ports", f"{port}-{port}")
        first = self.stage.agent(self.gateway, "-n", "first", self.backend)
        self.assertEqual(first.wait_registered("first"), port)
        first.stop()
        self.gateway.wait_log("cannot withdraw 'first'")
        second = self.stage.agent(self.gateway, "-n", "second", self.backend)
        self.assertEqual(second.wait_event("missing")["code"], "registrar-failed")
        second.stop()
        # The same agent may use it again.
        again = self.stage.agent(self.gateway, "-n", "first", self.backend, state=first.state)
        self.assertEqual(again.wait_registered("first"), port)
        again.stop()
        self.hook.switch("broken-withdraw", on=False)
        wait_until(lambda: self.hook.answers("withdraw") and self.hook.answers("withdraw")[-1]["ok"], "the withdrawal")
        second = self.stage.agent(self.gateway, "-n", "second", self.backend)
        self.assertEqual(second.wait_registered("second"), port)

    def test_visitors_wait_for_it(self):
        """The agent receives its port when the name is published, not before."""
        self.hook.switch("slow-publish")
        self.start(self.configuration)
        agent = self.stage.agent(self.gateway, "-n", "example", self.backend)
        agent.wait_registered()
        self.assertEqual([answer["action"] for answer in self.hook.answers("publish")], ["publish"])

    def test_names_wait_for_the_reset(self):
        self.hook.switch("slow-reset")
        self.start(self.configuration)
        agent = self.stage.agent(self.gateway, "-n", "example", self.backend)
        self.check_reachable(agent)
        answers = [answer["action"] for answer in self.hook.answers()]
        self.assertEqual(answers, ["reset", "publish"])

    def test_failing_publication(self):
        self.hook.switch("broken-publish")
        self.start(self.configuration)
        began = time.monotonic()
        agent = self.stage.agent(self.gateway, "-n", "example", self.backend)
        event = agent.wait_event("missing", name="example")
        self.assertLess(time.monotonic() - began, 4)
        self.assertEqual(event["code"], "registrar-failed")
        self.assertNotIn("proxy is away", agent.output)
        self.assertEqual(len(self.hook.requests("publish")), 4)
        self.gateway.wait_log(
            rf"ERROR registrar exec {self.hook.path}: cannot publish 'example': .*code 1: the proxy is away")
        self.assertTrue(agent.running and self.gateway.running)
        # The failed publication may have had an effect, so the gateway withdraws it.
        self.hook.wait_requests(1, "withdraw")
        ports = {request["address"]["port"] for request in self.hook.requests("publish")}
        self.assertTrue(all(is_closed(port) for port in ports))

        self.hook.switch("broken-publish", False)
        if fast():
            # Instead of waiting half a minute until the agent requests the name again.
            agent.stop()
            agent = self.stage.agent(self.gateway, "-n", "example", self.backend, state=agent.state)
        self.assertTrue(agent.wait_registered(timeout=40))
        self.check_reachable(agent)
        self.gateway.wait_log("registrar exec .* works again")

    def test_publication_that_fails_once(self):
        """The agent does not notice the failure."""
        self.hook.switch("broken-publish")
        self.start(self.configuration)
        agent = self.stage.agent(self.gateway, "-n", "example", self.backend)
        self.hook.wait_requests(1, "publish")
        self.hook.switch("broken-publish", False)
        self.check_reachable(agent)
        self.assertEqual(agent.events("missing"), [])

    def test_agent_that_leaves_while_its_name_cannot_be_published(self):
        self.hook.switch("broken-publish")
        self.start(self.configuration)
        agent = self.stage.agent(self.gateway, "-n", "example", self.backend)
        self.hook.wait_requests(2, "publish")
        agent.kill()
        self.hook.wait_requests(1, "withdraw")
        count = len(self.hook.requests("publish"))
        self.hook.switch("broken-publish", False)
        self.check_reachable(self.stage.agent(self.gateway, "-n", "other", self.backend), "other")
        names = [request["name"] for request in self.hook.requests("publish")]
        self.assertEqual(names.count("example"), count)

    def test_failing_withdrawal(self):
        self.start(self.configuration)
        agent = self.stage.agent(self.gateway, "-n", "example", self.backend)
        port = self.check_reachable(agent)
        self.hook.switch("broken-withdraw")
        agent.stop()
        self.hook.wait_requests(3, "withdraw")
        self.assertTrue(is_closed(port), "visitors are not let in, whatever the registrar says")
        self.gateway.wait_log("cannot withdraw 'example': .*the proxy is away")
        self.hook.switch("broken-withdraw", False)
        self.gateway.wait_log("registrar exec .* works again")
        self.assertEqual(len(self.hook.answers("withdraw")), 1)

    def test_name_that_returns_while_its_withdrawal_fails(self):
        self.start(self.configuration)
        agent = self.stage.agent(self.gateway, "-n", "example", self.backend)
        self.check_reachable(agent)
        self.hook.switch("broken-withdraw")
        agent.stop()
        self.hook.wait_requests(2, "withdraw")
        again = self.stage.agent(self.gateway, "-n", "example", self.backend, state=agent.state)
        self.check_reachable(again)
        self.hook.switch("broken-withdraw", False)
        self.assertEqual(self.hook.requests()[-1]["action"], "publish")

    def test_an_agent_that_comes_and_goes_with_fresh_names(self):
        """It does not affect names of other agents, and a new agent does not wait for all of its names."""
        self.start(self.configuration)
        honest = self.stage.agent(self.gateway, "-n", "example", self.backend)
        self.check_reachable(honest)
        for action in ("publish", "withdraw"):
            self.hook.switch("slow-" + action)
        key = bytes(range(32))
        for number in range(20 if fast() else 300):
            with v2peer.connect((self.gateway.host, self.gateway.port)) as peer:
                # Every second connection is another agent.
                peer.log_in(key=key if number % 2 else None)
                for exposure in range(16):
                    peer.send_frame(v2peer.REGISTER, v2peer.register_payload(exposure, f"n{number}-{exposure}"))
                self.assertTrue(peer.is_alive())
        began = time.monotonic()
        newcomer = self.stage.agent(self.gateway, "-n", "newcomer", self.backend)
        self.check_reachable(newcomer, "newcomer")
        self.assertLess(time.monotonic() - began, 8)
        self.assertEqual(len(self.hook.requests("reset")), 1)
        self.assertEqual([request["action"] for request in self.hook.requests() if request.get("name") == "example"],
                         ["publish"])

    def test_an_agent_that_leaves_too_many_names_has_to_wait(self):
        """Names that cannot be withdrawn count towards their agent's limit; the agent can register them again."""
        self.start(self.configuration + "[limits]\nnames-per-link = 2\nlinks-per-agent = 1\n")
        self.hook.switch("broken-withdraw")
        key = bytes(range(32))
        codes = {}
        for names in (["a", "b"], ["c", "d"], ["e", "a"]):
            with v2peer.connect((self.gateway.host, self.gateway.port)) as peer:
                peer.log_in(key=key)
                for exposure, name in enumerate(names):
                    codes[name] = peer.register(name, exposure).code
                peer.send_frame(v2peer.GOAWAY, v2peer.goaway_payload(0))
                peer.wait_end()
        self.assertEqual(codes, {"a": 0, "b": 0, "c": 0, "d": 0, "e": 4})
        other = self.stage.agent(self.gateway, "-n", "other", self.backend)
        self.check_reachable(other, "other")
        self.hook.switch("broken-withdraw", on=False)

    def test_withdrawal_at_the_end(self):
        """On SIGTERM the hook receives the withdrawal of each name before the gateway exits."""
        self.start(self.configuration)
        agents = [self.stage.agent(self.gateway, "-n", f"app-{number}", self.backend) for number in range(6)]
        for number, agent in enumerate(agents):
            agent.wait_registered(f"app-{number}")
        self.hook.switch("slow-withdraw")
        began = time.monotonic()
        self.assertEqual(self.gateway.stop(), 0)
        self.assertLess(time.monotonic() - began, 6)
        self.assertEqual(len(self.hook.answers("withdraw")), 6)

    def test_withdrawal_at_the_end_that_fails_at_first(self):
        self.start(self.configuration)
        agent = self.stage.agent(self.gateway, "-n", "example", self.backend)
        agent.wait_registered()
        self.hook.switch("broken-withdraw")
        self.gateway.send_signal(signal.SIGTERM)
        self.hook.wait_requests(2, "withdraw")
        self.hook.switch("broken-withdraw", False)
        self.assertEqual(self.gateway.wait_exit(), 0)
        self.assertEqual(len(self.hook.answers("withdraw")), 1)

    @unittest.skipIf(fast(), "the gateway tries for five seconds")
    def test_gateway_ends_although_withdrawals_fail(self):
        self.start(self.configuration)
        agent = self.stage.agent(self.gateway, "-n", "example", self.backend)
        agent.wait_registered()
        self.hook.switch("broken-withdraw")
        began = time.monotonic()
        self.assertEqual(self.gateway.stop(timeout=10), 0)
        self.note(f"{time.monotonic() - began:.1f} s")
        self.gateway.wait_log("registrar exec .*: stale names could not be removed")

    def test_two_registrars(self):
        """If one registrar fails, the name is not published, and the other registrar withdraws it."""
        other = Hook(self.stage, self.BODY)
        other.switch("broken-publish")
        self.start(self.configuration + registrar([other.path]))
        agent = self.stage.agent(self.gateway, "-n", "example", self.backend)
        self.assertEqual(agent.wait_event("missing")["code"], "registrar-failed")
        self.hook.wait_requests(1, "withdraw")
        self.assertEqual(len(self.hook.requests("publish")), 1)
        self.assertEqual(len(other.requests("publish")), 4)
