"""The table [limits], and the limits of an agent: each is enforced, and refusals are counted."""

import contextlib
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import v2peer
from administration import run
from backends import Listener, answering_after_end, read_all, serve_echo, serve_never_reads
from harness import EndToEndTest, free_port, program_path, wait_until
from hooks import Hook, authenticator, configure
from namespaces import TwoHosts
from prometheus import Metrics
from version1 import own_agent, own_gateway
from visitors import read_exactly


# Attempts of a test whose steps must follow each other quickly.
ATTEMPTS = 20


def header(address):
    """A version 1 PROXY header of a visitor from this address."""
    return f"PROXY TCP4 {address} 192.0.2.1 1 2\r\n".encode()


class LimitsTest(EndToEndTest):
    def gateway(self, limits, *options, head=""):
        file = configure(self.stage, f"{head}\n[limits]\n{limits}\n")
        self.server = self.stage.gateway("--metrics", "127.0.0.1:0", "-c", file, *options)
        self.metrics = Metrics(self.server)
        return self.server

    def echo(self, *options, gateway, name="example"):
        backend = self.stage.use(Listener(serve_echo)).address
        return self.stage.expose(backend, *options, gateway=gateway, name=name)

    def visit(self, tunnel, stack, first=b""):
        visitor = stack.enter_context(tunnel.connect())
        visitor.sendall(first + b"x")
        read_exactly(visitor, 1)
        return visitor

    def is_refused(self, tunnel, first=b""):
        try:
            with tunnel.connect() as visitor:
                visitor.sendall(first + b"x")
                return not visitor.recv(1)
        except ConnectionError:
            # The reset may arrive before connect(2) returns.
            return True

    def refused(self, tunnel, first=b""):
        self.assertTrue(self.is_refused(tunnel, first))

    def results(self):
        return self.metrics.scrape().counted("diglett_visitors_total", "result")

    def hits(self, limit):
        return self.metrics.scrape().value("diglett_limit_hits_total", limit=limit)


