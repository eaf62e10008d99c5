"""A web server for the tests: plain, TLS, TLS with client certificates, old TLS, and on a unix socket.

It creates an authority and certificates in a temporary directory, prints one line of JSON with the directory and the
ports, and runs until its standard input ends.
"""

import atexit
import http.server
import json
import os
import shutil
import socket
import socketserver
import ssl
import subprocess
import sys
import tempfile
import threading

directory = tempfile.mkdtemp(prefix="diglett-web-")
atexit.register(shutil.rmtree, directory, True)


def path(name):
    return os.path.join(directory, name)


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def authority(name):
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
            f"/CN={name}", "-keyout", path(f"{name}.key"), "-out", path(f"{name}.pem"))


def certificate(name, extension):
    with open(path(f"{name}.ext"), "w") as file:
        file.write(extension)
    openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
            "-keyout", path(f"{name}.key"), "-out", path(f"{name}.csr"))
    openssl("x509", "-req", "-in", path(f"{name}.csr"), "-CA", path("authority.pem"), "-CAkey", path("authority.key"),
            "-CAcreateserial", "-days", "2", "-extfile", path(f"{name}.ext"), "-out", path(f"{name}.pem"))


class Gate:
    """Releases requests in batches of eight, and counts how many waited at most."""

    def __init__(self):
        self.condition = threading.Condition()
        self.waiting = 0
        self.most = 0
        self.batch = 0

    def enter(self):
        with self.condition:
            self.waiting += 1
            self.most = max(self.most, self.waiting)
            if self.waiting == 8:
                self.batch += 1
                self.waiting = 0
                self.condition.notify_all()
            else:
                batch = self.batch
                self.condition.wait_for(lambda: self.batch != batch, timeout=10)
            return self.most


gate = Gate()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body, *fields):
        self.send_response(status)
        for name, value in fields:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def raw(self, text):
        self.wfile.write(text)
        self.close_connection = True

    def handle_any(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        _, kind, *rest = self.path.split("/")
        if kind == "status":
            self.answer(int(rest[0]), b"status " + rest[0].encode(), ("Content-Type", "text/plain"), ("X-Other", "o"))
        elif kind == "echo":
            said = {"method": self.command, "fields": [[n, v] for n, v in self.headers.items()], "length": length,
                    "sum": sum(body), "path": self.path}
            self.answer(200, json.dumps(said).encode())
        elif kind == "port":
            self.answer(200, str(self.client_address[1]).encode())
        elif kind == "big":
            self.answer(200, b"x" * int(rest[0]))
        elif kind == "chunked":
            self.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                     + b"".join(b"1\r\n%c\r\n" % c for c in b"chunked") + b"0\r\n\r\n")
        elif kind == "drip":
            # Endless, and so slow that only a timeout ends it.
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            while not stopped.wait(0.01):
                self.wfile.write(b"x")
        elif kind == "endless":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                self.wfile.write(b"x" * 65536)
        elif kind == "hang":
            # Until the client closes the connection.
            self.rfile.read(1)
            self.close_connection = True
        elif kind == "short":
            self.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
        elif kind == "nothing":
            self.close_connection = True
        elif kind == "close":
            # Closes the connection after the answer without announcing it (no "Connection: close").
            self.answer(200, b"last")
            self.close_connection = True
        elif kind == "garbage":
            self.raw(b"SSH-2.0-OpenSSH_9.2\r\n")
        elif kind == "control":
            self.raw(b"HTTP/9.\x1b[31m 200 OK\r\n\r\n")
        elif kind == "redirect":
            self.answer(302, b"elsewhere", ("Location", "/status/200"))
        elif kind == "cookie":
            self.answer(200, str(self.headers.get("Cookie")).encode(), ("Set-Cookie", "a=b"))
        elif kind == "gate":
            self.answer(200, str(gate.enter()).encode())
        else:
            self.answer(404, b"")

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

    def handle(self):
        try:
            super().handle()
        except OSError:
            pass


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, context=None):
        self.context = context
        super().__init__(("127.0.0.1", 0), Handler)

    def finish_request(self, request, address):
        try:
            if self.context:
                request = self.context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
                self.shake_hands(request)
            super().finish_request(request, address)
        except OSError:
            pass
        finally:
            request.close()


    def shake_hands(self, request):
        try:
            request.do_handshake()
        except ssl.SSLError:
            # Closing a socket with unread bytes sends a reset, which could discard our alert. So read them first.
            request.shutdown(socket.SHUT_WR)
            while request.recv(65536):
                pass
            raise


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class UnixHandler(Handler):
    def setup(self):
        self.client_address = ("unix", 0)
        super().setup()


def context(**options):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(path("server.pem"), path("server.key"))
    return made


stopped = threading.Event()
authority("authority")
authority("stranger")
certificate("server", "subjectAltName=DNS:localhost,IP:127.0.0.1")
certificate("client", "extendedKeyUsage=clientAuth")
openssl("ec", "-in", path("client.key"), "-aes128", "-passout", "pass:secret", "-out", path("encrypted.key"))

strict = context()
strict.verify_mode = ssl.CERT_REQUIRED
strict.load_verify_locations(path("authority.pem"))
old = context()
old.minimum_version = ssl.TLSVersion.TLSv1
old.maximum_version = ssl.TLSVersion.TLSv1_1
old.set_ciphers("ALL:@SECLEVEL=0")

servers = {"http": Server(), "https": Server(context()), "strict": Server(strict), "old": Server(old)}
unix = UnixServer(path("socket"), UnixHandler)
for server in [*servers.values(), unix]:
    threading.Thread(target=server.serve_forever, daemon=True).start()
print(json.dumps({"directory": directory, "ports": {n: s.server_address[1] for n, s in servers.items()}}), flush=True)
sys.stdin.read()
stopped.set()
