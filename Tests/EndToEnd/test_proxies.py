"""Names behind real proxies, and the configuration files for proxies that are not installed."""

import json
import os
import re
import shutil
import signal
import socket
import time

import backends
import websocket
from backends import Listener
from harness import REPOSITORY, EndToEndTest, fast, free_port, wait_until
from hooks import configure
from proxies import DOMAIN, HOST, CaddyProxy, HaproxyProxy, NginxProxy
from realservers import require
from visitors import get

# The schema of the gateway's files, and Traefik's published schema, which is not part of the project.
OWN_SCHEMA = REPOSITORY / "Tests" / "EndToEnd" / "traefik.schema.json"
FULL_SCHEMA = REPOSITORY.parent / "shared" / "schemas" / "traefik-v3-file-provider.schema.json"
# Maximum time until a proxy stops serving a name that is gone.
WITHDRAWN_SECONDS = 2.0
GONE = (404, 502, 503)


def check_schema(test, document):
    """Checks a dynamic configuration of Traefik against our own schema and, if available, the published one."""
    try:
        import jsonschema
    except ImportError:
        test.skipTest("python3-jsonschema is not installed")
    for path in (OWN_SCHEMA, FULL_SCHEMA):
        if path == OWN_SCHEMA or path.exists():
            jsonschema.validate(document, json.loads(path.read_text()))


def serve_page_or_websocket(connection):
    """Answers with the request's host, or echoes the messages of a WebSocket."""
    head = connection.recv(64 * 1024, socket.MSG_PEEK)
    while b"\r\n\r\n" not in head:
        head = connection.recv(64 * 1024, socket.MSG_PEEK)
    if b"upgrade: websocket" in head.lower():
        websocket.serve_echo(connection)
    else:
        host = re.search(rb"(?im)^host: *([^\r:]*)", head).group(1)
        backends.answering(b"behind " + host)(connection)


class ProxyTests:
    """The tests for each proxy."""

    proxy_class = None

    def setUp(self):
        super().setUp()
        self.proxy = self.proxy_class(self.stage)
        self.file = configure(self.stage, self.proxy.configuration())
        self.backend = self.stage.use(Listener(serve_page_or_websocket)).address
        self.gateway = self.start_gateway()
        self.state = self.stage.new_directory("agent-state")

    def start_gateway(self, **more):
        return self.stage.gateway("-c", self.file, ready=False, **more).wait_listening()

    def start_agent(self, gateway=None):
        agent = self.stage.agent(gateway or self.gateway, "-n", "example", self.backend, state=self.state)
        agent.wait_registered()
        return agent

    def wait_served(self):
        """Waits for the page: the proxy may still be applying its new configuration."""
        page = (200, b"behind " + HOST.encode())
        self.proxy.wait_steady(lambda answer: answer == page, "the page", 5)

    def wait_status(self, *wanted, timeout=WITHDRAWN_SECONDS):
        """Waits until visitors receive one of these status codes; returns the elapsed seconds."""
        began = time.monotonic()
        return self.proxy.wait_steady(
            lambda answer: answer[0] in wanted, f"status {wanted}", timeout) - began

    def test_page_and_other_hosts(self):
        self.assertEqual(self.proxy.status()[0], 404, "nothing is registered")
        self.start_agent()
        self.wait_served()
        self.assertEqual(self.proxy.tls_status(), (200, b"behind " + HOST.encode()))
        for host in (f"other.{DOMAIN}", DOMAIN, f"example.example.{DOMAIN}", "example", "localhost"):
            with self.subTest(host=host):
                self.assertEqual(self.proxy.status(host)[0], 404)
        self.assertEqual(self.proxy.tls_status(f"other.{DOMAIN}")[0], 404)
        self.assertEqual(self.proxy.status(HOST.upper())[0], 200, "hosts have no case")
        self.assertEqual(self.proxy.status(f"{HOST}:{self.proxy.http_port}")[0], 200)

    def test_websocket(self):
        self.start_agent()
        self.wait_served()
        for is_secure in (False, True):
            with self.subTest(tls=is_secure):
                port = self.proxy.https_port if is_secure else self.proxy.http_port
                connection = self.stage.use(socket.create_connection(("127.0.0.1", port), 10))
                if is_secure:
                    connection = self.stage.use(
                        self.proxy.tls_context().wrap_socket(connection, server_hostname=HOST))
                peer = websocket.connect(connection, HOST)
                for size in (1, 125, 70_000):
                    payload = os.urandom(size)
                    peer.send(websocket.BINARY, payload)
                    self.assertEqual(peer.receive(), (websocket.BINARY, payload))
                peer.send(websocket.CLOSE, b"\x03\xe8")
                self.assertEqual(peer.receive(), (websocket.CLOSE, b"\x03\xe8"))

    def test_agent_leaves_and_returns(self):
        agent = self.start_agent()
        self.wait_served()
        agent.stop()
        self.note(f"gone after {self.wait_status(*GONE):.2f} s")
        self.wait_status(404)
        self.assertEqual(self.proxy.leftovers(), "")
        self.start_agent()
        self.wait_served()

    def test_gateway_is_killed_and_restarted(self):
        agent = self.start_agent()
        self.wait_served()
        agent.stop()
        self.wait_status(404)
        agent = self.start_agent()
        self.wait_served()
        # Kill both at once, so that neither withdraws the name.
        self.gateway.kill()
        agent.kill()
        self.assertTrue(self.proxy.leftovers())
        self.assertIn(self.proxy.status()[0], (502, 503))
        gateway = self.start_gateway(listen=self.gateway.address, state=self.gateway.state)
        wait_until(lambda: not self.proxy.leftovers(), "the former run's names to be taken back", 2)
        self.wait_status(404)
        self.start_agent(gateway)
        self.wait_served()

    def test_gateway_is_restarted_and_the_agent_stays(self):
        agent = self.start_agent()
        self.wait_served()
        self.gateway.kill()
        agent.wait_event("interrupted")
        since = len(agent.stdout)
        self.start_gateway(listen=self.gateway.address, state=self.gateway.state)
        agent.wait_registered(since=since)
        self.wait_served()

    def test_gateway_is_stopped(self):
        self.start_agent()
        self.wait_served()
        self.assertEqual(self.gateway.stop(), 0)
        self.assertEqual(self.proxy.leftovers(), "")
        self.wait_status(404)

    def test_many_names_at_once(self):
        count = 12
        agent = self.stage.agent(self.gateway, *(
            word for number in range(count) for word in ("-n", f"app-{number}={self.backend}")))
        for number in range(count):
            agent.wait_registered(f"app-{number}")
        for number in range(count):
            host = f"app-{number}.{DOMAIN}"
            wait_until(lambda: self.proxy.status(host) == (200, b"behind " + host.encode()), host, 5)
        agent.stop()
        wait_until(lambda: not self.proxy.leftovers(), "the proxy's configuration to be empty", 5)


