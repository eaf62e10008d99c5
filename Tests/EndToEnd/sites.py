"""Proxies with the documents' configuration, verbatim, and a site with more features than pages."""

import hashlib
import os
import re
import socket
import threading

import backends
import websocket
from documents import blocks, section, substitute
from proxies import CaddyProxy, Family, HaproxyProxy, NginxProxy
from realservers import NGINX_HEAD, require

GUIDE = "## From an empty server to https://example.gateway.com"


class Site:
    """A backend with uploads, events and a WebSocket; it answers other requests with their head."""

    def __init__(self):
        self.received = 0
        self._events = threading.Semaphore(0)

    def send_event(self):
        self._events.release()

    def serve(self, connection):
        head = connection.recv(64 * 1024, socket.MSG_PEEK)
        while b"\r\n\r\n" not in head:
            head = connection.recv(64 * 1024, socket.MSG_PEEK)
        head = head[:head.index(b"\r\n\r\n") + 4]
        if b"upgrade: websocket" in head.lower():
            websocket.serve_echo(connection)
            return
        connection.recv(len(head))
        if head.startswith(b"POST "):
            self._answer(connection, self._digest(connection, head))
        elif head.startswith(b"GET /events "):
            self._stream(connection)
        else:
            self._answer(connection, head)

    @staticmethod
    def _answer(connection, body):
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    def _digest(self, connection, head):
        left = int(re.search(rb"(?i)\r\ncontent-length: (\d+)", head)[1])
        digest = hashlib.sha256()
        while left > 0 and (data := connection.recv(min(left, backends.CHUNK))):
            digest.update(data)
            left -= len(data)
            self.received += len(data)
        return digest.hexdigest().encode()

    def _stream(self, connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\r\n")
        # The loop ends with the connection: a write to a closed one fails.
        number = 0
        while self._events.acquire(timeout=60):
            connection.sendall(b"data: event %d\n\n" % number)
            number += 1


NGINX_FRAME = NGINX_HEAD + """\
{text}
}}
"""


class DocumentedNginx(NginxProxy):
    """nginx with the configuration in docs/proxies.md."""

    domain = "gateway.example.com"
    map_path = "/var/lib/diglett-server/nginx.map"

    @classmethod
    def text(cls):
        return "\n".join(blocks(section("proxies.md", "## nginx"), "nginx"))

    def start(self):
        program = require("nginx")
        self.map_file.touch()
        # If the tests run as root, the workers run as another user.
        for directory in (self.stage.directory, self.directory):
            directory.chmod(0o711)
        live = f"/etc/letsencrypt/live/{self.domain}"
        text = substitute(
            self.text(), ("listen 443 ", f"listen 127.0.0.1:{self.https_port} "),
            ("listen [::]:443 ", f"listen [::1]:{self.https_port} "),
            ("listen 80;", f"listen 127.0.0.1:{self.http_port};"), ("listen [::]:80;", f"listen [::1]:{self.http_port};"),
            (self.map_path, self.map_file), (f"{live}/fullchain.pem", self.authority.certificate),
            (f"{live}/privkey.pem", self.authority.key))
        configuration = self.directory / "nginx.conf"
        configuration.write_text(NGINX_FRAME.format(
            user="user www-data;" if os.geteuid() == 0 else "", directory=self.directory, text=text))
        options = [program, "-p", self.directory, "-c", configuration, "-e", "stderr"]
        self.reload = [*options, "-s", "reload"]
        self.program = self.stage.start("nginx", options, Family)


class GuideNginx(DocumentedNginx):
    """nginx with the configuration of the guide in docs/https.md."""

    domain = "gateway.com"

    @classmethod
    def text(cls):
        return "\n".join(blocks(section("https.md", GUIDE), "nginx"))


# In addition to the document's sections: a global section, and the timeouts of Debian's default file.
HAPROXY_FRAME = """\
global
    log stderr format raw local0 err
    stats socket {directory}/admin level admin
defaults
    timeout connect 5000
    timeout client 50000
    timeout server 50000
{text}
"""


class DocumentedHaproxy(HaproxyProxy):
    domain = "gateway.example.com"

    @classmethod
    def text(cls):
        return "\n".join(blocks(section("proxies.md", "## HAProxy"), ""))

    def start(self):
        program = require("haproxy")
        require("socat")
        self.map_file.touch()
        own = ("/var/lib/diglett-server/haproxy.map", self.map_file)
        configuration = self.directory / "haproxy.cfg"
        configuration.write_text(HAPROXY_FRAME.format(directory=self.directory, text=substitute(
            self.text(), own, ("/etc/haproxy/gateway.pem", self.authority.bundle),
            (":443,:::443", f"127.0.0.1:{self.https_port},::1:{self.https_port}"),
            (":80,:::80", f"127.0.0.1:{self.http_port},::1:{self.http_port}"))))
        script = self.directory / "reload-map"
        text, = blocks(section("proxies.md", "## HAProxy"), "sh")
        script.write_text(substitute(text, own, ("/run/haproxy/admin.sock", self.directory / "admin")))
        script.chmod(0o700)
        self.reload = [script]
        self.program = self.stage.start("haproxy", [program, "-W", "-db", "-f", configuration], Family)


# Uses the test's ports, and no files outside the test's directory.
CADDY_OPTIONS = """\
{{
    admin 127.0.0.1:{admin}
    http_port {http}
    https_port {https}
    default_bind 127.0.0.1
}}
"""


class DocumentedCaddy(CaddyProxy):
    domain = "gateway.example.com"

    @classmethod
    def text(cls):
        text, = blocks(section("proxies.md", "## Caddy"), "caddy")
        return text

    def start(self):
        file = self.directory / "Caddyfile"
        options = CADDY_OPTIONS.format(admin=self.admin_port, http=self.http_port, https=self.https_port)
        file.write_text(options + substitute(
            self.text(), ("/etc/caddy/gateway.pem", self.authority.certificate),
            ("/etc/caddy/gateway.key", self.authority.key)))
        self.program = self.stage.start(
            "caddy", [require("caddy"), "run", "--config", file, "--adapter", "caddyfile"])
