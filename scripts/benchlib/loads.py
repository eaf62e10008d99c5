"""Backends and load generators: nginx, iperf3, wrk, a latency probe and idle connections."""

import gc
import json
import os
import re
import selectors
import socket
import time

from . import procs
from .candidates import find_tool
from .procs import BenchError

BODY_BYTES = 1024
ERROR_SHARE = 0.001  # of wrk's requests; with more errors the run fails
HOLD_BYTE = b"+"


class Nginx:
    """The HTTP backend, shared by all candidates: one worker, one small file."""

    def __init__(self, pool):
        root = os.path.join(pool.tmp, "nginx")
        os.makedirs(os.path.join(root, "html"))
        with open(os.path.join(root, "html", "small.txt"), "w", encoding="ascii") as file:
            file.write("d" * BODY_BYTES)
        self.port = procs.free_port()
        user = "user root;" if os.geteuid() == 0 else ""
        temp_paths = "\n".join(
            f"    {kind}_temp_path {root}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        config = os.path.join(root, "nginx.conf")
        with open(config, "w", encoding="utf-8") as file:
            file.write(f"""
daemon off;
{user}
worker_processes 1;
pid {root}/nginx.pid;
error_log {root}/error.log warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
{temp_paths}
    default_type text/plain;
    tcp_nodelay on;
    open_file_cache max=10;
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
    server {{
        listen 127.0.0.1:{self.port} backlog=4096;
        root {root}/html;
    }}
}}
""")
        self.child = pool.start("nginx", [find_tool("nginx"), "-p", root, "-c", config,
                                          "-e", f"{root}/error.log"])
        self.child.wait_listening(self.port)


class IperfServer:
    """The bulk backend of one candidate; iperf3 serves one test at a time."""

    def __init__(self, pool):
        self.pool = pool
        self.port = procs.free_port()
        self.child = None
        self.restart()

    def restart(self):
        if self.child:
            self.child.stop()
        self.child = self.pool.start("iperf3-server", ["iperf3", "-s", "-B", "127.0.0.1",
                                                       "-p", str(self.port)])
        self.child.wait_listening(self.port)

    def stop(self):
        if self.child:
            self.child.stop()


def start_iperf(pool, port, seconds, down, streams=1):
    """Starts a visitor: up is visitor -> backend (iperf3's default), down is -R."""
    argv = ["iperf3", "-J", "-c", "127.0.0.1", "-p", str(port), "-t", str(seconds),
            "-P", str(streams), "--connect-timeout", "5000"]
    return pool.start("iperf3", argv + (["-R"] if down else []))


def finish_iperf(child, timeout):
    """(bytes received, bit/s) of a finished run."""
    try:
        text = child.finish(timeout)
    except BenchError:
        error = re.search(r'"error":\s*"([^"]*)"', procs.read_text(child.out))
        if error:
            raise BenchError(f"iperf3: {error.group(1)}") from None
        raise
    try:
        result = json.loads(text)
        received = result["end"]["sum_received"]
        amount, rate = received["bytes"], received["bits_per_second"]
    except (ValueError, KeyError) as error:
        raise BenchError(f"iperf3 reported no result: {error!r} {text[-200:]}") from error
    if amount <= 0:
        raise BenchError("iperf3: no bytes were received")
    return amount, rate


def bulk(pool, server, port, seconds, down, pids):
    """One stream in one direction, with the CPU seconds of the tunnel's processes."""
    before = procs.cpu_seconds(pids())
    amount, rate = finish_iperf(start_iperf(pool, port, seconds, down), seconds + 20)
    time.sleep(0.1)  # bytes still in flight count towards this run
    used = procs.cpu_seconds(pids()) - before
    if not server.child.running():
        server.restart()
    return {"gbit": rate / 1e9, "bytes": amount, "cpu": used}


def wrk(pool, port, seconds, close, pids):
    """HTTP requests on 50 connections; `close` opens a new connection for each request."""
    before = procs.cpu_seconds(pids())
    argv = ["wrk", "-t1", "-c50", f"-d{seconds}s", "--timeout", "10s"]
    if close:
        argv += ["-H", "Connection: close"]
    child = pool.start("wrk", argv + [f"http://127.0.0.1:{port}/small.txt"])
    text = child.finish(seconds + 30)
    used = procs.cpu_seconds(pids()) - before
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    total = re.search(r"(\d+) requests in", text)
    if not rate or not total or int(total.group(1)) == 0:
        raise BenchError(f"wrk reported no result: {text[-300:]}")
    errors = 0
    sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)",
                        text)
    if sockets:
        errors += sum(int(number) for number in sockets.groups())
    status = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    if status:
        errors += int(status.group(1))
    if errors > ERROR_SHARE * int(total.group(1)):
        raise BenchError(f"wrk: {errors} errors in {total.group(1)} requests"
                         f" ({sockets.group(0) if sockets else status.group(0)})")
    return {"rate": float(rate.group(1)), "requests": int(total.group(1)), "errors": errors,
            "cpu": used}