class Nginx(ProxyTests, EndToEndTest):
    proxy_class = NginxProxy

    def test_map_file(self):
        agent = self.start_agent()
        port = agent.wait_registered()
        self.assertEqual(self.proxy.leftovers(), f"{HOST} 127.0.0.1:{port};\n")
        self.assertEqual(self.proxy.map_file.stat().st_mode & 0o777, 0o644, "nginx is another user")


class Haproxy(ProxyTests, EndToEndTest):
    proxy_class = HaproxyProxy

    def test_map_file(self):
        agent = self.start_agent()
        self.assertEqual(self.proxy.leftovers(), f"{HOST} {agent.wait_registered()}\n")


class Caddy(ProxyTests, EndToEndTest):
    proxy_class = CaddyProxy

    def test_routes_of_others_stay(self):
        """The gateway's routes come first, and other routes are not changed."""
        own = {"match": [{"host": [f"mine.{DOMAIN}"]}],
               "handle": [{"handler": "static_response", "status_code": 200, "body": "mine"}]}
        status, text = self.proxy.api("PUT", "/config/apps/http/servers/srv0/routes/0", own)
        self.assertEqual(status, 200, text)
        agent = self.start_agent()
        self.wait_served()
        self.assertEqual(self.proxy.status(f"mine.{DOMAIN}"), (200, b"mine"))
        agent.stop()
        wait_until(lambda: len(self.proxy.routes()) == 2, "the route to be taken back", 2)
        self.assertEqual(self.proxy.routes(), [own, self.proxy.MISSING])
        self.gateway.kill()
        self.start_gateway(listen=self.gateway.address, state=self.gateway.state)
        self.assertEqual(self.proxy.routes(), [own, self.proxy.MISSING])

    def test_caddy_is_away(self):
        """While Caddy is down, the gateway continues and the agent receives an error; it works when Caddy is back."""
        self.proxy.program.stop()
        agent = self.stage.agent(self.gateway, "-n", "example", self.backend, state=self.state)
        self.assertEqual(agent.wait_event("missing")["code"], "registrar-failed")
        self.gateway.wait_log(rf"registrar caddy .*: cannot publish 'example': .*{self.proxy.admin_port}")
        agent.stop()
        self.proxy.start()
        self.start_agent()
        self.wait_served()
        self.gateway.wait_log("registrar caddy .* works again")


    def test_reset_is_tried_again(self):
        """If Caddy is down when the gateway starts, only the routes of a former run are removed when Caddy is back."""
        old = {"@id": "diglett-old", "match": [{"host": [f"old.{DOMAIN}"]}],
               "handle": [{"handler": "reverse_proxy", "upstreams": [{"dial": "127.0.0.1:9"}]}], "terminal": True}
        self.gateway.kill()
        self.proxy.program.stop()
        gateway = self.start_gateway(listen=self.gateway.address, state=self.gateway.state)
        gateway.wait_log("registrar caddy .*: cannot clean up after the previous run")
        self.proxy.start(old)
        wait_until(lambda: not self.proxy.leftovers(), "the former run's route to be taken back", 40)
        gateway.wait_log("registrar caddy .* works again")
        self.start_agent(gateway)
        self.wait_served()

    def test_a_server_without_routes(self):
        """Names work if the server has no list of routes, or an empty one, as after the last withdrawal."""
        path = "/config/apps/http/servers/srv0/routes"
        status, text = self.proxy.api("DELETE", path)
        self.assertEqual(status, 200, text)
        for _ in range(2):
            agent = self.start_agent()
            self.wait_served()
            agent.stop()
            wait_until(lambda: self.proxy.routes() == [], "the last route to be taken back", WITHDRAWN_SECONDS)
        agents = self.stage.agent(self.gateway, "-n", f"one={self.backend}", "-n", f"two={self.backend}")
        for name in ("one", "two"):
            agents.wait_registered(name)
        self.assertEqual(len(self.proxy.routes()), 2)

    def test_routes_that_others_drop(self):
        """`caddy reload` drops all routes; the gateway restores them on SIGHUP, and periodically."""
        self.start_agent()
        self.wait_served()
        for ask in (lambda: self.gateway.send_signal(signal.SIGHUP), None):
            if ask is None and fast():
                break  # It takes half a minute.
            routes = [{"@id": "diglett-old", "match": [{"host": [f"old.{DOMAIN}"]}]}, self.proxy.MISSING]
            status, text = self.proxy.api("PATCH", "/config/apps/http/servers/srv0/routes", routes)
            self.assertEqual(status, 200, text)
            self.assertEqual(self.proxy.status()[0], 404)
            if ask:
                ask()
            self.proxy.wait_steady(
                lambda answer: answer == (200, b"behind " + HOST.encode()), "the route", 5 if ask else 40)
            wait_until(lambda: len(self.proxy.routes()) == 2, "the unclaimed route to be removed", 5)


