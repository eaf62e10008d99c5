"""Agents and unauthenticated connections that cause as much load as they can; others must not be affected."""

import contextlib
import socket
import subprocess
import time

import rawtls
import v2peer
from administration import AgentsFile, pin_of
from harness import EndToEndTest, allow_descriptors
from hostile import NeighbourTest, client_hello, start_pages, start_peer
from prometheus import Metrics

# This module measures, so no other module runs at the same time (integration-test -j).
ALONE = True

# A gateway that limits key updates ends the link long before this number.
MOST_KEY_UPDATES = 5_000


def setUpModule():
    allow_descriptors(4_096)


class WorkInATurn(NeighbourTest):
    """The gateway handles the bytes of one peer in small portions, so that other peers get their turn."""

    def setUp(self):
        super().setUp()
        self.start_neighbour("--metrics", "127.0.0.1:0")

    def start_agents(self, count, mode):
        """Starts hostile agents, each with one visitor that reads everything."""
        agents = [start_peer(self.stage, "agent", self.gateway.address, f"hostile-{number}", mode)
                  for number in range(count)]
        for port in [agent.wait_ready() for agent in agents]:
            start_peer(self.stage, "reader", port).wait_ready()

    def test_tiny_frames_of_one_agent(self):
        self.measure_quiet()
        self.start_agents(1, "tiny-frames")
        self.check_neighbour("one agent")

    def test_tiny_frames_of_four_agents(self):
        self.measure_quiet()
        self.start_agents(4, "tiny-frames")
        self.check_neighbour("four agents")

    def test_tiny_records(self):
        self.measure_quiet()
        self.start_agents(1, "tiny-records")
        self.check_neighbour("tiny records")

    def test_handshakes(self):
        """500 simultaneous handshakes, continuously."""
        self.measure_quiet()
        start_peer(self.stage, "handshakes", self.gateway.address, 500).wait_ready()
        self.check_neighbour("500 handshakes at once")
        self.assertGreater(Metrics(self.gateway).scrape().value("diglett_limit_hits_total", limit="handshake-reads"), 0)

    def test_key_updates(self):
        """The attacker reconnects immediately when the gateway ends its link."""
        self.measure_quiet()
        start_peer(self.stage, "key-updates", self.gateway.address).wait_ready()
        self.check_neighbour("key updates")


class KeyUpdates(EndToEndTest):
    """RFC 8446, 4.6.3. Each key update costs the gateway a key derivation, and an answer if it requests one."""

    def setUp(self):
        super().setUp()
        self.gateway = self.stage.gateway()

    def dial(self):
        return rawtls.connect((self.gateway.host, self.gateway.port))

    def flood(self, tls, requests_answer):
        """Sends key updates; returns the number sent before the link ended."""
        for count in range(MOST_KEY_UPDATES):
            try:
                tls.update_key(requests_answer)
            except ConnectionError:
                return count
        return MOST_KEY_UPDATES

    def check_flood_after_login(self, requests_answer):
        agent = self.stage.use(v2peer.Peer(self.dial()))
        agent.log_in()
        self.assertEqual(agent.register("example").code, 0)
        count = self.flood(agent.tls, requests_answer)
        self.note(f"{count} key updates")
        # When the connection ends, the peer may have sent more than the gateway has read, but not this many.
        self.assertLess(count, MOST_KEY_UPDATES)
        self.gateway.wait_unregistered("example")

    def test_flood_after_login(self):
        self.check_flood_after_login(requests_answer=False)

    def test_flood_that_requests_answers(self):
        self.check_flood_after_login(requests_answer=True)

    def test_one_is_harmless(self):
        """One key update a second is allowed, the first a second after the login."""
        agent = self.stage.use(v2peer.Peer(self.dial()))
        agent.log_in()
        # The test depends on elapsed time; the gateway checks its clock once a second.
        time.sleep(2.5)
        agent.tls.update_key(requests_answer=True)
        self.assertEqual(agent.register("example").code, 0)

    def test_none_before_the_login(self):
        peer = self.stage.use(v2peer.Peer(self.dial()))
        with contextlib.suppress(ConnectionError, v2peer.Closed):
            peer.tls.update_key()
            peer.log_in()
            self.fail("a login after a key update is accepted")

    def test_flood_before_the_login(self):
        with contextlib.closing(self.dial()) as tls:
            self.assertLess(self.flood(tls, requests_answer=True), MOST_KEY_UPDATES)


