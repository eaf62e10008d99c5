"""The systemd units: their syntax, their sandbox, and that they match the programs."""

import configparser
import re
import subprocess

from harness import REPOSITORY, EndToEndTest, program_path
from realservers import require

UNITS = REPOSITORY / "scripts" / "systemd"
PROGRAMS = {"diglett-server.service": "diglett-server", "diglett@.service": "diglett"}

# 0 is the best, 10 the worst. Remaining exposure: network and unix sockets, and no private network or root directory.
MOST_EXPOSURE = 1.6


class UnitFile(configparser.RawConfigParser):
    """A unit's settings. Of a setting with several values it has only the last one."""

    def __init__(self, name):
        super().__init__(strict=False, delimiters=("=",))
        self.optionxform = str
        self.text = (UNITS / name).read_text()
        self.read_string(self.text)


def exit_codes(program):
    """The exit codes of a program in docs/errors.md."""
    text = (REPOSITORY / "docs" / "errors.md").read_text()
    section = re.search(rf"^## {program}\n(.*?)(?:^## |\Z)", text, re.MULTILINE | re.DOTALL).group(1)
    return {int(code) for code in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)}


class Units(EndToEndTest):
    def analyze(self, *arguments):
        return subprocess.run([require("systemd-analyze"), *arguments], capture_output=True, text=True,
                              env={**self.stage.environment(), "XDG_RUNTIME_DIR": str(self.stage.directory)})

    def place(self, units):
        """Copies units, with the paths of the programs under test instead of the installed ones; returns the copies."""
        directory = self.stage.new_directory("units")
        for unit in units:
            text = re.sub(r"^(ExecStart=)/usr/bin/(\S+)", lambda found: found[1] + program_path(found[2]),
                          unit.read_text(), flags=re.MULTILINE)
            (directory / unit.name).write_text(text)
        return sorted(directory.iterdir())

    def test_systemd_understands_them(self):
        paths = self.place(path for path in UNITS.iterdir() if path.is_file())
        self.assertEqual([path.name for path in paths],
                         ["diglett-server.service", "diglett-server.socket", "diglett@.service"])
        result = self.analyze("verify", "--man=no", *paths)
        # Ignore warnings about the machine's own units.
        ours = [line for line in result.stderr.splitlines() if "diglett" in line]
        self.assertEqual((result.returncode, ours), (0, []), result.stderr)

    def test_systemd_understands_that_of_a_user(self):
        path, = self.place((UNITS / "user").iterdir())
        result = self.analyze("verify", "--user", "--man=no", path)
        ours = [line for line in result.stderr.splitlines() if "diglett" in line]
        self.assertEqual((result.returncode, ours), (0, []), result.stderr)

    def test_a_mistake_would_be_seen(self):
        path = self.stage.new_directory("units") / "diglett-server.service"
        text = (UNITS / path.name).read_text().replace("/usr/bin/diglett-server", program_path("diglett-server"))
        path.write_text(text.replace("ProtectClock=yes", "ProtectClocks=yes"))
        self.assertIn("ProtectClocks", self.analyze("verify", "--man=no", path).stderr)

    def test_exposure(self):
        for unit in PROGRAMS:
            with self.subTest(unit=unit):
                result = self.analyze("security", "--offline=true", "--no-pager", UNITS / unit)
                found = re.search(r"Overall exposure level for \S+: ([\d.]+)", result.stdout)
                self.assertIsNotNone(found, result.stdout + result.stderr)
                self.note(f"{unit}: {found[1]}")
                self.assertLessEqual(float(found[1]), MOST_EXPOSURE)

    def test_codes_that_waiting_does_not_mend(self):
        agent = UnitFile("diglett@.service")["Service"]["RestartPreventExitStatus"]
        # 69 is for --once, with which the service starts the agent again each time; 74 is only for commands.
        self.assertEqual({int(code) for code in agent.split()}, exit_codes("diglett") - {0, 1, 69, 74})
        gateway = UnitFile("diglett-server.service")["Service"]["RestartPreventExitStatus"]
        self.assertEqual({int(code) for code in gateway.split()}, exit_codes("diglett-server") - {0, 1, 69, 71, 73, 74})

    def test_they_never_give_up(self):
        for unit in PROGRAMS:
            with self.subTest(unit=unit):
                settings = UnitFile(unit)
                self.assertEqual(settings["Unit"]["StartLimitIntervalSec"], "0")
                self.assertEqual(settings["Service"]["Restart"], "on-failure")

    def test_the_socket_is_what_the_gateway_makes_itself(self):
        gateway = self.stage.start("help", [program_path("diglett-server"), "--help"])
        self.assertEqual(gateway.wait_exit(), 0)
        default = re.search(r"--listen.*?\(default: (.*?)\)", " ".join(gateway.stdout)).group(1)
        listened = re.findall(r"^ListenStream=(.*)$", UnitFile("diglett-server.socket").text, re.MULTILINE)
        self.assertEqual(listened, default.split(" and "))
        self.assertEqual(UnitFile("diglett-server.socket")["Socket"]["BindIPv6Only"], "ipv6-only")
