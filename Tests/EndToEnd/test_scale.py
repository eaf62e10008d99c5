"""Many names, many simultaneous visitors, and many short connections."""

import asyncio
import os
import socket

import soak
from backends import TaggingEcho
from harness import EndToEndTest, Failure, allow_descriptors, fast

# This module measures, so no other module runs at the same time (integration-test -j).
ALONE = True

# This process holds both ends of every connection; the programs need half of that.
DESCRIPTORS = 8192


def setUpModule():
    allow_descriptors(DESCRIPTORS)


class Crowd(EndToEndTest):
    """Two agents, four names, a thousand simultaneous visitors."""

    VISITORS = 1000
    PATIENCE_SECONDS = 60
    # Number of source addresses, because the gateway limits the visitors of a source.
    SOURCES = 20

    def test_everyone_at_once(self):
        echoes = {name: self.stage.use(TaggingEcho(f"{name}:"))
                  for name in ("one", "two", "three", "four")}
        gateway = self.stage.gateway()
        first = self.stage.agent(
            gateway, "-n", "one", "-n", f"two={echoes['two'].address}",
            "-n", f"three={echoes['three'].address}", echoes["one"].address)
        second = self.stage.agent(gateway, "-n", "four", echoes["four"].address)
        ports = {name: first.wait_registered(name) for name in ("one", "two", "three")}
        ports["four"] = second.wait_registered("four")
        self.assertEqual(len(set(ports.values())), 4)

        asyncio.run(self.crowd(ports))
        self.assertEqual([echo.peak for echo in echoes.values()], [self.VISITORS // 4] * 4)

    async def crowd(self, ports):
        """All visitors connect and receive an answer before the first one disconnects."""
        names = list(ports)
        everyone_is_here = asyncio.Event()
        arrived = 0

        async def visitor(index):
            nonlocal arrived
            name = names[index % len(names)]
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", ports[name], family=socket.AF_INET,
                local_addr=(f"127.0.0.{10 + index % self.SOURCES}", 0))
            await self.ask(reader, writer, name, f"{index} arrives")
            arrived += 1
            if arrived == self.VISITORS:
                everyone_is_here.set()
            await everyone_is_here.wait()
            await self.ask(reader, writer, name, f"{index} leaves")
            writer.close()
            await writer.wait_closed()

        try:
            async with asyncio.timeout(self.PATIENCE_SECONDS), asyncio.TaskGroup() as group:
                for index in range(self.VISITORS):
                    group.create_task(visitor(index))
        except (ExceptionGroup, TimeoutError) as problem:
            first = problem.exceptions[0] if isinstance(problem, ExceptionGroup) else problem
            raise Failure(f"{arrived} of {self.VISITORS} visitors were answered; then: {first!r}") from None

    async def ask(self, reader, writer, name, text):
        request = f"{text} {os.urandom(400).hex()}\n"
        writer.write(request.encode())
        answer = (await reader.readline()).decode()
        if answer != f"{name}:{request}":
            raise Failure(f"visitor of {name!r} sent {request!r} and got {answer!r}")


class ComingAndGoing(EndToEndTest):
    def test_nothing_is_left_behind(self):
        self.note(soak.soak(self.stage, 1000 if fast() else 5000))
