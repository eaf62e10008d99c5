"""The pages of docs/tutorials, docs/getting-started.md and docs/migrating.md, whose blocks are executed in their order, as a reader would.

What the pages spread over several machines happens on this one. Host names and fixed ports are replaced by the test's
own. Programs that would use the reader's home, or a port or certificate of the real world, have wrappers.
"""

import getpass
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tomllib

import backends
import websocket
from administration import Invitation
from backends import Listener, read_head
from documents import blocks, section, steps, substitute
from harness import PATIENCE, REPOSITORY, EndToEndTest, Gateway, free_port, listens, program_path, wait_until
from realservers import Postgres, Sshd, require
from sites import GuideNginx
from terminals import Terminal
from version1 import v1peer
from visitors import get

HOST = "gateway.example.com"


class Screen(Terminal):
    """A program that a reader starts at a terminal, with colours."""

    def __init__(self, command, stage, environment):
        colours = {"TERM": "xterm", "PATH": environment["PATH"]}
        super().__init__([require("bash"), "-euc", f"unset NO_COLOR; exec {command}"], stage, environment=colours)

    def await_line(self, words):
        self.await_text(r"(?:\s|\x1b\[\d*m)+".join(words))

    def stop(self):
        """Ctrl-C; returns the exit code."""
        os.kill(self.pid, signal.SIGINT)
        return self.wait_exit()


class Reader(EndToEndTest):
    """Does what a page says. `pairs` are the replacements; the page must need each of them. `secrets` are those of
    token and pin, once they are known."""

    def setUp(self):
        super().setUp()
        self.state = self.stage.new_directory("gateway-state")
        self.work = self.stage.new_directory("work")
        self.tools = self.stage.new_directory("bin")
        self.environment = {**self.stage.environment(), "PATH": f"{self.tools}:{os.environ['PATH']}"}
        self.tool("diglett", program_path("diglett"))
        self.tool("diglett-server", program_path("diglett-server"), "--state-dir", self.state)
        self.pairs, self.secrets, self.used = {}, {}, set()
        self.gateway = self.agent = self.token = None
        # What the last commands have printed, and what shows the program that each machine has started after them.
        self.shown, self.screens = "", {}

    def tool(self, name, *command):
        """Puts a command before the program of this name; the caller's arguments are added."""
        path = self.tools / name
        path.write_text(f"#!/bin/sh\nexec {shlex.join(map(str, command))} \"$@\"\n")
        path.chmod(0o755)

    def here(self, text):
        """A text of the page with the test's addresses, paths and secrets; one that contains another comes first."""
        known = self.pairs | self.secrets
        # In one pass, because a port of the test may look like one of the page.
        pattern = "|".join(map(re.escape, sorted(known, key=len, reverse=True)))
        self.used.update(re.findall(pattern, text))
        return re.sub(pattern, lambda match: str(known[match[0]]), text)

    def follow(self, text):
        found = steps(text)
        self.assertEqual(len(found), text.count("\n<!-- "), "a marker without a block, or of an unknown kind")
        for kind, subject, content in found:
            try:
                getattr(self, f"do_{kind}")(subject, self.here(content))
            except Exception as error:
                error.add_note(f"in the step {kind}: {subject}\n{content}")
                raise
        self.assertEqual(set(self.pairs) - self.used, set(), "no longer in the document")

    def on(self, machine):
        """The environment of a machine."""
        return self.environment

    def execute(self, machine, text):
        result = subprocess.run(["bash", "-euc", text], env=self.on(machine), cwd=self.work,
                                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=2 * PATIENCE)
        self.shown = result.stdout + result.stderr
        self.screens.pop(machine, None)
        return result.returncode

    def do_run(self, machine, text):
        self.assertEqual(self.execute(machine, text), 0, self.shown)
        if "diglett://" in self.shown:
            # -g 'diglett://TOKEN@HOST:PORT#sha256/PIN' ...
            self.token = Invitation(self.shown).arguments[1].removeprefix("diglett://").split("@")[0]
            self.secrets = {"TOKEN@": f"{self.token}@", "sha256/PIN": self.gateway.pin}

    def do_fails(self, machine, text):
        self.assertNotEqual(self.execute(machine, text), 0, self.shown)

    def do_start(self, machine, text):
        """One command; the shell becomes its program. A machine's agent takes the place of the one before."""
        if machine == "gateway":
            command = ["bash", "-euc", f"exec {text}"]
            self.gateway = self.stage.start(machine, command, Gateway, env=self.on(machine)).wait_listening()
        else:
            self.stop_agent()
            self.agent = self.screens[machine] = self.stage.use(Screen(text, self.stage, self.on(machine)))

    def stop_agent(self):
        if self.agent:
            self.assertEqual(self.agent.stop(), 0)

    def do_prints(self, machine, text):
        """Each line is there, in whatever columns. `...` stands for any characters, and alone for any lines."""
        for line in text.splitlines():
            words = [".*".join(map(re.escape, word.split("..."))) for word in line.split()]
            if machine in self.screens:
                self.screens[machine].await_line(words)
            elif machine == "gateway" and not self.shown:
                self.gateway.wait_log(" ".join(words))
            elif line != "...":
                self.assertRegex(self.shown, r"\s+".join(words))

    def do_file(self, path, text):
        getattr(self, "write_" + re.sub(r"\W", "_", path.rsplit("/", 1)[-1]))(text)

    def write_diglett_server_toml(self, text):
        """The gateway's configuration, with which it starts."""
        path = self.work / "diglett-server.toml"
        path.write_text(text)
        self.gateway = self.stage.gateway("-c", path, state=self.state)
        self.pairs[f"{HOST}:20000"] = self.gateway.address
        self.pairs[f"--host {HOST}"] = f"--host {self.gateway.address}"

    def start_service(self, name, text):
        """The agent as a service: with its file, and the token as the credential that systemd passes on."""
        directory = self.stage.new_directory("etc")
        path = directory / f"{name}.toml"
        path.write_text(text)
        token = directory / "token"
        token.write_text(f"{self.token}\n")
        token.chmod(0o600)
        self.stop_agent()
        self.agent = self.stage.start("service", [program_path("diglett"), "-c", path],
                                      env={**self.environment, "CREDENTIALS_DIRECTORY": str(directory)})
        self.agent.wait_line(self.agent.stdout, re.compile(" -> ").search, "a name to be reachable")