class Visitors(LimitsTest):
    def test_in_all(self):
        tunnel = self.echo(gateway=self.gateway("visitors = 2"))
        self.assertEqual(self.metrics.scrape().value("diglett_limit", of="visitors"), 2)
        with contextlib.ExitStack() as stack:
            first = self.visit(tunnel, stack)
            self.visit(tunnel, stack)
            self.refused(tunnel)
            self.assertEqual(self.results(), {"admitted": 2, "gateway-full": 1})
            first.close()
            self.metrics.wait(lambda scrape: scrape.value("diglett_visitors") == 1, "the first to go")
            self.visit(tunnel, stack)

    def test_of_one_agent(self):
        """An agent that is alone may use most of the places, but some stay free for visitors of other agents."""
        gateway = self.gateway("visitors = 18")
        greedy = self.echo(gateway=gateway, name="greedy")
        with contextlib.ExitStack() as stack:
            for _ in range(17):
                self.visit(greedy, stack)
            modest = self.echo(gateway=gateway, name="modest")
            self.refused(greedy)
            self.visit(modest, stack)
            self.refused(modest)
            self.assertEqual(self.results(), {"admitted": 18, "agent-share": 1, "gateway-full": 1})

    def test_stalled_ones_make_room(self):
        self.check_stalled_ones_make_room()

    def test_stalled_ones_make_room_behind_a_proxy(self):
        self.check_stalled_ones_make_room("--accept-proxy-protocol", "127.0.0.1", first=header("198.51.100.1"))

    def test_stalled_ones_make_room_in_their_link(self):
        self.check_stalled_ones_make_room(limits="streams-per-link = 2")

    def test_stalled_ones_make_room_in_their_link_behind_a_proxy(self):
        self.check_stalled_ones_make_room(
            "--accept-proxy-protocol", "127.0.0.1", first=header("198.51.100.1"), limits="streams-per-link = 2")

    def check_stalled_ones_make_room(self, *options, first=b"", limits="visitors = 2"):
        backend = self.stage.use(Listener(serve_never_reads)).address
        tunnel = self.stage.expose(backend, gateway=self.gateway(limits, *options))
        with contextlib.ExitStack() as stack:
            stalled = [stack.enter_context(tunnel.connect()) for _ in range(2)]
            for visitor in stalled:
                visitor.sendall(first)
                visitor.setblocking(False)

            def fill():
                for visitor in stalled:
                    with contextlib.suppress(BlockingIOError, ConnectionError):
                        while visitor.send(bytes(1 << 16)):
                            pass

            end = time.monotonic() + 4
            wait_until(lambda: fill() or time.monotonic() > end, "the streams to stall")

            def come():
                stack.enter_context(tunnel.connect()).sendall(first + b"x")
                return self.hits("visitors") == 1

            wait_until(come, "room for a newer visitor", interval=0.3)
            self.metrics.wait(
                lambda scrape: scrape.counted("diglett_visitors_total", "result")["admitted"] == 3, "its stream")
        self.assertEqual(
            self.metrics.scrape().counted("diglett_streams_closed_total", "side", "reason")[("gateway", "stalled")], 1)

    def test_headers_that_are_waited_for(self):
        tunnel = self.echo(gateway=self.gateway("", "--accept-proxy-protocol", "127.0.0.1"))
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(tunnel.connect())
            self.metrics.wait(lambda scrape: scrape.value("diglett_granted_bytes") == 3 * 4_096, "their bytes to count")
        self.metrics.wait(lambda scrape: scrape.value("diglett_granted_bytes") == 0, "nothing to be held")

    def test_per_source(self):
        tunnel = self.echo(
            gateway=self.gateway("visitors-per-source = 2", "--accept-proxy-protocol", "127.0.0.1"))
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                self.visit(tunnel, stack, header("198.51.100.1"))
            self.refused(tunnel, header("198.51.100.1"))
            self.visit(tunnel, stack, header("198.51.100.2"))
            self.assertEqual(self.results(), {"admitted": 3, "source-full": 1})

    def test_per_second(self):
        tunnel = self.echo(
            gateway=self.gateway("visitors-per-second = 1", "--accept-proxy-protocol", "127.0.0.1"))
        with contextlib.ExitStack() as stack:
            refusals = []
            for source in range(ATTEMPTS):
                first = header(f"198.51.100.{source}")
                began = time.monotonic()
                for _ in range(2):
                    self.visit(tunnel, stack, first)
                refusals.append(self.is_refused(tunnel, first))
                # After a second a third visit is allowed. If the machine was that slow, retry with another source.
                if time.monotonic() - began < 0.9:
                    break
            else:
                self.fail("three visits took 0.9 s or more in every attempt")
            self.assertTrue(refusals[-1])
            self.assertEqual(
                self.results(),
                {"admitted": 2 * len(refusals) + refusals.count(False), "source-too-fast": refusals.count(True)})
            self.visit(tunnel, stack, header("203.0.113.1"))

    def test_streams_of_a_link(self):
        tunnel = self.echo(gateway=self.gateway("streams-per-link = 2"))
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                self.visit(tunnel, stack)
            self.refused(tunnel)
        self.assertEqual(self.results(), {"admitted": 2, "agent-full": 1})

    def test_streams_of_an_agent(self):
        directory = self.stage.new_directory("agent-etc")
        file = directory / "agent.toml"
        file.write_text("streams-per-link = 1\n")
        tunnel = self.echo("-c", file, gateway=self.gateway(""))
        with contextlib.ExitStack() as stack:
            self.visit(tunnel, stack)
            self.refused(tunnel)
        self.assertEqual(self.results(), {"admitted": 1, "agent-full": 1})


