"""A reset keeps its order: the bytes sent before it arrive first, then the reset."""

import contextlib
import os
import socket
import threading
import time
import unittest

import backends
from administration import run
from backends import Listener
from harness import EndToEndTest, Tunnel, free_port, long_run, wait_until
from hostile import (
    END, RESET, Relay, collect, is_reset, reset, reset_when_acknowledged, unacknowledged)
from hooks import configure
from realservers import python_http_server
from visitors import pending_bytes, read_exactly, sha256

TIMES = 200 if long_run() else 20
MIB = 1 << 20

ANSWER = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2000\r\nConnection: close\r\n\r\n" + b"e" * 2000
UNREAD = 5_000


def read_head_only(connection):
    """Reads the head byte by byte, so that the body stays in the kernel."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += read_exactly(connection, 1)


def answer_rudely(connection):
    """Answers and closes with unread bytes, which makes the kernel send a reset."""
    read_head_only(connection)
    wait_until(lambda: pending_bytes(connection) >= UNREAD, "the body", interval=0.001)
    connection.sendall(ANSWER)


def refuse_at_once(connection):
    """Like redis with too many clients: sends first, and reads nothing."""
    connection.sendall(b"-ERR max number of clients reached\r\n")
    wait_until(lambda: pending_bytes(connection), "the visitor's bytes", interval=0.001)


class EarlyAnswers(EndToEndTest):
    """The backend answers and closes before it has read the request."""

    def expose(self, serve, batch=None, path=None):
        listener = self.stage.use(Listener(serve, path=path))
        if batch is None:
            return self.stage.expose(listener.address)
        gateway = self.stage.gateway()
        relay = self.stage.use(Relay(gateway.address, batch))
        agent = self.stage.agent(relay.address, "-n", "example", listener.address)
        return Tunnel(gateway, agent, agent.wait_registered())

    def check_quiet_visitor(self, tunnel, data, answer):
        """Checks the answer to a visitor that sends little, and then only reads."""
        outcomes = []
        for _ in range(TIMES):
            with tunnel.connect() as visitor:
                visitor.sendall(data)
                outcomes.append(collect(visitor))
        self.assertEqual(outcomes.count((answer, RESET)), TIMES, outcomes)

    REQUEST = b"PUT / HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n" + b"u" * UNREAD

    def test_quiet_visitor(self):
        self.check_quiet_visitor(self.expose(answer_rudely), self.REQUEST, ANSWER)

    def test_quiet_visitor_on_a_path_that_batches(self):
        self.check_quiet_visitor(self.expose(answer_rudely, batch=0.03), self.REQUEST, ANSWER)

    def test_unix_socket(self):
        """A unix socket reports a reset, too (unix(7))."""
        tunnel = self.expose(answer_rudely, path=self.stage.directory / "backend.socket")
        self.check_quiet_visitor(tunnel, self.REQUEST, ANSWER)

    def test_backend_that_refuses_at_accept(self):
        self.check_quiet_visitor(self.expose(refuse_at_once), b"PING\r\n", b"-ERR max number of clients reached\r\n")

    def test_backend_that_closes_at_accept(self):
        """The backend closes without checking whether the visitor has sent anything."""
        tunnel = self.expose(lambda connection: connection.sendall(b"-ERR full\r\n"))
        for _ in range(TIMES):
            with tunnel.connect() as visitor:
                visitor.sendall(b"PING\r\n")
                self.assertEqual(collect(visitor)[0], b"-ERR full\r\n")

    def check_upload(self, tunnel, size, start):
        """Checks the answer to a visitor that sends until the connection is cut, and then reads.

        Not curl: it loses the answer if the reset arrives between its check for an answer and its next write, even
        without a tunnel.
        """
        head = f"POST / HTTP/1.1\r\nHost: upload\r\nContent-Length: {size}\r\n\r\n".encode()
        answers = []
        for _ in range(TIMES):
            with tunnel.connect() as visitor:
                # This call may report the reset instead of the last one.
                with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                    visitor.sendall(head + bytes(size))
                answers.append(collect(visitor)[0])
        whole = [answer for answer in answers if answer.startswith(start)]
        self.assertEqual(len(whole), TIMES, [answer[:20] for answer in answers])
        self.assertEqual(len(set(map(len, whole))), 1, "some answers are truncated")

    def test_large_upload(self):
        self.check_upload(self.expose(answer_rudely), 20_000_000, ANSWER)

    def test_large_upload_on_a_path_that_batches(self):
        self.check_upload(self.expose(answer_rudely, batch=0.03), 20_000_000, ANSWER)

    def test_python_http_server(self):
        """http.server answers a POST with 501 and does not read the body."""
        port = free_port()
        python_http_server(self.stage, port, self.stage.new_directory("files"), bind="127.0.0.1")
        self.check_upload(self.stage.expose(port), 100_000, b"HTTP/1.0 501 ")


class TruncatedAnswers(EndToEndTest):
    """A truncated answer must never look complete."""

    PART = os.urandom(300_000)

    def check(self, serve, send=b"", part=None):
        tunnel = self.stage.expose(self.stage.use(Listener(serve)).address)
        for _ in range(TIMES):
            with tunnel.connect() as visitor:
                visitor.sendall(send)
                data, end = collect(visitor)
            self.assertEqual(end, RESET)
            self.assertEqual(sha256(data), sha256(part or self.PART))

    def test_backend_resets_after_a_part(self):
        def serve(connection):
            connection.sendall(self.PART)
            reset_when_acknowledged(connection)

        self.check(serve)

    def test_backend_resets_without_a_byte(self):
        def serve(connection):
            connection.recv(1)
            reset(connection)

        tunnel = self.stage.expose(self.stage.use(Listener(serve)).address)
        for _ in range(TIMES):
            with tunnel.connect() as visitor:
                visitor.sendall(b"x")
                self.assertEqual(collect(visitor), (b"", RESET))

    def test_slow_visitor_gets_the_part_and_the_reset(self):
        """The reset arrives long before the visitor has read the bytes before it."""
        part = os.urandom(MIB)
        is_over = threading.Event()

        def serve(connection):
            connection.sendall(part)
            reset_when_acknowledged(connection)
            is_over.set()

        tunnel = self.stage.expose(self.stage.use(Listener(serve)).address)
        with socket.socket() as visitor:
            visitor.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
            visitor.settimeout(15)
            visitor.connect(("127.0.0.1", tunnel.port))
            self.assertTrue(is_over.wait(15), "the part does not fit on the way")
            data = bytearray()
            with self.assertRaises(ConnectionResetError):
                while piece := visitor.recv(4_096):
                    data += piece
            self.assertEqual(sha256(data), sha256(part))

    def test_backend_ends_its_answer_and_resets_the_upload(self):
        """The backend sends FIN, then a reset: the answer is complete, the upload is cut."""
        def serve(connection):
            connection.sendall(ANSWER)
            connection.shutdown(socket.SHUT_WR)
            wait_until(lambda: unacknowledged(connection) == 0, "the agent to acknowledge", interval=0.001)
            connection.recv(1)
            reset(connection)

        tunnel = self.stage.expose(self.stage.use(Listener(serve)).address)
        for _ in range(TIMES):
            with tunnel.connect() as visitor:
                self.assertEqual(collect(visitor), (ANSWER, END))
                with self.assertRaises((ConnectionResetError, BrokenPipeError)):
                    while True:
                        visitor.sendall(bytes(65_536))


class Visitors(EndToEndTest):
    """Resets by the visitor: uploads."""

    UPLOAD = os.urandom(100_000)

    def start(self, serve):
        self.outcomes = []
        self.changed = threading.Event()
        return self.stage.expose(self.stage.use(Listener(serve)).address)

    def outcome(self):
        self.assertTrue(self.changed.wait(15), "the backend waits for the end of the upload")
        self.changed.clear()
        return self.outcomes[-1]

    def check_reset_upload(self, is_read_late):
        is_reset_sent = threading.Event()

        def serve(connection):
            if is_read_late:
                is_reset_sent.wait(15)
            self.outcomes.append(collect(connection))
            self.changed.set()

        tunnel = self.start(serve)
        for _ in range(TIMES):
            is_reset_sent.clear()
            with tunnel.connect() as visitor:
                visitor.sendall(self.UPLOAD)
                reset_when_acknowledged(visitor)
            is_reset_sent.set()
            data, end = self.outcome()
            self.assertEqual((sha256(data), end), (sha256(self.UPLOAD), RESET))

    def test_upload_then_reset(self):
        self.check_reset_upload(is_read_late=False)

    def test_upload_then_reset_to_a_late_reader(self):
        self.check_reset_upload(is_read_late=True)

    def test_end_of_the_upload_then_reset(self):
        """The backend receives the complete request, and then notices that the visitor is gone."""
        def serve(connection):
            request = collect(connection)
            try:
                while True:
                    connection.sendall(bytes(65_536))
            except (ConnectionResetError, BrokenPipeError):
                self.outcomes.append(request)
                self.changed.set()

        tunnel = self.start(serve)
        for _ in range(TIMES):
            with tunnel.connect() as visitor:
                visitor.sendall(self.UPLOAD)
                visitor.shutdown(socket.SHUT_WR)
                read_exactly(visitor, 1)
                reset(visitor)
            data, end = self.outcome()
            self.assertEqual((sha256(data), end), (sha256(self.UPLOAD), END))

    def test_end_of_the_upload_then_reset_before_the_answer(self):
        """The backend receives the reset even though neither side reads or writes any more."""
        def serve(connection):
            request = collect(connection)
            # After the end of the upload only an error can follow.
            wait_until(lambda: is_reset(connection), "the reset")
            self.outcomes.append(request)
            self.changed.set()

        tunnel = self.start(serve)
        for _ in range(3):
            with tunnel.connect() as visitor:
                visitor.sendall(self.UPLOAD)
                visitor.shutdown(socket.SHUT_WR)
                wait_until(lambda: unacknowledged(visitor) == 0, "the upload")
                reset(visitor)
            data, end = self.outcome()
            self.assertEqual((sha256(data), end), (sha256(self.UPLOAD), END))


class Operator(EndToEndTest):
    """Kick and ban do not wait for a visitor that does not read."""

    AT_ONCE_SECONDS = 2.0

    def check_cut(self, *command, when_lost=None):
        pouring = self.stage.use(Listener(lambda connection: connection.sendall(bytes(64 * MIB))))
        # Without a window the link ends with its connection.
        settings = configure(self.stage, '[limits]\nresume-window = "0"\n')
        options = ("-c", settings) if when_lost == "ended" else ()
        tunnel = self.stage.expose(pouring.address, gateway=self.stage.gateway(*options))
        with socket.socket() as visitor:
            visitor.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
            visitor.bind(("127.0.0.9", 0))
            visitor.connect(("127.0.0.1", tunnel.port))
            # The queue before this buffer need not be full: one queued byte is enough for this test.
            wait_until(lambda: pending_bytes(visitor) > 4_096, "the download to fill the visitor's buffer")
            if when_lost:
                tunnel.agent.kill()
                tunnel.gateway.wait_log("link of agent .* ended" if when_lost == "ended" else "is not connected")
            streams = run(self.stage, "diglett-server", "ctl", "streams", "--state-dir", tunnel.gateway.state).stdout
            self.assertIn("127.0.0.9", streams)
            began = time.monotonic()
            result = run(self.stage, "diglett-server", "ctl", *command, "--state-dir", tunnel.gateway.state)
            self.assertEqual(result.returncode, 0, result.stderr)
            wait_until(lambda: is_reset(visitor), "the reset")
            elapsed = time.monotonic() - began
            self.note(f"cut after {elapsed * 1000:.0f} ms")
            self.assertLess(elapsed, self.AT_ONCE_SECONDS)

    def test_kick(self):
        self.check_cut("kick", "1")

    def test_ban(self):
        self.check_cut("ban", "127.0.0.9")

    def test_kick_after_the_link_is_lost(self):
        for how in ("ended", "detached"):
            with self.subTest(how):
                self.check_cut("kick", "1", when_lost=how)

    def test_ban_after_the_link_is_lost(self):
        for how in ("ended", "detached"):
            with self.subTest(how):
                self.check_cut("ban", "127.0.0.9", when_lost=how)


class UrgentData(EndToEndTest):
    """A byte that was sent as urgent data (tcp(7), MSG_OOB) arrives in order."""

    def test_from_the_visitor(self):
        received = []
        done = threading.Event()

        def serve(connection):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
            received.append(backends.read_all(connection))
            done.set()

        tunnel = self.stage.expose(self.stage.use(Listener(serve)).address)
        with tunnel.connect() as visitor:
            # FTP's abort: telnet's data mark is urgent.
            visitor.sendall(b"\xff\xf4")
            visitor.send(b"\xff\xf2", socket.MSG_OOB)
            visitor.sendall(b"ABOR\r\n")
            visitor.shutdown(socket.SHUT_WR)
            self.assertTrue(done.wait(15))
        self.assertEqual(received, [b"\xff\xf4\xff\xf2ABOR\r\n"])

    def test_from_the_backend(self):
        def serve(connection):
            connection.sendall(b"one ")
            connection.send(b"two!", socket.MSG_OOB)
            connection.sendall(b" three")

        tunnel = self.stage.expose(self.stage.use(Listener(serve)).address)
        with tunnel.connect() as visitor:
            visitor.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
            self.assertEqual(backends.read_all(visitor), b"one two! three")


@unittest.skipUnless(long_run(), "takes 100 s; only with --long")
class Pauses(EndToEndTest):
    """Open streams have no time limit."""

    PAUSE_SECONDS = 100

    def test_paused_visitor_and_paused_backend(self):
        data = os.urandom(30 * MIB)
        received = []
        done = threading.Event()
        resume = threading.Event()

        def serve(connection):
            if connection.recv(1) == b"g":
                return connection.sendall(data)
            resume.wait(2 * self.PAUSE_SECONDS)
            received.append(sha256(backends.read_all(connection)))
            return done.set()

        tunnel = self.stage.expose(self.stage.use(Listener(serve)).address)
        with tunnel.connect() as download, tunnel.connect(timeout=2 * self.PAUSE_SECONDS) as upload:
            download.sendall(b"g")
            sender = threading.Thread(
                target=lambda: (upload.sendall(b"p" + data), upload.shutdown(socket.SHUT_WR)), daemon=True)
            sender.start()
            # The pause is the object of the test.
            time.sleep(self.PAUSE_SECONDS)
            resume.set()
            self.assertEqual(sha256(backends.read_all(download)), sha256(data))
            self.assertTrue(done.wait(60))
            sender.join(10)
        self.assertEqual(received, [sha256(data)])
