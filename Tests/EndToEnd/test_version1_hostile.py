"""Version 1 of the protocol: unauthenticated connections, broken frames, refusals and the command line."""

import contextlib
import os
import random
import socket
import ssl
import struct
import time

import backends
from backends import Listener
from harness import Agent, EndToEndTest, Gateway, allow_descriptors, program_path
from v1peer import (
    CLOSE, ERROR, FINISH_REGISTER, LOGIN, MAGIC, OK, PAYLOAD, REGISTER, TERMINATE, G, P, address, compress,
    decompress)
from version1 import CutSocket, HandServer, Link, own_agent, own_gateway, peer_agent, peer_server
from visitors import get, read_exactly, sha256

PROMPT_SECONDS = 2.0
LARGEST_PAYLOAD = 65_535
LARGEST_LOGIN = 4096
# Maximum streams of a link.
MOST_STREAMS = 1024
UNEXPECTED = b"received unexpected message"
ONE_NAME = b"only one name registration is allowed"
FRAME = struct.Struct(">BIH")


def setUpModule():
    allow_descriptors(2 * MOST_STREAMS)


def greeting(magic=MAGIC, version=1, key=compress(G)):
    return struct.pack(">IB", magic, version) + key


def is_on_curve(key):
    try:
        decompress(key)
        return True
    except ValueError:
        return False


def key_off_the_curve():
    """A well-formed key with an x for which the curve has no y."""
    keys = (b"\x02" + x.to_bytes(32, "big") for x in range(1, 100))
    return next(key for key in keys if not is_on_curve(key))


def client_hello():
    """A TLS ClientHello."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(incoming, outgoing, server_hostname="gateway")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def serve_without_end(connection):
    """An echo that keeps its connection open after the other end has finished."""
    backends.serve_echo(connection)
    backends.serve_never_reads(connection)


class GatewayTest(EndToEndTest):
    """A gateway that must keep serving a well-behaved agent."""

    def setUp(self):
        super().setUp()
        self.start_gateway()

    def start_gateway(self):
        self.gateway = own_gateway(self.stage)
        backend = self.stage.use(Listener(backends.answering(b"unharmed")))
        self.bystander = peer_agent(self.stage, self.gateway.address_v1, backend.address, name="bystander")
        self.bystander_url = f"http://127.0.0.1:{self.gateway.wait_registered('bystander')}/"

    def dial(self, **more):
        return Link.dial(self.gateway.address_v1, **more)

    def visit(self, name):
        return socket.create_connection(("127.0.0.1", self.gateway.wait_registered(name)), 15)

    def check_unharmed(self):
        self.assertEqual(get(self.bystander_url), b"unharmed")
        with self.dial() as link:
            link.register("newcomer")
            self.gateway.wait_registered("newcomer")

    def check_ends(self, link, *words):
        """Checks that the gateway ends the link at once, with an Error with the original's text."""
        began = time.monotonic()
        self.assertEqual(link.last_words(), [(ERROR, 0, text) for text in words])
        self.assertLess(time.monotonic() - began, PROMPT_SECONDS)


class Handshakes(GatewayTest):
    def check_closed(self, data):
        with socket.create_connection(address(self.gateway.address_v1), 15) as stranger:
            stranger.sendall(data)
            began = time.monotonic()
            try:
                self.assertEqual(backends.read_all(stranger), b"")
            except ConnectionResetError:
                pass
            self.assertLess(time.monotonic() - began, PROMPT_SECONDS)

    def test_broken(self):
        cases = {
            "magic": greeting(magic=MAGIC + 1), "first byte of the magic": b"D",
            "version 0": greeting(version=0), "version 2": greeting(version=2),
            "version 255": greeting(version=255),
            "no point on the curve": greeting(key=key_off_the_curve()),
            "x beyond the field": greeting(key=b"\x02" + (P + 1).to_bytes(32, "big")),
            "largest x": greeting(key=b"\x03" + b"\xff" * 32),
            "point at infinity": greeting(key=bytes(33)),
            "uncompressed key": greeting(key=b"\x04" + compress(G)[1:]),
            "hybrid key": greeting(key=b"\x06" + compress(G)[1:]),
            "TLS": client_hello(), "HTTP": b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n",
            "SSH": b"SSH-2.0-OpenSSH_9.2\r\n", "zeros": bytes(10_000),
            "random": random.Random(20_000).randbytes(10_000),
        }
        for case, data in cases.items():
            with self.subTest(case):
                self.check_closed(data)
        self.check_unharmed()

    def test_leaving_in_the_middle(self):
        for length in range(len(greeting()) + 1):
            with socket.create_connection(address(self.gateway.address_v1), 15) as stranger:
                stranger.sendall(greeting()[:length])
        self.check_unharmed()

    def test_garbage_after_the_handshake(self):
        """Encrypted garbage, which is most probably a frame of an unknown kind."""
        for size in (7, 100, 10_000):
            with self.subTest(size=size), self.dial() as link:
                link.sock.sendall(link.seal.update(b"\xaa" * size))
                self.check_ends(link, UNEXPECTED)
        self.check_unharmed()

    def test_agent_of_version_2_at_this_port(self):
        agent = self.stage.agent(self.gateway.address_v1, "--once", "-n", "newer", "9")
        self.assertEqual(agent.refusal(), (69, agent.events("refused")[0]))
        self.assertEqual(agent.events("registered"), [])
        self.check_unharmed()

    def test_agents_of_version_1_at_the_other_port(self):
        agent = own_agent(self.stage, self.gateway.address, "9", "--once")
        self.assertEqual(agent.refusal(), (69, agent.events("refused")[0]))
        peer = peer_agent(self.stage, self.gateway.address, "127.0.0.1:9", ready=False)
        self.assertEqual(peer.wait_exit(), 1)
        self.assertEqual(agent.events("registered") + peer.stdout, [])
        self.check_unharmed()


