"""Backends in the test's own process, each on its own port.

A `Listener` runs one function per connection in a thread. The functions below are the services that the tests put
behind an agent. They also work without a tunnel, which was used to verify them.
"""

import asyncio
import contextlib
import hashlib
import http.server
import os
import select
import socket
import struct
import threading
import time

from harness import address_text

CHUNK = 256 * 1024
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def reset_on_close(connection):
    """Makes closing this socket send a TCP reset, also when its process is killed."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)


def write_random_file(path, size):
    """Fills a file with random bytes; returns their SHA-256.

    Random data gives another hash if bytes are reordered or come from another stream.
    """
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        while size > 0:
            block = os.urandom(min(size, 1 << 20))
            file.write(block)
            digest.update(block)
            size -= len(block)
    return digest.hexdigest()


class Listener:
    """Accepts connections and runs `serve(connection)` for each in a thread."""

    def __init__(self, serve, host="127.0.0.1", path=None):
        self._serve = serve
        self._path = path
        self._connections = set()
        self._lock = threading.Lock()
        if path:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.bind(str(path))
        else:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.socket(family)
            if family == socket.AF_INET6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self._socket.bind((host, 0))
            self._host = host
            self.port = self._socket.getsockname()[1]
        self._socket.listen(1024)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self):
        """The backend's address on an agent's command line."""
        return f"unix:{self._path}" if self._path else address_text(self._host, self.port)

    def _accept(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with self._lock:
                self._connections.add(connection)
            threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection):
        # A visitor that disconnects is not an error of the backend.
        with contextlib.suppress(OSError), connection:
            self._serve(connection)
        with self._lock:
            self._connections.discard(connection)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # shutdown wakes the thread that is blocked in accept; close alone does not.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with self._lock:
            left = list(self._connections)
        for connection in left:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def read_all(connection):
    """Everything up to the peer's end of stream."""
    parts = []
    while part := connection.recv(CHUNK):
        parts.append(part)
    return b"".join(parts)


def read_head(connection):
    """Reads an HTTP head up to and including the empty line."""
    head = b""
    while b"\r\n\r\n" not in head:
        part = connection.recv(CHUNK)
        if not part:
            break
        head += part
    return head


def serve_echo(connection):
    while data := connection.recv(CHUNK):
        connection.sendall(data)


def serve_never_reads(connection):
    """Accepts the connection, and reads no bytes until it is closed.

    poll with an empty mask returns only on an error event or hangup.
    """
    poller = select.poll()
    poller.register(connection, 0)
    poller.poll(120_000)


def answering(body):
    """An HTTP service that answers a request with `body` and closes the connection."""
    def serve(connection):
        read_head(connection)
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + body)
    return serve


def answering_after_end(body):
    """An HTTP service that answers only after the end of the request's direction.

    It hangs if the tunnel does not forward this end. The answer is lost if the tunnel treats it as the end of both
    directions.
    """
    def serve(connection):
        request = read_all(connection)
        head = (f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n"
                f"X-Request-SHA256: {hashlib.sha256(request).hexdigest()}\r\n\r\n")
        connection.sendall(head.encode() + body)
    return serve


def sending_events(count, interval):
    """Server-sent events, each with the monotonic time at which it was sent."""
    def serve(connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                           b"Cache-Control: no-store\r\nConnection: close\r\n\r\n")
        due = time.monotonic()
        for number in range(count):
            connection.sendall(f"id: {number}\ndata: {time.monotonic():.6f}\n\n".encode())
            due += interval
            time.sleep(max(0.0, due - time.monotonic()))
    return serve


class UploadServer:
    """An HTTP server that answers a PUT or POST with the SHA-256 of the body."""

    def __init__(self):
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self):
            left = int(self.headers["Content-Length"])
            digest = hashlib.sha256()
            while left > 0 and (data := self.rfile.read(min(left, CHUNK))):
                digest.update(data)
                left -= len(data)
            answer = digest.hexdigest().encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_POST = do_PUT

        def log_message(self, *_):
            """Logs nothing: the test's assertions report failures."""


class TaggingEcho:
    """An echo service for very many connections, with one thread for all of them.

    Each message is a line. The answer starts with the service's tag, which reveals an answer from the wrong backend.
    `peak` is the largest number of simultaneously open connections.
    """

    def __init__(self, tag=""):
        self.tag = tag.encode()
        self.open = 0
        self.peak = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self):
        self._thread.start()
        start = asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=2048)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result(10)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_):
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _stop(self):
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader, writer):
        self.open += 1
        self.peak = max(self.peak, self.open)
        try:
            while line := await reader.readline():
                writer.write(self.tag + line)
                await writer.drain()
        except (OSError, asyncio.CancelledError):
            # asyncio would report a cancelled handler as an error.
            pass
        finally:
            self.open -= 1
            writer.close()
