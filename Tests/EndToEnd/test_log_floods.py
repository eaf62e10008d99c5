"""What a hostile peer can write into the other side's log."""

import contextlib
import time
import unittest

import v2peer
from backends import Listener, answering
from harness import EndToEndTest

SECONDS = 5.0
# Of the log, for that time. Without a limit it is megabytes.
MOST_BYTES = 100_000
# Of the agent's events: a refusal of 512 control characters takes 1.8 KB.
MOST_EVENT_BYTES = 300_000
# Any name of 64 control characters is a bad one, and is written as 320.
BAD_NAME = b"\x01" * 64
# REGISTER frames that a link may send at once.
REGISTERS = 32
LEFT_OUT = r"(\d+) further messages about "


def size(lines):
    return sum(len(line.encode()) + 1 for line in lines)


class GatewayLogTest(EndToEndTest):
    def test_agent_with_bad_names(self):
        gateway = self.stage.gateway()
        host, port = gateway.address.rsplit(":", 1)
        backend = self.stage.use(Listener(answering(b"hello")))
        end = time.monotonic() + SECONDS
        links = 0
        honest = None
        while time.monotonic() < end:
            with contextlib.suppress(v2peer.Closed, OSError), v2peer.connect((host, int(port))) as agent:
                agent.log_in(key=b"k" * 32)
                agent.send_raw(b"".join(
                    v2peer.encode(v2peer.REGISTER, v2peer.register_payload(number, BAD_NAME))
                    for number in range(REGISTERS)))
                for number in range(REGISTERS):
                    agent.answer_for(number)
                links += 1
            if honest is None and links >= 20:
                honest = self.stage.agent(gateway, "-n", "honest", backend.address)
        written = size(gateway.stderr)
        self.note(f"{links} links, {links * REGISTERS} refused names, {written} bytes of log")
        self.assertLess(written, MOST_BYTES)
        # What an honest agent needs to appear in the log appears in it.
        gateway.wait_registered("honest")
        count = int(gateway.wait_log(LEFT_OUT + "agent '").group(1))
        self.assertGreater(count, 0)

    def test_connections_that_never_log_in(self):
        gateway = self.stage.gateway()
        host, port = gateway.address.rsplit(":", 1)
        end = time.monotonic() + SECONDS
        count = 0
        while time.monotonic() < end:
            with contextlib.suppress(v2peer.Closed, OSError), v2peer.connect((host, int(port))) as stranger:
                stranger.send_frame(v2peer.PING, bytes(8))
                count += 1
        written = size(gateway.stderr)
        self.note(f"{count} connections, {written} bytes of log")
        self.assertLess(written, MOST_BYTES)


class AgentLogTest(EndToEndTest):
    def setUp(self):
        super().setUp()
        self.gateway = self.stage.use(v2peer.Listener(self.stage.new_directory("peer")))
        self.agent = self.stage.agent(self.gateway.address, "-d", "-n", "example", "127.0.0.1:9")

    def link(self):
        link = self.gateway.accept()
        self.stage.use(link)
        link.welcome()
        exposure, _ = link.take_register()
        return link, exposure

    def flood(self, link, frames):
        """Sends the same frames over and over."""
        batch = b"".join(frames)
        batch *= max(1, 16_000 // len(batch))
        end = time.monotonic() + SECONDS
        sent = 0
        with contextlib.suppress(v2peer.Closed, OSError):
            while time.monotonic() < end:
                link.send_raw(batch)
                sent += len(batch)
        written, events = size(self.agent.stderr), size(self.agent.stdout)
        self.note(f"{sent} bytes sent, {written} bytes of log, {events} bytes of events")
        self.assertLess(written, MOST_BYTES)
        self.assertLess(events, MOST_EVENT_BYTES)
        return sent

    def test_refusals(self):
        link, exposure = self.link()
        self.flood(link, [v2peer.encode(v2peer.REGISTERED, v2peer.registered_payload(
            exposure, v2peer.NAME_TAKEN, text="\x01" * 512))])
        self.agent.wait_log(LEFT_OUT + "the gateway ")
        self.agent.wait_event("omitted")
        self.assertTrue(self.agent.running)

    def test_addresses(self):
        link, exposure = self.link()
        self.flood(link, [
            v2peer.encode(v2peer.REGISTERED, v2peer.registered_payload(exposure, text=f"127.0.0.1:{port}", port=port))
            for port in (1, 2)])
        self.agent.wait_log(LEFT_OUT + "the gateway ")
        self.assertTrue(self.agent.running)

    def test_streams(self):
        """Each has a backend that refuses it, and is opened again."""
        link, exposure = self.link()
        end = time.monotonic() + SECONDS
        stream = 0
        while time.monotonic() < end:
            for _ in range(100):
                stream += 1
                link.send_frame(v2peer.OPEN, v2peer.open_payload(exposure, 65_536), stream=stream)
            with contextlib.suppress(TimeoutError):
                link.expect(v2peer.RESET, stream, timeout=1.0)
        written, events = size(self.agent.stderr), size(self.agent.stdout)
        self.note(f"{stream} streams, {written} bytes of log, {events} bytes of events")
        self.assertLess(written, MOST_BYTES)
        self.assertLess(events, MOST_EVENT_BYTES)
        self.agent.wait_log(LEFT_OUT + "visitors of 'example'")

    def test_goodbyes(self):
        link, _ = self.link()
        self.flood(link, [v2peer.encode(v2peer.GOAWAY, v2peer.goaway_payload(v2peer.DRAIN, text="\x01" * 128))])
        self.assertTrue(self.agent.running)


if __name__ == "__main__":
    unittest.main()
