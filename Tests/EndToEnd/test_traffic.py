"""Real servers and real protocols through a tunnel."""

import os
import re
import socket
import subprocess
import threading
import time

import backends
from backends import Listener, UploadServer, write_random_file
from harness import EndToEndTest, fast, free_port
from realservers import Nginx, Sshd, python_http_server, require
from visitors import (
    FILE_SECONDS, at_once, curl, file_sha256, get, read_exactly, sha256, sha256_of)

# This module measures, so no other module runs at the same time (integration-test -j).
ALONE = True

MIB = 1 << 20


class BulkTransfers(EndToEndTest):
    """Large bodies in both directions, verified by SHA-256."""

    def test_twenty_downloads_at_once(self):
        nginx = Nginx(self.stage)
        expected = write_random_file(nginx.files / "large", 64 * MIB)
        tunnel = self.stage.expose(nginx.address)

        began = time.monotonic()
        digests = at_once(20, lambda _: sha256_of(f"{tunnel.url}/large"))
        self.note(f"{20 * 64 / (time.monotonic() - began):.0f} MiB/s")
        self.assertEqual(digests, [expected] * 20)

    def test_upload(self):
        server = self.stage.use(UploadServer())
        tunnel = self.stage.expose(server.address)
        source = self.stage.directory / "upload"
        expected = write_random_file(source, 256 * MIB)

        began = time.monotonic()
        answer = get(f"{tunnel.url}/upload", "-T", source, timeout=FILE_SECONDS)
        self.note(f"{256 / (time.monotonic() - began):.0f} MiB/s")
        self.assertEqual(answer.decode(), expected)

    def test_both_directions_of_one_connection(self):
        """The visitor writes to an echo and reads from it at the same time."""
        tunnel = self.stage.expose(self.stage.use(Listener(backends.serve_echo)).address)
        data = os.urandom(32 * MIB)
        with tunnel.connect() as visitor:
            def send():
                visitor.sendall(data)
                visitor.shutdown(socket.SHUT_WR)

            sender = threading.Thread(target=send, daemon=True)
            sender.start()
            echo = backends.read_all(visitor)
            sender.join(10)
        self.assertEqual(len(echo), len(data))
        self.assertEqual(sha256(echo), sha256(data))


class NginxUnderLoad(EndToEndTest):
    def test_wrk(self):
        nginx = Nginx(self.stage)
        (nginx.files / "small").write_bytes(os.urandom(1024))
        tunnel = self.stage.expose(nginx.address)

        seconds = 2 if fast() else 5
        result = subprocess.run(
            [require("wrk"), "-t1", "-c200", f"-d{seconds}s", f"{tunnel.url}/small"],
            capture_output=True, text=True, timeout=seconds + 30, check=True)
        self.assertNotIn("Socket errors", result.stdout, result.stdout)
        self.assertNotIn("Non-2xx", result.stdout, result.stdout)
        requests = int(re.search(r"(\d+) requests in", result.stdout).group(1))
        self.note(f"{requests // seconds} requests/s")
        # Far below any working tunnel: the check only shows that wrk sent requests.
        self.assertGreater(requests, 200 * seconds)


class SecureShell(EndToEndTest):
    """A protocol in which the server speaks first."""

    def setUp(self):
        super().setUp()
        self.sshd = Sshd(self.stage)
        self.tunnel = self.stage.expose(self.sshd.address, name="shell")

    def run_client(self, program, *arguments):
        command = [*map(str, self.sshd.client(program, self.tunnel.port)), *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False,
                                stdin=subprocess.DEVNULL, env=self.stage.environment())
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def test_login(self):
        self.assertEqual(self.run_client("ssh", "127.0.0.1", "echo shell $((6 * 7))"), "shell 42\n")

    def test_scp_both_ways(self):
        directory = self.stage.new_directory("copies")
        expected = write_random_file(directory / "original", 32 * MIB)
        self.run_client("scp", directory / "original", f"127.0.0.1:{directory}/there")
        self.assertEqual(file_sha256(directory / "there"), expected)
        self.run_client("scp", f"127.0.0.1:{directory}/there", directory / "back")
        self.assertEqual(file_sha256(directory / "back"), expected)

    def test_banner_before_the_visitor_says_a_word(self):
        with self.tunnel.connect(timeout=5) as visitor:
            self.assertEqual(read_exactly(visitor, 8), b"SSH-2.0-")


