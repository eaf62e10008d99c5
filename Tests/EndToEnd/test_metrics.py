"""Metrics: correct after known traffic, readable by Prometheus, and no attack surface."""

import contextlib
import json
import os
import re
import signal
import socket
import stat

from administration import AgentsFile, run
from backends import Listener, read_all, serve_echo, serve_never_reads
from harness import REPOSITORY, EndToEndTest, wait_until
from hooks import Hook, configure, registrar
from namespaces import TwoHosts
from prometheus import Metrics, Scrape, promtool
from version1 import own_agent, own_gateway
from visitors import read_exactly

DASHBOARD = REPOSITORY / "scripts" / "grafana" / "diglett.json"
RULES = REPOSITORY / "scripts" / "prometheus" / "diglett.rules.yml"
RULES_TEST = REPOSITORY / "Tests" / "EndToEnd" / "diglett.rules.test.yml"
MANUAL = REPOSITORY / "docs" / "monitoring.md"


def answering_questions(size):
    """A service that reads a request after its length, and answers with `size` bytes.

    Version 1 cannot signal the end of one direction, so the request needs a length.
    """
    def serve(connection):
        read_exactly(connection, int.from_bytes(read_exactly(connection, 4), "big"))
        connection.sendall(b"x" * size)
    return serve


class MetricsTest(EndToEndTest):
    def gateway(self, *options, place="127.0.0.1:0", **more):
        self.server = self.stage.gateway("--metrics", place, *options, **more)
        self.metrics = Metrics(self.server)
        return self.server

    def exchange(self, port, question):
        """Sends the length in four bytes and the question; returns the whole answer."""
        with socket.create_connection(("127.0.0.1", port), 15) as visitor:
            visitor.sendall(len(question).to_bytes(4, "big") + question)
            return read_all(visitor)

    def check(self, scrape):
        """Checks the metrics with promtool."""
        self.assertEqual(promtool("check", "metrics", text=scrape.text), "")


