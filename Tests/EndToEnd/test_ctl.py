"""Inspecting and controlling a running gateway: diglett-server ctl."""

import contextlib
import grp
import json
import os
import re
import socket
import stat
import subprocess
import threading
import time

import backends
from administration import AgentsFile, ctl, run
from backends import Listener
from harness import EndToEndTest, allow_descriptors, fast, program_path, wait_until
from hooks import configure
from namespaces import TwoHosts
from realservers import is_closed
from visitors import get


class CtlTest(EndToEndTest):
    def setUp(self):
        super().setUp()
        self.backend = self.stage.use(Listener(backends.answering(b"behind the agent"))).address

    def ctl(self, *arguments, code=0, gateway=None):
        """Runs `ctl`, which must exit with `code`; returns its output if that is 0, otherwise its errors."""
        result = ctl(self.stage, gateway or self.gateway, *arguments)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        return result.stdout if code == 0 else result.stderr

    def report(self, *arguments):
        return json.loads(self.ctl(*arguments, "--output", "json"))

    def start(self, *options):
        self.gateway = self.stage.gateway(*options)
        self.tunnel = self.stage.expose(self.backend, gateway=self.gateway)


class Seeing(CtlTest):
    def test_status(self):
        self.start()
        status = self.report("status")
        pin = self.gateway.wait_log(r"pin (\S+)").group(1)
        self.assertEqual(
            [status[key] for key in ("process", "state", "pin", "agents", "links", "names", "streams", "log-level")],
            [self.gateway.pid, "running", pin, 1, 1, 1, 0, "info"])
        self.assertEqual(status["listening"], [self.gateway.address])
        self.assertEqual(status["registrars"], [{"name": "print", "pending": 0}])
        text = self.ctl("status")
        for words in (f"process {self.gateway.pid}, running", f"pin {pin}", "1 agent with 1 link, 1 name, 0 streams",
                      "registrar print: works"):
            self.assertIn(words, text)

    def test_registrar_that_fails(self):
        file = configure(self.stage, '[[registrar]]\nkind = "traefik"\ndomain = "gw.test"\ndirectory = "/nonexistent/x"\n')
        self.gateway = self.stage.gateway("-c", file)
        self.stage.agent(self.gateway, "-n", "example", self.backend)

        def failing():
            registrars = self.report("status")["registrars"]
            return "cannot" in registrars[1].get("failure", "") and registrars[1]["pending"] == 1

        wait_until(failing, "the registrar's failure in the status")
        self.assertRegex(self.ctl("status"), r"registrar traefik \(/nonexistent/x\): .*no such file.*\(1 name pending\)")

    def test_agents_exposures_streams(self):
        self.start()
        link, = self.report("agents")
        self.assertEqual((link["link"], link["protocol"], link["names"], link["streams"]), (1, 2, ["example"], 0))
        exposure, = self.report("exposures")
        self.assertEqual((exposure["name"], exposure["address"], exposure["published"], exposure["agent"]),
                         ("example", f"127.0.0.1:{self.tunnel.port}", True, link["agent"]))
        self.assertEqual(self.report("streams"), [])
        self.assertEqual(self.ctl("streams"), "no visitors connected\n")
        with self.tunnel.connect() as visitor:
            wait_until(lambda: self.report("streams"), "the stream")
            stream, = self.report("streams")
            host, port = visitor.getsockname()
            self.assertEqual((stream["name"], stream["visitor"], stream["link"]), ("example", f"{host}:{port}", 1))
            self.assertEqual(self.report("exposures")[0]["streams"], 1)
            self.assertEqual(self.report("status")["visitors"], 1)
            lines = self.ctl("streams").splitlines()
            self.assertRegex(lines[0], "^NAME +VISITOR +AGENT +SINCE +TO BACKEND +TO VISITOR$")
            self.assertIn(f"example  {host}:{port}", lines[1])
        for command in ("agents", "exposures"):
            self.assertEqual(len(self.ctl(command).splitlines()), 2)

    def test_version_1(self):
        gateway = self.stage.gateway("--listen-v1", "127.0.0.1:0")
        self.gateway = gateway
        self.stage.agent(gateway.wait_listening_v1(), "--v1", "-n", "old", self.backend)
        gateway.wait_registered("old")
        link, = self.report("agents")
        self.assertEqual((link["protocol"], link["names"]), (1, ["old"]))

    def test_watch(self):
        self.start()
        with self.tunnel.connect() as first:
            wait_until(lambda: self.report("streams"), "the stream")
            watch = subprocess.Popen(
                [program_path("diglett-server"), "--state-dir", self.gateway.state, "ctl", "streams", "--watch",
                 "--output", "json"], env=self.stage.environment(), stdout=subprocess.PIPE, text=True)
            try:
                guard = threading.Timer(20, watch.kill)
                guard.start()
                news = json.loads(watch.stdout.readline())
                self.assertEqual((news["event"], news["stream"]["visitor"]),
                                 ("running", "{}:{}".format(*first.getsockname())))
                get(self.tunnel.url)
                opened, closed = (json.loads(watch.stdout.readline()) for _ in range(2))
                self.assertEqual((opened["event"], closed["event"], closed["reason"]), ("opened", "closed", "finished"))
                self.assertEqual(opened["stream"]["visitor"], closed["stream"]["visitor"])
                for way in ("bytes-to-backend", "bytes-to-visitor"):
                    self.assertEqual(opened["stream"][way], 0)
                    self.assertGreater(closed["stream"][way], 0)
                # The watch ends with the gateway.
                self.gateway.kill()
                self.assertEqual(watch.wait(10), 0)
            finally:
                guard.cancel()
                watch.kill()
                watch.wait()
                watch.stdout.close()

    def test_many_streams(self):
        """More streams than a watcher's queue holds."""
        count = 300 if fast() else 3_000
        allow_descriptors(2 * count + 200)
        self.gateway = self.stage.gateway()
        tunnels = [self.stage.expose(self.backend, name=f"n{number}", gateway=self.gateway) for number in range(20)]
        visitors = [tunnels[number % len(tunnels)].connect() for number in range(count)]
        wait_until(lambda: len(self.report("streams")) == count, f"{count} streams", 30)
        self.assertEqual(len(self.ctl("streams").splitlines()), count + 1)
        watch = subprocess.Popen(
            [program_path("diglett-server"), "--state-dir", self.gateway.state, "ctl", "streams", "--watch"],
            env=self.stage.environment(), stdout=subprocess.PIPE, text=True)
        guard = threading.Timer(30, watch.kill)
        guard.start()
        try:
            for _ in range(count):
                self.assertEqual(watch.stdout.readline()[0], "=")
            for visitor in visitors:
                visitor.close()
            for _ in range(count):
                self.assertEqual(watch.stdout.readline()[0], "-")
        finally:
            guard.cancel()
            watch.kill()
            watch.wait()
            watch.stdout.close()

    def test_no_gateway(self):
        self.start()
        self.gateway.kill()
        self.assertIn(f"{self.gateway.state}/control.sock", self.ctl("status", code=69))
        self.assertIn("no gateway answers", self.ctl("status", code=69))

    def test_state_directory_without_a_gateway(self):
        """The command does not fall back to another gateway, not even to the service's."""
        self.start()
        for name in ("mistyped", str(self.stage.directory / "mistyped")):
            result = run(self.stage, "diglett-server", "--state-dir", name, "ctl", "drain")
            self.assertEqual(result.returncode, 69, result.stdout + result.stderr)
            self.assertIn(f"no gateway answers at {name}/control.sock", result.stderr)
            self.assertNotIn("/run/", result.stderr)
        self.assertTrue(self.gateway.running)

    def test_bad_arguments(self):
        self.start()
        for arguments in (("dance",), ("kick",), ("ban", "10.0.0.0/8", "--for", "long"), ("log-level", "loud"),
                          ("status", "--output", "xml")):
            self.ctl(*arguments, code=64)


