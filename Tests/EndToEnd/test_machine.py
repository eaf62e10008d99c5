"""The packages on a separate Debian with its own systemd. The tests need root and a Debian mirror, and take half a
minute each; DIGLETT_E2E_MACHINE=0 skips them."""

import os
import re
import shutil
import tomllib
import unittest
from typing import NamedTuple

import test_packages
from documents import blocks, section, substitute
from harness import Failure, PIN, REPOSITORY, EndToEndTest, fast, wait_until
from machine import Machine
from sites import GUIDE
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

# A backend that needs only systemd.
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
        """The current public port of the name; false before the first registration."""
        found = re.findall(r"(?<!un)register domain 'web' -> '(\d+)'", self.machine.log(GATEWAY))
        return found and int(found[-1])

    def check_reachable(self):
        def answer():
            port = self.public_port()
            return port and self.machine.output(
                "curl", "--silent", "--http0.9", "--max-time", "5", f"http://127.0.0.1:{port}/", check=False)

        # After a few failed attempts an agent waits up to 16 s before the next one.
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
        token = re.search(r"shown only once\): (\S+)", said).group(1)
        machine.output("mkdir", "-p", "-m", "700", "/etc/credstore")
        machine.put("/etc/credstore/diglett.web.token", token)
        (machine.root / "etc/credstore/diglett.web.token").chmod(0o600)
        machine.put("/etc/diglett/web.toml", AGENT_CONFIGURATION.format(pin=pin))
        wait_until(lambda: "read 1 agent" in machine.log(GATEWAY), "the gateway to know the agent")
        machine.output("systemctl", "enable", "--now", AGENT)
        self.check_reachable()
        self.assertEqual(self.user_of(AGENT), "diglett-web")
        port = self.public_port()

        # systemd copies a credential when the service starts.
        said = machine.output("diglett-server", "agent", "rotate", "web", "--grace", "1h", "--host", "localhost")
        machine.put("/etc/credstore/diglett.web.token", re.search(r"shown only once\): (\S+)", said).group(1))
        machine.output("systemctl", "restart", AGENT)
        machine.output("diglett-server", "agent", "rotate", "web", "--grace", "1h", "--host", "localhost")
        self.check_reachable()

        machine.output("systemctl", "reload", GATEWAY)
        wait_until(lambda: "SIGHUP" in machine.log(GATEWAY), "the reload in the log")
        # After a crash the gateway returns with the same key and the same port.
        machine.output("systemctl", "kill", "--signal=SEGV", GATEWAY)
        wait_until(lambda: machine.log(GATEWAY).count("listening for agents on 0.0.0.0") == 2, "the restart")
        self.check_reachable()
        self.assertEqual(self.public_port(), port)

        # Key and agents as credentials, without the files in the state directory.
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
    """A block of the guide: commands, or the content of the file `path`."""

    where: str
    path: str | None
    text: str


def guide(title=GUIDE, page="https.md"):
    """The steps of a section of a page, for example `From an empty server`, in order."""
    text = section(page, title)
    steps, end = [], 0
    for block in re.finditer(r"<!-- guide: (\w+) -->\n```(\w+)\n(.*?)```", text, re.DOTALL):
        paths = re.findall(r"`(/[^`]+)`", text[end:block.start()])
        steps.append(Step(block[1], None if block[2] == "sh" else paths[-1], block[3]))
        end = block.end()
    return steps


# The certificate of step 2, issued by the test's own authority.
CERTIFICATE = r"""
d=/etc/letsencrypt/live/gateway.com; mkdir -p $d; cd $d
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=gateway.com -keyout privkey.pem -out leaf.csr
echo 'subjectAltName=DNS:*.gateway.com,DNS:gateway.com' >san
openssl x509 -req -days 2 -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile san -out fullchain.pem
"""

# Like a renewal by certbot: another certificate for the same names, then the hooks.
RENEWAL = r"""
cd /etc/letsencrypt/live/gateway.com
openssl x509 -req -days 2 -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile san -out fullchain.pem
for hook in /etc/letsencrypt/renewal-hooks/deploy/*; do RENEWED_LINEAGE=$PWD "$hook"; done
"""

# Fifty changes of the map, like those of the gateway: a whole file, then the command of `reload`, then MORE.
CHANGES = r"""
for number in $(seq 50); do
    if [ $number = 50 ]; then port=PORT; else port=9; fi
    printf 'HOST 127.0.0.1:%s;\n' $port >MAP.next
    mv MAP.next MAP
    RELOAD
    MORE
done
"""


