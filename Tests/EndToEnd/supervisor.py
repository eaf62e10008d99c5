"""A service manager for one program: its sockets, its messages, its store.

As far as a program can observe, it behaves like systemd according to sd_notify(3), sd_listen_fds(3) and
systemd.service(5).
"""

import collections
import itertools
import os
import socket
import sys
import threading
import time
from pathlib import Path

from harness import PATIENCE, Agent, Failure, Gateway, program_path

LAUNCHER = Path(__file__).with_name("supervised.py")

Message = collections.namedtuple("Message", "time fields")


class Supervisor:
    """Starts a program, as often as a test needs; a context manager.

    `sockets` are (name, listening socket) pairs, `environment` additional variables. `store` keeps the descriptors that
    the program stores, by name.
    """

    def __init__(self, stage, sockets=(), abstract=False, **environment):
        self.stage = stage
        self.sockets = list(sockets)
        self.environment = environment
        self.store = {}
        self.messages = []
        # Called in the receiving thread before the message is recorded.
        self.on_message = None
        self._changed = threading.Condition()
        self._reading = threading.Event()
        self._reading.set()
        path = str(stage.new_directory("manager") / "notify")
        self.address = f"@{path}" if abstract else path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address.replace("@", "\0", 1))
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._reading.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._socket.close()
        for kept in itertools.chain(*self.store.values()):
            os.close(kept)
        self.store = {}

    # Messages

    def _receive(self):
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._socket, 65536, 8)
            except OSError:
                return
            if not data:
                return
            self._reading.wait()
            fields = dict(line.split("=", 1) for line in data.decode().split("\n"))
            name = fields.get("FDNAME")
            if fields.get("FDSTOREREMOVE") == "1" and name in self.store:
                for kept in self.store.pop(name):
                    os.close(kept)
            if fields.get("FDSTORE") == "1":
                self.store.setdefault(name, []).extend(descriptors)
            if self.on_message:
                self.on_message(fields)
            with self._changed:
                self.messages.append(Message(time.monotonic(), fields))
                self._changed.notify_all()

    def pause(self):
        """Stops handling messages, like a busy service manager."""
        self._reading.clear()

    def resume(self):
        self._reading.set()

    def wait(self, since=0, timeout=PATIENCE, **wanted):
        """Waits for the first message from index `since` with all `wanted` fields, and returns it."""
        deadline = time.monotonic() + timeout
        with self._changed:
            position = since
            while True:
                while position < len(self.messages):
                    message = self.messages[position]
                    position += 1
                    if all(message.fields.get(key) == value for key, value in wanted.items()):
                        return message
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    raise Failure(f"timed out after {timeout:g} s waiting for {wanted}; there were "
                                  f"{[message.fields for message in self.messages[since:]]}")
                self._changed.wait(remaining)

    def all(self, key, since=0):
        """The values of a field in all messages so far."""
        with self._changed:
            return [message.fields[key] for message in self.messages[since:] if key in message.fields]

    @property
    def count(self):
        with self._changed:
            return len(self.messages)

    # The program

    def start(self, kind, program, *arguments):
        """Starts the program with the sockets and the stored descriptors; does not wait until it is ready."""
        named = [(name, opened.fileno()) for name, opened in self.sockets]
        named += [(name, kept) for name, several in self.store.items() for kept in several]
        env = self.stage.environment()
        env["NOTIFY_SOCKET"] = self.address
        if named:
            env.update(LISTEN_PID="self", LISTEN_FDS=str(len(named)),
                       LISTEN_FDNAMES=":".join(name for name, _ in named))
        env.update(self.environment)
        env = {name: value for name, value in env.items() if value is not None}
        descriptors = [descriptor for _, descriptor in named]
        self.since = self.count
        return self.stage.start(
            kind.__name__.lower(),
            [sys.executable, LAUNCHER, len(descriptors), *descriptors, program_path(program), *arguments],
            kind, env=env, descriptors=descriptors)

    def gateway(self, *arguments, state, ready=True):
        gateway = self.start(Gateway, "diglett-server", "--state-dir", state, *arguments)
        gateway.state = state
        if ready:
            self.wait(self.since, READY="1")
            gateway.wait_listening()
        return gateway

    def agent(self, gateway, *arguments, state):
        return self.start(Agent, "diglett", "--output", "json", "-g", gateway, "--state-dir", state, *arguments)


def listening(host="127.0.0.1", port=0, family=socket.AF_INET):
    """A listening socket like that of a .socket unit."""
    opened = socket.socket(family)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.bind((host, port))
    opened.listen(128)
    return opened
