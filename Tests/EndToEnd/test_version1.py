"""Version 1 of the protocol: traffic between our programs and an independent peer."""

import itertools
import os
import random
import select
import socket
import threading
import time

import backends
import soak
import version1
import websocket
from backends import Listener, UploadServer, write_random_file
from harness import Agent, EndToEndTest, Failure, Gateway, fast, wait_until
from realservers import Nginx
from version1 import own_gateway, peer_agent, peer_server
from visitors import at_once, curl, get, read_exactly, sha256, sha256_of

MIB = 1 << 20


def serve_lines(connection):
    """Answers each line, and closes after a line that begins with "last"."""
    with connection.makefile("rb") as lines:
        for line in lines:
            connection.sendall(b"answer to " + line)
            if line.startswith(b"last"):
                return


class Traffic:
    """Tests of traffic for each combination of peers at the ends of the link."""

    DOWNLOAD = (8 if fast() else 32) * MIB
    SHORT_CONNECTIONS = 300 if fast() else 2000
    AT_A_TIME = 16

    def test_pages_of_one_connection(self):
        nginx = Nginx(self.stage)
        pages = [os.urandom(10_000 * number) for number in range(6)]
        for number, page in enumerate(pages):
            (nginx.files / str(number)).write_bytes(page)
        tunnel = self.expose(nginx.address)
        result = curl("--fail", "-w", "%{stderr}%{num_connects}",
                      *(f"{tunnel.url}/{number}" for number in range(len(pages))))
        self.assertEqual(sha256(result.stdout), sha256(b"".join(pages)), result.stderr)
        self.assertEqual(result.stderr, b"1" + b"0" * (len(pages) - 1), "the connection was not kept")

    def test_upload(self):
        server = self.stage.use(UploadServer())
        source = self.stage.directory / "upload"
        expected = write_random_file(source, 8 * MIB)
        tunnel = self.expose(server.address)
        answer = get(tunnel.url, "-H", "Connection: close", "--data-binary", f"@{source}")
        self.assertEqual(answer.decode(), expected)

    def test_twenty_downloads_at_once(self):
        nginx = Nginx(self.stage)
        expected = write_random_file(nginx.files / "large", self.DOWNLOAD)
        tunnel = self.expose(nginx.address)
        began = time.monotonic()
        digests = at_once(20, lambda _: sha256_of(f"{tunnel.url}/large"))
        self.note(f"{20 * self.DOWNLOAD / MIB / (time.monotonic() - began):.0f} MiB/s")
        self.assertEqual(digests, [expected] * 20)

    def test_websocket(self):
        tunnel = self.expose(self.stage.use(Listener(websocket.serve_echo)).address)
        with tunnel.connect() as connection:
            peer = websocket.connect(connection, "version-1")
            for size in (0, 1, 125, 65_535, 65_536, MIB):
                payload = os.urandom(size)
                peer.send(websocket.BINARY, payload)
                opcode, echo = peer.receive()
                self.assertEqual((opcode, sha256(echo)), (websocket.BINARY, sha256(payload)))
            peer.send(websocket.CLOSE, b"\x03\xe8")
            self.assertEqual(peer.receive(), (websocket.CLOSE, b"\x03\xe8"))

    def test_short_connections_that_the_backend_ends(self):
        self.check_short_connections(b"last")

    def test_short_connections_that_the_visitor_ends(self):
        self.check_short_connections(b"first")

    def check_short_connections(self, word):
        tunnel = self.expose(self.stage.use(Listener(serve_lines)).address)
        ours = [program for program in (tunnel.gateway, tunnel.agent)
                if isinstance(program, (Gateway, Agent))]

        def descriptors():
            return [program.descriptors() for program in ours]

        before = descriptors()
        numbers = itertools.count()

        def work(_):
            # next() of a count is atomic.
            while (number := next(numbers)) < self.SHORT_CONNECTIONS:
                self.visit(tunnel, word, number)

        began = time.monotonic()
        at_once(self.AT_A_TIME, work)
        self.note(f"{self.SHORT_CONNECTIONS / (time.monotonic() - began):.0f}/s")
        try:
            wait_until(lambda: descriptors() == before, "descriptors to be closed")
        except Failure:
            self.fail(f"descriptors: {before} before, {descriptors()} after")

    def source(self, number):
        """A visitor's source address."""
        return soak.source_address(number), 0

    def visit(self, tunnel, word, number):
        address = ("127.0.0.1", tunnel.port)
        with socket.create_connection(address, 30, source_address=self.source(number)) as visitor:
            line = b"%s %d\n" % (word, number)
            visitor.sendall(line)
            expected = b"answer to " + line
            self.assertEqual(read_exactly(visitor, len(expected)), expected)
            if word == b"last":
                self.assertEqual(visitor.recv(1), b"")


