"""The operator's tools: the agents file and the commands that change it."""

import base64
import hashlib
import os
import re
import shlex
import signal
import socket
import subprocess
import threading
import time

import backends
from backends import Listener
from harness import PIN, EndToEndTest, Failure, program_path, wait_until
from visitors import get, read_exactly

# "Within a second", plus a margin for a loaded machine.
WITHDRAWN_SECONDS = 1.5


def run(stage, program, *arguments):
    """Runs a program until it exits; returns the CompletedProcess, with output as text."""
    return subprocess.run(
        [program_path(program), *map(str, arguments)], env=stage.environment(), cwd=stage.directory,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)


def ctl(stage, gateway, *arguments):
    """Runs `diglett-server ctl`; returns the CompletedProcess, with output as text."""
    return run(stage, "diglett-server", "--state-dir", gateway.state, "ctl", *arguments)


class Invitation:
    """The parsed output of `agent add` or `agent rotate`, with tokens that are printed only once."""

    def __init__(self, output):
        self.output = output
        token = re.search(r"^token \(shown only once\): (\S+)$", output, re.MULTILINE)
        self.token = token and token.group(1)
        version1 = re.search(r"^token for version 1 \(shown only once\): (\S+)$", output, re.MULTILINE)
        self.version1_token = version1 and version1.group(1)
        line = re.search(r"^ *diglett (-g .+)$", output, re.MULTILINE)
        # Split as a shell does.
        self.arguments = line and shlex.split(line.group(1))


class AgentsFile:
    """The agents.toml of a gateway, changed by command or by hand."""

    def __init__(self, stage, gateway=None, state=None):
        self._stage = stage
        self._gateway = gateway
        self.state = state or gateway.state
        self.path = self.state / "agents.toml"

    def try_command(self, *arguments):
        """Runs `diglett-server agent ...`, which may fail."""
        return run(self._stage, "diglett-server", "agent", *arguments, "--state-dir", self.state)

    def command(self, *arguments):
        """Runs `diglett-server agent ...`, which must succeed; returns its output."""
        result = self.try_command(*arguments)
        if result.returncode != 0:
            raise Failure(f"agent {arguments}: exit {result.returncode}: {result.stderr}")
        return result.stdout

    def _host(self):
        return self._gateway.address if self._gateway else "127.0.0.1:20000"

    def add(self, name, *options):
        return Invitation(self.command("add", name, *options, "--host", self._host()))

    def rotate(self, name, *options):
        return Invitation(self.command("rotate", name, *options, "--host", self._host()))

    def text(self):
        return self.path.read_text()

    def write(self, text, mode=0o600):
        """Replaces the file atomically, like an editor that writes a new file and renames it."""
        beside = self.path.with_name("agents.toml.edited")
        beside.write_text(text)
        beside.chmod(mode)
        os.replace(beside, self.path)

    def edit(self, old, new):
        """Replaces a passage that occurs exactly once."""
        text = self.text()
        if text.count(old) != 1:
            raise Failure(f"{old!r} stands {text.count(old)} times in {text}")
        self.write(text.replace(old, new))

    def set(self, name, line):
        """Adds a line to an agent's table."""
        self.edit(f'name = "{name}"\n', f'name = "{name}"\n{line}\n')

    def wait_read(self, since):
        """Waits until the gateway logs, after line `since` of its log, that it has read the file."""
        self._gateway.wait_log(r"read \d+ agents? from ", since=since)

    def read_now(self):
        """Makes the gateway read the file now, for tests of other things than its polling."""
        since = len(self._gateway.stderr)
        self._gateway.send_signal(signal.SIGHUP)
        # Lines before this one may report a read that the gateway's polling caused.
        self._gateway.wait_log("SIGHUP", since=since)
        self.wait_read(since)


