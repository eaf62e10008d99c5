"""Route ids from Caddy's admin API that do not belong to names."""

import contextlib
import http.server
import json
import threading

from harness import EndToEndTest, wait_until
from hooks import configure


class AdminAPI(contextlib.AbstractContextManager):
    """Answers every GET with routes with these ids, and records the paths of DELETE requests."""

    def __init__(self, ids):
        self.deleted = []
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self, status, body=b""):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                self.answer(200, json.dumps([{"@id": ident} for ident in ids]).encode())

            def do_DELETE(self):
                api.deleted.append(self.path)
                self.answer(200)

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


class CaddyIDs(EndToEndTest):
    def test_only_those_of_names_become_a_part_of_a_url(self):
        api = self.stage.use(AdminAPI([
            "diglett-first", "diglett-../../config/", "diglett-a/b", "diglett-a?x", "diglett-a#x", "diglett-a%2f..",
            "diglett-", "diglett--a", "diglett-OLD", "diglett-admin", "diglett-é", "diglett-a b", "diglett-a\r\nX: y",
            "diglett-" + "a" * 64, "other", "xdiglett-a", "diglett-last"]))
        gateway = self.stage.gateway("-c", configure(
            self.stage, f'[[registrar]]\nkind = "caddy"\ndomain = "gw.test"\nadmin = "{api.url}"\n'))
        wait_until(lambda: "/id/diglett-last" in api.deleted, "the last one to be deleted")
        self.assertEqual(api.deleted, ["/id/diglett-first", "/id/diglett-last"])
        self.assertEqual(gateway.stop(), 0)