class Sequence(GatewayTest):
    """Frames that an agent must not send, or not in this state."""

    ILLEGAL = (OK, ERROR, TERMINATE, *range(8, 256))

    def test_illegal_kinds_before_login(self):
        for kind in self.ILLEGAL:
            with self.subTest(kind=kind), self.dial() as link:
                link.send(kind)
                self.check_ends(link, UNEXPECTED)
        self.check_unharmed()

    def test_illegal_kinds_after_registration(self):
        for index, kind in enumerate(self.ILLEGAL):
            # Start another gateway now and then: a gateway omits log lines about one agent above a limit.
            if index % 40 == 39:
                self.start_gateway()
            with self.subTest(kind=kind), self.dial() as link:
                link.register(f"kind-{kind}")
                link.send(kind, 0, b"x")
                self.check_ends(link, UNEXPECTED)
            self.gateway.wait_unregistered(f"kind-{kind}")
        self.check_unharmed()

    def test_wrong_order(self):
        login, name = (LOGIN, 0, b""), (REGISTER, 0, b"example")
        cases = {
            "Register first": ([], [name], UNEXPECTED),
            "FinishRegister first": ([], [(FINISH_REGISTER,)], UNEXPECTED),
            "Payload first": ([], [(PAYLOAD, 1, b"x")], UNEXPECTED),
            "Close first": ([], [(CLOSE, 1)], UNEXPECTED),
            "Login twice": ([login], [login], UNEXPECTED),
            "Payload before Register": ([login], [(PAYLOAD, 1, b"x")], UNEXPECTED),
            "no name": ([login], [(FINISH_REGISTER,)], b"missing name registration"),
            "Payload before FinishRegister": ([login, name], [(PAYLOAD, 1, b"x")], UNEXPECTED),
            "Close before FinishRegister": ([login, name], [(CLOSE, 1)], UNEXPECTED),
            "second name": ([login, name], [(REGISTER, 1, b"second")], ONE_NAME),
            "second name later": ([login, name], [(FINISH_REGISTER,), (REGISTER, 1, b"second")], ONE_NAME),
            "FinishRegister twice": ([login, name], [(FINISH_REGISTER,), (FINISH_REGISTER,)], UNEXPECTED),
        }
        for case, (granted, rest, words) in cases.items():
            with self.subTest(case), self.dial() as link:
                for frame in granted:
                    link.send(*frame)
                    link.expect(OK)
                for frame in rest:
                    link.send(*frame)
                self.check_ends(link, words)
        self.check_unharmed()

    def test_token_of_any_length_up_to_the_bound(self):
        for size in (0, 1, LARGEST_LOGIN):
            with self.subTest(size=size), self.dial() as link:
                link.log_in(b"t" * size)
        for size in (LARGEST_LOGIN + 1, LARGEST_PAYLOAD):
            with self.subTest(size=size), self.dial() as link:
                # Only the header: the gateway does not wait for a payload that it refuses.
                link.sock.sendall(link.seal.update(FRAME.pack(LOGIN, 0, size)))
                self.check_ends(link, UNEXPECTED)
        self.check_unharmed()

    def test_bad_names(self):
        bad = {
            b"Bad_Name!": "'Bad_Name!' is not a valid name: '_' is not allowed", b"": "the name is empty",
            b"-x": "'-x' is not a valid name: it must not begin or end with a hyphen",
            b"a" * 64: "it has 64 characters, 63 at most are allowed", b"a.b": "'a.b' is not a valid name: dots are not",
            b"x" * LARGEST_LOGIN: "63 at most are allowed",
        }
        for name, fault in bad.items():
            with self.subTest(name=name[:70]), self.dial() as link:
                link.log_in()
                link.send(REGISTER, 0, name)
                kind, ident, text = link.receive()
                self.assertEqual((kind, ident), (ERROR, 0))
                self.assertIn(fault, text.decode())
        with self.dial() as link:
            link.log_in()
            link.send(REGISTER, 0, b"Bad_Name!")
            self.assertEqual([kind for kind, _, _ in link.last_words()], [ERROR])
        self.check_unharmed()

    def test_texts_that_are_no_utf_8(self):
        with self.dial() as link:
            link.send(LOGIN, 0, b"\xff\xfe")
            self.check_ends(link, UNEXPECTED)
        with self.dial() as link:
            link.log_in()
            link.send(REGISTER, 0, b"\xff\xfe")
            self.check_ends(link, UNEXPECTED)
        self.check_unharmed()