class AgentsTest(EndToEndTest):
    def setUp(self):
        super().setUp()
        self.backend = self.stage.use(Listener(backends.answering(b"behind the agent"))).address

    def start(self, *options, **more):
        """Starts a gateway; returns its agents file, which does not exist yet."""
        self.gateway = self.stage.gateway(*options, **more)
        self.agents = AgentsFile(self.stage, self.gateway)
        return self.agents

    def connect(self, token, *arguments, gateway=None, **more):
        """Starts an agent with a token."""
        return self.stage.agent(gateway or self.gateway, "-t", token, *arguments, **more)

    def check_reachable(self, agent, name="example", since=0):
        port = agent.wait_registered(name, since=since)
        self.assertEqual(get(f"http://127.0.0.1:{port}/"), b"behind the agent")
        return port

    def check_refused(self, agent, code, exit_code, *words):
        status, event = agent.refusal()
        self.assertEqual((event["code"], event["exit"], status), (code, exit_code, exit_code))
        for word in words:
            self.assertIn(word, event["message"])
        return event


def agent_key(state):
    """Makes an agent's key with openssl, as `diglett key` would; returns its pin."""
    pem = state / "agent.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-days", "30", "-subj", "/CN=diglett agent", "-keyout", state / "key", "-out", state / "certificate"],
        check=True, capture_output=True, timeout=30)
    pem.write_text((state / "key").read_text() + (state / "certificate").read_text())
    pem.chmod(0o600)
    public = subprocess.run(["openssl", "pkey", "-in", pem, "-pubout", "-outform", "DER"],
                            check=True, capture_output=True, timeout=30).stdout
    return pin_of(public)


def pin_of(public_key):
    """sha256/BASE64 of a public key in DER."""
    pin = "sha256/" + base64.b64encode(hashlib.sha256(public_key).digest()).decode()
    if not re.fullmatch(PIN, pin):
        raise Failure(f"not a pin: {pin}")
    return pin


class SteadyDownload:
    """A download of about 5 MB/s that must continue during the test.

    Each block is filled with its number, which reveals lost, duplicate or foreign bytes. `longest_pause` is the
    longest time in seconds without data.
    """

    BLOCK = 64 * 1024
    PER_SECOND = 80

    def __init__(self, stage, open_tunnel):
        """`open_tunnel(address)` exposes a backend and returns the public port."""
        backend = stage.use(Listener(self._serve))
        self._port = open_tunnel(backend.address)
        self.blocks = 0
        self.longest_pause = 0.0
        self._problem = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        stage.use(self)

    @classmethod
    def _block(cls, number):
        return number.to_bytes(8, "big") * (cls.BLOCK // 8)

    def _serve(self, connection):
        backends.read_head(connection)
        began = time.monotonic()
        number = 0
        while True:
            connection.sendall(self._block(number))
            number += 1
            time.sleep(max(0.0, began + number / self.PER_SECOND - time.monotonic()))

    def _run(self):
        try:
            with socket.create_connection(("127.0.0.1", self._port), 20) as visitor:
                visitor.sendall(b"GET / HTTP/1.0\r\n\r\n")
                last = time.monotonic()
                while not self._stopping.is_set():
                    if read_exactly(visitor, self.BLOCK) != self._block(self.blocks):
                        raise Failure(f"block {self.blocks} has other bytes")
                    now = time.monotonic()
                    if self.blocks:
                        self.longest_pause = max(self.longest_pause, now - last)
                    last = now
                    self.blocks += 1
        except (OSError, Failure) as error:
            self._problem = error

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()

    def check(self):
        """Checks that the download still continues and has never stalled for more than a second."""
        seen = self.blocks

        def further():
            return self._problem or self.blocks > seen + 5

        wait_until(further, "the steady download to go on")
        if self._problem:
            raise Failure(f"the steady download broke off after {self.blocks} blocks: {self._problem}")
        if self.longest_pause > 1.0:
            raise Failure(f"the steady download stood still for {self.longest_pause:.2f} s")