class PeerAgentAtOurGateway(Traffic, EndToEndTest):
    def expose(self, backend):
        return version1.peer_agent_at_our_gateway(self.stage, backend)


class OurAgentAtPeerServer(Traffic, EndToEndTest):
    def setUp(self):
        super().setUp()
        # Each test uses another address: the kernel keeps ports for a while after a connection ends.
        self.address = f"127.{random.randrange(1, 255)}.{random.randrange(256)}.1"

    def source(self, number):
        """A unique port for each visitor: an original gateway uses it as the stream's id."""
        return self.address, 10_000 + number

    def expose(self, backend):
        return version1.our_agent_at_peer_server(self.stage, backend)


class OurAgentAtOurGateway(Traffic, EndToEndTest):
    def expose(self, backend):
        return version1.our_agent_at_our_gateway(self.stage, backend)


class Restarts(EndToEndTest):
    def setUp(self):
        super().setUp()
        self.backend = self.stage.use(Listener(backends.answering(b"still here"))).address

    def check_page(self, port):
        self.assertEqual(get(f"http://127.0.0.1:{port}/"), b"still here")

    def test_peer_agent_killed(self):
        tunnel = version1.peer_agent_at_our_gateway(self.stage, self.backend)
        self.check_page(tunnel.port)
        seen = len(tunnel.gateway.stderr)
        tunnel.agent.kill()
        tunnel.gateway.wait_unregistered("example", since=seen)
        wait_until(lambda: version1.refuses(tunnel.port), "the public port to be closed")
        seen = len(tunnel.gateway.stderr)
        peer_agent(self.stage, tunnel.gateway.address_v1, self.backend)
        self.assertEqual(tunnel.gateway.wait_registered("example", since=seen), tunnel.port)
        self.check_page(tunnel.port)

    def check_agent_comes_back(self, tunnel, restart):
        self.check_page(tunnel.port)
        tunnel.gateway.kill()
        tunnel.agent.wait_event("lost")
        tunnel.agent.wait_event("retrying")
        seen = len(tunnel.agent.stdout)
        gateway = restart()
        tunnel.agent.wait_event("registered", since=seen, name="example")
        port = gateway.wait_registered("example")
        self.check_page(port)
        return port

    def test_our_gateway_killed(self):
        tunnel = version1.our_agent_at_our_gateway(self.stage, self.backend)
        gateway = tunnel.gateway
        port = self.check_agent_comes_back(tunnel, lambda: own_gateway(
            self.stage, listen_v1=gateway.address_v1, state=gateway.state))
        self.assertEqual(port, tunnel.port, "another public port")

    def test_peer_server_killed(self):
        tunnel = version1.our_agent_at_peer_server(self.stage, self.backend)
        self.check_agent_comes_back(
            tunnel, lambda: peer_server(self.stage, listen=tunnel.gateway.address))

    def check_sigterm(self, expose):
        """Checks that on SIGTERM running streams finish, and new visitors are refused."""
        halves = os.urandom(MIB), os.urandom(MIB)
        go_on = threading.Event()

        def serve(connection):
            backends.read_head(connection)
            connection.sendall(halves[0])
            go_on.wait(15)
            connection.sendall(halves[1])

        tunnel = expose(self.stage, self.stage.use(Listener(serve)).address)
        with tunnel.connect() as visitor:
            visitor.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = read_exactly(visitor, MIB)
            tunnel.gateway.send_signal(15)
            tunnel.gateway.wait_log(r"stopping: waiting up to 30 s for 1 stream")
            wait_until(lambda: version1.refuses(tunnel.port), "the public port to be closed")
            self.assertTrue(tunnel.gateway.running)
            go_on.set()
            answer += backends.read_all(visitor)
        self.assertEqual(sha256(answer), sha256(b"".join(halves)))
        self.assertEqual(tunnel.gateway.wait_exit(), 0)

    def test_sigterm_with_peer_agent(self):
        self.check_sigterm(version1.peer_agent_at_our_gateway)

    def test_sigterm_with_our_agent(self):
        self.check_sigterm(version1.our_agent_at_our_gateway)


