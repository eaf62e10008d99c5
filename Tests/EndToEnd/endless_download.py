"""An HTTP server in its own process, which a test can kill.

    endless_download.py length|close

It prints its port and answers each request with an endless body.  With `length` the head has a Content-Length that is
never reached.  With `close` the answer is HTTP/1.0 and ends with the connection.  Only a TCP reset then distinguishes
a broken answer from a complete one, so the sockets of this mode always end with a reset, even if the process is killed.
(By default the kernel closes the sockets of a killed process with an ordinary end of stream, which a tunnel cannot
distinguish from a complete answer.)
"""

import os
import socket
import sys
import threading

from backends import read_head, reset_on_close

HEADS = {
    "length": f"HTTP/1.1 200 OK\r\nContent-Length: {1 << 40}\r\n\r\n",
    "close": "HTTP/1.0 200 OK\r\n\r\n",
}


def serve(connection, mode):
    if mode == "close":
        reset_on_close(connection)
    block = os.urandom(64 * 1024)
    try:
        read_head(connection)
        connection.sendall(HEADS[mode].encode())
        while True:
            connection.sendall(block)
    except OSError:
        connection.close()


def main():
    mode = sys.argv[1]
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection, mode), daemon=True).start()


if __name__ == "__main__":
    main()
