"""Two network namespaces joined by a cable: an agent that is not on loopback."""

import os
import subprocess
import unittest

from realservers import require


class TwoHosts:
    """Namespaces `near` (10.99.0.1) and `far` (10.99.0.2) with a veth pair.

    The addresses exist inside these namespaces only.  A program is put into one of
    them by starting its command line with `near` or `far`.
    """

    NEAR_ADDRESS = "10.99.0.1"
    FAR_ADDRESS = "10.99.0.2"

    def __init__(self):
        self._ip = require("ip")
        self._names = [f"diglett-{side}-{os.getpid()}" for side in ("near", "far")]
        self._made = []
        self.near, self.far = ([self._ip, "netns", "exec", name] for name in self._names)

    def __enter__(self):
        near, far = self._names
        try:
            for name in self._names:
                self._run("netns", "add", name)
                self._made.append(name)
            self._run("-n", near, "link", "add", "cable", "type", "veth",
                      "peer", "name", "cable", "netns", far)
            for name, address in ((near, self.NEAR_ADDRESS), (far, self.FAR_ADDRESS)):
                self._run("-n", name, "address", "add", f"{address}/30", "dev", "cable")
                self._run("-n", name, "link", "set", "cable", "up")
                self._run("-n", name, "link", "set", "lo", "up")
        except subprocess.CalledProcessError as error:
            self.__exit__()
            raise unittest.SkipTest(
                f"cannot make network namespaces: {error.stderr.strip()}") from None
        return self

    def __exit__(self, *_):
        while self._made:
            self._run("netns", "delete", self._made.pop())

    def add_address(self, address):
        """Gives `near` a further address."""
        self._run("-n", self._names[0], "address", "add", f"{address}/32", "dev", "cable")

    def _run(self, *arguments):
        subprocess.run([self._ip, *arguments], check=True, capture_output=True, text=True)