class BrokenProxy(EndToEndTest):
    """A failed reload is a failure of the registrar."""

    def start(self, reload, timeout=5):
        self.map_file = self.stage.directory / "diglett.map"
        script = self.stage.directory / "reload"
        script.write_text(f"#!/bin/sh\n{reload}\n")
        script.chmod(0o700)
        self.gateway = self.stage.gateway("-c", configure(
            self.stage, f'[[registrar]]\nkind = "nginx"\ndomain = "{DOMAIN}"\nfile = "{self.map_file}"\n'
            f'reload = ["{script}"]\ntimeout = {timeout}\n'))
        return self.stage.agent(self.gateway, "-n", "example", "9")

    def test_reload_fails(self):
        agent = self.start("echo 'bind() failed' >&2; exit 1")
        self.assertEqual(agent.wait_event("missing")["code"], "registrar-failed")
        self.gateway.wait_log(r"cannot publish 'example': .*reload exited with code 1: bind\(\) failed")
        self.assertEqual(wait_until(lambda: self.map_file.exists() and not self.map_file.read_text(), "the file"), True)

    def test_reload_hangs(self):
        agent = self.start("exec sleep 60", timeout=0.1)
        self.assertEqual(agent.wait_event("missing")["code"], "registrar-failed")
        self.gateway.wait_log("cannot publish 'example': .*timed out and was killed")

    def test_file_cannot_be_written(self):
        self.stage.directory.joinpath("diglett.map").mkdir()
        agent = self.start("true")
        self.assertEqual(agent.wait_event("missing")["code"], "registrar-failed")
        self.gateway.wait_log(rf"cannot publish 'example': .*{self.map_file}.*directory")