class Guide(EndToEndTest):
    """The guide's server and agent on one machine, to which all host names resolve."""

    def setUp(self):
        super().setUp()
        self.machine = self.stage.use(Machine(self.stage.new_directory("machine")))
        for name in PACKAGES:
            shutil.copy(package(name), self.machine.root / "root")
        # Answers that a person would give.
        self.machine.put("/etc/apt/apt.conf.d/yes", 'APT::Get::Assume-Yes "true";\n')
        with (self.machine.root / "etc/hosts").open("a") as hosts:
            hosts.write("127.0.0.1 gateway.com example.gateway.com app-1.gateway.com other.gateway.com\n")
        self.machine.boot()

    def shell(self, text):
        return self.machine.output("sh", "-ec", f"cd /root; exec 2>&1\n{text}")

    def status(self, host):
        """(status, page) of a host; verifies the certificate."""
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
        invitation = next(text for text in said if "shown only once" in text)
        line = re.search(r"^ *(diglett -g '(diglett://(\S+)@gateway.com:20000#(sha256/\S+))') -n", invitation, re.MULTILINE)
        self.assertEqual(self.status("example.gateway.com")[0], 404, "no agent has registered the name yet")

        # Step 7, with the command line.
        self.shell("apt install ./diglett_*.deb")
        self.shell(f"systemd-run --unit=by-hand {line[1]} -n example localhost:9000")
        wait_until(lambda: "example: https://example.gateway.com -> localhost:9000" in machine.log("by-hand"),
                   "the address")
        self.wait_status("example.gateway.com", 200)
        self.assertEqual(self.status("example.gateway.com"), (200, "from home"))
        self.assertEqual(self.status("other.gateway.com")[0], 404)
        self.shell("systemctl stop by-hand")
        self.wait_status("example.gateway.com", 404)

        # Step 7, as a service.
        for step in guide():
            if step.where == "agent" and step.path:
                machine.put(step.path, step.text.replace("sha256/PIN", line[4]))
            elif step.where == "agent":
                text = re.sub(r"/dev/stdin (\S+).*", rf"/dev/stdin \1 <<END\n{line[3]}\nEND", step.text)
                self.shell(text)
        self.wait_status("example.gateway.com", 200)
        # After a kill of the gateway, visitors reach the name again.
        machine.output("systemctl", "kill", "--signal=KILL", GATEWAY)
        self.wait_status("example.gateway.com", 200)
        self.check_redirect()
        self.check_renewal()
        self.check_changes()

    def check_redirect(self):
        said = self.machine.output("curl", "--silent", "--max-time", "10", "--output", "/dev/null", "--write-out",
                                   "%{http_code} %{redirect_url}", "http://example.gateway.com/a?b=c")
        self.assertEqual(said, "301 https://example.gateway.com/a?b=c")

    def serial(self):
        """The serial number of the certificate that visitors receive."""
        return self.shell("openssl s_client -connect example.gateway.com:443 -servername example.gateway.com </dev/null "
                          "2>/dev/null | openssl x509 -noout -serial")

    def check_renewal(self):
        before = self.serial()
        self.shell(RENEWAL)
        wait_until(lambda: self.serial() != before, "the renewed certificate", interval=0.2)
        self.assertEqual(self.status("example.gateway.com"), (200, "from home"))

    def check_changes(self):
        """After many fast changes nginx uses the last one."""
        configuration = next(step.text for step in guide() if step.path and step.path.endswith("diglett-server.toml"))
        registrar, = tomllib.loads(configuration)["registrar"]
        file, reload = registrar["file"], registrar["reload"]
        port = re.search(r"^example\.gateway\.com 127\.0\.0\.1:(\d+);", self.machine.output("cat", file), re.MULTILINE)[1]
        # With `taken` each change causes its own reload; otherwise changes arrive during a reload.
        taken = f"n=0; while [ -e {reload[1]} ] && [ $n -lt 500 ]; do n=$((n + 1)); sleep 0.02; done"
        for host, more in (("app-1", taken), ("other", ":"), ("app-1", ":"), ("other", ":")):
            changes = CHANGES
            for old, new in (("PORT", port), ("HOST", f"{host}.gateway.com"), ("MAP", file), ("RELOAD", " ".join(reload)),
                             ("MORE", more)):
                changes = changes.replace(old, new)
            self.shell(changes)
            self.wait_status(f"{host}.gateway.com", 200)
            self.wait_status("example.gateway.com", 404)
        runs = self.machine.log("diglett-nginx.service").count("Finished")
        self.note(f"{runs} reloads")
        self.assertGreater(runs, 50)
        self.assertEqual(self.machine.active("diglett-nginx.path"), "active")

    def test_unix_sockets(self):
        """With the drop-in for unix sockets, only the proxy's group can connect to names."""
        machine = self.machine
        self.shell(CERTIFICATE)
        self.shell("systemd-run --unit=home python3 -m http.server --directory /srv --bind 127.0.0.1 9000")
        drop_in = re.search(r"makes sockets for a group[^|]*\| (.*?) \|", (
            REPOSITORY / "docs" / "service.md").read_text())[1]
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
            reload = ["/bin/touch", "/var/lib/diglett-server/nginx.changed"]
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


    def serve_by_hand(self):
        self.shell("systemd-run --unit=home python3 -m http.server --directory /srv --bind 127.0.0.1 9000")
        self.shell("systemd-run --unit=by-hand diglett -g localhost -n example localhost:9000")

    def test_haproxy(self):
        """The configuration in docs/proxies.md, with the service of the packages."""
        machine = self.machine
        text = section("proxies.md", "## HAProxy").replace("gateway.example.com", "gateway.com")
        self.shell(CERTIFICATE)
        self.shell("apt install ./diglett-server_*.deb ./diglett_*.deb; "
                   "cat /etc/letsencrypt/live/gateway.com/fullchain.pem /etc/letsencrypt/live/gateway.com/privkey.pem "
                   ">/etc/haproxy/gateway.pem")
        frontends = "\n".join(blocks(text, ""))
        with (machine.root / "etc/haproxy/haproxy.cfg").open("a") as configuration:
            configuration.write(frontends)
        socket_line = re.search(r"`(stats socket [^`]+)`", text)[1]
        self.assertIn(socket_line, (machine.root / "etc/haproxy/haproxy.cfg").read_text(), "Debian's own")
        machine.put("/usr/local/bin/reload-map", blocks(text, "sh")[0])
        machine.put("/etc/diglett-server/diglett-server.toml", blocks(text, "toml")[0])
        drop_in = re.search(r"`(SupplementaryGroups=haproxy)`", text)[1]
        machine.put("/etc/systemd/system/diglett-server.service.d/haproxy.conf", f"[Service]\n{drop_in}\n")
        self.shell("chmod 755 /usr/local/bin/reload-map; systemctl daemon-reload; systemctl stop nginx; "
                   "systemctl restart diglett-server; systemctl restart haproxy")
        self.serve_by_hand()
        self.wait_status("example.gateway.com", 200)
        # The gateway started before HAProxy, so its reset of HAProxy's map is still pending.
        wait_until(lambda: "registrar haproxy (/var/lib/diglett-server/haproxy.map): works" in
                   self.shell("diglett-server ctl status"), "the registrar to work", interval=0.2)

    def test_traefik_directory(self):
        """The drop-in in docs/proxies.md lets the service write to Traefik's directory."""
        machine = self.machine
        text = section("proxies.md", "## Traefik")
        self.shell("apt install ./diglett-server_*.deb ./diglett_*.deb; groupadd traefik")
        self.shell(re.search(r"`(install -d [^`]+)`", text)[1])
        settings = re.findall(r"`((?:ReadWritePaths|SupplementaryGroups)=[^`]+)`", text)
        self.assertEqual(len(settings), 2)
        machine.put("/etc/systemd/system/diglett-server.service.d/traefik.conf", "\n".join(["[Service]", *settings]))
        registrar = next(block for block in blocks(text, "toml") if "[[registrar]]" in block)
        machine.put("/etc/diglett-server/diglett-server.toml", registrar)
        self.shell("systemctl daemon-reload; systemctl restart diglett-server")
        self.serve_by_hand()
        file = "/etc/traefik/dynamic/diglett-example.yml"
        wait_until(lambda: machine.run("test", "-s", file, check=False).returncode == 0, "the file of the name")
        self.assertEqual(machine.output("stat", "--format=%G", file), "traefik")

    def test_restore_on_another_server(self):
        """The backup restores the same gateway, and root's commands use the service's configuration."""
        machine = self.machine
        self.shell("apt install ./diglett-server_*.deb")
        machine.put("/etc/diglett-server/diglett-server.toml",
                    'listen = ["127.0.0.1:20007"]\ncontrol = "/run/diglett-server/my.sock"\n')
        self.shell("systemctl restart diglett-server")
        said = self.shell("diglett-server agent add web --names 'app-*' --host gateway.com")
        self.assertRegex(said, r"@gateway\.com:20007#sha256/\S+' -n app-1 ")
        self.assertIn("@gateway.com:20007#", self.shell("diglett-server agent rotate web --host gateway.com"))
        self.assertIn("20007", self.shell("diglett-server ctl status"))
        pin = re.search(PIN, said).group(0)
        self.shell("mkdir -p backup/etc backup/state; cp /etc/diglett-server/* backup/etc; cd /var/lib/diglett-server; "
                   "cp identity.pem agents.toml /root/backup/state; apt purge diglett-server")
        (step,) = guide("## Back up, and move to another server", "maintenance.md")
        self.shell(step.text)
        self.assertEqual(machine.active(GATEWAY), "active")
        self.assertIn(pin, self.shell("diglett-server ctl status"))
        self.assertIn("web", self.shell("diglett-server agent list"))


