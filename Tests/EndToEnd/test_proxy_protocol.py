"""The visitor's address in PROXY headers: from proxies to the gateway, and from the agent to backends."""

import socket

from backends import Listener, read_all, write_random_file
from harness import EndToEndTest
from realservers import (
    haproxy_as_proxy, haproxy_behind_proxy, nginx_as_proxy, nginx_behind_proxy)
from visitors import at_once, curl, get, read_exactly, sha256_of

MIB = 1 << 20
VERSIONS = ("v1", "v2")


def who(port, source):
    """The source and destination that a backend reports for a visitor from `source`, as words."""
    return get(f"http://127.0.0.1:{port}/who", "--interface", source).decode().split()


class ToBackends(EndToEndTest):
    """The agent sends headers that real servers understand."""

    def check(self, backend, version):
        tunnel = self.stage.expose(backend, "--proxy-protocol", version)
        for source in ("127.0.0.5", "127.0.0.6"):
            address, port, *local = who(tunnel.port, source)
            self.assertEqual(address, source)
            self.assertNotEqual(port, "0")
            self.assertEqual(local, ["127.0.0.1", str(tunnel.port)])

    def test_nginx(self):
        backend = nginx_behind_proxy(self.stage)
        for version in VERSIONS:
            with self.subTest(version):
                self.check(backend.address, version)

    def test_haproxy(self):
        backend = haproxy_behind_proxy(self.stage)
        for version in VERSIONS:
            with self.subTest(version):
                self.check(backend.address, version)

    def test_haproxy_on_a_unix_socket(self):
        backend = haproxy_behind_proxy(self.stage, self.stage.directory / "haproxy.sock")
        for version in VERSIONS:
            with self.subTest(version):
                self.check(backend.address, version)

    def test_before_the_visitor_says_a_word(self):
        """A backend that speaks first receives the header before it does."""
        def serve(connection):
            header = b""
            while not header.endswith(b"\r\n"):
                header += read_exactly(connection, 1)
            connection.sendall(b"hello " + header)
            connection.sendall(read_all(connection))

        tunnel = self.stage.expose(self.stage.use(Listener(serve)).address, "--proxy-protocol", "v1")
        with tunnel.connect() as visitor:
            port = visitor.getsockname()[1]
            expected = f"hello PROXY TCP4 127.0.0.1 127.0.0.1 {port} {tunnel.port}\r\n".encode()
            self.assertEqual(read_exactly(visitor, len(expected)), expected)
            visitor.sendall(b"and more")
            visitor.shutdown(socket.SHUT_WR)
            self.assertEqual(read_all(visitor), b"and more")


class FromProxies(EndToEndTest):
    """The gateway understands headers of real proxies, and accepts only those of trusted proxies."""

    def chain(self, *options):
        """A gateway that trusts 127.0.0.1, and nginx behind an agent that forwards the address."""
        gateway = self.stage.gateway(*(options or ("--accept-proxy-protocol", "127.0.0.1")))
        self.backend = nginx_behind_proxy(self.stage)
        return self.stage.expose(self.backend.address, "--proxy-protocol", "v2", gateway=gateway)

    def check(self, tunnel, proxy):
        for source in ("127.0.0.5", "127.0.0.6"):
            address, _, *local = who(proxy.port, source)
            self.assertEqual(address, source)
            self.assertEqual(local, ["127.0.0.1", str(proxy.port)])
        expected = write_random_file(self.backend.files / "large", 16 * MIB)
        digests = at_once(8, lambda _: sha256_of(f"http://127.0.0.1:{proxy.port}/large"))
        self.assertEqual(digests, [expected] * 8)

    def test_nginx(self):
        tunnel = self.chain()
        self.check(tunnel, nginx_as_proxy(self.stage, f"127.0.0.1:{tunnel.port}"))

    def test_haproxy(self):
        tunnel = self.chain()
        for option in ("send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"):
            with self.subTest(option):
                self.check(tunnel, haproxy_as_proxy(self.stage, f"127.0.0.1:{tunnel.port}", option))

    def test_haproxy_checks_the_gateway(self):
        """Headers of health checks have the command LOCAL: the connection is haproxy's own."""
        tunnel = self.chain("--accept-proxy-protocol", "127.0.0.0/8", "-d")
        proxy = haproxy_as_proxy(
            self.stage, f"127.0.0.1:{tunnel.port}",
            # The check waits for the answer: otherwise it could disconnect before the gateway reads its address.
            "source 127.0.0.8 send-proxy-v2 check inter 100 check-send-proxy\n    option httpchk GET /who")
        for _ in range(3):
            tunnel.gateway.wait_log(r"visitor 127\.0\.0\.8:\d+ of 'example'", since=len(tunnel.gateway.stderr))
        self.assertEqual(who(proxy.port, "127.0.0.5")[0], "127.0.0.5")
        self.assertNotIn("refused", tunnel.gateway.output)

    def test_only_from_trusted_networks(self):
        tunnel = self.chain()
        # Another address of this machine is not trusted, so the gateway does not look for a header.
        self.assertEqual(who(tunnel.port, "127.0.0.7")[0], "127.0.0.7")
        # The trusted address without a header.
        result = curl("--interface", "127.0.0.1", f"{tunnel.url}/who")
        self.assertEqual((result.returncode, result.stdout), (56, b""), result.stderr)
        tunnel.gateway.wait_log(
            r"visitor 127\.0\.0\.1:\d+ of 'example' refused: no PROXY header at the beginning")

    def test_by_files(self):
        gateway_file = self.stage.directory / "server.toml"
        gateway_file.write_text('accept-proxy-protocol = ["127.0.0.1", "10.0.0.0/8", "::1"]\n')
        gateway = self.stage.gateway("-c", gateway_file)
        gateway.wait_log(r"trusted proxies: 127\.0\.0\.1/32, 10\.0\.0\.0/8, ::1/128; a PROXY header is required from visitors there")
        backend = nginx_behind_proxy(self.stage)
        agent_file = self.stage.directory / "agent.toml"
        agent_file.write_text(
            f'[[expose]]\nname = "example"\nbackend = "{backend.address}"\nproxy-protocol = "v1"\n')
        agent = self.stage.agent(gateway, "-c", agent_file)
        proxy = haproxy_as_proxy(self.stage, f"127.0.0.1:{agent.wait_registered()}", "send-proxy-v2")
        self.assertEqual(who(proxy.port, "127.0.0.5")[0], "127.0.0.5")

    def test_bad_settings(self):
        file = self.stage.directory / "server.toml"
        file.write_text('debug = 1\naccept-proxy-protocol = "10.1.2.3/8"\n')
        gateway = self.stage.gateway("-c", file, ready=False)
        self.assertEqual(gateway.wait_exit(), 78)
        self.assertIn(f"{file}:2: '10.1.2.3/8' has bits", gateway.output)
        gateway = self.stage.gateway("--accept-proxy-protocol", "localhost", ready=False)
        self.assertEqual(gateway.wait_exit(), 64)
        self.assertIn("'localhost' is not a network", gateway.output)
        agent = self.stage.agent("127.0.0.1:9", "--v1", "--proxy-protocol", "v1", "-n", "example", "9")
        self.assertEqual(agent.wait_exit(), 64)
        self.assertIn("version 1 does not transmit visitors' addresses", agent.output)