class FramesAtOurGateway(GatewayTest):
    def test_registration_number_is_in_the_stream_id(self):
        with self.dial() as link:
            link.register("seven", registration=0xABCD0007)
            with self.visit("seven") as visitor:
                visitor.sendall(b"hello")
                ident, _ = link.collect(5)
                self.assertEqual(ident >> 16, 7)

    def test_payloads_of_every_size(self):
        data = os.urandom(3 * LARGEST_PAYLOAD)
        with self.dial() as link:
            link.register("sizes")
            with self.visit("sizes") as visitor:
                visitor.sendall(data)
                ident, received = link.collect(len(data))
                self.assertEqual(sha256(received), sha256(data))
                for size in (0, LARGEST_PAYLOAD, 1, 0, 0, LARGEST_PAYLOAD):
                    link.send(PAYLOAD, ident, data[:size])
                    self.assertEqual(sha256(read_exactly(visitor, size)), sha256(data[:size]))
                link.send(CLOSE, ident)
                self.assertEqual(visitor.recv(1), b"")

    def test_unknown_streams_are_ignored(self):
        with self.dial() as link:
            link.register("unknown")
            with self.visit("unknown") as visitor:
                visitor.sendall(b"hello")
                ident, _ = link.collect(5)
                for other in (0, ident + 1, ident | 1 << 16, 0xFFFFFFFF):
                    link.send(PAYLOAD, other, b"x" * LARGEST_PAYLOAD)
                    link.send(CLOSE, other)
                    link.send(PAYLOAD, other)
                link.send(PAYLOAD, ident, b"answer")
                link.send(CLOSE, ident)
                self.assertEqual(backends.read_all(visitor), b"answer")

    def session(self, name, is_cut):
        """Runs a session from the handshake to Close; returns the number of bytes that the agent sent."""
        with self.dial(wrap=lambda connection: CutSocket(connection, is_cut)) as link:
            link.register(name)
            with self.visit(name) as visitor:
                visitor.sendall(b"question")
                ident, question = link.collect(8)
                self.assertEqual(question, b"question")
                link.send(PAYLOAD, ident, b"answer")
                link.send(CLOSE, ident)
                self.assertEqual(backends.read_all(visitor), b"answer")
            return link.sock.sent

    def test_cut_anywhere(self):
        size = self.session("cut-000", lambda offset: True)
        for cut in range(1, size):
            # Start another gateway now and then: a gateway omits log lines about one agent above a limit.
            if cut % 40 == 0:
                self.start_gateway()
            with self.subTest(cut=cut):
                self.assertEqual(self.session(f"cut-{cut:03}", lambda offset, cut=cut: offset == cut), size)


