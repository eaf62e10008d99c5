"""Agents that share an address with misbehaving peers, agents behind proxies, and answers to refused connections."""

import contextlib
import json
import socket
import ssl
import struct
import textwrap
import threading

import header_proxy
import prometheus
import v2peer
from administration import AgentsFile, ctl
from harness import EndToEndTest, Failure, wait_until
from hooks import configure
from namespaces import TwoHosts
from realservers import haproxy_as_proxy
from version1 import own_gateway, peer_agent

BACKEND = "127.0.0.1:9"


def line(address):
    return f"PROXY TCP4 {address} 203.0.113.7 4711 443\r\n"


def hello():
    """A ClientHello."""
    outgoing = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([v2peer.ALPN])
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    return outgoing.read()


class SharedAddress(EndToEndTest):
    """Honest agents can always connect from an address that they share (an office, a balancer that hides addresses)."""

    def setUp(self):
        super().setUp()
        self.hosts = self.stage.use(TwoHosts())
        state = self.stage.new_directory("gateway-state")
        self.token = AgentsFile(self.stage, state=state).add("good", "--names", "good").token
        self.gateway = self.stage.gateway(
            "--expose-bind", self.hosts.NEAR_ADDRESS, listen=f"{self.hosts.NEAR_ADDRESS}:0", state=state,
            prefix=self.hosts.near)
        self.gateway.wait_log("listening for agents")

    def agent(self, token, name="good"):
        return self.stage.agent(
            self.gateway, "--pin", self.gateway.pin, "-t", token, "-n", name, BACKEND, prefix=self.hosts.far)

    def refuse_logins(self, count):
        """Causes `count` refused logins with different wrong tokens."""
        agents = [self.agent(f"dgl_b{number}_{'x' * 43}") for number in range(count)]
        for agent in agents:
            self.assertEqual(agent.wait_exit(), 11)

    def run_far(self, code, *arguments):
        """Runs Python code on the agents' host, with the gateway's address in `gateway`; returns the printed lines."""
        program = self.stage.start(
            "peers", [*self.hosts.far, "/usr/bin/python3", "-c",
                      "import select, socket, sys\n"
                      "gateway = sys.argv[1], int(sys.argv[2])\n" + textwrap.dedent(code),
                      self.gateway.host, self.gateway.port, *arguments])
        self.assertEqual(program.wait_exit(), 0)
        return program.stdout

    def test_revoked_tokens(self):
        self.refuse_logins(12)
        good = self.agent(self.token)
        good.wait_registered("good")
        good.wait_log("accepted the connection but has not answered yet; still waiting")
        self.gateway.wait_log("the handshake of .* is delayed by 3 s")
        # Handshakes are still delayed: a successful login does not clear the penalty.
        before = len(self.gateway.stderr)
        again = self.agent(self.token)
        again.wait_registered("good")
        self.gateway.wait_log("the handshake of .* is delayed by 3 s", since=before)

    def test_probes(self):
        """A monitor and a load balancer probe the port repeatedly."""
        self.run_far("""
            for number in range(40):
                with socket.create_connection(gateway, 10) as probe:
                    if number % 2:
                        probe.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
                        try:
                            probe.recv(10)
                        except ConnectionError:
                            pass
            """)
        good = self.agent(self.token)
        good.wait_registered("good")
        good.wait_log("has not answered yet; still waiting")

    def test_room_for_newcomers(self):
        """Silent connections make room for others. Those delayed by a penalty do not, and one more gets an alert."""
        self.refuse_logins(4)
        lines = self.run_far("""
            hello = bytes.fromhex(sys.argv[3])
            def dial(text):
                end = socket.create_connection(gateway, 10)
                end.sendall(text)
                return end
            silent = [dial(b"") for _ in range(16)]
            waiting = []
            alerts = set()
            for _ in range(500):
                waiting.append(dial(hello))
                for end in select.select(waiting, [], [], 0.02)[0]:
                    waiting.remove(end)
                    answer = end.recv(100)
                    if answer[:1] == b"\\x15":
                        alerts.add(answer.hex())
                if alerts:
                    break
            print([end.recv(1) for end in silent].count(b""))
            print(*alerts)
            """, hello().hex())
        # RFC 8446, 5.1 and 6: alert, version, length, fatal, internal_error.
        self.assertEqual(lines, ["16", "15030300020250"])