def percentile(ordered, share):
    """Nearest-rank percentile of sorted values."""
    rank = max(1, -(-len(ordered) * share // 100))
    return ordered[int(rank) - 1]


def read_response(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        data += receive(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"\r\nContent-Length: (\d+)", head, re.I)
    if not head.startswith(b"HTTP/1.1 200 ") or not length:
        raise BenchError(f"unexpected response: {head[:100]!r}")
    missing = int(length.group(1)) - len(body)
    while missing > 0:
        missing -= len(receive(connection))


def receive(connection):
    try:
        data = connection.recv(65536)
    except OSError as error:
        raise BenchError(f"a small request failed: {error}") from error
    if not data:
        raise BenchError("the connection for small requests was closed")
    return data


def probe_latency(port, seconds):
    """Sends small requests one after the other on one connection; returns their durations in seconds, sorted."""
    request = b"GET /small.txt HTTP/1.1\r\nHost: bench\r\n\r\n"
    took = []
    try:
        connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    except OSError as error:
        raise BenchError(f"a small request failed: {error}") from error
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        gc.disable()
        try:
            end = time.perf_counter() + seconds
            while True:
                began = time.perf_counter()
                if began >= end:
                    break
                connection.sendall(request)
                read_response(connection)
                took.append(time.perf_counter() - began)
        except OSError as error:
            raise BenchError(f"a small request failed: {error}") from error
        finally:
            gc.enable()
    return sorted(took)


def latency_beside_bulk(pool, server, http_port, bulk_port, seconds):
    """Latency of small requests while two bulk downloads use the same link."""
    visitor = start_iperf(pool, bulk_port, seconds + 2, down=True, streams=2)
    try:
        time.sleep(1)
        took = probe_latency(http_port, seconds)
        if not visitor.running():
            finish_iperf(visitor, 1)
            raise BenchError("the bulk downloads ended before the latency run")
        _, rate = finish_iperf(visitor, seconds + 20)
    finally:
        visitor.stop()
        if not server.child.running():
            server.restart()
    if not took:
        raise BenchError("no small request was answered")
    return {"p50_ms": percentile(took, 50) * 1e3, "p99_ms": percentile(took, 99) * 1e3,
            "max_ms": took[-1] * 1e3, "requests": len(took), "gbit": rate / 1e9}


class IdleConnections:
    """Idle visitors, and the backend that accepts and holds their connections.

    The backend greets each connection with one byte. A connection counts as open when the visitor
    has read this byte, which proves that it reaches the backend.
    """

    BATCH = 50

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.held, self.visitors = [], []
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)

    def open(self, port, count, timeout=60):
        deadline = time.monotonic() + timeout
        while len(self.visitors) < count:
            waiting = set()
            for _ in range(min(self.BATCH, count - len(self.visitors))):
                visitor = socket.socket()
                visitor.setblocking(False)
                self.visitors.append(visitor)
                visitor.connect_ex(("127.0.0.1", port))
                self.selector.register(visitor, selectors.EVENT_READ)
                waiting.add(visitor)
            self.greet(waiting, deadline)

    def greet(self, waiting, deadline):
        while waiting:
            left = deadline - time.monotonic()
            if left <= 0:
                raise BenchError(f"only {len(self.visitors) - len(waiting)} idle connections"
                                 " could be opened in time")
            for key, _ in self.selector.select(left):
                if key.fileobj is self.listener:
                    self.accept()
                    continue
                self.selector.unregister(key.fileobj)
                waiting.discard(key.fileobj)
                try:
                    greeting = key.fileobj.recv(1)
                except OSError as error:
                    raise BenchError(f"an idle connection failed: {error}") from error
                if greeting != HOLD_BYTE:
                    raise BenchError("an idle connection was closed after"
                                     f" {len(self.visitors) - len(waiting)} were opened")

    def accept(self):
        try:
            connection, _ = self.listener.accept()
        except BlockingIOError:
            return
        self.held.append(connection)
        connection.sendall(HOLD_BYTE)

    def still_open(self):
        """How many visitors are neither closed nor reset."""
        alive = 0
        for visitor in self.visitors:
            try:
                alive += visitor.recv(1, socket.MSG_PEEK) != b""
            except BlockingIOError:
                alive += 1
            except OSError:
                pass
        return alive

    def close(self):
        self.selector.close()
        for connection in [*self.visitors, *self.held, self.listener]:
            connection.close()


def memory(candidate, count, settle):
    """Memory of the tunnel's processes at rest, and its growth per idle connection, in KiB."""
    idle = IdleConnections()
    try:
        public = candidate.start({"bench": idle.port})["bench"]
        time.sleep(settle)
        rest_pss, rest_rss = procs.memory_kib(candidate.pids())
        idle.open(public, count)
        time.sleep(settle)
        full_pss, full_rss = procs.memory_kib(candidate.pids())
        alive = idle.still_open()
        if alive != count:
            raise BenchError(f"only {alive} of {count} idle connections stayed open")
    finally:
        idle.close()
    result = {"rest_rss_kib": rest_rss, "growth_rss_kib": (full_rss - rest_rss) / count,
              "connections": count}
    if rest_pss is not None and full_pss is not None:
        result["rest_pss_kib"] = rest_pss
        result["growth_pss_kib"] = (full_pss - rest_pss) / count
    return result
