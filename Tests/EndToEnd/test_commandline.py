"""Flags, files, events and exit codes that scripts and users rely on."""

import json
import os
import re
import signal
import subprocess
import termios
from pathlib import Path

import backends
from administration import AgentsFile
from backends import Listener
from commandlines import PROGRAMS
from harness import REPOSITORY, Agent, EndToEndTest, Gateway, Program, free_port, program_path, wait_until
from namespaces import TwoHosts
from terminals import Terminal
from visitors import get


class CommandLineTest(EndToEndTest):
    def run_program(self, name, *arguments, kind=Agent, **options):
        """Runs a program until it exits; returns (exit code, Program)."""
        program = self.stage.start(name, [program_path(name), *arguments], kind, **options)
        return program.wait_exit(), program


class ClosedDescriptors(EndToEndTest):
    """Programs that start without a standard input, output or error."""

    def test_gateway_and_agent(self):
        for redirection in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
            with self.subTest(redirection):
                state = self.stage.new_directory("state")
                gateway = self.stage.start("sh", [
                    "sh", "-c", f'exec "$@" {redirection}', "sh", program_path("diglett-server"), "-l", "127.0.0.1:0",
                    "--state-dir", state])
                wait_until((state / "control.sock").exists, "the gateway")
                self.assertEqual(gateway.stop(), 0)
                agent = self.stage.start("sh", [
                    "sh", "-c", f'exec "$@" {redirection}', "sh", program_path("diglett"), "-g", "127.0.0.1:9",
                    "--state-dir", state, "-n", "x", "9"])
                wait_until(lambda: list(state.glob("agent-*.sock")), "the agent")
                self.assertEqual(agent.stop(), 0)


class Output(EndToEndTest):
    """A command whose output cannot be written must not report success."""

    def shell(self, redirection, program, *arguments):
        """Runs a program with its standard output redirected by a shell; returns (exit code, standard error)."""
        result = subprocess.run(
            ["bash", "-c", f'"$@" {redirection}', "bash", program_path(program), *map(str, arguments)],
            env=self.stage.environment(), cwd=self.stage.directory, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=30, check=False)
        return result.returncode, result.stderr

    def commands(self):
        tunnel = self.stage.expose("9")
        server = ("diglett-server", "--state-dir", tunnel.gateway.state)
        agents = AgentsFile(self.stage, state=self.stage.new_directory("agents"))
        agents.add("web", "--names", "web")
        other = ("--state-dir", agents.state)
        return [
            (*server, "ctl", "status"), (*server, "ctl", "status", "--output", "json"), (*server, "ctl", "reload"),
            (*server, "ctl", "ban", "192.0.2.1"), (*server, "ctl", "agents"),
            ("diglett-server", "check", *other), ("diglett-server", "explain"), ("diglett-server", "explain", "71"),
            ("diglett-server", "explain", "--markdown"), ("diglett-server", "agent", "list", *other),
            ("diglett-server", "agent", "pin", "web", f"sha256/{'A' * 42}8=", *other),
            ("diglett-server", "agent", "remove", "web", *other),
            ("diglett", "status", "--state-dir", tunnel.agent.state), ("diglett", "key"), ("diglett", "explain"),
            ("diglett", "explain", "14"),
            *((program, option) for program in PROGRAMS for option in ("--help", "--version")),
            ("diglett", "status", "--help"), ("diglett", "--generate-completion-script", "bash")]

    def test_full_or_closed(self):
        for command in self.commands():
            for redirection, reason in ((">/dev/full", "no space left on device"), (">&-", "closed")):
                with self.subTest(command=command, redirection=redirection):
                    if "remove" in command and redirection == ">&-":
                        # The first command has removed the agent.
                        continue
                    self.assertEqual(self.shell(redirection, *command), (74, f"error: standard output: {reason}\n"))

    def without_reader(self, program, *arguments, ignoring=False):
        """Runs a program that writes into a pipe whose other end is closed; returns (exit code, standard error)."""
        reader, writer = os.pipe()
        os.close(reader)
        try:
            # Python ignores SIGPIPE, and without restore_signals its children inherit this.
            result = subprocess.run(
                [program_path(program), *map(str, arguments)], env=self.stage.environment(), cwd=self.stage.directory,
                stdin=subprocess.DEVNULL, stdout=writer, stderr=subprocess.PIPE, restore_signals=not ignoring,
                text=True, timeout=30, check=False)
        finally:
            os.close(writer)
        return result.returncode, result.stderr

    def test_reader_that_is_gone(self):
        """A reader such as `head` has read enough, so there is no error message."""
        self.assertEqual(self.without_reader("diglett-server", "explain"), (-signal.SIGPIPE, ""))
        self.assertEqual(self.without_reader("diglett-server", "explain", ignoring=True), (74, ""))

    def test_watch(self):
        tunnel = self.stage.expose(self.stage.use(Listener(backends.answering(b"watched"))).address)
        with tunnel.connect():
            self.assertEqual(
                self.shell(">/dev/full", "diglett-server", "--state-dir", tunnel.gateway.state, "ctl", "streams", "--watch"),
                (74, "error: standard output: no space left on device\n"))

    def test_token_that_was_not_shown(self):
        agents = AgentsFile(self.stage, state=self.stage.new_directory("state"))
        for number, (redirection, reason) in enumerate(((">/dev/full", "no space left on device"), (">&-", "closed"),
                                                        (None, "broken pipe"))):
            name = f"web-{number}"
            for command in (("add", name, "--names", name), ("rotate", name)):
                with self.subTest(redirection=redirection, command=command):
                    arguments = ("diglett-server", "agent", *command, "--state-dir", agents.state)
                    self.assertEqual(
                        self.shell(redirection, *arguments) if redirection else self.without_reader(*arguments),
                        (74, f"error: standard output: {reason}: the token was not shown; 'diglett-server agent rotate "
                         f"{name}' creates another\n"))
            self.assertTrue(agents.rotate(name).token)


