"""Measures what two hundred hostile clients at their limits cost: the server's memory, and a robot's round trips.

    python benchmarks/hostile.py --clients 200
    python benchmarks/hostile.py --attack wide-texts --max-buffered-mib 256

Starts a server on its defaults in a process of its own. Each hostile client does what --attack says, as fast as a
gigabit network carries it, and again when it is cut. Meanwhile a robot asks with camera images, where the policy
answers. Prints the server's resident memory before, at its peak and after, and the robot's round trips. Exit code 1:
the server grew by more than 1.5 times its bound, which is --max-buffered-mib and the 256 MiB of freed memory that it
keeps.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
from measuring.harness import Program, resident_kb, started

import policyserve

MIB = 1 << 20
KEPT_MIB = 256  # of freed memory, by core/memory.py
WITHIN = 1.5  # times the bound
SERVER = """
import asyncio, sys, time, logging, policyserve
logging.basicConfig(level=logging.ERROR)
kind, max_buffered_mib = sys.argv[1], float(sys.argv[2])
config = policyserve.ServerConfig(host="127.0.0.1", port=0, max_buffered_mib=max_buffered_mib)

def answer(observation):
    time.sleep(60 if kind == "slow" else 0)
    return observation["state"]

def load(progress):
    time.sleep(600 if kind == "loading" else 0)
    return policyserve.as_policy(answer)

async def main():
    serving = asyncio.ensure_future(server.run())
    while not serving.done():
        try:
            print(f"url {server.address.url}\\nready", flush=True)
            break
        except policyserve.ConfigError:  # it does not listen yet
            await asyncio.sleep(0.05)
    await serving

server = policyserve.Server(load, config)
asyncio.run(main())
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


# What hostile clients send.

ARRAY = {b"__ndarray__": True, b"data": bytes(12), b"dtype": "<f4", b"shape": [3]}


def frame(payload: bytes, opcode: int = 2, size: int | None = None, is_final: bool = True) -> bytes:
    """A client's frame, whose mask is zero; size: what it announces, if that is another."""
    announced = (len(payload) if size is None else size).to_bytes(8, "big")
    return bytes([(0x80 if is_final else 0) | opcode, 0xFF]) + announced + bytes(4) + payload


def message(**more: Any) -> bytes:
    """A request that asks for an answer, with more in it."""
    packed = msgpack.packb({"state": ARRAY, **more})
    assert isinstance(packed, bytes)
    return frame(packed)


@dataclass(frozen=True)
class Attack:
    """What each client sends over and over. policy: answering, slow (60 s) or loading. reads: the answers."""

    what: str
    bytes_of: Callable[[], bytes]
    policy: str = "answering"
    reads: bool = True
    times: int = 1 << 30  # then it waits for its end