class Steering(CtlTest):
    def test_kick(self):
        self.start()
        self.assertIn("no connected agent or link 'nobody'", self.ctl("kick", "nobody", code=1))
        self.gateway.wait_log(rf"kick 'nobody' by process \d+ of user {os.getuid()} failed: no connected agent or link 'nobody'")
        agent = self.report("agents")[0]["agent"]
        for target in (agent, "2"):
            seen = len(self.gateway.stderr)
            self.assertIn("closed link", self.ctl("kick", target))
            self.gateway.wait_unregistered("example", since=seen)
            # The agent reconnects.
            self.gateway.wait_registered("example", since=seen)
        self.assertEqual(get(self.tunnel.url), b"behind the agent")
        self.assertTrue(self.tunnel.agent.running)
        self.gateway.wait_log(rf"process \d+ of user {os.getuid()} requested kick '{agent}'")

    def test_ban_of_visitors(self):
        self.start()
        visitor = socket.create_connection(("127.0.0.1", self.tunnel.port), 10, ("127.0.0.9", 0))
        other = socket.create_connection(("127.0.0.1", self.tunnel.port), 10, ("127.0.0.10", 0))
        wait_until(lambda: len(self.report("streams")) == 2, "both streams")
        self.assertEqual(self.ctl("ban", "127.0.0.9").splitlines(),
                         ["banned 127.0.0.9/32", "cut 0 links and 1 stream of it"])
        with self.assertRaises(ConnectionResetError):
            visitor.recv(1)
        self.assertEqual(get(self.tunnel.url, "--interface", "127.0.0.10"), b"behind the agent")
        with self.assertRaises(Exception):
            get(self.tunnel.url, "--interface", "127.0.0.9")
        self.assertEqual(self.report("bans"), [{"network": "127.0.0.9/32"}])
        self.ctl("unban", "127.0.0.9")
        self.assertEqual(get(self.tunnel.url, "--interface", "127.0.0.9"), b"behind the agent")
        self.assertIn("127.0.0.9/32 is not banned and has no penalty", self.ctl("unban", "127.0.0.9", code=1))
        self.assertEqual([stream["visitor"].split(":")[0] for stream in self.report("streams")], ["127.0.0.10"])
        visitor.close()
        other.close()

    def test_ban_of_agents(self):
        self.start()
        self.assertIn("cut 1 link and", self.ctl("ban", "127.0.0.0/8", "--for", "2s"))
        self.assertLessEqual(self.report("bans")[0]["seconds"], 2)
        self.gateway.wait_unregistered("example")
        seen = len(self.gateway.stderr)
        # The ban expires, and the agent reconnects.
        self.gateway.wait_registered("example", since=seen, timeout=30)
        self.assertEqual(self.ctl("bans"), "no networks are banned\n")

    def test_bad_times(self):
        self.start()
        for seconds in (-1, 0, 1 << 62, (1 << 63) - 1, 36_500 * 86_400 + 1, 1 << 64, 1.5):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(10)
                connection.connect(str(self.gateway.state / "control.sock"))
                request = {"version": 1, "command": "ban", "target": "203.0.113.1", "seconds": seconds}
                connection.sendall(json.dumps(request).encode() + b"\n")
                self.assertIn(b'"ok":false', connection.recv(4096), seconds)
        self.assertEqual(self.report("bans"), [])

    def test_bad_networks(self):
        self.start()
        for text, words in (("x", "not a network"), ("10.1.2.3/8", "has bits after"), ("", "not a network")):
            self.assertIn(words, self.ctl("ban", text, code=1))

    def test_penalties(self):
        self.start()
        self.assertEqual(self.ctl("penalties"), "no sources are throttled\n")

    def test_unban_by_each_address_of_a_source(self):
        """For a client behind a translator (RFC 6052), logs have the IPv6 address, `ctl penalties` the IPv4 address."""
        hosts = self.stage.use(TwoHosts())
        client, place = "64:ff9b::c000:201", "64:ff9b::c000:202"
        for host, address in ((hosts.far, client), (hosts.near, place)):
            subprocess.run([*host, "ip", "address", "add", f"{address}/120", "dev", "cable", "nodad"], check=True)
        self.gateway = self.stage.gateway(listen=f"[{place}]:0", prefix=hosts.near)
        for address in (client, "192.0.2.1"):
            with self.subTest(address):
                # A gateway without an agents file refuses them. Each refusal adds 5 s to the source's penalty, which
                # takes effect at 15 s.
                agents = [
                    self.stage.agent(f"[{place}]:{self.gateway.port}", "--pin", self.gateway.pin, "-n", "example", "9",
                                     prefix=hosts.far) for _ in range(8)]
                wait_until(lambda: self.report("penalties"), "a penalty")
                for agent in agents:
                    agent.kill()
                self.assertEqual([bar["network"] for bar in self.report("penalties")], ["192.0.2.1"])
                self.assertEqual(self.ctl("unban", address), "its penalty was reset\n")
                self.assertEqual(self.report("penalties"), [])

    def test_drain(self):
        self.start()
        with self.tunnel.connect():
            wait_until(lambda: self.report("streams"), "the stream")
            self.assertEqual(self.ctl("drain"), "the gateway is stopping: waiting up to 30 s for 1 stream; a second signal (Ctrl-C) cuts it\n")
            self.assertEqual(self.report("status")["state"], "draining")
            # A second drain does not cut streams.
            self.assertEqual(self.ctl("drain"), "the gateway is stopping already: waiting up to 30 s for 1 stream; a second signal (Ctrl-C) cuts it\n")
            self.assertEqual(self.report("status")["streams"], 1)
            wait_until(lambda: is_closed(self.tunnel.port), "no new visitors")
        self.assertEqual(self.gateway.wait_exit(), 0)
        self.assertFalse((self.gateway.state / "control.sock").exists())

    def test_drain_of_an_idle_gateway(self):
        """The answer arrives before the gateway exits."""
        self.gateway = self.stage.gateway()
        self.assertEqual(self.ctl("drain"), "the gateway is stopping\n")
        self.assertEqual(self.gateway.wait_exit(), 0)

    def test_agent_that_is_called_like_a_link(self):
        self.gateway = self.stage.gateway()
        agents = AgentsFile(self.stage, self.gateway)
        tokens = {name: agents.add(name, "--names", f"n{name}").token for name in ("9", "1")}
        self.gateway.wait_log("read 2 agents")
        for name, token in tokens.items():
            self.stage.agent(self.gateway, "-t", token, "-n", f"n{name}", self.backend).wait_registered(f"n{name}")
        self.assertRegex(self.ctl("kick", "1"), r"^closed link \d+ of agent 1 at [^\n]*\n$")

    def test_log_level(self):
        self.start()
        get(self.tunnel.url)
        self.assertNotIn("DEBUG", self.gateway.output)
        self.ctl("log-level", "debug")
        get(self.tunnel.url)
        self.gateway.wait_log("DEBUG visitor .* of 'example' done")
        self.assertEqual(self.report("status")["log-level"], "debug")

    def test_reload(self):
        self.gateway = self.stage.gateway()
        agents = AgentsFile(self.stage, self.gateway)
        token = agents.add("one", "--names", "example").token
        self.gateway.wait_log("read 1 agent")
        agent = self.stage.agent(self.gateway, "-t", token, "-n", "example", self.backend)
        agent.wait_registered()
        self.assertEqual(self.ctl("reload"), "no changes\n")
        for arguments in (["reload"], ["reload", "--dry-run"]):
            self.assertEqual(self.report(*arguments), {"notes": ["no changes"]})
        bad = self.gateway.state / "agents.toml"
        text = bad.read_text()
        bad.write_text(text + "colour = 1\n")
        self.assertIn("unknown key 'colour'", self.ctl("reload", "--dry-run", code=1))
        bad.write_text(text)
        # The gateway polls the file twice a second, so the change may already be in effect.
        changed = re.sub(r'names = .*', 'names = ["other"]\ndisabled = true\nmax-links = 3', text)
        bad.write_text(changed + '[[agent]]\nname = "two"\n')
        said = self.ctl("reload")
        self.assertIn(said, ("no changes\n",
                             "agent 'one': names other, disabled, max-links 3\nagent 'two': added\n"))
        self.assertEqual(agent.wait_exit(), 11)