class Agents(LimitsTest):
    def test_in_all(self):
        self.gateway("agents = 1\nlinks-per-agent = 9")
        self.echo(gateway=self.server)
        late = self.stage.agent(self.server, "-n", "other", "9")
        self.metrics.wait(
            lambda scrape: scrape.counted("diglett_logins_total", "result").get("too-many-links"), "the refusal")
        late.kill()

    def test_links(self):
        self.gateway("links-per-agent = 1")
        state = self.stage.new_directory("shared")
        agent = self.stage.agent(self.server, "-n", "example", "9", state=state)
        agent.wait_registered("example")
        self.stage.agent(self.server, "-n", "other", "9", state=state)
        self.metrics.wait(
            lambda scrape: scrape.counted("diglett_logins_total", "result").get("too-many-links"), "the refusal")
        self.assertEqual(self.metrics.scrape().value("diglett_links", protocol="2"), 1)

    def test_names(self):
        self.gateway("names-per-link = 2")
        place = (self.server.host, self.server.port)
        with v2peer.connect(place) as peer:
            _, names = peer.log_in()
            self.assertEqual(names, 2)
            for number in range(2):
                self.assertEqual(peer.register(f"name-{number}", number).code, 0)
            self.assertEqual(peer.register("name-2", 2).code, v2peer.TOO_MANY_NAMES)
        refused = self.metrics.scrape().counted("diglett_names_refused_total", "code")
        self.assertEqual(refused, {"too-many-names": 1})

    def test_many_names(self):
        self.gateway("names-per-link = 40")
        names = [word for number in range(40) for word in ("-n", f"name-{number}=9")]
        agent = self.stage.agent(self.server, *names)
        for number in range(40):
            agent.wait_registered(f"name-{number}")
        one_more = self.stage.agent(self.server, *names, "-n", "another=9")
        self.assertNotEqual(one_more.wait_exit(), 0)

    def test_many_names_keep_their_ports(self):
        """The gateway remembers as many ports of an agent as the agent can have names."""
        # Ports that no other program uses between the two links.
        first = free_port(600)
        gateway = self.gateway(
            "names-per-link = 1000\nlinks-per-agent = 1", "--expose-ports", f"{first}-{first + 599}")
        key = bytes(range(32))

        def ports():
            with v2peer.connect((gateway.host, gateway.port)) as peer:
                peer.log_in(key=key)
                for exposure in range(600):
                    peer.send_frame(v2peer.REGISTER, v2peer.register_payload(exposure, f"n{exposure}"))
                answers = [v2peer.read_registered(peer.expect(v2peer.REGISTERED).payload) for _ in range(600)]
                peer.send_frame(v2peer.GOAWAY, v2peer.goaway_payload(0))
                peer.wait_end()
            self.assertEqual({answer.code for answer in answers}, {0})
            return {answer.exposure: answer.port for answer in answers}

        self.assertEqual(ports(), ports())

    def test_registrations_over_many_links(self):
        """Reconnecting does not allow more registrations; another agent has its own budget."""
        gateway = self.gateway("names-per-link = 2\nlinks-per-agent = 1")
        key = bytes(range(32))
        codes = []
        for link in range(6):
            with v2peer.connect((gateway.host, gateway.port)) as peer:
                peer.log_in(key=key)
                codes += [peer.register(f"n{link}-{exposure}", exposure).code for exposure in range(2)]
        # Eight at once, and one more for each elapsed second.
        self.assertEqual(codes[:8], [0] * 8)
        self.assertIn(4, codes[8:])
        self.assertEqual(self.hits("registrations"), codes.count(4))
        with v2peer.connect((gateway.host, gateway.port)) as peer:
            peer.log_in()
            self.assertEqual(peer.register("another").code, 0)

    def test_penalties_of_a_trusted_network(self):
        """It gets none. Otherwise each refusal would add five seconds, and from 15 s on handshakes would wait."""
        hosts = self.stage.use(TwoHosts())
        file = configure(self.stage, f'trusted-networks = "{hosts.FAR_ADDRESS}"\n')
        gateway = self.stage.gateway("-c", file, listen=f"{hosts.NEAR_ADDRESS}:0", prefix=hosts.near)
        for _ in range(6):
            agent = self.stage.agent(gateway, "--pin", gateway.pin, "-n", "example", "9", prefix=hosts.far)
            self.assertEqual(agent.wait_exit(), 12)
        self.assertNotIn("is delayed by", gateway.output)

    def test_visitors_of_a_trusted_network(self):
        hosts, gateway = self.strict_gateway(f'trusted-networks = "{TwoHosts.FAR_ADDRESS}"')
        self.assertEqual(self.visits(hosts, hosts.far, gateway), 20)

    def test_own_address(self):
        """Limits per source do not apply to connections from the machine itself, to any of its addresses."""
        hosts, gateway = self.strict_gateway()
        self.assertEqual(self.visits(hosts, hosts.near, gateway), 20)
        self.assertLessEqual(self.visits(hosts, hosts.far, gateway), 3)

    def strict_gateway(self, head=""):
        """Two hosts, and on the near one a gateway that admits few visitors of one source."""
        hosts = self.stage.use(TwoHosts())
        file = configure(
            self.stage, f'{head}\nexpose-bind = "{hosts.NEAR_ADDRESS}"\n'
            "[limits]\nvisitors-per-source = 3\nvisitors-per-second = 1\n")
        return hosts, self.stage.gateway("-c", file, listen="127.0.0.1:0", prefix=hosts.near)

    def visits(self, hosts, place, gateway):
        """The number of visitors that are served, of 20 from `place` that stay connected."""
        # The backend runs in the agent's namespace, unlike this process.
        backend = self.stage.start("backend", [*hosts.near, sys.executable, "-c", textwrap.dedent("""
            import socket
            server = socket.create_server(("127.0.0.1", 0))
            print(server.getsockname()[1], flush=True)
            kept = []
            while True:
                kept.append(server.accept()[0])
                kept[-1].sendall(b"x")
            """)])
        port = backend.wait_line(backend.stdout, lambda line: line.isdecimal() and line, "the backend's port")
        agent = self.stage.agent(gateway, "-n", f"name-{port}", port, prefix=hosts.near)
        public = agent.wait_registered(f"name-{port}")
        outcome = subprocess.run([*place, sys.executable, "-c", textwrap.dedent("""
            import socket, sys
            kept = []
            served = 0
            for _ in range(20):
                try:
                    # A reset may come before connect(2) has returned.
                    kept.append(socket.create_connection((sys.argv[1], int(sys.argv[2])), 15))
                    served += kept[-1].recv(1) == b"x"
                except ConnectionError:
                    pass
            print(served)
            """), hosts.NEAR_ADDRESS, str(public)], timeout=60, check=True, capture_output=True, text=True)
        return int(outcome.stdout)

    def test_fresh_identities(self):
        """If agents can choose any identity, their registrations are counted by source."""
        hosts = self.stage.use(TwoHosts())
        file = configure(self.stage, "\n[limits]\nnames-per-link = 2\nlinks-per-agent = 1\n")
        gateway = self.stage.gateway(
            "--auth", "open", "-c", file, listen=f"{hosts.NEAR_ADDRESS}:0", prefix=hosts.near)
        program = (
            "import sys, v2peer\n"
            "for link in range(6):\n"
            "    with v2peer.connect((sys.argv[1], int(sys.argv[2]))) as peer:\n"
            "        peer.log_in(key=bytes([link]) * 32)\n"
            "        print(*(peer.register(f'n{link}-{number}', number).code for number in range(2)))\n")
        outcome = subprocess.run(
            [*hosts.far, sys.executable, "-c", program, gateway.host, str(gateway.port)], timeout=60, check=True,
            capture_output=True, text=True, env={"PYTHONPATH": str(Path(__file__).parent)})
        codes = [int(code) for code in outcome.stdout.split()]
        self.assertEqual((len(codes), codes[:8]), (12, [0] * 8))
        # One more for each elapsed second.
        self.assertIn(4, codes[8:])

    def test_handshake(self):
        self.gateway('handshake-timeout = "1s"')
        began = time.monotonic()
        with socket.create_connection((self.server.host, self.server.port), 15) as silent:
            self.assertEqual(read_all(silent), b"")
        self.assertTrue(0.9 < time.monotonic() - began < 8)
        self.assertEqual(self.hits("handshake-timeout"), 1)
        self.assertEqual(self.hits("login-timeout"), 0)

    def test_login(self):
        self.gateway('handshake-timeout = "1s"\nlogin-timeout = "2s"')
        began = time.monotonic()
        with v2peer.connect((self.server.host, self.server.port)) as silent:
            silent.wait_end()
        self.assertTrue(1.9 < time.monotonic() - began < 9)
        self.metrics.wait(
            lambda scrape: scrape.value("diglett_limit_hits_total", limit="login-timeout") == 1, "the count")
        self.assertEqual(self.hits("handshake-timeout"), 0)

    def test_logins_that_wait_keep_nobody_out(self):
        """With more logins than agents and unauthenticated connections are allowed, another source can still log in."""
        hook = Hook(self.stage, 'time.sleep(1)\nanswer(ok=request["peer"]["host"] == "127.0.2.1", identity="late")')
        self.gateway("agents = 2", head=authenticator([hook.path]))
        address = (self.server.host, self.server.port)
        with contextlib.ExitStack() as stack:
            for number in range(300):
                waiting = stack.enter_context(v2peer.connect(address, source=f"127.0.1.{1 + number // 60}"))
                waiting.send_login()
            # Their memory counts until they are gone.
            self.assertGreater(self.metrics.scrape().value("diglett_granted_bytes"), 250 * 4_096)
            stack.enter_context(v2peer.connect(address, source="127.0.2.1")).log_in()
        self.metrics.wait(lambda scrape: scrape.value("diglett_granted_bytes") == 0, "nothing to be held")
        self.assertEqual(self.metrics.scrape().counted("diglett_agent_connections_total", "result").get("no-room"), None)


