"""A unix socket for each name, by which only a proxy on the machine can reach it."""

import grp
import json
import os
import signal
import socket
import stat
import subprocess

from administration import run
from backends import Listener, answering, read_all
from harness import EndToEndTest, wait_until
from hooks import Hook, configure, registrar
from proxies import DOMAIN, HOST, CaddyProxy, NginxProxy
from realservers import haproxy_as_proxy, nginx_behind_proxy
from test_proxies import ProxyTests
from visitors import at_once, curl, read_exactly

NOBODY = "nobody"


def group():
    """The group of the proxies: if the tests run as root, nginx's workers run as another user."""
    return "www-data" if os.geteuid() == 0 else grp.getgrgid(os.getgid()).gr_name


class Socketed(ProxyTests):
    """The tests of proxies, without public ports."""

    def setUp(self):
        super().setUp()
        self.agent_port = None

    def start_gateway(self, **more):
        self.sockets = self.stage.directory / "names"
        self.file.write_text(f'''expose-ports = "none"
expose-sockets = "{self.sockets}"
expose-sockets-group = "{group()}"
public-url = "https://{{name}}.{DOMAIN}"
{self.proxy.configuration()}''')
        return super().start_gateway(**more)

    def test_no_port(self):
        agent = self.start_agent()
        event = agent.wait_event("registered", name="example")
        self.assertEqual(event["address"], f"https://{HOST}")
        self.assertNotIn("port", event)
        self.gateway.wait_log(rf"register domain 'example' -> 'unix:{self.sockets}/example.sock'$")
        self.wait_served()
        found = subprocess.run(["ss", "-Htlnp"], capture_output=True, text=True, check=True).stdout
        own = [line for line in found.splitlines() if f"pid={self.gateway.pid}," in line]
        self.assertEqual(len(own), 1, f"only the listener for agents: {own}")


class Nginx(Socketed, EndToEndTest):
    proxy_class = NginxProxy

    def test_map_file(self):
        self.start_agent()
        self.assertEqual(self.proxy.leftovers(), f"{HOST} unix:{self.sockets}/example.sock;\n")


class Caddy(Socketed, EndToEndTest):
    proxy_class = CaddyProxy


