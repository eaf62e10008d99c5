"""The packages on a Debian of its own, under a systemd of its own. That takes root, a mirror of Debian, and half a
minute for each test; DIGLETT_E2E_MACHINE=0 leaves them out."""

import os
import re
import shutil
import unittest
from typing import NamedTuple

import test_packages
from harness import Failure, PIN, REPOSITORY, EndToEndTest, fast, wait_until
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

# A backend that needs nothing but systemd.
BACKEND_SOCKET = "[Socket]\nListenStream=/run/backend.sock\nSocketMode=0666\nAccept=yes\n"
BACKEND = "[Service]\nExecStart=/bin/echo packed\nStandardInput=socket\nStandardOutput=socket\n"


def setUpModule():
    if os.environ.get("DIGLETT_E2E_MACHINE", "0" if fast() else "1") == "0":
        raise unittest.SkipTest("takes half a minute for each test")
    if os.geteuid() != 0:
        raise unittest.SkipTest("only root can make a machine")
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

        # An agent that has tried in vain a few times waits for up to 16 s before it tries again.
        try:
            said = wait_until(answer, "an answer through the tunnel", timeout=60, interval=0.2)
        except Failure as failure:
            logs = "\n".join(self.machine.log(unit)[-4_000:] for unit in (GATEWAY, AGENT))
            raise Failure(f"{failure}\n{logs}") from failure
        self.assertEqual(said, "packed")

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
        wait_until(lambda: "read 1 agent" in machine.log(GATEWAY), "the gateway to know the agent")
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

        # Key and agents as credentials, with the state directory's gone.
        for name in ("identity.pem", "agents.toml"):
            machine.output("mv", f"/var/lib/diglett-server/{name}", f"/etc/credstore/diglett-server.{name}")
            machine.output("chown", "root:root", f"/etc/credstore/diglett-server.{name}")
        machine.output("systemctl", "restart", GATEWAY)
        self.check_reachable()
        self.assertEqual(set(re.findall(PIN, machine.log(GATEWAY))), {pin}, "the agent's gateway, known by its pin")
        left = machine.output("ls", "/var/lib/diglett-server").split()
        self.assertFalse({"identity.pem", "agents.toml"} & set(left), left)

        self.dpkg("--install", "/root/*-2_*.deb")
        self.assertEqual((machine.active(GATEWAY), machine.active(AGENT)), ("active", "active"))
        self.check_reachable()
        self.assertEqual(self.public_port(), port)

        self.dpkg("--purge", *PACKAGES)
        self.assertEqual((machine.active(GATEWAY), machine.active(AGENT)), ("inactive", "inactive"))
        left = machine.output("sh", "-c", "ls -d /var/lib/*diglett* /var/lib/private/*diglett* "
                              "/etc/systemd/system/*.wants/diglett*", check=False)
        self.assertEqual(left, "")


class Step(NamedTuple):
    """A block of the guide: commands, or a file's content."""

    where: str
    path: str | None
    text: str


def guide():
    """The steps of docs/operations.md, `From an empty server`, in their order."""
    page = (REPOSITORY / "docs" / "operations.md").read_text()
    section = page[page.index("## From an empty server"):page.index("\n## ", page.index("## From an empty server") + 1)]
    steps, end = [], 0
    for block in re.finditer(r"<!-- guide: (\w+) -->\n```(\w+)\n(.*?)```", section, re.DOTALL):
        paths = re.findall(r"`(/[^`]+)`", section[end:block.start()])
        steps.append(Step(block[1], None if block[2] == "sh" else paths[-1], block[3]))
        end = block.end()
    return steps


# The certificate of step 2, by an authority of the test's own.
CERTIFICATE = r"""
d=/etc/letsencrypt/live/gateway.com; mkdir -p $d; cd $d
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=gateway.com -keyout privkey.pem -out leaf.csr
echo 'subjectAltName=DNS:*.gateway.com,DNS:gateway.com' >san
openssl x509 -req -days 2 -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile san -out fullchain.pem
"""