class Times(LimitsTest):
    def test_stall(self):
        """The agent ends the stream of a backend that does not read, and the gateway that of such a visitor."""
        file = self.stage.new_directory("agent-etc") / "agent.toml"
        file.write_text('stall-timeout = "1s"\n')
        backend = self.stage.use(Listener(serve_never_reads)).address
        tunnel = self.stage.expose(backend, "-c", file, gateway=self.gateway('stall-timeout = "1s"'))
        with tunnel.connect() as visitor, self.assertRaises(ConnectionError):
            while visitor.send(bytes(1 << 16)):
                pass
        after = self.metrics.wait(lambda scrape: scrape.value("diglett_streams") == 0, "the stream to end")
        self.assertEqual(after.counted("diglett_streams_closed_total", "side", "reason"), {("agent", "stalled"): 1})

        flood = self.stage.use(Listener(send_without_end)).address
        other = self.stage.expose(flood, gateway=self.server, name="flood")
        with other.connect():
            self.metrics.wait(
                lambda scrape: scrape.value("diglett_limit_hits_total", limit="stall-timeout") == 1, "the end")

    def test_half_close(self):
        def silent_after_end(connection):
            read_all(connection)
            time.sleep(30)

        backend = self.stage.use(Listener(silent_after_end)).address
        tunnel = self.stage.expose(backend, gateway=self.gateway('half-close-timeout = "1s"'))
        with tunnel.connect() as visitor:
            visitor.sendall(b"x")
            visitor.shutdown(socket.SHUT_WR)
            with self.assertRaises(ConnectionResetError):
                read_all(visitor)
        self.assertEqual(self.hits("half-close-timeout"), 1)

    def test_never_by_default(self):
        backend = self.stage.use(Listener(answering_after_end(b"answer"))).address
        tunnel = self.stage.expose(backend, gateway=self.gateway(""))
        with tunnel.connect() as visitor:
            time.sleep(3)
            visitor.shutdown(socket.SHUT_WR)
            self.assertIn(b"answer", read_all(visitor))


