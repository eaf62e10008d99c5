"""A proxy that sends a PROXY header at the start of each connection.

    header_proxy.py TARGET_HOST TARGET_PORT SOURCE HEADER...

Listens on loopback and prints the port.  Connections to the target come from SOURCE and begin with the HEADER, written
with Python's escapes, for instance "PROXY UNKNOWN\\r\\n".  It is a separate program, so that tests can run it in
another network namespace.
"""

import socket
import sys
import threading

import backends


def start(stage, target, header, source="127.0.0.1", prefix=()):
    """Starts a proxy to `target`, a Gateway or HOST:PORT; returns the proxy's address."""
    host, _, port = getattr(target, "address", target).rpartition(":")
    proxy = stage.start("proxy", [*prefix, sys.executable, __file__, host, port, source,
                                  header.encode("unicode_escape").decode()])
    match = proxy.wait_line(proxy.stdout, lambda line: line.strip().isdigit() and line.strip(), "the proxy's port")
    return f"127.0.0.1:{match}"


def main():
    host, port, source, header = sys.argv[1:]
    header = header.encode().decode("unicode_escape").encode("latin-1")

    def serve(client):
        with socket.create_connection((host, int(port)), 10, (source, 0)) as target:
            target.settimeout(None)
            target.sendall(header)
            back = threading.Thread(target=pump, args=(target, client), daemon=True)
            back.start()
            pump(client, target)
            back.join()

    def pump(one, other):
        try:
            while piece := one.recv(64 * 1024):
                other.sendall(piece)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            # If one side fails, close both.
            for end in (one, other):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    with backends.Listener(serve) as listener:
        print(listener.address.rpartition(":")[2], flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
