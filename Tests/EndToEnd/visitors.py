"""Visitors: curl as a process, plain sockets, and many connections at once."""

import concurrent.futures
import contextlib
import fcntl
import hashlib
import os
import struct
import subprocess
import tempfile
import termios
import time

from harness import Failure, wait_until
from realservers import require

# Timeouts for a page, and for a large file on a busy machine.
PAGE_SECONDS = 15
FILE_SECONDS = 90


def curl(*arguments, timeout=PAGE_SECONDS):
    """Runs curl; returns the CompletedProcess, with output as bytes."""
    command = [require("curl"), "-sS", "--max-time", str(timeout), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=timeout + 10, check=False)


def get(url, *arguments, timeout=PAGE_SECONDS):
    """The body at `url`; raises Failure if curl fails."""
    result = curl("--fail", *arguments, url, timeout=timeout)
    if result.returncode != 0:
        raise Failure(f"curl {url}: exit {result.returncode}: {result.stderr.decode().strip()}")
    return result.stdout


def sha256_of(url):
    """Downloads `url` with curl without keeping the bytes; returns their SHA-256."""
    command = [require("curl"), "-sS", "--fail", "--max-time", str(FILE_SECONDS), url]
    digest = hashlib.sha256()
    # stderr goes to a file: a second pipe would need a second reader.
    with tempfile.TemporaryFile() as problems, \
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=problems) as process:
        while data := process.stdout.read(1 << 18):
            digest.update(data)
        if process.wait() != 0:
            problems.seek(0)
            raise Failure(f"curl {url}: exit {process.returncode}: {problems.read().decode().strip()}")
    return digest.hexdigest()


def at_once(count, action):
    """Runs `action(index)` in `count` threads; returns the results in order."""
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(action, range(count)))


def aggregate_speed(url, size, count):
    """Bytes per second of `count` simultaneous downloads of `size` bytes each.

    A single curl makes all downloads, because the visitors share the machine with the programs under test and must not
    use much CPU time.
    """
    command = [require("curl"), "-sS", "--fail", "--parallel", "--parallel-immediate",
               "--parallel-max", str(count), "--max-time", str(FILE_SECONDS),
               "-w", "%{size_download}\\n"]
    for _ in range(count):
        command += ["-o", "/dev/null", url]
    began = time.monotonic()
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    elapsed = time.monotonic() - began
    sizes = result.stdout.split()
    if result.returncode != 0 or sizes != [str(size)] * count:
        raise Failure(f"curl --parallel: exit {result.returncode}, sizes {sizes}: {result.stderr}")
    return count * size / elapsed


def pending_bytes(connection):
    """The number of unread bytes in a socket's receive buffer (FIONREAD)."""
    return struct.unpack("i", fcntl.ioctl(connection, termios.FIONREAD, b"\0" * 4))[0]


@contextlib.contextmanager
def stalled_download(tunnel, path):
    """A visitor that requests `path` and then never reads.

    Yields when no more bytes arrive, because its receive buffer and all buffers before it are full.
    """
    with tunnel.connect() as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: stalled\r\n\r\n".encode())
        quiet = {"bytes": 0, "since": time.monotonic()}

        def stalled():
            arrived = pending_bytes(connection)
            if arrived != quiet["bytes"]:
                quiet.update(bytes=arrived, since=time.monotonic())
            return arrived and time.monotonic() - quiet["since"] > 0.3

        wait_until(stalled, "the stalled visitor's buffer to be full")
        yield connection


def read_exactly(connection, size):
    """Reads `size` bytes; raises Failure if the connection ends earlier."""
    parts = []
    while size > 0:
        part = connection.recv(min(size, 1 << 18))
        if not part:
            raise Failure(f"the connection ended {size} bytes early")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def file_sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_size(path):
    """The size of a file that may not exist yet."""
    return os.path.getsize(path) if os.path.exists(path) else 0