class Secrets(EndToEndTest):
    """Messages do not repeat a secret that was given in the wrong place."""

    def check(self, *arguments, codes=(64,), program="diglett"):
        with self.subTest(arguments=arguments):
            ended = self.stage.start(program, [program_path(program), *arguments])
            self.assertIn(ended.wait_exit(), codes)
            self.assertTrue(ended.output)
            self.assertNotIn("SECRET", ended.output)
            return ended.output

    def test_error_of_the_parser(self):
        for arguments in (["-gdiglett://SECRET@h:1"], ["--nonsense=diglett://SECRET@h:1"], ["x", "diglett://SECRET@h"],
                          ["--nonsense=dgl_web_SECRET"], ["status", "dgl_web_SECRET"], ["9", "dgl_web_SECRET"]):
            self.check(*arguments)

    def test_errors_of_settings(self):
        token = "dgl_web-1_SEC-RET_SECRET"
        given = ["-g", "127.0.0.1:1", "--once"]
        self.check(*given, "-n", "x", "--token-file", token, "9", codes=(78,))
        self.check(*given, "-n", "x", "-c", token, "9", codes=(78,))
        for arguments in (["--pin", token], ["--output", token], ["--proxy-protocol", token], ["--public-port", token],
                          ["--log-format", token], ["--url-file", f"/nowhere/{token}"]):
            self.check(*given, "-n", "x", *arguments, "9")
        for arguments in (["-n", "diglett://SECRET@h:1", "9"], ["-n", token, "9"], ["-n", f"x={token}"],
                          ["-n", "x", token], ["-n", "x", "diglett://SECRET@h:1"]):
            self.check(*given, *arguments)
        self.check("status", "--state-dir", token, codes=(69,))
        self.check("explain", token)

    def test_gateway(self):
        token = "dgl_web_SECRET"
        state = ("--state-dir", self.stage.new_directory("state"))
        self.check(token, program="diglett-server")
        self.check("-l", token, program="diglett-server")
        self.check("-c", token, program="diglett-server", codes=(78,))
        self.check("-l", "127.0.0.1:0", "--state-dir", f"/proc/{token}", program="diglett-server", codes=(73,))
        self.check("agent", "remove", token, *state, program="diglett-server", codes=(64, 78))
        self.check("agent", "add", token, "--names", "x", *state, program="diglett-server")
        self.check("agent", "add", "x", "--names", token, *state, program="diglett-server")
        self.check("agent", "add", token, *state, "--log-format", "json", program="diglett-server")
        self.check("ctl", "status", "--control", f"/nowhere/{token}", program="diglett-server", codes=(69,))

    def test_scheme_that_was_forgotten(self):
        """Without the scheme a token would be taken for a host name, and sent to name servers."""
        for address in ("dgl_web_SECRET@h", "dgl_web_SECRET", "SECRET@h", "SECRET@h:1"):
            said = self.check("-g", address, "-n", "x", "9")
            self.assertIn("write diglett://TOKEN@HOST:PORT", said)