class HalfClose(EndToEndTest):
    """The end of the request is not the end of the answer."""

    REQUEST = b"GET /large HTTP/1.1\r\nHost: half\r\nConnection: close\r\n\r\n"

    def ask(self, tunnel, request):
        """Sends a request, ends the sending direction, and reads the whole answer; returns (head, body)."""
        with tunnel.connect() as visitor:
            visitor.sendall(request)
            visitor.shutdown(socket.SHUT_WR)
            head, _, body = backends.read_all(visitor).partition(b"\r\n\r\n")
        return head.decode(), body

    def test_answer_that_waits_for_the_end_of_the_request(self):
        body = os.urandom(8 * MIB)
        backend = self.stage.use(Listener(backends.answering_after_end(body)))
        request = self.REQUEST + os.urandom(3 * MIB)
        head, answer = self.ask(self.stage.expose(backend.address), request)
        self.assertIn(f"X-Request-SHA256: {sha256(request)}", head)
        self.assertEqual(sha256(answer), sha256(body))

    def test_http_server(self):
        """A real server; not nginx, which considers such a client gone."""
        files = self.stage.new_directory("files")
        expected = write_random_file(files / "large", 8 * MIB)
        port = free_port()
        python_http_server(self.stage, port, files, bind="127.0.0.1")
        head, answer = self.ask(self.stage.expose(port), self.REQUEST)
        self.assertTrue(head.startswith("HTTP/1.0 200 "), head)
        self.assertEqual(sha256(answer), expected)

    def test_backend_ends_first(self):
        """The other way round: the visitor may continue to send."""
        received = []

        def serve(connection):
            connection.sendall(b"go on")
            connection.shutdown(socket.SHUT_WR)
            received.append(sha256(backends.read_all(connection)))
            # Without this event the test could check before the list is filled.
            done.set()

        done = threading.Event()
        tunnel = self.stage.expose(self.stage.use(Listener(serve)).address)
        data = os.urandom(4 * MIB)
        with tunnel.connect() as visitor:
            self.assertEqual(backends.read_all(visitor), b"go on")
            visitor.sendall(data)
        self.assertTrue(done.wait(15), "the backend has not got the end of the upload")
        self.assertEqual(received, [sha256(data)])


class ServerSentEvents(EndToEndTest):
    """The tunnel must not hold back a few bytes to wait for more."""

    COUNT = 51
    INTERVAL_SECONDS = 0.04
    LIMIT_SECONDS = 0.050

    def test_each_event_arrives_at_once(self):
        backend = self.stage.use(Listener(backends.sending_events(self.COUNT, self.INTERVAL_SECONDS)))
        tunnel = self.stage.expose(backend.address)
        delays = []
        with tunnel.connect() as visitor, visitor.makefile("rb") as lines:
            visitor.sendall(b"GET /events HTTP/1.1\r\nHost: events\r\n\r\n")
            for line in lines:
                if line.startswith(b"data: "):
                    # Backend and visitor use the same machine's clock.
                    delays.append(time.monotonic() - float(line[6:]))
        self.assertEqual(len(delays), self.COUNT)
        # The first event also pays for connecting to the backend.
        slowest = max(delays[1:])
        self.note(f"slowest {slowest * 1000:.1f} ms")
        self.assertLess(slowest, self.LIMIT_SECONDS, [f"{delay * 1000:.1f}" for delay in delays])


class BackendAddresses(EndToEndTest):
    """All forms of a backend's address."""

    def check(self, backend, spelled=None):
        body = os.urandom(100_000)
        listener = self.stage.use(Listener(backends.answering(body), **backend))
        spelled = spelled.format(listener) if spelled else listener.address
        tunnel = self.stage.expose(spelled)
        self.assertEqual(sha256(get(tunnel.url)), sha256(body))

    def test_ipv4(self):
        self.check({"host": "127.0.0.1"})

    def test_ipv6(self):
        self.check({"host": "::1"})

    def test_localhost_on_ipv4_only(self):
        self.check({"host": "127.0.0.1"}, "localhost:{0.port}")

    def test_localhost_on_ipv6_only(self):
        """If a host name has several addresses, the agent tries each."""
        addresses = {info[4][0] for info in socket.getaddrinfo("localhost", 0)}
        if "::1" not in addresses:
            self.skipTest("localhost has no IPv6 address on this machine")
        self.check({"host": "::1"}, "localhost:{0.port}")

    def test_port_alone(self):
        self.check({"host": "127.0.0.1"}, "{0.port}")

    def test_unix_socket(self):
        self.check({"path": self.stage.directory / "backend.socket"})

    def test_several_names_on_one_agent(self):
        bodies = {name: os.urandom(1000) for name in ("one", "two", "three")}
        one, two, three = (self.stage.use(Listener(backends.answering(body))).address
                           for body in bodies.values())
        agent = self.stage.agent(
            self.stage.gateway(), "-n", "one", "-n", f"two={two}", "-n", f"three={three}", one)
        for name, body in bodies.items():
            port = agent.wait_registered(name)
            self.assertEqual(get(f"http://127.0.0.1:{port}/"), body, name)

    def test_curl_sees_the_public_address_of_the_event(self):
        listener = self.stage.use(Listener(backends.answering(b"here")))
        tunnel = self.stage.expose(listener.address)
        event = tunnel.agent.wait_event("registered", name="example")
        self.assertEqual(curl(f"http://{event['address']}/").stdout, b"here")
