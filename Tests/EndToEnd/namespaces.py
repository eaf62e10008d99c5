"""Connected network namespaces: for an agent that is not on loopback, and for a path that drops large packets.

The addresses exist only inside the namespaces.  To run a program in a namespace, put the attribute of that name before
its command line.
"""

import os
import subprocess
import unittest

from realservers import require


class _Hosts:
    def __init__(self, *names):
        self._ip = require("ip")
        self._names = {name: f"diglett-{name}-{os.getpid()}" for name in names}
        self._made = []
        for name, namespace in self._names.items():
            setattr(self, name, [self._ip, "netns", "exec", namespace])

    def __enter__(self):
        try:
            for namespace in self._names.values():
                self._run("netns", "add", namespace)
                self._made.append(namespace)
                self._run("-n", namespace, "link", "set", "lo", "up")
            self._connect()
        except subprocess.CalledProcessError as error:
            self.__exit__()
            raise unittest.SkipTest(
                f"cannot make network namespaces: {error.stderr.strip()}") from None
        return self

    def __exit__(self, *_):
        while self._made:
            self._run("netns", "delete", self._made.pop())

    def _cable(self, one, other, device, other_device):
        """Connects two namespaces; each end is (namespace, address/prefix)."""
        (name, address), (other_name, other_address) = one, other
        self._run("-n", self._names[name], "link", "add", device, "type", "veth",
                  "peer", "name", other_device, "netns", self._names[other_name])
        for namespace, end, has in ((name, device, address), (other_name, other_device, other_address)):
            self._run("-n", self._names[namespace], "address", "add", has, "dev", end)
            self._run("-n", self._names[namespace], "link", "set", end, "up")

    def _run(self, *arguments):
        subprocess.run([self._ip, *arguments], check=True, capture_output=True, text=True)


class TwoHosts(_Hosts):
    """Namespaces `near` (10.99.0.1) and `far` (10.99.0.2), connected directly."""

    NEAR_ADDRESS = "10.99.0.1"
    FAR_ADDRESS = "10.99.0.2"

    def __init__(self):
        super().__init__("near", "far")

    def _connect(self):
        self._cable(("near", f"{self.NEAR_ADDRESS}/30"), ("far", f"{self.FAR_ADDRESS}/30"), "cable", "cable")

    def add_address(self, address):
        """Adds an address to `near`."""
        self._run("-n", self._names["near"], "address", "add", f"{address}/32", "dev", "cable")


class NarrowPath(_Hosts):
    """Namespaces `near` (10.99.1.1) and `far` (10.99.2.1), connected by a router that drops packets above 1,300 bytes.

    The hosts do not learn of it: the router's ICMP messages are blackholed.
    """

    NEAR_ADDRESS = "10.99.1.1"
    FAR_ADDRESS = "10.99.2.1"
    MTU = 1300

    def __init__(self):
        super().__init__("near", "far", "router")

    def _connect(self):
        self._cable(("near", f"{self.NEAR_ADDRESS}/24"), ("router", "10.99.1.2/24"), "cable", "to-near")
        self._cable(("router", "10.99.2.2/24"), ("far", f"{self.FAR_ADDRESS}/24"), "to-far", "cable")
        self._run("-n", self._names["near"], "route", "add", "default", "via", "10.99.1.2")
        self._run("-n", self._names["far"], "route", "add", "default", "via", "10.99.2.2")
        # The router checks a packet against the MTU of the outgoing device, which the hosts do not know.
        for device in ("to-near", "to-far"):
            self._run("-n", self._names["router"], "link", "set", device, "mtu", str(self.MTU))
        subprocess.run([*self.router, "sysctl", "-qw", "net.ipv4.ip_forward=1"], check=True, capture_output=True,
                       text=True)
        self._run("-n", self._names["router"], "rule", "add", "iif", "lo", "blackhole", "prio", "10")


class Roaming(_Hosts):
    """Namespaces `near` and `far` with two cables. `far` has the address 10.98.0.1, which `near` reaches over one of them."""

    FAR_ADDRESS = "10.98.0.1"

    def __init__(self):
        super().__init__("near", "far")

    def _connect(self):
        for cable in (1, 2):
            self._cable(("near", f"10.98.{cable}.1/24"), ("far", f"10.98.{cable}.2/24"), f"cable{cable}", f"cable{cable}")
        self._run("-n", self._names["far"], "address", "add", f"{self.FAR_ADDRESS}/32", "dev", "lo")
        self.use_cable(1)

    def use_cable(self, cable):
        self._near("route", "replace", self.FAR_ADDRESS, "via", f"10.98.{cable}.2")

    def lose_cable(self, cable):
        """The interface goes down and loses its address, as when a wireless network is left."""
        self._near("address", "flush", "dev", f"cable{cable}")
        self._near("link", "set", f"cable{cable}", "down")

    def change_address(self, cable):
        """The interface gets another address in its network."""
        self._near("address", "add", f"10.98.{cable}.9/24", "dev", f"cable{cable}")
        self._near("address", "delete", f"10.98.{cable}.1/24", "dev", f"cable{cable}")
        self._near("address", "replace", f"10.98.{cable}.9/24", "dev", f"cable{cable}")
        self.use_cable(cable)

    def _near(self, *arguments):
        self._run("-n", self._names["near"], *arguments)
