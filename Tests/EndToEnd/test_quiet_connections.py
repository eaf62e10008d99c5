"""Connections that are idle for a long time."""

import os
import time

import websocket
from backends import Listener
from harness import EndToEndTest, fast
from visitors import sha256

MIB = 1 << 20


class WebSockets(EndToEndTest):
    """A connection must survive long idle periods."""

    GAPS = (0, 0.2, 1, 3, 8, 20)
    SIZES = (0, 1, 125, 126, 65_535, 65_536, 1 * MIB)

    def test_echo_with_idle_gaps(self):
        duration = float(os.environ.get("DIGLETT_E2E_WEBSOCKET_SECONDS", 5 if fast() else 60))
        tunnel = self.stage.expose(self.stage.use(Listener(websocket.serve_echo)).address)
        deadline = time.monotonic() + duration
        rounds = 0
        with tunnel.connect() as connection:
            peer = websocket.connect(connection, f"127.0.0.1:{tunnel.port}")
            while True:
                self.exchange(peer, rounds)
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                # The idle time is the object of the test, not a wait for an event.
                time.sleep(min(self.GAPS[rounds % len(self.GAPS)], left))
                rounds += 1
            peer.send(websocket.CLOSE, b"\x03\xe8")
            self.assertEqual(peer.receive(), (websocket.CLOSE, b"\x03\xe8"))
        self.assertGreater(rounds, 1)

    def exchange(self, peer, number):
        payload = os.urandom(self.SIZES[number % len(self.SIZES)])
        peer.send(websocket.BINARY, payload)
        opcode, echo = peer.receive()
        self.assertEqual((opcode, sha256(echo)), (websocket.BINARY, sha256(payload)))
        text = f"message {number} \N{EARTH GLOBE EUROPE-AFRICA}".encode()
        peer.send(websocket.TEXT, text)
        self.assertEqual(peer.receive(), (websocket.TEXT, text))
        peer.send(websocket.PING, b"still there?")
        self.assertEqual(peer.receive(), (websocket.PONG, b"still there?"))
