"""Programs at a terminal of their own."""

import os
import pty
import re
import select
import signal
import time

from harness import PATIENCE, Failure


class Terminal:
    """A program at a terminal of its own, and what it has written there."""

    def __init__(self, argv, stage, stdout=None, environment=None):
        """`stdout` is a path, where that leads elsewhere."""
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
        # The end of its terminal is the end of a shell, and of a program.
        if self._code is None:
            self.hang_up()

    def hang_up(self):
        """Closes the terminal's window; how the program ends."""
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
                raise Failure(f"waited in vain for {pattern!r} on a terminal that shows {self.shown!r}")
            self.shown += os.read(self.descriptor, 4096).decode(errors="replace")

    def wait_exit(self):
        """How it ends: a code, or minus the number of a signal. What it writes meanwhile is added to `shown`."""
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
                    # Nobody has the other end any more.
                    pass
        raise Failure(f"a program has not ended on a terminal that shows {self.shown!r}")