class Waits(EndToEndTest):
    """Handshakes that wait because of a penalty, of a source in a trusted proxy's headers."""

    def gateway(self, options=""):
        """Starts a gateway at which 192.0.2.9 has a penalty."""
        socket_path = self.stage.directory / "metrics.sock"
        gateway = self.stage.gateway("-c", configure(
            self.stage, f'accept-proxy-protocol = "127.0.0.1"\nmetrics = "unix:{socket_path}"\n{options}'))
        self.metrics = prometheus.Metrics(gateway)
        for _ in range(3):
            with socket.create_connection((gateway.host, gateway.port), 15) as end:
                end.sendall((line("192.0.2.9") + "GET").encode())
                with contextlib.suppress(ConnectionError):
                    self.assertEqual(end.recv(1), b"")
        return gateway

    def wait(self, gateway, count):
        """Opens `count` connections, and waits until their handshakes wait."""
        before, ends = self.waits(), []
        for _ in range(count):
            end = self.stage.use(socket.create_connection((gateway.host, gateway.port), 15))
            end.sendall(line("192.0.2.9").encode() + hello())
            ends.append(end)
        wait_until(lambda: self.waits() >= before + count, "handshakes that wait")
        return ends

    def waits(self):
        return self.metrics.scrape().value("diglett_limit_hits_total", limit="penalty-wait")

    def strangers(self):
        return self.metrics.scrape().value("diglett_strangers")

    def test_all_are_answered(self):
        gateway = self.gateway()
        for end in self.wait(gateway, 16):
            # A ServerHello.
            self.assertEqual(end.recv(1), b"\x16")

    def test_peers_that_leave(self):
        """Connections that close free their places before the end of the wait."""
        gateway = self.gateway()
        for _ in range(3):
            ends = self.wait(gateway, 8)
            for end in ends[:4]:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            for end in ends:
                end.close()
            # The wait takes 3 s. Retry, because a busy machine may notice too late.
            with contextlib.suppress(Failure):
                return wait_until(lambda: self.strangers() == 0, "free places", timeout=2)
            wait_until(lambda: self.strangers() == 0, "the end of the waits")
        self.fail("they keep their places")

    def test_more_than_a_greeting(self):
        gateway = self.gateway()
        end, = self.wait(gateway, 1)
        with contextlib.suppress(ConnectionError):
            end.sendall(b"x" * 20_000)
            self.assertEqual(end.recv(1), b"")
        gateway.wait_log("more than 16384 bytes before the gateway's first answer")

    def test_the_end_of_the_gateway(self):
        gateway = self.gateway()
        self.wait(gateway, 8)
        self.assertEqual(gateway.stop(timeout=2), 0)

    def test_a_ban(self):
        gateway = self.gateway()
        ends = self.wait(gateway, 4)
        ctl(self.stage, gateway, "ban", "192.0.2.9")
        for end in ends:
            with contextlib.suppress(ConnectionError):
                self.assertEqual(end.recv(1), b"")

    def test_a_short_handshake_timeout(self):
        """The wait does not count towards the handshake timeout."""
        gateway = self.gateway("[limits]\nhandshake-timeout = \"1s\"\n")
        for end in self.wait(gateway, 4):
            self.assertEqual(end.recv(1), b"\x16")


