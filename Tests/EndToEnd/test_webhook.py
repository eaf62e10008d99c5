"""A web service as authenticator and registrar (auth = "webhook", kind = "webhook")."""

import contextlib
import http.server
import json
import ssl
import subprocess
import threading
import time

import backends
from backends import Listener
from harness import EndToEndTest, wait_until
from hooks import schema
from realservers import require


class Hook(contextlib.AbstractContextManager):
    """A web service on 127.0.0.1. `answer(request)` returns (status, body bytes), or a dict for status 200.

    `tls` is an ssl.SSLContext for HTTPS, which also defines the required client certificates.
    """

    def __init__(self, answer, tls=None):
        self.requests = []
        self.answer = answer
        self._lock = threading.Lock()
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with hook._lock:
                    hook.requests.append((dict(self.headers), body))
                    answer = hook.answer
                given = answer(body)
                status, data = given if isinstance(given, tuple) else (200, json.dumps(given).encode())
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(data)

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.scheme = "http"
        if tls:
            self.scheme = "https"
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._server.handle_error = lambda *_: None
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self._server.server_address[1]}/hook"

    def bodies(self, action):
        with self._lock:
            bodies = [body for _, body in self.requests if body["action"] == action]
        for body in bodies:
            schema().validate(body)
        return bodies

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


def judge(request):
    """Accepts Alice, for names that begin with 'a'."""
    if request["action"] == "authenticate":
        return {"ok": request.get("token") == "alice", "identity": "alice", "reason": "unknown"}
    if request["action"] == "authorize":
        return {"ok": request["name"].startswith("a"), "reason": "only a"}
    return {"ok": True}


class Webhooks(EndToEndTest):
    def setUp(self):
        super().setUp()
        self.backend = self.stage.use(Listener(backends.answering(b"page")))

    def hook(self, answer=judge, **options):
        return self.stage.use(Hook(answer, **options))

    def gateway(self, hook, *lines, registrar=False):
        path = self.stage.directory / "server.toml"
        table = f'[[registrar]]\nkind = "webhook"\nurl = "{hook.url}"\n' if registrar else ""
        text = f'auth = "webhook"\n[auth-webhook]\nurl = "{hook.url}"\n' + "".join(f"{line}\n" for line in lines)
        path.write_text(text + table)
        return self.stage.gateway("-d", "-c", path)

    def agent(self, gateway, *options, token="alice", name="app"):
        return self.stage.agent(gateway, "-n", name, "-t", token, *options, self.backend.address)

    def check_not_judged(self, gateway):
        """Checks that a login was neither accepted nor refused: without --once the agent would retry."""
        code, event = self.agent(gateway, "--once").refusal()
        self.assertEqual((code, event["code"]), (69, "unavailable"))
        self.assertIn("the gateway cannot authenticate agents now", event["message"])

    def test_yes_and_no(self):
        secret = self.stage.directory / "secret"
        secret.write_text("hush\n")
        secret.chmod(0o600)
        hook = self.hook()
        gateway = self.gateway(hook, f'secret-file = "{secret}"', registrar=True)
        wait_until(lambda: hook.bodies("reset"), "the reset at the start")
        agent = self.agent(gateway)
        port = agent.wait_registered("app")
        headers = [headers for headers, body in hook.requests if body["action"] == "authenticate"]
        self.assertEqual(headers[0]["Authorization"], "Bearer hush")
        self.assertEqual(hook.bodies("authenticate")[0]["protocol"], 2)
        published = hook.bodies("publish")[0]
        self.assertEqual((published["name"], published["address"]["port"]), ("app", port))
        self.assertEqual(self.agent(gateway, token="mallory").refusal()[0], 11)
        gateway.wait_log(r"WARN .*login from 127\.0\.0\.1:\d+ refused: webhook http.*unknown")
        self.assertEqual(self.agent(gateway, name="bpp").refusal()[0], 13)
        agent.stop()
        wait_until(lambda: hook.bodies("withdraw"), "the withdrawal")
        self.assertNotIn("hush", gateway.output)

    def test_a_failing_service_is_asked_again(self):
        failures = [(503, b"busy"), (500, b"")]

        def answer(request):
            return failures.pop() if failures else judge(request)

        hook = self.hook(answer)
        self.agent(self.gateway(hook)).wait_registered("app")
        self.assertEqual(len(hook.bodies("authenticate")), 3)

    def test_bad_answers(self):
        for given, words in [((404, b"no"), "status 404"), ((500, b""), "status 500"),
                             ((200, b"yes"), "JSON"), ((200, b" " * 10_000_000), "more than"),
                             ((302, b""), "status 302")]:
            with self.subTest(words=words):
                gateway = self.gateway(self.hook(lambda _, given=given: given), "retries = 0")
                self.check_not_judged(gateway)
                gateway.wait_log(rf"cannot authenticate the login from .*: webhook .*{words}")

    def test_a_service_that_hangs(self):
        release = threading.Event()
        self.addCleanup(release.set)
        hook = self.hook(lambda request: release.wait(60) or judge(request))
        gateway = self.gateway(hook, "timeout = 0.5")
        began = time.monotonic()
        self.check_not_judged(gateway)
        self.assertLess(time.monotonic() - began, 5)
        gateway.wait_log("cannot authenticate the login from .*: webhook .*timed out")

    def test_the_same_question_is_asked_once(self):
        release = threading.Event()
        self.addCleanup(release.set)

        def answer(request):
            if request["action"] == "authorize":
                release.wait(5)
            return judge(request)

        hook = self.hook(answer)
        gateway = self.gateway(hook)
        agent = self.agent(gateway)
        wait_until(lambda: hook.bodies("authorize"), "the question")
        release.set()
        agent.wait_registered("app")
        self.assertEqual(len(hook.bodies("authorize")), 1)

    def test_certificates_of_both_sides(self):
        openssl = require("openssl")
        directory = self.stage.directory

        def certificate(name, *more):
            subprocess.run(
                [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                 "-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1",
                 "-keyout", directory / f"{name}.key", "-out", directory / f"{name}.pem", *more],
                check=True, capture_output=True)
            return directory / f"{name}.pem", directory / f"{name}.key"

        server, client = certificate("server"), certificate("client")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*server)
        context.load_verify_locations(client[0])
        context.verify_mode = ssl.CERT_REQUIRED
        hook = self.hook(tls=context)
        gateway = self.gateway(hook, f'ca = "{server[0]}"', f'cert = "{client[0]}"', f'key = "{client[1]}"')
        self.agent(gateway).wait_registered("app")
        # Without the client's certificate, and with another authority.
        for lines in [[f'ca = "{server[0]}"'], [f'ca = "{client[0]}"', f'cert = "{client[0]}"', f'key = "{client[1]}"']]:
            gateway = self.gateway(hook, *lines, "retries = 0")
            self.check_not_judged(gateway)

    def test_a_secret_never_goes_to_another_machine_in_the_clear(self):
        path = self.stage.directory / "server.toml"
        path.write_text('auth = "webhook"\n[auth-webhook]\nurl = "http://192.0.2.1/hook"\n')
        gateway = self.stage.gateway("-c", path, ready=False)
        self.assertEqual(gateway.wait_exit(), 78)
        self.assertIn(f"{path}:3: ", gateway.output)
