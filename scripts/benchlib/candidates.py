"""The compared tunnels.

To add one, derive from Candidate and put the class in CANDIDATES:

    key, title        short name for --only, heading in the table
    missing()         why it cannot run here, or None
    start(backends)   {name: backend port} -> {name: public port}; all names share one link
                      if the tunnel supports that
    pids()            processes of the tunnel, for CPU time and memory (both ends)
    stop()            stops all processes of start(); called even if start() failed

`self.pool.start(...)` runs a process and writes its output to files in `self.dir`, a new temporary
directory for each instance.
"""

import getpass
import json
import os
import re
import shutil
import signal
import time

from . import procs
from .procs import BenchError, Pool

START_SECONDS = 20


class Candidate:
    key = title = ""
    tunnels = True
    # Whether it runs by default; otherwise --only must list it.
    usual = True

    def __init__(self, directory, options):
        self.dir = directory
        self.options = options
        self.pool = Pool(directory)

    @classmethod
    def missing(cls, options):
        return None

    @classmethod
    def version(cls, options):
        return ""

    def start(self, backends):
        raise NotImplementedError

    def pids(self):
        found = []
        for child in self.pool.children:
            if not child.running():
                raise BenchError(f"{child.name} ended with {child.popen.returncode}:"
                                 f" {child.tail()}")
            found += [child.pid] + procs.descendants(child.pid)
        return found

    def stop(self):
        self.pool.stop_all()


class Direct(Candidate):
    """No tunnel: the upper bound that backend, load generator and kernel set."""

    key = "direct"
    title = "no tunnel"
    tunnels = False

    def start(self, backends):
        return dict(backends)


