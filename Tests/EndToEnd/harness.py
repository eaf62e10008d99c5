"""Runs diglett-server and diglett as a user would, and watches what they say.

Everything a test starts belongs to a `Stage`: one temporary directory, the
programs and the fixtures.  Closing the stage ends all of it, by process id, and
complains about a program that crashed on its own.  Nothing here sleeps for an
event that can be awaited: the programs' output is read by threads which wake
whoever waits for a line.
"""

import atexit
import contextlib
import errno
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

PIN = r"sha256/[A-Za-z0-9+/]{43}="
LISTENING = r"listening for agents on ([^\s\"]+):(\d+)"
LISTENING_V1 = r"listening for agents of version 1 on ([^\s\"]+:\d+)(?:$|\")"

# What a service manager that runs the tests would tell the programs.
MANAGER = ("CREDENTIALS_DIRECTORY", "FDSTORE", "JOURNAL_STREAM", "NOTIFY_SOCKET", "STATE_DIRECTORY")

# Long enough for a loaded two-core machine, short enough that a hang is a
# failure of one test and not of the whole run.
PATIENCE = 15.0

# Where `free_port` looks for several adjacent ports, and for one: single ports would leave no gaps for the former. The
# ports that manuals and tests write out, such as 20000, are in neither.
ADJACENT_PORTS = range(10_000, 20_000)
FIRST_FREE_PORT = 21_000


class Failure(AssertionError):
    """A wait that ran out, or a program that did something it must not do."""


def program_path(name):
    """The executable under test: $DIGLETT_BIN_DIR, else the release build."""
    directory = os.environ.get("DIGLETT_BIN_DIR") or REPOSITORY / ".build" / "release"
    return str(Path(directory).resolve() / name)


def fast():
    """Whether the long tests were asked to be short (integration-test --fast)."""
    return os.environ.get("DIGLETT_E2E_FAST") == "1"


def long_run():
    """Whether the long tests run in full (integration-test --long)."""
    return os.environ.get("DIGLETT_E2E_LONG") == "1"


def wait_until(condition, what, timeout=PATIENCE, interval=0.01):
    """Polls `condition` until it returns something true, which is returned."""
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise Failure(f"waited {timeout:g} s in vain for {what}")
        time.sleep(interval)


# The locks of the ports that `free_port` has given out.
_held = []


def hold_port(port):
    """A lock for a port number, so that no test of another process on this machine chooses it; None if another has it.

    It is a socket with a name that only one process can bind. It is free when the socket is closed.
    """
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        lock.bind(f"\0diglett-e2e-port-{port}")
    except OSError:
        lock.close()
        return None
    return lock


def listens(port):
    """Whether a TCP port is in use on any address of this machine."""
    for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        try:
            with socket.socket(family) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind((host, port))
        except OSError as error:
            # Any other error is that of a machine without IPv6.
            if error.errno == errno.EADDRINUSE:
                return True
    return False


def free_port(count=1):
    """A free TCP port that no other test takes while this process lives; the first of `count` adjacent ones.

    It is below the range from which the kernel takes ports for outgoing connections and for port 0. Only for servers
    that cannot choose a port and report it, and for ports on which nothing listens.
    """
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    chosen = range(FIRST_FREE_PORT, ephemeral) if count == 1 else ADJACENT_PORTS
    for _ in range(1_000):
        first = random.randrange(chosen.start, chosen.stop - count)
        locks = [hold_port(port) for port in range(first, first + count)]
        if all(locks) and not any(listens(port) for port in range(first, first + count)):
            _held.extend(locks)
            return first
        for lock in filter(None, locks):
            lock.close()
    raise Failure(f"{count} free ports were not found from {chosen.start} to {chosen.stop - 1}")