class Memory(LimitsTest):
    def test_of_the_process(self):
        self.gateway('memory = "16M"')
        scrape = self.metrics.scrape()
        self.assertEqual(scrape.value("diglett_granted_limit_bytes"), 16 << 20)
        self.assertEqual(scrape.value("diglett_limit", of="visitors"), 230)
        self.server.wait_log(r"limited by \d+ file descriptors and \d+ MiB of memory: .* 230 visitors at once, 16 MiB")

    def test_makes_streams_smaller(self):
        backend = self.stage.use(Listener(serve_echo)).address
        tunnel = self.stage.expose(backend, gateway=self.gateway('memory = "16M"'))
        with contextlib.ExitStack() as stack:
            for _ in range(80):
                self.visit(tunnel, stack)
            self.metrics.wait(
                lambda scrape: scrape.value("diglett_limit_hits_total", limit="reduced-window") > 0, "smaller windows")
            # More than a quarter of 230 visitors are connected; the gateway checks this once a second.
            wait_until(
                lambda: self.visit(tunnel, stack) and self.hits("small-buffers") > 0, "smaller buffers", interval=0.3)

    def test_ends_stalled_streams(self):
        """When memory is exhausted, streams that their agent never reads are ended."""
        self.gateway('memory = "16M"')
        with contextlib.ExitStack() as stack:
            peer = stack.enter_context(v2peer.connect((self.server.host, self.server.port)))
            peer.log_in()
            port = peer.register("example").port
            visitors = []
            for _ in range(220):
                visitors.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), 15)))
                stream = peer.expect(v2peer.OPEN).stream
                peer.send_frame(v2peer.ACCEPT, v2peer.u64(1 << 20), stream=stream)
            # The agent accepts them but reads nothing: bytes that the kernel does not buffer stay in the gateway.
            for visitor in visitors:
                visitor.sendall(bytes(1 << 17))
            self.metrics.wait(
                lambda scrape: scrape.value("diglett_limit_hits_total", limit="memory") > 0, "ended streams")
        self.server.wait_log(r"memory is short: \d+ stalled streams? ended, the longest-stalled first")


