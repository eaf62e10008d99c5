"""Real proxies in front of the gateway: nginx, HAProxy and Caddy, with HTTP and TLS.

Each listens on two free ports and keeps all its files in a directory of the test. They lack the timeouts and redirects
of real sites, which sites.py has.
"""

import contextlib
import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path

from harness import Program, free_port, wait_until
from realservers import NGINX_HEAD, require, wait_accepting
from visitors import curl

DOMAIN = "gateway.test"
HOST = f"example.{DOMAIN}"


class Family(Program):
    """A server whose master process has workers. `kill` ends them too, even if the master does not exit in time."""

    def kill(self):
        workers = self._children(self.pid)
        if self.running:
            self.send_signal(signal.SIGTERM)
            try:
                self.process.wait(3)
            except subprocess.TimeoutExpired:
                self.send_signal(signal.SIGKILL)
        code = self.wait_exit()
        for pid, born in workers:
            # Skip a pid that another process has got since.
            if self._born(pid) == born:
                os.kill(pid, signal.SIGKILL)
        return code

    @classmethod
    def _children(cls, pid):
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:
            return []
        found = []
        for child in map(int, children):
            found += [(child, cls._born(child)), *cls._children(child)]
        return [(child, born) for child, born in found if born]

    @staticmethod
    def _born(pid):
        """The start time of a process in clock ticks; None if it has ended."""
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
        except OSError:
            return None


class Authority:
    """The test's own certificate authority, and a certificate for all names of a domain."""

    def __init__(self, stage, domain):
        openssl = require("openssl")
        directory = stage.new_directory("authority")
        self.ca, self.certificate, self.key = (directory / name for name in ("ca.pem", "leaf.pem", "leaf.key"))
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]

        def run(*arguments):
            subprocess.run([openssl, *arguments], check=True, capture_output=True, timeout=30)

        run("req", "-x509", *curve, "-days", "2", "-subj", "/CN=test authority",
            "-keyout", directory / "ca.key", "-out", self.ca)
        run("req", *curve, "-subj", f"/CN={domain}", "-keyout", self.key, "-out", directory / "leaf.csr")
        extensions = directory / "extensions"
        extensions.write_text(f"subjectAltName=DNS:*.{domain}\n")
        run("x509", "-req", "-days", "2", "-in", directory / "leaf.csr", "-CA", self.ca,
            "-CAkey", directory / "ca.key", "-CAcreateserial", "-extfile", extensions, "-out", self.certificate)
        self.bundle = directory / "bundle.pem"
        self.bundle.write_text(self.certificate.read_text() + self.key.read_text())


class Proxy:
    """The common part of all proxies: two ports, a certificate, and visitors."""

    kind = None
    domain = DOMAIN
    # How long the old configuration may remain in use beside the new one after a change.
    overlap_seconds = 0.0

    def __init__(self, stage):
        self.stage = stage
        self.directory = stage.new_directory(self.kind)
        self.authority = Authority(stage, self.domain)
        self.http_port, self.https_port = free_port(), free_port()
        self.start()
        for port in (self.http_port, self.https_port):
            wait_accepting(self.program, port)

    def status(self, host=HOST):
        """(status, body) of a page over HTTP; status 0 for no answer."""
        return self._visit("-H", f"Host: {host}", f"http://127.0.0.1:{self.http_port}/")

    def tls_status(self, host=HOST):
        """Like `status`, over TLS, and verifies the proxy's certificate."""
        return self._visit("--cacert", self.authority.ca, "--resolve", f"{host}:{self.https_port}:127.0.0.1",
                           f"https://{host}:{self.https_port}/")

    def wait_steady(self, wanted, what, timeout, status=None):
        """Waits until `wanted(status())` becomes and stays true; returns the time at which it became true."""
        status, since = status or self.status, None

        def steady():
            nonlocal since
            if not wanted(status()):
                since = None
            elif since is None:
                since = time.monotonic()
            return since is not None and time.monotonic() - since >= self.overlap_seconds

        wait_until(steady, what, timeout + self.overlap_seconds)
        return since

    @staticmethod
    def _visit(*arguments):
        result = curl("-w", "%{stderr}%{http_code}", *arguments, timeout=5)
        return int(result.stderr.decode().split()[-1][-3:] or 0), result.stdout

    def tls_context(self):
        return ssl.create_default_context(cafile=self.authority.ca)


class MapFileProxy(Proxy):
    """A proxy that reads a map file on reload."""

    @property
    def map_file(self):
        return self.directory / "diglett.map"

    def leftovers(self):
        """The gateway's entries at the proxy, as text."""
        return self.map_file.read_text()

    def configuration(self):
        reload = json.dumps([str(word) for word in self.reload])
        return (f'[[registrar]]\nkind = "{self.kind}"\ndomain = "{self.domain}"\n'
                f'file = "{self.map_file}"\nreload = {reload}\n')


NGINX = NGINX_HEAD + """\
    map $host $diglett {{ include {directory}/diglett.map; }}
    map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
    server {{
        listen 127.0.0.1:{http};
        listen 127.0.0.1:{https} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        location / {{
            if ($diglett = "") {{ return 404; }}
            proxy_pass http://$diglett;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
        }}
    }}
}}
"""