class SshRemote(Candidate):
    """`ssh -R` between our own sshd and the ssh client, with an idle session.

    The session matters: sshd sets TCP_NODELAY on its connection only when it runs a session. Without
    one (`ssh -N -R`, below) it waits for delayed acknowledgements, and small requests are slow.
    """

    key = "ssh"
    title = "ssh -R"
    SESSION = ["cat"]  # exits when the client's input or the connection is closed
    CIPHER = "aes128-gcm@openssh.com"
    PRIVSEP_DIR = "/run/sshd"

    def __init__(self, directory, options):
        super().__init__(directory, options)
        self.client = self.sshd = None

    @classmethod
    def missing(cls, options):
        for tool in ("ssh", "ssh-keygen", "sshd"):
            if not find_tool(tool):
                return f"{tool} is not installed"
        return None

    @classmethod
    def version(cls, options):
        return procs.run_text(["ssh", "-V"])

    def start(self, backends):
        host_key, user_key = (os.path.join(self.dir, name) for name in ("host_key", "user_key"))
        for key in (host_key, user_key):
            if not os.path.exists(key):
                procs.run_text(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
        if os.geteuid() == 0:  # sshd as root requires it; not removed later, another sshd may use it
            os.makedirs(self.PRIVSEP_DIR, mode=0o755, exist_ok=True)
        port = procs.free_port()
        config = self.write("sshd_config", f"""
            ListenAddress 127.0.0.1
            Port {port}
            HostKey {host_key}
            AuthorizedKeysFile {user_key}.pub
            PidFile none
            StrictModes no
            UsePAM no
            UseDNS no
            PubkeyAuthentication yes
            PasswordAuthentication no
            KbdInteractiveAuthentication no
            PermitRootLogin prohibit-password
            AllowTcpForwarding remote
            Ciphers {self.CIPHER}
            Compression no
            IPQoS throughput
            MaxStartups 100:30:200
            """)
        self.sshd = self.pool.start("sshd", [find_tool("sshd"), "-D", "-e", "-f", config])
        self.sshd.wait_listening(port)
        known = self.write("known_hosts", f"[127.0.0.1]:{port} "
                           + procs.read_text(host_key + ".pub"))
        argv = [find_tool("ssh"), "-F", "/dev/null", "-T", "-p", str(port), "-i", user_key,
                "-c", self.CIPHER]
        for option in ("IdentitiesOnly=yes", "IdentityAgent=none", "BatchMode=yes",
                       f"UserKnownHostsFile={known}", "GlobalKnownHostsFile=/dev/null",
                       "StrictHostKeyChecking=yes", "Compression=no", "IPQoS=throughput",
                       "ExitOnForwardFailure=yes", "ControlMaster=no", "ControlPath=none"):
            argv += ["-o", option]
        for backend in backends.values():
            argv += ["-R", f"127.0.0.1:0:127.0.0.1:{backend}"]
        argv += [] if self.SESSION else ["-N"]
        argv += [f"{getpass.getuser()}@127.0.0.1", *self.SESSION]
        self.client = self.pool.start("ssh", argv, hold_stdin=bool(self.SESSION))
        public = {}
        for name, backend in backends.items():
            match = self.client.wait_for(
                rf"Allocated port (\d+) for remote forward to 127\.0\.0\.1:{backend}\b",
                START_SECONDS)
            public[name] = int(match.group(1))
        return public

    def write(self, name, text):
        path = os.path.join(self.dir, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write("\n".join(line.strip() for line in text.strip().splitlines()) + "\n")
        return path

    def pids(self):
        """The client and the connection's sshd processes.

        The listening sshd carries no traffic, and only the benchmark needs the session's command.
        """
        super().pids()  # raises if one of them has ended
        return [self.client.pid] + [pid for pid in procs.descendants(self.sshd.pid)
                                    if procs.command_name(pid).startswith("sshd")]

    def stop(self):
        sessions = []
        if self.sshd and self.sshd.running():
            sessions = [(pid, procs.start_time(pid)) for pid in procs.descendants(self.sshd.pid)]
        super().stop()
        # Sessions end with their client; kill those that hang.
        deadline = time.monotonic() + 5
        for pid, began in sessions:
            while began is not None and procs.start_time(pid) == began:
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGKILL)
                    break
                time.sleep(0.02)


class SshNoSession(SshRemote):
    """`ssh -N -R`, the most common form: no session."""

    key = "ssh-n"
    title = "ssh -N -R"
    SESSION = []


class Diglett(Candidate):
    """diglett-server and one agent, on one link."""

    key = "diglett"
    title = "diglett"

    @classmethod
    def binary(cls, options, name):
        return os.path.join(options.bin_dir, name)

    @classmethod
    def missing(cls, options):
        for name in ("diglett-server", "diglett"):
            if not os.access(cls.binary(options, name), os.X_OK):
                return f"{cls.binary(options, name)} not found; run: swift build -c release"
        return None

    @classmethod
    def version(cls, options):
        for name in ("diglett-server", "diglett"):
            text = procs.run_text([cls.binary(options, name), "--version"])
            if re.fullmatch(r"[^\n]{1,80}", text):
                return text
        return ""

    def start(self, backends):
        server = self.pool.start("diglett-server", [
            self.binary(self.options, "diglett-server"), "-l", "127.0.0.1:0",
            "--state-dir", self.state_dir("server")])
        port = server.wait_for(r"listening for agents on 127\.0\.0\.1:(\d+)",
                               START_SECONDS).group(1)
        argv = [self.binary(self.options, "diglett"), "-g", f"127.0.0.1:{port}",
                "--output", "json", "--state-dir", self.state_dir("agent")]
        if len(backends) == 1:
            [(name, backend)] = backends.items()
            argv += ["-n", name, f"127.0.0.1:{backend}"]
        else:
            for name, backend in backends.items():
                argv += ["-n", f"{name}=127.0.0.1:{backend}"]
        agent = self.pool.start("diglett", argv)
        agent.wait_until(lambda: set(backends) <= set(registered(agent, backends)),
                         START_SECONDS, "registered event for " + ", ".join(backends))
        return registered(agent, backends)

    def state_dir(self, name):
        path = os.path.join(self.dir, name)
        os.makedirs(path, mode=0o700, exist_ok=True)
        return path


class DiglettFormer(Diglett):
    """The programs of another build, for instance of the previous commit."""

    key = "former"
    title = "diglett, former"
    usual = False

    @classmethod
    def binary(cls, options, name):
        return os.path.join(options.former or "", name)

    @classmethod
    def missing(cls, options):
        if not options.former:
            return "--former is not set"
        return super().missing(options)


class DiglettVersion1(Diglett):
    """The same programs with protocol version 1, which needs one link per name."""

    key = "diglett-v1"
    title = "diglett --v1"
    usual = False

    def start(self, backends):
        server = self.pool.start("diglett-server", [
            self.binary(self.options, "diglett-server"), "-l", "127.0.0.1:0",
            "--listen-v1", "127.0.0.1:0", "--state-dir", self.state_dir("server")])
        port = server.wait_for(r"agents of version 1 on 127\.0\.0\.1:(\d+)", START_SECONDS).group(1)
        public = {}
        for name, backend in backends.items():
            self.pool.start("diglett", [
                self.binary(self.options, "diglett"), "--v1", "-g", f"127.0.0.1:{port}", "-n", name,
                "--state-dir", self.state_dir(f"agent-{name}"), f"127.0.0.1:{backend}"])
            # In version 1 the agent does not learn the public port.
            public[name] = int(server.wait_for(
                rf"register domain '{name}' -> '(\d+)'", START_SECONDS).group(1))
        return public


def registered(agent, backends):
    """{name: public port} from the agent's events so far."""
    public = {}
    for line in procs.read_text(agent.out).splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue  # the last line may be incomplete
        if isinstance(event, dict) and event.get("event") == "registered":
            name = event.get("name")
            if name is None and len(backends) == 1:
                name = next(iter(backends))
            if isinstance(event.get("port"), int):
                public[name] = event["port"]
    return public


def find_tool(name):
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")


BASELINES = [SshRemote.key, SshNoSession.key, Diglett.key, DiglettFormer.key]
CANDIDATES = [Direct, SshRemote, SshNoSession, Diglett, DiglettFormer, DiglettVersion1]
