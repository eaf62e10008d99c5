"""Readiness for scripts: --url-file and --exec-on-ready."""

import json
import os
import signal
import stat

import backends
from administration import run
from backends import Listener
from handgateway import HandGateway
from harness import EndToEndTest, free_port, wait_until
from hooks import configure, is_alive, wait_file, wait_gone
from visitors import get


class Ready(EndToEndTest):
    def setUp(self):
        super().setUp()
        self.backend = self.stage.use(Listener(backends.answering(b"here"))).address
        self.gateway = self.stage.gateway()
        self.file = self.stage.directory / "urls"

    def agent(self, *arguments, gateway=None, **more):
        return self.stage.agent(gateway or self.gateway, *arguments, **more)

    def test_url_file(self):
        agent = self.agent("--url-file", self.file, "-n", "example", self.backend)
        wait_until(self.file.exists, "the file")
        self.assertEqual(self.file.read_text(), f"127.0.0.1:{agent.wait_registered()}\n")
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), 0o644)
        self.assertEqual(get(f"http://{self.file.read_text().strip()}/"), b"here")
        self.assertEqual(agent.stop(), 0)
        self.assertFalse(self.file.exists())

    def test_several_names_in_their_order(self):
        agent = self.agent("--url-file", self.file, "-n", f"b={self.backend}", "-n", f"a={self.backend}")
        ports = [agent.wait_registered(name) for name in "ba"]
        wait_until(self.file.exists, "the file")
        self.assertEqual(self.file.read_text(), "".join(f"127.0.0.1:{port}\n" for port in ports))

    def test_not_before_all_are_there(self):
        self.stage.expose(self.backend, name="taken", gateway=self.gateway)
        file = configure(self.stage, f'url-file = "{self.file}"\n[[expose]]\nname = "free"\nbackend = "{self.backend}"\n'
                         f'[[expose]]\nname = "taken"\nbackend = "{self.backend}"\n')
        agent = self.agent("-c", file)
        agent.wait_registered("free")
        agent.wait_event("missing", name="taken")
        self.assertFalse(self.file.exists())

    def test_public_url(self):
        gateway = self.stage.gateway(
            "-c", configure(self.stage, 'public-url = "https://{name}.gateway.test/"\n'))
        agent = self.agent("--url-file", self.file, "-n", "example", self.backend, gateway=gateway)
        wait_until(self.file.exists, "the file")
        self.assertEqual(self.file.read_text(), "https://example.gateway.test/\n")
        self.assertEqual(agent.wait_event("registered")["address"], "https://example.gateway.test/")

    def test_unwritable(self):
        """A path that cannot be written is an error at once, and only a regular file is replaced."""
        os.mkfifo(self.file)
        for path in (self.stage.directory / "nothing" / "urls", self.file, self.stage.directory, "/dev/null", ""):
            agent = self.agent("--url-file", path, "-n", "example", self.backend)
            self.assertEqual(agent.wait_exit(), 64, path)
            self.assertRegex(agent.output, "--url-file: .*(is not a regular file|cannot be written|is empty)")
        self.assertTrue(stat.S_ISCHR(os.stat("/dev/null").st_mode))

    def test_what_a_killed_agent_has_left(self):
        """The agent removes an old file, so that scripts do not read an outdated address."""
        agent = self.agent("--url-file", self.file, "-n", "example", self.backend)
        wait_until(self.file.exists, "the file")
        agent.kill()
        self.assertTrue(self.file.exists())
        agent = self.agent("--url-file", self.file, "-n", "example", self.backend, gateway="127.0.0.1:9")
        wait_until(lambda: not self.file.exists(), "the old address to go")
        agent.wait_event("retrying")

    def test_written_as_soon_as_it_can_be(self):
        directory = self.stage.new_directory("run")
        address = f"127.0.0.1:{free_port()}"
        agent = self.agent("--url-file", directory / "urls", "-n", "example", self.backend, gateway=address)
        agent.wait_event("retrying")
        directory.rmdir()
        self.stage.gateway(listen=address)
        agent.wait_log("ERROR .*cannot write the URL file")
        directory.mkdir()
        self.assertEqual(wait_file(directory / "urls"), f"127.0.0.1:{agent.wait_registered()}\n")

    def test_pipe_in_the_way(self):
        """A pipe of another user in the directory must not block the agent."""
        os.mkfifo(f"{self.file}.new")
        agent = self.agent("--url-file", self.file, "-n", "example", self.backend)
        wait_until(self.file.exists, "the file")
        self.assertEqual(agent.stop(), 0)

    def hand_gateway(self, text):
        return self.stage.use(HandGateway(self.gateway.state / "identity.pem", text))

    def test_gateway_that_sends_no_address(self):
        """Scripts receive an empty string; the log and the event have the reason."""
        for text in ("-oProxyCommand=x:22", "$(id):80", "https://a.test/$(id)", "@/etc/example", "", "a b:80",
                     "behind the gateway's proxy", "\na:80", "127.1:80", "\x1b[2J:80"):
            with self.subTest(text):
                out = self.stage.new_directory("out") / "out"
                command = f'printf "<%s>" "$DIGLETT_URL" >{out}.new; mv {out}.new {out}'
                agent = self.agent("--exec-on-ready", command, "--url-file", self.file, "-n", "example", self.backend,
                                   gateway=self.hand_gateway(text).address)
                event = agent.wait_event("registered")
                self.assertNotIn("address", event)
                self.assertIn("the gateway sent", event["message"])
                agent.wait_log("WARN .*'example' is registered .* but the gateway sent .* set 'public-url'")
                wait_until(out.exists, "the command")
                self.assertEqual((out.read_text(), self.file.read_text()), ("<>", "\n"))
                status = run(self.stage, "diglett", "status", "--state-dir", agent.state, "--output", "json")
                self.assertNotIn("address", json.loads(status.stdout)[0]["names"][0])
                self.assertNotIn("\x1b", agent.output)
                agent.stop()

    def test_gateway_that_sends_a_valid_address(self):
        for text in ("example.gateway.test:443", "[2001:db8::1]:80", "https://gateway.test:8443/example/%7Ea"):
            with self.subTest(text):
                agent = self.agent("--url-file", self.file, "-n", "example", self.backend,
                                   gateway=self.hand_gateway(text).address)
                self.assertEqual(agent.wait_event("registered")["address"], text)
                self.assertEqual(wait_file(self.file), f"{text}\n")
                agent.stop()

    def test_name_without_a_public_address(self):
        gateway = self.stage.gateway("--expose-sockets", self.stage.directory / "names", "--expose-ports", "none")
        agent = self.agent("-n", "example", self.backend, gateway=gateway)
        self.assertNotIn("address", agent.wait_event("registered"))
        agent.wait_log("the gateway sent 'behind the gateway's proxy', which is not HOST:PORT or an http or https URL")

    def test_exec(self):
        out = self.stage.directory / "out"
        script = f'echo to the log; printf "%s|%s|%s|%s" "$DIGLETT_URL" "$DIGLETT_URLS" "$DIGLETT_TOKEN" "$HOME" >{out}.new; ' \
            f"mv {out}.new {out}"
        environment = {**self.stage.environment(), "DIGLETT_TOKEN": "secret"}
        agent = self.agent("--exec-on-ready", script, "-n", f"b={self.backend}", "-n", f"a={self.backend}",
                           env=environment)
        ports = [agent.wait_registered(name) for name in "ba"]
        wait_until(out.exists, "the command")
        urls = [f"127.0.0.1:{port}" for port in ports]
        self.assertEqual(out.read_text(), f"{urls[0]}|b={urls[0]}\na={urls[1]}||{environment['HOME']}")
        agent.wait_log("^to the log$")
        self.assertTrue(agent.running, "it goes on when the command has ended")

    def test_exec_without_a_shell(self):
        out = self.stage.directory / "out file"
        file = configure(self.stage, f'exec-on-ready = ["touch", "{out}"]\n')
        self.agent("-c", file, "-n", "example", self.backend)
        wait_until(out.exists, "the command")

    def test_exec_fails(self):
        agent = self.agent("--exec-on-ready", "exit 3", "-n", "example", self.backend)
        agent.wait_log("WARN .*exec-on-ready command exited with code 3")
        self.assertEqual(get(f"http://127.0.0.1:{agent.wait_registered()}/"), b"here")
        file = configure(self.stage, 'exec-on-ready = ["/nonexistent/x", "y"]\n')
        agent = self.agent("-c", file, "-n", "other", self.backend)
        agent.wait_log("ERROR .*exec-on-ready command cannot be started: no such file")

    def test_exec_ends_with_the_agent_and_runs_once(self):
        pid_file = self.stage.directory / "pid"
        agent = self.agent("--exec-on-ready", f"echo $$ >>{pid_file}.new; ln -f {pid_file}.new {pid_file}; exec sleep 100",
                           "-n", "example", self.backend)
        pid = int(wait_file(pid_file))
        # A second registration does not start the command again.
        seen = len(agent.stdout)
        self.gateway.kill()
        self.stage.gateway(listen=self.gateway.address, state=self.gateway.state)
        agent.wait_registered(since=seen, timeout=30)
        self.assertEqual(pid_file.read_text().split(), [str(pid)])
        self.assertTrue(is_alive(pid))
        self.assertEqual(agent.stop(signal.SIGINT), 0)
        wait_gone(pid)

    def test_version_1(self):
        gateway = self.stage.gateway("--listen-v1", "127.0.0.1:0")
        out = self.stage.directory / "out"
        agent = self.agent("--v1", "--exec-on-ready", f"touch {out}", "-n", "old", self.backend,
                           gateway=gateway.wait_listening_v1())
        wait_until(out.exists, "the command")
        self.assertTrue(agent.running)
        agent = self.agent("--v1", "--url-file", out, "-n", "old", self.backend, gateway="127.0.0.1:9")
        self.assertEqual(agent.wait_exit(), 64)
        self.assertIn("version 1 does not transmit the public address", agent.output)
