"""The packages on a Debian of its own, under a systemd of its own. Only with DIGLETT_E2E_MACHINE=1: it takes
a minute, and a mirror of Debian."""

import os
import re
import shutil
import unittest

import test_packages
from harness import PIN, EndToEndTest, wait_until
from machine import Machine
from test_packages import PACKAGES, package

GATEWAY, AGENT = "diglett-server.service", "diglett@web.service"

AGENT_CONFIGURATION = """\
gateway = "localhost"
pin = "{pin}"
token-file = "/run/credentials/diglett@web.service/token"

[[expose]]
name = "web"
backend = "unix:/run/backend.sock"
"""

# Until the programs tell systemd that they are ready.
WITHOUT_NOTIFICATIONS = "[Service]\nType=exec\nWatchdogSec=0\n"

# A backend that needs nothing but systemd.
BACKEND_SOCKET = "[Socket]\nListenStream=/run/backend.sock\nSocketMode=0666\nAccept=yes\n"
BACKEND = "[Service]\nExecStart=/bin/echo packed\nStandardInput=socket\nStandardOutput=socket\n"


def setUpModule():
    if os.environ.get("DIGLETT_E2E_MACHINE") != "1":
        raise unittest.SkipTest("takes a minute and a mirror of Debian")
    test_packages.setUpModule()


class UnderSystemd(EndToEndTest):
    def setUp(self):
        super().setUp()
        self.machine = self.stage.use(Machine(self.stage.new_directory("machine")))
        for revision in (1, 2):
            for name in PACKAGES:
                shutil.copy(package(name, revision), self.machine.root / "root")
        self.machine.put("/etc/systemd/system/backend.socket", BACKEND_SOCKET)
        self.machine.put("/etc/systemd/system/backend@.service", BACKEND)
        for unit in ("diglett-server.service", "diglett@.service"):
            self.machine.put(f"/etc/systemd/system/{unit}.d/start.conf", WITHOUT_NOTIFICATIONS)
        self.machine.boot()

    def dpkg(self, *arguments):
        return self.machine.output("sh", "-c", f"dpkg {' '.join(arguments)}")

    def public_port(self):
        """The port of the name at the moment; it stays the same once it is there."""
        found = re.findall(r"(?<!un)register domain 'web' -> '(\d+)'", self.machine.log(GATEWAY))
        return found and int(found[-1])

    def check_reachable(self):
        def answer():
            port = self.public_port()
            return port and self.machine.output(
                "curl", "--silent", "--http0.9", "--max-time", "5", f"http://127.0.0.1:{port}/", check=False)

        self.assertEqual(wait_until(answer, "an answer through the tunnel", interval=0.2), "packed")

    def user_of(self, unit):
        pid = self.machine.output("systemctl", "show", "--property=MainPID", "--value", unit)
        return self.machine.output("stat", "--format=%U", f"/proc/{pid}")

    def test_life(self):
        machine = self.machine
        machine.output("systemctl", "start", "backend.socket")
        self.dpkg("--install", "/root/*-1_*.deb")
        self.assertEqual(machine.active(GATEWAY), "active")
        self.assertEqual(self.user_of(GATEWAY), "diglett-server")
        pin = re.search(PIN, machine.log(GATEWAY)).group(0)

        said = machine.output("diglett-server", "agent", "add", "web", "--names", "web", "--host", "localhost")
        token = re.search(r"shown this once: (\S+)", said).group(1)
        machine.output("mkdir", "-p", "-m", "700", "/etc/credstore")
        machine.put("/etc/credstore/diglett.web.token", token)
        (machine.root / "etc/credstore/diglett.web.token").chmod(0o600)
        machine.put("/etc/diglett/web.toml", AGENT_CONFIGURATION.format(pin=pin))
        wait_until(lambda: "read 1 agents" in machine.log(GATEWAY), "the gateway to know the agent")
        machine.output("systemctl", "enable", "--now", AGENT)
        self.check_reachable()
        self.assertEqual(self.user_of(AGENT), "diglett-web")
        port = self.public_port()

        machine.output("systemctl", "reload", GATEWAY)
        wait_until(lambda: "SIGHUP" in machine.log(GATEWAY), "the reload in the log")
        # A crash: it is there again, with the same key and the same port.
        machine.output("systemctl", "kill", "--signal=SEGV", GATEWAY)
        wait_until(lambda: machine.log(GATEWAY).count("listening for agents on 0.0.0.0") == 2, "the restart")
        self.check_reachable()
        self.assertEqual(self.public_port(), port)

        self.dpkg("--install", "/root/*-2_*.deb")
        self.assertEqual((machine.active(GATEWAY), machine.active(AGENT)), ("active", "active"))
        self.check_reachable()
        self.assertEqual(self.public_port(), port)

        self.dpkg("--purge", *PACKAGES)
        self.assertEqual((machine.active(GATEWAY), machine.active(AGENT)), ("inactive", "inactive"))
        left = machine.output("sh", "-c", "ls -d /var/lib/*diglett* /var/lib/private/*diglett* "
                              "/etc/systemd/system/*.wants/diglett*", check=False)
        self.assertEqual(left, "")