class TheSocket(CtlTest):
    def test_rights(self):
        self.start()
        path = self.gateway.state / "control.sock"
        self.assertEqual(path.stat().st_mode, stat.S_IFSOCK | 0o600)
        group = grp.getgrgid(os.getgid()).gr_name
        self.start("--control-group", group)
        path = self.gateway.state / "control.sock"
        self.assertEqual(path.stat().st_mode, stat.S_IFSOCK | 0o660)

    def test_another_place(self):
        path = self.stage.directory / "c.sock"
        file = configure(self.stage, f'control = "{path}"\n')
        self.gateway = self.stage.gateway("-c", file)
        result = run(self.stage, "diglett-server", "-c", file, "ctl", "status")
        self.assertEqual(result.returncode, 0, result.stderr)
        result = run(self.stage, "diglett-server", "ctl", "--control", path, "status")
        self.assertEqual(result.returncode, 0, result.stderr)
        # Two gateways cannot share a control socket.
        second = self.stage.gateway("-c", file, ready=False)
        self.assertEqual(second.wait_exit(), 73)
        self.assertIn(f"cannot open the control socket {path}: address already in use", second.output)

    def test_none(self):
        self.gateway = self.stage.gateway("--control", "none")
        self.assertFalse((self.gateway.state / "control.sock").exists())
        self.ctl("status", code=69)

    def test_long_state_directory(self):
        """The gateway starts even if the default control socket is unavailable."""
        state = self.stage.directory / ("x" * 100)
        self.gateway = self.stage.gateway(state=state)
        self.gateway.wait_log("WARN .*cannot open the control socket .*control.sock: name too long; choose another path with --control PATH")

    def test_after_a_kill(self):
        self.start()
        self.gateway.kill()
        self.gateway = self.stage.gateway(listen=self.gateway.address, state=self.gateway.state)
        self.assertEqual(self.report("status")["process"], self.gateway.pid)

    def test_garbage(self):
        self.start()
        path = str(self.gateway.state / "control.sock")
        for data in (b"{}\n", b"GET / HTTP/1.1\r\n\r\n", b"[" * 10_000 + b"\n", b"\x00" * 100_000):
            with self.subTest(data[:3]), socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(10)
                connection.connect(path)
                # The gateway answers a request that is too long while the client still sends the rest.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    connection.sendall(data)
                self.assertIn(b'"ok":false', connection.recv(4096))
        silent = [socket.socket(socket.AF_UNIX) for _ in range(40)]
        for connection in silent:
            connection.connect(path)
        # Silent connections make room for others.
        began = time.monotonic()
        self.ctl("status")
        self.assertLess(time.monotonic() - began, 4, "before they are closed for their silence")
        for connection in silent:
            connection.close()
        self.assertEqual(get(self.tunnel.url), b"behind the agent")
