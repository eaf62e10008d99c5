"""Parts of the chain that break, are killed, or are restarted."""

import os
import random
import signal
import socket
import ssl
import sys
import threading
import time
from pathlib import Path

import backends
from backends import Listener, write_random_file
from harness import EndToEndTest, Failure, fast, free_port, wait_until
from realservers import Nginx, require
from visitors import file_size, get, read_exactly, sha256

MIB = 1 << 20
# "At once" for a restart: so short that users do not notice it.
AT_ONCE_SECONDS = 2.0


class BrokenBackend(EndToEndTest):
    """A visitor must never mistake a broken answer for a complete one."""

    def test_refused(self):
        tunnel = self.stage.expose(f"127.0.0.1:{free_port()}")
        with tunnel.connect(timeout=10) as visitor:
            with self.assertRaises(ConnectionResetError):
                visitor.recv(1)
        tunnel.agent.wait_log(r"(?i)refused")
        tunnel.gateway.wait_log(r"(?i)refused")

    def test_refused_while_the_visitor_sends(self):
        """Bytes in flight do not turn the reset into a clean end."""
        tunnel = self.stage.expose(f"127.0.0.1:{free_port()}")
        with tunnel.connect(timeout=10) as visitor:
            with self.assertRaises((ConnectionResetError, BrokenPipeError)):
                visitor.sendall(b"x" * (64 * MIB))

    def test_missing_unix_socket(self):
        tunnel = self.stage.expose(f"unix:{self.stage.directory}/nothing-here")
        with tunnel.connect(timeout=10) as visitor:
            with self.assertRaises(ConnectionResetError):
                visitor.recv(1)

    def check_visitor_reset(self, waits_for_backend):
        """The other direction: the backend must not mistake an aborted upload for a complete one."""
        ending = []
        began, ended = threading.Event(), threading.Event()

        def serve(connection):
            try:
                if connection.recv(1):
                    began.set()
                    backends.read_all(connection)
                ending.append("clean end")
            except ConnectionResetError:
                ending.append("reset")
            ended.set()

        tunnel = self.stage.expose(self.stage.use(Listener(serve)).address)
        visitor = tunnel.connect()
        visitor.sendall(os.urandom(100_000))
        if waits_for_backend:
            self.assertTrue(began.wait(10), "the backend has received nothing")
        backends.reset_on_close(visitor)
        visitor.close()
        # A visitor that disconnects this early may not reach the backend.
        reached = ended.wait(10 if waits_for_backend else 1)
        self.assertEqual(ending, ["reset"] if waits_for_backend or reached else [])

    def test_visitor_reset_during_an_upload(self):
        self.check_visitor_reset(waits_for_backend=True)

    def test_visitor_reset_at_once(self):
        self.check_visitor_reset(waits_for_backend=False)


class KilledDuringDownload(EndToEndTest):
    """SIGKILL during an answer; curl must report an error."""

    def start(self, mode):
        """Starts a download, and waits until data arrives; returns (backend, tunnel, curl)."""
        script = Path(__file__).with_name("endless_download.py")
        backend = self.stage.start("backend", [sys.executable, script, mode])
        port = backend.wait_line(backend.stdout, str.strip, "its port")
        # A stream may continue only for this long.
        settings = self.stage.new_directory("settings") / "diglett-server.toml"
        settings.write_text('[limits]\nresume-window = "1s"\n')
        tunnel = self.stage.expose(f"127.0.0.1:{port}", gateway=self.stage.gateway("-c", settings))
        target = self.stage.directory / "download"
        # Slow: many bytes are in flight at the kill, but few are on the disk.
        visitor = self.stage.start("curl", [
            require("curl"), "-sS", "--limit-rate", "20M", "--max-time", "60", "-o", target, tunnel.url])
        wait_until(lambda: file_size(target) > MIB, "the download to be under way")
        return backend, tunnel, visitor

    def check(self, visitor):
        # 18: shorter than Content-Length; 56: reset while receiving.
        self.assertIn(visitor.wait_exit(), (18, 56), "curl took a part for the whole")

    def test_backend_killed_with_content_length(self):
        backend, _, visitor = self.start("length")
        backend.kill()
        self.check(visitor)

    def test_backend_killed_when_only_a_reset_tells(self):
        backend, _, visitor = self.start("close")
        backend.kill()
        self.check(visitor)

    def test_agent_killed(self):
        _, tunnel, visitor = self.start("close")
        tunnel.agent.kill()
        self.check(visitor)

    def test_gateway_killed(self):
        _, tunnel, visitor = self.start("close")
        tunnel.gateway.kill()
        self.check(visitor)


