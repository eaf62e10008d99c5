"""Certificates of an authority: renewed while the gateway runs, close to expiry, and expired."""

import json
import os
import re
import signal
import socket

from administration import AgentsFile, Invitation, ctl, run
from backends import Listener, serve_echo
from certificates import Authority, replace, shown_serial
from harness import EndToEndTest, wait_until
from namespaces import TwoHosts
from prometheus import Metrics
from visitors import read_exactly

USED = r"was renewed and is used for new connections, valid until (\S+)$"
KEPT = "the gateway keeps its current certificate, valid until "
RETRYING = r"; retrying in (\d+\.\d|\d+) s$"


class CertificateTest(EndToEndTest):
    def setUp(self):
        super().setUp()
        self.files = self.stage.new_directory("certificates")
        self.authority = Authority(self.files)

    def start(self, certificate, *options, **more):
        self.certificate, self.key = certificate.write(self.files)
        self.gateway = self.stage.gateway("--tls-cert", self.certificate, "--tls-key", self.key, *options, **more)
        return self.gateway

    def trusting(self):
        return dict(self.stage.environment(), SSL_CERT_FILE=str(self.authority.file))

    def ctl(self, *arguments, code=0):
        result = ctl(self.stage, self.gateway, *arguments)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        return result.stdout if code == 0 else result.stderr

    def status(self):
        return json.loads(self.ctl("status", "--output", "json"))

    def wait_shown(self, certificate):
        wait_until(lambda: shown_serial(self.gateway) == certificate.serial, "the new certificate")

    def lines(self, text):
        return [line for line in self.gateway.stderr if text in line]


class Renewal(CertificateTest):
    def test_without_cutting_a_stream(self):
        first, second = self.authority.issue(), self.authority.issue()
        self.start(first)
        agent = self.stage.agent(f"localhost:{self.gateway.port}", "-n", "example",
                                 self.stage.use(Listener(serve_echo)).address, env=self.trusting())
        port = agent.wait_registered("example")
        self.assertFalse((agent.state / "known_gateways").exists(), "the key of a trusted certificate was stored")
        self.assertEqual(shown_serial(self.gateway), first.serial)
        with socket.create_connection(("127.0.0.1", port), 10) as visitor:
            visitor.sendall(b"before")
            self.assertEqual(read_exactly(visitor, 6), b"before")
            second.write(self.files)
            self.wait_shown(second)
            self.assertEqual(self.gateway.wait_log(USED).group(1), second.expires)
            visitor.sendall(b"after")
            self.assertEqual(read_exactly(visitor, 5), b"after")
        self.assertEqual(agent.events("lost"), [])
        other = self.stage.agent(f"localhost:{self.gateway.port}", "-n", "other", "9", env=self.trusting())
        other.wait_registered("other")

    def test_links_as_certbot_makes_them(self):
        archive = self.stage.new_directory("archive")
        for number in (1, 2):
            self.authority.issue().write(archive, f"{number}")
        live = self.stage.new_directory("live")
        certificate, key = live / "fullchain.pem", live / "privkey.pem"

        def link(number):
            for path, name in ((certificate, f"{number}.pem"), (key, f"{number}.key")):
                path.unlink(missing_ok=True)
                path.symlink_to(archive / name)

        link(1)
        self.gateway = self.stage.gateway("--tls-cert", certificate, "--tls-key", key)
        before = shown_serial(self.gateway)
        link(2)
        wait_until(lambda: shown_serial(self.gateway) != before, "the other certificate")

    def test_signal(self):
        self.start(self.authority.issue())
        second = self.authority.issue()
        second.write(self.files)
        self.gateway.send_signal(signal.SIGHUP)
        self.gateway.wait_log("SIGHUP")
        self.wait_shown(second)

    def test_reload(self):
        self.start(self.authority.issue())
        self.assertEqual(self.ctl("reload"), "no changes\n")
        second = self.authority.issue()
        second.write(self.files)
        said = f"the certificate {self.certificate} was renewed, valid until {second.expires}, with a new key: sha256/"
        # The gateway may use the new certificate already.
        self.assertTrue(self.ctl("reload").startswith((said, "no changes")))
        self.assertEqual(shown_serial(self.gateway), second.serial)
        self.assertEqual(len(self.lines("was renewed and is used")), 1)
        self.assertEqual(self.status()["pin"], self.lines("a new key")[0].split("pin ")[1].split(",")[0])

    def test_files_that_cannot_be_used(self):
        first, second = self.authority.issue(), self.authority.issue()
        self.start(first)
        mistakes = {
            "the key does not belong to the certificate": lambda: replace(self.key, second.key, 0o600),
            "no private key": lambda: replace(self.key, b"", 0o600),
            "other users can read it": lambda: replace(self.key, first.key, 0o644),
            "no certificate in PEM format": lambda: (
                replace(self.certificate, b"x"), replace(self.key, first.key, 0o600)),
            "No such file": lambda: self.certificate.unlink(),
        }
        for reason, make in mistakes.items():
            with self.subTest(reason):
                since = len(self.gateway.stderr)
                make()
                self.gateway.wait_log(f"(?i)ERROR.*{reason}.*{KEPT}{first.expires}", since=since)
                self.assertRegex(self.status()["certificate"]["failure"], f"(?i){reason}")
                self.assertRegex(self.ctl("status"), f"(?i)warning: .*{reason}")
                self.assertRegex(self.ctl("reload", "--dry-run", code=1), f"(?i){reason}")
                self.assertEqual(shown_serial(self.gateway), first.serial)
                self.assertEqual(len([line for line in self.gateway.stderr[since:] if KEPT in line]), 1)
                # A reload still reads the agents file, and logs the error again.
                self.assertRegex(self.ctl("reload"), f"(?i)the certificate was not changed: .*{reason}")
                wait_until(lambda: sum(KEPT in line for line in self.gateway.stderr[since:]) == 2,
                           "the error to be logged again")
        second.write(self.files)
        self.wait_shown(second)
        self.assertNotIn("failure", self.status()["certificate"])