class Refused(EndToEndTest):
    """The answers to refused connections, and how agents report them."""

    def setUp(self):
        super().setUp()
        self.gateway = self.stage.gateway()

    def ctl(self, *arguments):
        result = ctl(self.stage, self.gateway, *arguments)
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_banned(self):
        self.ctl("ban", "127.0.0.1")
        agent = self.stage.agent(self.gateway, "-n", "example", BACKEND)
        agent.wait_log("no link to the gateway .*: it answered 'access denied': .*ctl unban.*; retrying in")
        self.ctl("unban", "127.0.0.1")
        agent.wait_registered()

    def test_banned_once(self):
        self.ctl("ban", "127.0.0.1")
        agent = self.stage.agent(self.gateway, "--once", "-n", "example", BACKEND)
        self.assertEqual(agent.wait_exit(), 69)
        self.assertIn("it answered 'access denied'", agent.output)

    def test_the_alert(self):
        """A client can read the alert, whatever it has sent; the gateway does not wait for clients that do not read."""
        quiet = self.gateway.descriptors()
        self.ctl("ban", "127.0.0.1")
        host, _, port = self.gateway.address.rpartition(":")
        with contextlib.ExitStack() as stack:
            def dial():
                return stack.enter_context(socket.create_connection((host, int(port)), 15))

            crowd, answers = [], []
            for _ in range(100):
                with contextlib.suppress(ConnectionError):
                    crowd.append(dial())
                    crowd[-1].sendall(b"x" * 100_000)
                    answers.append(crowd[-1].recv(100))
            # The alert is access_denied (RFC 8446, 6.2). Further connections are reset.
            self.assertEqual(set(answers), {bytes.fromhex("15030300020231")})
            self.assertGreaterEqual(len(answers), 64)
            # The connections are still open at this end.
            wait_until(lambda: self.gateway.descriptors() <= quiet, "the gateway to close them")
            with self.assertRaises(v2peer.Closed):
                v2peer.connect((host, int(port)))
        self.ctl("unban", "127.0.0.1")
        with v2peer.connect((host, int(port))):
            pass

    def test_no_gateway_there(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            def close_at_once():
                with contextlib.suppress(OSError):
                    while True:
                        server.accept()[0].close()

            threading.Thread(target=close_at_once, daemon=True).start()
            agent = self.stage.agent(f"127.0.0.1:{server.getsockname()[1]}", "-n", "example", BACKEND)
            agent.wait_log("before the TLS handshake: check that a diglett gateway listens on that port")
            server.shutdown(socket.SHUT_RDWR)


class ThroughProxies(EndToEndTest):
    """PROXY headers before the handshake of agents."""

    def agents(self, gateway):
        report = ctl(self.stage, gateway, "agents", "--output", "json").stdout
        return [agent["peer"] for agent in json.loads(report)]

    def test_haproxy(self):
        """Agents connect through haproxy; without the setting headers have no effect. Health checks are not logged."""
        for options, named in ((), "127.0.0.8"), (("--accept-proxy-protocol", "127.0.0.8"), "127.0.0.1"):
            gateway = self.stage.gateway(*options)
            for option, peer in (("", "127.0.0.8"), ("send-proxy", named), ("send-proxy-v2 check-send-proxy", named)):
                with self.subTest(option, options=options):
                    proxy = haproxy_as_proxy(
                        self.stage, gateway.address, f"source 127.0.0.8 check inter 100 {option}")
                    agent = self.stage.agent(f"127.0.0.1:{proxy.port}", "-n", "example", BACKEND)
                    agent.wait_registered()
                    self.assertEqual(self.agents(gateway)[0].partition(":")[0], peer)
                    before = len(gateway.stderr)
                    agent.stop()
                    gateway.wait_log("link of agent .* ended", since=before)
            self.assertNotIn("no login from", gateway.output)

    def test_trusted(self):
        """The log, bans and limits use the address in a trusted proxy's header."""
        gateway = self.stage.gateway("--accept-proxy-protocol", "127.0.0.8", "--auth", "open")
        proxy = header_proxy.start(self.stage, gateway, line("192.0.2.9"), "127.0.0.8")
        agent = self.stage.agent(proxy, "-n", "example", BACKEND)
        agent.wait_registered()
        self.assertEqual(self.agents(gateway), ["192.0.2.9:4711"])
        gateway.wait_log(r"agent .* at 192\.0\.2\.9:4711 logged in")
        before = len(agent.stderr)
        self.assertEqual(ctl(self.stage, gateway, "ban", "192.0.2.9").returncode, 0)
        agent.wait_log("it answered 'access denied'", since=before)
        # Other sources can use the same proxy until the proxy itself is banned.
        proxy = header_proxy.start(self.stage, gateway, line("192.0.2.10"), "127.0.0.8")
        other = self.stage.agent(proxy, "-n", "other", BACKEND)
        other.wait_registered("other")
        result = ctl(self.stage, gateway, "ban", "127.0.0.8")
        self.assertIn("1 link", result.stdout)
        self.assertEqual(self.agents(gateway), [])

    def test_penalties_by_header(self):
        """Penalties apply to the address in the header, not to the proxy."""
        state = self.stage.new_directory("gateway-state")
        token = AgentsFile(self.stage, state=state).add("good", "--names", "example").token
        gateway = self.stage.gateway("--accept-proxy-protocol", "127.0.0.8", state=state)
        bad = header_proxy.start(self.stage, gateway, line("192.0.2.9"), "127.0.0.8")
        good = header_proxy.start(self.stage, gateway, line("192.0.2.10"), "127.0.0.8")
        for number in range(4):
            agent = self.stage.agent(bad, "-t", f"dgl_b{number}_{'x' * 43}", "-n", "example", BACKEND)
            self.assertEqual(agent.wait_exit(), 11)
        report = ctl(self.stage, gateway, "penalties", "--output", "json")
        self.assertEqual([bar["network"] for bar in json.loads(report.stdout)], ["192.0.2.9"])
        self.stage.agent(good, "-t", token, "-n", "example", BACKEND).wait_registered()
        self.assertNotIn("the handshake of 192.0.2.10", gateway.output)

    def test_untrusted_of_this_machine(self):
        """An untrusted header can only remove rights: this gateway accepts only agents on its own machine."""
        gateway = self.stage.gateway()
        for header, exit_code in ((line("192.0.2.9"), 12), (line("127.0.0.5"), None), ("PROXY UNKNOWN\r\n", None)):
            with self.subTest(header):
                proxy = header_proxy.start(self.stage, gateway, header)
                agent = self.stage.agent(proxy, "-n", "example", BACKEND)
                if exit_code:
                    self.assertEqual(agent.wait_exit(), exit_code)
                else:
                    agent.wait_registered()
                    agent.stop()
        # An untrusted header must not put another source's address in the log.
        self.assertNotIn("192.0.2.9", gateway.output)

    def test_trusted_networks_on_this_machine(self):
        """Trusted networks have no limits per source, but their headers are as untrusted as others of this machine."""
        gateway = self.stage.gateway("-c", configure(self.stage, 'trusted-networks = "127.0.0.0/8"\n'))
        proxy = header_proxy.start(self.stage, gateway, line("127.0.0.5"))
        self.stage.agent(proxy, "-n", "example", BACKEND).wait_registered()
        self.assertNotIn("127.0.0.5", gateway.output)

    def test_loopback_in_the_header_of_another_machine(self):
        hosts = self.stage.use(TwoHosts())
        gateway = self.stage.gateway(
            "--accept-proxy-protocol", hosts.FAR_ADDRESS, listen=f"{hosts.NEAR_ADDRESS}:0", prefix=hosts.near)
        proxy = header_proxy.start(self.stage, gateway, line("127.0.0.1"), hosts.FAR_ADDRESS, prefix=hosts.far)
        agent = self.stage.agent(proxy, "--pin", gateway.pin, "-n", "example", BACKEND, prefix=hosts.far)
        self.assertEqual(agent.wait_exit(), 12)

    def test_stranger(self):
        hosts = self.stage.use(TwoHosts())
        gateway = self.stage.gateway("--auth", "open", listen=f"{hosts.NEAR_ADDRESS}:0", prefix=hosts.near)
        proxy = header_proxy.start(self.stage, gateway, line("192.0.2.9"), hosts.FAR_ADDRESS, prefix=hosts.far)
        agent = self.stage.agent(proxy, "--pin", gateway.pin, "-n", "example", BACKEND, prefix=hosts.far)
        gateway.wait_log("PROXY header from an address that is not in accept-proxy-protocol")
        agent.wait_log("no link to the gateway")

    def test_version1(self):
        """The header precedes the handshake."""
        gateway = own_gateway(self.stage, "--accept-proxy-protocol", "127.0.0.8")
        proxy = header_proxy.start(self.stage, gateway.address_v1, line("192.0.2.9"), "127.0.0.8")
        peer_agent(self.stage, proxy, BACKEND, ready=False)
        gateway.wait_log(r"login from 192\.0\.2\.9:4711 refused")

    def test_broken_headers(self):
        gateway = self.stage.gateway("--accept-proxy-protocol", "127.0.0.1")
        for text, words in (
                (b"PROXY TCP4 x\r\n", "the PROXY line does not have two addresses"), (b"POST / HTTP/1.1\r\n", "first byte is 0x50"),
                (b"PROXY " + b"x" * 200, "longer than 107 bytes"),
                ((line("192.0.2.9") * 2).encode(), "first byte is 0x50")):
            with self.subTest(text), socket.create_connection((gateway.host, gateway.port), 15) as end:
                since = len(gateway.stderr)
                end.sendall(text)
                gateway.wait_log(words, since=since)
                with contextlib.suppress(ConnectionError):
                    self.assertEqual(end.recv(100), b"")
