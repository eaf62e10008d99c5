#!/usr/bin/env python3
"""Opens and closes very many connections, and checks for leaks.

    soak.py [CYCLES]            default: 1,000,000

In each cycle a visitor connects through the tunnel, sends one request, reads the answer and disconnects.  Afterwards
both programs must have as many open descriptors as before, and their memory must not have grown by more than a fixed
amount, regardless of the number of cycles.
"""

import argparse
import asyncio
import socket
import sys
import time

from backends import TaggingEcho
from harness import Failure, Stage, wait_until

# Enough to keep two cores busy, few enough to stay below all limits on visitors.
CONCURRENT = 32
# Cycles before the first measurement, in which the allocator, tables and buffers reach the size that this load needs.
WARM_UP = 1000
RSS_GROWTH_LIMIT_KIB = 16 * 1024
ANSWER_SECONDS = 30


def source_address(index):
    """A visitor's source address in 127.0.0.0/8.

    Thousands of connections a second from one address would exhaust its ports, which the kernel keeps for a while after
    a connection ends.
    """
    return f"127.0.{1 + index % 200}.1"


async def one_cycle(port, index):
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, local_addr=(source_address(index), 0), family=socket.AF_INET)
    try:
        request = b"cycle %d\n" % index
        writer.write(request)
        answer = await reader.readline()
        if answer != request:
            raise Failure(f"cycle {index}: sent {request!r}, got {answer!r}")
    finally:
        writer.close()
    await writer.wait_closed()


async def visit(port, first, cycles, report=None):
    """Runs `cycles` cycles, numbered from `first`, CONCURRENT at a time."""
    numbers = iter(range(first, first + cycles))

    async def worker():
        for index in numbers:
            try:
                await asyncio.wait_for(one_cycle(port, index), ANSWER_SECONDS)
            except (OSError, TimeoutError) as error:
                raise Failure(f"cycle {index}: {error!r}") from error
            if report and (index + 1) % 50_000 == 0:
                report(index + 1)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENT):
            group.create_task(worker())


def visit_all(port, first, cycles, report=None):
    try:
        asyncio.run(visit(port, first, cycles, report))
    except ExceptionGroup as group:
        # All workers fail for the same reason: report one of them.
        raise group.exceptions[0] from None


def soak(stage, cycles, report=None):
    """Runs the cycles on a new tunnel; returns a line with the results, or raises Failure."""
    echo = stage.use(TaggingEcho())
    tunnel = stage.expose(echo.address)
    programs = (tunnel.gateway, tunnel.agent)

    # Before the warm-up: leaks of the first visitors count too.
    descriptors = [program.descriptors() for program in programs]
    visit_all(tunnel.port, 0, WARM_UP)
    resident = [program.resident_kib() for program in programs]
    began = time.monotonic()
    visit_all(tunnel.port, WARM_UP, cycles, report)
    elapsed = time.monotonic() - began

    def settled():
        return [program.descriptors() for program in programs] == descriptors

    try:
        wait_until(settled, "descriptors to be closed", timeout=20)
    except Failure:
        now = [program.descriptors() for program in programs]
        raise Failure(f"open descriptors of gateway and agent: {descriptors} before, {now} after") from None
    growth = [program.resident_kib() - before for program, before in zip(programs, resident)]
    figures = (f"{cycles} cycles, {cycles / elapsed:.0f}/s, descriptors {descriptors} as before, "
               f"grown by {growth[0]} and {growth[1]} KiB (gateway, agent)")
    if max(growth) > RSS_GROWTH_LIMIT_KIB:
        raise Failure(figures)
    return figures


def main():
    parser = argparse.ArgumentParser(description="Connects, asks and leaves, very often.")
    parser.add_argument("cycles", nargs="?", type=int, default=1_000_000)
    cycles = parser.parse_args().cycles
    with Stage() as stage:
        try:
            print(soak(stage, cycles, lambda done: print(f"{done} cycles", flush=True)))
        except Failure as failure:
            sys.exit(f"{stage.tails()}\n\nsoak: {failure}")


if __name__ == "__main__":
    main()