class Expiry(CertificateTest):
    def check(self, certificate):
        """The output of `check` for a certificate, as lines; it must exit with 0."""
        paths = certificate.write(self.files, "checked")
        result = run(self.stage, "diglett-server", "--state-dir", self.stage.directory / "none", "--tls-cert", paths[0],
                     "--tls-key", paths[1], "check")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertIn(f"is valid until {certificate.expires}\n", result.stdout)
        return result.stdout.splitlines()

    def test_check(self):
        self.assertEqual(self.check(self.authority.issue(days=(-1, 31)))[-1], "configuration OK")
        for days, words in (((-60, 29.5), "expires in 29 days"), ((-60, 6.5), "expires in 6 days"),
                            ((-60, 0.49), "expires in 11 hours"), ((-60, -1), "expired on 20"),
                            ((1, 60), "is not valid before 20")):
            with self.subTest(words):
                lines = self.check(self.authority.issue(days=days))
                warning, = (line for line in lines if line.startswith("warning: "))
                self.assertIn(words, warning)
                self.assertEqual(lines[-1], "configuration OK, with warnings")

    def test_own_certificate(self):
        """Agents ignore the dates of the gateway's own certificate."""
        self.gateway = self.stage.gateway("--metrics", "127.0.0.1:0")
        self.assertNotIn("certificate", self.status())
        self.assertEqual(
            Metrics(self.gateway).scrape().value("diglett_certificate_expiry_timestamp_seconds"), float("inf"))

    def test_status_metric_and_log(self):
        certificate = self.authority.issue(days=(-60, 6.5))
        self.start(certificate, "--metrics", "127.0.0.1:0")
        self.gateway.wait_log(f"WARN.* {self.certificate} expires in 6 days, on {certificate.expires}: renew it$")
        shown = self.status()["certificate"]
        self.assertEqual((shown["file"], shown["expires"]), (str(self.certificate), certificate.expires))
        self.assertIn("expires in 6 days", shown["warning"])
        text = self.ctl("status")
        self.assertIn(f"certificate {self.certificate}: valid until {certificate.expires}\n", text)
        self.assertIn("warning: the certificate ", text)
        metrics = Metrics(self.gateway)
        self.assertEqual(
            metrics.scrape().value("diglett_certificate_expiry_timestamp_seconds"), certificate.expiry)
        # A fresh certificate of an authority that issues certificates for a week.
        fresh = self.authority.issue(days=(-0.1, 6.9))
        fresh.write(self.files)
        self.wait_shown(fresh)
        metrics.wait(
            lambda scrape: scrape.value("diglett_certificate_expiry_timestamp_seconds") == fresh.expiry, "the new date")
        self.assertEqual(len(self.lines("expires in")), 1)

    def test_passing_of_a_threshold(self):
        # Expires in 1 day and 4 s.
        self.start(self.authority.issue(days=(-60, 1 + 4 / 86_400)))
        self.gateway.wait_log("WARN.*expires in 1 day,")
        self.gateway.wait_log("WARN.*expires in (1 day|23 hours),", since=len(self.gateway.stderr))