def _state_of(size: int) -> bytes:
    return message(state={**ARRAY, b"data": bytes(size), b"shape": [size // 4]})


ATTACKS: Mapping[str, Attack] = {
    "unfinished": Attack("64 MiB but for the last byte", lambda: frame(bytes(64 * MIB - 1), size=64 * MIB), times=1),
    "long-keys": Attack(
        "a key of 64 KiB above 16,000 entries",
        lambda: message(**{"K" * 65_536: {f"a{index}": 0 for index in range(16_000)}}),
    ),
    "tiny-items": Attack("3,000 entries, unanswered", lambda: message(x={f"{n:x}": n for n in range(3_000)}), "slow"),
    "wide-texts": Attack(
        "300 texts of 90,000 letters, one of them of 4 bytes; unanswered",
        lambda: message(x=["a" * 90_000 + "\U0001f600"] * 300),
        "slow",
    ),
    "small-requests": Attack("requests of 4 KiB, unanswered", lambda: message(x=bytes(4_000)), "slow"),
    "large-requests": Attack("requests of 16 MiB, unanswered", lambda: _state_of(16 * MIB), "slow"),
    "early-texts": Attack(
        "texts of 31 MiB while the policy loads",
        lambda: frame("\U0001f600".encode() + b"a" * (31 * MIB), opcode=1),
        "loading",
    ),
    "early-requests": Attack("requests while the policy loads", lambda: message(x=bytes(30_000)), "loading"),
    "layouts": Attack("two alike of 60 MiB, and then nothing", lambda: message(x=bytes(60 * MIB)), times=2),
    "unread": Attack("an array of 1 MiB, and it never reads", lambda: _state_of(MIB), reads=False),
    "fragments": Attack("fragments of 64 KiB without end", lambda: frame(bytes(65_536), 0, is_final=False)),
    "announced": Attack("lists that are announced and never come", lambda: frame(b"\xdd\x00\x00\x3f\xff" * 6_000)),
}


async def attack(port: int, what: Attack, clients: int, seconds: float, mib_per_s: float) -> None:
    """Be all the hostile clients; prints the bytes sent."""
    network = Network(mib_per_s)
    ends_at = time.monotonic() + seconds
    sent = memoryview(what.bytes_of())
    await asyncio.gather(*(misbehave(port, what, sent, ends_at, network) for _ in range(clients)))
    print(network.sent)


async def misbehave(port: int, what: Attack, sent: memoryview, ends_at: float, network: Network) -> None:
    """Send it over and over, and begin anew when that is the end."""
    while time.monotonic() < ends_at:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            reading = asyncio.ensure_future(_read(reader) if what.reads else asyncio.sleep(1e6))
            try:
                writer.write(HANDSHAKE)
                if sent[0] == 0:
                    writer.write(frame(b"", is_final=False))  # continuations continue something
                for _ in range(what.times):
                    for start in range(0, len(sent), MIB):
                        piece = sent[start : start + MIB]
                        writer.write(piece)
                        await asyncio.wait_for(writer.drain(), max(ends_at - time.monotonic(), 0.01))
                        await network.carry(len(piece))
                    if time.monotonic() > ends_at or reading.done():
                        break
                await asyncio.wait_for(reading, max(ends_at - time.monotonic(), 0.01))
            except asyncio.TimeoutError:
                pass
            finally:
                reading.cancel()
                writer.transport.abort()


async def _read(reader: asyncio.StreamReader) -> None:
    with suppress(OSError):
        while await reader.read(1 << 16):
            pass


async def drive(port: int, ends_at: float, trips_ms: list[float]) -> None:
    """A robot at 10 Hz, which connects again when it is cut."""
    async with policyserve.AsyncClient(f"ws://127.0.0.1:{port}", timeout_s=60) as robot:
        while time.monotonic() < ends_at:
            started = time.perf_counter()
            await robot.infer(OBSERVATION)
            trips_ms.append((time.perf_counter() - started) * 1e3)
            await asyncio.sleep(0.1)


async def measure(port: int, pid: int, flags: argparse.Namespace) -> bool:
    """Attack, print what it cost, and say whether the server kept to its bound."""
    what = ATTACKS[flags.attack]
    alone: list[float] = []
    if what.policy == "answering":
        await drive(port, time.monotonic() + 2, alone)
    before, peak = resident_mib(pid), 0.0
    trips: list[float] = []
    ends_at = time.monotonic() + flags.seconds
    passed = ["--attack", flags.attack, "--port", port, "--clients", flags.clients, "--seconds", flags.seconds]
    command = [sys.executable, __file__, *map(str, [*passed, "--mib-per-s", flags.mib_per_s])]
    attackers = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    robot = asyncio.create_task(drive(port, ends_at, trips) if alone else asyncio.sleep(0))
    while time.monotonic() < ends_at:
        peak = max(peak, resident_mib(pid))
        await asyncio.sleep(0.05)
    await robot
    sent, _ = await attackers.communicate()
    await asyncio.sleep(1)
    bound = flags.max_buffered_mib + KEPT_MIB
    print(f"{flags.clients} clients sent {int(sent) / 1024 / MIB:.1f} GiB in {flags.seconds:g} s: {what.what}")
    print(f"{'':>24} {'before':>8} {'peak':>8} {'after':>8} {'bound':>8} {'grown / bound':>14}")
    cells = f"{before:>8.0f} {peak:>8.0f} {resident_mib(pid):>8.0f} {bound:>8.0f} {(peak - before) / bound:>14.2f}"
    print(f"{'server, MiB resident':>24} {cells}")
    if alone and trips:
        print(f"{'':>24} {'p50':>8} {'p99':>8} {'trips':>8}")
        for name, times in (("robot alone, ms", alone), ("robot among them, ms", trips)):
            p50, p99 = np.percentile(times, (50, 99))
            print(f"{name:>24} {p50:>8.1f} {p99:>8.1f} {len(times):>8}")
    return peak - before <= bound * WITHIN


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--attack", choices=[*ATTACKS], default="unfinished")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--max-buffered-mib", type=float, default=policyserve.ServerConfig().max_buffered_mib)
    parser.add_argument("--mib-per-s", type=float, default=119.0, help="all together; 119: a gigabit network")
    parser.add_argument("--port", type=int, default=0, help="(the hostile clients' process)")
    flags = parser.parse_args()
    if flags.port:
        asyncio.run(attack(flags.port, ATTACKS[flags.attack], flags.clients, flags.seconds, flags.mib_per_s))
        return
    kind = ATTACKS[flags.attack].policy
    with started(Program(("-c", SERVER, kind, str(flags.max_buffered_mib)))) as server:
        sys.exit(not asyncio.run(measure(server.port, server.process.pid, flags)))


if __name__ == "__main__":
    main()