class Traffic(MetricsTest):
    """Metrics count exactly the known traffic."""

    def check_traffic(self, tunnel, protocol):
        before = self.metrics.scrape()
        self.assertEqual(before.value("diglett_links", protocol=protocol), 1)
        self.assertEqual(before.value("diglett_agents"), 1)
        self.assertEqual(before.value("diglett_names", state="public"), 1)
        self.assertEqual(before.value("diglett_names_registered_total"), 1)
        self.assertEqual(before.counted("diglett_logins_total", "result"), {"accepted": 1})
        self.assertEqual(before.counted("diglett_visitors_total", "result"), {})
        # The largest one exceeds the buffer of a link's socket.
        questions = [b"", b"q", b"q" * 1_000, b"q" * 3_000_000]
        asked = sum(len(question) + 4 for question in questions)
        for question in questions:
            self.assertEqual(len(self.exchange(tunnel.port, question)), 300_007)
        after = self.metrics.wait(
            lambda scrape: scrape.value("diglett_streams") == 0, "the streams to end")
        self.assertEqual(after.all("diglett_bytes_total"), {
            (("direction", "to_backend"),): asked,
            (("direction", "to_visitor"),): 300_007 * len(questions)})
        self.assertEqual(after.all("diglett_name_bytes_total"), {
            (("direction", "to_backend"), ("name", "example")): asked,
            (("direction", "to_visitor"), ("name", "example")): 300_007 * len(questions)})
        self.assertEqual(after.counted("diglett_visitors_total", "result"), {"admitted": len(questions)})
        self.assertEqual(
            after.counted("diglett_streams_closed_total", "side", "reason"), {("both", "finished"): len(questions)})
        self.assertEqual(after.value("diglett_stream_first_byte_seconds_count"), len(questions))
        self.assertEqual(after.value("diglett_visitors"), 0)
        return after

    def backend(self):
        return self.stage.use(Listener(answering_questions(300_007))).address

    def test_after_traffic(self):
        tunnel = self.stage.expose(self.backend(), gateway=self.gateway("--metrics-per-name"))
        after = self.check_traffic(tunnel, "2")
        self.assertEqual(after.value("diglett_stream_open_seconds_count"), 4)
        # Both times start with the visitor's connection, and the backend cannot answer before it is connected.
        self.assertLess(0, after.value("diglett_stream_open_seconds_sum"))
        self.assertLess(
            after.value("diglett_stream_open_seconds_sum"), after.value("diglett_stream_first_byte_seconds_sum"))

    def test_after_traffic_of_version_1(self):
        gateway = own_gateway(self.stage, "--metrics", "127.0.0.1:0", "--metrics-per-name")
        self.metrics = Metrics(gateway)
        agent = own_agent(self.stage, gateway.address_v1, self.backend())
        agent.wait_event("registered")
        tunnel = type("Tunnel", (), {"port": gateway.wait_registered("example")})
        after = self.check_traffic(tunnel, "1")
        # In version 1 the gateway does not learn when a stream is open.
        self.assertEqual(after.value("diglett_stream_open_seconds_count"), 0)

    def test_while_streams_run(self):
        backend = self.stage.use(Listener(serve_echo)).address
        tunnel = self.stage.expose(backend, gateway=self.gateway("--metrics-per-name"))
        self.check(self.metrics.scrape())
        with contextlib.ExitStack() as visitors:
            for _ in range(3):
                visitor = visitors.enter_context(tunnel.connect())
                visitor.sendall(b"0123456789")
                read_exactly(visitor, 10)
            during = self.metrics.scrape()
            self.check(during)
            self.assertEqual(during.value("diglett_streams"), 3)
            self.assertEqual(during.value("diglett_visitors"), 3)
            self.assertEqual(during.value("diglett_name_streams", name="example"), 3)
            self.assertEqual(during.value("diglett_bytes_total", direction="to_backend"), 30)
            self.assertEqual(during.value("diglett_bytes_total", direction="to_visitor"), 30)
            self.assertEqual(during.counted("diglett_streams_closed_total", "side", "reason"), {})
        after = self.metrics.wait(lambda scrape: scrape.value("diglett_streams") == 0, "the streams to end")
        self.check(after)
        tunnel.agent.stop()
        gone = self.metrics.wait(lambda scrape: not scrape.all("diglett_name_streams"), "the name to go")
        self.check(gone)
        self.assertEqual(gone.all("diglett_name_bytes_total"), {})
        self.assertEqual(gone.value("diglett_bytes_total", direction="to_visitor"), 30)
        self.assertEqual(sum(gone.all("diglett_names").values()), 0)
        self.assertEqual(sum(gone.counted("diglett_links_closed_total", "side", "reason").values()), 1)

    def test_names_are_not_shown_unasked(self):
        self.stage.expose(self.backend(), gateway=self.gateway())
        self.assertNotIn("example", self.metrics.scrape().text)

    def test_congested_link(self):
        """If an agent is stopped, the gateway's bytes wait, and a metric has the delay."""
        backend = self.stage.use(Listener(serve_never_reads)).address
        tunnel = self.stage.expose(backend, gateway=self.gateway())
        with contextlib.ExitStack() as stack:
            visitors = [stack.enter_context(tunnel.connect()) for _ in range(16)]
            self.metrics.wait(
                lambda scrape: scrape.value("diglett_stream_open_seconds_count") == 16, "the streams to be open")
            self.assertEqual(self.metrics.scrape().value("diglett_congested_links"), 0)
            tunnel.agent.send_signal(signal.SIGSTOP)
            for visitor in visitors:
                visitor.setblocking(False)

            def push():
                for visitor in visitors:
                    with contextlib.suppress(BlockingIOError):
                        while visitor.send(bytes(1 << 16)):
                            pass

            self.metrics.wait(
                lambda scrape: push() or scrape.value("diglett_congested_links") == 1, "the link to be full")
            tunnel.agent.send_signal(signal.SIGCONT)
            after = self.metrics.wait(
                lambda scrape: scrape.value("diglett_congested_links") == 0, "the link to be free again")
        self.assertLess(0, after.value("diglett_link_queue_delay_seconds_count"))
        self.assertLess(0, after.value("diglett_link_queue_delay_seconds_sum"))

    def test_loop_and_process(self):
        self.gateway()
        scrape = self.metrics.wait(lambda scrape: scrape.value("diglett_loop_lag_seconds_count") >= 1, "two ticks")
        self.assertLess(scrape.value("diglett_loop_lag_seconds_sum"), 5)
        self.assertEqual(len(scrape.all("diglett_build_info")), 1)
        self.assertAlmostEqual(
            scrape.value("process_resident_memory_bytes") / 1024, self.server.resident_kib(), delta=8_192)
        # The gateway also counts the scrape's own connection.
        self.assertIn(scrape.value("process_open_fds") - self.server.descriptors(), (0, 1))
        started = scrape.value("process_start_time_seconds")
        self.assertAlmostEqual(started, os.stat(f"/proc/{self.server.pid}").st_mtime, delta=2)
        again = self.metrics.scrape()
        self.assertEqual(again.value("process_start_time_seconds"), started)
        self.assertLess(0, again.value("process_cpu_seconds_total"))