class AgentRestart(EndToEndTest):
    def setUp(self):
        super().setUp()
        self.backend = self.stage.use(Listener(backends.answering(b"still here")))
        self.tunnel = self.stage.expose(self.backend.address)

    def check_restart(self):
        began = time.monotonic()
        again = self.stage.agent(self.tunnel.gateway, "-n", "example", self.backend.address,
                                 state=self.tunnel.agent.state)
        self.assertEqual(again.wait_registered(), self.tunnel.port, "another public port")
        self.assertEqual(get(self.tunnel.url), b"still here")
        elapsed = time.monotonic() - began
        self.note(f"back after {elapsed * 1000:.0f} ms")
        self.assertLess(elapsed, AT_ONCE_SECONDS)

    def test_killed(self):
        self.tunnel.agent.kill()
        self.check_restart()

    def test_stopped_without_a_word(self):
        """As after a power failure: the gateway still considers the old link alive."""
        self.tunnel.agent.send_signal(signal.SIGSTOP)
        self.check_restart()

    def test_ended_politely(self):
        self.assertEqual(self.tunnel.agent.stop(), 0)
        self.check_restart()

    def test_sigterm_and_sigint_unregister(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(signal=number.name):
                gateway = self.stage.gateway()
                agent = self.stage.agent(gateway, "-n", "bye", self.backend.address)
                gateway.wait_registered("bye")
                port = agent.wait_registered("bye")
                self.assertEqual(agent.stop(number), 0)
                gateway.wait_unregistered("bye")
                with self.assertRaises(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port), 5).close()


class GatewayRestart(EndToEndTest):
    def test_killed(self):
        """The agent reconnects, and visitors use the same port."""
        backend = self.stage.use(Listener(backends.answering(b"back again")))
        tunnel = self.stage.expose(backend.address)
        self.assertEqual(get(tunnel.url), b"back again")

        tunnel.gateway.kill()
        tunnel.agent.wait_event("interrupted")
        tunnel.agent.wait_event("retrying")
        seen = len(tunnel.agent.stdout)
        gateway = self.stage.gateway(listen=tunnel.gateway.address, state=tunnel.gateway.state)
        self.assertEqual(gateway.pin, tunnel.gateway.pin, "the gateway forgot its key")
        self.assertEqual(tunnel.agent.wait_registered(since=seen), tunnel.port)
        self.assertEqual(get(tunnel.url), b"back again")

    def test_agent_waits_for_a_gateway_that_is_not_there_yet(self):
        backend = self.stage.use(Listener(backends.answering(b"at last")))
        port = free_port()
        agent = self.stage.agent(f"127.0.0.1:{port}", "-n", "example", backend.address)
        self.assertGreaterEqual(agent.wait_event("retrying")["seconds"], 0)
        self.stage.gateway(listen=f"127.0.0.1:{port}")
        public = agent.wait_registered()
        self.assertEqual(get(f"http://127.0.0.1:{public}/"), b"at last")

    def test_sigterm_lets_transfers_finish(self):
        size = 64 * MIB
        nginx = Nginx(self.stage)
        expected = write_random_file(nginx.files / "large", size)
        tunnel = self.stage.expose(nginx.address)
        with tunnel.connect() as visitor:
            visitor.sendall(b"GET /large HTTP/1.1\r\nHost: drain\r\nConnection: close\r\n\r\n")
            # The rest of the file exceeds all buffers on the path.
            answer = read_exactly(visitor, MIB)
            tunnel.gateway.send_signal(signal.SIGTERM)
            with self.assertRaises(Failure, msg="the gateway did not wait for the transfer"):
                tunnel.gateway.wait_exit(timeout=0.5)
            answer += backends.read_all(visitor)
        _, _, body = answer.partition(b"\r\n\r\n")
        self.assertEqual(len(body), size)
        self.assertEqual(sha256(body), expected)
        self.assertEqual(tunnel.gateway.wait_exit(), 0)

    def test_sigterm_when_idle(self):
        tunnel = self.stage.expose("127.0.0.1:9")
        self.assertEqual(tunnel.gateway.stop(timeout=3), 0)


