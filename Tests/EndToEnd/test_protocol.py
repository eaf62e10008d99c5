"""Both programs against a peer that knows nothing but docs/protocol.md."""

import socket
import struct

import backends
import v2peer
from backends import Listener
from harness import EndToEndTest


def address_of(gateway):
    return gateway.host, gateway.port


class GatewayTest(EndToEndTest):
    """A diglett-server, and an independent agent."""

    def agent(self, gateway=None):
        self.gateway = gateway or self.stage.gateway()
        peer = self.stage.use(v2peer.connect(address_of(self.gateway)))
        peer.log_in()
        return peer

    def test_visitor_and_backend_talk(self):
        agent = self.agent()
        answer = agent.register("example")
        self.assertEqual(answer.code, 0)
        visitor = self.stage.use(socket.create_connection(("127.0.0.1", answer.port), 15))
        opened = agent.expect(v2peer.OPEN)
        exposure, limit = struct.unpack(">HQ", opened.payload[:10])
        self.assertEqual((exposure, opened.stream), (0, 1))
        self.assertGreater(limit, 0)
        self.assertEqual(opened.payload[10:29], v2peer.address(*visitor.getsockname()))
        visitor.sendall(b"question")
        visitor.shutdown(socket.SHUT_WR)
        agent.send_frame(v2peer.ACCEPT, v2peer.u64(65_536), stream=1)
        self.assertEqual(agent.expect(v2peer.DATA, stream=1).payload, b"question")
        self.assertEqual(agent.expect(v2peer.DATA, stream=1), (v2peer.DATA, v2peer.FIN, 1, b""))
        agent.send_frame(v2peer.DATA, b"answer", stream=1, flags=v2peer.FIN)
        self.assertEqual(visitor.recv(100), b"answer")
        self.assertEqual(visitor.recv(100), b"")

    def test_violation_ends_the_link_with_its_code(self):
        agent = self.agent()
        agent.send_frame(v2peer.DATA, b"for no stream", stream=7)
        self.assertEqual(agent.wait_end().code, v2peer.PROTOCOL_VIOLATION)


class AgentTest(EndToEndTest):
    """A diglett, and an independent gateway."""

    def setUp(self):
        super().setUp()
        self.listener = self.stage.use(v2peer.Listener(self.stage.directory))

    def link(self, backend, name="example"):
        """The agent, its link, and the number of its exposure."""
        agent = self.stage.agent(self.listener.address, "-n", name, str(backend))
        link = self.stage.use(self.listener.accept())
        link.welcome()
        exposure, registered = link.take_register()
        self.assertEqual(registered, name)
        agent.wait_registered(name)
        return agent, link, exposure

    def test_visitor_and_backend_talk(self):
        backend = self.stage.use(Listener(backends.serve_echo))
        _, link, exposure = self.link(backend.address)
        self.assertEqual(link.hello.extensions[v2peer.SOFTWARE][:8], b"diglett/")
        link.send_frame(v2peer.OPEN, v2peer.open_payload(exposure, 65_536), stream=1)
        link.send_frame(v2peer.DATA, b"there and back", stream=1, flags=v2peer.FIN)
        link.expect(v2peer.ACCEPT, stream=1)
        received = b""
        while True:
            frame = link.expect(v2peer.DATA, stream=1)
            received += frame.payload
            if frame.flags & v2peer.FIN:
                break
        self.assertEqual(received, b"there and back")

    def test_refused_backend_is_a_reset(self):
        _, link, exposure = self.link("127.0.0.1:9")
        link.send_frame(v2peer.OPEN, v2peer.open_payload(exposure, 65_536), stream=1)
        self.assertEqual(link.expect(v2peer.RESET, stream=1).payload, v2peer.u16(v2peer.REFUSED))