class Ends(MetricsTest):
    """One counter for each reason of a refusal or an end."""

    def test_killed_agent(self):
        backend = self.stage.use(Listener(serve_echo)).address
        settings = configure(self.stage, '[limits]\nresume-window = "1s"\n')
        tunnel = self.stage.expose(backend, gateway=self.gateway("-c", settings))
        with tunnel.connect() as first, tunnel.connect() as second:
            for visitor in (first, second):
                visitor.sendall(b"x")
                read_exactly(visitor, 1)
            tunnel.agent.kill()
            waiting = self.metrics.wait(lambda scrape: scrape.value("diglett_links_detached") == 1, "the link to wait")
            self.assertEqual(waiting.value("diglett_streams"), 2)
            after = self.metrics.wait(lambda scrape: scrape.value("diglett_streams") == 0, "the streams to end")
        self.assertEqual(after.counted("diglett_streams_closed_total", "side", "reason"), {("gateway", "dead"): 2})
        self.assertEqual(sum(after.all("diglett_links").values()), 0)
        self.assertEqual(after.value("diglett_agents"), 0)
        lost = after.counted("diglett_links_detached_total", "side", "reason")
        # The agent's kernel closes the connection gracefully or with a reset.
        self.assertIn(lost, ({("agent", "closed"): 1}, {("network", "socket-error"): 1}))
        self.assertEqual(after.counted("diglett_links_closed_total", "side", "reason"), {("gateway", "dead"): 1})
        self.assertEqual(after.value("diglett_limit_hits_total", limit="resume-window"), 1)
        self.assertEqual(after.value("diglett_links_detached"), 0)
        self.assertEqual(after.counted("diglett_strangers_closed_total", "side", "reason"), {})

    def test_backend_that_refuses(self):
        tunnel = self.stage.expose("127.0.0.1:9", gateway=self.gateway())
        with self.assertRaises(ConnectionResetError), tunnel.connect() as visitor:
            visitor.recv(1)
        after = self.metrics.wait(lambda scrape: scrape.value("diglett_streams") == 0, "the stream to end")
        self.assertEqual(after.counted("diglett_streams_closed_total", "side", "reason"), {("agent", "refused"): 1})
        self.assertEqual(after.value("diglett_stream_open_seconds_count"), 0)

    def test_visitor_that_breaks_off(self):
        backend = self.stage.use(Listener(serve_echo)).address
        tunnel = self.stage.expose(backend, gateway=self.gateway())
        with tunnel.connect() as visitor:
            visitor.sendall(b"x")
            read_exactly(visitor, 1)
            visitor.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        after = self.metrics.wait(lambda scrape: scrape.value("diglett_streams") == 0, "the stream to end")
        self.assertEqual(
            after.counted("diglett_streams_closed_total", "side", "reason"), {("visitor", "socket-error"): 1})

    def test_refused_logins(self):
        agents = AgentsFile(self.stage, state=self.stage.new_directory("gateway-state"))
        agents.add("alice", "--names", "example")
        self.gateway(state=agents.state)
        for _ in range(2):
            self.stage.agent(self.server, "-t", "dgl_alice_wrong", "-n", "example", "9").wait_exit()
        after = self.metrics.scrape()
        self.assertEqual(after.counted("diglett_logins_total", "result"), {"login-refused": 2})
        self.assertEqual(
            after.counted("diglett_strangers_closed_total", "side", "reason"), {("gateway", "login-refused"): 2})
        self.assertEqual(after.value("diglett_strangers"), 0)
        self.assertEqual(after.value("diglett_authenticator_duration_seconds_count", question="login"), 2)

    def test_agent_from_elsewhere(self):
        hosts = self.stage.use(TwoHosts())
        path = self.stage.directory / "metrics.sock"
        self.gateway(place=f"unix:{path}", listen=f"{hosts.NEAR_ADDRESS}:0", prefix=hosts.near)
        # Each refused login adds 5 s to the penalty; from 15 s on handshakes wait.
        for _ in range(5):
            agent = self.stage.agent(
                self.server, "--pin", self.server.pin, "-n", "example", "9", prefix=hosts.far)
            self.assertEqual(agent.wait_exit(), 12)
        after = self.metrics.scrape()
        self.assertEqual(after.counted("diglett_agent_connections_total", "result"), {"admitted": 5})
        self.assertEqual(after.counted("diglett_logins_total", "result"), {"not-loopback": 5})
        self.assertLess(0, after.value("diglett_limit_hits_total", limit="penalty-wait"))
        self.assertEqual(after.value("diglett_penalties"), 1)

    def test_strangers(self):
        self.gateway()
        with socket.create_connection((self.server.host, self.server.port), 15) as silent:
            self.metrics.wait(lambda scrape: scrape.value("diglett_strangers") == 1, "the stranger")
            with socket.create_connection((self.server.host, self.server.port), 15) as chatty:
                chatty.sendall(b"GET / HTTP/1.1\r\n\r\n")
                with contextlib.suppress(ConnectionResetError):
                    read_all(chatty)
            self.metrics.wait(lambda scrape: scrape.value("diglett_strangers") == 1, "the other one to go")
            silent.shutdown(socket.SHUT_WR)
            read_all(silent)
        after = self.metrics.wait(lambda scrape: scrape.value("diglett_strangers") == 0, "both to go")
        self.assertEqual(
            after.counted("diglett_strangers_closed_total", "side", "reason"),
            {("gateway", "other-protocol"): 1, ("agent", "closed"): 1})
        self.assertEqual(after.counted("diglett_links_closed_total", "side", "reason"), {})

    def test_refused_names(self):
        self.stage.expose("9", gateway=self.gateway())
        self.stage.agent(self.server, "-n", "example", "9").wait_exit()
        self.stage.agent(self.server, "--public-port", "1", "-n", "other", "9").wait_exit()
        after = self.metrics.scrape()
        self.assertEqual(
            after.counted("diglett_names_refused_total", "code"), {"name-taken": 1, "port-not-allowed": 1})
        self.assertEqual(after.value("diglett_names_registered_total"), 1)
        self.assertEqual(after.value("diglett_authenticator_duration_seconds_count", question="name"), 3)

    def test_agent_with_enough_streams(self):
        agents = AgentsFile(self.stage, state=self.stage.new_directory("gateway-state"))
        token = agents.add("alice", "--names", "example").token
        agents.set("alice", "max-streams = 1")
        self.gateway(state=agents.state)
        backend = self.stage.use(Listener(serve_echo)).address
        tunnel = self.stage.expose(backend, "-t", token, gateway=self.server)
        with tunnel.connect() as first:
            first.sendall(b"x")
            read_exactly(first, 1)
            with self.assertRaises(ConnectionResetError), tunnel.connect() as second:
                second.recv(1)
            during = self.metrics.scrape()
        self.assertEqual(
            during.counted("diglett_visitors_total", "result"), {"admitted": 1, "agent-limit": 1})

    def test_bad_headers(self):
        self.gateway("--accept-proxy-protocol", "127.0.0.1")
        tunnel = self.stage.expose("9", gateway=self.server)
        with contextlib.suppress(ConnectionResetError), tunnel.connect() as visitor:
            visitor.sendall(b"GET / HTTP/1.1\r\n\r\n")
            visitor.recv(1)
        after = self.metrics.wait(lambda scrape: scrape.value("diglett_visitors") == 0, "the visitor to go")
        self.assertEqual(after.counted("diglett_visitors_total", "result"), {"header-bad": 1})

    def test_banned(self):
        backend = self.stage.use(Listener(serve_echo)).address
        tunnel = self.stage.expose(backend, gateway=self.gateway())

        def ban(network):
            result = run(self.stage, "diglett-server", "--state-dir", self.server.state, "ctl", "ban", network)
            self.assertEqual(result.returncode, 0, result.stderr)

        with socket.create_connection(("127.0.0.1", tunnel.port), 15, ("127.0.0.9", 0)) as first:
            first.sendall(b"x")
            read_exactly(first, 1)
            ban("127.0.0.9")
            with self.assertRaises(ConnectionResetError):
                read_all(first)
        with self.assertRaises(ConnectionResetError), \
                socket.create_connection(("127.0.0.1", tunnel.port), 15, ("127.0.0.9", 0)) as second:
            read_all(second)
        after = self.metrics.wait(lambda scrape: scrape.value("diglett_streams") == 0, "the stream to end")
        self.assertEqual(after.counted("diglett_visitors_total", "result"), {"admitted": 1, "banned": 1})
        self.assertEqual(after.counted("diglett_streams_closed_total", "side", "reason"), {("gateway", "denied"): 1})
        self.assertEqual(after.value("diglett_bans"), 1)
        ban("127.0.0.1")
        cut = self.metrics.wait(
            lambda scrape: scrape.all("diglett_agent_connections_total")[(("result", "banned"),)], "the agent's return")
        self.assertEqual(cut.counted("diglett_links_closed_total", "side", "reason"), {("gateway", "denied"): 1})

    def test_registrar_that_fails(self):
        hook = Hook(self.stage, 'answer(ok=not is_on("failing") or request["action"] != "publish")')
        hook.switch("failing")
        self.gateway("-c", configure(self.stage, registrar([hook.path]) + registrar([hook.path])))
        self.stage.agent(self.server, "-n", "example", "9")
        failing = self.metrics.wait(
            lambda scrape: all(scrape.value("diglett_registrar_failing", registrar=registrar) == 1
                               for registrar in ("exec", "exec-2")), "the failures")
        self.check(failing)
        self.assertEqual(failing.value("diglett_names", state="waiting"), 1)
        self.assertEqual(failing.value("diglett_registrar_failing", registrar="print"), 0)
        self.assertLess(0, failing.value("diglett_registrar_failures_total", registrar="exec"))
        hook.switch("failing", on=False)
        working = self.metrics.wait(lambda scrape: scrape.value("diglett_names", state="public") == 1, "the name")
        self.assertEqual(sum(working.all("diglett_registrar_failing").values()), 0)
        self.assertLess(0, working.value("diglett_registrar_duration_seconds_sum", registrar="exec"))