class UserUnit(EndToEndTest):
    """An agent of a user without root, as in docs/service.md."""

    def setUp(self):
        super().setUp()
        self.machine = self.stage.use(Machine(self.stage.new_directory("machine")))
        for name in PACKAGES:
            shutil.copy(package(name), self.machine.root / "root")
        self.machine.boot()

    def as_user(self, *command, check=True):
        return self.machine.output(
            "setpriv", "--reuid=alice", "--regid=alice", "--init-groups", "env", "HOME=/home/alice",
            f"XDG_RUNTIME_DIR=/run/user/{self.uid}", *command, check=check)

    def test_life(self):
        machine = self.machine
        machine.output("sh", "-c", "dpkg --install /root/*-1_*.deb")
        machine.output("sh", "-c", "mkdir /srv/page; echo from home >/srv/page/index.html; "
                       "systemd-run --unit=home python3 -m http.server --directory /srv/page --bind 127.0.0.1 9000")
        pin = re.search(PIN, machine.log(GATEWAY)).group(0)
        said = machine.output("diglett-server", "agent", "add", "alice", "--names", "web", "--host", "localhost")
        token = re.search(r"shown only once\): (\S+)", said).group(1)

        text, = blocks(section("service.md", "## Agents without root"), "toml")
        text = substitute(text, ("gateway.example.com", "localhost"), ("sha256/PIN", pin), ("NAME", "web"))
        machine.output("useradd", "--create-home", "alice")
        self.uid = machine.output("id", "--user", "alice")
        machine.put("/home/alice/.config/diglett/web.toml", text)
        machine.put("/home/alice/.config/diglett/web.token", f"{token}\n")
        machine.output("chown", "--recursive", "alice:alice", "/home/alice/.config")
        machine.output("chmod", "600", "/home/alice/.config/diglett/web.token")
        machine.output("loginctl", "enable-linger", "alice")
        wait_until(lambda: self.as_user("systemctl", "--user", "is-active", "default.target", check=False) == "active",
                   "the user's services", timeout=60, interval=0.2)

        verified = machine.run(
            "setpriv", "--reuid=alice", "--regid=alice", "--init-groups", "env", "HOME=/home/alice",
            f"XDG_RUNTIME_DIR=/run/user/{self.uid}", "systemd-analyze", "verify", "--user", "diglett@web.service",
            check=False)
        # The machine has no man pages.
        complaints = [line for line in (verified.stdout + verified.stderr).splitlines()
                      if "diglett" in line and "man " not in line]
        self.assertEqual(complaints, [])

        self.as_user("systemctl", "--user", "enable", "--now", "diglett@web.service")
        self.check_reachable()
        self.assertEqual(machine.output("stat", "--format=%U %a", "/home/alice/.local/state/diglett/web"), "alice 700")
        wait_until(lambda: "1 name exposed" in self.show("StatusText"), "the status", interval=0.2)
        # The agent returns after a crash.
        before = self.show("MainPID")
        self.as_user("systemctl", "--user", "kill", "--signal=SEGV", "diglett@web.service")
        wait_until(lambda: self.show("MainPID") not in (before, "0"), "the restart", interval=0.2)
        self.check_reachable()
        # The agent runs without a login session, as after a boot.
        machine.output("systemctl", "restart", f"user@{self.uid}.service")
        self.check_reachable()

    def show(self, key):
        return self.as_user("systemctl", "--user", "show", f"--property={key}", "--value", "diglett@web.service")

    def check_reachable(self):
        def answer():
            found = re.findall(r"(?<!un)register domain 'web' -> '(\d+)'", self.machine.log(GATEWAY))
            return found and self.machine.output(
                "curl", "--silent", "--max-time", "5", f"http://127.0.0.1:{found[-1]}/", check=False) == "from home"

        try:
            wait_until(answer, "the page through the tunnel", timeout=60, interval=0.2)
        except Failure as failure:
            raise Failure(f"{failure}\n{self.machine.log(GATEWAY)[-4_000:]}\n"
                          f"{self.machine.output('journalctl', '--no-pager', '--lines=50')}") from failure
