"""An HTTP server that is a process of its own, so that it can be killed.

    endless_download.py length|close

It prints its port and answers each request with a body that does not end.  With
`length` the head promises a Content-Length far beyond what is ever sent.  With
`close` the answer is HTTP/1.0 and ends with the connection: then nothing but a
TCP reset tells a broken answer from a whole one, so this mode's sockets are set to
end in a reset, however the process dies.  (A kernel that closes the sockets of a
killed process says an ordinary end of stream otherwise, which no tunnel could
tell from a finished answer.)
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