def send_without_end(connection):
    with contextlib.suppress(ConnectionError):
        while True:
            connection.sendall(bytes(1 << 16))


class Counters(LimitsTest):
    """Limits without a key are counted, too."""

    def wait_hits(self, limit, least=1):
        self.metrics.wait(
            lambda scrape: scrape.value("diglett_limit_hits_total", limit=limit) >= least, f"the count of {limit}")

    def peer(self, stack):
        """An agent with a login and a name, and the name's public port."""
        peer = stack.enter_context(v2peer.connect((self.server.host, self.server.port)))
        peer.log_in()
        return peer, peer.register("example").port

    def test_strangers(self):
        self.gateway("")
        with contextlib.ExitStack() as stack:
            for _ in range(18):
                stack.enter_context(socket.create_connection((self.server.host, self.server.port), 15))
            self.wait_hits("strangers-per-source", 2)
            self.assertEqual(self.metrics.scrape().value("diglett_strangers"), 16)
            self.assertEqual(self.hits("strangers"), 0)

    def test_client_hello(self):
        self.gateway("")
        with socket.create_connection((self.server.host, self.server.port), 15) as client:
            # The header of a handshake record, and that of a ClientHello of 16 KiB + 1 byte, including its header.
            client.sendall(bytes([22, 3, 1, 0x40, 0, 1, 0, 0x3F, 0xFD]))
            with contextlib.suppress(ConnectionError):
                read_all(client)
        self.wait_hits("client-hello")

    def test_certificates(self):
        self.gateway("")
        key, certificate = self.stage.directory / "agent.key", self.stage.directory / "agent.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/CN=agent", "-keyout", key, "-out", certificate], check=True, capture_output=True, timeout=60)
        chain = self.stage.directory / "chain.pem"
        # Each certificate has about 400 bytes.
        chain.write_text(key.read_text() + certificate.read_text() * 60)
        with self.assertRaises(v2peer.Closed):
            with v2peer.connect((self.server.host, self.server.port), certificate=chain) as peer:
                peer.log_in()
        self.wait_hits("certificate-chain")

    def test_glitches(self):
        self.gateway("")
        with contextlib.ExitStack() as stack:
            peer, _ = self.peer(stack)
            for number in range(40):
                peer.send_frame(v2peer.PING, v2peer.u64(number))
            # The first four PINGs of a link are free.
            self.wait_hits("glitches", 30)
            self.assertTrue(peer.is_alive())

    def test_pending_opens(self):
        self.gateway("")
        with contextlib.ExitStack() as stack:
            _, port = self.peer(stack)
            for _ in range(140):
                stack.enter_context(socket.create_connection(("127.0.0.1", port), 15))
            self.wait_hits("pending-opens")
            # Half of the 256 pending opens are reserved for other names.
            self.assertEqual(self.metrics.scrape().value("diglett_streams"), 128)

    def test_pending_opens_are_not_other_waits(self):
        """While the agent does not read its control frames, visitors wait too, but because of another limit."""
        self.gateway("names-per-link = 1000")
        with contextlib.ExitStack() as stack:
            peer, port = self.peer(stack)
            upload = stack.enter_context(socket.create_connection(("127.0.0.1", port), 15))
            stream = peer.expect(v2peer.OPEN).stream
            peer.send_frame(v2peer.ACCEPT, v2peer.u64(1 << 30), stream=stream)
            upload.setblocking(False)

            def is_congested():
                with contextlib.suppress(BlockingIOError):
                    while upload.send(bytes(1 << 16)):
                        pass
                return self.metrics.scrape().value("diglett_congested_links") == 1 and self.hits("send-queue") > 0

            wait_until(is_congested, "the link to take nothing more")
            # 48 KB of answers, 121 bytes each. From 32 KiB on the link opens no streams, at 64 KiB it would end.
            answers = 850
            for number in range(1, answers + 1):
                peer.send_frame(v2peer.REGISTER, v2peer.register_payload(number, b"!"))
            before = self.metrics.wait(
                lambda scrape: scrape.counted("diglett_names_refused_total", "code").get("name-invalid") == answers,
                "the answers").value("process_open_fds")
            stack.enter_context(socket.create_connection(("127.0.0.1", port), 15))
            self.metrics.wait(lambda scrape: scrape.value("process_open_fds") == before + 1, "the visitor to be accepted")
            self.assertEqual(self.metrics.scrape().value("diglett_streams"), 1, "it waits")
            self.assertEqual(self.hits("pending-opens"), 0)

    def test_reset_wait(self):
        self.gateway("")
        with contextlib.ExitStack() as stack:
            peer, port = self.peer(stack)
            visitor = stack.enter_context(socket.socket())
            visitor.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            visitor.connect(("127.0.0.1", port))
            stream = peer.expect(v2peer.OPEN).stream
            peer.send_frame(v2peer.ACCEPT, v2peer.u64(65_536), stream=stream)
            for _ in range(15):
                peer.send_frame(v2peer.DATA, bytes(v2peer.MAXIMUM_PAYLOAD), stream=stream)
            peer.send_frame(v2peer.RESET, v2peer.u16(v2peer.ABORTED), stream=stream)
            began = time.monotonic()
            self.assertEqual(self.hits("reset-wait"), 0)
            self.wait_hits("reset-wait")
            self.assertGreater(time.monotonic() - began, 9)

    def test_send_queue(self):
        backend = self.stage.use(Listener(serve_never_reads)).address
        tunnel = self.stage.expose(backend, gateway=self.gateway(""))
        with tunnel.connect() as visitor:
            visitor.setblocking(False)

            def full():
                with contextlib.suppress(BlockingIOError):
                    while visitor.send(bytes(1 << 16)):
                        pass
                return self.hits("send-queue") > 0

            wait_until(full, "a full queue")

    def test_slow_visitor_of_version_1(self):
        gateway = own_gateway(self.stage, "--metrics", "127.0.0.1:0")
        self.metrics = Metrics(gateway)
        backend = self.stage.use(Listener(send_without_end)).address
        own_agent(self.stage, gateway.address_v1, backend).wait_event("registered")
        with socket.create_connection(("127.0.0.1", gateway.wait_registered("example")), 15) as visitor:
            visitor.sendall(b"x")
            self.wait_hits("v1-slow-stream-hold")
            self.wait_hits("v1-slow-stream")

    def test_visitor_of_version_1_whose_answer_ends(self):
        gateway = own_gateway(self.stage, "--metrics", "127.0.0.1:0")
        self.metrics = Metrics(gateway)
        backend = self.stage.use(Listener(serve_echo)).address
        own_agent(self.stage, gateway.address_v1, backend).wait_event("registered")
        with socket.create_connection(("127.0.0.1", gateway.wait_registered("example")), 15) as visitor:
            visitor.sendall(b"x")
            read_exactly(visitor, 1)
            visitor.shutdown(socket.SHUT_WR)
            self.wait_hits("v1-close-wait")


