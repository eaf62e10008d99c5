"""A copy of this machine's files, in its own mount namespace, in which tests can install packages."""

import subprocess
import unittest
from pathlib import Path

from harness import PATIENCE
from realservers import require

# Changes stay in memory. /run is empty, so programs do not assume that systemd runs. /opt and /usr/local are empty, so
# programs cannot use the libraries of a developer's Swift.
SCRIPT = """\
set -e
mount -t tmpfs tmpfs "$1"
cd "$1"
mkdir upper work root
mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work overlay root
mount --rbind /dev root/dev
mount --rbind /sys root/sys
mount -t proc proc root/proc
for empty in run opt usr/local; do mount -t tmpfs tmpfs root/$empty; done
echo ready
read -r _
"""


class Overlay:
    """The copy; `prefix` before a command line runs it there, with this machine's network."""

    def __init__(self, directory):
        self._directory = Path(directory)
        self._holder = None

    def __enter__(self):
        unshare, nsenter, chroot = require("unshare", "nsenter", "chroot")
        self._holder = subprocess.Popen(
            [unshare, "--mount", "--propagation", "private", "sh", "-c", SCRIPT, "sh", self._directory],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if self._holder.stdout.readline() != "ready\n":
            _, reason = self._holder.communicate(timeout=PATIENCE)
            raise unittest.SkipTest(f"cannot mount a copy of the file system: {reason.strip()}")
        self.prefix = [nsenter, f"--target={self._holder.pid}", "--mount", chroot, self._directory / "root"]
        return self

    def __exit__(self, *_):
        # A namespace's mounts disappear with its last process.
        self._holder.communicate(timeout=PATIENCE)

    def run(self, *command, check=True):
        return subprocess.run([*self.prefix, *command], capture_output=True, text=True, check=check)

    def output(self, *command):
        return self.run(*command).stdout