class AtATerminal(EndToEndTest):
    """Prompts on the terminal, while standard output is redirected."""

    def start(self, gateway, *arguments, environment=None, prefix=()):
        self.events = self.stage.directory / "events"
        state = self.stage.new_directory("agent-state")
        return self.stage.use(Terminal(
            [*prefix, program_path("diglett"), "-g", gateway, "--state-dir", state, "--output", "json", "-n", "example",
             *arguments, "9"], self.stage, stdout=self.events, environment=environment))

    def test_question_about_the_key(self):
        """The agent asks the user to confirm the key of a gateway on another machine."""
        hosts = self.stage.use(TwoHosts())
        gateway = self.stage.gateway("--auth", "open", listen=f"{hosts.NEAR_ADDRESS}:0", prefix=hosts.near)
        terminal = self.start(gateway.address, prefix=hosts.far)
        terminal.await_text(re.escape(gateway.pin) + r"(?s:.*)\[yes/no\] ")
        terminal.write("maybe\n")
        terminal.await_text("Please type yes or no: ")
        terminal.write("yes\n")
        wait_until(lambda: "registered" in self.events.read_text(), "the name")
        for line in self.events.read_text().splitlines():
            json.loads(line)
        os.kill(terminal.pid, signal.SIGTERM)
        self.assertEqual(terminal.wait_exit(), 0)

    def echoes(self, terminal):
        return bool(termios.tcgetattr(terminal.descriptor)[3] & termios.ECHO)

    def test_token_is_not_shown(self):
        gateway = self.stage.gateway("--auth", "open")
        terminal = self.start(gateway.address, "--token-file", "-", "--pin", gateway.pin)
        terminal.await_text(r"Token \(not shown; end it with Enter and Ctrl-D\): ")
        wait_until(lambda: not self.echoes(terminal), "silence")
        # Ctrl-Z must not stop the agent, or the shell would have a terminal without echo.
        os.write(terminal.descriptor, b"\x1adgl_web_SECRET\n\x04")
        wait_until(lambda: "registered" in self.events.read_text(), "the name")
        self.assertTrue(self.echoes(terminal))
        os.kill(terminal.pid, signal.SIGTERM)
        self.assertEqual(terminal.wait_exit(), 0)
        self.assertNotIn("SECRET", terminal.shown)

    def test_token_file_of_the_configuration(self):
        file = self.stage.directory / "diglett.toml"
        file.write_text('token-file = "-"\n')
        terminal = self.start("127.0.0.1:9", "-c", file)
        wait_until(lambda: not self.echoes(terminal), "silence")
        os.write(terminal.descriptor, b"dgl_web_SECRET\n\x04")
        wait_until(lambda: self.echoes(terminal), "the end of the silence")

    def test_interrupted(self):
        for key, number in ((b"\x03", signal.SIGINT), (b"\x1c", signal.SIGQUIT), (None, signal.SIGTERM)):
            with self.subTest(number):
                terminal = self.start("127.0.0.1:9", "--token-file", "-")
                terminal.await_text(r"Token \(not shown; ")
                wait_until(lambda: not self.echoes(terminal), "silence")
                if key:
                    os.write(terminal.descriptor, key)
                else:
                    os.kill(terminal.pid, number)
                self.assertEqual(terminal.wait_exit(), -number)
                self.assertTrue(self.echoes(terminal))

    def test_colours(self):
        for environment, coloured in (({"TERM": "xterm"}, True), ({"TERM": "dumb"}, False),
                                      ({"TERM": "xterm", "NO_COLOR": ""}, False)):
            with self.subTest(environment):
                terminal = self.start("127.0.0.1:9", "--once", environment=environment)
                terminal.wait_exit()
                self.assertIn("ERROR", terminal.shown)
                self.assertEqual("\x1b[" in terminal.shown, coloured)