def address_text(host, port):
    """HOST:PORT as the command line spells it, IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def allow_descriptors(count):
    """For setUpModule: lets this process hold so many open files, or skips the module."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= count:
        return
    if hard != resource.RLIM_INFINITY and hard < count:
        raise unittest.SkipTest(f"only {hard} open files are allowed, {count} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    unittest.addModuleCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))


def seconds_kept_waiting(pid):
    """How long a process's first thread was ready to run while other work of the machine had all processors."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


class Program:
    """A started process whose two output streams are read as lines."""

    def __init__(self, label, argv, env=None, cwd=None, descriptors=()):
        self.label = label
        self.argv = [str(part) for part in argv]
        self.stdout = []
        self.stderr = []
        self.started = time.monotonic()
        self._signals_sent = set()
        self._changed = threading.Condition()
        try:
            self.process = subprocess.Popen(
                self.argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, pass_fds=descriptors,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                text=True, errors="replace")
        except OSError as error:
            raise Failure(f"cannot start {label}: {error}") from error
        self._readers = [
            threading.Thread(target=self._read, args=pair, daemon=True)
            for pair in ((self.process.stdout, self.stdout), (self.process.stderr, self.stderr))]
        for reader in self._readers:
            reader.start()

    def _read(self, stream, lines):
        with stream:
            for line in stream:
                with self._changed:
                    lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    @property
    def pid(self):
        return self.process.pid

    @property
    def running(self):
        return self.process.poll() is None

    @property
    def output(self):
        """All of stdout and stderr so far, for looking up words in messages."""
        return "\n".join(self.stdout + self.stderr)

    def wait_line(self, lines, match, what, timeout=PATIENCE, since=0):
        """Waits for the first line from index `since` for which `match` is true."""
        deadline = time.monotonic() + timeout
        position = since
        with self._changed:
            while True:
                while position < len(lines):
                    found = match(lines[position])
                    position += 1
                    if found:
                        return found
                if not any(reader.is_alive() for reader in self._readers) and position == len(lines):
                    raise Failure(f"{self.label} ended (exit {self.process.wait()}) before {what}")
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    raise Failure(f"{self.label}: waited {timeout:g} s in vain for {what}")
                # The last reader wakes us before it is dead; hence the cap.
                self._changed.wait(min(remaining, 0.1))

    def wait_log(self, pattern, timeout=PATIENCE, since=0):
        """Waits for a line of the log (stderr); returns the match."""
        return self.wait_line(self.stderr, re.compile(pattern).search,
                              f"a log line like {pattern!r}", timeout, since)

    def wait_exit(self, timeout=PATIENCE):
        """The exit code, once the program has ended and all output was read."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.label} has not ended within {timeout:g} s") from None
        for reader in self._readers:
            reader.join(timeout=5)
        return code

    def send_signal(self, number):
        self._signals_sent.add(number)
        self.process.send_signal(number)

    def stop(self, number=signal.SIGTERM, timeout=PATIENCE):
        """Sends a signal and returns the exit code."""
        self.send_signal(number)
        return self.wait_exit(timeout)

    def kill(self):
        """kill -9: the program gets no chance to say goodbye."""
        if self.running:
            self.send_signal(signal.SIGKILL)
        return self.wait_exit()

    def crashed(self):
        """Whether it died of a signal that no test sent, such as a trap."""
        code = self.process.poll()
        return code is not None and code < 0 and -code not in self._signals_sent

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def resident_kib(self):
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE).group(1))

    def tail(self, count=25):
        code = self.process.poll()
        state = "still running" if code is None else f"exit {code}"
        parts = [f"--- {self.label} (pid {self.pid}, {state}): {' '.join(self.argv)}"]
        for name, lines in (("stdout", self.stdout), ("stderr", self.stderr)):
            parts += [f"  {name}| {line}" for line in lines[-count:]]
        return "\n".join(parts)


class Gateway(Program):
    """A diglett-server."""

    def wait_listening(self, timeout=PATIENCE):
        """Waits until agents can connect; learns the port and the pin from the log."""
        match = self.wait_log(LISTENING, timeout)
        self.host, self.port = match.group(1), int(match.group(2))
        self.pin = self.wait_log(PIN, timeout).group(0)
        return self

    def wait_listening_v1(self, timeout=PATIENCE):
        """The address for agents of version 1, HOST:PORT."""
        return self.wait_log(LISTENING_V1, timeout).group(1)

    @property
    def address(self):
        return f"{self.host}:{self.port}"

    def wait_registered(self, name, timeout=PATIENCE, since=0):
        """The public port the log gives for `name`, in the words of the contract."""
        pattern = rf"register domain '{re.escape(name)}' -> '(\d+|unix:.*)'$"
        place = self.wait_log(rf"(?<!un){pattern}", timeout, since).group(1)
        return int(place) if place.isdecimal() else None

    def wait_unregistered(self, name, timeout=PATIENCE, since=0):
        self.wait_log(rf"unregister domain '{re.escape(name)}'$", timeout, since)


class Agent(Program):
    """A diglett started with --output json."""

    def events(self, kind=None):
        """All events so far, or those of one kind."""
        events = [self._parse(line) for line in list(self.stdout)]
        return [event for event in events if kind in (None, event["event"])]

    def wait_event(self, kind, timeout=PATIENCE, since=0, **wanted):
        """Waits for an event of this kind that has all the `wanted` values."""
        def match(line):
            event = self._parse(line)
            same = event["event"] == kind and all(event.get(k) == v for k, v in wanted.items())
            return event if same else None

        return self.wait_line(self.stdout, match, f"event {kind!r} {wanted or ''}", timeout, since)

    def wait_registered(self, name="example", timeout=PATIENCE, since=0):
        """The public port of `name`; None where it has none."""
        return self.wait_event("registered", timeout, since, name=name).get("port")

    def refusal(self, timeout=PATIENCE):
        """(exit code, the `refused` event) of an agent that must give up."""
        event = self.wait_event("refused", timeout)
        return self.wait_exit(timeout), event

    def _parse(self, line):
        try:
            event = json.loads(line)
            event["event"]
        except (ValueError, TypeError, KeyError):
            raise Failure(f"{self.label} wrote to stdout something else than an event: {line!r}") from None
        return event


