"""A visitor that does not read neither slows down the others nor costs memory."""

import contextlib
import os
import statistics

import backends
from backends import Listener, write_random_file
from harness import EndToEndTest, Failure, fast, wait_until
from realservers import Nginx
from visitors import aggregate_speed, at_once, read_exactly, sha256, sha256_of, stalled_download

# This module measures, so no other module runs at the same time (integration-test -j).
ALONE = True

MIB = 1 << 20
GIB = 1 << 30
# Maximum growth of a program while a stream is stalled: a few stream windows and the allocator's slack, far less than
# the gigabyte of the download.
GROWTH_LIMIT_KIB = 40 * 1024


class MemoryTest(EndToEndTest):
    def remember_memory(self, tunnel):
        self.tunnel = tunnel
        self.before = {program: program.resident_kib() for program in (tunnel.gateway, tunnel.agent)}

    def check_memory(self):
        growth = {program.label: program.resident_kib() - before
                  for program, before in self.before.items()}
        for label, kib in growth.items():
            self.assertLess(kib, GROWTH_LIMIT_KIB, f"{label} has grown by {kib} KiB")
        return growth


class StalledVisitor(MemoryTest):
    VISITORS = 10
    SIZE = (32 if fast() else 64) * MIB
    MEASUREMENTS = 5
    ROUNDS = 3
    KEPT_SPEED = 0.9

    def test_others_keep_their_speed(self):
        """Compares medians of interleaved measurements, in the best of up to three rounds.

        Other load on the machine can lower the ratio by chance. A tunnel in which one stream blocks another never
        reaches nine tenths, in any number of rounds.
        """
        nginx = Nginx(self.stage)
        expected = write_random_file(nginx.files / "file", self.SIZE)
        with open(nginx.files / "endless", "wb") as endless:
            endless.truncate(GIB)
        tunnel = self.stage.expose(nginx.address)
        url = f"{tunnel.url}/file"

        aggregate_speed(url, self.SIZE, self.VISITORS)
        self.remember_memory(tunnel)
        ratios = []
        while not ratios or (ratios[-1] < self.KEPT_SPEED and len(ratios) < self.ROUNDS):
            ratios.append(self.round(tunnel, url))
        growth = self.check_memory()
        self.note(f"kept {', '.join(f'{ratio:.0%}' for ratio in ratios)}; grown by {growth} KiB")
        self.assertGreaterEqual(max(ratios), self.KEPT_SPEED)

        with stalled_download(tunnel, "/endless"):
            digests = at_once(self.VISITORS, lambda _: sha256_of(url))
        self.assertEqual(digests, [expected] * self.VISITORS)

    def round(self, tunnel, url):
        """The ratio of the speed with a stalled visitor to the speed without one."""
        speeds = {False: [], True: []}
        for index in range(2 * self.MEASUREMENTS):
            stalled = index % 2 == 1
            neighbour = stalled_download(tunnel, "/endless") if stalled else contextlib.nullcontext()
            with neighbour:
                speeds[stalled].append(aggregate_speed(url, self.SIZE, self.VISITORS))
                self.check_memory()
        return statistics.median(speeds[True]) / statistics.median(speeds[False])

    def test_stalled_visitor_gets_the_rest_when_it_reads_again(self):
        nginx = Nginx(self.stage)
        size = 32 * MIB
        expected = write_random_file(nginx.files / "file", size)
        tunnel = self.stage.expose(nginx.address)
        with stalled_download(tunnel, "/file") as visitor:
            head = backends.read_head(visitor)
            start, _, body = head.partition(b"\r\n\r\n")
            self.assertTrue(start.startswith(b"HTTP/1.1 200 "), start)
            body += read_exactly(visitor, size - len(body))
        self.assertEqual(sha256(body), expected)


class StalledBackend(MemoryTest):
    """The other direction: a backend that does not read an upload."""

    # More than two windows and the kernel's buffers at both ends can hold.
    MOST_ACCEPTED = 64 * MIB

    def test_upload_is_held_back(self):
        stuck = self.stage.use(Listener(backends.serve_never_reads))
        echo = self.stage.use(Listener(backends.serve_echo))
        gateway = self.stage.gateway()
        tunnel = self.stage.expose(
            stuck.address, "-n", f"lively={echo.address}", name="stuck", gateway=gateway)
        lively = tunnel.agent.wait_registered("lively")
        self.remember_memory(tunnel)

        with tunnel.connect() as visitor:
            visitor.setblocking(False)
            self.assertLess(self.send_until_blocked(visitor), self.MOST_ACCEPTED)
            tunnel.port = lively
            with tunnel.connect(timeout=10) as other:
                data = os.urandom(100_000)
                other.sendall(data)
                self.assertEqual(sha256(read_exactly(other, len(data))), sha256(data))
            self.check_memory()

    def send_until_blocked(self, visitor):
        """Sends until the socket accepts no bytes for a second; returns the number of bytes sent."""
        block = b"x" * MIB
        sent = 0

        def takes_more():
            nonlocal sent
            try:
                sent += visitor.send(block)
                return True
            except BlockingIOError:
                return False

        while sent <= self.MOST_ACCEPTED:
            try:
                wait_until(takes_more, "room to send", timeout=1.0)
            except Failure:
                return sent
        return sent
