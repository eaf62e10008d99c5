"""Both programs against a peer that implements only docs/protocol.md."""

import socket
import struct
import subprocess
import time

import backends
import v2peer
from backends import Listener
from harness import REPOSITORY, EndToEndTest, wait_until

UNKNOWN_TYPE = 99


def table(marker):
    """The rows of the table after a marker in docs/protocol.md."""
    text = (REPOSITORY / "docs" / "protocol.md").read_text()
    lines = text.split(f"<!-- {marker} -->\n", 1)[1].split("\n\n", 1)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


class GatewayTest(EndToEndTest):
    """diglett-server and an independent agent."""

    def dial(self, **options):
        if not hasattr(self, "gateway"):
            self.gateway = self.stage.gateway()
        return self.stage.use(v2peer.connect((self.gateway.host, self.gateway.port), **options))

    def agent(self, **login):
        peer = self.dial()
        peer.log_in(**login)
        return peer

    def visitor(self, port):
        return self.stage.use(socket.create_connection(("127.0.0.1", port), 15))

    def check_stream(self, agent, port):
        """Checks a visitor's request and its answer; returns the OPEN frame."""
        visitor = self.visitor(port)
        opened = agent.expect(v2peer.OPEN)
        self.assertEqual(opened.payload[10:29], v2peer.address(*visitor.getsockname()))
        visitor.sendall(b"question")
        visitor.shutdown(socket.SHUT_WR)
        agent.send_frame(v2peer.ACCEPT, v2peer.u64(65_536), stream=opened.stream)
        self.assertEqual(agent.read_stream(opened.stream), b"question")
        agent.send_frame(v2peer.DATA, b"answer", stream=opened.stream, flags=v2peer.FIN)
        self.assertEqual(visitor.recv(100), b"answer")
        self.assertEqual(visitor.recv(100), b"")
        return opened

    def test_visitor_and_backend_talk(self):
        agent = self.agent()
        answer = agent.register("example")
        self.assertEqual(answer.code, 0)
        opened = self.check_stream(agent, answer.port)
        exposure, limit = struct.unpack(">HQ", opened.payload[:10])
        self.assertEqual((exposure, opened.stream), (0, 1))
        self.assertGreater(limit, 0)
        self.assertEqual(self.check_stream(agent, answer.port).stream, 2)

    def test_violation_ends_the_link_with_its_code(self):
        agent = self.agent()
        agent.send_frame(v2peer.DATA, b"for no stream", stream=7)
        self.assertEqual(agent.wait_end().code, v2peer.PROTOCOL_VIOLATION)

    # Unknown kinds and methods.

    def test_kinds_are_listed(self):
        self.assertEqual(self.agent().hello.extensions[v2peer.KINDS], bytes([v2peer.TCP]))

    def test_unknown_kind_costs_the_name_and_not_the_link(self):
        agent = self.agent()
        self.assertEqual(agent.register("first", exposure=1).code, 0)
        self.assertEqual(agent.register("example", kind=9).code, v2peer.KIND_NOT_SUPPORTED)
        answer = agent.register("example")
        self.assertEqual(answer.code, 0)
        self.check_stream(agent, answer.port)

    def test_unknown_method_is_a_refused_login(self):
        began = time.monotonic()
        with self.assertRaises(v2peer.Closed) as refusal:
            self.agent(method=9)
        self.assertEqual(refusal.exception.goaway.code, v2peer.METHOD_NOT_SUPPORTED)
        self.assertGreaterEqual(time.monotonic() - began, 0.25)

    def test_agent_that_gives_up_during_its_login(self):
        """A refusal takes 250 ms, so the agent's GOAWAY arrives before it."""
        peer = self.dial()
        peer.send_raw(
            v2peer.encode(v2peer.HELLO, v2peer.hello_payload())
            + v2peer.encode(v2peer.LOGIN, v2peer.login_payload(method=9))
            + v2peer.encode(v2peer.GOAWAY, v2peer.goaway_payload(0, text="the user stops me")))
        self.assertIsNone(peer.wait_end())
        self.gateway.wait_log("no login from [^ ]*: the user stops me")
        self.assertNotIn("protocol-violation", self.gateway.output)

    # Names.

    def test_table_of_names(self):
        agent = self.agent()
        codes = {"none": 0, "name-invalid": v2peer.NAME_INVALID, "kind-not-supported": v2peer.KIND_NOT_SUPPORTED}
        rows = table("register-table")
        self.assertGreater(len(rows), 10)
        for name, kind, code in rows:
            with self.subTest(name=name, kind=kind):
                name = "" if name == "(empty)" else name.strip("`")
                answer = agent.register(name, kind=int(kind))
                self.assertEqual(answer.code, codes[code], answer)
                if answer.code == 0:
                    self.gateway.wait_registered(name.lower())
                    agent.send_frame(v2peer.UNREGISTER, v2peer.u16(0))

    def test_number_in_use_ends_the_link(self):
        agent = self.agent()
        agent.register("first")
        agent.send_frame(v2peer.REGISTER, v2peer.register_payload(0, "second"))
        self.assertEqual(agent.wait_end().code, v2peer.PROTOCOL_VIOLATION)
        # The gateway keeps the link open until the agent has read the reason.
        agent.cut()
        self.gateway.wait_unregistered("first")

    def test_name_twice_on_a_link(self):
        agent = self.agent()
        answer = agent.register("example")
        self.assertEqual(agent.register("example", exposure=1).code, v2peer.NAME_TAKEN)
        self.check_stream(agent, answer.port)

    def test_more_names_than_the_link_may_have(self):
        peer = self.dial()
        _, most = peer.log_in()
        for number in range(most):
            self.assertEqual(peer.register(f"name-{number}", exposure=number).code, 0)
        self.assertEqual(peer.register("one-more", exposure=most).code, v2peer.TOO_MANY_NAMES)
        self.assertTrue(peer.is_alive())

    def test_unregister_frees_name_and_number(self):
        agent = self.agent()
        agent.send_frame(v2peer.UNREGISTER, v2peer.u16(9))
        agent.register("example")
        agent.send_frame(v2peer.UNREGISTER, v2peer.u16(0))
        self.assertEqual(self.agent().register("example").code, 0)
        self.assertEqual(agent.register("other").code, 0)

    # Limits of HELLO.

    def test_agent_that_takes_no_streams(self):
        agent = self.agent(hello=v2peer.hello_payload(streams=0))
        port = agent.register("example").port
        # The reset may arrive during connect(2).
        with self.assertRaises(ConnectionResetError):
            self.visitor(port).recv(1)
        self.assertTrue(agent.is_alive())

    def test_agent_that_takes_no_bytes_before_accept(self):
        agent = self.agent(hello=v2peer.hello_payload(window=0))
        visitor = self.visitor(agent.register("example").port)
        visitor.sendall(b"question")
        agent.expect(v2peer.OPEN)
        # The gateway sent no DATA before its answer to the PING.
        agent.send_frame(v2peer.PING, bytes(8))
        self.assertEqual(agent.recv_frame().type, v2peer.PONG)
        agent.send_frame(v2peer.ACCEPT, v2peer.u64(3), stream=1)
        self.assertEqual(agent.expect(v2peer.DATA).payload, b"que")
        agent.send_frame(v2peer.WINDOW, v2peer.u64(8), stream=1)
        self.assertEqual(agent.expect(v2peer.DATA).payload, b"stion")

    # Older and newer releases.

    def test_older_agent(self):
        """No extensions, and the id of the last stream in a field that is reserved now."""
        agent = self.agent(hello=v2peer.hello_payload(extensions=b""))
        self.check_stream(agent, agent.register("example").port)
        agent.send_frame(v2peer.GOAWAY, v2peer.goaway_payload(v2peer.DRAIN, last_stream=1))
        self.gateway.wait_unregistered("example")
        self.assertTrue(agent.is_alive())

    def test_newer_agent(self):
        """More versions, unknown extensions, and frames that may be skipped."""
        unknown = v2peer.extension(77, b"new")
        peer = self.dial()
        peer.send_raw(
            v2peer.encode(v2peer.HELLO, v2peer.hello_payload(1, 9, extensions=unknown))
            + v2peer.encode(v2peer.LOGIN, v2peer.login_payload(key=bytes(32), extensions=unknown)))
        peer.expect(v2peer.WELCOME)
        peer.send_frame(UNKNOWN_TYPE, b"new", flags=v2peer.SKIPPABLE)
        peer.send_frame(v2peer.REGISTER, v2peer.register_payload(0, "example", extensions=unknown))
        self.check_stream(peer, peer.answer_for(0).port)

    def test_keys_of_certificates(self):
        kinds = {
            "P-256": ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
            "P-384": ["ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
            "P-521": ["ec", "-pkeyopt", "ec_paramgen_curve:P-521"],
            "Ed25519": ["ed25519"],
            "RSA": ["rsa:2048"],
        }
        directory = self.stage.new_directory("keys")
        for kind, options in kinds.items():
            with self.subTest(kind=kind):
                pem = directory / f"{kind}.pem"
                made = subprocess.run(
                    ["openssl", "req", "-x509", "-newkey", *options, "-nodes", "-days", "2", "-subj", "/CN=agent",
                     "-keyout", "-", "-out", "-"], check=True, capture_output=True, timeout=60)
                pem.write_bytes(made.stdout)
                self.dial(certificate=pem).log_in(method=v2peer.CERTIFICATE)


class AgentTest(EndToEndTest):
    """diglett and an independent gateway."""

    def setUp(self):
        super().setUp()
        self.listener = self.stage.use(v2peer.Listener(self.stage.directory))

    def dialled(self, backend="127.0.0.1:9", name="example"):
        """Starts an agent; returns it and its link, before any frame."""
        agent = self.stage.agent(self.listener.address, "-n", name, str(backend))
        return agent, self.stage.use(self.listener.accept())

    def link(self, backend="127.0.0.1:9", name="example"):
        """Starts an agent and registers its name; returns it, its link, and the number of its exposure."""
        agent, link = self.dialled(backend, name)
        link.welcome()
        exposure, registered = link.take_register()
        self.assertEqual(registered, name)
        agent.wait_registered(name)
        return agent, link, exposure

    def check_stream(self, link, exposure, stream=1):
        link.send_frame(v2peer.OPEN, v2peer.open_payload(exposure, 65_536), stream=stream)
        link.send_frame(v2peer.DATA, b"there and back", stream=stream, flags=v2peer.FIN)
        link.expect(v2peer.ACCEPT, stream=stream)
        self.assertEqual(link.read_stream(stream), b"there and back")

    def echo(self):
        return self.stage.use(Listener(backends.serve_echo)).address

    def test_visitor_and_backend_talk(self):
        _, link, exposure = self.link(self.echo())
        self.assertEqual(link.hello.extensions[v2peer.SOFTWARE][:8], b"diglett/")
        self.check_stream(link, exposure)

    def test_refused_backend_is_a_reset(self):
        _, link, exposure = self.link()
        link.send_frame(v2peer.OPEN, v2peer.open_payload(exposure, 65_536), stream=1)
        self.assertEqual(link.expect(v2peer.RESET, stream=1).payload, v2peer.u16(v2peer.REFUSED))

    def test_unknown_exposure_is_a_reset(self):
        _, link, _ = self.link()
        link.send_frame(v2peer.OPEN, v2peer.open_payload(999, 65_536), stream=1)
        self.assertEqual(link.expect(v2peer.RESET, stream=1).payload, v2peer.u16(v2peer.WITHDRAWN))
        self.assertTrue(link.is_alive())

    def test_words_about_unknown_exposures_are_ignored(self):
        _, link, _ = self.link()
        for code in (0, v2peer.REPLACED, 999):
            link.send_frame(v2peer.REGISTERED, v2peer.registered_payload(999, code))
        self.assertTrue(link.is_alive())

    def test_gateway_that_allows_no_names(self):
        agent, link = self.dialled()
        link.welcome(names=0)
        code, event = agent.refusal()
        self.assertEqual((code, event["code"]), (13, "name-refused"))

    def test_unsupported_method_or_kind_ends_the_agent(self):
        agent, link = self.dialled()
        link.expect(v2peer.HELLO)
        link.send_frame(v2peer.HELLO, v2peer.hello_payload())
        link.send_frame(v2peer.GOAWAY, v2peer.goaway_payload(v2peer.METHOD_NOT_SUPPORTED))
        self.assertEqual(agent.refusal()[0], 17)
        agent, link = self.dialled()
        link.welcome()
        link.take_register(code=v2peer.KIND_NOT_SUPPORTED, port=0, text="")
        self.assertEqual(agent.refusal()[0], 17)

    def test_older_gateway(self):
        """A HELLO without extensions, and a last stream in the GOAWAY."""
        agent, link = self.dialled(self.echo())
        link.welcome(hello=v2peer.hello_payload(extensions=b""))
        exposure, _ = link.take_register()
        self.check_stream(link, exposure)
        link.send_frame(v2peer.GOAWAY, v2peer.goaway_payload(v2peer.DRAIN, retry_after=0, last_stream=1))
        agent.wait_event("lost")

    def test_newer_gateway(self):
        """More versions and kinds, unknown extensions, and frames that may be skipped."""
        unknown = v2peer.extension(77, b"new")
        kinds = v2peer.extension(v2peer.KINDS, bytes([1, 2, 200]))
        _, link = self.dialled(self.echo())
        link.expect(v2peer.LOGIN)
        link.send_frame(v2peer.HELLO, v2peer.hello_payload(2, 9, extensions=kinds + unknown))
        link.send_frame(v2peer.WELCOME, v2peer.welcome_payload(extensions=unknown))
        link.send_frame(UNKNOWN_TYPE, b"new", flags=v2peer.SKIPPABLE)
        exposure, _ = link.take_register()
        self.check_stream(link, exposure)

    def test_agent_that_stops_before_welcome_says_so(self):
        agent, link = self.dialled()
        link.expect(v2peer.LOGIN)
        agent.send_signal(2)
        self.assertEqual(link.wait_end().code, 0)
        wait_until(lambda: not agent.running, "the end of the agent")
