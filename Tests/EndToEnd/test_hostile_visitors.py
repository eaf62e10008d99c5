"""Visitors and backends that occupy resources as long as they can; others must not be affected."""

import contextlib
import socket
import statistics

from backends import Listener, write_random_file
from harness import EndToEndTest, allow_descriptors, wait_until
from hostile import NeighbourTest, start_pages, start_peer
from prometheus import Metrics
from realservers import Nginx
from v1peer import PAYLOAD
from version1 import Link, own_gateway
from visitors import aggregate_speed

# This module measures, so no other module runs at the same time (integration-test -j).
ALONE = True

MIB = 1 << 20
PLENTY = bytes(16 * MIB)


def setUpModule():
    allow_descriptors(8_192)


def pour(connection):
    # Otherwise the kernel buffers megabytes per connection, and with 800 connections runs short of memory for TCP.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
    connection.sendall(PLENTY)


class SlowReaders(NeighbourTest):
    """800 visitors request a large file and read a few bytes a second, or none."""

    SLOW, SILENT = 500, 300
    SIZE = 64 * MIB
    KEPT_SPEED = 0.9
    # The speed of one download varies by a third on two shared cores.
    TRIES = 8
    # 800 initial windows of 256 KiB would be 200 MiB.
    MOST_GROWTH_KIB = 96 * 1024

    def test_memory_and_speed_of_a_neighbour(self):
        """Measures the effect on another name of the same agent."""
        nginx = Nginx(self.stage)
        write_random_file(nginx.files / "file", self.SIZE)
        pouring = self.stage.use(Listener(pour))
        self.gateway = self.stage.gateway("--metrics", "127.0.0.1:0")
        metrics = Metrics(self.gateway)
        agent = self.stage.agent(self.gateway, "-n", f"slow={pouring.address}", "-n", "fast", nginx.address)
        slow, fast = agent.wait_registered("slow"), agent.wait_registered("fast")
        url = f"http://127.0.0.1:{fast}/file"

        def speed():
            return statistics.median(aggregate_speed(url, self.SIZE, 1) for _ in range(3))

        aggregate_speed(url, self.SIZE, 1)
        alone = speed()
        before = self.gateway.resident_kib()
        others = [start_peer(self.stage, "visitors", slow, self.SLOW, "--read", 4),
                  start_peer(self.stage, "visitors", slow, self.SILENT)]
        for peer in others:
            peer.wait_ready(60)
        # First, their windows and the kernel's buffers fill at full speed.
        carried = [0]

        def is_filled():
            carried.append(metrics.scrape().value("diglett_bytes_total", direction="to_visitor"))
            return carried[-1] - carried[-2] < MIB

        wait_until(is_filled, "the slow streams to stall", interval=0.5)
        speeds = [speed()]
        while speeds[-1] < self.KEPT_SPEED * alone and len(speeds) < self.TRIES:
            speeds.append(speed())
        growth = self.gateway.resident_kib() - before
        if len(speeds) == self.TRIES:
            # Measure without the visitors again: other load on the machine may have increased.
            for peer in others:
                peer.kill()
            alone = min(alone, speed())
        ratios = [speed / alone for speed in speeds]
        self.note(f"alone {alone / MIB:.0f} MiB/s, kept {', '.join(f'{ratio:.0%}' for ratio in ratios)}; "
                  f"grown by {growth} KiB")
        self.assertGreaterEqual(max(ratios), self.KEPT_SPEED)
        self.assertLess(growth, self.MOST_GROWTH_KIB)

    def test_latency_of_a_neighbour(self):
        self.start_neighbour()
        pouring = self.stage.use(Listener(pour))
        slow = self.stage.agent(self.gateway, "-n", "slow", pouring.address).wait_registered("slow")
        self.measure_quiet()
        start_peer(self.stage, "visitors", slow, 300, "--read", 4).wait_ready(60)
        self.check_neighbour("300 slow readers")


class SilentBackend(NeighbourTest):
    VISITORS = 400

    def test_other_name_of_the_link_is_served(self):
        """A backend does not answer connects; its visitors must not use up the pending opens of the link."""
        with contextlib.ExitStack() as kept:
            # The kernel drops connects to a listener whose backlog is full (listen(2)).
            deaf = kept.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
            filler = kept.enter_context(socket.socket())
            filler.connect(deaf.getsockname())
            self.gateway = self.stage.gateway()
            agent = self.stage.agent(
                self.gateway, "-n", f"deaf=127.0.0.1:{deaf.getsockname()[1]}", "-n", "honest",
                start_pages(self.stage))
            port = agent.wait_registered("deaf")
            self.honest = agent.wait_registered("honest")
            self.measure_quiet()
            start_peer(self.stage, "visitors", port, self.VISITORS).wait_ready(60)
            self.check_neighbour(f"{self.VISITORS} visitors of a silent backend")


class Version1(EndToEndTest):
    STREAMS = 1_024

    def test_silent_visitors_make_room(self):
        """In version 1 the agent does not know of visitors that have sent nothing: they must not keep others out."""
        gateway = own_gateway(self.stage)
        with Link.dial(gateway.address_v1) as link, contextlib.ExitStack() as silent:
            link.register("example")
            port = gateway.wait_registered("example")
            for number in range(self.STREAMS):
                silent.enter_context(
                    socket.create_connection(("127.0.0.1", port), 15, (f"127.0.0.{2 + number % 8}", 0)))
            for question in (b"who asks is served", b"the next one too"):
                visitor = silent.enter_context(socket.create_connection(("127.0.0.1", port), 15))
                visitor.sendall(question)
                stream, data = link.collect(len(question))
                self.assertEqual(data, question)
                link.send(PAYLOAD, stream, question)
                self.assertEqual(visitor.recv(100), question)