def page(name):
    return (REPOSITORY / "docs" / name).read_text()


class Ssh(Reader):
    def setUp(self):
        super().setUp()
        rsync, ssh, scp, sftp = require("rsync", "ssh", "scp", "sftp")
        self.sshd = Sshd(self.stage)
        self.port = free_port()
        self.config = self.work / "ssh_config"
        # What a user's own keys and answers are; the jump host is the same sshd, under another name and port.
        self.config.write_text(
            f"BatchMode yes\nStrictHostKeyChecking accept-new\nUserKnownHostsFile {self.work}/known_hosts\n"
            f"IdentityFile {self.sshd.directory}/user_key\nIdentitiesOnly yes\nLogLevel ERROR\n"
            f"Host {HOST}\nHostName 127.0.0.1\n")
        for program in (ssh, scp, sftp):
            self.tool(program.rsplit("/", 1)[1], program, "-F", self.config)
        self.tool("rsync", rsync)
        (self.work / "notes.txt").write_text("notes\n")
        (self.work / "photos").mkdir()
        (self.work / "photos" / "one.jpg").write_bytes(os.urandom(100_000))
        self.srv = self.stage.new_directory("srv")
        self.pairs |= {
            '["0.0.0.0", "::"]': '"127.0.0.1"', "30000-30100": f"{self.port}-{self.port}", "30022": self.port,
            "localhost:22": self.sshd.address, "you@": f"{getpass.getuser()}@", "User you": f"User {getpass.getuser()}",
            "/srv/": f"{self.srv}/", "/etc/ssh/ssh_host_ed25519_key.pub": self.sshd.directory / "host_key.pub",
            "/var/lib/diglett-server": self.state, f"{HOST}:30022": f"127.0.0.1:{self.port}",
        }

    def write_config(self, text):
        """~/.ssh/config. The entries of the page come before those that the test has for all hosts."""
        jump = f"Host {HOST}\nPort {self.sshd.port}\n" if "ProxyJump" in text else ""
        text = text.replace(f"HostName {HOST}", "HostName 127.0.0.1")
        self.config.write_text(f"{text}{jump}Host *\n{self.config.read_text()}")

    def write_home_toml(self, text):
        self.start_service("home", text)

    def test_as_written(self):
        self.follow(page("tutorials/ssh.md"))
        for name in ("notes.txt", "again.txt"):
            self.assertEqual((self.srv / name).read_text(), "notes\n")
        self.assertEqual((self.work / "copy.txt").read_text(), "notes\n")
        photo = (self.work / "photos" / "one.jpg").read_bytes()
        for album in ("photos", "album"):
            self.assertEqual((self.srv / album / "one.jpg").read_bytes(), photo)


