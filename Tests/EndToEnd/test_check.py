"""`check` of both programs finds the errors that a start would find, and reports file and line of each."""

import os
import shutil
import subprocess

from administration import run
from harness import EndToEndTest, program_path

NOBODY = 65534


class CheckTest(EndToEndTest):
    def setUp(self):
        super().setUp()
        self.file = self.stage.directory / "gateway.toml"
        self.directory = self.stage.new_directory("etc")
        self.state = self.stage.directory / "state"

    def certificate(self, name):
        key, certificate = self.directory / f"{name}.key", self.directory / f"{name}.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-days", "30", "-subj", f"/CN={name}", "-keyout", key, "-out", certificate],
            check=True, capture_output=True, timeout=30)
        key.chmod(0o600)
        return key, certificate

    def check(self, *lines):
        """Runs `check` on a file with these lines; returns (exit code, output with "line N" instead of the path)."""
        self.file.write_text("".join(f"{line}\n" for line in lines))
        result = run(self.stage, "diglett-server", "check", self.file, "--state-dir", self.state)
        return result.returncode, (result.stdout + result.stderr).replace(f"{self.file}:", "line ")

    def check_finds(self, lines, *expected):
        code, output = self.check(*lines)
        self.assertEqual(code, 78, output)
        for text in expected:
            self.assertIn(text, output)


class Places(CheckTest):
    def test_directories_that_are_not_there(self):
        missing = self.directory / "missing"
        note = self.directory / "note"
        note.write_text("")
        self.check_finds(
            [f'control = "{missing}/c.sock"', 'expose-sockets = "/etc/passwd/names"',
             "[[registrar]]", 'kind = "traefik"', 'domain = "a.test"', f'directory = "{missing}"',
             "[[registrar]]", 'kind = "haproxy"', 'domain = "b.test"', f'file = "{missing}/map"',
             'reload = "/bin/true"',
             "[[registrar]]", 'kind = "traefik"', 'domain = "c.test"', f'directory = "{note}"'],
            f"line 1: cannot use the directory {missing}: no such file",
            "line 2: cannot use the directory /etc/passwd/names: not a directory",
            f"line 6: cannot use the directory {missing}: no such file",
            f"line 10: cannot use the directory {missing}: no such file",
            f"line 15: cannot use the directory {note}: it is not a directory")
        self.assertFalse(missing.exists())

    def test_directory_in_the_place_of_a_file(self):
        lines = []
        for kind, file in (("nginx", self.directory), ("haproxy", "/dev/null")):
            lines += ["[[registrar]]", f'kind = "{kind}"', 'domain = "a.test"', f'file = "{file}"', 'reload = "/bin/true"']
        self.check_finds(lines, f"line 4: '{self.directory}' cannot be written: it is not a regular file",
                         "line 9: '/dev/null' cannot be written: it is not a regular file")

    def test_directory_that_others_write_to(self):
        shared = self.stage.new_directory("shared")
        shared.chmod(0o1777)
        self.check_finds([f'expose-sockets = "{shared}"'],
                         f"line 1: cannot use the directory {shared}: other users can write to it")
        gateway = self.stage.gateway("--expose-sockets", shared, ready=False)
        self.assertEqual(gateway.wait_exit(), 73)
        self.assertIn("other users can write to it", gateway.output)
        shared.chmod(0o755)
        code, output = self.check(f'expose-sockets = "{shared}"')
        self.assertEqual(code, 0, output)

    def test_address_that_is_listened_on_twice(self):
        traefik = ["[[registrar]]", 'kind = "traefik"', 'domain = "a.test"']
        self.check_finds(
            ['listen = ["127.0.0.1:7001", "127.0.0.1:7001"]', 'listen-v1 = "127.0.0.1:7001"', 'metrics = "localhost:7001"',
             *traefik, 'listen = "127.0.0.1:7001"', *traefik, 'listen = "localhost:7001"'],
            "line 1: 127.0.0.1:7001 is already used by 127.0.0.1:7001 of line 1",
            "line 2: 127.0.0.1:7001 is already used by", "line 3: localhost:7001 is already used by",
            "line 7: 127.0.0.1:7001 is already used by", "line 11: the registrar at line 7 has the same 'listen'")
        self.check_finds(['metrics = "127.0.0.1:20000"'],
                         "line 1: 127.0.0.1:20000 is already used by 0.0.0.0:20000 of ")
        code, output = self.check('listen = ["0.0.0.0:7001", "[::]:7001", "127.0.0.1:0"]', 'listen-v1 = "127.0.0.1:0"',
                                  'metrics = "127.0.0.1:7002"')
        self.assertEqual(code, 0, output)

    def test_directory_of_another_user(self):
        if os.geteuid() != 0:
            self.skipTest("only root can become another user")
        place = self.stage.new_directory("dynamic")
        lines = ("[[registrar]]", 'kind = "traefik"', 'domain = "a.test"', f'directory = "{place}"')
        code, output = self.check(*lines)
        self.assertEqual(code, 0, output)
        self.assertIn("not checked, because this is root: whether the gateway's user may write to", output)
        self.assertIn(str(place), output)
        for directory in (self.stage.directory, place):
            directory.chmod(0o755)
        self.file.chmod(0o644)
        # Where any user can run it.
        program = shutil.copy(program_path("diglett-server"), self.stage.directory)
        result = subprocess.run(
            [program, "check", self.file, "--state-dir", self.state],
            capture_output=True, text=True, timeout=30, check=False, user=NOBODY, group=NOBODY, extra_groups=[],
            env=self.stage.environment())
        self.assertEqual(result.returncode, 78, result.stderr)
        self.assertIn(f"{self.file}:4: cannot use the directory {place}: permission denied", result.stderr)
        self.assertIn(f"option --state-dir: cannot use the directory {self.stage.directory}", result.stderr)

    def test_addresses_although_something_else_is_wrong(self):
        self.check_finds(
            ["colour = 1", 'listen = ["gateway.test:20000", "127.0.0.1:1"]', 'expose-bind = "everywhere"'],
            "line 1: unknown key 'colour'", "line 2: 'gateway.test' is not an address: ",
            "line 3: 'everywhere' is not an address: ")

    def test_address_that_the_machine_lacks(self):
        self.check_finds(
            ['expose-bind = "192.0.2.77"'], "line 1: this machine does not have the address 192.0.2.77")
        for address in ("::", "::1", "127.0.0.9", "0.0.0.0", "localhost"):
            code, output = self.check(f'expose-bind = "{address}"')
            self.assertEqual(code, 0, output)

    def test_limits_of_an_agent_that_cannot_be_met(self):
        agents = self.stage.directory / "agents.toml"
        agents.write_text(
            '[[agent]]\nname = "big"\n' f'token = "sha256:{"0" * 64}"\n' 'names = ["*"]\n'
            "max-names = 101\nmax-streams = 501\n")
        agents.chmod(0o600)
        lines = [f'agents-file = "{agents}"', 'expose-ports = "30000-30099"', "[limits]", "visitors = 500"]
        code, output = self.check(*lines)
        self.assertEqual(code, 78, output)
        self.assertIn("agent 'big': 'max-names' is 101, but the gateway has only 100 public ports for it", output)
        self.assertIn("agent 'big': 'max-streams' is 501, but the gateway has only 500 visitors in all", output)
        agents.write_text(agents.read_text().replace("101", "100").replace("501", "500"))
        code, output = self.check(*lines)
        self.assertEqual(code, 0, output)


