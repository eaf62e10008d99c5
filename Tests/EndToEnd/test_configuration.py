"""docs/configuration.md against the programs: its examples, options and variables.

Tests/SettingsTests compares keys and their types.
"""

import re
import subprocess
import tomllib
import unittest

from administration import run
from harness import REPOSITORY, EndToEndTest, free_port

DOCUMENT = REPOSITORY / "docs" / "configuration.md"
GATEWAY, AGENTS, AGENT = "diglett-server.toml", "agents.toml", "diglett.toml"


def text():
    return DOCUMENT.read_text()


def examples(name):
    """The TOML blocks that begin with `# name`."""
    blocks = re.findall(r"(?ms)^```toml\n(.*?)^```$", text())
    return [block for block in blocks if block.startswith(f"# {name}\n")]


def documented_keys(table):
    """The first cells of the table after `<!-- keys: table -->`."""
    rows = re.search(rf"<!-- keys: {table} -->\n((?:\|.*\n)+)", text()).group(1)
    return set(re.findall(r"(?m)^\| `([^`]+)` \|", rows))


def section(heading):
    """The text below `## heading`, up to the next heading of the same level."""
    return re.search(rf"(?ms)^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text()).group(1)


def options(words):
    return set(re.findall(r"(?<![\w-])(--[a-z][a-z0-9-]*|-[a-zA-Z])(?![\w-])", words))


class Examples(EndToEndTest):
    """Examples work when copied from the page."""

    def setUp(self):
        super().setUp()
        self.directory = self.stage.new_directory("etc")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-days", "30", "-subj", "/CN=gateway.example.com", "-keyout", self.directory / "gateway.key",
             "-out", self.directory / "gateway.pem"], check=True, capture_output=True, timeout=30)
        for name, source in (("ca.pem", "gateway.pem"), ("client.pem", "gateway.pem"), ("client.key", "gateway.key")):
            self.write(name, (self.directory / source).read_text())
        for name in ("webhook", "token"):
            self.write(name, "something\n")
        for name in ("nginx", "haproxy", "traefik/dynamic", "diglett-server"):
            (self.directory / name).mkdir(parents=True)
        self.write(AGENTS, self.here(examples(AGENTS)[0]))

    def here(self, example):
        """Changes an example: files are in the test's directory, and programs are /bin/true."""
        example = re.sub(r'"/usr/(local/)?s?bin/[a-z-]+"', '"/bin/true"', example)
        example = example.replace("/etc/diglett/", f"{self.directory}/")
        example = re.sub(r'"/etc/(nginx|haproxy|traefik)/', rf'"{self.directory}/\1/', example)
        return example.replace("/var/lib/", f"{self.directory}/")

    def write(self, name, content):
        path = self.directory / name
        path.write_text(content)
        path.chmod(0o600)
        return path

    def test_every_block_is_an_example_of_a_file(self):
        known = sum(len(examples(name)) for name in (GATEWAY, AGENTS, AGENT))
        self.assertEqual(known, len(re.findall(r"(?m)^```toml$", text())))

    def test_of_a_gateway(self):
        self.assertGreaterEqual(len(examples(GATEWAY)), 3)
        for example in examples(GATEWAY):
            with self.subTest(example=example):
                path = self.write(GATEWAY, self.here(example))
                result = run(self.stage, "diglett-server", "check", path)
                self.assertEqual(result.returncode, 0, result.stderr)

    def test_of_agents(self):
        for example in examples(AGENTS):
            path = self.write(AGENTS, self.here(example))
            configuration = self.write(GATEWAY, f'agents-file = "{path}"\n')
            result = run(self.stage, "diglett-server", "check", configuration)
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertIn(f"agents: {len(tomllib.loads(example)['agent'])} in {path}", result.stdout)

    def test_of_an_agent(self):
        self.assertGreaterEqual(len(examples(AGENT)), 2)
        for example in examples(AGENT):
            with self.subTest(example=example):
                path = self.write(AGENT, self.here(example))
                # The port has no listener. The agent tries to connect to it only if its settings are valid.
                result = run(self.stage, "diglett", "-c", path, "-g", f"127.0.0.1:{free_port()}", "--once",
                             "--state-dir", self.directory / "state")
                self.assertEqual(result.returncode, 69, result.stderr)

    def test_are_complete(self):
        """Each documented key occurs in an example."""
        gateway, agent, agents = ([tomllib.loads(example) for example in examples(name)]
                                  for name in (GATEWAY, AGENT, AGENTS))
        registrars = [table for file in gateway for table in file.get("registrar", [])]

        def registrar(*kinds):
            return [table for table in registrars if table["kind"] in kinds]

        used = {
            "gateway": gateway, "exec": [file["auth-exec"] for file in gateway if "auth-exec" in file],
            "webhook": [file["auth-webhook"] for file in gateway if "auth-webhook" in file],
            "registrar": registrars, "traefik": registrar("traefik"), "caddy": registrar("caddy"),
            "limits": [file["limits"] for file in gateway if "limits" in file],
            "agents": agents, "agent": [table for file in agents for table in file["agent"]],
            "diglett": agent, "expose": [table for file in agent for table in file["expose"]],
        }
        for kind in ("nginx", "haproxy"):
            self.assertLessEqual(documented_keys("map"), set().union(*registrar(kind)), kind)
        for kind in ("traefik", "caddy", "nginx", "haproxy"):
            self.assertLessEqual(documented_keys("proxy"), set().union(*registrar(kind)), kind)
        for table, places in used.items():
            self.assertEqual(documented_keys(table) - set().union(*places), set(), f"not in an example: {table}")


class Options(EndToEndTest):
    def help(self, program, *command):
        result = run(self.stage, program, *command, "--help")
        self.assertEqual(result.returncode, 0, result.stderr)
        # The help's text may mention options of other commands, so use only its lists.
        lines = re.findall(r"(?m)^  (-.*)$", result.stdout)
        return options("\n".join(re.split(r"  |<", line)[0] for line in lines))

    def check(self, program, heading, commands):
        known = self.help(program).union(*(self.help(program, *command) for command in commands))
        documented = options(section(heading))
        self.assertEqual(known - documented, set(), f"options of {program} that docs/configuration.md does not have")
        return documented - known

    def test_of_the_gateway(self):
        commands = [("agent", name) for name in ("add", "list", "rotate", "remove", "pin")] + [("check",), ("explain",)]
        self.assertEqual(self.check("diglett-server", "diglett-server", commands) - self.of_examples(), set())

    def test_of_the_agent(self):
        self.assertEqual(self.check("diglett", "diglett", [("key",), ("explain",)]) - self.of_examples(), set())

    @staticmethod
    def of_examples():
        """Options of other programs in the examples."""
        return options("".join(examples(GATEWAY)))


class Variables(unittest.TestCase):
    def test_each_that_is_read_is_documented(self):
        sources = [path.read_text() for path in (REPOSITORY / "Sources").rglob("*.swift")]
        read = set(re.findall(r'getenv\("(\w+)"\)', "".join(sources)))
        self.assertIn("DIGLETT_TOKEN", read)
        documented = set(re.findall(r"`([A-Z_]+)`", section("The environment")))
        self.assertEqual(read - documented, set())
