"""How much a hostile peer can write into the other side's log."""

import collections
import contextlib
import re
import time
import unittest

import v2peer
from administration import AgentsFile
from harness import PATIENCE, EndToEndTest

SECONDS = 3.0
# Maximum size of the log after this time. Without rate limits it is megabytes.
MOST_BYTES = 100_000
# Minimum refusals of a flood: several times the lines that a source may cause at once, 32 about names and 16 before the
# login.
LEAST_NAMES = 2_000
LEAST_STRANGERS = 100
# Minimum refusals of one agent's names for their content, not for their number.
LEAST_REFUSED = 500
# Maximum size of the agent's events. A refusal of 512 control characters takes 1.8 KB.
MOST_EVENT_BYTES = 300_000
# An invalid name of 64 control characters, which are 320 characters in the log.
BAD_NAME = b"\x01" * 64
# REGISTER frames that a link may send at once.
REGISTERS = 32
# Simultaneous logins. A source may have 16 connections before the login; some are left for the honest agent.
LOGINS = 12
# Minimum bytes of a flood to an agent. The link may end before SECONDS are over, because of too many glitches.
LEAST_SENT = 30_000
LEFT_OUT = r"(\d+) further messages about "


def size(lines):
    return sum(len(line.encode()) + 1 for line in lines)


class GatewayLogTest(EndToEndTest):
    """Floods of each refusal that an agent or an unauthenticated connection can cause repeatedly."""

    def start(self, *rights):
        """Starts a gateway with the agents `web`, with these rights, and `honest`."""
        agents = AgentsFile(self.stage, state=self.stage.new_directory("gateway-state"))
        self.token = agents.add("web", "--names", "app-*", *rights).token.encode()
        self.honest_token = agents.add("honest", "--names", "honest").token
        agents.set("web", "max-names = 1")
        self.gateway = self.stage.gateway(state=agents.state)

    def flood(self, attempt, source, least):
        """Repeats `attempt`, which returns its number of refusals, for SECONDS and until there are `least` refusals."""
        honest = None
        refused = 0
        end = time.monotonic() + SECONDS
        while time.monotonic() < end or refused < least and time.monotonic() < end + PATIENCE:
            with contextlib.suppress(v2peer.Closed, OSError):
                refused += attempt()
            if honest is None and refused >= least:
                honest = self.stage.agent(self.gateway, "-t", self.honest_token, "-n", "honest", "9")
        written = size(self.gateway.stderr)
        self.note(f"{refused} refused, {written} bytes of log")
        self.assertGreaterEqual(refused, least, "too few for a flood")
        self.assertLess(written, MOST_BYTES)
        # The lines about an honest agent are still logged.
        self.gateway.wait_registered("honest")
        omitted = int(self.gateway.wait_log(LEFT_OUT + re.escape(source)).group(1))
        self.assertGreater(omitted, 0)

    def connect(self):
        return v2peer.connect((self.gateway.host, self.gateway.port))

    # REGISTER.

    def check_names(self, code, *arguments, rights=(), **options):
        """`arguments` and `options` are those of `register_payload` after the number.

        Most registrations above an agent's rate limit are refused as too many, whatever their content.
        """
        codes = collections.Counter()
        self.start(*rights)
        with self.connect() as holder:
            holder.log_in(token=self.token)
            self.assertEqual(holder.register("app-held").code, 0)

            def attempt():
                with self.connect() as agent:
                    agent.log_in(token=self.token)
                    agent.send_raw(b"".join(
                        v2peer.encode(v2peer.REGISTER, v2peer.register_payload(number, *arguments, **options))
                        for number in range(REGISTERS)))
                    codes.update(agent.answer_for(number).code for number in range(REGISTERS))
                    return REGISTERS

            self.flood(attempt, "agent 'web'", LEAST_NAMES)
        self.assertEqual(set(codes), {code, v2peer.OVERLOADED})
        self.assertGreater(codes[code], LEAST_REFUSED)

    def test_bad_names(self):
        self.check_names(v2peer.NAME_INVALID, BAD_NAME)

    def test_unknown_kinds(self):
        self.check_names(v2peer.KIND_NOT_SUPPORTED, "app-1", kind=9)

    def test_names_that_are_not_allowed(self):
        self.check_names(v2peer.NAME_NOT_ALLOWED, "other")

    def test_ports_that_are_not_allowed(self):
        self.check_names(v2peer.PORT_NOT_ALLOWED, "app-1", port=1, rights=("--ports", "20000-20001"))

    def test_too_many_names(self):
        self.check_names(v2peer.TOO_MANY_NAMES, "app-1")

    # LOGIN.

    def check_logins(self, code, payload):
        """Sends many logins at once, because each answer takes 250 ms."""
        self.start()

        def attempt():
            with contextlib.ExitStack() as stack:
                strangers = [stack.enter_context(self.connect()) for _ in range(LOGINS)]
                for stranger in strangers:
                    stranger.send_raw(
                        v2peer.encode(v2peer.HELLO, v2peer.hello_payload()) + v2peer.encode(v2peer.LOGIN, payload))
                for stranger in strangers:
                    self.assertEqual(stranger.wait_end().code, code)
                return LOGINS

        self.flood(attempt, "connections from 127.0.0.1", LEAST_STRANGERS)

    def test_unknown_methods(self):
        self.check_logins(v2peer.METHOD_NOT_SUPPORTED, v2peer.login_payload(9))

    def test_wrong_tokens(self):
        self.check_logins(v2peer.LOGIN_REFUSED, v2peer.login_payload(v2peer.TOKEN, token=b"dgl_web_wrong"))

    def test_connections_that_never_log_in(self):
        self.start()

        def attempt():
            with self.connect() as stranger:
                stranger.send_frame(v2peer.PING, bytes(8))
                return 1

        self.flood(attempt, "connections from 127.0.0.1", LEAST_STRANGERS)


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
        """Sends the same frames repeatedly, for SECONDS or until the link ends."""
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
        self.assertGreater(sent, LEAST_SENT, "too few for a flood")
        self.assertLess(written, MOST_BYTES)
        self.assertLess(events, MOST_EVENT_BYTES)

    def test_refusals(self):
        link, exposure = self.link()
        self.flood(link, [
            v2peer.encode(v2peer.REGISTERED, v2peer.registered_payload(
                exposure, v2peer.NAME_TAKEN, text=word + "\x01" * 511))
            for word in "ab"])
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
        """The backend refuses each stream, and the gateway opens the next one."""
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