class Sockets(EndToEndTest):
    """Tests of the sockets without proxies."""

    def setUp(self):
        super().setUp()
        self.directory = self.stage.directory / "names"
        self.path = self.directory / "example.sock"
        self.options = ["--expose-sockets", self.directory, "--expose-sockets-group", group()]
        self.backend = self.stage.use(Listener(answering(b"here"))).address

    def page(self, path=None):
        return curl("--unix-socket", path or self.path, "http://example/").stdout

    def test_beside_a_port(self):
        tunnel = self.stage.expose(self.backend, gateway=self.stage.gateway(*self.options))
        self.assertEqual(self.page(), b"here")
        self.assertEqual(curl(tunnel.url).stdout, b"here")
        tunnel.agent.stop()
        wait_until(lambda: not self.path.exists(), "the socket to be removed")

    def test_rights(self):
        self.stage.expose(self.backend, gateway=self.stage.gateway(*self.options))
        gid = grp.getgrnam(group()).gr_gid
        for path, kind, mode in ((self.directory, stat.S_IFDIR, 0o750), (self.path, stat.S_IFSOCK, 0o660)):
            status = path.stat()
            self.assertEqual((status.st_mode, status.st_gid), (kind | mode, gid), path)
        if os.geteuid() != 0:
            self.skipTest("only root can run a program as another user")
        self.stage.directory.chmod(0o711)
        for user, groups, is_allowed in ((NOBODY, [], False), (NOBODY, [gid], True)):
            result = subprocess.run(
                ["curl", "-s", "--unix-socket", self.path, "http://example/"], capture_output=True, timeout=10,
                user=user, group="nogroup", extra_groups=groups)
            self.assertEqual(result.stdout, b"here" if is_allowed else b"", (user, groups))

    def test_group_is_missing(self):
        self.stage.expose(self.backend, gateway=self.stage.gateway("--expose-sockets", self.directory))
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_killed_gateway(self):
        """The next gateway removes sockets that a killed one has left, but no other files."""
        gateway = self.stage.gateway(*self.options)
        tunnel = self.stage.expose(self.backend, gateway=gateway)
        gateway.kill()
        self.assertTrue(self.path.exists())
        other = self.directory / "readme"
        other.write_text("mine")
        gateway = self.stage.gateway(*self.options, listen=gateway.address, state=gateway.state)
        gateway.wait_registered("example")
        self.assertEqual(self.page(), b"here")
        self.assertEqual(other.read_text(), "mine")
        tunnel.agent.stop()

    def test_two_gateways(self):
        self.stage.gateway(*self.options)
        second = self.stage.gateway(*self.options, ready=False)
        self.assertEqual(second.wait_exit(), 73)
        self.assertIn(f"{self.directory}: another gateway uses this directory", second.output)

    def test_sockets_of_others_stay(self):
        """The gateway does not remove a socket with a live listener, whatever its name."""
        self.directory.mkdir()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(self.path))
            other.listen()
            gateway = self.stage.gateway(*self.options, ready=False)
            self.assertEqual(gateway.wait_exit(), 73)
            self.assertIn(f"{self.path}: already exists and is not a socket of this gateway", gateway.output)
            self.assertTrue(self.path.exists())
        # Now the socket has no listener.
        self.stage.expose(self.backend, gateway=self.stage.gateway(*self.options))
        self.assertEqual(self.page(), b"here")

    def test_directory_that_others_write_to(self):
        self.directory.mkdir()
        self.directory.chmod(0o770)
        gateway = self.stage.gateway(*self.options, ready=False)
        self.assertEqual(gateway.wait_exit(), 73)
        self.assertIn(f"{self.directory}: other users can write to it", gateway.output)

    def test_missing_parents(self):
        """Directories above the sockets are accessible to all users that may use the sockets."""
        directory = self.stage.directory / "a" / "b" / "names"
        gateway = self.stage.gateway("--expose-sockets", directory, "--expose-sockets-group", group())
        self.stage.expose(self.backend, gateway=gateway)
        for parent in (directory.parent, directory.parent.parent):
            self.assertEqual(stat.S_IMODE(parent.stat().st_mode), 0o755)
        self.assertEqual(stat.S_IMODE(directory.stat().st_mode), 0o750)

    def test_file_in_the_way(self):
        self.directory.mkdir()
        self.path.write_text("mine")
        gateway = self.stage.gateway(*self.options, ready=False)
        self.assertEqual(gateway.wait_exit(), 73)
        self.assertIn(f"{self.path}: already exists and is not a socket of this gateway", gateway.output)
        self.assertEqual(self.path.read_text(), "mine")

    def test_directory_is_removed(self):
        """The name is refused until the directory is back; agent and gateway continue."""
        gateway = self.stage.gateway(*self.options)
        (self.directory / ".lock").unlink()
        self.directory.rmdir()
        agent = self.stage.agent(gateway, "-n", "example", self.backend)
        gateway.wait_log("cannot create the socket .* of 'example': .*no such file")
        self.assertTrue(agent.running)
        self.assertTrue(gateway.running)

    def test_many_visitors(self):
        self.stage.expose(self.backend, gateway=self.stage.gateway(*self.options))
        # More visitors than one source address may have at once.
        gateway = self.stage.programs[0]
        self.assertEqual(at_once(300, lambda _: self.page()), [b"here"] * 300)

        def visitors():
            return json.loads(run(self.stage, "diglett-server", "--state-dir", gateway.state, "ctl", "status",
                                  "--output", "json").stdout)["visitors"]

        # All visitors are uncounted again.
        wait_until(lambda: visitors() == 0, "no visitor to be left")

    def test_agent_moves_with_visitors_waiting(self):
        """The successor of a killed agent serves visitors at the same path."""
        gateway = self.stage.gateway(*self.options)
        tunnel = self.stage.expose(self.backend, gateway=gateway)
        tunnel.agent.send_signal(signal.SIGKILL)
        self.stage.agent(gateway, "-n", "example", self.backend, state=tunnel.agent.state).wait_registered()
        self.assertEqual(self.page(), b"here")

    def test_hook_is_told(self):
        hook = Hook(self.stage)
        file = configure(
            self.stage, f'expose-sockets = "{self.directory}"\nexpose-ports = "none"\n{registrar([hook.path])}')
        self.stage.agent(self.stage.gateway("-c", file), "-n", "example", self.backend).wait_registered()
        request, = hook.requests("publish")
        self.assertEqual(request["socket"], str(self.path))
        self.assertNotIn("address", request)

    def test_wanted_port(self):
        gateway = self.stage.gateway(*self.options, "--expose-ports", "none")
        code, event = self.stage.agent(
            gateway, "-n", "example", "--public-port", "30000", self.backend).refusal()
        self.assertEqual((code, event["code"]), (18, "port-refused"))
        self.assertIn("no public ports", event["message"])


class WhoComes(EndToEndTest):
    """Visitors through sockets have no address, unless the proxy sends it."""

    def setUp(self):
        super().setUp()
        self.directory = self.stage.directory / "names"
        self.path = self.directory / "example.sock"

    def test_told_by_the_proxy(self):
        gateway = self.stage.gateway(
            "--expose-sockets", self.directory, "--expose-ports", "none", "--accept-proxy-protocol", "unix", "-d")
        backend = nginx_behind_proxy(self.stage)
        self.stage.agent(gateway, "--proxy-protocol", "v2", "-n", "example", backend.address).wait_registered()
        proxy = haproxy_as_proxy(self.stage, f"unix@{self.path}", "send-proxy-v2")
        result = curl("--interface", "127.0.0.5", f"http://127.0.0.1:{proxy.port}/who")
        self.assertEqual(result.stdout.split()[0], b"127.0.0.5", result)
        # A connection without a PROXY header is refused.
        self.assertEqual(curl("--unix-socket", self.path, "http://example/who").stdout, b"")
        gateway.wait_log("visitor the unix socket of 'example' refused: no PROXY header at the beginning")

    def test_unknown(self):
        """The header for the backend marks the address as unknown."""
        def serve(connection):
            header = b""
            while not header.endswith(b"\r\n"):
                header += read_exactly(connection, 1)
            connection.sendall(header + read_all(connection))

        gateway = self.stage.gateway("--expose-sockets", self.directory)
        backend = self.stage.use(Listener(serve)).address
        self.stage.expose(backend, "--proxy-protocol", "v1", gateway=gateway)
        with socket.socket(socket.AF_UNIX) as visitor:
            visitor.settimeout(10)
            visitor.connect(str(self.path))
            visitor.sendall(b"hello")
            visitor.shutdown(socket.SHUT_WR)
            self.assertEqual(read_all(visitor), b"PROXY UNKNOWN\r\nhello")