class Listening(MetricsTest):
    """The listener of the metrics, and who can read it."""

    def test_answers(self):
        self.gateway()
        good = self.metrics.ask()
        self.assertEqual((good.status, good.getheader("Content-Type")),
                         (200, "text/plain; version=0.0.4; charset=utf-8"))
        self.assertEqual(self.metrics.ask("/metrics?name=x").status, 200)
        self.assertEqual(self.metrics.ask(f"http://{self.metrics.place}/metrics").status, 200)
        self.assertIn("/metrics", self.metrics.ask("/").text)
        for path in ("/metric", "/metrics/", "//metrics", "/%6Detrics", "/../metrics"):
            self.assertEqual(self.metrics.ask(path).status, 404, path)
        head = self.metrics.ask(method="HEAD")
        self.assertEqual((head.status, head.text), (200, ""))
        self.assertLess(1_000, int(head.getheader("Content-Length")))
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "get"):
            refused = self.metrics.ask(method=method)
            self.assertEqual((refused.status, refused.getheader("Allow")), (405, "GET, HEAD"), method)

    def test_garbage(self):
        self.gateway()
        for words in (b"\r\n\r\n", b"GET /metrics\r\n\r\n", b"GET  /metrics HTTP/1.1\r\n\r\n", b"\0\xff\r\n\r\n",
                      b"GET metrics HTTP/1.1\r\n\r\n", b"GET /metrics HTTP/2\r\n\r\n", b"x" * 100_000):
            with self.subTest(words[:30]), self.metrics.dial() as client:
                with contextlib.suppress(ConnectionError):
                    client.sendall(words)
                self.assertTrue(client.recv(1 << 16).startswith(b"HTTP/1.1 400 "))
        # Lines may end with LF alone (RFC 9112, 2.2): the gateway answers at once.
        with self.metrics.dial() as client:
            client.sendall(b"GET /metrics HTTP/1.1\nHost: x\n\n")
            self.assertTrue(client.recv(1 << 16).startswith(b"HTTP/1.1 200 "))
        # A request in pieces, with an immediate half-close, as some clients send it.
        with self.metrics.dial() as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in b"GET /metrics HTTP/1.1\r\n\r\n":
                client.sendall(bytes([byte]))
            client.shutdown(socket.SHUT_WR)
            head, _, body = read_all(client).partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 200 "))
        self.check(Scrape(body.decode()))

    def test_hanging_scrapers(self):
        """Hanging scrapers block neither other scrapers nor the gateway, and are disconnected."""
        tunnel = self.stage.expose(self.stage.use(Listener(serve_echo)).address, gateway=self.gateway())
        with contextlib.ExitStack() as stack:
            hanging = [stack.enter_context(self.metrics.dial()) for _ in range(80)]
            for number, client in enumerate(hanging):
                with contextlib.suppress(ConnectionError):
                    # Some send a request and do not read, some never complete their request.
                    client.sendall(b"GET /metrics HTTP/1.1\r\n" + (b"\r\n" if number % 2 else b""))
            self.check(self.metrics.scrape())
            self.assertLess(self.server.descriptors(), 80)
            with tunnel.connect() as visitor:
                visitor.sendall(b"x")
                read_exactly(visitor, 1)
            for client in hanging:
                # The gateway closes it within five seconds, gracefully or with a reset.
                with contextlib.suppress(ConnectionResetError):
                    read_all(client)
        self.check(self.metrics.scrape())

    def test_unix_socket(self):
        path = self.stage.directory / "metrics.sock"
        gateway = self.gateway(place=f"unix:{path}")
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o660)
        self.check(self.metrics.scrape())
        second = self.stage.gateway("--metrics", f"unix:{path}", ready=False)
        self.assertEqual(second.wait_exit(), 71)
        self.assertIn("another program listens", second.output)
        self.check(self.metrics.scrape())
        # A socket left by a crash does not prevent a start.
        gateway.kill()
        self.assertTrue(path.exists())
        third = self.gateway(place=f"unix:{path}")
        self.check(self.metrics.scrape())
        self.assertEqual(third.stop(), 0)
        self.assertFalse(path.exists())

    def test_file_in_the_way(self):
        path = self.stage.directory / "precious"
        path.write_text("precious")
        gateway = self.stage.gateway("--metrics", f"unix:{path}", ready=False)
        self.assertEqual(gateway.wait_exit(), 71)
        self.assertEqual(path.read_text(), "precious")

    def test_port_that_is_taken(self):
        other = self.stage.use(Listener(serve_echo))
        gateway = self.stage.gateway("--metrics", other.address, ready=False)
        self.assertEqual(gateway.wait_exit(), 71)
        self.assertIn("metrics: cannot listen", gateway.output)

    def test_refused_addresses(self):
        for place in ("0.0.0.0:0", "[::]:0", "192.0.2.1:1", "example.com:1"):
            with self.subTest(place):
                gateway = self.stage.gateway("--metrics", place, ready=False)
                self.assertEqual(gateway.wait_exit(), 64)
                self.assertIn("not a loopback address", gateway.output)
                file = configure(self.stage, f'metrics = "{place}"\n')
                gateway = self.stage.gateway("-c", file, ready=False)
                self.assertEqual(gateway.wait_exit(), 78)
                self.assertIn(f"{file}:1", gateway.output)
        for place in ("", "1", "localhost", "unix:", "unix:metrics.sock", "unix:/" + "x" * 107):
            with self.subTest(place):
                self.assertEqual(self.stage.gateway("--metrics", place, ready=False).wait_exit(), 64)
        self.assertEqual(self.stage.gateway("--metrics-per-name", ready=False).wait_exit(), 64)

    def test_open_when_written_out(self):
        self.gateway("--metrics-insecure-ok", place="0.0.0.0:0")
        self.metrics.place = self.metrics.place.replace("0.0.0.0", "127.0.0.9")
        self.check(self.metrics.scrape())
        file = configure(self.stage, 'metrics = "[::]:0"\nmetrics-insecure-ok = true\n')
        self.assertTrue(Metrics(self.stage.gateway("-c", file)).place.startswith("[::]:"))

    def test_off_by_default(self):
        gateway = self.stage.gateway()
        self.assertEqual(self.stage.expose("9", gateway=gateway).gateway, gateway)
        self.assertNotIn("metrics", gateway.output)

    def test_shown_to_the_end(self):
        """An operator who stops a gateway can watch its streams end."""
        tunnel = self.stage.expose(self.stage.use(Listener(serve_echo)).address, gateway=self.gateway())
        with tunnel.connect() as visitor:
            visitor.sendall(b"x")
            read_exactly(visitor, 1)
            self.server.send_signal(signal.SIGTERM)
            self.server.wait_log("stopping: waiting up to 30 s for 1 stream")
            during = self.metrics.scrape()
            self.check(during)
            self.assertEqual(during.value("diglett_streams"), 1)
        self.assertEqual(self.server.wait_exit(), 0)