class Certificates(CheckTest):
    def test_of_the_gateway_although_something_else_is_wrong(self):
        key, certificate = self.certificate("gateway")
        other, _ = self.certificate("other")
        for files, words in (((certificate, other), "the key does not belong to the certificate"),
                             ((self.directory / "none", key), "no such file")):
            with self.subTest(words=words):
                self.check_finds(["colour = 1", f'tls-cert = "{files[0]}"', f'tls-key = "{files[1]}"'],
                                 "line 1: unknown key", "line 2: ", words)
        code, output = self.check(f'tls-cert = "{certificate}"', f'tls-key = "{key}"')
        self.assertEqual(code, 0, output)
        self.assertIn("TLS: sha256/", output)

    def test_of_a_webhook(self):
        key, certificate = self.certificate("client")
        other, _ = self.certificate("other")
        garbage = self.directory / "garbage"
        garbage.write_text("something\n")
        garbage.chmod(0o600)
        head = ["[[registrar]]", 'kind = "webhook"', 'url = "https://hook.test/x?t=S3CRET"']

        def files(authority, certificate, key):
            return [*head, f'ca = "{authority}"', f'cert = "{certificate}"', f'key = "{key}"']

        code, output = self.check(*files(certificate, certificate, key))
        self.assertEqual(code, 0, output)
        self.check_finds(files(garbage, garbage, garbage), f"line 4: {garbage}: no certificate", "line 5: ",
                         "no private key")
        self.check_finds(files(certificate, certificate, other), "line 5: ", "the key does not belong to the certificate")
        key.chmod(0o644)
        self.check_finds(files(garbage, certificate, key), "line 4: ",
                         f"{key}: contains a secret and other users can read it")

    def test_secrets_of_a_url_are_not_shown(self):
        before_the_host = "a user or password before the host is not allowed"
        for url, code, words in (
                ("https://hook.test/x?t=S3CRET", 0, "agents: authenticated by https://hook.test/x\n"),
                ("https://u:S3CRET@hook.test/x?t=S3CRET", 78, f"line 3: 'https://hook.test/x': {before_the_host}"),
                ("http://localhost:S3CRET@192.0.2.1/", 78, f"line 3: 'http://192.0.2.1/': {before_the_host}")):
            with self.subTest(url=url):
                found, output = self.check('auth = "webhook"', "[auth-webhook]", f'url = "{url}"')
                self.assertEqual(found, code, output)
                self.assertIn(words, output)
                self.assertNotIn("S3CRET", output)


