"""The limit: blocking TCP, a fixed number of bytes in, a fixed number out, nothing decoded.

python benchmarks/rivals/tcp.py --request-bytes 301000 --reply-bytes 1100
"""

from __future__ import annotations

import argparse
import socket
import threading


def answer(connection: socket.socket, request_bytes: int, reply: bytes) -> None:
    """Serve one client until it leaves."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    space = memoryview(bytearray(request_bytes))
    with connection:
        while True:
            filled = 0
            while filled < request_bytes:
                count = connection.recv_into(space[filled:])
                if not count:
                    return
                filled += count
            connection.sendall(reply)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--request-bytes", type=int, required=True)
    parser.add_argument("--reply-bytes", type=int, required=True)
    arguments = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(f"url tcp://127.0.0.1:{listener.getsockname()[1]}\nready", flush=True)
        while True:
            connection, _ = listener.accept()
            arguments_of = (connection, arguments.request_bytes, bytes(arguments.reply_bytes))
            threading.Thread(target=answer, args=arguments_of, daemon=True).start()


if __name__ == "__main__":
    main()