class HalfClose(EndToEndTest):
    """A visitor that ends its direction after the request still receives the whole answer from a version 1 agent."""

    WAIT_SECONDS = 1.5 if fast() else 3.0
    CLOSED_SECONDS = 5

    def test_whole_answer(self):
        bodies = {"/at-once": b"at once", "/late": b"at last", "/large": os.urandom(4 * MIB)}
        closed = {path: threading.Event() for path in bodies}

        def serve(connection):
            path = backends.read_head(connection).split()[1].decode()
            if path == "/late":
                # The backend is slow, which the tunnel cannot know.
                time.sleep(self.WAIT_SECONDS)
            body = bodies[path]
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            backends.read_all(connection)
            closed[path].set()

        tunnel = version1.peer_agent_at_our_gateway(self.stage, self.stage.use(Listener(serve)).address)

        def ask(path):
            with tunnel.connect() as visitor:
                visitor.sendall(b"GET %s HTTP/1.1\r\nHost: half\r\n\r\n" % path.encode())
                visitor.shutdown(socket.SHUT_WR)
                return backends.read_all(visitor).partition(b"\r\n\r\n")

        paths = list(bodies)
        for path, (head, _, answer) in zip(paths, at_once(len(paths), lambda index: ask(paths[index]))):
            with self.subTest(path):
                self.assertEqual(sha256(answer), sha256(bodies[path]), head)
                self.assertTrue(closed[path].wait(self.CLOSED_SECONDS), "the backend's connection is kept open")


class SlowVisitor(EndToEndTest):
    """A visitor that does not read an endless answer is cut, and hardly affects the others."""

    PAGE_SECONDS = 3.0
    GROWTH_KIB = 8 * 1024

    def check(self, expose):
        def serve(connection):
            if not backends.read_head(connection).startswith(b"GET /endless"):
                return connection.sendall(b"HTTP/1.0 200 OK\r\n\r\npage")
            block = os.urandom(1 << 16)
            while True:
                connection.sendall(block)

        tunnel = expose(self.stage, self.stage.use(Listener(serve)).address)
        self.assertEqual(get(tunnel.url), b"page")
        before = peak = tunnel.gateway.resident_kib()
        slowest = 0.0
        with tunnel.connect() as slow:
            # With an empty mask, poll reports only the reset.
            poller = select.poll()
            poller.register(slow, 0)
            slow.sendall(b"GET /endless HTTP/1.0\r\n\r\n")
            deadline = time.monotonic() + 15
            while not poller.poll(0):
                self.assertLess(time.monotonic(), deadline, "the slow visitor is not cut")
                began = time.monotonic()
                self.assertEqual(get(tunnel.url), b"page")
                slowest = max(slowest, time.monotonic() - began)
                peak = max(peak, tunnel.gateway.resident_kib())
        self.note(f"slowest page {slowest * 1000:.0f} ms, grown by {peak - before} KiB")
        self.assertLess(slowest, self.PAGE_SECONDS)
        self.assertLess(peak - before, self.GROWTH_KIB)
        self.assertEqual(get(tunnel.url), b"page")

    def test_with_peer_agent(self):
        self.check(version1.peer_agent_at_our_gateway)

    def test_with_our_agent(self):
        self.check(version1.our_agent_at_our_gateway)

    def test_steady_reader(self):
        """A slow reader is not cut, although the kernel accepts bytes for such a visitor only in large pieces."""
        def serve(connection):
            backends.read_head(connection)
            while True:
                connection.sendall(bytes(1 << 16))

        tunnel = version1.our_agent_at_our_gateway(self.stage, self.stage.use(Listener(serve)).address)
        rate = 4_000_000 // 8
        with tunnel.connect() as visitor:
            visitor.sendall(b"GET / HTTP/1.0\r\n\r\n")
            began, count = time.monotonic(), 0
            while time.monotonic() - began < 4:
                count += len(visitor.recv(16_384))
                # This sets the visitor's pace; it does not wait for an event.
                time.sleep(max(0, count / rate - (time.monotonic() - began)))
            self.assertGreater(count, 3 * rate)