class HelpAndVersion(CommandLineTest):
    def test_help(self):
        wanted = {
            "diglett": ("--pin", "--once", "--output", "--public-port", "--token-file", "-g", "-n", "-d"),
            "diglett-server": ("--state-dir", "--expose-bind", "--expose-ports", "--auth", "-l", "-d"),
        }
        for name, options in wanted.items():
            with self.subTest(program=name):
                code, program = self.run_program(name, "--help")
                self.assertEqual(code, 0)
                text = "\n".join(program.stdout)
                for option in options:
                    self.assertIn(option, text)

    def test_commands_of_agents_say_which_gateway_is_meant(self):
        """The gateway's options choose the gateway, and also work after the command."""
        for command in ((), ("add",), ("list",), ("rotate",), ("remove",), ("pin",)):
            code, program = self.run_program("diglett-server", "agent", *command, "--help", kind=Program)
            self.assertEqual(code, 0)
            text = " ".join("\n".join(program.stdout).split())
            self.assertIn("--agents-file, --state-dir and --config select the gateway.", text)

    def test_version(self):
        for name in ("diglett", "diglett-server"):
            with self.subTest(program=name):
                code, program = self.run_program(name, "--version")
                self.assertEqual(code, 0)
                self.assertRegex("\n".join(program.stdout), r"\d+\.\d+")


class Explain(CommandLineTest):
    """`explain CODE` of both programs explains exit codes and codes in logs."""

    def explain(self, program, *arguments):
        code, ended = self.run_program(program, "explain", *arguments, kind=Program)
        return code, "\n".join(ended.stdout), "\n".join(ended.stderr)

    def test_what_an_agent_ended_with(self):
        tunnel = self.stage.expose("9")
        status, event = self.stage.agent(tunnel.gateway, "-n", "example", "9").refusal()
        for program in ("diglett", "diglett-server"):
            for query in (str(status), event["code"], event["code"].upper()):
                with self.subTest(program=program, query=query):
                    code, text, errors = self.explain(program, query)
                    self.assertEqual((code, errors), (0, ""))
                    self.assertIn("14 name-taken (exit code of diglett)\n", text)
                    self.assertIn("another agent holds the name", text)

    def test_a_number_that_means_several_things(self):
        code, text, _ = self.explain("diglett", "64")
        self.assertEqual(code, 0)
        self.assertEqual(re.findall(r"(?m)^64 (\S+)", text), ["usage", "usage", "login-refused"])

    def test_without_a_code_all_are_listed(self):
        lists = [self.explain(program) for program in ("diglett", "diglett-server")]
        self.assertEqual(lists[0], lists[1])
        code, text, errors = lists[0]
        self.assertEqual((code, errors), (0, ""))
        for line in ("18  port-refused", "73  state", "86  registrar-failed"):
            self.assertIn(line, text)

    def test_unknown(self):
        for program in ("diglett", "diglett-server"):
            listing = ": 'diglett explain' and 'diglett-server explain' list all codes"
            for query, answer in (("nmae-taken", "unknown code 'nmae-taken'; did you mean 'name-taken'?"),
                                  ("19", "unknown code 19" + listing), ("frobnicate", "unknown code 'frobnicate'" + listing)):
                with self.subTest(program=program, query=query):
                    code, text, errors = self.explain(program, query)
                    self.assertEqual((code, text), (64, ""))
                    self.assertIn(answer, errors)

    def test_the_document_is_what_the_program_prints(self):
        code, text, _ = self.explain("diglett-server", "--markdown")
        self.assertEqual(code, 0)
        self.assertEqual(text + "\n", (REPOSITORY / "docs" / "errors.md").read_text())

    def test_help_names_the_commands_and_runs_none(self):
        code, program = self.run_program("diglett", "help", kind=Program)
        self.assertEqual(code, 0)
        self.assertRegex("\n".join(program.stdout), r"(?m)^  explain ")
        for command in ("key", "explain"):
            with self.subTest(command=command):
                code, program = self.run_program("diglett", "help", command, kind=Program)
                self.assertEqual(code, 0)
                self.assertIn(f"USAGE: diglett {command}", "\n".join(program.stdout))
        self.assertFalse((self.stage.directory / "state-home").exists(), "'help key' made a key")