class Guide(EndToEndTest):
    """Server and agent of the guide on one machine, which all names lead to."""

    def setUp(self):
        super().setUp()
        self.machine = self.stage.use(Machine(self.stage.new_directory("machine")))
        for name in PACKAGES:
            shutil.copy(package(name), self.machine.root / "root")
        # What a person answers.
        self.machine.put("/etc/apt/apt.conf.d/yes", 'APT::Get::Assume-Yes "true";\n')
        with (self.machine.root / "etc/hosts").open("a") as hosts:
            hosts.write("127.0.0.1 gateway.com example.gateway.com app-1.gateway.com other.gateway.com\n")
        self.machine.boot()

    def shell(self, text):
        return self.machine.output("sh", "-ec", f"cd /root; exec 2>&1\n{text}")

    def status(self, host):
        """(status, page) of a host, with the certificate checked."""
        text = self.machine.output(
            "curl", "--silent", "--max-time", "10", "--cacert", "/etc/letsencrypt/live/gateway.com/ca.pem",
            "--write-out", "\\n%{http_code}", f"https://{host}/", check=False)
        page, _, status = text.rpartition("\n")
        page = page.rstrip()
        return int(status or 0), page

    def wait_status(self, host, wanted):
        wait_until(lambda: self.status(host)[0] == wanted, f"status {wanted} of {host}", interval=0.2)

    def test_word_for_word(self):
        machine = self.machine
        self.shell(CERTIFICATE)
        self.shell("mkdir /srv/page; echo from home >/srv/page/index.html; "
                   "systemd-run --unit=home python3 -m http.server --directory /srv/page --bind 127.0.0.1 9000")
        said = []
        for step in guide():
            if step.where != "server":
                continue
            if step.path:
                machine.put(step.path, step.text)
            else:
                said.append(self.shell(step.text))
        self.assertIn("registrar nginx (/var/lib/diglett-server/nginx.map): works", said[-1])
        invitation = next(text for text in said if "shown this once" in text)
        line = re.search(r"^ *(diglett -g '(diglett://(\S+)@gateway.com:20000#(sha256/\S+))') -n", invitation, re.MULTILINE)
        self.assertEqual(self.status("example.gateway.com")[0], 404, "nobody is there yet")

        # Step 7, by the line.
        self.shell("apt install ./diglett_*.deb")
        self.shell(f"systemd-run --unit=by-hand {line[1]} -n example localhost:9000")
        wait_until(lambda: "example: https://example.gateway.com -> localhost:9000" in machine.log("by-hand"),
                   "the address")
        self.wait_status("example.gateway.com", 200)
        self.assertEqual(self.status("example.gateway.com"), (200, "from home"))
        self.assertEqual(self.status("other.gateway.com")[0], 404)
        self.shell("systemctl stop by-hand")
        self.wait_status("example.gateway.com", 404)

        # And as a service.
        for step in guide():
            if step.where == "agent" and step.path:
                machine.put(step.path, step.text.replace("sha256/PIN", line[4]))
            elif step.where == "agent":
                text = re.sub(r"/dev/stdin (\S+).*", rf"/dev/stdin \1 <<END\n{line[3]}\nEND", step.text)
                self.shell(text)
        self.wait_status("example.gateway.com", 200)
        # The gateway is killed: visitors come back to the name.
        machine.output("systemctl", "kill", "--signal=KILL", GATEWAY)
        self.wait_status("example.gateway.com", 200)

    def test_unix_sockets(self):
        """With the drop-in for them, a proxy's group reaches names, and nobody else does."""
        machine = self.machine
        self.shell(CERTIFICATE)
        self.shell("systemd-run --unit=home python3 -m http.server --directory /srv --bind 127.0.0.1 9000")
        drop_in = re.search(r"makes sockets for a group[^|]*\| (.*?) \|", (
            REPOSITORY / "docs" / "operations.md").read_text())[1]
        settings = re.findall(r"`([^`]+)`", drop_in)
        machine.put("/etc/systemd/system/diglett-server.service.d/sockets.conf", "[Service]\n" + "\n".join(settings))
        self.shell("apt install ./diglett-server_*.deb ./diglett_*.deb")
        machine.put("/etc/diglett-server/diglett-server.toml", """
            expose-ports = "none"
            expose-sockets = "/run/diglett-server/names"
            expose-sockets-group = "www-data"
            control-group = "www-data"
            [[registrar]]
            kind = "nginx"
            domain = "gateway.com"
            file = "/var/lib/diglett-server/nginx.map"
            reload = ["/bin/true"]
        """)
        for step in guide():
            if step.path and step.path.startswith(("/etc/nginx", "/etc/systemd")):
                machine.put(step.path, step.text)
        self.shell("systemctl daemon-reload; systemctl restart diglett-server; "
                   "systemctl enable --now diglett-nginx.path; nginx -t && systemctl reload nginx")
        self.shell("systemd-run --unit=by-hand diglett -g localhost -n example localhost:9000")
        self.wait_status("example.gateway.com", 200)
        path = "/run/diglett-server/names/example.sock"
        self.assertEqual(machine.output("stat", "--format=%a %U %G", path), "660 diglett-server www-data")
        reach = f"curl --silent --unix-socket {path} http://x/ >/dev/null"
        self.assertNotEqual(machine.run("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups",
                                        "sh", "-c", reach, check=False).returncode, 0)
        self.assertEqual(machine.run("setpriv", "--reuid=www-data", "--regid=www-data", "--clear-groups",
                                     "sh", "-c", reach, check=False).returncode, 0)
        self.assertIn("1 name", machine.output(
            "setpriv", "--reuid=www-data", "--regid=www-data", "--clear-groups", "diglett-server", "ctl", "status"))