class Pipes(CheckTest):
    """`check` must not block on a pipe in the place of a file."""

    def test_agents_file(self):
        pipe = self.directory / "agents.toml"
        os.mkfifo(pipe, 0o600)
        self.check_finds([f'agents-file = "{pipe}"'], f"{pipe}: cannot be read: it is not a regular file")

    def test_configuration_from_a_pipe(self):
        """The configuration may be a pipe: the operator names it, and it is read once."""
        result = subprocess.run(
            [program_path("diglett-server"), "check", "/dev/stdin", "--state-dir", self.state],
            input='expose-bind = "nowhere"\n', capture_output=True, text=True, timeout=30, check=False,
            env=self.stage.environment())
        self.assertEqual(result.returncode, 78)
        self.assertIn("/dev/stdin:1: 'nowhere' is not an address", result.stderr)


class OfAnAgent(CheckTest):
    """`diglett check FILE`."""

    EXPOSE = ["[[expose]]", 'name = "example"', 'backend = "9"']

    def check(self, *lines):
        self.file.write_text("".join(f"{line}\n" for line in lines))
        self.file.chmod(0o600)
        result = run(self.stage, "diglett", "check", self.file)
        return result.returncode, (result.stdout + result.stderr).replace(f"{self.file}:", "line ")

    def test_good(self):
        token = self.directory / "token"
        token.write_text("secret\n")
        token.chmod(0o600)
        code, output = self.check('gateway = "gateway.invalid"', f'token-file = "{token}"',
                                  f'state-dir = "{self.state}"', *self.EXPOSE, "public-port = 4000")
        self.assertEqual(code, 0, output)
        for line in ("gateway: gateway.invalid:20000", f"token: in {token}",
                     "name: example forwards to localhost:9, public port 4000", "configuration OK"):
            self.assertIn(f"{line}\n", output)
        self.assertNotIn("secret", output)
        self.assertFalse(self.state.exists(), "it made the state directory")

    def test_everything_is_found_in_the_order_of_the_lines(self):
        token = self.directory / "token"
        token.write_text("secret\n")
        token.chmod(0o644)
        code, output = self.check(
            'gateway = "SECRET@x"', f'token-file = "{token}"', f'state-dir = "{token}/state"', 'pin = "x"',
            'output = "xml"', f'url-file = "{token}/urls"', "colour = 1", *self.EXPOSE, 'proxy-protocol = "v3"',
            "[[expose]]", 'name = "example"', 'backend = "nowhere"')
        self.assertEqual(code, 78, output)
        self.assertNotIn("SECRET", output)
        self.assertIn(f"'{token}' contains a secret and other users can read it", output)
        lines = [int(line.split()[2][:-1]) for line in output.splitlines() if line.startswith("error: line ")]
        self.assertEqual(lines, [1, 2, 3, 4, 5, 6, 7, 11, 14], output)

    def test_standard_input_is_left_alone(self):
        self.file.write_text('\n'.join(['gateway = "x"', 'token-file = "-"', *self.EXPOSE]))
        checked = subprocess.run([program_path("diglett"), "check", self.file], env=self.stage.environment(),
                                 input="not a token\n" * 100, capture_output=True, text=True, timeout=30, check=False)
        self.assertEqual((checked.returncode, checked.stderr), (0, ""), checked.stdout)

    def test_start_tells_all_of_it(self):
        agent = self.stage.start("agent", [program_path("diglett"), "-n", "a_b=1", "-n", "c=nowhere", "--pin", "x"])
        self.assertEqual(agent.wait_exit(), 64)
        for text in ("option --gateway: missing", "option --name: 'a_b' is not a valid name: '_' is not allowed",
                     "option --name: 'nowhere'", "option --pin: 'x'"):
            self.assertIn(text, agent.output)