class BadArguments(CommandLineTest):
    """Exit code 64 and a message on stderr, before the program connects or listens."""

    def test_agent(self):
        cases = {
            "nothing": [],
            "no gateway": ["-n", "example", "9000"],
            "no name": ["-g", "127.0.0.1", "9000"],
            "no backend": ["-g", "127.0.0.1", "-n", "example"],
            "unknown option": ["-g", "127.0.0.1", "-n", "example", "--frobnicate", "9000"],
            "bad backend port": ["-g", "127.0.0.1", "-n", "example", "127.0.0.1:99999"],
            "bad gateway port": ["-g", "127.0.0.1:port", "-n", "example", "9000"],
            "bad pin": ["-g", "127.0.0.1", "-n", "example", "--pin", "sha256/short", "9000"],
            "bad output": ["-g", "127.0.0.1", "-n", "example", "--output", "xml", "9000"],
            "no command": ["-g", "127.0.0.1", "-n", "example", "--exec-on-ready", "", "9000"],
            "bad public port": ["-g", "127.0.0.1", "-n", "example", "--public-port", "70000", "9000"],
        }
        for case, arguments in cases.items():
            with self.subTest(case=case):
                code, program = self.run_program("diglett", *arguments)
                self.assertEqual(code, 64)
                self.assertTrue(program.stderr, "no message")

    def test_gateway(self):
        for arguments in (["--frobnicate"], ["-l", "nonsense:port"], ["-l", "127.0.0.1:99999"],
                          ["--expose-ports", "9-1"], ["--expose-ports", "many"], ["--auth", "magic"]):
            with self.subTest(arguments=arguments):
                code, program = self.run_program("diglett-server", *arguments, kind=Gateway)
                self.assertEqual(code, 64)
                self.assertTrue(program.stderr, "no message")


    def test_usage_names_the_whole_command(self):
        commands = [("diglett", name) for name in ("key", "status", "explain")]
        commands += [("diglett-server", *names) for names in (
            ("agent", "add"), ("agent", "list"), ("ctl", "status"), ("ctl", "ban"), ("check",), ("explain",))]
        for program, *names in commands:
            with self.subTest(program=program, names=names):
                code, ended = self.run_program(program, *names, "--frobnicate")
                self.assertEqual(code, 64)
                whole = " ".join((program, *names))
                self.assertIn(f"Usage: {whole}", ended.output)
                self.assertIn(f"See '{whole} --help' for more information.", ended.output)

    def test_usage_of_a_value_that_is_refused(self):
        code, ended = self.run_program("diglett-server", "ctl", "ban", "192.0.2.1", "--for", "0s")
        self.assertEqual(code, 64)
        self.assertIn("Usage: diglett-server ctl ban ", ended.output)

    def test_control_that_is_no_path(self):
        for text, advice in (("none", "has no control socket"), ("run/control.sock", "is not an absolute path")):
            code, ended = self.run_program("diglett-server", "ctl", "status", "--control", text)
            self.assertEqual(code, 64)
            self.assertIn(advice, ended.output)
            file = self.stage.directory / "diglett-server.toml"
            file.write_text(f'control = "{text}"\n')
            code, ended = self.run_program("diglett-server", "ctl", "status", "-c", file)
            self.assertEqual(code, 78)
            self.assertIn(f"{file}: control: ", ended.output)
            self.assertIn(advice, ended.output)


class DebugFlag(CommandLineTest):
    def test_anywhere_and_repeated(self):
        """`-d` takes no value, so it may appear before, between and after all other arguments."""
        gateway = self.stage.gateway("-d", "-d")
        backend = self.stage.use(Listener(backends.answering(b"debugged")))
        # Not at 1: in `-n -d` it would be the name.
        for position in (0, 2, 3):
            name = f"debug-{position}"
            arguments = ["-n", name, backend.address]
            arguments.insert(position, "-d")
            with self.subTest(arguments=arguments):
                agent = self.stage.agent(gateway, *arguments)
                self.assertEqual(get(f"http://127.0.0.1:{agent.wait_registered(name)}/"), b"debugged")
                self.assertEqual(agent.wait_event("stream")["name"], name)
        agent = self.stage.agent(gateway, "-d", "-n", "twice", "-d", backend.address)
        agent.wait_registered("twice")


