"""An independent implementation of both roles of the link protocol, version 2, written from docs/protocol.md alone.

It shares no code with the programs under test, so it reveals their errors. A `Peer` is one link. It sends any frames,
legal or not, and reads frames one by one. It enforces no rules, but answers PINGs while it reads.

    with connect(("127.0.0.1", port)) as agent:         # as an agent
        agent.log_in()                                  # HELLO, LOGIN .. WELCOME
        public = agent.register("example")              # REGISTER .. REGISTERED
        opened = agent.expect(OPEN)                     # a Frame
        agent.send_frame(ACCEPT, u64(65536), stream=opened.stream)

    with Listener(directory) as gateway:                # as a gateway
        link = gateway.accept()
        link.welcome()                                  # HELLO, LOGIN .. WELCOME
        exposure, name = link.take_register()            # REGISTER .. REGISTERED
        link.send_frame(OPEN, open_payload(exposure, 65536), stream=1)

One thread at a time may use a Peer.
"""

import collections
import secrets
import socket
import ssl
import struct
import subprocess
import time

import harness

(HELLO, LOGIN, WELCOME, REGISTER, REGISTERED, UNREGISTER, OPEN,
 ACCEPT, DATA, WINDOW, RESET, PING, PONG, GOAWAY) = range(1, 15)

# Flags: FIN on DATA, SKIPPABLE on types that the receiver may not know.
FIN = 0x01
SKIPPABLE = 0x80

MAXIMUM_PAYLOAD = 16_376
ALPN = "diglett/2"
TCP = 1

# Extensions of HELLO.
SOFTWARE, KINDS = 1, 3

INSTANCE, TOKEN, CERTIFICATE = range(3)

# Codes that tests use.
REFUSED, OVERLOADED, ABORTED, WITHDRAWN = 1, 4, 6, 10
PROTOCOL_VIOLATION, VERSION, FLOW_CONTROL, GLITCHES, OWED = 32, 33, 34, 35, 36
DRAIN, REPLACED = 40, 41
LOGIN_REFUSED, METHOD_NOT_SUPPORTED = 64, 66
NAME_INVALID, NAME_NOT_ALLOWED, NAME_TAKEN, PORT_NOT_ALLOWED, TOO_MANY_NAMES, KIND_NOT_SUPPORTED = 80, 81, 82, 83, 85, 87

Frame = collections.namedtuple("Frame", "type flags stream payload")
Hello = collections.namedtuple("Hello", "lowest highest window streams extensions")
Login = collections.namedtuple("Login", "method key run token")
Registered = collections.namedtuple("Registered", "exposure code port text")
GoAway = collections.namedtuple("GoAway", "code retry_after last_stream text")


class Closed(Exception):
    """The connection has ended; `goaway` is the GOAWAY received before, or None."""

    def __init__(self, goaway, reason):
        super().__init__(f"{reason}, {goaway}")
        self.goaway = goaway


# Payloads.

def u16(number):
    return struct.pack(">H", number)


def u64(number):
    return struct.pack(">Q", number)


def encode(frame_type, payload=b"", stream=0, flags=0):
    """Encodes a frame."""
    return struct.pack(">IBBH", stream, frame_type, flags, len(payload)) + payload


def extension(kind, value):
    return struct.pack(">HH", kind, len(value)) + value


def hello_payload(lowest=2, highest=2, window=65_536, streams=1_024,
                  extensions=extension(SOFTWARE, b"v2peer/1")):
    return b"DGL2" + struct.pack(">BBHII", lowest, highest, 0, window, streams) + extensions


def login_payload(method=INSTANCE, key=bytes(32), run=0, token=b"", extensions=b""):
    return struct.pack(">B32sQH", method, key, run, len(token)) + token + extensions


def welcome_payload(link=1, names=16, extensions=b""):
    return struct.pack(">QHH", link, names, 0) + extensions


def register_payload(exposure, name, kind=TCP, port=0, extensions=b""):
    name = name.encode() if isinstance(name, str) else name
    return struct.pack(">HBBH", exposure, kind, len(name), port) + name + extensions


def registered_payload(exposure, code=0, port=0, text=""):
    return struct.pack(">HHH", exposure, code, port) + text.encode()


def address(host=None, port=0):
    """The 19 bytes of an address; zeros without a host."""
    if host is None:
        return bytes(19)
    if ":" in host:
        return struct.pack(">B16sH", 6, socket.inet_pton(socket.AF_INET6, host), port)
    return struct.pack(">B16sH", 4, socket.inet_pton(socket.AF_INET, host), port)


