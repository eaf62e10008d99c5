"""Features of real sites, through proxies with the documents' configuration, verbatim."""

import hashlib
import os
import re
import socket
import subprocess
import tomllib

import websocket
from backends import Listener, read_all, read_head
from documents import blocks, seconds, section
from harness import PATIENCE, EndToEndTest, wait_until
from hooks import configure
from realservers import require
from sites import GUIDE, DocumentedCaddy, DocumentedHaproxy, DocumentedNginx, GuideNginx, Site
from test_proxies import check_schema
from visitors import read_exactly

# More than each proxy's default limits and buffers.
UPLOAD = 5_000_000
EVENTS = 5
# Minimum of timeouts: a WebSocket may be idle for ten minutes, an answer may take five.
LEAST_SECONDS = 3_600


class SiteTests:
    proxy_class = None

    def setUp(self):
        super().setUp()
        self.proxy = self.proxy_class(self.stage)
        self.host = f"example.{self.proxy.domain}"
        self.site = Site()
        self.backend = self.stage.use(Listener(self.site.serve)).address
        self.gateway = self.stage.gateway("-c", configure(self.stage, self.proxy.configuration()))
        self.agent = self.stage.agent(self.gateway, "-n", "example", self.backend)
        self.agent.wait_registered()
        self.wait_status(self.host, b"200")

    def wait_status(self, host, wanted):
        """Waits until the proxy has applied a change."""
        def status():
            with self.visitor() as visitor:
                visitor.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                return read_all(visitor).split(b" ", 2)[1:2]

        self.proxy.wait_steady([wanted].__eq__, f"status {wanted.decode()} of {host}", PATIENCE, status)

    def visitor(self, host=None):
        connection = socket.create_connection(("127.0.0.1", self.proxy.https_port), 15)
        return self.stage.use(self.proxy.tls_context().wrap_socket(connection, server_hostname=host or self.host))

    def page(self, path, *headers):
        visitor = self.visitor()
        lines = "".join(f"{header}\r\n" for header in headers)
        visitor.sendall(f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\nConnection: close\r\n{lines}\r\n".encode())
        return read_all(visitor)

    def test_upload(self):
        """An upload arrives complete, and without buffering: its start does not wait for the rest."""
        content = os.urandom(UPLOAD)
        half = UPLOAD // 2
        visitor = self.visitor()
        visitor.sendall(f"POST /upload HTTP/1.1\r\nHost: {self.host}\r\nConnection: close\r\n"
                        f"Content-Length: {UPLOAD}\r\n\r\n".encode())
        visitor.sendall(content[:half])
        # TLS and the proxy may hold as much as they read at a time.
        wait_until(lambda: self.site.received > half - 256 * 1024, "the first half to reach the backend")
        visitor.sendall(content[half:])
        answer = read_all(visitor)
        self.assertIn(hashlib.sha256(content).hexdigest().encode(), answer, answer[:200])

    def start_events(self):
        visitor = self.visitor()
        visitor.sendall(f"GET /events HTTP/1.1\r\nHost: {self.host}\r\n\r\n".encode())
        self.assertIn(b"text/event-stream", read_head(visitor).lower())
        return visitor

    def check_event(self, visitor, number):
        """Checks that an event arrives before the next one is sent."""
        self.site.send_event()
        wanted, seen = b"data: event %d\n\n" % number, b""
        while wanted not in seen:
            seen += read_exactly(visitor, 1)

    def test_events(self):
        visitor = self.start_events()
        for number in range(EVENTS):
            self.check_event(visitor, number)

    def open_websocket(self):
        return websocket.connect(self.visitor(), self.host)

    def check_echo(self, peer):
        payload = os.urandom(100)
        peer.send(websocket.BINARY, payload)
        self.assertEqual(peer.receive(), (websocket.BINARY, payload))

    def test_websocket(self):
        peer = self.open_websocket()
        for _ in range(3):
            self.check_echo(peer)

    def change_names(self):
        """Registers another name, which changes the proxy's configuration."""
        agent = self.stage.agent(self.gateway, "-n", "other", self.backend)
        agent.wait_registered("other")
        self.wait_status(f"other.{self.proxy.domain}", b"200")
        return agent

    def test_events_while_names_change(self):
        visitor = self.start_events()
        self.check_event(visitor, 0)
        self.change_names()
        self.check_event(visitor, 1)

    def test_websocket_while_names_change(self):
        peer = self.open_websocket()
        self.check_echo(peer)
        self.change_names()
        self.check_echo(peer)

    def test_forwarded_headers(self):
        """The backend receives the visitor's real address, not one forged by the visitor."""
        seen = self.page("/", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: http", "X-Forwarded-Host: x.example")
        for header, value in (("For", "127.0.0.1"), ("Proto", "https"), ("Host", self.host)):
            found = re.findall(rf"(?im)^x-forwarded-{header}: *(.*?)\r", seen.decode())
            self.assertEqual(found, [value], header)

    def test_redirect(self):
        with socket.create_connection(("127.0.0.1", self.proxy.http_port), 15) as visitor:
            visitor.sendall(f"GET /a/b?c=d HTTP/1.1\r\nHost: {self.host}\r\nConnection: close\r\n\r\n".encode())
            answer = read_all(visitor).decode()
        self.assertRegex(answer, r"^HTTP/1.1 30[18] ")
        # The port is not 443 in the tests.
        self.assertRegex(answer, rf"(?im)^location: https://{re.escape(self.host)}(:\d+)?/a/b\?c=d\r")

    def test_unknown_name(self):
        self.wait_status(f"nobody.{self.proxy.domain}", b"404")


class NginxOfProxies(SiteTests, EndToEndTest):
    proxy_class = DocumentedNginx


class NginxOfTheGuide(SiteTests, EndToEndTest):
    proxy_class = GuideNginx


class Haproxy(SiteTests, EndToEndTest):
    proxy_class = DocumentedHaproxy


class Caddy(SiteTests, EndToEndTest):
    proxy_class = DocumentedCaddy

    def test_websocket_while_names_change(self):
        """According to the document, Caddy closes the WebSocket; some versions may not."""
        peer = self.open_websocket()
        self.check_echo(peer)
        self.change_names()
        try:
            self.check_echo(peer)
        except (AssertionError, OSError):
            self.assertIn("closes all WebSockets", section("proxies.md", "## Caddy"))
        self.check_echo(self.open_websocket())


class Texts(EndToEndTest):
    """Checks timeouts that are too long for a test in the documents' texts."""

    def check_timeouts(self, text, *names):
        for name in names:
            found = re.findall(rf"(?m)^\s*{name} ([0-9a-z]+);?$", text)
            self.assertTrue(found, name)
            for duration in found:
                self.assertGreaterEqual(seconds(duration), LEAST_SECONDS, name)

    def test_nginx(self):
        for proxy in (DocumentedNginx, GuideNginx):
            text = proxy.text()
            self.check_timeouts(
                text, "proxy_read_timeout", "proxy_send_timeout", "client_body_timeout", "send_timeout")
            self.assertIn("client_max_body_size 0;", text)

    def test_both_documents_have_the_same_nginx(self):
        same = DocumentedNginx.text().replace(DocumentedNginx.map_path, GuideNginx.map_path)
        self.assertEqual(same.replace(DocumentedNginx.domain, GuideNginx.domain), GuideNginx.text())

    def test_both_documents_have_the_same_caddy(self):
        for language in ("caddy", "sh"):
            same, = blocks(section("proxies.md", "## Caddy"), language)
            self.assertEqual(blocks(section("https.md", "### With Caddy instead of nginx"), language),
                             [same.replace(DocumentedCaddy.domain, GuideNginx.domain)])

    def test_haproxy(self):
        backend, redirect = blocks(section("proxies.md", "## HAProxy"), "")
        self.check_timeouts(backend, "timeout client", "timeout server", "timeout tunnel")
        self.assertNotIn("timeout server", redirect)

    def test_guide_opens_all_ports(self):
        """The firewall lines have the ports of nginx and the gateway, and nftables accepts its line."""
        text = section("https.md", GUIDE)
        wanted = {int(port) for port in re.findall(r"listen (\d+)", GuideNginx.text())}
        wanted |= {int(port) for port in re.findall(r"gateway\.com:(\d+)", text)}
        ufw = re.search(r"ufw allow proto tcp to any port ([\d,]+)$", text, re.MULTILINE)[1].split(",")
        rule = re.search(r"^ +(tcp dport .* accept)$", text, re.MULTILINE)[1]
        self.assertEqual({int(port) for port in ufw}, wanted)
        self.assertEqual({int(port) for port in re.findall(r"\d+", rule)}, wanted)
        if os.geteuid() != 0:
            self.skipTest("only root can make a network namespace")
        unshare, nft = require("unshare", "nft")
        rules = f"table inet filter {{\nchain input {{\ntype filter hook input priority filter; policy drop\n{rule}\n}}\n}}"
        checked = subprocess.run([unshare, "--net", nft, "--check", "--file", "-"], input=f"{rules}\n", timeout=30,
                                 capture_output=True, text=True)
        self.assertEqual((checked.returncode, checked.stderr), (0, ""))

    def test_caddy(self):
        """Caddy has no timeouts by default."""
        self.assertNotIn("timeout", DocumentedCaddy.text())

    def test_traefik(self):
        """Debian has no package of Traefik, so its configuration is checked against Traefik's documentation."""
        static, certificate, registrar = map(tomllib.loads, blocks(section("proxies.md", "## Traefik"), "toml"))
        points, (own,) = static["entryPoints"], registrar["registrar"]
        self.assertEqual(set(static), {"entryPoints", "providers"})
        secure, = own["entry-points"]
        self.assertEqual(points[secure]["address"], ":443")
        self.assertEqual(points[secure]["transport"]["respondingTimeouts"], {"readTimeout": "0s", "writeTimeout": "0s"})
        plain, = set(points) - {secure}
        self.assertEqual(points[plain], {
            "address": ":80", "http": {"redirections": {"entryPoint": {"to": secure, "scheme": "https"}}}})
        self.assertEqual(static["providers"]["file"], {"directory": own["directory"], "watch": True})
        self.assertTrue(own["tls"])
        check_schema(self, certificate)