class JsonEvents(CommandLineTest):
    def test_life_of_an_agent(self):
        backend = self.stage.use(Listener(backends.answering(b"event")))
        tunnel = self.stage.expose(backend.address, "-d")
        gateway, agent = tunnel.gateway, tunnel.agent

        connected = agent.wait_event("connected")
        self.assertEqual(connected["pin"], gateway.pin)
        self.assertIn(str(gateway.port), connected["gateway"])

        registered = agent.wait_event("registered")
        self.assertEqual(registered["name"], "example")
        self.assertEqual(registered["port"], gateway.wait_registered("example"))
        self.assertEqual(registered["address"], f"127.0.0.1:{registered['port']}")
        self.assertEqual(registered["backend"], backend.address)

        with tunnel.connect() as visitor:
            visitor.sendall(b"GET / HTTP/1.0\r\n\r\n")
            backends.read_all(visitor)
            source = "{}:{}".format(*visitor.getsockname())
        stream = agent.wait_event("stream")
        self.assertEqual((stream["name"], stream["visitor"]), ("example", source))

        gateway.kill()
        self.assertTrue(agent.wait_event("interrupted")["reason"])
        self.assertGreaterEqual(agent.wait_event("retrying")["seconds"], 0)
        kinds = [event["event"] for event in agent.events()]
        self.assertEqual(kinds[:5], ["connected", "registered", "stream", "interrupted", "retrying"])

    def test_no_stream_events_without_debug(self):
        backend = self.stage.use(Listener(backends.answering(b"quiet")))
        tunnel = self.stage.expose(backend.address)
        self.assertEqual(get(tunnel.url), b"quiet")
        self.assertEqual(tunnel.agent.stop(), 0)
        self.assertEqual(tunnel.agent.events("stream"), [])

    def test_refused_is_the_last_event(self):
        tunnel = self.stage.expose("9")
        agent = self.stage.agent(tunnel.gateway, "-n", "example", "9")
        agent.refusal()
        self.assertEqual(agent.events()[-1]["event"], "refused")
        self.assertEqual(len(agent.events("refused")), 1)

    def test_text_output_names_the_public_address(self):
        gateway = self.stage.gateway()
        agent = self.stage.start("agent", [
            program_path("diglett"), "-g", gateway.address, "-n", "example", "9"])
        port = gateway.wait_registered("example")
        agent.wait_line(agent.stdout, re.compile(rf"127\.0\.0\.1:{port}\b").search, "the public address")


class Once(CommandLineTest):
    def test_unreachable(self):
        agent = self.stage.agent(f"127.0.0.1:{free_port()}", "--once", "-n", "example", "9")
        self.assertEqual(agent.wait_exit(), 69)
        self.assertEqual(agent.events("retrying"), [])

    def test_link_lost(self):
        tunnel = self.stage.expose("9", "--once")
        tunnel.gateway.kill()
        self.assertEqual(tunnel.agent.wait_exit(), 69)
        self.assertEqual(len(tunnel.agent.events("lost")), 1)

    def test_signals_still_end_it_with_0(self):
        tunnel = self.stage.expose("9", "--once")
        self.assertEqual(tunnel.agent.stop(signal.SIGINT), 0)

    def test_signal_while_waiting_to_retry(self):
        agent = self.stage.agent(f"127.0.0.1:{free_port()}", "-n", "example", "9")
        agent.wait_event("retrying")
        self.assertEqual(agent.stop(timeout=3), 0)