class FramesAtOurAgent(EndToEndTest):
    """The other side: our agent at a hand-written gateway."""

    def setUp(self):
        super().setUp()
        self.server = self.stage.use(HandServer())
        self.backend = self.stage.use(Listener(backends.serve_echo))

    def start(self, *options, wrap=lambda connection: connection):
        self.agent = own_agent(self.stage, self.server.address, self.backend.address, *options)
        return self.server.accept_agent(wrap)

    def check_echo(self, link, ident, data, rest=0):
        """Sends `data` as one frame, and checks its echo, which follows `rest` earlier bytes."""
        link.send(PAYLOAD, ident, data)
        stream, echo = link.collect(len(data) + rest)
        self.assertEqual((stream, sha256(echo[rest:])), (ident, sha256(data)))

    def test_payloads_of_every_size(self):
        with self.start() as link:
            link.send(PAYLOAD, 1, b"")
            for size in (1, LARGEST_PAYLOAD, 1):
                self.check_echo(link, 1, os.urandom(size))
                link.send(PAYLOAD, 1, b"")
            # Any number is a valid id.
            for ident in (0, 65_535, 1 << 16, 0xFFFFFFFF):
                self.check_echo(link, ident, b"hello")

    def test_unknown_streams_are_ignored(self):
        with self.start() as link:
            link.send(CLOSE, 77)
            link.send(PAYLOAD, 78, b"")
            self.check_echo(link, 79, b"hello")

    def test_id_used_again(self):
        """In the original an id is a visitor's port, which another visitor may soon use.

        Frames with a closed id count as stragglers until the id was silent for a tenth of a second.
        """
        self.backend = self.stage.use(Listener(backends.answering(b"page")))
        with self.start() as link:
            for _ in range(3):
                link.send(PAYLOAD, 7, b"GET / HTTP/1.0\r\n\r\n")
                _, answer = link.collect(1)
                self.assertTrue(answer.endswith(b"page"), answer)
                link.expect(CLOSE, 7)
                # Only silence distinguishes a new stream from a straggler, so the test has to sleep.
                time.sleep(0.15)

    def test_closed_streams_take_no_room(self):
        """A full gateway closes a stream to open the next one."""
        self.backend = self.stage.use(Listener(serve_without_end))
        with self.start() as link:
            for ident in range(MOST_STREAMS):
                self.check_echo(link, ident, b"hello")
            link.send(CLOSE, 0)
            self.check_echo(link, MOST_STREAMS, b"hello")

    def test_whole_session_byte_by_byte(self):
        with self.start(wrap=lambda connection: CutSocket(connection, lambda offset: True)) as link:
            self.check_echo(link, 1, b"hello")
            link.send(CLOSE, 1)
            self.check_echo(link, 2, b"still there")

    def test_cut_anywhere(self):
        cut = None
        with self.start(wrap=lambda connection: CutSocket(connection, lambda offset: offset == cut)) as link:
            for number in range(1, 20):
                cut = link.sock.sent + number
                self.check_echo(link, number, b"hello")
                link.send(CLOSE, number)

    def test_illegal_kinds(self):
        for kind in (OK, REGISTER, FINISH_REGISTER, LOGIN, *range(8, 256, 31)):
            with self.subTest(kind=kind):
                with self.start("--once") as link:
                    link.send(kind)
                    self.assertEqual(link.last_words(), [])
                self.assertEqual(self.agent.refusal()[0], 69)

    def check_comes_back(self, last_frame):
        with self.start() as link:
            self.agent.wait_event("registered")
            link.send(last_frame)
            self.assertEqual(link.last_words(), [])
        self.agent.wait_event("lost")
        with self.server.accept_agent() as link:
            self.check_echo(link, 1, b"hello")

    def test_comes_back_after_an_illegal_kind(self):
        self.check_comes_back(8)

    def test_comes_back_after_terminate(self):
        self.check_comes_back(TERMINATE)

    def test_broken_greetings(self):
        """The agent sends no login to a peer that does not speak version 1."""
        greetings = (greeting(magic=MAGIC + 1), greeting(version=2),
                     greeting(key=key_off_the_curve()), client_hello())
        for data in greetings:
            with self.subTest(data[:8]):
                agent = own_agent(self.stage, self.server.address, self.backend.address, "--once")
                with self.server.accept_connection() as connection:
                    self.assertEqual(len(read_exactly(connection, 38)), 38)
                    connection.sendall(data)
                    with contextlib.suppress(ConnectionResetError):
                        self.assertEqual(connection.recv(1), b"")
                self.assertEqual(agent.refusal()[0], 69)