class TraefikTest(EndToEndTest):

    def start(self, *lines, directory=True, prefix=(), ready=True):
        self.directory = self.stage.directory / "dynamic"
        if directory and not self.directory.exists():
            self.directory.mkdir()
        text = f'[[registrar]]\nkind = "traefik"\ndomain = "{DOMAIN}"\n' + "".join(f"{line}\n" for line in lines)
        if directory:
            text += f'directory = "{self.directory}"\n'
        self.file = configure(self.stage, text)
        self.gateway = self.stage.gateway("-c", self.file, prefix=prefix, ready=ready)
        return self.gateway

    def publish(self, *lines, name="example"):
        """Publishes a name; returns its document."""
        self.start(*lines)
        self.agent = self.stage.agent(self.gateway, "-n", name, "9")
        self.port = self.agent.wait_registered(name)
        return self.document(name)

    def files(self):
        """The files that Traefik would read."""
        return sorted(path.name for path in self.directory.iterdir() if not path.name.startswith("."))

    def document(self, name="example"):
        return json.loads((self.directory / f"diglett-{name}.yml").read_text())


class Traefik(TraefikTest):
    """The files for Traefik v3, for which Debian has no package."""

    OPTIONS = {
        "plain": (),
        "all of http": ('entry-points = ["web", "websecure"]', 'middlewares = ["auth@file", "gzip"]',
                        'cert-resolver = "le"'),
        "tls alone": ("tls = true",),
        "h2c": ('scheme = "h2c"',),
        "tcp": ('scheme = "tcp"', 'entry-points = ["websecure"]'),
        "tcp with certificates": ('scheme = "tcp"', 'cert-resolver = "le"', 'middlewares = ["allow@file"]'),
    }

    def test_schema(self):
        for case, lines in self.OPTIONS.items():
            with self.subTest(case=case):
                document = self.publish(*lines)
                self.gateway.kill()
                check_schema(self, document)

    def test_http(self):
        document = self.publish()
        self.assertEqual(document, {"http": {
            "routers": {"diglett-example": {"rule": f"Host(`{HOST}`)", "service": "diglett-example"}},
            "services": {"diglett-example": {"loadBalancer": {
                "servers": [{"url": f"http://127.0.0.1:{self.port}"}]}}}}})
        file = self.directory / "diglett-example.yml"
        self.assertEqual(file.stat().st_mode & 0o777, 0o644, "Traefik is another user")
        self.assertEqual(self.files(), [file.name])

    def test_options(self):
        router = self.publish(*self.OPTIONS["all of http"])["http"]["routers"]["diglett-example"]
        self.assertEqual(router["entryPoints"], ["web", "websecure"])
        self.assertEqual(router["middlewares"], ["auth@file", "gzip"])
        self.assertEqual(router["tls"], {"certResolver": "le"})

    def test_tls_alone(self):
        router = self.publish("tls = true")["http"]["routers"]["diglett-example"]
        self.assertEqual(router["tls"], {})

    def test_h2c(self):
        service = self.publish('scheme = "h2c"')["http"]["services"]["diglett-example"]
        self.assertEqual(service["loadBalancer"]["servers"], [{"url": f"h2c://127.0.0.1:{self.port}"}])

    def test_tcp(self):
        document = self.publish(*self.OPTIONS["tcp"])
        self.assertEqual(document, {"tcp": {
            "routers": {"diglett-example": {
                "rule": f"HostSNI(`{HOST}`)", "service": "diglett-example", "entryPoints": ["websecure"], "tls": {}}},
            "services": {"diglett-example": {"loadBalancer": {
                "servers": [{"address": f"127.0.0.1:{self.port}"}]}}}}})

    def test_gateway_on_another_machine(self):
        document = self.publish('gateway-host = "gateway.internal"')
        self.assertEqual(document["http"]["services"]["diglett-example"]["loadBalancer"]["servers"],
                         [{"url": f"http://gateway.internal:{self.port}"}])

    def test_bad_options(self):
        for line in ('scheme = "gopher"', 'scheme = "tcp"\ntls = false', 'domain2 = "x"', 'listen = "0.0.0.0:80"',
                     'entry-points = 3'):
            with self.subTest(line=line):
                self.start(line, ready=False)
                self.assertEqual(self.gateway.wait_exit(), 78)
                self.assertRegex(self.gateway.output, rf"{re.escape(str(self.file))}:\d+: ")

    def test_life_of_a_file(self):
        """The gateway keeps files of others, and removes its own, including those of a killed gateway."""
        directory = self.stage.directory / "dynamic"
        directory.mkdir()
        mine = directory / "mine.yml"
        mine.write_text("http: {}\n")
        # Files of others with names like the gateway's, and a file that a killed gateway was writing.
        (directory / "diglett-dashboard.yml").write_text("http: {}\n")
        (directory / "diglett-tls.yml.new").write_text('{"http": {}}')
        (directory / "diglett-cut.yml.new").write_text('{\n  "http" : {\n    "rou')
        self.publish()
        file = self.directory / "diglett-example.yml"
        self.agent.stop()
        wait_until(lambda: not file.exists(), "the file to be removed", WITHDRAWN_SECONDS)
        state = self.agent.state
        agent = self.stage.agent(self.gateway, "-n", "example", "9", state=state)
        agent.wait_registered()
        self.assertTrue(file.exists())
        self.gateway.kill()
        agent.kill()
        self.assertTrue(file.exists())
        gateway = self.stage.gateway("-c", self.file, state=self.gateway.state)
        wait_until(lambda: not file.exists(), "the former run's file to be removed", WITHDRAWN_SECONDS)
        self.stage.agent(gateway, "-n", "example", "9", state=state).wait_registered()
        self.assertTrue(file.exists())
        self.assertEqual(gateway.stop(), 0)
        self.assertEqual(self.files(), ["diglett-dashboard.yml", "diglett-tls.yml.new", "mine.yml"])
        self.assertEqual(mine.read_text(), "http: {}\n")

    def test_reader_never_sees_a_part(self):
        """The gateway writes a temporary file and renames it, so Traefik always reads a complete document."""
        self.start()
        agent = self.stage.agent(self.gateway, *(
            word for number in range(16) for word in ("-n", f"app-{number}=9")))
        seen = set()

        def all_read():
            for path in self.directory.iterdir():
                if path.suffix == ".yml":
                    json.loads(path.read_text())
                    seen.add(path.name)
            return len(seen) == 16

        wait_until(all_read, "sixteen files", interval=0)
        agent.wait_registered("app-15")

    def test_removed_by_others(self):
        """The gateway restores a file that another program has removed, on SIGHUP or by itself."""
        self.publish()
        (self.directory / "diglett-example.yml").unlink()
        self.gateway.send_signal(signal.SIGHUP)
        wait_until(lambda: self.files() == ["diglett-example.yml"], "the file to be there again")

    def test_two_gateways(self):
        """The second gateway does not change the first one's files, and logs an error."""
        self.publish()
        other = self.stage.gateway("-c", self.file, state=self.stage.new_directory("other-state"))
        other.wait_log(rf"{self.directory}: is used by another gateway")
        self.assertEqual(self.files(), ["diglett-example.yml"])
        self.gateway.stop()
        other.wait_log("registrar traefik .* works again")

    def test_http_provider(self):
        port = free_port()
        self.start(f'listen = "127.0.0.1:{port}"', directory=False)
        self.gateway.wait_log(rf"HTTP provider at http://127\.0\.0\.1:{port}/")
        url = f"http://127.0.0.1:{port}/"
        self.assertEqual(json.loads(get(url)), {})
        agent = self.stage.agent(self.gateway, "-n", "one=9", "-n", "two=9")
        ports = {name: agent.wait_registered(name) for name in ("one", "two")}
        document = json.loads(get(url))
        self.assertEqual(sorted(document["http"]["routers"]), ["diglett-one", "diglett-two"])
        for name, public in ports.items():
            self.assertEqual(document["http"]["routers"][f"diglett-{name}"]["rule"], f"Host(`{name}.{DOMAIN}`)")
            self.assertEqual(document["http"]["services"][f"diglett-{name}"]["loadBalancer"]["servers"],
                             [{"url": f"http://127.0.0.1:{public}"}])
        self.check_provider_manners(port)
        agent.stop()
        wait_until(lambda: json.loads(get(url)) == {}, "the names to be gone", WITHDRAWN_SECONDS)
        check_schema(self, document)

    def check_provider_manners(self, port):
        """Checks the small subset of HTTP that the provider implements."""
        def ask(request):
            with socket.create_connection(("127.0.0.1", port), 10) as connection:
                connection.sendall(request)
                return backends.read_all(connection)

        answer = ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        head, body = answer.split(b"\r\n\r\n", 1)
        self.assertTrue(head.startswith(b"HTTP/1.1 200 "))
        self.assertIn(b"application/json", head)
        self.assertIn(f"Content-Length: {len(body)}".encode(), head)
        self.assertEqual(ask(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n").split(b"\r\n\r\n", 1)[1], b"")
        self.assertTrue(ask(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 405 "))
        self.assertTrue(ask(b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 "))
        self.assertTrue(ask(b"GET / HTTP/1.1\r\nX: " + b"x" * 9000 + b"\r\n\r\n")[:12] in (b"HTTP/1.1 400", b""))

    def test_http_provider_port_is_taken(self):
        taken = self.stage.use(Listener(backends.serve_echo))
        self.start(f'listen = "127.0.0.1:{taken.port}"', ready=False)
        self.assertNotEqual(self.gateway.wait_exit(), 0)
        self.assertIn(f"127.0.0.1:{taken.port}", self.gateway.output)


class UnwritableDirectory(TraefikTest):
    """Names recover after Traefik's directory was not writable for a while."""

    def check_told_and_recovers(self, words, repair, waits=False):
        """Checks that the error has path and reason, and that the name works after `repair` without a gateway restart.

        With `waits` the agent retries after half a minute; otherwise it is started again.
        """
        agent = self.stage.agent(self.gateway, "-n", "example", "9")
        event = agent.wait_event("missing", name="example")
        self.assertEqual(event["code"], "registrar-failed")
        self.assertNotIn(str(self.directory), agent.output, "a path of the gateway's machine")
        self.gateway.wait_log(
            rf"ERROR registrar traefik .*: cannot publish 'example': {re.escape(str(self.directory))}\S*: .*{words}")
        self.assertTrue(agent.running and self.gateway.running)
        repair()
        if not waits:
            agent.stop()
            agent = self.stage.agent(self.gateway, "-n", "example", "9", state=agent.state)
        agent.wait_registered(timeout=40)
        self.assertIn("http", self.document())
        self.gateway.wait_log("registrar traefik .* works again")

    def test_path_that_is_a_file(self):
        path = self.stage.directory / "dynamic"
        path.write_text("")
        self.start()

        def repair():
            path.unlink()
            path.mkdir()

        self.check_told_and_recovers("not a directory", repair)

    def test_missing(self):
        path = self.stage.directory / "dynamic"
        path.mkdir()
        self.start()

        def is_gone():
            # The gateway may be writing a file there at the same time.
            shutil.rmtree(path, ignore_errors=True)
            return not path.exists()

        wait_until(is_gone, "the end of the directory")
        self.check_told_and_recovers("no such file or directory", path.mkdir, waits=not fast())

    def test_read_only(self):
        path = self.stage.directory / "dynamic"
        path.mkdir(mode=0o555)
        prefix = ()
        if os.geteuid() == 0:
            # Root can write everywhere, unless it lacks the capability to override permissions.
            prefix = [require("setpriv"), "--bounding-set=-dac_override,-dac_read_search,-fowner"]
        self.start(prefix=prefix)
        self.check_told_and_recovers("permission denied", lambda: path.chmod(0o755))

    def test_mended_before_the_agent_is_told(self):
        path = self.stage.directory / "dynamic"
        path.write_text("")
        self.start()
        agent = self.stage.agent(self.gateway, "-n", "example", "9")
        self.gateway.wait_log("cannot publish 'example'")
        path.unlink()
        path.mkdir()
        agent.wait_registered()
        self.assertEqual(agent.events("missing"), [])

    def test_file_that_cannot_be_removed(self):
        """The gateway retries the withdrawal until it succeeds."""
        prefix = ()
        if os.geteuid() == 0:
            prefix = [require("setpriv"), "--bounding-set=-dac_override,-dac_read_search,-fowner"]
        self.start(prefix=prefix)
        agent = self.stage.agent(self.gateway, "-n", "example", "9")
        agent.wait_registered()
        file = self.directory / "diglett-example.yml"
        self.directory.chmod(0o555)
        agent.stop()
        self.gateway.wait_log(rf"cannot withdraw 'example': {re.escape(str(file))}: .*permission denied")
        self.directory.chmod(0o755)
        wait_until(lambda: not file.exists(), "the file to be removed")
        self.gateway.wait_log("works again")