class Shipped(MetricsTest):
    """The dashboard, the alerts and the manual match the metrics."""

    def full_scrape(self):
        hook = Hook(self.stage)
        self.gateway("--metrics-per-name", "-c", configure(self.stage, registrar([hook.path])))
        self.stage.expose("9", gateway=self.server)
        return self.metrics.scrape()

    @staticmethod
    def metrics_in(query):
        """Names of metrics in a query: `up`, and words with an underscore that are neither labels nor functions."""
        query = re.sub(r'"[^"]*"', "", query)
        query = re.sub(r"\b(by|on|without|ignoring|group_left)\s*\([^)]*\)", "", query)
        query = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", query)
        return {word for word in re.findall(r"[a-z][a-z0-9_]*(?![a-z0-9_(])", query) if "_" in word or word == "up"}

    def panels(self):
        """All panels of the dashboard, including those inside rows."""
        dashboard = json.loads(DASHBOARD.read_text())
        for panel in dashboard["panels"]:
            yield panel
            yield from panel.get("panels", [])

    def queries(self):
        for panel in self.panels():
            for target in panel.get("targets", []):
                yield panel["title"], target["expr"]

    def test_dashboard(self):
        known = self.full_scrape().names
        shown = set()
        for title, query in self.queries():
            names = self.metrics_in(query)
            self.assertTrue(names, f"{title}: no metric in {query}")
            self.assertLessEqual(names, known, title)
            shown |= names
        for name in ("agents", "names", "streams", "bytes_total", "visitors_total", "logins_total",
                     "stream_open_seconds_bucket", "link_queue_delay_seconds_bucket", "registrar_failing"):
            self.assertIn(f"diglett_{name}", shown)
        panels = list(self.panels())
        numbers = [panel["id"] for panel in panels]
        self.assertEqual(len(set(numbers)), len(numbers))
        for panel in panels:
            if panel["type"] != "row":
                self.assertEqual(panel["datasource"], {"type": "prometheus", "uid": "${datasource}"}, panel["title"])

    def test_queries_are_understood(self):
        """Prometheus parses the queries, as recording rules."""
        rules = [{"record": f"x{number}", "expr": query.replace("$__rate_interval", "5m").replace("$job", "x")
                  .replace("$instance", "x")} for number, (_, query) in enumerate(self.queries())]
        self.assertLess(15, len(rules))
        file = self.stage.directory / "queries.yml"
        # JSON is YAML.
        file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
        self.assertEqual(promtool("check", "rules", file), "")

    def test_alerts(self):
        self.assertEqual(promtool("check", "rules", RULES), "")
        self.assertEqual(promtool("test", "rules", RULES_TEST), "")
        known = self.full_scrape().names
        expressions = re.findall(r"^ *expr: (.+)$", RULES.read_text(), re.MULTILINE)
        self.assertEqual(len(expressions), RULES.read_text().count("- alert: "))
        for expression in expressions:
            self.assertTrue(self.metrics_in(expression))
            self.assertLessEqual(self.metrics_in(expression), known | {"up"}, expression)

    def test_manual(self):
        """The table in docs/monitoring.md has each metric with its type and labels."""
        scrape = self.full_scrape()
        labels = {}
        for name, have in scrape.samples:
            family = name if name in scrape.types else re.sub("_(bucket|sum|count)$", "", name)
            labels.setdefault(family, set()).update(key for key, _ in have if key != "le")
        section = MANUAL.read_text().split("\n## Metrics\n")[1].split("\n## ")[0]
        documented = {}
        for name, kind, words in re.findall(r"^\| `([a-z_]+)` \| (\w+) \|([^|]*)\|", section, re.MULTILINE):
            self.assertNotIn(name, documented)
            documented[name] = (kind, set(re.findall("`([a-z]+)`", words)))
        self.assertEqual(documented, {name: (kind, labels.get(name, set())) for name, kind in scrape.types.items()})
        # The table lists all values of these labels.
        for name in ("visitors_total", "logins_total", "agent_connections_total", "names", "limit", "links"):
            row = re.search(rf"^\| `diglett_{name}` .*$", section, re.MULTILINE).group()
            for (_, value), in scrape.all(f"diglett_{name}"):
                self.assertIn(f"`{value}`", row)