class Visitors(EndToEndTest):
    def test_silent_visitor_does_not_reach_the_backend(self):
        """Version 1 has no frame to open a stream; the next visitor's bytes show that nothing was sent."""
        connections = []

        def serve(connection):
            connections.append(connection.recv(100))

        tunnel = version1.peer_agent_at_our_gateway(self.stage, self.stage.use(Listener(serve)).address)
        tunnel.connect().close()
        with tunnel.connect() as visitor:
            visitor.sendall(b"second")
            self.assertEqual(visitor.recv(1), b"")
        self.assertEqual(connections, [b"second"])

    def check_one_source_port(self, expose):
        """Checks two visitors that the original implementation confuses."""
        tunnel = expose(self.stage, self.stage.use(Listener(serve_lines)).address)
        address = ("127.0.0.1", tunnel.port)
        with socket.create_connection(address, 15, source_address=("127.0.0.2", 0)) as first, \
                socket.create_connection(
                    address, 15, source_address=("127.0.0.3", first.getsockname()[1])) as second:
            self.assertEqual(first.getsockname()[1], second.getsockname()[1])
            for number in range(20):
                for visitor, name in ((first, b"first"), (second, b"second")):
                    visitor.sendall(b"%s %d\n" % (name, number))
                for visitor, name in ((second, b"second"), (first, b"first")):
                    expected = b"answer to %s %d\n" % (name, number)
                    self.assertEqual(read_exactly(visitor, len(expected)), expected)
            first.sendall(b"last of the first\n")
            self.assertEqual(backends.read_all(first), b"answer to last of the first\n")
            second.sendall(b"last of the second\n")
            self.assertEqual(backends.read_all(second), b"answer to last of the second\n")

    def test_one_source_port_with_peer_agent(self):
        self.check_one_source_port(version1.peer_agent_at_our_gateway)

    def test_one_source_port_with_our_agent(self):
        self.check_one_source_port(version1.our_agent_at_our_gateway)

    def test_visitor_leaves_while_the_backend_streams(self):
        ended = threading.Event()

        def serve(connection):
            backends.read_head(connection)
            block = os.urandom(1 << 16)
            try:
                while True:
                    connection.sendall(block)
            finally:
                ended.set()

        tunnel = version1.our_agent_at_peer_server(self.stage, self.stage.use(Listener(serve)).address)
        with tunnel.connect() as visitor:
            visitor.sendall(b"GET / HTTP/1.0\r\n\r\n")
            read_exactly(visitor, MIB)
        self.assertTrue(ended.wait(10), "the backend still sends to a visitor that has left")

    def test_visitor_leaves_while_the_backend_is_quiet(self):
        ended = threading.Event()

        def serve(connection):
            backends.read_all(connection)
            ended.set()

        tunnel = version1.our_agent_at_peer_server(self.stage, self.stage.use(Listener(serve)).address)
        with tunnel.connect() as visitor:
            visitor.sendall(b"hello")
        self.assertTrue(ended.wait(10), "the backend's connection is kept open")

    def test_backend_that_refuses(self):
        for expose in (version1.peer_agent_at_our_gateway, version1.our_agent_at_peer_server,
                       version1.our_agent_at_our_gateway):
            with self.subTest(expose.__name__):
                tunnel = expose(self.stage, "127.0.0.1:9")
                with tunnel.connect(timeout=5) as visitor:
                    visitor.sendall(b"anybody?")
                    try:
                        self.assertEqual(visitor.recv(1), b"")
                    except ConnectionResetError:
                        pass
