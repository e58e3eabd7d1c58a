"""Measures how long a robot waits while other peers send frames without pause, of every kind that costs us most.

    python benchmarks/floods.py [--only pings] [--peers 1 64] [--seconds 5]

Starts a server on its defaults in a process of its own, the robot in another, and the flooding peers in a third, which
sends as fast as the server takes it. Prints the robot's round trips alone and among the peers, and their ratio.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
from measuring.harness import machine, our_server, started

import policyserve

HANDSHAKE = (
    b"GET /openpi HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_PIECE = 1 << 16  # bytes that a flooding peer hands to its socket at once
_SPEED_S = 0.005  # a robot at 200 Hz, or as fast as it is answered


def _frame(first: int, payload: bytes = b"") -> bytes:
    """A client's frame, masked with zeros."""
    size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xff" + len(payload).to_bytes(8, "big")
    return bytes([first]) + size + bytes(4) + payload


# What is sent once, and what again and again.
FLOODS = {
    "empty maps": (b"", _frame(0x82, b"\x80")),
    "messages of no sense": (b"", _frame(0x82, b"\x01")),
    "empty texts": (b"", _frame(0x81)),
    "empty fragments": (_frame(0x02), _frame(0x00)),
    "fragments of one byte": (_frame(0x02, b"x"), _frame(0x00, b"x")),
    "fragments of 100 bytes": (_frame(0x02, bytes(100)), _frame(0x00, bytes(100))),
    "pings": (b"", _frame(0x89)),
    "pongs": (b"", _frame(0x8A)),
    "messages of 60 kB": (b"", _frame(0x82, bytes(60_000))),
    "messages of 8 MB": (b"", _frame(0x82, bytes(8_000_000))),
}


class Flooder:
    """A peer that sends without pause and drops what it is told; cut, it comes again."""

    def __init__(self, port: int, kind: str) -> None:
        self._port = port
        self._begin, one = FLOODS[kind]
        self._piece = one * max(_PIECE // len(one), 1)
        self.connect()

    def connect(self) -> None:
        """Come, or come again."""
        self.socket = socket.create_connection(("127.0.0.1", self._port))
        self.socket.sendall(HANDSHAKE + self._begin)
        self.socket.setblocking(False)
        self._left = memoryview(self._piece)

    def go_on(self) -> None:
        """Send what the socket takes, and read what came; raises OSError when the server has cut it."""
        with suppress(BlockingIOError):
            if not self.socket.recv(1 << 20):
                raise ConnectionResetError
        with suppress(BlockingIOError):
            self._left = self._left[self.socket.send(self._left) :] or memoryview(self._piece)


def flood(port: int, kind: str, peers: int) -> None:
    """Be all the peers until the input ends; says so when they are there."""
    with selectors.DefaultSelector() as selector:
        for _ in range(peers):
            flooder = Flooder(port, kind)
            selector.register(flooder.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, flooder)
        selector.register(sys.stdin, selectors.EVENT_READ)
        print("flooding", flush=True)
        while True:
            for key, _ in selector.select():
                if key.data is None:
                    return
                try:
                    key.data.go_on()
                except OSError:
                    selector.unregister(key.fileobj)
                    key.data.connect()
                    selector.register(key.data.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, key.data)


def drive(port: int, seconds: float) -> None:
    """Be the robot; prints its round trips in ms."""
    trips: list[float] = []
    with policyserve.Client(f"ws://127.0.0.1:{port}", dialect="openpi", timeout_s=120) as robot:
        ends_at = time.perf_counter() + seconds
        while (sent := time.perf_counter()) < ends_at:
            robot.infer({"obs": np.zeros(4, np.float32)})
            trips.append((time.perf_counter() - sent) * 1e3)
            time.sleep(max(sent + _SPEED_S - time.perf_counter(), 0))
    print(json.dumps(trips))


def measured(port: int, seconds: float) -> list[float]:
    """A robot's round trips, ms."""
    command = [sys.executable, __file__, "--drive", str(port), "--seconds", str(seconds)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def row(kind: str, peers: int, seconds: float) -> str:
    """A row of the table, made with a server of its own."""
    with started(our_server("measuring.policies:cartpole_inline")) as server:
        alone = measured(server.port, seconds / 2)
        command = [sys.executable, __file__, "--flood", str(server.port), "--only", kind, "--peers", str(peers)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as flooders:
            assert flooders.stdout is not None
            assert flooders.stdin is not None
            flooders.stdout.readline()
            among = measured(server.port, seconds)
            flooders.stdin.close()
    before, (p50, p99) = np.median(alone), np.percentile(among, (50, 99))
    return f"| {kind} | {peers} | {before:.2f} | {p50:.2f} | {p99:.1f} | {p50 / before:.0f} | {len(among)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=FLOODS, default=list(FLOODS), metavar="KIND")
    parser.add_argument("--peers", nargs="+", type=int, default=[1, 64])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each row")
    parser.add_argument("--drive", type=int, default=0, help="(the robot's process: a port)")
    parser.add_argument("--flood", type=int, default=0, help="(the peers' process: a port)")
    arguments = parser.parse_args()
    if arguments.drive:
        drive(arguments.drive, arguments.seconds)
    elif arguments.flood:
        flood(arguments.flood, arguments.only[0], arguments.peers[0])
    else:
        print(machine() + "\n")
        print("| flood of | peers | robot alone, p50 ms | among them, p50 ms | p99 ms | p50 / alone | answers |")
        print("|---|---|---|---|---|---|---|")
        for kind in arguments.only:
            for peers in arguments.peers:
                print(row(kind, peers, arguments.seconds), flush=True)


if __name__ == "__main__":
    main()
