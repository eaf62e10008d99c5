"""Starts a program as a service manager does: with its descriptors numbered from 3 on, and the variables that name the
process that they are for.

    supervised.py COUNT DESCRIPTOR... PROGRAM ARGUMENT...
"""

import fcntl
import os
import sys

count = int(sys.argv[1])
given = [int(text) for text in sys.argv[2:2 + count]]
# Move the descriptors to high numbers first, to not overwrite one of them.
far = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 500) for descriptor in given]
for descriptor in given:
    os.close(descriptor)
for index, descriptor in enumerate(far):
    os.dup2(descriptor, 3 + index)
    os.close(descriptor)
# Only this process knows the pid that these variables must have.
for name in ("LISTEN_PID", "WATCHDOG_PID"):
    if os.environ.get(name) == "self":
        os.environ[name] = str(os.getpid())
if os.environ.get("JOURNAL_STREAM") == "stderr":
    status = os.fstat(2)
    os.environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
program = sys.argv[2 + count:]
os.execv(program[0], program)
