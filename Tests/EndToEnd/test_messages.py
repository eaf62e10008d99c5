"""What people read: help texts, and the answers to mistakes. Most are compared with golden files (golden.py)."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import unittest

import backends
import golden
from administration import AgentsFile, ctl, run
from backends import Listener
from harness import EndToEndTest, free_port, hold_port, program_path, wait_until
from namespaces import TwoHosts
from terminals import Terminal
from visitors import get

# A token in a wrong place must not be repeated.
SECRET = "S3CRET" + "x" * 37

# Files that the commands below read.
FILES = {
    "no-gateway.toml": '[[expose]]\nname = "web"\nbackend = "9000"\n',
    "no-name.toml": 'gateway = "localhost"\n',
    "unknown.toml": 'gateway = "localhost"\nonse = true\ncolour = "red"\n\n'
                    '[[expose]]\nname = "web"\nbackend = "9000"\npublicport = 1\n',
    "three.toml": 'gateway = "localhost:x"\npin = "abc"\noutput = "xml"\n\n[[expose]]\nname = "my_app"\nbackend = "9000"\n',
    "unclosed.toml": 'gateway = "localhost\n\n[[expose]]\nname = "web"\n',
    "unquoted.toml": "gateway = localhost\n",
    "yes.toml": 'gateway = "localhost"\nonce = yes\n',
    "kinds.toml": '[expose]\nname = "web"\n\n[[expose]]\nname = "db"\n',
    "twice.toml": 'gateway = "a"\ngateway = "b"\n',
    "number.toml": 'gateway = "localhost"\nstall-timeout = 0\n\n[[expose]]\nname = "web"\nbackend = "9000"\n',
    "no-token-file.toml": 'gateway = "localhost"\ntoken-file = "missing"\n\n[[expose]]\nname = "web"\nbackend = "9000"\n',
    "no-backend.toml": 'gateway = "localhost"\n\n[[expose]]\nname = "web"\n',
    "token.toml": 'gateway = "localhost"\ntoken = "dgl_web_x"\n\n[[expose]]\nname = "web"\nbackend = "9000"\n',
    "good.toml": 'gateway = "localhost"\n\n[[expose]]\nname = "web"\nbackend = "9000"\n',
    "server.toml": 'listen = ["localhost"]\nexpose-prots = "1-2"\nauth = "ldap"\n\n[[registrar]]\nkind = "apache"\n\n'
                   '[limits]\nmemory = "lots"\n',
    "no-files.toml": 'tls-cert = "/missing/cert.pem"\ntls-key = "/missing/key.pem"\nauth = "file"\n'
                     'agents-file = "/missing/agents.toml"\n',
    "nginx.toml": '[[registrar]]\nkind = "nginx"\ndomain = "Gateway.com"\nfile = "map"\nreload = ["nginx"]\n',
    "hook.toml": 'auth = "webhook"\n\n[auth-webhook]\nurl = "http://user:secret@example.com/"\n',
    "agents.toml": '[[agent]]\nname = "web"\nnames = ["web"]\n\n[[agent]]\nname = "web"\nnames = ["w*b"]\nexpires = "soon"\n',
}

# What is typed, as a shell would have it. `diglett-server` has a state directory of its own.
MISTAKES = """\
diglett
diglett statsu
diglett agent add
diglett nonsense
diglett -g localhost -n web 9000 more
diglett -c good.toml check
diglett -g localhost -n web status
diglett --to gateway
diglett --tokn x
diglett -g
diglett -g localhost
diglett -n web 9000
diglett -g localhost 9000
diglett -g localhost -n web
diglett -g localhost -g other -n web 9000
diglett -c good.toml -c good.toml
diglett -g localhost -n web http://localhost:9000
diglett -g localhost -n web https://localhost:9443
diglett -g localhost -n web 0
diglett -g localhost -n web 70000
diglett -g localhost -n web localhost:70000
diglett -g localhost -n web localhost:http
diglett -g localhost -n web localhost:
diglett -g localhost -n web localhost
diglett -g localhost -n web :9000
diglett -g localhost -n web .
diglett -g localhost -n web ./web.sock
diglett -g localhost -n web /run/web.sock
diglett -g localhost -n web /tmp
diglett -g localhost -n web localhost:9000/
diglett -g localhost -n web localhost/9000
diglett -g localhost -n web ::1:9000
diglett -g localhost -n web '[::1]'
diglett -g localhost -n web '[::1'
diglett -g localhost -n web 'local host:9000'
diglett -g localhost -n web unix:
diglett -g https://gateway.example.com -n web 9000
diglett -g tcp://gateway.example.com:20000 -n web 9000
diglett -g gateway.example.com:abc -n web 9000
diglett -g gateway.example.com:0 -n web 9000
diglett -g ::1:25000 -n web 9000
diglett -g dgl_web_x@gateway.example.com -n web 9000
diglett -g diglett://dgl_web_x@gateway.example.com:x -n web 9000
diglett -g 'diglett://dgl_web_x@localhost#sha256/x' -n web 9000
diglett -g localhost -n my_app 9000
diglett -g localhost -n admin 9000
diglett -g localhost -n web.example.com 9000
diglett -g localhost -n -web 9000
diglett -g localhost -n ab--c 9000
diglett -g localhost -n '' 9000
diglett -g localhost -n straße 9000
diglett -g localhost -n web -n web 9000
diglett -g localhost -n web=9000 9001
diglett -g localhost -n a -n b --public-port 30000 9000
diglett -g localhost -n web --pin abc 9000
diglett -g localhost -n web --pin sha256/abc 9000
diglett -g localhost -n web --pin sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU 9000
diglett -g localhost -n web --public-port 99999 9000
diglett -g localhost -n web --proxy-protocol v3 9000
diglett -g localhost -n web --output xml 9000
diglett -g localhost -n web -t '' 9000
diglett -g localhost -n web -t 'two words' 9000
diglett -g localhost -n web --token-file missing 9000
diglett -g localhost -n web --url-file missing/file 9000
diglett -g localhost -n web --v1 --public-port 1 9000
diglett -g localhost -n web --log-format xml 9000
diglett -g TOKEN -n web 9000
diglett -g diglett://TOKEN -n web 9000
diglett -g diglett://TOKEN@ -n web 9000
diglett -g diglett://localhost@TOKEN -n web 9000
diglett -g localhost -n TOKEN 9000
diglett -g localhost -n web TOKEN
diglett -g localhost -n web diglett://TOKEN@localhost:1
diglett -g localhost -n web --pin TOKEN 9000
diglett -g localhost -n web --token-file TOKEN 9000
diglett TOKEN
diglett -g=localhost -g=other -n web 9000
diglett check version
diglett -c missing.toml
diglett -c no-gateway.toml
diglett -c no-name.toml
diglett -c unknown.toml
diglett -c three.toml
diglett -c unclosed.toml
diglett -c unquoted.toml
diglett -c twice.toml
diglett -c yes.toml
diglett -c kinds.toml
diglett -c number.toml
diglett -c no-token-file.toml
diglett -c no-backend.toml
diglett -c token.toml
diglett -c good.toml --public-port 1
diglett check three.toml
diglett check good.toml
diglett check
diglett status
diglett status --output xml
diglett key extra
diglett explain 999
diglett explain 137
diglett explain name-takn
diglett explain nonsense
diglett explain 14
diglett explain replaced
diglett-server agnet add x
diglett-server status
diglett-server ctl stat
diglett-server ctl
diglett-server agent ad
diglett-server agent list list
diglett-server --control-group ctl agnet
diglett-server -l TOKEN
diglett-server -l diglett://TOKEN@localhost:1
diglett-server agent add TOKEN --names web
diglett-server agent add web --names TOKEN
diglett-server agent add web --names web --host TOKEN
diglett-server -l 25001
diglett-server -l :25001
diglett-server -l '*:p'
diglett-server -l localhost
diglett-server -l ::1:25001
diglett-server -l localhost:1 --auth ldap
diglett-server --expose-ports 9-5
diglett-server --expose-ports ten
diglett-server --expose-ports none
diglett-server --expose-bind 300.1.1.1
diglett-server --expose-sockets names
diglett-server --accept-proxy-protocol 10.0.0.1/8
diglett-server --accept-proxy-protocol lan
diglett-server --metrics 0.0.0.0:9464
diglett-server --metrics-per-name
diglett-server --tls-cert cert.pem
diglett-server --listen-v1 0.0.0.0:1
diglett-server --control here
diglett-server -d --log-format yaml
diglett-server check server.toml
diglett-server check no-files.toml
diglett-server check nginx.toml
diglett-server check hook.toml
diglett-server check missing.toml
diglett-server check --agents-file agents.toml
diglett-server ctl status
diglett-server ctl ban nonsense --for 1x
diglett-server agent add web
diglett-server agent add web --names 'w_b'
diglett-server agent add Web_1 --names web
diglett-server agent add web --names web --expires 2020-01-01
diglett-server agent add web --names web --expires soon
diglett-server agent add web --names web --ports high
diglett-server agent add web --names web --pin abc
diglett-server agent add web --names web --host 'a b'
diglett-server agent rotate unknown-agent
diglett-server agent rotate unknown-agent --grace 1x
diglett-server agent remove unknown-agent
diglett-server agent pin unknown-agent abc
diglett-server agent list
diglett-server agent list --output xml
diglett-server explain 70
diglett-server explain state
"""


class HelpTexts(unittest.TestCase):
    def test_all(self):
        """Every command has a help text; the page of each is a golden file."""
        commands = ["diglett", "diglett check", "diglett key", "diglett status", "diglett explain", "diglett-server"]
        commands += [f"diglett-server {words}" for words in (
            "agent", "agent add", "agent list", "agent rotate", "agent remove", "agent pin", "check", "explain", "ctl",
            "ctl status", "ctl agents", "ctl exposures", "ctl streams", "ctl penalties", "ctl bans", "ctl kick", "ctl ban",
            "ctl unban", "ctl drain", "ctl reload", "ctl log-level")]
        for command in commands:
            with self.subTest(command):
                program, *words = command.split()
                result = subprocess.run(
                    [program_path(program), *words, "--help"], capture_output=True, text=True, timeout=30, check=True)
                self.assertEqual(result.stderr, "")
                golden.check(self, f"help/{command.replace(' ', '-')}.txt", result.stdout)


class Mistakes(EndToEndTest):
    def test_each(self):
        """The answer to each mistake, and the exit code."""
        place = self.stage.new_directory("mistakes")
        for name, text in FILES.items():
            (place / name).write_text(text)
            (place / name).chmod(0o600 if name == "agents.toml" else 0o644)
        environment = {**self.stage.environment(), "DIGLETT_TOKEN": ""}
        transcript = []
        for line in MISTAKES.replace("TOKEN", f"dgl_web_{SECRET}").splitlines():
            program, *words = shlex.split(line)
            if program == "diglett-server":
                words += ["--state-dir", place / "state"]
            elif words and words[0] in ("status", "key"):
                words += ["--state-dir", place / "agent"]
            # Each of them ends by itself: a program that starts instead is stopped, and its exit code tells.
            result = subprocess.run(
                ["timeout", "10", program_path(program), *map(str, words)], cwd=place, env=environment,
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
            self.assertNotIn(SECRET.lower(), (result.stdout + result.stderr).lower(), line)
            output = golden.normalized(result.stdout + result.stderr, (place, "DIR"), (self.stage.directory, "HOME"))
            self.assertNotEqual(result.returncode, 124, f"{line}: it started")
            # Only root gets this line.
            output = re.sub(r"^not checked, because this is root: .*\n", "", output, flags=re.MULTILINE)
            transcript.append(f"$ {line.replace(SECRET, 'SECRET')}\n{output}[{result.returncode}]\n")
        golden.check(self, "mistakes.txt", "\n".join(transcript))

    def test_errors_of_the_command_line_are_for_people_unless_programs_read_the_log(self):
        json_line = subprocess.run(
            [program_path("diglett"), "--log-format", "json", "-g", "localhost", "9000"],
            env=self.stage.environment(), capture_output=True, text=True, timeout=30, check=False)
        self.assertEqual(json_line.returncode, 64)
        self.assertEqual(json.loads(json_line.stderr)["message"], "option --name: missing, for example -n example")

    def test_the_version_as_a_word(self):
        for program in ("diglett", "diglett-server"):
            word, option = (subprocess.run(
                [program_path(program), argument], env=self.stage.environment(), capture_output=True, text=True,
                timeout=30, check=True).stdout for argument in ("version", "--version"))
            self.assertEqual(word, option)
            self.assertRegex(word, rf"^{program} \d+\.\d+")

    def test_a_state_directory_that_cannot_be_created(self):
        """A service user often has a home that does not exist."""
        if os.geteuid() != 0:
            self.skipTest("needs root to become another user")
        result = subprocess.run(
            [program_path("diglett"), "-g", "localhost", "-n", "web", "9000"], user=65534, group=65534, extra_groups=[],
            env={"HOME": "/nonexistent"}, capture_output=True, text=True, timeout=30, check=False)
        self.assertEqual(result.returncode, 78)
        self.assertRegex(
            result.stderr, r"ERROR /nonexistent: the state directory cannot be created: permission denied; "
            r"pass --state-dir DIR\n$")

    def test_ctl_as_another_user(self):
        if os.geteuid() != 0:
            self.skipTest("needs root to become another user")
        gateway = self.stage.gateway()
        for directory in (gateway.state, *gateway.state.parents):
            if directory == self.stage.directory.parent:
                break
            directory.chmod(0o755)
        result = subprocess.run(
            [program_path("diglett-server"), "--state-dir", gateway.state, "ctl", "status"], user=65534, group=65534,
            extra_groups=[], env={}, capture_output=True, text=True, timeout=30, check=False)
        self.assertEqual((result.returncode, result.stderr), (
            69, f"error: permission denied for {gateway.state}/control.sock: run this as root or as the gateway's user; "
            "'control-group' in the gateway's configuration allows a group\n"))


class Running(EndToEndTest):
    """Messages of programs that run."""

    def agents(self, *options):
        gateway = self.stage.gateway(*options)
        return gateway, AgentsFile(self.stage, gateway)

    def test_no_token_and_a_text_that_is_no_token(self):
        gateway, agents = self.agents()
        agents.add("web", "--names", "web")
        for options, text in (
                ((), "the login was refused: no token was given: pass --token-file FILE, "
                     "-t TOKEN or DIGLETT_TOKEN"),
                (("-t", "secret"), "the login was refused: the token is not a complete token of 'agent add' (dgl_NAME_...)"),
                (("-t", "dgl_web_short"), "the login was refused: the token is not a complete token of 'agent add'")):
            with self.subTest(options):
                agent = self.stage.agent(gateway, "-n", "web", *options, "9")
                self.assertEqual(agent.wait_exit(), 11)
                self.assertIn(text, agent.output)

    def test_a_name_without_right(self):
        gateway, agents = self.agents()
        token = agents.add("web", "--names", "web,app-*", "--ports", "30000-30010").token
        agent = self.stage.agent(gateway, "-n", "foo", "-t", token, "9")
        self.assertEqual(agent.wait_exit(), 13)
        self.assertIn("the gateway refused the name 'foo': 'foo' is not among your names (web, app-*)", agent.output)
        agent = self.stage.agent(gateway, "-n", "web", "-t", token, "--public-port", "31000", "9")
        self.assertEqual(agent.wait_exit(), 18)
        self.assertIn("port 31000 is not among your ports (30000-30010)", agent.output)

    def test_expired_while_running(self):
        gateway, agents = self.agents()
        token = agents.add("web", "--names", "web").token
        agent = self.stage.agent(gateway, "-n", "web", "-t", token, "9")
        agent.wait_registered("web")
        agents.set("web", 'expires = "2020-01-01"')
        self.assertEqual(agent.wait_exit(), 11)
        self.assertIn("access revoked: the agent has expired", agent.output)

    def test_the_first_agent_in_the_file_ends_those_without_a_login(self):
        gateway, agents = self.agents()
        agent = self.stage.agent(gateway, "-n", "web", "9")
        agent.wait_registered("web")
        agents.add("other", "--names", "other")
        self.assertEqual(agent.wait_exit(), 11)
        self.assertIn("access revoked: the gateway now has an agents file and accepts only agents with a token or key",
                      agent.output)

    def test_the_host_of_agent_add_is_a_guess(self):
        """Without --host the command has the machine's name, with the port of the gateway that runs."""
        gateway = self.stage.gateway()
        result = run(self.stage, "diglett-server", "agent", "add", "web", "--names", "web", "--state-dir", gateway.state)
        port = gateway.address.rpartition(":")[2]
        self.assertRegex(result.stdout, rf"diglett -g 'diglett://\S+@{socket.gethostname()}:{port}#sha256/")
        self.assertIn(f"'{socket.gethostname()}' is the name of this machine: pass --host if agents reach it by another one\n",
                      result.stdout)
        result = run(self.stage, "diglett-server", "agent", "rotate", "web", "--host", "gateway.com", "--state-dir",
                     gateway.state)
        self.assertIn(f"@gateway.com:{port}#sha256/", result.stdout)
        self.assertNotIn("is the name of this machine", result.stdout)

    def test_takeover(self):
        """The newer program learns which program had the name; the older one learns that it lost it."""
        gateway = self.stage.gateway()
        first = self.stage.agent(gateway, "-n", "web", "9")
        first.wait_registered("web")
        second = self.stage.agent(gateway, "-n", "web", "9", state=first.state)
        second.wait_registered("web")
        second.wait_log(r"'web': taken over from another program at 127\.0\.0\.1:\d+")
        self.assertEqual(first.wait_exit(), 15)
        self.assertIn("a newer program of the same agent took over", first.output)

    def test_the_gateway_is_another_program(self):
        def serve(connection):
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        with Listener(serve) as server:
            agent = self.stage.start(
                "agent", [program_path("diglett"), "-g", f"127.0.0.1:{server.port}", "-n", "web", "--once", "--state-dir",
                          self.stage.new_directory("agent"), "9"])
            self.assertEqual(agent.wait_exit(), 69)
            self.assertIn(f"127.0.0.1:{server.port} does not speak TLS: check that it is the port for agents, 20000 by "
                          "default", agent.output)

    def test_the_gateway_is_away(self):
        port = free_port()
        agent = self.stage.start(
            "agent", [program_path("diglett"), "-g", f"127.0.0.1:{port}", "-n", "web", "--state-dir",
                      self.stage.new_directory("agent"), "9"])
        agent.wait_log(rf"WARN  cannot reach the gateway 127\.0\.0\.1:{port}: connection refused: no program listens on that "
                       r"port; check that diglett-server runs and the port is right; retrying in (0\.[1-9]|[1-9]\d*\.\d) s$")

    def test_the_backend_is_down_when_the_agent_starts(self):
        gateway = self.stage.gateway()
        port = free_port()
        agent = self.stage.agent(gateway, "-n", "web", port)
        agent.wait_log(rf"WARN  localhost:{port} refuses connections; visitors will be reset until it is up")

    def test_an_address_that_the_machine_lacks(self):
        gateway = self.stage.gateway("--expose-bind", "203.0.113.5")
        gateway.wait_log("ERROR expose-bind: this machine does not have the address 203.0.113.5; names wait until it has it")
        check = subprocess.run(
            [program_path("diglett-server"), "check", "--expose-bind", "203.0.113.5", "--state-dir", gateway.state],
            env=self.stage.environment(), capture_output=True, text=True, timeout=30, check=False)
        self.assertIn("this machine does not have the address 203.0.113.5", check.stdout + check.stderr)

    def test_an_address_that_only_the_gateways_machine_reaches(self):
        hosts = self.stage.use(TwoHosts())
        gateway = self.stage.gateway("--auth", "open", listen=f"{hosts.NEAR_ADDRESS}:0", prefix=hosts.near)
        agent = self.stage.agent(gateway, "--pin", gateway.pin, "-n", "web", "9", prefix=hosts.far)
        agent.wait_log(
            r"WARN  'web' is reachable at 127\.0\.0\.1:\d+ on the gateway's machine only and forwards to localhost:9; "
            r"set 'expose-bind' there to make it public, or 'public-url' if a proxy serves it$")

    def test_reachable_is_said_once_with_the_scheme(self):
        gateway = self.stage.gateway("-c", self.configuration('public-url = "https://{name}.gateway.com"\n'))
        agent = self.stage.agent(gateway, "-n", "web", "9")
        agent.wait_log(r"'web' is reachable at https://web\.gateway\.com and forwards to localhost:9$")

    def configuration(self, text):
        path = self.stage.new_directory("configuration") / "server.toml"
        path.write_text(text)
        return path

    def test_stopping_with_a_stream(self):
        with Listener(backends.serve_echo) as backend:
            tunnel = self.stage.expose(backend.port)
            with tunnel.connect() as visitor:
                visitor.sendall(b"x")
                self.assertEqual(visitor.recv(1), b"x")
                tunnel.agent.send_signal(signal.SIGINT)
                tunnel.agent.wait_log(
                    r"INFO  stopping: waiting up to 30 s for 1 stream; a second signal \(Ctrl-C\) cuts it$")
                tunnel.agent.send_signal(signal.SIGINT)
                self.assertEqual(tunnel.agent.wait_exit(), 0)