class Refusals(EndToEndTest):
    def check(self, agent, code, exit_code, *words):
        status, event = agent.refusal()
        self.assertEqual((event["code"], event["exit"], status), (code, exit_code, exit_code))
        for word in words:
            self.assertIn(word, event["message"])
        self.assertEqual(agent.events("registered"), [])

    def test_token(self):
        server = peer_server(self.stage, "--reject-token", "dgl_1_wrong")
        agent = own_agent(self.stage, server.address, "9", "-t", "dgl_1_wrong")
        self.check(agent, "login-refused", 11, "authentication error: invalid token")
        own_agent(self.stage, server.address, "9", "-t", "dgl_1_right").wait_event("registered")

    def test_name(self):
        server = peer_server(self.stage, "--reject-name", "reserved")
        agent = own_agent(self.stage, server.address, "9", name="reserved")
        self.check(agent, "name-refused", 13, "not authorized to use this domain")
        own_agent(self.stage, server.address, "9").wait_event("registered")

    def test_name_is_taken(self):
        """An agent of version 2 holds the name; its visitors are not affected."""
        gateway = own_gateway(self.stage)
        backend = self.stage.use(Listener(backends.answering(b"the first")))
        tunnel = self.stage.expose(backend.address, gateway=gateway)
        with Link.dial(gateway.address_v1) as link:
            link.log_in()
            link.send(REGISTER, 0, b"example")
            (kind, _, text), = link.last_words()
            self.assertEqual(kind, ERROR, text)
        self.assertEqual(get(tunnel.url), b"the first")


class CommandLine(EndToEndTest):
    def run_program(self, name, *arguments, kind):
        program = self.stage.start(name, [program_path(name), *arguments], kind)
        return program.wait_exit(), program

    def write(self, text):
        path = self.stage.new_directory("configuration") / "diglett.toml"
        path.write_text(text)
        return path

    def test_agent(self):
        arguments = ("-g", "127.0.0.1:9", "--v1", "-n", "example")
        cases = {
            "pin": ("--pin", "sha256/" + "A" * 43 + "="), "two names": ("-n", "other=9001"),
            "public port": ("--public-port", "9001"),
        }
        for case, more in cases.items():
            with self.subTest(case):
                code, agent = self.run_program("diglett", *arguments, *more, "9000", kind=Agent)
                self.assertEqual(code, 64)
                self.assertIn("version 1", agent.output)

    def test_gateway_on_more_than_loopback(self):
        for place in ("0.0.0.0:0", "[::]:0", "192.0.2.1:0", "127.0.0.1.example:0"):
            with self.subTest(place):
                code, gateway = self.run_program(
                    "diglett-server", "-l", "127.0.0.1:0", "--listen-v1", place, kind=Gateway)
                self.assertEqual(code, 64)
                self.assertIn("listen-v1", gateway.output)
        gateway = self.stage.gateway("--listen-v1", "0.0.0.0:0", "--v1-insecure-ok")
        gateway.wait_log(r"WARN.*version 1 is enabled and not safe")
        self.assertTrue(gateway.wait_listening_v1().startswith("0.0.0.0:"))

    def test_gateway_configuration(self):
        path = self.write('debug = 0\nlisten-v1 = ["0.0.0.0:0"]\n')
        code, gateway = self.run_program("diglett-server", "-l", "127.0.0.1:0", "-c", path, kind=Gateway)
        self.assertEqual(code, 78)
        self.assertIn(f"{path}:2", gateway.output)
        path = self.write('listen-v1 = ["0.0.0.0:0"]\nv1-insecure-ok = true\n')
        self.stage.gateway("-c", path).wait_listening_v1()

    def test_several_listeners_and_the_warning(self):
        gateway = own_gateway(self.stage, "--listen-v1", "127.0.0.7:0", "--listen-v1", "[::1]:0")
        gateway.wait_log(r"WARN.*version 1 is enabled and not safe")
        doors = [gateway.wait_log(rf"version 1 on ({host}:\d+)$").group(1)
                 for host in (r"127\.0\.0\.1", r"127\.0\.0\.7", r"\[::1\]")]
        backend = self.stage.use(Listener(backends.answering(b"page")))
        for number, door in enumerate(doors):
            peer_agent(self.stage, door, backend.address, name=f"door-{number}")
            port = gateway.wait_registered(f"door-{number}")
            self.assertEqual(get(f"http://127.0.0.1:{port}/"), b"page")

    def test_off_by_default(self):
        gateway = self.stage.gateway()
        self.stage.agent(gateway, "-n", "example", "9").wait_registered()
        self.assertNotIn("version 1", gateway.output)

    def test_events(self):
        gateway = own_gateway(self.stage)
        agent = own_agent(self.stage, gateway.address_v1, "127.0.0.1:9")
        self.assertEqual(agent.wait_event("connected"), {"event": "connected", "gateway": gateway.address_v1})
        self.assertEqual(agent.wait_event("registered"),
                         {"event": "registered", "name": "example", "backend": "127.0.0.1:9"})
        gateway.wait_registered("example")
        self.assertEqual(agent.stop(), 0)
        gateway.wait_unregistered("example")
