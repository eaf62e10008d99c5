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

# For a page, and for a large file on a machine that is busy with other things.
PAGE_SECONDS = 15
FILE_SECONDS = 90


def curl(*arguments, timeout=PAGE_SECONDS):
    """Runs curl to its end; returns the CompletedProcess with bytes in stdout."""
    command = [require("curl"), "-sS", "--max-time", str(timeout), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=timeout + 10, check=False)


def get(url, *arguments, timeout=PAGE_SECONDS):
    """The body at `url`; anything but success is a failure."""
    result = curl("--fail", *arguments, url, timeout=timeout)
    if result.returncode != 0:
        raise Failure(f"curl {url}: exit {result.returncode}: {result.stderr.decode().strip()}")
    return result.stdout


def sha256_of(url):
    """Downloads `url` with curl; returns the SHA-256 without keeping the bytes."""
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

    One curl for all of them, so that the visitors take little of the machine that
    the two programs under test share with them.
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
    """How much has arrived at a socket and waits to be read (FIONREAD)."""
    return struct.unpack("i", fcntl.ioctl(connection, termios.FIONREAD, b"\0" * 4))[0]


@contextlib.contextmanager
def stalled_download(tunnel, path):
    """A visitor that asks for `path` and then never reads.

    Yields once no more arrives, that is, when its receive buffer and everything on
    the way to it is full.
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
    """Reads `size` bytes; an earlier end is a failure."""
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