class Check(LimitsTest):
    def check_file(self, limits):
        return run(self.stage, "diglett-server", "check", configure(self.stage, f"[limits]\n{limits}\n"))

    def test_what_cannot_work(self):
        for line, reason in (
                ("visitors = 0", "'visitors' must be from 1 to 1048576, not 0"),
                ("streams-per-link = 65536", "'streams-per-link' must be from 1 to 65535, not 65536"),
                ('memory = "1M"', "'memory' must be a size from 16M to 64T"),
                ('login-timeout = "1s"', "must not be shorter than 'handshake-timeout'"),
                ('stall-timeout = "1"', "'stall-timeout' must be"),
                ("visitor = 1", "unknown key 'visitor'; did you mean 'visitors'")):
            result = self.check_file(line)
            self.assertEqual(result.returncode, 78, line)
            self.assertRegex(result.stderr, rf"gateway\.toml:2: .*{reason}")

    def test_what_is_lowered(self):
        result = self.check_file("visitors = 1048576")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stdout, r"limits: in this environment limited by \d+ file descriptors")
        self.assertNotIn("limits:", self.check_file("visitors = 5").stdout)

    def test_defaults_that_are_lowered(self):
        """A start with these defaults logs a warning, so `check` reports them too."""
        result = subprocess.run(
            ["prlimit", "--nofile=1024:1024", program_path("diglett-server"), "check", configure(self.stage, "")],
            env=self.stage.environment(), cwd=self.stage.directory, capture_output=True, text=True, timeout=30, check=False)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("limits: in this environment limited by 1024 file descriptors", result.stdout)
