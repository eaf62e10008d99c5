"""A log line for each ended stream, --log-streams."""

import json
import os
import re
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import backends
import version1
from administration import run
from backends import Listener
from harness import free_port, wait_until
from hooks import configure
from logs import ADDRESS, JSON, REQUEST, LogTest, address_of
from visitors import read_exactly

STREAMS = (*JSON, "--log-streams")
MIB = 1 << 20


class Streams(LogTest):
    def start(self, backend, *options, gateway=STREAMS, agent=STREAMS):
        return self.stage.expose(
            backend, *agent, gateway=self.stage.gateway(*gateway, *options))

    def wait_record(self, program, **wanted):
        """Waits for the record of the stream, and checks the fields that all records have."""
        record = self.wait_entry(program, event="stream", **wanted)
        self.assertEqual(record["level"], "info")
        self.assertEqual(record["name"], "example")
        self.assertGreaterEqual(record["duration-ms"], record.get("first-byte-ms", 0))
        self.assertEqual("first-byte-ms" in record, record["bytes-to-visitor"] > 0)
        return record

    def check_counts(self, record, sent, received):
        self.assertEqual((record["bytes-to-backend"], record["bytes-to-visitor"]), (sent, received))

    def check_end(self, record, reason, side):
        self.assertEqual((record["reason"], record["ended-by"]), (reason, side), record)
        self.assertEqual("error" in record, reason == "socket-error")

    def test_finished_download(self):
        backend = self.stage.use(Listener(backends.answering(os.urandom(5 * MIB)))).address
        tunnel = self.start(backend)
        with tunnel.connect() as visitor:
            began = time.monotonic()
            visitor.sendall(REQUEST)
            received = len(backends.read_all(visitor))
            source = address_of(visitor)
        at_gateway = self.wait_record(tunnel.gateway)
        took = (time.monotonic() - began) * 1000
        at_agent = self.wait_record(tunnel.agent)
        for record in (at_gateway, at_agent):
            self.check_counts(record, len(REQUEST), received)
            self.check_end(record, "finished", "backend")
            self.assertEqual(record["visitor"], source)
            self.assertGreater(record["first-byte-ms"], 0)
            # The connection existed a moment before `began`.
            self.assertLess(record["duration-ms"], took + 1000)
        self.assertRegex(at_gateway["agent"], "^instance-")
        self.assertRegex(at_gateway["peer"], ADDRESS)
        self.assertEqual((at_agent["backend"], at_agent["gateway"]), (backend, tunnel.gateway.address))
        self.assertNotIn("proxy", at_gateway)

    def test_upload_and_the_time_of_the_first_byte(self):
        """The answer starts 200 ms after the last byte of the request."""
        def serve(connection):
            read_exactly(connection, 3 * MIB)
            time.sleep(0.2)
            connection.sendall(b"thanks")

        tunnel = self.start(self.stage.use(Listener(serve)).address)
        with tunnel.connect() as visitor:
            visitor.sendall(os.urandom(3 * MIB))
            self.assertEqual(backends.read_all(visitor), b"thanks")
        for program in (tunnel.gateway, tunnel.agent):
            record = self.wait_record(program)
            self.check_counts(record, 3 * MIB, 6)
            self.assertGreaterEqual(record["first-byte-ms"], 200)

    def test_half_close(self):
        """The visitor ends its direction before the answer starts, so the stream counts as ended by the visitor."""
        tunnel = self.start(self.stage.use(Listener(backends.answering_after_end(b"late"))).address)
        with tunnel.connect() as visitor:
            visitor.sendall(REQUEST)
            visitor.shutdown(socket.SHUT_WR)
            received = len(backends.read_all(visitor))
        for program in (tunnel.gateway, tunnel.agent):
            record = self.wait_record(program)
            self.check_counts(record, len(REQUEST), received)
            self.check_end(record, "finished", "visitor")

    def test_visitor_breaks_off(self):
        began = threading.Event()

        def serve(connection):
            read_exactly(connection, 1000)
            began.set()
            backends.read_all(connection)

        tunnel = self.start(self.stage.use(Listener(serve)).address)
        visitor = tunnel.connect()
        visitor.sendall(b"x" * 1000)
        self.assertTrue(began.wait(10))
        backends.reset_on_close(visitor)
        visitor.close()
        record = self.wait_record(tunnel.gateway)
        self.check_counts(record, 1000, 0)
        self.check_end(record, "socket-error", "visitor")
        self.assertIn("reset", record["error"])
        record = self.wait_record(tunnel.agent)
        self.check_counts(record, 1000, 0)
        self.check_end(record, "aborted", "visitor")

    def test_backend_breaks_off(self):
        def serve(connection):
            backends.read_head(connection)
            connection.sendall(b"y" * 10)
            # Reset only after the visitor has received the bytes.
            connection.recv(1)
            backends.reset_on_close(connection)

        tunnel = self.start(self.stage.use(Listener(serve)).address)
        with tunnel.connect() as visitor:
            visitor.sendall(REQUEST)
            read_exactly(visitor, 10)
            visitor.sendall(b"z")
            with self.assertRaises(ConnectionResetError):
                visitor.recv(1)
        for program, reason in ((tunnel.gateway, "aborted"), (tunnel.agent, "socket-error")):
            record = self.wait_record(program)
            self.check_counts(record, len(REQUEST) + 1, 10)
            self.check_end(record, reason, "backend")

    def test_backend_refused(self):
        tunnel = self.start(f"127.0.0.1:{free_port()}")
        with tunnel.connect() as visitor, self.assertRaises(ConnectionResetError):
            visitor.recv(1)
        for program in (tunnel.gateway, tunnel.agent):
            record = self.wait_record(program)
            self.check_counts(record, 0, 0)
            self.check_end(record, "refused", "backend")

    def endless_download(self):
        # A stream may continue only for this long.
        settings = configure(self.stage, '[limits]\nresume-window = "1s"\n')
        script = Path(__file__).with_name("endless_download.py")
        backend = self.stage.start("backend", [sys.executable, script, "close"])
        tunnel = self.start(
            f"127.0.0.1:{backend.wait_line(backend.stdout, str.strip, 'its port')}", "-c", settings)
        visitor = self.stage.use(tunnel.connect())
        visitor.sendall(REQUEST)
        read_exactly(visitor, MIB)
        return tunnel, visitor

    def test_agent_killed(self):
        tunnel, _ = self.endless_download()
        tunnel.agent.kill()
        record = self.wait_record(tunnel.gateway)
        self.check_end(record, "dead", "agent")
        self.assertEqual(record["bytes-to-backend"], len(REQUEST))
        self.assertGreaterEqual(record["bytes-to-visitor"], MIB)

    def test_gateway_killed(self):
        tunnel, _ = self.endless_download()
        tunnel.gateway.kill()
        self.check_end(self.wait_record(tunnel.agent), "dead", "gateway")

    def test_gateway_cuts(self):
        """On a second signal the gateway does not wait for the streams."""
        tunnel, _ = self.endless_download()
        tunnel.gateway.send_signal(signal.SIGTERM)
        self.wait_entry(tunnel.gateway, message=re.compile("^stopping: waiting up to 30 s for 1 stream"))
        self.assertEqual(tunnel.gateway.stop(), 0)
        self.check_end(self.wait_record(tunnel.gateway), "drain", "gateway")
        self.check_end(self.wait_record(tunnel.agent), "dead", "gateway")

    def test_through_a_proxy(self):
        backend = self.stage.use(Listener(backends.answering(b"here"))).address
        tunnel = self.start(backend, "--accept-proxy-protocol", "127.0.0.1")
        with tunnel.connect() as proxy:
            proxy.sendall(b"PROXY TCP4 203.0.113.7 203.0.113.8 4711 80\r\n" + REQUEST)
            received = len(backends.read_all(proxy))
            source = address_of(proxy)
        record = self.wait_record(tunnel.gateway)
        self.check_counts(record, len(REQUEST), received)
        self.assertEqual((record["visitor"], record["proxy"]), ("203.0.113.7:4711", source))
        self.assertEqual(self.wait_record(tunnel.agent)["visitor"], "203.0.113.7:4711")

    def test_through_a_unix_socket(self):
        """Visitors at a unix socket have no address."""
        sockets = self.stage.directory / "names"
        backend = self.stage.use(Listener(backends.answering(b"here"))).address
        tunnel = self.start(backend, "--expose-sockets", sockets, "--expose-ports", "none")
        with socket.socket(socket.AF_UNIX) as visitor:
            visitor.settimeout(10)
            visitor.connect(str(sockets / "example.sock"))
            visitor.sendall(REQUEST)
            received = len(backends.read_all(visitor))
        for program in (tunnel.gateway, tunnel.agent):
            record = self.wait_record(program)
            self.check_counts(record, len(REQUEST), received)
            self.assertNotIn("visitor", record)
        self.assertEqual(self.wait_record(tunnel.gateway)["proxy"], "the unix socket")
        status = run(self.stage, "diglett-server", "--state-dir", tunnel.gateway.state, "ctl", "status", "--output", "json")
        self.assertEqual(json.loads(status.stdout)["visitors"], 0, "a place was not given back")

    def test_proxy_header_to_the_backend_does_not_count(self):
        def serve(connection):
            read_exactly(connection, len(b"PROXY TCP4 ") + 1)
            connection.sendall(backends.read_all(connection)[-5:])

        backend = self.stage.use(Listener(serve)).address
        tunnel = self.start(backend, agent=(*STREAMS, "--proxy-protocol", "v1"))
        with tunnel.connect() as visitor:
            visitor.sendall(b"hello")
            visitor.shutdown(socket.SHUT_WR)
            self.assertEqual(backends.read_all(visitor), b"hello")
        self.check_counts(self.wait_record(tunnel.agent), 5, 5)

    def test_version_1(self):
        backend = self.stage.use(Listener(backends.answering(os.urandom(MIB)))).address
        gateway = version1.own_gateway(self.stage, *STREAMS)
        agent = version1.own_agent(self.stage, gateway.address_v1, backend, *STREAMS)
        agent.wait_event("registered")
        port = self.wait_entry(gateway, message=re.compile("^register domain 'example'"))["port"]
        with socket.create_connection(("127.0.0.1", port), 10) as visitor:
            visitor.sendall(REQUEST)
            received = len(backends.read_all(visitor))
            source = address_of(visitor)
        record = self.wait_record(gateway)
        self.check_counts(record, len(REQUEST), received)
        self.check_end(record, "finished", "backend")
        self.assertEqual(record["visitor"], source)
        self.assertRegex(record["agent"], "^version1-")
        record = self.wait_record(agent)
        self.check_counts(record, len(REQUEST), received)
        self.check_end(record, "finished", "backend")
        self.assertNotIn("visitor", record, "version 1 does not tell it")

    def test_are_all_there_however_many_there_are(self):
        """All records are logged, while other lines about visitors are rate-limited."""
        count = 60
        tunnel = self.start(f"127.0.0.1:{free_port()}")
        for _ in range(count):
            # The reset may arrive before the visitor reads.
            with self.assertRaises(ConnectionResetError), tunnel.connect() as visitor:
                visitor.recv(1)
        for program in (tunnel.gateway, tunnel.agent):
            records = wait_until(
                lambda program=program: len(self.entries(program, event="stream")) >= count and
                self.entries(program, event="stream"), f"{count} records of the {program.label}")
            self.assertEqual(len(records), count)
            self.assertEqual(len({record["visitor"] for record in records}), count)

    def test_as_text(self):
        backend = self.stage.use(Listener(backends.answering(b"here"))).address
        switch = ("--log-streams",)
        tunnel = self.start(backend, gateway=switch, agent=switch)
        tunnel.gateway.wait_registered("example")
        with tunnel.connect() as visitor:
            visitor.sendall(REQUEST)
            received = len(backends.read_all(visitor))
            source = address_of(visitor)
        end = (rf"visitor {source}; finished by the backend after [\d.]+ ms; {len(REQUEST)} bytes to the backend, "
               rf"{received} to the visitor, the first after [\d.]+ ms$")
        tunnel.gateway.wait_log(rf"^\S+Z INFO  stream of 'example' by instance-\w+: {end}")
        tunnel.agent.wait_log(rf"^\S+Z INFO  stream of 'example' to {backend}: {end}")

    def test_by_the_file(self):
        server = self.stage.directory / "server.toml"
        server.write_text('log-format = "json"\nlog-streams = true\n')
        backend = self.stage.use(Listener(backends.answering(b"here"))).address
        tunnel = self.start(backend, gateway=("-c", server), agent=("-c", self.agent_file()))
        with tunnel.connect() as visitor:
            visitor.sendall(REQUEST)
            backends.read_all(visitor)
        self.wait_record(tunnel.gateway)
        self.wait_record(tunnel.agent)

    def agent_file(self):
        path = self.stage.directory / "agent.toml"
        path.write_text('log-format = "json"\nlog-streams = true\n')
        return path

    def test_none_without_the_switch(self):
        backend = self.stage.use(Listener(backends.answering(b"here"))).address
        without = ("-d", *JSON)
        tunnel = self.start(backend, gateway=without, agent=without)
        with tunnel.connect() as visitor:
            visitor.sendall(REQUEST)
            backends.read_all(visitor)
            done = {"visitor": address_of(visitor), "message": re.compile(" done$")}
        for program in (tunnel.gateway, tunnel.agent):
            self.wait_entry(program, name="example", **done)
            self.assertEqual(self.entries(program, event="stream"), [])
