"""A gateway that harms its agent: floods of frames, and an excessive retry delay."""

import secrets
import socket

import backends
import v2peer
from backends import Listener
from harness import EndToEndTest, wait_until
from hostile import collect
from visitors import sha256

# An agent accepts 1,000 needless frames at once, and the first 5,000 withdrawn streams of a link.
HARMLESS = 500
FLOOD = 20_000
WITHDRAWN_HARMLESS = 2_000
# In seconds. A delay of an hour or more would amount to a ban.
LONGEST_RETRY_AFTER = 65_535
MOST_RETRY_SECONDS = 360


class HostileGateway(EndToEndTest):
    def setUp(self):
        super().setUp()
        self.listener = self.stage.use(v2peer.Listener(self.stage.directory))
        backend = self.stage.use(Listener(backends.serve_echo))
        self.agent = self.stage.agent(self.listener.address, "-n", "example", backend.address)
        self.last_stream = 0
        self.log_in()

    def log_in(self):
        self.link = self.stage.use(self.listener.accept())
        self.link.welcome()
        self.exposure, _ = self.link.take_register()

    def open(self):
        self.last_stream += 1
        return v2peer.encode(v2peer.OPEN, v2peer.open_payload(self.exposure, 65_536), self.last_stream)

    def check_echo(self):
        self.link.send_raw(self.open())
        stream = self.last_stream
        self.link.send_frame(v2peer.DATA, b"unharmed", stream=stream, flags=v2peer.FIN)
        self.link.expect(v2peer.ACCEPT, stream=stream)
        self.assertEqual(self.link.read_stream(stream), b"unharmed")

    def check_flood(self, make, harmless=HARMLESS, codes=(v2peer.GLITCHES,)):
        """Checks that a few frames are accepted, and that a flood ends the link with a code before a reconnect."""
        self.link.send_raw(b"".join(make() for _ in range(harmless)))
        self.check_echo()
        self.assertIn(self.flood(make), codes)
        self.link.cut()
        self.last_stream = 0
        self.log_in()
        self.check_echo()

    def flood(self, make):
        """Sends a flood; returns the code with which the agent ends the link."""
        try:
            for _ in range(FLOOD // 100):
                self.link.send_raw(b"".join(make() for _ in range(100)))
        except v2peer.Closed:
            pass
        # The agent keeps the connection open for some seconds, so that the peer can read the GOAWAY.
        return v2peer.read_goaway(self.link.expect(v2peer.GOAWAY).payload).code

    def test_repeated_registered(self):
        frame = v2peer.encode(
            v2peer.REGISTERED, v2peer.registered_payload(self.exposure, 0, 1, "127.0.0.1:1"))
        self.check_flood(lambda: frame)
        # One event per link: needless events would make the agent drop other events.
        wait_until(lambda: len(self.agent.events("registered")) >= 2, "the event of the second link")
        self.assertEqual(len(self.agent.events("registered")), 2, "a repetition is not an event")

    def test_registered_for_unknown_numbers(self):
        frame = v2peer.encode(v2peer.REGISTERED, v2peer.registered_payload(999, v2peer.WITHDRAWN))
        self.check_flood(lambda: frame)

    def ended_stream(self):
        self.check_echo()
        return self.last_stream

    def test_data_for_a_closed_stream(self):
        frame = v2peer.encode(v2peer.DATA, b"x", self.ended_stream())
        self.check_flood(lambda: frame)

    def test_window_for_a_closed_stream(self):
        frame = v2peer.encode(v2peer.WINDOW, v2peer.u64(1 << 30), self.ended_stream())
        self.check_flood(lambda: frame)

    def test_reset_for_a_closed_stream(self):
        frame = v2peer.encode(v2peer.RESET, v2peer.u16(v2peer.ABORTED), self.ended_stream())
        self.check_flood(lambda: frame)

    def test_streams_that_are_withdrawn_at_once(self):
        def make():
            opened = self.open()
            return opened + v2peer.encode(v2peer.RESET, v2peer.u16(0), self.last_stream)

        self.check_flood(make, WITHDRAWN_HARMLESS)

    def test_streams_for_an_unknown_exposure(self):
        """The agent resets each stream. The gateway reads the resets: unread ones would end the link with `owed`."""
        def make():
            self.last_stream += 1
            return v2peer.encode(v2peer.OPEN, v2peer.open_payload(999, 65_536), self.last_stream)

        self.link.send_raw(b"".join(make() for _ in range(HARMLESS)))
        for number in range(1, HARMLESS + 1):
            self.link.expect(v2peer.RESET, stream=number)
        self.check_echo()

    def test_pings(self):
        def make():
            return v2peer.encode(v2peer.PING, secrets.token_bytes(8))

        self.check_flood(make, codes=(v2peer.GLITCHES, v2peer.OWED))

    def test_skippable_frames(self):
        frame = v2peer.encode(99, b"x", 0, v2peer.SKIPPABLE)
        self.check_flood(lambda: frame)

    def test_last_words_before_a_goodbye_for_good(self):
        """Bytes sent before the GOAWAY reach the backend, although the agent exits."""
        received = []

        def serve(connection):
            received.append(collect(connection)[0])

        data = secrets.token_bytes(40_000)
        backend = self.stage.use(Listener(serve))
        agent = self.stage.agent(self.listener.address, "-n", "other", backend.address)
        link = self.stage.use(self.listener.accept())
        link.welcome()
        exposure, _ = link.take_register()
        link.send_frame(v2peer.OPEN, v2peer.open_payload(exposure, 65_536), stream=1)
        link.expect(v2peer.ACCEPT, stream=1)
        link.send_raw(
            b"".join(v2peer.encode(v2peer.DATA, data[at:at + 10_000], 1) for at in range(0, len(data), 10_000))
            + v2peer.encode(v2peer.GOAWAY, v2peer.goaway_payload(v2peer.REPLACED)))
        agent.wait_exit()
        wait_until(lambda: received, "the end of the backend's connection")
        self.assertEqual(sha256(received[0]), sha256(data))

    def test_wish_to_stay_away_for_hours(self):
        """The agent waits for five minutes at most, plus its own delay of a minute at most."""
        self.link.send_frame(v2peer.GOAWAY, v2peer.goaway_payload(v2peer.OVERLOADED, LONGEST_RETRY_AFTER))
        seconds = self.agent.wait_event("retrying")["seconds"]
        self.note(f"retries after {seconds:.0f} s")
        self.assertLessEqual(seconds, MOST_RETRY_SECONDS)
        self.assertGreaterEqual(seconds, 60, "a wish is honoured as far as it is reasonable")


class HostileAgent(EndToEndTest):
    """The same frames, sent to the gateway."""

    def setUp(self):
        super().setUp()
        self.gateway = self.stage.gateway()
        self.agent = self.stage.use(v2peer.connect((self.gateway.host, self.gateway.port)))
        self.agent.log_in()
        self.port = self.agent.register("example").port

    def test_frames_for_a_closed_stream(self):
        socket.create_connection(("127.0.0.1", self.port), 15).close()
        stream = self.agent.expect(v2peer.OPEN).stream
        self.agent.send_frame(v2peer.RESET, v2peer.u16(v2peer.REFUSED), stream=stream)
        frames = v2peer.encode(v2peer.DATA, b"x", stream) * 100
        with self.assertRaises(v2peer.Closed):
            for _ in range(FLOOD // 100):
                self.agent.send_raw(frames)
            self.agent.wait_end()
            raise v2peer.Closed(None, "ended")
        self.gateway.wait_log("glitches")