class PostgreSQL(Reader):
    def setUp(self):
        super().setUp()
        psql, pg_dump = require("psql", "pg_dump")
        self.postgres = Postgres(self.stage)
        self.port = free_port()
        self.tool("psql", psql)
        self.tool("pg_dump", pg_dump)
        # `sudo -u postgres psql`: the superuser, who needs no password here.
        sudo = self.tools / "sudo"
        sudo.write_text('#!/bin/sh\n[ "$1 $2" = "-u postgres" ] || exit 1\nshift 2\nexec "$@"\n')
        sudo.chmod(0o755)
        owner = self.postgres.directory.stat().st_uid
        self.pairs |= {
            '["0.0.0.0", "::"]': '"127.0.0.1"', "30000-30100": f"{self.port}-{self.port}", "30032": self.port,
            "localhost:5432": f"127.0.0.1:{self.postgres.port}", "/etc/postgresql": self.postgres.directory,
            "chown postgres": f"chown {owner}", "/home/you/gateway.crt": self.postgres.directory / "gateway.crt",
            f"postgres  {HOST}:": "postgres  127.0.0.1:",
        }

    def on(self, machine):
        if machine == "database":
            return self.environment | self.postgres.superuser
        files = {"PGSERVICEFILE": "services", "PGPASSFILE": "pgpass"}
        return self.environment | {name: str(self.work / file) for name, file in files.items()}

    def write_db_toml(self, text):
        self.start_service("db", text)

    def write__pg_service_conf(self, text):
        # The name stays, for the certificate.
        (self.work / "services").write_text(substitute(text, (f"host={HOST}\n", f"host={HOST}\nhostaddr=127.0.0.1\n")))

    def write__pgpass(self, text):
        path = self.work / "pgpass"
        path.write_text(text)
        path.chmod(0o600)

    def test_as_written(self):
        self.follow(page("tutorials/postgresql.md"))
        self.assertIn("CREATE TABLE public.orders", (self.work / "shop.sql").read_text())

    def test_superuser_and_unknown_certificate(self):
        """What the page promises to keep out: another user, and a server with another certificate."""
        self.follow(page("tutorials/postgresql.md"))
        for settings, wanted in (("user=postgres", "rejects connection"), ("dbname=postgres", "rejects connection"),
                                 (f"sslrootcert={self.other_certificate()}", "certificate verify failed"),
                                 ("host=other.example.com", "does not match host name")):
            with self.subTest(settings=settings):
                self.assertNotEqual(self.execute("client", f"psql 'service=shop {settings}' -c 'SELECT 1'"), 0)
                self.assertIn(wanted, self.shown)

    def test_no_tls_at_the_unix_socket(self):
        self.assertIn("server does not support SSL, but SSL was required", page("tutorials/postgresql.md"))
        tunnel = self.stage.expose(f"unix:{self.postgres.directory}/.s.PGSQL.{self.postgres.port}")
        where = f"host={HOST} hostaddr=127.0.0.1 port={tunnel.port} user=postgres sslmode=require"
        self.assertNotEqual(self.execute("client", f"psql '{where}' -c 'SELECT 1'"), 0)
        self.assertIn("server does not support SSL, but SSL was required", self.shown)

    def other_certificate(self):
        path = self.work / "other.crt"
        subprocess.run([require("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                        "-nodes", "-subj", f"/CN={HOST}", "-keyout", self.work / "other.key", "-out", path],
                       check=True, capture_output=True, timeout=30)
        return path


class HomeAssistant:
    """What the page needs of it, as its documentation has it: trusted proxies, a page and a WebSocket."""

    def __init__(self):
        self.trusted = set()
        self.visitors = []

    def serve(self, connection):
        head = connection.recv(64 * 1024, socket.MSG_PEEK)
        while b"\r\n\r\n" not in head:
            head = connection.recv(64 * 1024, socket.MSG_PEEK)
        forwarded = re.search(rb"(?im)^x-forwarded-for: *(.*?)\r$", head)
        if forwarded and connection.getpeername()[0] not in self.trusted:
            read_head(connection)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            return
        self.visitors.append(forwarded[1].decode())
        if head.startswith(b"GET /api/websocket "):
            self.open_websocket(connection, is_left_open=b"user-agent: curl" not in head.lower())
        else:
            read_head(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nhome")

    @staticmethod
    def open_websocket(connection, is_left_open):
        """Speaks first; then, other than for the reader's curl, echoes."""
        if is_left_open:
            websocket.serve_echo(connection)
            return
        key = re.search(rb"(?im)^sec-websocket-key: *(.*?)\r$", read_head(connection))[1]
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                           b"Sec-WebSocket-Accept: " + websocket.accept_key(key) + b"\r\n\r\n")
        websocket.WebSocket(connection, masks=False).send(websocket.TEXT, b'{"type": "auth_required"}')


class GettingStarted(Reader):
    def setUp(self):
        super().setUp()
        self.address = f"127.0.0.1:{free_port()}"
        self.service, self.public = free_port(), free_port()
        self.tool("diglett-server", program_path("diglett-server"), "--state-dir", self.state, "-l", self.address)
        self.ports = []
        self.pairs = {
            "-g localhost": f"-g {self.address}", "connected to localhost:20000": f"connected to {self.address}",
            "0.0.0.0:20000": self.address, "--bind :: 9000": f"--bind 127.0.0.1 {self.service}",
            "localhost:9000": f"localhost:{self.service}", "localhost:33605": "127.0.0.1:...",
            "--host gateway.com": f"--host {self.address}", "gateway.com:20000": self.address,
            "--expose-bind 0.0.0.0": "--expose-bind 127.0.0.1", "30000-30100": f"{self.public}-{self.public}",
            "gateway.com:30000": f"127.0.0.1:{self.public}"}

    def do_start(self, machine, text):
        if machine == "service":
            self.stage.start(machine, ["bash", "-euc", f"exec {text}"], env=self.environment, cwd=self.work)
            wait_until(lambda: listens(self.service), "the web server")
            return
        if machine == "gateway" and self.gateway:
            # The second is on another machine.
            self.assertEqual(self.gateway.stop(), 0)
        super().do_start(machine, text)
        if machine == "agent":
            self.ports.append(self.gateway.wait_registered("example"))

    def do_run(self, machine, text):
        # The first agent has no token, and would be refused now.
        self.stop_agent()
        self.agent = None
        super().do_run(machine, text)

    def test_as_written(self):
        (self.work / "index.html").write_text("as written")
        self.follow(page("getting-started.md"))
        self.assertEqual(get(f"http://127.0.0.1:{self.ports[-1]}/"), b"as written")
        self.assertEqual(self.ports[-1], self.public)


class WebApp(Reader):
    def setUp(self):
        super().setUp()
        self.proxy = GuideNginx(self.stage)
        self.application = HomeAssistant()
        backend = self.stage.use(Listener(self.application.serve))
        self.tool("curl", require("curl"), "--cacert", self.proxy.authority.ca,
                  "--connect-to", f"::127.0.0.1:{self.proxy.https_port}")
        # The gateway of the guide.
        self.write_diglett_server_toml('public-url = "https://{name}.gateway.com"\n' + self.proxy.configuration())
        self.pairs = {
            "--host gateway.com": f"--host {self.gateway.address}", "gateway.com:20000": self.gateway.address,
            "127.0.0.1:8123": backend.address}

    def write_home_toml(self, text):
        self.start_service("home", text)
        # Before the next step the application is there, and closed.
        self.wait_code("400")

    def write_configuration_yaml(self, text):
        self.assertRegex(text, r"\Ahttp:\n  use_x_forwarded_for: true\n  trusted_proxies:\n(    - \S+\n)+\Z")
        self.application.trusted = set(re.findall(r"(?m)^    - (\S+)$", text))

    def wait_code(self, wanted):
        """Until nginx, which is reloaded for the name, has made the change."""
        def code():
            self.execute("anywhere", "curl -s -o /dev/null -w '%{http_code}' https://home.gateway.com/")
            return self.shown

        self.proxy.wait_steady(wanted.__eq__, f"status {wanted}", PATIENCE, code)

    def test_as_written(self):
        self.follow(page("tutorials/web-app.md"))
        self.assertEqual(set(self.application.visitors), {"127.0.0.1"})

    def test_websocket(self):
        self.follow(page("tutorials/web-app.md"))
        connection = socket.create_connection(("127.0.0.1", self.proxy.https_port), PATIENCE)
        visitor = self.stage.use(self.proxy.tls_context().wrap_socket(connection, server_hostname="home.gateway.com"))
        peer = websocket.connect(visitor, "home.gateway.com", "/api/websocket")
        for text in (b"one", b"x" * 100_000):
            peer.send(websocket.TEXT, text)
            self.assertEqual(peer.receive(), (websocket.TEXT, text))


class FromTheOriginal(Reader):
    def setUp(self):
        super().setUp()
        address, address_v1 = (f"127.0.0.1:{free_port()}" for _ in range(2))
        backend = self.stage.use(Listener(backends.answering(b"behind the agent"))).address
        self.pairs = {
            "-l 0.0.0.0:20002 -l '[::]:20002'": f"-l {address}",
            "--listen-v1 0.0.0.0:20000": f"--listen-v1 {address_v1}",
            f"{HOST}:20000": address_v1, f"{HOST}:20002": address, "localhost:9000": backend}
        # An agent of the original: -g GATEWAY -n NAME BACKEND.
        original = self.stage.new_directory("original") / "diglett"
        peer = f"{sys.executable} {v1peer.__file__}"
        original.write_text(f'#!/bin/sh\nexec {peer} agent --gateway "$2" --name "$4" "$5"\n')
        original.chmod(0o755)
        self.original = {**self.environment, "PATH": f"{original.parent}:{self.environment['PATH']}"}

    def on(self, machine):
        return self.original if machine == "old-agent" else self.environment

    def do_start(self, machine, text):
        if machine == "agent":
            self.pairs["sha256/PIN"] = self.gateway.pin
            self.check_reachable()
            os.kill(self.agent.pid, signal.SIGKILL)
            self.agent.wait_exit()
            self.agent = None
            self.gateway.wait_unregistered("example")
            text = self.here(text)
        self.since = len(self.gateway.stderr) if self.gateway else 0
        super().do_start(machine, text)

    def check_reachable(self):
        port = self.gateway.wait_registered("example", since=self.since)
        self.assertEqual(get(f"http://127.0.0.1:{port}/"), b"behind the agent")

    def test_as_written(self):
        self.follow(section("migrating.md", "## From the original diglett"))
        self.check_reachable()


class FromFrp(Reader):
    def setUp(self):
        super().setUp()
        self.ports = free_port(2)
        servers = [self.stage.use(Listener(backends.answering(text))).address for text in (b"ssh", b"files")]
        self.pairs = {
            '["0.0.0.0", "::"]': '"127.0.0.1"', "6000-6010": f"{self.ports}-{self.ports + 1}",
            "127.0.0.1:22": servers[0], "127.0.0.1:9000": servers[1], "6000": self.ports, "6001": self.ports + 1,
            'proxy-protocol = "v2"': ""}

    def write_laptop_toml(self, text):
        self.start_service("laptop", text)

    def test_as_written(self):
        self.follow(section("migrating.md", "## From frp"))
        for number, text in enumerate((b"ssh", b"files")):
            self.assertEqual(get(f"http://127.0.0.1:{self.ports + number}/"), text)

    def test_both_sides_say_the_same(self):
        examples = blocks(section("migrating.md", "## From frp"), "toml")
        server, own_server, client, own_client = map(tomllib.loads, examples)
        ports, = server["allowPorts"]
        self.assertEqual(own_server["expose-ports"], f"{ports['start']}-{ports['end']}")
        self.assertEqual(own_client["gateway"].split(":")[0], client["serverAddr"])
        wanted = [{"name": proxy["name"], "backend": f"{proxy['localIP']}:{proxy['localPort']}",
                   "public-port": proxy["remotePort"],
                   **({"proxy-protocol": proxy["transport"]["proxyProtocolVersion"]} if "transport" in proxy else {})}
                  for proxy in client["proxies"]]
        self.assertEqual(own_client["expose"], wanted)


class FromNgrok(Reader):
    def setUp(self):
        super().setUp()
        self.port = free_port()
        self.backends = [self.stage.use(Listener(backends.answering(text))).address for text in (b"web", b"ssh")]
        self.write_diglett_server_toml('public-url = "https://{name}.gateway.com"\n')
        self.pairs = {
            "--host gateway.com": f"--host {self.gateway.address}", "gateway.com:20000": self.gateway.address,
            "-n web 8080": f"-n web {self.backends[0]}", "localhost:8080": self.backends[0],
            'backend = "8080"': f'backend = "{self.backends[0]}"', 'backend = "22"': f'backend = "{self.backends[1]}"',
            "30022": self.port}
        # The home of the reader.
        self.directory = self.stage.directory / ".config" / "diglett"
        self.directory.mkdir(parents=True)

    def write(self, name, text):
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o600)
        return path

    def write_laptop_toml(self, text):
        self.write("laptop.token", f"{self.token}\n")
        self.write("laptop.toml", text)

    def write_both_toml(self, text):
        self.stop_agent()
        path = self.write("both.toml", text)
        self.agent = self.stage.start("both", ["diglett", "-c", path], env=self.environment)
        for name in ("web", "ssh"):
            reachable = re.compile(f"^{name}: https://{name}.gateway.com -> ").search
            self.agent.wait_line(self.agent.stdout, reachable, f"{name} to be reachable")

    def test_as_written(self):
        text = section("migrating.md", "## From ngrok")
        self.follow(text)
        self.assertEqual(get(f"http://127.0.0.1:{self.port}/"), b"ssh")
        since = re.findall(r"register domain 'web' -> '(\d+)'", self.gateway.output)
        self.assertEqual(get(f"http://127.0.0.1:{since[-1]}/"), b"web")

    def test_both_sides_say_the_same(self):
        text = section("migrating.md", "## From ngrok")
        endpoints = re.findall(r"(?m)^  - name: (\S+)\n    url: \S+\n    upstream:\n      url: (\S+)$", text)
        own = tomllib.loads(blocks(text, "toml")[-1])["expose"]
        self.assertEqual([(table["name"], table["backend"]) for table in own], endpoints)
