"""Programs on pseudoterminals."""

import os
import pty
import re
import select
import signal
import time

from harness import PATIENCE, Failure


class Terminal:
    """A program on its own pseudoterminal, and its output there."""

    def __init__(self, argv, stage, stdout=None, environment=None):
        """`stdout` is the path of a file for standard output instead of the terminal."""
        self.shown = ""
        self._code = None
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            if stdout:
                os.dup2(os.open(stdout, os.O_WRONLY | os.O_CREAT), 1)
            os.execve(argv[0], [str(part) for part in argv],
                      {**stage.environment(), "TERM": "dumb", **(environment or {})})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Shells and programs exit when their terminal closes.
        if self._code is None:
            self.hang_up()

    def hang_up(self):
        """Closes the terminal, like its window; returns the program's exit code, or minus the number of a signal."""
        os.close(self.descriptor)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
                return self._code
            time.sleep(0.01)
        os.kill(self.pid, signal.SIGKILL)
        raise Failure("a program has not ended although its terminal is gone")

    def write(self, text):
        self.shown = ""
        os.write(self.descriptor, text.encode())

    def await_text(self, pattern):
        deadline = time.monotonic() + PATIENCE
        while not re.search(pattern, self.shown):
            if not select.select([self.descriptor], [], [], max(0, deadline - time.monotonic()))[0]:
                raise Failure(f"timed out waiting for {pattern!r} on a terminal that shows {self.shown!r}")
            self.shown += os.read(self.descriptor, 4096).decode(errors="replace")

    def wait_exit(self):
        """Waits for the exit code, or minus the number of a signal. Adds the output until then to `shown`."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
                return self._code
            if select.select([self.descriptor], [], [], 0.01)[0]:
                try:
                    self.shown += os.read(self.descriptor, 4096).decode(errors="replace")
                except OSError:
                    # The other end of the terminal is closed.
                    pass
        raise Failure(f"a program has not ended on a terminal that shows {self.shown!r}")