class AtATerminal(EndToEndTest):
    """What a person sees."""

    ENVIRONMENT = {"TERM": "xterm-256color"}

    def agent(self, gateway, *arguments, **environment):
        state = self.stage.new_directory("agent")
        return self.stage.use(Terminal(
            [program_path("diglett"), "-g", gateway.address, "--state-dir", state, *arguments], self.stage,
            environment={**self.ENVIRONMENT, **environment}))

    def test_the_view(self):
        """A block with addresses, the first visitor, warnings, and the way out."""
        port = free_port()
        gateway = self.stage.gateway(listen=f"127.0.0.1:{port}")
        with Listener(backends.answering(b"hello")) as backend:
            terminal = self.agent(gateway, "-n", f"web={backend.port}", "-n", "other=9")
            terminal.await_text("log every visitor")
            ports = [gateway.wait_registered(name) for name in ("web", "other")]
            shown = golden.normalized(
                terminal.shown, (gateway.address, "GATEWAY"), (ports[0], "PORT"), (ports[1], "PORT2"),
                (backend.port, "BACKEND"), ("\r", ""))
            self.assertIn("● connected to GATEWAY\n\n"
                          "  web    127.0.0.1:PORT  →  localhost:BACKEND  online\n"
                          "  other  127.0.0.1:PORT2  →  localhost:9  online\n\n"
                          "Press Ctrl-C to stop; use -d to log every visitor.", shown)
            self.assertIn("\x1b[32m●\x1b[0m", terminal.shown)
            self.assertNotRegex(shown, "INFO|TIME")
            for _ in range(2):
                get(f"http://127.0.0.1:{ports[0]}/")
            terminal.await_text("first visitor of.*127.0.0.1")
            gateway.kill()
            terminal.await_text("warning:.*connection to .* broke.*retrying in")
            state = gateway.state
            self.stage.gateway(listen=f"127.0.0.1:{port}", state=state).wait_registered("web")
            terminal.await_text("connected to .* again")
            self.assertEqual(terminal.shown.count("first visitor"), 1)
            os.write(terminal.descriptor, b"\x03")
            self.assertEqual(terminal.wait_exit(), 0)

    def test_the_log_instead(self):
        """With -d, with NO_COLOR and on a terminal without colours the log is as it is elsewhere."""
        gateway = self.stage.gateway()
        for arguments, environment in ((("-d",), {}), ((), {"NO_COLOR": "1"}), ((), {"TERM": "dumb"})):
            with self.subTest(arguments=arguments, environment=environment):
                terminal = self.agent(gateway, *arguments, "-n", "web=9", **environment)
                terminal.await_text(r"INFO .*'web' is reachable at")
                self.assertNotIn("Press Ctrl-C", terminal.shown)
                os.write(terminal.descriptor, b"\x03")
                self.assertEqual(terminal.wait_exit(), 0)

    def test_how_to_begin(self):
        terminal = self.stage.use(Terminal([program_path("diglett")], self.stage, environment=self.ENVIRONMENT))
        self.assertEqual(terminal.wait_exit(), 64)
        self.assertIn("Try it on this machine, in three terminals:\r\n  diglett-server\r\n", terminal.shown)

    def test_how_to_begin_at_the_gateway(self):
        """The gateway starts without arguments, and shows the next steps while it has no agents."""
        self.stage.use(wait_until(lambda: hold_port(20000), "port 20000", timeout=60, interval=0.2))
        place = self.stage.new_directory("home")
        terminal = self.stage.use(Terminal(
            [program_path("diglett-server")], self.stage,
            environment={**self.ENVIRONMENT, "STATE_DIRECTORY": str(place)}))
        terminal.await_text("Expose a service of this machine, in another terminal:")
        terminal.await_text("lists all options and commands")
        os.write(terminal.descriptor, b"\x03")
        self.assertEqual(terminal.wait_exit(), 0)


class Control(EndToEndTest):
    def test_empty_lists(self):
        """Commands that list something say that there is nothing."""
        gateway = self.stage.gateway()
        for command, text in (
                ("agents", "no agents connected\n"), ("exposures", "no names registered\n"),
                ("streams", "no visitors connected\n"), ("bans", "no networks are banned\n"),
                ("penalties", "no sources are throttled\n")):
            with self.subTest(command):
                self.assertEqual(ctl(self.stage, gateway, command).stdout, text)

    def test_time_left(self):
        gateway = self.stage.gateway()
        ctl(self.stage, gateway, "ban", "192.0.2.1", "--for", "1h")
        ctl(self.stage, gateway, "ban", "192.0.2.2")
        lines = ctl(self.stage, gateway, "bans").stdout.splitlines()
        self.assertEqual(lines[0].split(), ["NETWORK", "REMAINING"])
        self.assertRegex(lines[1], r"^192\.0\.2\.1/32 +(59m|1h)")
        self.assertRegex(lines[2], r"^192\.0\.2\.2/32 +permanent$")
        wait_until(lambda: gateway.running, "the gateway")
