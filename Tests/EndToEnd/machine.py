"""A complete Debian system with systemd as its first process, in its own namespaces."""

import atexit
import contextlib
import functools
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import unittest
from pathlib import Path

from harness import Failure, wait_until
from realservers import require

INCLUDED = ("systemd", "systemd-sysv", "dbus", "libnss-systemd", "libpam-systemd", "curl", "libuv1", "libssl3",
            "libcurl4", "libstdc++6", "procps", "haproxy", "nginx-light", "openssl", "python3-minimal", "python3",
            "socat")


@functools.cache
def template():
    """(root directory of a Debian 12, error), created once from a mirror; the error is None on success."""
    directory = Path(tempfile.mkdtemp(prefix="diglett-e2e-template-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    made = subprocess.run(
        [require("mmdebstrap"), "--variant=minbase", "--quiet", f"--include={','.join(INCLUDED)}", "bookworm",
         directory / "root"], capture_output=True, text=True)
    return directory / "root", made.stderr.strip()[-200:] if made.returncode != 0 else None


# Moves the process into the control groups $1, $2... before "--", then executes the command after it.
JOIN = """\
while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs" || exit; shift; done
shift
exec "$@"
"""


def mount_point(controllers):
    """The mount point of the control group hierarchy with these controllers; None if not mounted."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup2" and not controllers or kind == "cgroup" and controllers in options.split(","):
            return Path(place)
    return None


class ControlGroups:
    """A machine's own control groups, below those of this process, in the hierarchies that systemd uses.

    If two machines shared the groups of this process, their systemds would stop each other's services.
    """

    def __init__(self, name):
        self.paths = []
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            place = controllers in ("", "name=systemd") and mount_point(controllers)
            if place:
                self.paths.append(place / path.lstrip("/") / name)

    def make(self):
        try:
            for path in self.paths:
                path.mkdir()
        except OSError as error:
            self.remove()
            raise unittest.SkipTest(f"no control group can be made: {error}") from None

    def remove(self):
        for path in self.paths:
            wait_until(functools.partial(self._is_removed, path), f"{path} to be removed")

    @staticmethod
    def _is_removed(path):
        """Removes a group and its descendants. It fails while the kernel still counts a process that has just ended."""
        for directory, _, _ in os.walk(path, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
        return not path.exists()


class Machine:
    """Debian 12, booted by systemd-nspawn. The test is skipped if that is not possible."""

    _numbers = itertools.count()

    def __init__(self, directory):
        self.root = Path(directory) / "root"
        self._name = f"diglett-e2e-{os.getpid()}-{next(self._numbers)}"
        self._groups = ControlGroups(self._name)
        self._container = None

    def __enter__(self):
        require("systemd-nspawn")
        files, failure = template()
        if failure:
            raise unittest.SkipTest(f"mmdebstrap: {failure}")
        subprocess.run(["cp", "--archive", "--reflink=auto", files, self.root], check=True)
        return self

    def boot(self):
        self._groups.make()
        self._container = subprocess.Popen(
            ["sh", "-c", JOIN, "sh", *self._groups.paths, "--",
             "systemd-nspawn", "--quiet", "--directory", self.root, f"--machine={self._name}", "--register=no",
             "--keep-unit", "--private-network", "--boot"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_until(self._find_init, "the machine to be up", timeout=150, interval=0.2)
        except Failure as failure:
            raise unittest.SkipTest(str(failure)) from failure

    def __exit__(self, *_):
        if self._container:
            # systemd-nspawn shuts the machine down on SIGTERM; see systemd-nspawn(1).
            self._container.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._container.wait(60)
            self._container.kill()
            self._container.wait()
            self._groups.remove()
        shutil.rmtree(self.root, ignore_errors=True)

    def _find_init(self):
        """Whether the machine is up. Until then, nspawn's child may be a helper that creates the first process."""
        pid = self._container.pid
        self._init, = Path(f"/proc/{pid}/task/{pid}/children").read_text().split() or [None]
        return self._init and self.run("systemctl", "is-active", "multi-user.target", check=False).returncode == 0

    def put(self, path, text):
        """Writes a file; works before and after the boot."""
        target = self.root / path.removeprefix("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def run(self, *command, check=True):
        result = subprocess.run(["nsenter", f"--target={self._init}", "--all", *command], capture_output=True,
                                text=True, env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"})
        if check and result.returncode != 0:
            raise Failure(f"{' '.join(command)}: {result.stdout}{result.stderr}")
        return result

    def output(self, *command, check=True):
        return self.run(*command, check=check).stdout.strip()

    def active(self, unit):
        return self.output("systemctl", "is-active", unit, check=False)

    def log(self, unit):
        return self.output("journalctl", "--no-pager", "--output=cat", f"--unit={unit}")