class Agents(CertificateTest):
    """An agent on another machine, which verifies the gateway by the certificate authority."""

    def setUp(self):
        super().setUp()
        self.hosts = self.stage.use(TwoHosts())

    def start(self, certificate, *options, **more):
        state = self.stage.new_directory("gateway-state")
        added = AgentsFile(self.stage, state=state).add("web", "--names", "example")
        self.token = added.token
        super().start(certificate, *options, listen=f"{TwoHosts.FAR_ADDRESS}:0", prefix=self.hosts.far, state=state)

    def agent(self, *options, state=None):
        environment = dict(self.trusting(), DIGLETT_TOKEN=self.token)
        return self.stage.agent(self.gateway, *options, "-n", "example", "9", prefix=self.hosts.near,
                                env=environment, state=state)

    def issue(self, *days):
        return self.authority.issue(TwoHosts.FAR_ADDRESS, days)

    def test_expired_until_it_is_renewed(self):
        old = self.issue(-60, -1)
        self.start(old)
        agent = self.agent()
        text = rf"the certificate of {self.gateway.address} expired on {old.expires}: renew it at the gateway"
        agent.wait_log(rf"WARN.*{text}.*{RETRYING}")
        self.assertIn(f"expired on {old.expires}", agent.wait_event("lost")["reason"])
        agent.wait_event("retrying")
        self.issue(-1, 90).write(self.files)
        agent.wait_registered("example", timeout=30)
        self.assertFalse((agent.state / "known_gateways").exists())

    def test_not_valid_yet(self):
        early = self.issue(1, 90)
        self.start(early)
        agent = self.agent()
        agent.wait_log(rf"WARN.* is not valid before 20\S+: check this machine's clock, .*{RETRYING}")
        self.assertTrue(agent.running)

    def test_once(self):
        self.start(self.issue(-60, -1))
        agent = self.agent("--once")
        self.assertEqual(agent.wait_exit(), 69)
        self.assertIn("expired on", agent.wait_event("refused")["message"])

    def test_known_keys(self):
        """The agent ignores the dates if the key is pinned or known."""
        self.start(self.issue(-60, -1))
        pin = self.gateway.wait_log(r"pin (\S+)").group(1)
        agent = self.agent("--pin", pin)
        agent.wait_registered("example")
        agent.kill()
        state = self.stage.new_directory("agent-state")
        (state / "known_gateways").write_text(f"{self.gateway.address} {pin}\n")
        self.agent(state=state).wait_registered("example")

    def test_other_faults_are_final(self):
        self.start(self.authority.issue("gw.test", (-60, -1)))
        self.assertEqual(self.agent().wait_exit(), 10)

    def test_on_the_same_machine(self):
        """The agent connects with a warning, and does not store the key."""
        certificate = self.authority.issue("localhost", (-60, -1))
        CertificateTest.start(self, certificate)
        agent = self.stage.agent(f"localhost:{self.gateway.port}", "-n", "example", "9", env=self.trusting())
        agent.wait_registered("example")
        agent.wait_log(r"WARN.* expired on 20.*; the key sha256/\S+ is accepted because the gateway is on this machine")
        self.assertFalse((agent.state / "known_gateways").exists())


class Invitations(CertificateTest):
    def add(self, certificate, name, host):
        state = self.stage.directory / "state"
        paths = certificate.write(self.files)
        result = run(self.stage, "diglett-server", "agent", "add", name, "--names", name, "--host", host,
                     "--state-dir", state, "--tls-cert", paths[0], "--tls-key", paths[1])
        self.assertEqual(result.returncode, 0, result.stderr)
        return Invitation(result.stdout)

    def test_no_pin_for_a_certificate_of_an_authority(self):
        """With a pin, agents would stop when the certificate is renewed with another key."""
        made = self.add(self.authority.issue("gw.test"), "web", "gw.test:20000")
        self.assertEqual(made.arguments[1], f"diglett://{made.token}@gw.test:20000")
        self.assertRegex(made.output, r"with the certificate authorities of its system; .* add --pin sha256/\S+\n")
        made = self.add(self.authority.issue("gw.test"), "other", "elsewhere.test")
        self.assertNotIn("#", made.arguments[1])
        self.assertRegex(made.output, r"tls.pem is not a certificate for elsewhere.test: pass --host .* --pin sha256/")

    def test_pin_for_others(self):
        made = self.add(self.authority.self_signed("gw.test"), "web", "gw.test")
        self.assertRegex(made.arguments[1], r"#sha256/\S{44}$")
        made = AgentsFile(self.stage, state=self.stage.directory / "state").add("own", "--names", "own")
        self.assertRegex(made.arguments[1], r"#sha256/\S{44}$")

    def test_the_line_works(self):
        certificate = self.authority.issue()
        gateway = CertificateTest.start(self, certificate)
        made = Invitation(run(
            self.stage, "diglett-server", "agent", "add", "web", "--names", "example", "--host",
            f"localhost:{gateway.port}", "--state-dir", gateway.state, "--tls-cert", self.certificate,
            "--tls-key", self.key).stdout)
        gateway.wait_log(r"read 1 agent from ")
        agent = self.stage.agent(made.arguments[1], "-n", "example", "9", env=self.trusting())
        agent.wait_registered("example")
        self.assertEqual(os.listdir(agent.state).count("known_gateways"), 0)
        self.assertTrue(re.search("sha256/", made.output))
