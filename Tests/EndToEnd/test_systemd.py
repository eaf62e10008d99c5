"""Messages between the programs and their service manager, and listeners that outlive a restart."""

import contextlib
import os
import re
import signal
import socket
import statistics
import subprocess
import threading
import time
import unittest

from administration import AgentsFile
from backends import Listener, answering, serve_echo
from harness import EndToEndTest, Failure, Gateway, fast, free_port, program_path, seconds_kept_waiting, wait_until
from supervisor import Supervisor, listening
from visitors import get, read_exactly

PAGE = b"the page of this test"
# Maximum time from the daemon's start to its READY.
MOST_START_SECONDS = 0.05
TIME = r"^\d{4}-\d\d-\d\dT"


def fetch(address, timeout=30):
    """Fetches a page over a new connection; raises OSError or Failure if anything goes wrong."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as visitor:
        visitor.settimeout(timeout)
        visitor.connect(address)
        visitor.sendall(b"GET / HTTP/1.1\r\nHost: example\r\n\r\n")
        answer = b""
        while data := visitor.recv(65536):
            answer += data
    if not answer.endswith(PAGE):
        raise Failure(f"not the page: {answer!r}")


class SupervisedTest(EndToEndTest):
    def setUp(self):
        super().setUp()
        self.state = self.stage.new_directory("gateway-state")
        self.backend = self.stage.use(Listener(answering(PAGE))).address

    def supervisor(self, *sockets, **more):
        return self.stage.use(Supervisor(self.stage, sockets, **more))

    def socket(self, *arguments):
        return self.stage.use(contextlib.closing(listening(*arguments)))

    def expose(self, gateway, name="example", **more):
        """Starts an agent; returns it and the public port of its name."""
        agent = self.stage.agent(gateway, "-n", name, self.backend, **more)
        return agent, agent.wait_registered(name)


class Life(SupervisedTest):
    """READY, STATUS, RELOADING, STOPPING and the watchdog of the gateway."""

    def test_ready_comes_when_agents_can_connect(self):
        for abstract in (False, True):
            with self.subTest(abstract=abstract):
                port = free_port()
                outcome = []

                def connect(fields):
                    if "READY" in fields:
                        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
                            outcome.append("accepted")

                supervisor = self.supervisor(abstract=abstract)
                supervisor.on_message = connect
                gateway = supervisor.gateway("-l", f"127.0.0.1:{port}", state=self.state)
                self.assertEqual(outcome, ["accepted"])
                self.assertEqual(supervisor.messages[0].fields,
                                 {"READY": "1", "STATUS": "0 agents, 0 names, 0 streams"})
                self.assertEqual(gateway.stop(), 0)

    def test_no_ready_without_a_port(self):
        supervisor = self.supervisor()
        taken = self.socket()
        gateway = supervisor.gateway(
            "-l", f"127.0.0.1:{taken.getsockname()[1]}", state=self.state, ready=False)
        self.assertEqual(gateway.wait_exit(), 71)
        self.assertEqual(supervisor.all("READY"), [])

    def test_status(self):
        supervisor = self.supervisor()
        gateway = supervisor.gateway("-l", "127.0.0.1:0", state=self.state)
        self.backend = self.stage.use(Listener(serve_echo)).address
        agent, port = self.expose(gateway)
        supervisor.wait(STATUS="1 agent, 1 name, 0 streams")
        with socket.create_connection(("127.0.0.1", port), 10) as visitor:
            visitor.sendall(b"x")
            read_exactly(visitor, 1)
            supervisor.wait(STATUS="1 agent, 1 name, 1 stream")
        since = supervisor.count
        supervisor.wait(since, STATUS="1 agent, 1 name, 0 streams")
        self.assertEqual(agent.stop(), 0)
        supervisor.wait(STATUS="0 agents, 0 names, 0 streams", since=since)
        sent = [message.time for message in supervisor.messages if "STATUS" in message.fields]
        for before, after in zip(sent, sent[1:]):
            self.assertGreater(after - before, 0.9, "more than one STATUS a second")
        texts = supervisor.all("STATUS")
        self.assertTrue(all(one != next_one for one, next_one in zip(texts, texts[1:])), texts)

    def test_reload(self):
        supervisor = self.supervisor()
        gateway = supervisor.gateway("-l", "127.0.0.1:0", state=self.state)
        AgentsFile(self.stage, gateway).add("web", "--names", "app-*")
        gateway.wait_log(r"read 1 agent")
        logged, since = len(gateway.stderr), supervisor.count
        read = []

        def note(fields):
            if fields.get("READY") == "1":
                read.append(any("read 1 agent" in line for line in gateway.stderr[logged:]))

        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        gateway.send_signal(signal.SIGHUP)
        reloading = supervisor.wait(since, RELOADING="1").fields
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.assertTrue(before <= int(reloading["MONOTONIC_USEC"]) <= after, reloading)
        supervisor.wait(since, READY="1")
        words = [next(iter(message.fields)) for message in supervisor.messages[since:]
                 if "STATUS" not in message.fields]
        self.assertEqual(words, ["RELOADING", "READY"])
        gateway.wait_log(r"read 1 agent", since=logged)

    def test_stop(self):
        supervisor = self.supervisor()
        gateway = supervisor.gateway("-l", "127.0.0.1:0", state=self.state)
        gateway.send_signal(signal.SIGTERM)
        self.assertEqual(gateway.wait_exit(), 0)
        self.assertEqual(supervisor.wait(STOPPING="1").fields, {
            "STOPPING": "1", "EXTEND_TIMEOUT_USEC": "15000000", "STATUS": "draining: 0 streams left"})

    def test_stop_while_a_stream_drains(self):
        supervisor = self.supervisor()
        gateway = supervisor.gateway("-l", "127.0.0.1:0", state=self.state)
        self.backend = self.stage.use(Listener(serve_echo)).address
        _, port = self.expose(gateway)
        with socket.create_connection(("127.0.0.1", port), 10) as visitor:
            visitor.sendall(b"x")
            read_exactly(visitor, 1)
            gateway.send_signal(signal.SIGTERM)
            stopping = supervisor.wait(STOPPING="1", STATUS="draining: 1 stream left")
            # Without another message the manager would time out after 15 s.
            since = supervisor.messages.index(stopping) + 1
            extended = supervisor.wait(since, EXTEND_TIMEOUT_USEC="15000000")
            self.assertTrue(4 < extended.time - stopping.time < 10, extended.time - stopping.time)
            visitor.sendall(b"y")
            self.assertEqual(read_exactly(visitor, 1), b"y")
        self.assertEqual(gateway.wait_exit(), 0)

    def test_watchdog(self):
        supervisor = self.supervisor(WATCHDOG_USEC="300000", WATCHDOG_PID="self")
        gateway = supervisor.gateway("-l", "127.0.0.1:0", state=self.state)
        for _ in range(4):
            supervisor.wait(supervisor.count, WATCHDOG="1", timeout=2)
        pings = [message.time for message in supervisor.messages if "WATCHDOG" in message.fields]
        self.assertLess(statistics.median(after - before for before, after in zip(pings, pings[1:])), 0.2)
        gateway.send_signal(signal.SIGSTOP)
        wait_until(lambda: re.search(r"^State:\s+T", (open(f"/proc/{gateway.pid}/status").read()), re.MULTILINE),
                   "the gateway to stand still")
        # The receiver has read all earlier messages by now, because it does nothing else.
        since = supervisor.count
        with self.assertRaises(Failure):
            supervisor.wait(since + 1, WATCHDOG="1", timeout=1)
        gateway.send_signal(signal.SIGCONT)
        supervisor.wait(supervisor.count, WATCHDOG="1", timeout=2)
        self.assertEqual(gateway.stop(), 0)

    def test_end_by_the_watchdog(self):
        """systemd sends SIGABRT when the watchdog expires; a handler of the runtime must not prevent the end."""
        supervisor = self.supervisor(WATCHDOG_USEC="30000000")
        gateway = supervisor.gateway("-l", "127.0.0.1:0", state=self.state)
        self.assertEqual(gateway.stop(signal.SIGABRT, timeout=5), -signal.SIGABRT)

    def test_watchdog_of_somebody_else(self):
        supervisor = self.supervisor(WATCHDOG_USEC="30000", WATCHDOG_PID="1")
        gateway = supervisor.gateway("-l", "127.0.0.1:0", state=self.state)
        self.expose(gateway)
        supervisor.wait(STATUS="1 agent, 1 name, 0 streams")
        self.assertEqual(supervisor.all("WATCHDOG"), [])

    def test_garbage(self):
        cases = [
            ({"NOTIFY_SOCKET": "relative"}, "NOTIFY_SOCKET"),
            ({"NOTIFY_SOCKET": "/nobody/is/here"}, "cannot notify the service manager: no such file"),
            ({"NOTIFY_SOCKET": "/" + "x" * 200}, "NOTIFY_SOCKET"),
            ({"WATCHDOG_USEC": "soon"}, "WATCHDOG_USEC"),
            ({"LISTEN_FDS": "many", "LISTEN_PID": "self"}, "LISTEN_FDS"),
            ({"LISTEN_FDS": "1"}, "LISTEN_PID"),
            ({"LISTEN_FDS": "5", "LISTEN_PID": "self", "LISTEN_FDNAMES": "a:b"}, "LISTEN_FDNAMES has 2 names"),
            ({"FDSTORE": "-1"}, "FDSTORE"),
        ]
        for environment, word in cases:
            with self.subTest(environment=environment):
                with Supervisor(self.stage, **environment) as supervisor:
                    gateway = supervisor.start(
                        Gateway, "diglett-server", "-l", "127.0.0.1:0", "--state-dir", self.state).wait_listening()
                    gateway.wait_log(rf"WARN .*{word}")
                    _, port = self.expose(gateway)
                    fetch(("127.0.0.1", port))
                    self.assertEqual(gateway.stop(), 0)
                    warned = [line for line in gateway.stderr if "service manager" in line]
                    self.assertLessEqual(len(warned), 1, "an error was logged twice")

    @unittest.skipIf(fast(), "judges the programs as they are shipped")
    def test_time_to_ready(self):
        """A start is too short to delay a boot noticeably."""
        times = []
        supervisor = self.supervisor()
        # The first start creates the key.
        supervisor.gateway("-l", "127.0.0.1:0", state=self.state).stop()
        env = dict(self.stage.environment(), NOTIFY_SOCKET=supervisor.address)
        for _ in range(20):
            since, began = supervisor.count, time.monotonic()
            gateway = self.stage.start("gateway", [
                program_path("diglett-server"), "-l", "127.0.0.1:0", "--state-dir", self.state], Gateway, env=env)
            elapsed = supervisor.wait(since, READY="1").time - began
            times.append(elapsed - seconds_kept_waiting(gateway.pid))
            gateway.stop()
        self.note(f"start to READY: {statistics.median(times) * 1000:.0f} ms, "
                  f"{min(times) * 1000:.0f} to {max(times) * 1000:.0f}")
        # Use the fastest: on a busy machine this test may have to wait too.
        self.assertLessEqual(min(times), MOST_START_SECONDS)


class Activation(SupervisedTest):
    """Listeners for agents that the service manager has opened."""

    def listening(self, gateway):
        """The addresses for agents in the gateway's log."""
        gateway.wait_log(r"pin sha256")
        return [line.split(" on ", 1)[1] for line in gateway.stderr if "listening for agents" in line]

    def test_replaces_the_default(self):
        opened = self.socket()
        address = "127.0.0.1:%d" % opened.getsockname()[1]
        supervisor = self.supervisor(("agents", opened))
        # An agent that connects before the gateway starts waits, and is not refused.
        agent = self.stage.agent(address, "-n", "example", self.backend)
        gateway = supervisor.gateway(state=self.state)
        self.assertEqual(self.listening(gateway), [f"{address} (inherited)"])
        fetch(("127.0.0.1", agent.wait_registered()))
        self.assertFalse(any("retrying in" in line for line in agent.stderr), "the agent was refused")

    def test_addresses_that_are_written_out(self):
        opened = self.socket()
        inherited = "127.0.0.1:%d" % opened.getsockname()[1]
        other = f"127.0.0.1:{free_port()}"
        supervisor = self.supervisor(("agents", opened))
        gateway = supervisor.gateway("-l", inherited, "-l", other, state=self.state)
        self.assertEqual(self.listening(gateway), [f"{inherited} (inherited)", other])
        gateway.stop()
        # An inherited listener is used even if its address is not given: agents in its backlog would wait forever.
        gateway = supervisor.gateway("-l", other, state=self.state)
        self.assertEqual(self.listening(gateway), [f"{inherited} (inherited)", other])

    def test_both_families_by_one_socket(self):
        try:
            opened = self.stage.use(contextlib.closing(socket.socket(socket.AF_INET6)))
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            opened.bind(("::", 0))
        except OSError as error:
            self.skipTest(f"no IPv6 here: {error}")
        opened.listen()
        port = opened.getsockname()[1]
        supervisor = self.supervisor(("agents", opened))
        gateway = supervisor.gateway("-l", f"0.0.0.0:{port}", "-l", f"[::]:{port}", state=self.state)
        self.assertEqual(self.listening(gateway), [f"[::]:{port} (inherited)"])
        _, port = self.expose(f"127.0.0.1:{port}")
        fetch(("127.0.0.1", port))

    def test_version_1(self):
        old, new = self.socket(), self.socket()
        supervisor = self.supervisor(("agents-v1", old), ("agents", new))
        gateway = supervisor.gateway(state=self.state)
        gateway.wait_log(rf"agents of version 1 on 127.0.0.1:{old.getsockname()[1]} \(inherited\)")
        gateway.wait_log(r"WARN  version 1 is enabled and not safe")
        self.stage.agent("127.0.0.1:%d" % old.getsockname()[1], "--v1", "-n", "example", self.backend)
        fetch(("127.0.0.1", gateway.wait_registered("example")))

    def test_version_1_stays_on_loopback(self):
        supervisor = self.supervisor(("agents-v1", self.socket("0.0.0.0")))
        gateway = supervisor.gateway("-l", "127.0.0.1:0", state=self.state, ready=False)
        self.assertEqual(gateway.wait_exit(), 78)
        self.assertIn("v1-insecure-ok", gateway.output)
        gateway = supervisor.gateway("-l", "127.0.0.1:0", "--v1-insecure-ok", state=self.state)
        self.assertEqual(gateway.stop(), 0)

    def test_what_is_none(self):
        """Sockets of other kinds and names are closed with a warning, and do not prevent the start."""
        datagrams = self.stage.use(contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
        unbound = self.stage.use(contextlib.closing(socket.socket()))
        null = self.stage.use(open("/dev/null", "rb"))
        supervisor = self.supervisor(
            ("agents", datagrams), ("agents", unbound), ("agents", null), ("web", self.socket()),
            ("expose-tcp-example-0", self.socket()))
        gateway = supervisor.gateway("-l", "127.0.0.1:0", state=self.state)
        for descriptor in (3, 4, 5):
            gateway.wait_log(rf"WARN .*descriptor {descriptor} \('agents'\) is not a listening stream socket")
        gateway.wait_log(r"WARN .*closed the inherited socket 'web', which is not used")
        gateway.wait_log(r"WARN .*closed the (inherited socket|kept listener) 'expose-tcp-example-0', which is ")
        _, port = self.expose(gateway)
        fetch(("127.0.0.1", port))

    def test_children_know_nothing_of_it(self):
        """The variables and sockets are for one process; its children must not inherit them."""
        hook = self.stage.directory / "hook"
        seen = self.stage.directory / "seen"
        hook.write_text(f"#!/bin/sh\nenv > {seen}.new; ls -l /proc/self/fd >> {seen}.new; mv {seen}.new {seen}\n"
                        'echo \'{"allow": true, "identity": "x"}\'\n')
        hook.chmod(0o755)
        settings = self.stage.directory / "server.toml"
        settings.write_text(f'auth = "exec"\n[auth-exec]\ncommand = ["{hook}"]\n')
        supervisor = self.supervisor(("agents", self.socket()), WATCHDOG_USEC="30000000", FDSTORE="9")
        gateway = supervisor.gateway("-c", settings, state=self.state)
        self.stage.agent(gateway, "-n", "example", self.backend)
        wait_until(seen.exists, "the hook to run")
        text = seen.read_text()
        self.assertNotRegex(text, r"NOTIFY_SOCKET|LISTEN_|WATCHDOG|FDSTORE")
        self.assertNotIn("socket:", "\n".join(line for line in text.splitlines() if re.search(r" ([3-9]|\d\d) -> ", line)))


class Restart(SupervisedTest):
    """Listeners of names outlive their gateway."""

    def setUp(self):
        super().setUp()
        # The next gateway gets the same address, so that agents find it, and the manager's store.
        self.options = ["-l", f"127.0.0.1:{free_port()}"]
        self.manager = self.supervisor()

    def start(self, *more, **options):
        return self.manager.gateway(*self.options, *more, state=self.state, **options)

    def names(self):
        """The names in the store, without the owners' hashes."""
        return sorted(name.rsplit("-", 1)[0] for name in self.manager.store)

    def visit(self, address):
        """Starts a visitor in its own thread; returns a function that waits for its page."""
        outcome = []

        def run():
            try:
                fetch(address)
                outcome.append("page")
            except (OSError, Failure) as error:
                outcome.append(repr(error))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()

        def result(timeout=30):
            thread.join(timeout)
            return outcome[0] if outcome else "waits"

        return result

    def check_outlives(self, end):
        gateway = self.start()
        _, port = self.expose(gateway)
        wait_until(lambda: self.names() == ["expose-tcp-example"], "the listener to be stored")
        end(gateway)
        # Visitors connect while no gateway runs, and before the agent is back.
        visitors = [self.visit(("127.0.0.1", port)) for _ in range(3)]
        gateway = self.start()
        visitors.append(self.visit(("127.0.0.1", port)))
        gateway.wait_log(r"holding 1 listener of the previous run for")
        self.assertEqual(gateway.wait_registered("example"), port)
        self.assertEqual([visitor() for visitor in visitors], ["page"] * 4)
        fetch(("127.0.0.1", port))
        self.assertEqual(self.names(), ["expose-tcp-example"])

    def test_stop(self):
        self.check_outlives(lambda gateway: self.assertEqual(gateway.stop(), 0))

    def test_kill(self):
        self.check_outlives(lambda gateway: gateway.kill())

    def test_no_visitor_is_refused(self):
        """Visitors connect continuously during three restarts of both kinds."""
        gateway = self.start()
        _, port = self.expose(gateway)
        wait_until(self.names, "the listener to be stored")
        problems, pages, over = [], [0], threading.Event()

        def come():
            while not over.is_set():
                # A killed gateway loses the connections that it has accepted, but not those in the backlog, which must
                # not be refused.
                try:
                    fetch(("127.0.0.1", port))
                    pages[0] += 1
                except (OSError, Failure) as error:
                    problems.append(error)

        threads = [threading.Thread(target=come, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for end in (Gateway.stop, Gateway.stop, Gateway.kill):
                before = pages[0]
                wait_until(lambda: pages[0] > before + 20, "visitors to be served")
                # Only a graceful stop lets running streams finish.
                count = len(problems)
                end(gateway)
                gateway = self.start()
                gateway.wait_registered("example")
                if end is Gateway.stop:
                    self.assertEqual(problems[count:], [])
            before = pages[0]
            wait_until(lambda: pages[0] > before + 20, "visitors to be served")
        finally:
            over.set()
            for thread in threads:
                thread.join(30)
        self.note(f"{pages[0]} visitors")
        self.assertEqual([error for error in problems if isinstance(error, ConnectionRefusedError)], [])

    def test_visitors_wait_while_a_stream_drains(self):
        self.backend = self.stage.use(Listener(serve_echo)).address
        gateway = self.start()
        _, port = self.expose(gateway)
        wait_until(self.names, "the listener to be stored")
        with socket.create_connection(("127.0.0.1", port), 10) as visitor:
            visitor.sendall(b"x")
            read_exactly(visitor, 1)
            gateway.send_signal(signal.SIGTERM)
            gateway.wait_unregistered("example")
            with socket.create_connection(("127.0.0.1", port), 10) as late:
                late.sendall(b"z")
                visitor.close()
                self.assertEqual(gateway.wait_exit(), 0)
                self.start()
                late.settimeout(30)
                self.assertEqual(read_exactly(late, 1), b"z")

    def test_unix_socket(self):
        directory = self.stage.directory / "names"
        self.options += ["--expose-sockets", str(directory), "--expose-ports", "none"]
        path = directory / "example.sock"
        for end in (Gateway.stop, Gateway.kill):
            with self.subTest(end=end.__name__):
                gateway = self.start()
                agent = self.stage.agent(gateway, "-n", "example", self.backend)
                agent.wait_event("registered")
                wait_until(lambda: self.names() == ["expose-unix-example"], "the socket to be stored")
                end(gateway)
                visitor = self.visit(str(path))
                gateway = self.start()
                self.assertEqual(visitor(), "page")
                agent.stop()
                wait_until(lambda: not self.names(), "the socket to leave the store")
                self.assertFalse(path.exists())
                gateway.stop()

    def test_several_addresses(self):
        hosts = ("127.0.0.2", "127.0.0.3")
        self.options += [word for host in hosts for word in ("--expose-bind", host)]
        gateway = self.start()
        agent, port = self.expose(gateway)
        self.assertEqual(agent.wait_event("registered")["address"], f"{hosts[0]}:{port}")
        for _ in range(2):
            wait_until(lambda: [len(kept) for kept in self.manager.store.values()] == [2], "both to be stored")
            gateway.kill()
            visitors = [self.visit((host, port)) for host in hosts]
            gateway = self.start()
            self.assertEqual([visitor() for visitor in visitors], ["page", "page"])
        agent.stop()
        wait_until(lambda: not self.names(), "both to leave the store")
        for host in hosts:
            with self.assertRaises(ConnectionRefusedError):
                fetch((host, port))

    def test_unix_socket_without_its_file(self):
        """The directory of a service may be removed when the service ends (RuntimeDirectory=)."""
        directory = self.stage.directory / "names"
        self.options += ["--expose-sockets", str(directory)]
        gateway = self.start()
        _, port = self.expose(gateway)
        wait_until(lambda: len(self.names()) == 2, "both to be stored")
        gateway.kill()
        (directory / "example.sock").unlink()
        gateway = self.start()
        gateway.wait_log(r"example.sock, no longer matches the settings")
        self.assertEqual(gateway.wait_registered("example"), port)
        wait_until(lambda: len(self.names()) == 2, "both to be stored")
        fetch(str(directory / "example.sock"))

    def test_withdrawn_names_leave_the_store(self):
        gateway = self.start()
        agent, port = self.expose(gateway)
        wait_until(self.names, "the listener to be stored")
        # Even while the manager is busy and still has the socket open.
        self.manager.pause()
        self.assertEqual(agent.stop(), 0)
        gateway.wait_unregistered("example")
        with self.assertRaises(ConnectionRefusedError):
            fetch(("127.0.0.1", port))
        again = self.stage.agent(gateway, "-n", "example", self.backend, state=agent.state)
        self.assertEqual(again.wait_registered(), port)
        self.manager.resume()
        wait_until(lambda: len(self.manager.all("FDSTORE")) == 2, "the new listener to be stored")
        self.assertEqual(self.names(), ["expose-tcp-example"])
        gateway.kill()
        visitor = self.visit(("127.0.0.1", port))
        self.start()
        self.assertEqual(visitor(), "page")

    def test_another_agent_does_not_get_it(self):
        gateway = self.start()
        agent, port = self.expose(gateway)
        wait_until(self.names, "the listener to be stored")
        [former] = self.manager.store
        agent.send_signal(signal.SIGSTOP)
        gateway.kill()
        visitor = self.visit(("127.0.0.1", port))
        gateway = self.start()
        self.assertEqual(visitor(0.1), "waits")
        _, other = self.expose(gateway)
        self.assertNotEqual(other, port)
        # Waiting visitors are reset, because no agent will serve them.
        self.assertIn("ConnectionResetError", visitor())
        wait_until(lambda: self.names() == ["expose-tcp-example"] and former not in self.manager.store,
                   "only the new holder's listener to be stored")
        agent.send_signal(signal.SIGCONT)

    def test_another_port_is_wanted(self):
        gateway = self.start()
        agent, port = self.expose(gateway)
        wait_until(self.names, "the listener to be stored")
        agent.stop()
        wait_until(lambda: not self.names(), "the listener to leave the store")
        wanted = free_port()
        arguments = ("-n", "example", "--public-port", wanted, self.backend)
        agent = self.stage.agent(gateway, *arguments, state=agent.state)
        self.assertEqual(agent.wait_registered(), wanted)
        wait_until(self.names, "the listener to be stored")
        # The same agent returns with other requests: the name with another port, another name with this port.
        for name, public in (("example", free_port()), ("second", None)):
            agent.send_signal(signal.SIGSTOP)
            gateway.kill()
            gateway = self.start()
            gateway.wait_log(r"holding 1 listener of the previous run for")
            agent.kill()
            public = public or wanted
            agent = self.stage.agent(
                gateway, "-n", name, "--public-port", public, self.backend, state=agent.state)
            self.assertEqual(agent.wait_registered(name), public)
            wait_until(lambda: self.names() == [f"expose-tcp-{name}"], "that listener alone to be stored")
            fetch(("127.0.0.1", public))
            wanted = public

    def test_settings_have_changed(self):
        gateway = self.start()
        agent, port = self.expose(gateway)
        wait_until(self.names, "the listener to be stored")
        low = port + 1 if port < 60000 else port - 50
        for number, more in enumerate((["--expose-ports", f"{low}-{low + 40}"], ["--expose-bind", "127.0.0.2"])):
            with self.subTest(more):
                gateway.kill()
                gateway = self.start(*more)
                gateway.wait_log(r"no longer matches the settings")
                gateway.wait_registered("example")
                wait_until(lambda: len(self.manager.all("FDSTOREREMOVE")) == number + 1, "the listener to be removed")
                wait_until(lambda: self.names() == ["expose-tcp-example"], "the new listener to be stored")

    def test_a_store_of_one(self):
        self.manager.environment["FDSTORE"] = "1"
        directory = self.stage.directory / "names"
        self.options += ["--expose-sockets", str(directory)]
        gateway = self.start()
        agent = self.stage.agent(gateway, "-n", f"one={self.backend}", "-n", f"two={self.backend}")
        for name in ("one", "two"):
            agent.wait_registered(name)
        gateway.wait_log(r"WARN .*keeps 1 of the sockets")
        wait_until(lambda: self.names() == ["expose-tcp-one"], "one listener to be stored")
        gateway.stop()
        self.assertEqual(self.names(), ["expose-tcp-one"])
        # Sockets that are not stored leave no files.
        self.assertEqual([path.name for path in directory.glob("*.sock")], [])
        gateway = self.start()
        for name in ("one", "two"):
            fetch(("127.0.0.1", gateway.wait_registered(name)))

    def test_without_a_manager_nothing_is_left(self):
        directory = self.stage.directory / "names"
        gateway = self.stage.gateway("--expose-sockets", directory, state=self.state)
        _, port = self.expose(gateway)
        self.assertTrue((directory / "example.sock").exists())
        gateway.stop()
        self.assertFalse((directory / "example.sock").exists())
        with self.assertRaises(ConnectionRefusedError):
            fetch(("127.0.0.1", port))


class AgentLife(SupervisedTest):
    """The agent is ready at once, because a boot must not wait for a gateway that is down."""

    def test_life(self):
        port = free_port()
        address = f"127.0.0.1:{port}"
        supervisor = self.supervisor(WATCHDOG_USEC="300000")
        agent = supervisor.agent(address, "-n", "example", self.backend, state=self.stage.new_directory("agent"))
        supervisor.wait(READY="1", STATUS=f"connecting to gateway {address}")
        supervisor.wait(STATUS=f"no link to gateway {address}, retrying")
        gateway = self.stage.gateway(listen=address)
        supervisor.wait(STATUS=f"connected to gateway {address}, 1 name exposed")
        supervisor.wait(supervisor.count, WATCHDOG="1", timeout=2)
        since = supervisor.count
        gateway.stop()
        supervisor.wait(since, STATUS=f"no link to gateway {address}, retrying")
        agent.send_signal(signal.SIGTERM)
        supervisor.wait(since, STOPPING="1", STATUS="stopping")
        self.assertEqual(agent.wait_exit(), 0)
        self.assertEqual(len(supervisor.all("STOPPING")), 1)

    def test_drain(self):
        gateway = self.stage.gateway()
        supervisor = self.supervisor()
        backend = self.stage.use(Listener(serve_echo)).address
        agent = supervisor.agent(
            gateway.address, "-n", "example", backend, state=self.stage.new_directory("agent"))
        with socket.create_connection(("127.0.0.1", agent.wait_registered()), 10) as visitor:
            visitor.sendall(b"x")
            read_exactly(visitor, 1)
            agent.send_signal(signal.SIGTERM)
            supervisor.wait(STOPPING="1", STATUS="draining: 1 stream left")
        self.assertEqual(agent.wait_exit(), 0)

    def test_refused(self):
        """The agent's last status is the reason for its end."""
        gateway = self.stage.gateway()
        self.expose(gateway)
        supervisor = self.supervisor()
        agent = supervisor.agent(
            gateway.address, "-n", "example", self.backend, state=self.stage.new_directory("agent"))
        self.assertEqual(agent.wait_exit(), 14)
        self.assertIn("held by another agent", supervisor.wait(STOPPING="1").fields["STATUS"])


class Credentials(SupervisedTest):
    """Files that the service manager passes in a directory."""

    def setUp(self):
        super().setUp()
        self.directory = self.stage.new_directory("credentials")

    def put(self, name, content, mode=0o400):
        path = self.directory / name
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
        return path

    def environment(self):
        return dict(self.stage.environment(), CREDENTIALS_DIRECTORY=str(self.directory))

    def gateway(self, *arguments, ready=True):
        gateway = self.stage.start("gateway", [
            program_path("diglett-server"), "-l", "127.0.0.1:0", "--state-dir", self.state, *arguments],
            Gateway, env=self.environment())
        return gateway.wait_listening() if ready else gateway

    def test_key_of_the_gateway(self):
        other = self.stage.new_directory("other")
        made = self.stage.gateway(state=other)
        made.stop()
        for mode in (0o400, 0o440):
            with self.subTest(mode=oct(mode)):
                self.put("identity.pem", (other / "identity.pem").read_bytes(), mode)
                gateway = self.gateway()
                self.assertEqual(gateway.pin, made.pin)
                self.assertFalse((self.state / "identity.pem").exists())
                gateway.stop()
        for mode in (0o444, 0o600 | 0o040, 0o404):
            with self.subTest(mode=oct(mode)):
                self.put("identity.pem", (other / "identity.pem").read_bytes(), mode)
                gateway = self.gateway(ready=False)
                self.assertEqual(gateway.wait_exit(), 78)
                self.assertIn("other users can read it", gateway.output)

    def test_agents(self):
        first = self.stage.gateway(state=self.stage.new_directory("other"))
        invitation = AgentsFile(self.stage, first).add("web", "--names", "app-*")
        content = (first.state / "agents.toml").read_bytes()
        path = self.put("agents.toml", content, 0o440)
        gateway = self.gateway()
        gateway.wait_log(rf"agents are listed in {path}")
        agent = self.stage.agent(gateway, "-t", invitation.token, "-n", "app-1", self.backend)
        fetch(("127.0.0.1", agent.wait_registered("app-1")))
        for change in (["add", "more", "--names", "x"], ["remove", "web"], ["rotate", "web"]):
            result = subprocess.run(
                [program_path("diglett-server"), "agent", *change, "--state-dir", self.state],
                env=self.environment(), capture_output=True, text=True, timeout=30, check=False)
            self.assertEqual(result.returncode, 78, result.stderr)
            self.assertIn("is a credential of the service", result.stderr)
        self.assertEqual(path.read_bytes(), content)
        self.assertEqual(os.listdir(self.directory), ["agents.toml"])
        result = subprocess.run(
            [program_path("diglett-server"), "agent", "list", "--state-dir", self.state],
            env=self.environment(), capture_output=True, text=True, timeout=30, check=True)
        self.assertIn("web", result.stdout)

    def test_token_of_the_agent(self):
        gateway = self.stage.gateway()
        file = AgentsFile(self.stage, gateway)
        token = file.add("web", "--names", "app-*").token
        gateway.wait_log(r"read 1 agent")
        self.put("token", f"{token}\n".encode())
        # The credential overrides the environment, and options override the credential.
        env = dict(self.environment(), DIGLETT_TOKEN="wrong")
        agent = self.stage.agent(gateway, "-n", "app-1", self.backend, env=env)
        fetch(("127.0.0.1", agent.wait_registered("app-1")))
        agent = self.stage.agent(gateway, "-n", "app-2", "-t", "wrong", self.backend, env=env)
        self.assertEqual(agent.wait_exit(), 11)
        self.put("token", token.encode(), 0o444)
        agent = self.stage.agent(gateway, "-n", "app-2", self.backend, env=env)
        self.assertEqual(agent.wait_exit(), 78)


class Journal(SupervisedTest):
    """systemd's journal records the time itself, and needs priorities."""

    def test_priorities(self):
        supervisor = self.supervisor(JOURNAL_STREAM="stderr")
        gateway = supervisor.gateway("-l", "127.0.0.1:0", "--auth", "open", "-d", state=self.state)
        fetch(("127.0.0.1", self.expose(gateway)[1]))
        gateway.wait_log("visitor .* done")
        gateway.stop()
        lines = [line for line in gateway.stderr if not line.startswith("(end")]
        self.assertTrue(lines)
        for line in lines:
            self.assertRegex(line, r"^(<7>DEBUG|<6>INFO |<5>INFO |<4>WARN |<3>ERROR) [^<]", "priority, level, message")
        for start in ("<7>", "<6>", "<4>"):
            self.assertTrue(any(line.startswith(start) for line in lines), f"no line with {start}")
        agent = supervisor.agent(
            "127.0.0.1:9", "--once", "-n", "example", self.backend, state=self.stage.new_directory("agent"))
        agent.wait_exit()
        self.assertTrue(agent.stderr[-1].startswith("<3>ERROR "), agent.stderr)

    def test_another_stream(self):
        """Programs that write elsewhere may inherit the variable."""
        for text in ("1:2", "", "nonsense", "0:0:0"):
            with self.subTest(text):
                with Supervisor(self.stage, JOURNAL_STREAM=text) as supervisor:
                    gateway = supervisor.gateway("-l", "127.0.0.1:0", state=self.state)
                    gateway.stop()
                    self.assertTrue(all(re.match(TIME, line) for line in gateway.stderr), gateway.stderr)