class Tokens(CommandLineTest):
    """An open gateway accepts any token; the tests show that the agent reads it, and that no log has it."""

    TOKEN = "dgl_1_kept-to-ourselves"

    def check(self, *options, env=None):
        gateway = self.stage.gateway("-d", "-d")
        agent = self.stage.agent(gateway, "-d", "-d", *options, "-n", "example", "9",
                                 env={**self.stage.environment(), **(env or {})})
        agent.wait_registered()
        self.assertEqual(agent.stop(), 0)
        self.assertNotIn(self.TOKEN, agent.output)
        self.assertNotIn(self.TOKEN, gateway.output)

    def test_argument(self):
        self.check("-t", self.TOKEN)

    def test_environment(self):
        self.check(env={"DIGLETT_TOKEN": self.TOKEN})

    def token_file(self, mode):
        path = self.stage.directory / "token"
        path.write_text(self.TOKEN + "\n")
        path.chmod(mode)
        return path

    def test_file(self):
        self.check("--token-file", self.token_file(0o600))

    def test_standard_input(self):
        gateway = self.stage.gateway("-d", "-d")
        command = [program_path("diglett"), "-g", gateway.address, "-n", "example", "--token-file", "-", "9",
                   "--state-dir", str(self.stage.new_directory("agent-state")), "-d", "-d", "--output", "json"]
        script = 'exec "$@" <<END\n$0\nEND'
        agent = self.stage.start("agent", ["/bin/sh", "-c", script, self.TOKEN, *command], Agent)
        agent.wait_registered()
        self.assertNotIn(self.TOKEN, agent.output)

    def test_empty_standard_input(self):
        # The harness starts programs with /dev/null as standard input.
        agent = self.stage.agent("127.0.0.1", "--token-file", "-", "-n", "example", "9")
        self.assertEqual(agent.wait_exit(), 78)
        self.assertIn("standard input: is empty: it must hold the token", agent.output)

    def test_list_of_processes(self):
        """`ps` shows the running agent's arguments with the token masked, and everything else unchanged."""
        gateway = self.stage.gateway()
        line = f"diglett://{self.TOKEN}@{gateway.address}#{gateway.pin}"
        cases = {
            "-t": ([], "-t", self.TOKEN), "--token": ([], "--token", self.TOKEN),
            "--token=": ([], f"--token={self.TOKEN}"), "-g": (["-g", line],), "--gateway=": ([f"--gateway={line}"],),
            "both": (["-g", line], "-t", self.TOKEN),
        }
        for number, (case, (address, *arguments)) in enumerate(cases.items()):
            with self.subTest(case=case):
                name = f"name-{number}"
                given = [program_path("diglett"), "--output", "json", *(address or ["-g", gateway.address]),
                         "-n", name, "--state-dir", str(self.stage.new_directory("agent-state")), *arguments, "9"]
                agent = self.stage.start("agent", given, Agent)
                agent.wait_registered(name)
                shown = Path(f"/proc/{agent.pid}/cmdline").read_bytes().decode().split("\0")[:-1]
                self.assertEqual(shown, [word.replace(self.TOKEN, "*" * len(self.TOKEN)) for word in given])

    def check_bad_file(self, path):
        agent = self.stage.agent("127.0.0.1", "--token-file", path, "-n", "example", "9")
        self.assertIn(agent.wait_exit(), (64, 78))
        self.assertIn(str(path), agent.output)
        self.assertNotIn(self.TOKEN, agent.output)
        self.assertEqual(agent.events("retrying"), [], "dialled before reading the token")

    def test_missing_file(self):
        self.check_bad_file(self.stage.directory / "no-such-token")

    def test_file_that_others_can_read(self):
        self.check_bad_file(self.token_file(0o644))


