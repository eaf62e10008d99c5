"""Connections between agent and gateway break; visitors and backends notice nothing but a pause."""

import hmac
import os
import signal
import socket
import struct
import subprocess
import threading
import time
import unittest

import rawtls
import v2peer
import websocket
from administration import run
from backends import Listener, UploadServer, read_all, serve_echo, write_random_file
from harness import EndToEndTest, fast, free_port, wait_until
from hooks import configure
from hostile import RESET, Relay, collect, readable
from realservers import Postgres, Sshd, python_http_server, require
from sessions import SessionTest
from visitors import at_once, curl, file_sha256, read_exactly, sha256, sha256_of

MIB = 1 << 20
# A path on which a transfer of this size takes several of the intervals below.
BATCH = 0.02
CUT_EVERY = 0.7
SIZE = (16 if fast() else 64) * MIB


class Transfers(SessionTest):
    """Real clients and servers, with a reset of the link every 0.7 s."""

    def file(self):
        path = self.stage.new_directory("files") / "file"
        write_random_file(path, SIZE)
        return path

    def test_download(self):
        path = self.file()
        port = free_port()
        python_http_server(self.stage, port, path.parent, "127.0.0.1")
        self.start(port, batch=BATCH)
        with self.relay.cutting(CUT_EVERY) as cuts:
            wait_until(lambda: cuts, "the first cut")
            for _ in range(1 if fast() else 3):
                self.assertEqual(sha256_of(f"{self.url}/file"), file_sha256(path))
        self.check_resumed(cuts)

    def test_upload(self):
        path = self.file()
        self.start(self.stage.use(UploadServer()).address, batch=BATCH)
        with self.relay.cutting(CUT_EVERY) as cuts:
            for _ in range(1 if fast() else 3):
                result = curl("-T", path, f"{self.url}/", timeout=90)
                self.assertEqual((result.returncode, result.stdout.decode()), (0, file_sha256(path)))
        self.check_resumed(cuts)

    def test_fifty_visitors_at_once(self):
        path = self.stage.new_directory("files") / "file"
        write_random_file(path, SIZE // 50)
        port = free_port()
        python_http_server(self.stage, port, path.parent, "127.0.0.1")
        self.start(port, batch=BATCH)
        expected = file_sha256(path)
        with self.relay.cutting(CUT_EVERY) as cuts:
            for _ in range(2 if fast() else 4):
                self.assertEqual(set(at_once(50, lambda _: sha256_of(f"{self.url}/file"))), {expected})
            wait_until(lambda: len(cuts) >= 2, "two cuts")
        self.check_resumed(cuts)

    def test_ssh(self):
        sshd = Sshd(self.stage)
        self.start(sshd.address)
        # Sends a line every 30 ms, like a person typing, and waits for its echo.
        command = [*sshd.client("ssh", self.port), "127.0.0.1", "cat"]
        with self.relay.cutting(CUT_EVERY) as cuts, subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as ssh:
            for number in range(100):
                line = b"%d\n" % number
                ssh.stdin.write(line)
                ssh.stdin.flush()
                self.assertEqual(ssh.stdout.readline(), line)
                time.sleep(0.03)
            ssh.stdin.close()
            self.assertEqual((ssh.stdout.read(), ssh.wait(10)), (b"", 0))
        self.check_resumed(cuts)

    def test_websocket(self):
        self.start(self.stage.use(Listener(websocket.serve_echo)).address)
        with self.connect() as visitor, self.relay.cutting(CUT_EVERY) as cuts:
            peer = websocket.connect(visitor, "example")
            while len(cuts) < 4:
                payload = os.urandom(60_000)
                peer.send(websocket.BINARY, payload)
                opcode, echo = peer.receive()
                self.assertEqual((opcode, sha256(echo)), (websocket.BINARY, sha256(payload)))
            peer.send(websocket.CLOSE, b"\x03\xe8")
            self.assertEqual(peer.receive(), (websocket.CLOSE, b"\x03\xe8"))
        self.check_resumed(cuts)

    def test_psql_copy(self):
        postgres = Postgres(self.stage)
        self.start(f"127.0.0.1:{postgres.port}", batch=BATCH)
        psql = require("psql")
        query = "COPY (SELECT n, md5(n::text) FROM generate_series(1, 400000) n) TO STDOUT"

        def copy(port):
            command = [psql, "-X", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-c", query]
            result = subprocess.run(command, capture_output=True, timeout=90, env=postgres.superuser, check=True)
            return sha256(result.stdout)

        expected = copy(postgres.port)
        with self.relay.cutting(CUT_EVERY) as cuts:
            while len(cuts) < 3:
                self.assertEqual(copy(self.port), expected)
        self.check_resumed(cuts)

    def test_iperf3_in_both_directions(self):
        iperf3 = require("iperf3")
        port = free_port()
        server = self.stage.start("iperf3", [iperf3, "-s", "-1", "-p", port, "--forceflush"])
        server.wait_line(server.stdout, lambda line: "listening" in line, "iperf3 to listen")
        self.start(f"127.0.0.1:{port}")
        with self.relay.cutting(CUT_EVERY) as cuts:
            result = subprocess.run(
                [iperf3, "-c", "127.0.0.1", "-p", str(self.port), "--bidir", "-t", "3"],
                capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.check_resumed(cuts)


class Pauses(SessionTest):
    """What happens while the agent is not connected."""

    def echo(self):
        """The address of an echo server."""
        return self.stage.use(Listener(serve_echo)).address

    def test_visitors_wait_for_the_agent(self):
        self.start(self.echo())
        self.lose()
        self.gateway.wait_log("is not connected")
        listed = run(self.stage, "diglett-server", "ctl", "agents", "--state-dir", self.gateway.state).stdout
        self.assertRegex(listed, r"127\.0\.0\.1:\d+, away for \ds .* example")
        with self.connect() as visitor:
            visitor.sendall(b"hello")
            visitor.shutdown(socket.SHUT_WR)
            self.relay.heal()
            self.assertEqual(read_all(visitor), b"hello")
        self.assertEqual(self.agent.events("lost"), [])

    def test_after_the_window_streams_are_reset_and_the_name_returns(self):
        self.start(self.echo(), gateway=("-c", configure(self.stage, "[limits]\nresume-window = \"1s\"\n")))
        with self.open_stream() as visitor:
            self.lose()
            self.assertEqual(collect(visitor), (b"", RESET))
        self.agent.wait_event("lost")
        self.relay.heal()
        since = len(self.agent.stdout)
        self.assertEqual(self.agent.wait_registered(since=since, timeout=30), self.port)
        self.gateway.wait_log("not resumed within 1 s")

    def test_without_a_window_a_link_ends_with_its_connection(self):
        for side in ("gateway", "agent"):
            with self.subTest(side):
                limits = "resume-window = \"0\"\n"
                backend = self.echo()
                if side == "gateway":
                    self.start(backend, gateway=("-c", configure(self.stage, f"[limits]\n{limits}")))
                else:
                    path = self.stage.new_directory("settings") / "diglett.toml"
                    self.gateway = self.stage.gateway()
                    self.relay = self.stage.use(Relay(self.gateway.address))
                    path.write_text(f"gateway = \"{self.relay.address}\"\n{limits}"
                                    f"[[expose]]\nname = \"example\"\nbackend = \"{backend}\"\n")
                    self.agent = self.stage.agent(self.relay.address, "-c", path)
                    self.port = self.agent.wait_registered()
                with self.open_stream() as visitor:
                    self.relay.cut()
                    self.assertEqual(collect(visitor), (b"", RESET))
                self.agent.wait_event("lost")
                self.assertEqual(self.agent.events("interrupted"), [])

    def test_a_killed_gateway_resets_streams_and_the_agent_returns(self):
        self.start(self.echo())
        with self.open_stream() as visitor:
            self.gateway.kill()
            self.assertEqual(collect(visitor), (b"", RESET))
        since = len(self.agent.stdout)
        self.stage.gateway(listen=self.gateway.address, state=self.gateway.state)
        self.assertEqual(self.agent.wait_registered(since=since, timeout=30), self.port)
        self.agent.wait_event("lost", reason="dead: the gateway does not have the link any more")

    def test_a_new_program_of_the_agent_takes_over_from_one_that_was_killed(self):
        self.start(self.echo())
        with self.open_stream() as visitor:
            self.agent.kill()
            again = self.stage.agent(
                self.gateway, "-n", "example", self.echo(), state=self.agent.state)
            self.assertEqual(again.wait_registered(), self.port)
            self.assertEqual(collect(visitor), (b"", RESET))

    def test_a_stopped_agent_ends_its_link(self):
        self.start(self.echo())
        self.agent.stop()
        self.gateway.wait_unregistered("example")

    def test_an_agent_that_stops_while_it_is_not_connected(self):
        self.start(self.echo())
        with self.open_stream() as visitor:
            self.lose()
            self.assertEqual(self.agent.stop(), 0)

    def test_a_gateway_that_stops_while_an_agent_is_not_connected(self):
        self.start(self.echo())
        with self.open_stream() as visitor:
            self.lose()
            self.gateway.wait_log("is not connected")
            self.assertEqual(self.gateway.stop(timeout=10), 0)
            self.assertEqual(collect(visitor), (b"", RESET))


class Sleeps(SessionTest):
    """The agent's machine sleeps, and its connection is gone when it wakes up."""

    SECONDS = 5 if fast() else 40

    def test_streams_go_on(self):
        self.start(self.stage.use(Listener(serve_echo)).address)
        with self.open_stream(90) as visitor:
            self.agent.send_signal(signal.SIGSTOP)
            time.sleep(1)
            self.relay.cut()
            visitor.sendall(b"are you there?")
            time.sleep(self.SECONDS)
            self.agent.send_signal(signal.SIGCONT)
            self.assertEqual(read_exactly(visitor, 14), b"are you there?")
        self.assertEqual(self.agent.events("lost"), [])


class HostileResumption(EndToEndTest):
    """A peer in Python that violates the rules of sessions."""

    RESUME, RESUMED, ACK = 15, 16, 17
    SESSION_GONE, REPLACED, VIOLATION = 45, 41, 32
    HELLO = v2peer.hello_payload(extensions=v2peer.extension(2, struct.pack(">I", 65_536)))

    def setUp(self):
        super().setUp()
        self.gateway = self.stage.gateway("-d")
        self.key = os.urandom(32)

    def connect(self):
        return v2peer.Peer(rawtls.connect((self.gateway.host, self.gateway.port)))

    def log_in(self):
        """A peer with a session; its id and secret."""
        peer = self.connect()
        peer.send_login(key=self.key, run=1, hello=self.HELLO)
        welcome = peer.expect(v2peer.WELCOME).payload
        fields = v2peer.read_extensions(welcome[12:])
        return peer, fields[1][:16], fields[1][16:]

    def resume(self, peer, session, secret, epoch, handled, proof=None):
        exporter = peer.tls.export(b"EXPORTER-diglett-resume", 32)
        position = struct.pack(">IQ", epoch, handled)
        proof = proof or hmac.digest(secret, b"diglett resume" + exporter + session + position, "sha256")
        peer.send_raw(v2peer.encode(v2peer.HELLO, self.HELLO)
                      + v2peer.encode(self.RESUME, session + position + proof))
        return proof

    def resumed(self, peer):
        """(code, epoch, handled) of RESUMED."""
        code, _, epoch, handled = struct.unpack(">HHIQ", peer.expect(self.RESUMED).payload)
        return code, epoch, handled

    def test_a_session_continues_with_what_was_not_acknowledged(self):
        peer, session, secret = self.log_in()
        with peer:
            answer = peer.register("example")
            peer.cut()
        sent = 8 + len(v2peer.register_payload(0, "example"))
        received = 8 + 6 + len(answer.text)
        with self.connect() as again:
            self.resume(again, session, secret, 1, 0)
            self.assertEqual(self.resumed(again), (0, 1, sent))
            # REGISTERED is sent again, because this peer states that it has not handled it.
            self.assertEqual(again.answer_for(0), answer)
            again.send_frame(self.ACK, v2peer.u64(received))
            self.assertTrue(again.is_alive())

    def test_a_foreign_session_is_gone(self):
        peer, session, secret = self.log_in()
        with peer, self.connect() as thief:
            self.resume(thief, session, os.urandom(32), 1, 0)
            self.assertEqual(self.resumed(thief), (self.SESSION_GONE, 1, 0))
            # It may log in on the same connection.
            thief.send_frame(v2peer.LOGIN, v2peer.login_payload())
            thief.expect(v2peer.WELCOME)
            self.assertTrue(peer.is_alive())
        with self.connect() as stranger:
            self.resume(stranger, os.urandom(16), secret, 1, 0)
            self.assertEqual(self.resumed(stranger), (self.SESSION_GONE, 1, 0))

    def test_a_recorded_resume_is_worthless(self):
        peer, session, secret = self.log_in()
        with self.connect() as second, self.connect() as third:
            proof = self.resume(second, session, secret, 1, 0)
            self.assertEqual(self.resumed(second)[0], 0)
            # The gateway has closed the older connection.
            with peer:
                self.assertIsNone(peer.wait_end())
            self.resume(third, session, secret, 1, 0, proof)
            self.assertEqual(self.resumed(third)[0], self.SESSION_GONE)
            self.assertTrue(second.is_alive())

    def test_an_old_epoch_is_replaced(self):
        peer, session, secret = self.log_in()
        with peer, self.connect() as second, self.connect() as third:
            self.resume(second, session, secret, 7, 0)
            self.assertEqual(self.resumed(second), (0, 7, 0))
            self.resume(third, session, secret, 7, 0)
            self.assertEqual(third.wait_end().code, self.REPLACED)
            self.assertTrue(second.is_alive())

    def test_positions_out_of_range_end_the_session(self):
        for handled in (1, 1 << 40, (1 << 64) - 1):
            with self.subTest(handled):
                peer, session, secret = self.log_in()
                with peer, self.connect() as second:
                    self.resume(second, session, secret, 1, handled)
                    self.assertEqual(second.wait_end().code, self.VIOLATION)
                with self.connect() as third:
                    self.resume(third, session, secret, 2, 0)
                    self.assertEqual(self.resumed(third)[0], self.SESSION_GONE)

    def test_a_wrong_acknowledgement_ends_the_session(self):
        for handled in (1, 1 << 63, (1 << 64) - 1):
            with self.subTest(handled):
                peer, _, _ = self.log_in()
                with peer:
                    peer.send_frame(self.ACK, v2peer.u64(handled))
                    self.assertEqual(peer.wait_end().code, self.VIOLATION)

    def test_an_acknowledgement_that_goes_back(self):
        peer, _, _ = self.log_in()
        with peer:
            answer = peer.register("example")
            size = 8 + 6 + len(answer.text)
            peer.send_frame(self.ACK, v2peer.u64(size))
            self.assertTrue(peer.is_alive())
            peer.send_frame(self.ACK, v2peer.u64(size - 1))
            self.assertEqual(peer.wait_end().code, self.VIOLATION)

    def test_what_was_sent_again_cannot_be_acknowledged_before_it_is_sent(self):
        peer, session, secret = self.log_in()
        with peer:
            answer = peer.register("example")
            peer.cut()
        size = 8 + 6 + len(answer.text)
        with self.connect() as again:
            self.resume(again, session, secret, 1, size)
            self.assertEqual(self.resumed(again)[0], 0)
            again.send_frame(self.ACK, v2peer.u64(size + 1))
            self.assertEqual(again.wait_end().code, self.VIOLATION)

    def test_two_resumes_on_a_connection_are_a_violation(self):
        with self.connect() as peer:
            self.resume(peer, os.urandom(16), os.urandom(32), 1, 0)
            self.assertEqual(self.resumed(peer)[0], self.SESSION_GONE)
            peer.send_frame(self.RESUME, bytes(60))
            self.assertEqual(peer.wait_end().code, self.VIOLATION)

    def test_acknowledgements_without_a_session_are_a_violation(self):
        with self.connect() as peer:
            peer.log_in()
            peer.send_frame(self.ACK, v2peer.u64(0))
            self.assertEqual(peer.wait_end().code, self.VIOLATION)

    def test_a_flood_of_resumes_changes_nothing(self):
        peer, session, _ = self.log_in()
        before = self.gateway.resident_kib()
        with peer:
            for _ in range(100 if fast() else 300):
                with self.connect() as thief:
                    self.resume(thief, session, os.urandom(32), 1, 0)
                    self.assertEqual(self.resumed(thief)[0], self.SESSION_GONE)
            self.assertTrue(peer.is_alive())
        self.assertLess(self.gateway.resident_kib() - before, 4_096)

    def test_a_peer_that_never_acknowledges_is_bounded(self):
        peer, session, secret = self.log_in()
        with peer:
            port = peer.register("example").port
            with socket.create_connection(("127.0.0.1", port), 15) as visitor:
                opened = peer.expect(v2peer.OPEN)
                peer.send_frame(v2peer.ACCEPT, v2peer.u64(1 << 40), opened.stream)
                data = os.urandom(MIB)
                received = 0

                def pour():
                    try:
                        for _ in range(16):
                            visitor.sendall(data)
                    except OSError:
                        pass

                threading.Thread(target=pour, daemon=True).start()
                while peer.tls.pending() or readable(peer.tls, 2):
                    frame = peer.recv_frame()
                    if frame.type == v2peer.DATA:
                        received += len(frame.payload)
                # 512 KiB, and the frames of a turn.
                self.assertLess(received, 768 * 1024)
                self.assertGreater(received, 256 * 1024)
            peer.cut()


class FormerReleases(EndToEndTest):
    """Links of peers without sessions end with their connections; nothing else changes."""

    def check_frames(self, peer, seconds=0.5):
        """No frame of a session arrives for a while."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                self.assertLess(peer.recv_frame(left).type, HostileResumption.RESUME)
            except TimeoutError:
                return

    def test_former_agent(self):
        gateway = self.stage.gateway()
        with v2peer.connect((gateway.host, gateway.port)) as peer:
            peer.send_login()
            self.assertEqual(len(peer.expect(v2peer.WELCOME).payload), 12, "WELCOME has an extension")
            port = peer.register("example").port
            with socket.create_connection(("127.0.0.1", port), 15) as visitor:
                opened = peer.expect(v2peer.OPEN)
                peer.send_frame(v2peer.ACCEPT, v2peer.u64(1 << 20), opened.stream)
                for _ in range(20):
                    peer.send_frame(v2peer.DATA, bytes(10_000), opened.stream)
                read_exactly(visitor, 200_000)
                self.check_frames(peer)
                peer.cut()
                self.assertEqual(collect(visitor), (b"", RESET))
        gateway.wait_unregistered("example")

    def test_former_gateway(self):
        gateway = self.stage.use(v2peer.Listener(self.stage.new_directory("gateway")))
        agent = self.stage.agent(gateway.address, "-n", "example", self.stage.use(Listener(serve_echo)).address)
        with gateway.accept() as peer:
            peer.welcome()
            peer.take_register()
            peer.send_frame(v2peer.OPEN, v2peer.open_payload(0, 1 << 20), 1)
            peer.expect(v2peer.ACCEPT)
            for _ in range(4):
                peer.send_frame(v2peer.DATA, bytes(10_000), 1)
            self.check_frames(peer)
            peer.cut()
        agent.wait_event("lost")
        self.assertEqual(agent.events("interrupted"), [])
        with gateway.accept() as peer:
            peer.welcome()
            peer.take_register()


if __name__ == "__main__":
    unittest.main()
