"""Real servers as backends: nginx, OpenSSH, PostgreSQL and Python's own http.server.

Each runs in the foreground, with all its files in a directory of the test. The stage stops it by process id.
"""

import getpass
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import unittest
from pathlib import Path

from harness import Program, free_port, wait_until


def require(*programs):
    """The paths of programs, or the path of a single one; skips the test if one is not installed."""
    paths = []
    for program in programs:
        # Servers are in sbin, which is not in every user's PATH.
        path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
        if not path:
            raise unittest.SkipTest(f"{program} is not installed")
        paths.append(path)
    return paths if len(paths) > 1 else paths[0]


def accepts(address):
    """Whether the address accepts connections."""
    try:
        socket.create_connection(address, 1).close()
        return True
    except OSError:
        return False


def is_closed(port):
    """Whether a port of 127.0.0.1 has no listener (any more)."""
    return not accepts(("127.0.0.1", port))


def wait_accepting(program, port):
    """Waits until a new server accepts connections."""
    def ready():
        if not program.running:
            raise AssertionError(f"{program.label} ended at once:\n{program.tail()}")
        return accepts(("127.0.0.1", port))

    wait_until(ready, f"{program.label} to listen on port {port}")


NGINX_CONFIGURATION = """\
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    tcp_nodelay on;
    keepalive_requests 1000000;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        root {directory}/files;
    }}
}}
"""


class Nginx:
    """nginx that serves the directory `files`, which the test fills."""

    def __init__(self, stage):
        program = require("nginx")
        directory = stage.new_directory("nginx")
        self.files = directory / "files"
        self.files.mkdir()
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        configuration = directory / "nginx.conf"
        configuration.write_text(NGINX_CONFIGURATION.format(directory=directory, port=self.port))
        self.program = stage.start(
            "nginx", [program, "-p", directory, "-c", configuration, "-e", "stderr"])
        wait_accepting(self.program, self.port)


SSHD_CONFIGURATION = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {directory}/host_key
PidFile none
AuthorizedKeysFile {directory}/user_key.pub
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
StrictModes no
UsePAM no
Subsystem sftp internal-sftp
"""


class Sshd:
    """OpenSSH with its own host key and user key.

    `client(program, port)` is the start of an ssh or scp command line that trusts only this host key and offers only
    this user key.
    """

    def __init__(self, stage):
        sshd, keygen = require("sshd", "ssh-keygen")
        self.directory = directory = stage.new_directory("sshd")
        self.user = getpass.getuser()
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        for key in ("host_key", "user_key"):
            subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", directory / key], check=True)
        (directory / "sshd_config").write_text(
            SSHD_CONFIGURATION.format(directory=directory, port=self.port))
        host_key = (directory / "host_key.pub").read_text().split()
        (directory / "known_hosts").write_text(f"gateway {host_key[0]} {host_key[1]}\n")
        if os.geteuid() == 0:
            # sshd requires this directory; usually the service manager creates it.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.program = stage.start("sshd", [sshd, "-D", "-e", "-f", directory / "sshd_config"])
        wait_accepting(self.program, self.port)

    def client(self, program, port):
        options = {
            "Port": port, "User": self.user, "HostKeyAlias": "gateway", "BatchMode": "yes",
            "UserKnownHostsFile": self.directory / "known_hosts", "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes", "IdentityFile": self.directory / "user_key",
            "IdentitiesOnly": "yes", "IdentityAgent": "none", "ConnectTimeout": 10,
        }
        words = [require(program), "-F", "none", "-q"]
        for name, value in options.items():
            words += ["-o", f"{name}={value}"]
        return words


class Postmaster(Program):
    """PostgreSQL's first process: it ends its children and removes their shared memory, if it is not killed itself."""

    def kill(self):
        if self.running:
            self.send_signal(signal.SIGQUIT)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.send_signal(signal.SIGKILL)
        return self.wait_exit()


