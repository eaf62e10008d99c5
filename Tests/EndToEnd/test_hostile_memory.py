"""Peers that make the gateway hold as much memory as they can, until it reaches its memory limit."""

import contextlib
import os
import re
import time
import unittest
from pathlib import Path

from harness import Failure, allow_descriptors, long_run, wait_until
from hostile import NeighbourTest, start_peer

# This module measures, so no other module runs at the same time (integration-test -j).
ALONE = True

STREAMS = 8_000 if long_run() else 1_500
STREAMS_PER_AGENT = 1_000
MIB = 1 << 20
SERVED_SECONDS = 5.0
# Seconds after all peers have connected: enough to open streams and use up windows, or to reach deadlines.
ATTACK_SECONDS = 60 if long_run() else 5


def setUpModule():
    allow_descriptors(4_096)


class ControlGroup:
    """A control group below the test's own, with a memory limit, like that of a container (cgroups(7))."""

    def __init__(self, mebibytes):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            if "memory" in controllers.split(","):
                root, self.limit = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
                self.peak, self.kills = "memory.max_usage_in_bytes", "memory.oom_control"
                break
            if number == "0":
                root, self.limit = Path("/sys/fs/cgroup"), "memory.max"
                self.peak, self.kills = "memory.peak", "memory.events"
        self.path = root / path.lstrip("/") / f"diglett-e2e-{os.getpid()}-{mebibytes}"
        try:
            self.path.mkdir()
            (self.path / self.limit).write_text(str(mebibytes * MIB))
        except OSError as error:
            with contextlib.suppress(OSError):
                self.path.rmdir()
            raise unittest.SkipTest(f"no control group with a memory limit can be made: {error}") from None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        def is_removed():
            # The kernel may still count the process that has just ended.
            with contextlib.suppress(OSError):
                self.path.rmdir()
            return not self.path.exists()

        wait_until(is_removed, f"{self.path} to be removed")

    @property
    def prefix(self):
        """The start of a command line that runs a program inside the group."""
        return ("sh", "-c", f'echo $$ > "{self.path}/cgroup.procs" && exec "$@"', "sh")

    def figures(self):
        kills = re.search(r"^oom_kill (\d+)$", (self.path / self.kills).read_text(), re.MULTILINE)
        with contextlib.suppress(OSError):
            peak = int((self.path / self.peak).read_text()) // MIB
            return f"peak {peak} MiB, {kills.group(1) if kills else '?'} kills"
        return ""


class MemoryLimit(NeighbourTest):
    """A visitor of another agent is served within seconds, whatever the attackers do."""

    def attack(self, mode, *options):
        left = STREAMS
        attackers = []
        number = 0
        while left > 0:
            count = min(left, STREAMS_PER_AGENT)
            agent = start_peer(
                self.stage, "agent", self.gateway.address, f"hostile-{number}", mode, "--streams", count)
            attackers.append(start_peer(self.stage, "visitors", agent.wait_ready(), count, *options))
            left -= count
            number += 1
        return attackers

    def check(self, mebibytes, mode, *options, group=None):
        if group:
            self.start_neighbour(prefix=group.prefix)
        else:
            self.start_neighbour(prefix=("prlimit", f"--as={mebibytes * MIB}"))
        before = self.gateway.resident_kib()
        attackers = self.attack(mode, *options)
        visits = []
        try:
            visits.append(self.check_served(SERVED_SECONDS))
            for attacker in attackers:
                attacker.wait_ready(60)
            deadline = time.monotonic() + ATTACK_SECONDS
            while time.monotonic() < deadline:
                visits.append(self.check_served(SERVED_SECONDS))
                time.sleep(0.1)
        except Failure as failure:
            raise Failure(f"{failure}; {self.figures(before, visits, group)}") from failure
        self.note(self.figures(before, visits, group))
        self.assertTrue(self.gateway.running)

    def figures(self, before, visits, group):
        seconds, refusals = max(visits, default=(0, 0))
        resident = self.gateway.resident_kib() if self.gateway.running else 0
        return (f"{STREAMS} streams; resident {before >> 10} to {resident >> 10} MiB; {len(visits)} visits, "
                f"the slowest served after {seconds:.2f} s ({refusals} refusals)"
                + (f"; {group.figures()}" if group else ""))

    # Uploads to agents that grant no credit, or grant all but do not read; downloads that visitors do not read.

    ATTACKS = {
        "uploads without credit": ("never-grants", "--upload"),
        "uploads to a link that is not read": ("never-reads", "--upload"),
        "downloads that are not read": ("pours",),
        "downloads that are read slowly": ("pours", "--read", 4),
    }

    def check_address_space(self, attack):
        self.check(512, *self.ATTACKS[attack])

    def test_address_space_uploads_without_credit(self):
        self.check_address_space("uploads without credit")

    def test_address_space_uploads_to_a_link_that_is_not_read(self):
        self.check_address_space("uploads to a link that is not read")

    def test_address_space_downloads_that_are_not_read(self):
        self.check_address_space("downloads that are not read")

    def check_group(self, mebibytes, attack):
        group = self.stage.use(ControlGroup(mebibytes))
        self.check(mebibytes, *self.ATTACKS[attack], group=group)

    def test_group_of_64_mib_uploads_without_credit(self):
        self.check_group(64, "uploads without credit")

    def test_group_of_64_mib_uploads_to_a_link_that_is_not_read(self):
        self.check_group(64, "uploads to a link that is not read")

    def test_group_of_64_mib_downloads_that_are_not_read(self):
        self.check_group(64, "downloads that are not read")

    def test_group_of_64_mib_downloads_that_are_read_slowly(self):
        self.check_group(64, "downloads that are read slowly")


def add_long_tests():
    """Adds tests with larger control groups."""
    for mebibytes in (128, 256, 512):
        for attack in MemoryLimit.ATTACKS:
            def test(self, mebibytes=mebibytes, attack=attack):
                self.check_group(mebibytes, attack)

            setattr(MemoryLimit, f"test_group_of_{mebibytes}_mib_{attack.replace(' ', '_')}", test)


if long_run():
    add_long_tests()