class ClientCertificates(EndToEndTest):
    """Only the pin of a client certificate counts; its other contents must be harmless."""

    def setUp(self):
        super().setUp()
        self.gateway = self.stage.gateway()
        self.keys = self.stage.new_directory("keys")

    def certificate(self, *options):
        pem = self.keys / f"{len(list(self.keys.iterdir()))}.pem"
        made = subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/CN=agent", "-keyout", "-", "-out", "-", *options], check=True, capture_output=True, timeout=60)
        pem.write_bytes(made.stdout)
        return pem

    def log_in(self, certificate, damage=None):
        tls = rawtls.connect((self.gateway.host, self.gateway.port), certificate, damage)
        peer = self.stage.use(v2peer.Peer(tls))
        return peer.log_in(method=v2peer.CERTIFICATE)

    def check_refused(self, certificate, damage=None):
        with self.assertRaises((ConnectionError, v2peer.Closed)):
            self.log_in(certificate, damage)
        self.check_unharmed()

    def check_unharmed(self):
        agent = self.stage.agent(self.gateway, "-n", "honest", start_pages(self.stage))
        agent.wait_registered("honest")
        self.assertTrue(self.gateway.running)

    def test_oversized_certificate(self):
        comment = self.keys / "openssl.cnf"
        comment.write_text("[req]\ndistinguished_name = dn\nx509_extensions = odd\n[dn]\n"
                           f"[odd]\n1.2.3.4 = DER:{'00' * 20_000}\n")
        self.check_refused(self.certificate("-config", comment))

    def test_oversized_chain(self):
        pem = self.certificate()
        with open(pem, "ab") as file:
            for _ in range(50):
                file.write(self.certificate().read_bytes())
        self.check_refused(pem)

    def test_malformed_time(self):
        self.check_refused(self.certificate(), rawtls.break_time)

    def test_malformed_key(self):
        self.check_refused(self.certificate(), rawtls.break_key)

    def check_known_by_pin(self, pem, damage=None):
        """Checks that a gateway with an agents file accepts the certificate by its pin."""
        public = subprocess.run(["openssl", "pkey", "-in", pem, "-pubout", "-outform", "DER"],
                                check=True, capture_output=True, timeout=30).stdout
        agents = AgentsFile(self.stage, self.gateway)
        name = f"odd-{pem.stem}"
        agents.add(name, "--names", name, "--pin", pin_of(public))
        agents.read_now()
        self.log_in(pem, damage)

    def test_odd_extensions(self):
        """The gateway ignores extensions, even if they forbid the certificate's use, or are unknown and critical."""
        odd = {
            "basicConstraints": "critical,CA:false", "keyUsage": "critical,cRLSign", "1.2.3.4": "critical,DER:00",
            "nameConstraints": "critical,permitted;email:xn--a.example", "subjectAltName": "DNS:*.*.example",
            "extendedKeyUsage": "critical,timeStamping",
        }
        for name, value in odd.items():
            with self.subTest(name):
                self.check_known_by_pin(self.certificate("-addext", f"{name}={value}"))

    def test_malformed_extensions(self):
        self.check_known_by_pin(self.certificate(), rawtls.break_extensions)

    def test_expired(self):
        self.check_known_by_pin(self.certificate(), rawtls.expire)


class Strangers(EndToEndTest):
    STRANGERS = 256
    MOST_GROWTH_KIB = 4 * 1024

    def test_half_a_client_hello_costs_little(self):
        gateway = self.stage.gateway()
        hello = client_hello()
        # Memory that the first connection leaves allocated does not count as growth.
        with socket.create_connection((gateway.host, gateway.port), 10) as first:
            first.sendall(hello)
            first.recv(1)
        before = gateway.resident_kib()
        with contextlib.ExitStack() as strangers:
            for _ in range(self.STRANGERS):
                stranger = strangers.enter_context(socket.create_connection((gateway.host, gateway.port), 10))
                stranger.sendall(hello[:len(hello) // 2])
            # When an agent has logged in, the gateway has read the earlier bytes, or the most recent part of them.
            self.stage.agent(gateway, "-n", "honest", "127.0.0.1:9").wait_registered("honest")
            growth = gateway.resident_kib() - before
            self.note(f"grown by {growth} KiB")
            self.assertLess(growth, self.MOST_GROWTH_KIB)