class Postgres:
    """PostgreSQL with a cluster of its own, which its superuser `postgres` enters without a password."""

    def __init__(self, stage):
        initdb, postgres = self._find("initdb"), self._find("postgres")
        self.directory = stage.new_directory("postgres")
        self.port = free_port()
        # It refuses to run as root.
        prefix = ()
        if os.geteuid() == 0:
            try:
                owner = pwd.getpwnam("postgres")
            except KeyError:
                raise unittest.SkipTest("there is no user postgres") from None
            os.chown(self.directory, owner.pw_uid, owner.pw_gid)
            stage.directory.chmod(0o711)
            identity = (f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups")
            prefix = (require("setpriv"), *identity)
        data = self.directory / "data"
        subprocess.run([*prefix, initdb, "--no-sync", "--auth=trust", "--username=postgres", "-D", data],
                       cwd=self.directory, stdout=subprocess.DEVNULL, check=True, timeout=60)
        self.program = stage.start("postgres", [
            *prefix, postgres, "-D", data, "-p", self.port, "-c", "listen_addresses=127.0.0.1",
            "-c", f"unix_socket_directories={self.directory}", "-F"], Postmaster, cwd=self.directory)
        wait_accepting(self.program, self.port)

    @staticmethod
    def _find(name):
        """A program of the server; Debian has them outside the path, by version."""
        found = shutil.which(name) or max(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), default=None)
        if not found:
            raise unittest.SkipTest(f"{name} of PostgreSQL is not installed")
        return found

    @property
    def superuser(self):
        """The environment in which psql and similar programs connect as the superuser."""
        return {"PGHOST": str(self.directory), "PGPORT": str(self.port), "PGUSER": "postgres"}


def python_http_server(stage, port, directory, bind):
    """Python's http.server with the contract's command line. It cannot report port 0 in time."""
    program = stage.start("http.server", [
        sys.executable, "-m", "http.server", "--directory", ".", "--bind", bind, str(port)], cwd=directory)
    wait_accepting(program, port)
    return program


# Keeps nginx's temporary files in its own directory; for a block `http`.
NGINX_TEMPORARY = """\
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
"""

# The start of a configuration, up to the content of the block `http`.
NGINX_HEAD = """\
daemon off;
{user}
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{}}
http {{
""" + NGINX_TEMPORARY

NGINX_STREAM_MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"

# Answers with the addresses of the connection's PROXY header.
NGINX_BEHIND_PROXY = """\
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
""" + NGINX_TEMPORARY + """\
    server {{
        listen {listen} proxy_protocol;
        root {directory}/files;
        location = /who {{
            return 200 "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port";
        }}
    }}
}}
"""

NGINX_AS_PROXY = """\
load_module {module};
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
stream {{
    server {{
        listen {listen};
        proxy_pass {target};
        proxy_protocol on;
    }}
}}
"""

HAPROXY_BEHIND_PROXY = """\
defaults
    timeout connect 10s
    timeout client 60s
    timeout server 60s
frontend who
    mode http
    bind {listen} accept-proxy
    http-request return status 200 content-type text/plain lf-string "%[src] %[src_port] %[dst] %[dst_port]"
"""

HAPROXY_AS_PROXY = """\
defaults
    timeout connect 10s
    timeout client 60s
    timeout server 60s
listen front
    mode tcp
    bind {listen}
    server gateway {target} {option}
"""


class ProxyServer:
    """nginx or haproxy with a test's configuration, on a port or a unix socket."""

    def __init__(self, stage, kind, configuration, path=None, **fields):
        program = require(kind)
        directory = stage.new_directory(kind)
        self.files = directory / "files"
        self.files.mkdir()
        self.port = None if path else free_port()
        self.address = f"unix:{path}" if path else f"127.0.0.1:{self.port}"
        listen = f"unix@{path}" if path else self.address
        file = directory / f"{kind}.conf"
        file.write_text(configuration.format(directory=directory, listen=listen, **fields))
        arguments = ["-p", directory, "-c", file, "-e", "stderr"] if kind == "nginx" else ["-db", "-f", file]
        self.program = stage.start(kind, [program, *arguments])
        if path:
            wait_until(lambda: os.path.exists(path), f"{kind} to listen on {path}")
        else:
            wait_accepting(self.program, self.port)


def nginx_behind_proxy(stage):
    """nginx that answers /who with the addresses of the PROXY header, and serves `files`."""
    return ProxyServer(stage, "nginx", NGINX_BEHIND_PROXY)


def haproxy_behind_proxy(stage, path=None):
    """haproxy that answers every request with the addresses of the PROXY header."""
    return ProxyServer(stage, "haproxy", HAPROXY_BEHIND_PROXY, path)


def nginx_as_proxy(stage, target):
    """nginx that forwards connections to `target` with a PROXY header of version 1, the only one that it can send."""
    if not os.path.exists(NGINX_STREAM_MODULE):
        raise unittest.SkipTest("libnginx-mod-stream is not installed")
    return ProxyServer(stage, "nginx", NGINX_AS_PROXY, module=NGINX_STREAM_MODULE, target=target)


def haproxy_as_proxy(stage, target, option):
    """haproxy that forwards connections to `target`; the option is send-proxy or send-proxy-v2."""
    return ProxyServer(stage, "haproxy", HAPROXY_AS_PROXY, target=target, option=option)