class ConfigurationFile(CommandLineTest):
    def write(self, text):
        path = self.stage.directory / "diglett.toml"
        path.write_text(text)
        return path

    def test_agent(self):
        first, second = (self.stage.use(Listener(backends.answering(body))) for body in (b"1", b"2"))
        gateway = self.stage.gateway()
        wanted = free_port()
        path = self.write(f"""\
gateway = "{gateway.address}"
output = "json"
state-dir = "{self.stage.new_directory('agent-state')}"

[[expose]]
name = "first"
backend = "{first.address}"
public-port = {wanted}

[[expose]]
name = "second"
backend = "{second.address}"
""")
        agent = self.stage.start("agent", [program_path("diglett"), "-c", path], Agent)
        self.assertEqual(agent.wait_registered("first"), wanted)
        self.assertEqual(get(f"http://127.0.0.1:{wanted}/"), b"1")
        self.assertEqual(get(f"http://127.0.0.1:{agent.wait_registered('second')}/"), b"2")

    def test_gateway(self):
        path = self.write(f"""\
listen = ["127.0.0.1:0"]
state-dir = "{self.stage.new_directory('gateway-state')}"
expose-bind = "127.0.0.6"
""")
        gateway = self.stage.start(
            "gateway", [program_path("diglett-server"), "-c", path], Gateway).wait_listening()
        agent = self.stage.agent(gateway, "-n", "example", "9")
        self.assertTrue(agent.wait_event("registered")["address"].startswith("127.0.0.6:"))

    def test_unknown_key(self):
        """The message must name the file and the line."""
        for program in ("diglett", "diglett-server"):
            with self.subTest(program=program):
                path = self.write("# a comment\nstate-dir = \"/nowhere\"\nfrobnicate = 1\n")
                code, ended = self.run_program(program, "-c", path)
                self.assertEqual(code, 78)
                self.assertIn("frobnicate", ended.output)
                self.assertRegex(ended.output, rf"{re.escape(str(path))}:3\b|"
                                               rf"{re.escape(str(path))}.*\bline 3\b")

    def test_check_of_a_file_in_the_working_directory(self):
        """A path without a slash is a file, not a bad argument."""
        path = self.write("frobnicate = 1\n")
        for arguments, expected in ((["check", path.name], 78), (["-l", "nonsense", "check", path.name], 78),
                                    (["-l", "nonsense", "check"], 64)):
            with self.subTest(arguments=arguments):
                code, ended = self.run_program("diglett-server", *arguments, cwd=path.parent)
                self.assertEqual(code, expected, ended.output)

    def test_unknown_key_in_a_table(self):
        path = self.write('gateway = "127.0.0.1"\n[[expose]]\nname = "a"\nbackend = "9"\nbackends = "9"\n')
        code, ended = self.run_program("diglett", "-c", path)
        self.assertEqual(code, 78)
        self.assertIn("backends", ended.output)
        self.assertRegex(ended.output, rf"{re.escape(str(path))}(:5\b|.*\bline 5\b)")

    def test_broken(self):
        cases = {"syntax": "gateway = \n", "type": "gateway = 7\n",
                 "name": 'gateway = "127.0.0.1"\n[[expose]]\nname = "Bad_Name!"\nbackend = "9"\n'}
        for case, text in cases.items():
            with self.subTest(case=case):
                path = self.write(text)
                code, ended = self.run_program("diglett", "-c", path)
                self.assertEqual(code, 78)
                self.assertIn(str(path), ended.output)

    def test_missing(self):
        path = self.stage.directory / "no-such.toml"
        for program in ("diglett", "diglett-server"):
            with self.subTest(program=program):
                code, ended = self.run_program(program, "-c", path)
                self.assertEqual(code, 78)
                self.assertIn(str(path), ended.output)


class GatewayStart(CommandLineTest):
    def test_port_in_use(self):
        other = self.stage.use(Listener(backends.serve_echo))
        gateway = self.stage.gateway(listen=other.address, ready=False)
        self.assertEqual(gateway.wait_exit(), 71)
        line = next(line for line in gateway.stderr if other.address in line)
        self.assertRegex(line, r"(?i)in use")

    def test_port_of_a_registrar_in_use(self):
        other = self.stage.use(Listener(backends.serve_echo))
        path = self.stage.directory / "server.toml"
        path.write_text(f'[[registrar]]\nkind = "traefik"\ndomain = "a.test"\nlisten = "{other.address}"\n')
        gateway = self.stage.gateway("-c", path, ready=False)
        self.assertEqual(gateway.wait_exit(), 71)
        self.assertRegex(gateway.output, rf"{path}:4: registrar traefik: .*{other.address}.*in use")

    def test_two_gateways_on_one_state_directory(self):
        first = self.stage.gateway()
        second = self.stage.gateway(state=first.state, ready=False)
        self.assertEqual(second.wait_exit(), 73)
        self.assertIn(str(first.state), second.output)
        self.assertTrue(first.running)
        # If the lock outlived a killed gateway, the operator would have to remove it.
        first.kill()
        self.stage.gateway(state=first.state)

    def test_state_directory_that_cannot_be_made(self):
        file = self.stage.directory / "file"
        file.write_text("")
        gateway = self.stage.gateway(state=file / "below", ready=False)
        self.assertEqual(gateway.wait_exit(), 73)
        self.assertIn(str(file), gateway.output)

    def test_several_listeners(self):
        gateway = self.stage.gateway("-l", "127.0.0.7:0")
        match = gateway.wait_log(r"listening for agents on 127\.0\.0\.7:(\d+)")
        agent = self.stage.agent(f"127.0.0.7:{match.group(1)}", "-n", "example", "9")
        self.assertEqual(agent.wait_registered(), gateway.wait_registered("example"))
