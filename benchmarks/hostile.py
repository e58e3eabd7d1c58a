"""Measures what two hundred hostile clients at their limits cost: the server's memory, and a robot's round trips.

    python benchmarks/hostile.py --clients 200

Starts a server on its defaults in a process of its own. Each hostile client announces a message of the largest size and
sends all of it but the last byte, as fast as a gigabit network carries it, and again when it is cut. Meanwhile a robot
asks with camera images. Prints the server's resident memory before, at its peak and after, and the robot's round trips.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
from measuring.harness import Program, resident_kb, started

import policyserve

MIB = 1 << 20
SERVER = """
import asyncio, sys, logging, policyserve
logging.basicConfig(level=logging.ERROR)
config = policyserve.ServerConfig(host="127.0.0.1", port=0, max_buffered_mib=float(sys.argv[1]))
server = policyserve.Server(lambda _: policyserve.as_policy(lambda x: x["state"]), config)
asyncio.run(server.run(on_ready=lambda spec: print(f"url {server.address.url}\\nready", flush=True)))
"""
HANDSHAKE = (
    b"GET /openpi HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
OBSERVATION = {
    "image": np.zeros((224, 224, 3), np.uint8),
    "wrist_image": np.zeros((224, 224, 3), np.uint8),
    "state": np.zeros(8, np.float32),
}


def resident_mib(pid: int) -> float:
    """What a process has in memory now."""
    return resident_kb(pid) / 1024


class Network:
    """The attackers' common wire: so many bytes per second."""

    def __init__(self, mib_per_s: float) -> None:
        self.sent = 0
        self._bytes_per_s = mib_per_s * MIB
        self._started_at = time.monotonic()

    async def carry(self, count: int) -> None:
        """Wait until the wire has carried `count` bytes more."""
        self.sent += count
        await asyncio.sleep(max(self._started_at + self.sent / self._bytes_per_s - time.monotonic(), 0))


async def attack(port: int, clients: int, seconds: float, mib_per_s: float) -> None:
    """Be all the hostile clients; prints the bytes sent."""
    network = Network(mib_per_s)
    ends_at = time.monotonic() + seconds
    await asyncio.gather(*(send_but_the_last_byte(port, ends_at, network) for _ in range(clients)))
    print(network.sent)


async def send_but_the_last_byte(port: int, ends_at: float, network: Network) -> None:
    """Send a message, wait for what comes of it, and begin anew if that is the end."""
    size = 64 * MIB
    piece = bytes(MIB)
    while time.monotonic() < ends_at:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(HANDSHAKE + b"\x82\xff" + size.to_bytes(8, "big") + bytes(4))
                for number in range(64):
                    writer.write(piece[: -1 if number == 63 else None])
                    await writer.drain()
                    await network.carry(MIB)
                    if time.monotonic() > ends_at:
                        return
                while time.monotonic() < ends_at and not reader.at_eof():
                    with suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(reader.read(4096), 0.5)
            finally:
                writer.transport.abort()


async def drive(port: int, ends_at: float, trips_ms: list[float]) -> None:
    """A robot at 10 Hz."""
    async with policyserve.AsyncClient(f"ws://127.0.0.1:{port}", timeout_s=60) as robot:
        while time.monotonic() < ends_at:
            started = time.perf_counter()
            await robot.infer(OBSERVATION)
            trips_ms.append((time.perf_counter() - started) * 1e3)
            await asyncio.sleep(0.1)


async def measure(port: int, pid: int, clients: int, seconds: float, mib_per_s: float) -> None:
    alone: list[float] = []
    await drive(port, time.monotonic() + 2, alone)
    before, peak = resident_mib(pid), 0.0
    trips: list[float] = []
    ends_at = time.monotonic() + seconds
    flags = ["--attack", port, "--clients", clients, "--seconds", seconds, "--mib-per-s", mib_per_s]
    command = [sys.executable, __file__, *map(str, flags)]
    attackers = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    robot = asyncio.create_task(drive(port, ends_at, trips))
    while time.monotonic() < ends_at:
        peak = max(peak, resident_mib(pid))
        await asyncio.sleep(0.05)
    await robot
    sent, _ = await attackers.communicate()
    await asyncio.sleep(1)
    print(f"{clients} clients sent {int(sent) / 1024 / MIB:.1f} GiB of messages that never end, in {seconds:g} s")
    print(f"{'':>24} {'before':>8} {'peak':>8} {'after':>8}")
    print(f"{'server, MiB resident':>24} {before:>8.0f} {peak:>8.0f} {resident_mib(pid):>8.0f}")
    print(f"{'':>24} {'p50':>8} {'p99':>8} {'trips':>8}")
    for name, times in (("robot alone, ms", alone), ("robot among them, ms", trips)):
        p50, p99 = np.percentile(times, (50, 99))
        print(f"{name:>24} {p50:>8.1f} {p99:>8.1f} {len(times):>8}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--max-buffered-mib", type=float, default=policyserve.ServerConfig().max_buffered_mib)
    parser.add_argument("--mib-per-s", type=float, default=119.0, help="all together; 119: a gigabit network")
    parser.add_argument("--attack", type=int, default=0, help="(the hostile clients' process: a port)")
    arguments = parser.parse_args()
    if arguments.attack:
        asyncio.run(attack(arguments.attack, arguments.clients, arguments.seconds, arguments.mib_per_s))
        return
    with started(Program(("-c", SERVER, str(arguments.max_buffered_mib)))) as server:
        pid = server.process.pid
        asyncio.run(measure(server.port, pid, arguments.clients, arguments.seconds, arguments.mib_per_s))


if __name__ == "__main__":
    main()