class Tunnel:
    """One gateway, one agent, one name: what most tests need."""

    def __init__(self, gateway, agent, port):
        self.gateway = gateway
        self.agent = agent
        self.port = port

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def connect(self, timeout=30.0):
        """A visitor's plain TCP connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout)


class Stage:
    """Owns a temporary directory and all that was started during one test."""

    _open = set()

    def __init__(self):
        self.directory = Path(tempfile.mkdtemp(prefix="diglett-e2e-"))
        self.programs = []
        self._fixtures = contextlib.ExitStack()
        self._counter = 0
        Stage._open.add(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def environment(self):
        """The caller's environment, but with no home or settings of the caller."""
        clean = {name: value for name, value in os.environ.items()
                 if not name.startswith(("DIGLETT_", "LISTEN_", "WATCHDOG_")) and name not in MANAGER}
        clean.update(HOME=str(self.directory), XDG_STATE_HOME=str(self.directory / "state-home"))
        return clean

    def new_directory(self, label):
        self._counter += 1
        path = self.directory / f"{label}-{self._counter}"
        path.mkdir(mode=0o700)
        return path

    def use(self, fixture):
        """Enters a context manager; it is left when the stage closes."""
        return self._fixtures.enter_context(fixture)

    def start(self, label, argv, kind=Program, env=None, cwd=None, descriptors=()):
        program = kind(label, argv, env=env or self.environment(), cwd=cwd or self.directory, descriptors=descriptors)
        self.programs.append(program)
        return program

    def gateway(self, *options, listen=None, state=None, prefix=(), ready=True):
        """Starts a gateway; unless `ready` is false, waits until it listens.

        By default it listens on a port that is free again after a restart.
        """
        listen = listen or f"127.0.0.1:{free_port()}"
        state = state or self.new_directory("gateway-state")
        gateway = self.start(
            "gateway", [*prefix, program_path("diglett-server"), "-l", listen,
                        "--state-dir", state, *options], Gateway)
        gateway.state = state
        return gateway.wait_listening() if ready else gateway

    def agent(self, gateway, *arguments, state=None, prefix=(), env=None):
        """Starts an agent with JSON output; `gateway` is a Gateway or a -g value."""
        state = state or self.new_directory("agent-state")
        target = gateway.address if isinstance(gateway, Gateway) else gateway
        agent = self.start(
            "agent", [*prefix, program_path("diglett"), "--output", "json", "-g", target,
                      "--state-dir", state, *arguments], Agent, env=env)
        agent.state = state
        return agent

    def expose(self, backend, *options, name="example", gateway=None):
        """A whole tunnel to `backend` (HOST:PORT, PORT or unix:PATH), ready for visitors."""
        gateway = gateway or self.gateway()
        agent = self.agent(gateway, *options, "-n", name, str(backend))
        return Tunnel(gateway, agent, agent.wait_registered(name))

    def tails(self):
        return "\n".join(program.tail() for program in self.programs)

    def close(self):
        """Ends everything in reverse order and removes the directory."""
        if self not in Stage._open:
            return
        Stage._open.discard(self)
        crashed = [program.label for program in self.programs if program.crashed()]
        for program in self.programs:
            # What the others say about the killing must not be taken for the failure.
            program.stderr.append("(end of the test; its clean-up follows)")
        try:
            for program in reversed(self.programs):
                program.kill()
        finally:
            self._fixtures.close()
            shutil.rmtree(self.directory, ignore_errors=True)
        if crashed:
            raise Failure(f"crashed: {', '.join(crashed)}")

    @classmethod
    def close_all(cls):
        """For an interrupted run, where unittest skips the clean-up."""
        for stage in list(cls._open):
            with contextlib.suppress(Failure):
                stage.close()


atexit.register(Stage.close_all)


class EndToEndTest(unittest.TestCase):
    """A test with a stage of its own; a failure shows what the programs logged."""

    def setUp(self):
        self.stage = Stage()
        self.addCleanup(self.stage.close)

    def run(self, result=None):
        kept = [] if result is None else [result.failures, result.errors]
        before = [len(problems) for problems in kept]
        outcome = super().run(result)
        for problems, count in zip(kept, before):
            for index in range(count, len(problems)):
                test, text = problems[index]
                problems[index] = (test, f"{text}\n{self.logs()}\n")
        return outcome

    def logs(self):
        stage = getattr(self, "stage", None)
        return stage.tails() if stage else ""

    def note(self, text):
        """Shows a measured figure beside the test's name."""
        print(f"[{text}] ", end="", file=sys.stderr, flush=True)