def open_payload(exposure, limit, visitor=address(), local=address()):
    return struct.pack(">HQ", exposure, limit) + visitor + local


def goaway_payload(code, retry_after=0, last_stream=0, text=""):
    return struct.pack(">HHI", code, retry_after, last_stream) + text.encode()


def read_hello(payload):
    if payload[:4] != b"DGL2":
        raise harness.Failure(f"not a HELLO: {payload!r}")
    lowest, highest, _, window, streams = struct.unpack(">BBHII", payload[4:16])
    return Hello(lowest, highest, window, streams, read_extensions(payload[16:]))


def read_extensions(data):
    fields = {}
    while data:
        kind, size = struct.unpack(">HH", data[:4])
        if len(data) < 4 + size:
            raise harness.Failure("an extension is cut off")
        fields[kind], data = data[4:4 + size], data[4 + size:]
    return fields


def read_login(payload):
    method, key, run, size = struct.unpack(">B32sQH", payload[:43])
    return Login(method, key, run, payload[43:43 + size])


def read_registered(payload):
    return Registered(*struct.unpack(">HHH", payload[:6]), payload[6:].decode())


def read_goaway(payload):
    return GoAway(*struct.unpack(">HHI", payload[:8]), payload[8:].decode())


class Peer:
    """One link, after the TLS handshake."""

    def __init__(self, tls):
        self.tls = tls
        # Whether received PINGs are answered instead of returned to the caller.
        self.answers_pings = True
        # The other side's HELLO and, in the gateway's role, its LOGIN.
        self.hello = None
        self.login = None
        self.goaway = None
        self._buffer = bytearray()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.tls.close()

    def cut(self):
        """Ends the connection with a TCP reset."""
        self.tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.tls.close()

    # Raw frames.

    def send_raw(self, data):
        """Sends any bytes; up to 16,384 bytes become one TLS record. Raises Closed."""
        try:
            self.tls.sendall(data)
        except (ConnectionError, ssl.SSLError) as error:
            raise Closed(self.goaway, error) from error

    def send_frame(self, frame_type, payload=b"", stream=0, flags=0):
        self.send_raw(encode(frame_type, payload, stream, flags))

    def recv_frame(self, timeout=harness.PATIENCE):
        """Waits for the next Frame.

        Raises TimeoutError if none arrives in time, and Closed if the connection has ended.
        """
        deadline = time.monotonic() + timeout
        while True:
            frame = self._take()
            if frame is None:
                self._read(deadline)
            elif frame.type == PING and self.answers_pings:
                self.send_frame(PONG, frame.payload)
            else:
                if frame.type == GOAWAY:
                    self.goaway = read_goaway(frame.payload)
                return frame

    def _take(self):
        if len(self._buffer) < 8:
            return None
        stream, frame_type, flags, size = struct.unpack(">IBBH", self._buffer[:8])
        if size > MAXIMUM_PAYLOAD:
            raise harness.Failure(f"a frame of {size} bytes")
        if len(self._buffer) < 8 + size:
            return None
        payload = bytes(self._buffer[8:8 + size])
        del self._buffer[:8 + size]
        return Frame(frame_type, flags, stream, payload)

    def _read(self, deadline):
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("no frame has come")
        self.tls.settimeout(remaining)
        try:
            data = self.tls.recv(65_536)
        except TimeoutError:
            raise
        except (ConnectionError, ssl.SSLError) as error:
            raise Closed(self.goaway, error) from error
        finally:
            self.tls.settimeout(harness.PATIENCE)
        if not data:
            raise Closed(self.goaway, "closed by the other side")
        self._buffer += data

    def expect(self, frame_type, stream=None, timeout=harness.PATIENCE):
        """Waits for the next frame of this type and, if given, this stream; drops the frames before it."""
        deadline = time.monotonic() + timeout
        while True:
            frame = self.recv_frame(deadline - time.monotonic())
            if frame.type == frame_type and stream in (None, frame.stream):
                return frame

    def read_stream(self, stream, timeout=harness.PATIENCE):
        """Reads the bytes of a stream up to its FIN; does not grant credit."""
        received = b""
        deadline = time.monotonic() + timeout
        while True:
            frame = self.expect(DATA, stream, deadline - time.monotonic())
            received += frame.payload
            if frame.flags & FIN:
                return received

    def wait_end(self, timeout=harness.PATIENCE):
        """Reads until the connection has ended; returns the GoAway that ended it, or None."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.recv_frame(deadline - time.monotonic())
            except Closed as end:
                return end.goaway

    def is_alive(self, timeout=harness.PATIENCE):
        """Whether the other side answers a PING. If so, it has read all bytes sent before it."""
        opaque = secrets.token_bytes(8)
        self.send_frame(PING, opaque)
        try:
            while self.expect(PONG, timeout=timeout).payload != opaque:
                pass
            return True
        except Closed:
            return False

    # As an agent.

    def send_login(self, method=None, token=b"", key=None, run=None, hello=None):
        """Sends HELLO and LOGIN."""
        method = (TOKEN if token else INSTANCE) if method is None else method
        run = secrets.randbits(64) if run is None else run
        key = key or secrets.token_bytes(32)
        self.send_raw(encode(HELLO, hello or hello_payload())
                      + encode(LOGIN, login_payload(method, key, run, token)))

    def log_in(self, **login):
        """Sends HELLO and LOGIN; returns (link id, names) of WELCOME. Raises Closed with the GOAWAY."""
        self.send_login(**login)
        self.hello = read_hello(self._expect_before_welcome(HELLO).payload)
        return struct.unpack(">QH", self._expect_before_welcome(WELCOME).payload[:10])

    def _expect_before_welcome(self, frame_type):
        frame = self.recv_frame()
        if frame.type == GOAWAY:
            raise Closed(self.goaway, "refused")
        if frame.type != frame_type:
            raise harness.Failure(f"{frame} instead of type {frame_type}")
        return frame

    def register(self, name, exposure=0, kind=TCP, port=0):
        """Registers a name; returns the answer, whatever its code."""
        self.send_frame(REGISTER, register_payload(exposure, name, kind, port))
        return self.answer_for(exposure)

    def answer_for(self, exposure):
        while True:
            answer = read_registered(self.expect(REGISTERED).payload)
            if answer.exposure == exposure:
                return answer

    # As a gateway.

    def welcome(self, hello=None, names=16):
        """Reads HELLO and LOGIN and answers them."""
        self.hello = read_hello(self.expect(HELLO).payload)
        self.send_frame(HELLO, hello or hello_payload(extensions=extension(KINDS, bytes([TCP]))))
        self.login = read_login(self.expect(LOGIN).payload)
        self.send_frame(WELCOME, welcome_payload(names=names))

    def take_register(self, code=0, port=1, text="127.0.0.1:1"):
        """Reads a REGISTER and answers it; returns (exposure, name)."""
        payload = self.expect(REGISTER).payload
        exposure, _, size, _ = struct.unpack(">HBBH", payload[:6])
        self.send_frame(REGISTERED, registered_payload(exposure, code, port, text))
        return exposure, payload[6:6 + size].decode()


def connect(gateway, certificate=None, protocol=ALPN, timeout=harness.PATIENCE, source=None):
    """Connects to a gateway, (HOST, PORT), as an agent.

    `certificate` is a PEM file with a certificate and its key, `source` the local address to connect from.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The tests have started the gateway, so they need not verify its key.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if protocol:
        context.set_alpn_protocols([protocol])
    if certificate:
        context.load_cert_chain(certificate)
    plain = socket.create_connection(gateway, timeout, source and (source, 0))
    try:
        # A failed handshake also raises Closed.
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Peer(context.wrap_socket(plain))
    except (ConnectionError, ssl.SSLError) as error:
        plain.close()
        raise Closed(None, error) from error


class Listener:
    """Accepts agents as a gateway on loopback, where agents accept a new key without a prompt."""

    def __init__(self, directory):
        pem = directory / "v2peer.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-days", "2", "-subj", "/CN=gateway",
             "-keyout", directory / "v2peer.key", "-out", pem],
            check=True, capture_output=True, timeout=60)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.load_cert_chain(pem, directory / "v2peer.key")
        self._context.set_alpn_protocols([ALPN])
        self._context.num_tickets = 0
        self._socket = socket.create_server(("127.0.0.1", 0))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    @property
    def address(self):
        """HOST:PORT for -g."""
        host, port = self._socket.getsockname()
        return harness.address_text(host, port)

    def accept(self, timeout=harness.PATIENCE):
        """Accepts the next agent; returns its link, before any frame."""
        self._socket.settimeout(timeout)
        plain, _ = self._socket.accept()
        plain.settimeout(timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Peer(self._context.wrap_socket(plain, server_side=True))
