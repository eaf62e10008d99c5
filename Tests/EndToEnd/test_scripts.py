"""The functions of scripts/lib.sh: installing packages, and building."""

import os
import subprocess

from harness import REPOSITORY, EndToEndTest
from overlay import Overlay
from realservers import require

LIBRARY = REPOSITORY / "scripts" / "lib.sh"

# The linker's warning, with a placeholder for the library.
WARNING = ("/opt/swift/usr/lib/swift_static/linux/{}(Data+Writing.swift.o):_ThreadLocal.swift.o:function $s2: "
           "warning: the use of `mktemp' is dangerous, better use `mkstemp' or `mkdtemp'")


class Build(EndToEndTest):
    """scripts/quickstart with a fake compiler."""

    def quickstart(self, code):
        directory = self.stage.new_directory("bin")
        swift = directory / "swift"
        lines = (WARNING.format("libFoundationEssentials.a"), WARNING.format("libother.a"), "warning: something else")
        said = "\n".join(lines)
        swift.write_text(f"#!/bin/sh\ncat <<'END'\n[1/2] Linking\n{said}\nEND\necho 'error: a real one' >&2\nexit {code}\n")
        swift.chmod(0o755)
        environment = dict(self.stage.environment(), PATH=f"{directory}:{os.environ['PATH']}")
        return subprocess.run([REPOSITORY / "scripts" / "quickstart"], env=environment, capture_output=True, text=True,
                              timeout=120, stdin=subprocess.DEVNULL)

    def test_hides_one_warning_and_keeps_the_exit_code(self):
        result = self.quickstart(3)
        self.assertEqual(result.returncode, 3, result.stderr)
        self.assertNotIn("libFoundationEssentials", result.stderr)
        for line in ("[1/2] Linking", WARNING.format("libother.a"), "warning: something else", "error: a real one"):
            self.assertIn(line, result.stderr)


# A package repository with two versions of a base, and packages that need one or the other.
REPOSITORY_SCRIPT = r"""
set -e
mkdir -p /srv/packages; cd /srv/packages
make() {
    mkdir -p "$1-$2/DEBIAN"
    printf 'Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: test <test@example.invalid>\nDescription: test\n%s' \
        "$1" "$2" "$3" >"$1-$2/DEBIAN/control"
    dpkg-deb --build --root-owner-group "$1-$2" . >/dev/null
}
make probe-base 1 ''
make probe-base 2 ''
make probe-old 1 ''
make probe-new 1 'Depends: probe-base (>= 2)
'
make probe-twin 1 'Source: probe-base
Depends: probe-base (= 1)
'
make probe-twin 2 'Source: probe-base
Depends: probe-base (= 2)
'
make probe-rival 1 'Conflicts: probe-base
'
dpkg --install probe-base_1_all.deb >/dev/null
dpkg-scanpackages --multiversion . >Packages 2>/dev/null
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/* /var/lib/apt/lists/*
echo 'deb [trusted=yes] file:/srv/packages ./' >/etc/apt/sources.list
printf 'APT::Sandbox::User "root";\n' >/etc/apt/apt.conf.d/99probe
"""


class Need(EndToEndTest):
    """`need` with the real apt-get, on a copy of this machine's files. At first it has no package lists."""

    def setUp(self):
        super().setUp()
        require("dpkg-scanpackages", "apt-get")
        self.copy = self.stage.use(Overlay(self.stage.new_directory("copy")))
        result = self.copy.run("sh", "-c", REPOSITORY_SCRIPT, check=False)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def need(self, *packages, **environment):
        words = [f"{name}={value}" for name, value in environment.items()]
        return self.copy.run("env", "-u", "CI", *words, "bash", "-euo", "pipefail", "-c", f". {LIBRARY}; need \"$@\"",
                             "bash", *packages, check=False)

    def version(self, package):
        """The installed version; "" if the package is not installed."""
        return self.copy.run("dpkg-query", "-W", "-f", "${Version}", package, check=False).stdout

    def test_new_packages_are_installed(self):
        result = self.need("probe-old", "probe-base")
        self.assertEqual((result.returncode, self.version("probe-old")), (0, "1"), result.stdout + result.stderr)
        self.assertEqual(self.version("probe-base"), "1")

    def test_nothing_is_upgraded(self):
        for option in ([], ["--companions"]):
            with self.subTest(option=option):
                self.check_nothing_is_upgraded(*option)

    def check_nothing_is_upgraded(self, *option):
        result = self.need(*option, "probe-old", "probe-new")
        self.assertEqual(result.returncode, 1)
        self.assertIn("would upgrade or remove probe-base", result.stderr)
        self.assertIn("apt-get install --no-install-recommends probe-old probe-new", result.stderr)
        self.assertEqual((self.version("probe-base"), self.version("probe-new")), ("1", ""))

    def test_nothing_is_removed(self):
        result = self.need("probe-rival")
        self.assertEqual(result.returncode, 1)
        self.assertIn("would upgrade or remove probe-base", result.stderr)
        self.assertEqual(self.version("probe-base"), "1")

    def test_the_version_beside_what_is_installed(self):
        """The newest version would need an upgrade; the one that matches the installed package does not."""
        result = self.need("probe-twin")
        self.assertEqual((result.returncode, self.version("probe-twin")), (0, "1"), result.stdout + result.stderr)
        self.assertEqual(self.version("probe-base"), "1")

    def test_what_is_of_the_same_source_has_the_same_version(self):
        """The archive no longer has the installed version."""
        self.copy.run("sh", "-c", "cd /srv/packages && rm probe-twin_1_all.deb probe-twin-1 -r "
                      "&& dpkg-scanpackages --multiversion . >Packages 2>/dev/null")
        result = self.need("probe-twin")
        self.assertIn("would upgrade or remove probe-base", result.stderr)
        self.assertEqual(self.version("probe-base"), "1")
        result = self.need("--companions", "probe-twin")
        self.assertEqual((result.returncode, self.version("probe-twin")), (0, "2"), result.stdout + result.stderr)
        self.assertEqual(self.version("probe-base"), "2")
        self.assertIn("this upgrades probe-base, too", result.stderr)

    def test_a_machine_of_ci_may_be_upgraded(self):
        result = self.need("probe-new", CI="true")
        self.assertEqual((result.returncode, self.version("probe-base")), (0, "2"), result.stdout + result.stderr)

    def test_unknown_package(self):
        result = self.need("probe-nothing")
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, "cannot install probe-nothing: .*Unable to locate")
