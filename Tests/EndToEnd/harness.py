"""Runs diglett-server and diglett as a user would, and monitors their output.

Everything that a test starts belongs to a `Stage`: a temporary directory, the programs and the fixtures.  Closing the
stage stops the programs by process id, and fails if a program crashed.  Nothing here sleeps for an event that it can
wait for: threads read the programs' output and wake the callers that wait for a line.
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

# Variables by which a service manager that runs the tests would affect the programs.
MANAGER = ("CREDENTIALS_DIRECTORY", "FDSTORE", "JOURNAL_STREAM", "NOTIFY_SOCKET", "STATE_DIRECTORY")

# In seconds. Enough for a loaded two-core machine; short enough that a hang fails one test instead of the run.
PATIENCE = 15.0

# Where `free_port` looks for several adjacent ports, and for single ones, which would otherwise fragment the first
# range. Neither range has the ports that documents and tests use, such as 20000.
ADJACENT_PORTS = range(10_000, 20_000)
FIRST_FREE_PORT = 21_000


class Failure(AssertionError):
    """A wait timed out, or a program misbehaved."""


def program_path(name):
    """The executable under test: $DIGLETT_BIN_DIR, else the release build."""
    directory = os.environ.get("DIGLETT_BIN_DIR") or REPOSITORY / ".build" / "release"
    return str(Path(directory).resolve() / name)


def fast():
    """Whether long tests are shortened (integration-test --fast)."""
    return os.environ.get("DIGLETT_E2E_FAST") == "1"


def long_run():
    """Whether long tests run in full (integration-test --long)."""
    return os.environ.get("DIGLETT_E2E_LONG") == "1"


def wait_until(condition, what, timeout=PATIENCE, interval=0.01):
    """Polls `condition` until it returns a true value, and returns this value."""
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise Failure(f"timed out after {timeout:g} s waiting for {what}")
        time.sleep(interval)


# Locks of the ports that `free_port` has returned.
_held = []


def hold_port(port):
    """Reserves a port number against test processes on this machine; returns None if another process has it.

    The lock is a unix socket, whose name only one process can bind. Closing the socket releases it.
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
            # Any other error means that the machine has no IPv6.
            if error.errno == errno.EADDRINUSE:
                return True
    return False


def free_port(count=1):
    """A free TCP port, reserved against other tests while this process lives; the first of `count` adjacent ones.

    It is below the kernel's range for outgoing connections and for port 0. Use it only for servers that cannot choose a
    port and report it, and for ports without a listener.
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
    """HOST:PORT as on the command line, with IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def allow_descriptors(count):
    """For setUpModule: allows this process `count` open files, or skips the module."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= count:
        return
    if hard != resource.RLIM_INFINITY and hard < count:
        raise unittest.SkipTest(f"only {hard} open files are allowed, {count} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    unittest.addModuleCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))


def seconds_kept_waiting(pid):
    """The seconds that a process's first thread was runnable but waited for a CPU."""
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
        """All of stdout and stderr so far, for searching words in messages."""
        return "\n".join(self.stdout + self.stderr)

    def wait_line(self, lines, match, what, timeout=PATIENCE, since=0):
        """Waits for the first line from index `since` for which `match` is true; returns the match's value."""
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
                    raise Failure(f"{self.label}: timed out after {timeout:g} s waiting for {what}")
                # The last reader notifies while it is still alive, so poll for its end.
                self._changed.wait(min(remaining, 0.1))

    def wait_log(self, pattern, timeout=PATIENCE, since=0):
        """Waits for a line of the log (stderr); returns the match."""
        return self.wait_line(self.stderr, re.compile(pattern).search,
                              f"a log line like {pattern!r}", timeout, since)

    def wait_exit(self, timeout=PATIENCE):
        """Waits until the program has ended and all its output was read; returns the exit code."""
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
        """Sends SIGKILL, which gives the program no chance to close its connections; returns the exit code."""
        if self.running:
            self.send_signal(signal.SIGKILL)
        return self.wait_exit()

    def crashed(self):
        """Whether a signal that no test sent, such as a trap, killed the program."""
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
    """A diglett-server process."""

    def wait_listening(self, timeout=PATIENCE):
        """Waits until agents can connect; reads the port and the pin from the log."""
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
        """Waits for the log line of `name`'s registration; returns the public port, None for a unix socket."""
        pattern = rf"register domain '{re.escape(name)}' -> '(\d+|unix:.*)'$"
        place = self.wait_log(rf"(?<!un){pattern}", timeout, since).group(1)
        return int(place) if place.isdecimal() else None

    def wait_unregistered(self, name, timeout=PATIENCE, since=0):
        self.wait_log(rf"unregister domain '{re.escape(name)}'$", timeout, since)


class Agent(Program):
    """A diglett process with --output json."""

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
        """Waits for the registration of `name`; returns its public port, None if it has none."""
        return self.wait_event("registered", timeout, since, name=name).get("port")

    def refusal(self, timeout=PATIENCE):
        """Waits until an agent is refused and exits; returns (exit code, `refused` event)."""
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
    """One gateway, one agent and one name, as most tests need them."""

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
    """Owns a temporary directory and everything that one test starts."""

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
        """The caller's environment, without the caller's home directory and settings."""
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
        """Enters a context manager, which exits when the stage closes."""
        return self._fixtures.enter_context(fixture)

    def start(self, label, argv, kind=Program, env=None, cwd=None, descriptors=()):
        program = kind(label, argv, env=env or self.environment(), cwd=cwd or self.directory, descriptors=descriptors)
        self.programs.append(program)
        return program

    def gateway(self, *options, listen=None, state=None, prefix=(), ready=True):
        """Starts a gateway, and waits until it listens unless `ready` is false.

        Its default port stays reserved for it across a restart.
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
        """A complete tunnel to `backend` (HOST:PORT, PORT or unix:PATH), ready for visitors."""
        gateway = gateway or self.gateway()
        agent = self.agent(gateway, *options, "-n", name, str(backend))
        return Tunnel(gateway, agent, agent.wait_registered(name))

    def tails(self):
        return "\n".join(program.tail() for program in self.programs)

    def close(self):
        """Stops everything in reverse order and removes the directory; raises Failure if a program crashed."""
        if self not in Stage._open:
            return
        Stage._open.discard(self)
        crashed = [program.label for program in self.programs if program.crashed()]
        for program in self.programs:
            # Messages after this line are effects of the cleanup, not of the failure.
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
        """For an interrupted run, in which unittest skips the cleanup."""
        for stage in list(cls._open):
            with contextlib.suppress(Failure):
                stage.close()


atexit.register(Stage.close_all)


class EndToEndTest(unittest.TestCase):
    """A test with its own stage; a failure shows the programs' logs."""

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
        """Prints a measured value beside the test's name."""
        print(f"[{text}] ", end="", file=sys.stderr, flush=True)
