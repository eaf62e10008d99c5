"""Hooks whose behaviour a test defines, and whose calls it records."""

import functools
import json
import os
import sys

from harness import REPOSITORY, wait_until

# -IS, isolated and without site-packages, makes Python start in a few milliseconds.
FRAME = '''\
#!{python} -IS
import fcntl, json, os, sys, time

LOG = {log!r}
SWITCHES = {switches!r}
RUNNING = {running!r}


def note(**what):
    line = json.dumps(what) + "\\n"
    descriptor = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, line.encode())
    os.close(descriptor)


def is_on(switch):
    return os.path.exists(os.path.join(SWITCHES, switch))


def is_locked(path):
    try:
        descriptor = os.open(path, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.close(descriptor)
        return False
    except BlockingIOError:
        os.close(descriptor)
        return True


def at_once(action):
    # The number of running hooks: a process holds its lock until it ends, even if it is killed.
    global lock
    lock = os.open(os.path.join(RUNNING, action + "." + str(os.getpid())), os.O_WRONLY | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return sum(is_locked(os.path.join(RUNNING, name)) for name in os.listdir(RUNNING) if name.startswith(action + "."))


def answer(ok=True, **more):
    print(json.dumps(dict(more, ok=ok)))
    note(pid=os.getpid(), action=request["action"], ok=ok)
    sys.exit(0)


line = sys.stdin.readline()
request = json.loads(line)
note(pid=os.getpid(), at_once=at_once(request["action"]), request=request, rest=sys.stdin.read(),
     arguments=sys.argv[1:], environment=sorted(os.environ), directory=os.getcwd())

{body}
'''


@functools.cache
def schema():
    """A validator of hook requests and answers."""
    import jsonschema
    return jsonschema.Draft202012Validator(json.loads((REPOSITORY / "docs/hooks.schema.json").read_text()))


class Hook:
    """A hook that runs `body` to decide; by default it accepts everything.

    The body reads `request` and ends with `answer(...)`. `is_on(SWITCH)` is the state of a switch, which the test can
    change while the hook is in use.
    """

    ALLOWING = 'answer(identity="alice")'

    def __init__(self, stage, body=ALLOWING):
        self._directory = stage.new_directory("hook")
        self.path = self._directory / "hook"
        self._log = self._directory / "log"
        self._switches = self._directory / "switches"
        self._switches.mkdir()
        running = self._directory / "running"
        running.mkdir()
        self.path.write_text(FRAME.format(
            python=sys.executable, log=str(self._log), switches=str(self._switches), running=str(running), body=body))
        self.path.chmod(0o700)

    def switch(self, name, on=True):
        path = self._switches / name
        path.touch() if on else path.unlink()

    def notes(self):
        if not self._log.exists():
            return []
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def calls(self, *actions):
        """The calls of the hook for these actions, oldest first: notes with `request`, `pid`, `arguments` and more."""
        return [note for note in self.notes()
                if "request" in note and (not actions or note["request"]["action"] in actions)]

    def requests(self, *actions):
        requests = [note["request"] for note in self.calls(*actions)]
        for request in requests:
            schema().validate(request)
        return requests

    def answers(self, *actions):
        return [note for note in self.notes() if "ok" in note and (not actions or note["action"] in actions)]

    def wait_requests(self, count, *actions, timeout=15.0):
        """Waits for `count` requests with these actions, and returns all of them."""
        wait_until(lambda: len(self.requests(*actions)) >= count, f"{count} requests {actions}", timeout)
        return self.requests(*actions)

    def most_at_once(self, action):
        """The largest number of processes that ran simultaneously for this action."""
        return max((note["at_once"] for note in self.calls(action)), default=0)


def is_alive(pid):
    """Whether a process runs; a zombie does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except OSError:
        return False


def wait_gone(pid, timeout=2.0):
    wait_until(lambda: not is_alive(pid), f"process {pid} to be gone", timeout)


def configure(stage, text):
    """A gateway's configuration file."""
    file = stage.new_directory("etc") / "gateway.toml"
    file.write_text(text)
    return file


def authenticator(command, timeout=5):
    """The part of a configuration that makes a program the authenticator."""
    words = json.dumps([str(word) for word in command])
    return f'auth = "exec"\n[auth-exec]\ncommand = {words}\ntimeout = {timeout}\n'


def registrar(command, timeout=5):
    words = json.dumps([str(word) for word in command])
    return f'[[registrar]]\nkind = "exec"\ncommand = {words}\ntimeout = {timeout}\n'


def wait_file(path, timeout=15.0):
    """Waits until a file has content, and returns it."""
    def content():
        return path.exists() and path.read_text()

    return wait_until(content, f"{path} to be written", timeout)