class NginxProxy(MapFileProxy):
    kind = "nginx"
    # After a reload the old workers continue for another tenth of a second.
    overlap_seconds = 0.3

    def start(self):
        program = require("nginx")
        self.map_file.touch()
        # If the tests run as root, the workers run as another user.
        for directory in (self.stage.directory, self.directory):
            directory.chmod(0o711)
        configuration = self.directory / "nginx.conf"
        configuration.write_text(NGINX.format(
            user="user www-data;" if os.geteuid() == 0 else "",
            directory=self.directory, http=self.http_port, https=self.https_port,
            certificate=self.authority.certificate, key=self.authority.key))
        options = [program, "-p", self.directory, "-c", configuration, "-e", "stderr"]
        self.reload = [*options, "-s", "reload"]
        self.program = self.stage.start("nginx", options, Family)


HAPROXY = """\
global
    log stderr format raw local0 err
    stats socket {directory}/admin level admin
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout tunnel 60s
    # With retries a visitor waits three seconds for the error of a name that is gone.
    retries 0
frontend visitors
    bind 127.0.0.1:{http}
    bind 127.0.0.1:{https} ssl crt {bundle}
    http-request set-var(txn.port) hdr(host),field(1,:),lower,map({directory}/diglett.map)
    http-request return status 404 unless {{ var(txn.port) -m found }}
    default_backend diglett
backend diglett
    http-request set-dst ipv4(127.0.0.1)
    http-request set-dst-port var(txn.port)
    server any 0.0.0.0:0
"""


# Replaces the map of the running HAProxy atomically, by its runtime API.
HAPROXY_UPDATE = '''\
#!{python} -IS
import re, socket, sys

FILE = {file!r}


def say(*lines):
    with socket.socket(socket.AF_UNIX) as admin:
        admin.connect({admin!r})
        admin.sendall("".join(line + "\\n" for line in lines).encode())
        admin.shutdown(socket.SHUT_WR)
        answer = b""
        while part := admin.recv(4096):
            answer += part
    return answer.decode().strip()


version = re.search("New version created: ([0-9]+)", say("prepare map " + FILE)).group(1)
lines = open(FILE).read().splitlines()
problem = say("add map @" + version + " " + FILE + " <<", *lines, "") if lines else ""
problem = problem or say("commit map @" + version + " " + FILE)
sys.exit(problem or 0)
'''


class HaproxyProxy(MapFileProxy):
    """HAProxy that reloads its map synchronously.

    A reload by SIGUSR2 would return before HAProxy has handled the signal, and a second signal during a reload would be
    lost.
    """

    kind = "haproxy"

    def start(self):
        program = require("haproxy")
        self.map_file.touch()
        configuration = self.directory / "haproxy.cfg"
        configuration.write_text(HAPROXY.format(
            directory=self.directory, http=self.http_port, https=self.https_port, bundle=self.authority.bundle))
        script = self.directory / "reload"
        script.write_text(HAPROXY_UPDATE.format(
            python=sys.executable, file=str(self.map_file), admin=str(self.directory / "admin")))
        script.chmod(0o700)
        self.reload = [script]
        self.program = self.stage.start(
            "haproxy", [program, "-W", "-db", "-f", configuration], Family)


class CaddyProxy(Proxy):
    kind = "caddy"
    # Without a matching route Caddy answers 200 with an empty body.
    MISSING = {"handle": [{"handler": "static_response", "status_code": 404}]}

    def __init__(self, stage):
        # Keep the port across restarts: the gateway's configuration has it.
        self.admin_port = getattr(self, "admin_port", None) or free_port()
        super().__init__(stage)

    def start(self, *routes):
        """Starts Caddy with these routes before the last one."""
        program = require("caddy")
        configuration = self.directory / "caddy.json"
        configuration.write_text(json.dumps({
            "admin": {"listen": f"127.0.0.1:{self.admin_port}", "config": {"persist": False}},
            "logging": {"logs": {"default": {"level": "WARN"}}},
            "apps": {
                # No TLS on this port of the server.
                "http": {"http_port": self.http_port, "servers": {"srv0": {
                    "listen": [f"127.0.0.1:{self.http_port}", f"127.0.0.1:{self.https_port}"],
                    "tls_connection_policies": [{}],
                    "automatic_https": {"disable": True},
                    "routes": [*routes, self.MISSING],
                }}},
                "tls": {"certificates": {"load_files": [
                    {"certificate": str(self.authority.certificate), "key": str(self.authority.key)}]}},
            },
        }))
        self.program = self.stage.start("caddy", [program, "run", "--config", configuration])

    def api(self, method, path, body=None):
        """(status, text) of Caddy's admin API."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=5)
        try:
            connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def routes(self):
        """The server's routes. Retries, because Caddy resets API connections while it applies a change."""
        def ask():
            with contextlib.suppress(OSError, http.client.HTTPException):
                status, text = self.api("GET", "/config/apps/http/servers/srv0/routes")
                return status == 200 and (json.loads(text),)
            return None

        return wait_until(ask, "Caddy's routes")[0]

    def leftovers(self):
        own = [route for route in self.routes() if route != self.MISSING]
        return json.dumps(own) if own else ""

    def configuration(self):
        return (f'[[registrar]]\nkind = "caddy"\ndomain = "{self.domain}"\n'
                f'admin = "http://127.0.0.1:{self.admin_port}"\nserver = "srv0"\n')