class StrangersOnTheAgentPort(EndToEndTest):
    """An honest agent logs in within a second, whatever else connects to the agent port."""

    LOGIN_LIMIT_SECONDS = 1.0
    SILENT = 100 if fast() else 300

    def setUp(self):
        super().setUp()
        self.gateway = self.stage.gateway()
        self.strangers = []
        self.addCleanup(lambda: [stranger.close() for stranger in self.strangers])

    def stranger(self):
        connection = socket.create_connection((self.gateway.host, self.gateway.port), 10)
        self.strangers.append(connection)
        return connection

    def check_honest_agent(self):
        began = time.monotonic()
        agent = self.stage.agent(self.gateway, "-n", "honest", "127.0.0.1:9")
        agent.wait_registered("honest")
        elapsed = time.monotonic() - began
        self.note(f"logged in after {elapsed * 1000:.0f} ms")
        self.assertLess(elapsed, self.LOGIN_LIMIT_SECONDS)

    def check_closed(self, connection):
        """Checks that the gateway closes the connection, cleanly or by a reset."""
        connection.settimeout(20)
        try:
            while connection.recv(4096):
                pass
        except ConnectionResetError:
            pass
        except TimeoutError:
            self.fail("the gateway keeps a stranger's connection open")

    def check_garbage(self, data):
        connections = [self.stranger() for _ in range(10)]
        for connection in connections:
            connection.sendall(data)
        self.check_honest_agent()
        for connection in connections:
            self.check_closed(connection)

    def test_http(self):
        self.check_garbage(b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n")

    def test_ssh_banner(self):
        self.check_garbage(b"SSH-2.0-OpenSSH_9.2\r\n")

    def test_random_bytes(self):
        generator = random.Random(20_000)
        for length in (1, 100, 10_000):
            for connection in [self.stranger() for _ in range(5)]:
                connection.sendall(generator.randbytes(length))
        self.check_honest_agent()

    def test_broken_client_hello(self):
        """The start of a TLS record that never becomes complete."""
        self.stranger().sendall(b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03" + b"\0" * 100)
        self.check_honest_agent()

    def test_tls_without_our_protocol_name(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        # Either the handshake fails, or the connection ends after it.
        with self.assertRaises((ssl.SSLError, ConnectionError, EOFError)):
            with context.wrap_socket(self.stranger()) as connection:
                connection.sendall(b"\0" * 8)
                if not connection.recv(1):
                    raise EOFError
        self.check_honest_agent()

    def test_silent_address(self):
        """If one of the gateway's addresses accepts connections but never answers, the agent also tries the other."""
        gateway = self.stage.gateway()
        try:
            silent = self.stage.use(socket.create_server(("::1", gateway.port), family=socket.AF_INET6))
        except OSError as error:
            self.skipTest(f"no IPv6 here: {error}")
        agent = self.stage.agent(f"localhost:{gateway.port}", "-n", "example", "9")
        # Before the attempt at the silent address fails, which takes ten seconds.
        agent.wait_registered("example", timeout=8)
        connection, _ = silent.accept()
        with connection:
            self.assertEqual(read_exactly(connection, 2), b"\x16\x03", "it was not tried first")
        self.assertEqual(agent.events("lost"), [])
        # The next link does not try the silent address again.
        silent.settimeout(0.2)
        seen = len(agent.stdout)
        self.assertEqual(gateway.stop(), 0)
        self.stage.gateway(listen=gateway.address, state=gateway.state)
        agent.wait_registered("example", since=seen, timeout=30)
        with self.assertRaises(TimeoutError):
            silent.accept()[0].close()

    def test_silent_connections(self):
        for _ in range(self.SILENT):
            self.stranger()
        self.check_honest_agent()
