"""Child processes, and what /proc reports about them.

Every child writes to files in the run's temporary directory: pipes could fill up, and would need
reader threads. A child is stopped by its pid. It also receives SIGTERM when the bench dies, so a
killed bench leaves no processes behind.
"""

import ctypes
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class BenchError(Exception):
    """A measurement or a candidate failed; the run continues without it."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def raise_nofile_limit(wanted=65536):
    """Raises the soft limit on open files; children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= target:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    return target


def _die_with_parent():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


class Child:
    """A child process; the files `out` and `err` receive its output.

    With `hold_stdin` its input stays open and empty until `stop`.
    """

    def __init__(self, name, argv, tmp, hold_stdin=False):
        self.name = name
        self.argv = argv
        stamp = f"{name}-{time.monotonic_ns()}"
        self.out = os.path.join(tmp, stamp + ".out")
        self.err = os.path.join(tmp, stamp + ".err")
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            try:
                self.popen = subprocess.Popen(
                    argv, stdin=subprocess.PIPE if hold_stdin else subprocess.DEVNULL,
                    stdout=out, stderr=err, cwd=tmp, preexec_fn=_die_with_parent)
            except OSError as error:
                raise BenchError(f"cannot start {name}: {error}") from error
        self.pid = self.popen.pid

    def running(self):
        return self.popen.poll() is None

    def wait_for(self, pattern, timeout, where="err"):
        """Waits for a line that matches; returns the match."""
        regex = re.compile(pattern)
        path = self.err if where == "err" else self.out
        found = {}

        def look():
            found["match"] = regex.search(read_text(path))
            return found["match"] is not None

        self.wait_until(look, timeout, f"the line /{pattern}/")
        return found["match"]

    def wait_until(self, condition, timeout, what):
        deadline = time.monotonic() + timeout
        while True:
            if condition():
                return
            if not self.running():
                if condition():
                    return
                raise BenchError(f"{self.name} ended with {self.popen.returncode}"
                                 f" before {what}: {self.tail()}")
            if time.monotonic() > deadline:
                raise BenchError(f"{self.name}: no {what} in {timeout} s: {self.tail()}")
            time.sleep(0.02)

    def wait_listening(self, port, timeout=10):
        self.wait_until(lambda: is_listening(port), timeout, f"listener on port {port}")

    def finish(self, timeout):
        """Waits until the process exits with 0, and returns its standard output."""
        try:
            code = self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.stop()
            raise BenchError(f"{self.name} did not end in {timeout} s: {self.tail()}") from None
        if code != 0:
            raise BenchError(f"{self.name} ended with {code}: {self.tail()}")
        return read_text(self.out)

    def stop(self, grace=5):
        if self.popen.stdin and not self.popen.stdin.closed:
            self.popen.stdin.close()
            try:
                self.popen.wait(1)  # end of input may be enough
            except subprocess.TimeoutExpired:
                pass
        if not self.running():
            return
        self.popen.terminate()
        try:
            self.popen.wait(grace)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait(5)

    def tail(self, limit=400):
        text = (read_text(self.err).strip() or read_text(self.out).strip())
        return " / ".join(text[-limit:].splitlines()) or "(no output)"


class Pool:
    """All children of the run; `stop_all` stops them, newest first."""

    def __init__(self, tmp):
        self.tmp = tmp
        self.children = []

    def start(self, name, argv, hold_stdin=False):
        child = Child(name, argv, self.tmp, hold_stdin)
        self.children.append(child)
        return child

    def stop_all(self):
        for child in reversed(self.children):
            child.stop()
        self.children = []


def read_text(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def run_text(argv, timeout=10):
    """Output of a short command (both streams), or an empty string."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=timeout, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace").strip()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_listening(port):
    """Whether the port has a listener, found without connecting to it."""
    wanted = f":{port:04X}"
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in read_text(table).splitlines()[1:]:
            fields = line.split()
            if len(fields) > 3 and fields[3] == "0A" and fields[1].endswith(wanted):
                return True
    return False


def _stat(pid):
    text = read_text(f"/proc/{pid}/stat")
    if ")" not in text:
        return None
    return text[text.rindex(")") + 2:].split()


def start_time(pid):
    """Start time in clock ticks, which distinguishes processes with the same pid; None if ended."""
    fields = _stat(pid)
    return int(fields[19]) if fields and fields[0] != "Z" else None


def command_name(pid):
    return read_text(f"/proc/{pid}/comm").strip()


def descendants(root):
    """Pids of all descendants of `root`."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            fields = _stat(entry)
            if fields:
                parents.setdefault(int(fields[1]), []).append(int(entry))
    found, todo = [], [root]
    while todo:
        for pid in parents.get(todo.pop(), []):
            found.append(pid)
            todo.append(pid)
    return found


def cpu_seconds(pids):
    """User and system time of the processes so far."""
    total = 0
    for pid in pids:
        fields = _stat(pid)
        if fields is None:
            raise BenchError(f"tunnel process {pid} has ended")
        total += int(fields[11]) + int(fields[12])
    return total / CLOCK_TICKS


def own_cpu_seconds():
    """CPU time of the bench and of all its children, including those that have ended."""
    total = 0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        total += usage.ru_utime + usage.ru_stime
    for pid in descendants(os.getpid()):
        fields = _stat(pid)
        if fields:
            total += sum(int(number) for number in fields[11:15]) / CLOCK_TICKS
    return total


def machine_cpu_seconds():
    """CPU time used on this machine, including steal time."""
    fields = [int(field) for field in read_text("/proc/stat").split("\n")[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) / CLOCK_TICKS


class Others:
    """Measures other processes' share of the CPU time; a high share distorts a measurement."""

    def __init__(self):
        self.began = time.monotonic()
        self.machine = machine_cpu_seconds()
        self.own = own_cpu_seconds()

    def share(self):
        cores = os.cpu_count() or 1
        used = machine_cpu_seconds() - self.machine - (own_cpu_seconds() - self.own)
        return max(0.0, used / ((time.monotonic() - self.began) * cores))


def memory_kib(pids):
    """(Pss, Rss) of all processes in KiB; Pss is None if the kernel does not report it."""
    pss, rss = 0, 0
    for pid in pids:
        rollup = read_text(f"/proc/{pid}/smaps_rollup")
        found_pss = re.search(r"^Pss:\s+(\d+) kB", rollup, re.M)
        found_rss = (re.search(r"^Rss:\s+(\d+) kB", rollup, re.M)
                     or re.search(r"^VmRSS:\s+(\d+) kB", read_text(f"/proc/{pid}/status"), re.M))
        if not found_rss:
            raise BenchError(f"tunnel process {pid} has ended")
        rss += int(found_rss.group(1))
        pss = None if pss is None or not found_pss else pss + int(found_pss.group(1))
    return pss, rss
