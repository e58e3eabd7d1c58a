"""Drive a server over a slow link with three cameras and print what sending their pictures raw and as JPEG costs.

    python benchmarks/network.py [--mbit 100] [--rtt-ms 20] [--requests 20] [--quality 90]

Robot and server are on this machine, in processes of their own; between them a relay, a third process, shapes the link:
it lets --mbit million bits per second pass in each direction and holds each byte for half of --rtt-ms. It does not
model TCP's slow start, lost packets or radio. The policy answers at once, so that the time to action is the link's,
the coding's and ours. Pictures are `bench`'s made-up scenes, 480 x 640; in the rows of noise they are random numbers,
which no JPEG makes small. "shrunk" is a server whose spec says 224 x 224: the client shrinks before it sends. The ways
take turns, and ratios are of medians of one run. Exits with 1 if a mark is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from policyserve import ArraySpec, Client, ImageSpec, PolicySpec, TextSpec
from policyserve.bench.scenes import scene
from policyserve.client.images import ImageSender
from policyserve.core.policy import FunctionPolicy
from policyserve.dialects import by_name
from policyserve.server.policy_server import PolicyServer

CAMERAS = ("cam_high", "cam_left_wrist", "cam_right_wrist")
SIZES = {"full": (480, 640), "shrunk": (224, 224)}
_PIECE = 1 << 14  # bytes that pass the link at a time: 1.3 ms of 100 Mbit/s
_QUEUED_S = 0.05  # how much waits before the link, as in a router
_WARM = 7  # requests, in which "auto" has decided


@dataclass
class Way:
    """One way to send the pictures. most: the mark, of the first way's time to action; least_hz: of its rate."""

    name: str
    server: str
    images: str
    pictures: str
    most: float | None = None
    least_hz: float | None = None
    took_s: list[float] = field(default_factory=list)
    sent: int = 0


def the_ways() -> list[Way]:
    """The rows, raw pictures first."""
    return [
        Way("raw", "full", "raw", "scene"),
        Way("jpeg", "full", "jpeg", "scene", 0.3, 10.0),
        Way("auto", "full", "auto", "scene"),
        Way("jpeg, noise", "full", "jpeg", "noise"),
        Way("raw, shrunk by the robot", "shrunk", "raw", "small scene"),
        Way("jpeg, shrunk", "shrunk", "jpeg", "scene", 0.15),
    ]


def spec_of(size: str) -> PolicySpec:
    """Three cameras, a state and a prompt."""
    cameras = {f"images/{name}": ImageSpec(*SIZES[size]) for name in CAMERAS}
    return PolicySpec("arm", {**cameras, "state": ArraySpec((14,)), "prompt": TextSpec()}, ArraySpec((14,)), 50)


def observation_of(pictures: str) -> Mapping[str, Any]:
    """What the robot sees."""
    height, width = SIZES["shrunk" if pictures == "small scene" else "full"]
    random = np.random.default_rng(0)
    if pictures == "noise":
        made = [random.integers(0, 256, (height, width, 3)).astype(np.uint8) for _ in CAMERAS]
    else:
        made = [scene(height, width, seed) for seed in range(len(CAMERAS))]
    return {"images": dict(zip(CAMERAS, made, strict=True)), "state": np.zeros(14, np.float32), "prompt": "fold it"}


# The processes beside the robot's


async def serve(size: str) -> None:
    """Serve the policy and print the port."""
    actions = np.zeros((50, 14), np.float32)
    async with PolicyServer(FunctionPolicy(lambda _: actions, spec_of(size)), "127.0.0.1", 0) as server:
        await server.ready()
        print(server.address.port, flush=True)
        await asyncio.Event().wait()


async def relay(port: int, mbit: float, rtt_ms: float) -> None:
    """Shape what goes to and comes from a server, and print the relay's port."""
    tasks: set[asyncio.Task[None]] = set()

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
        for one, other in ((reader, server_writer), (server_reader, writer)):
            tasks.add(task := asyncio.ensure_future(_pass_on(one, other, mbit * 1e6 / 8, rtt_ms / 2e3)))
            task.add_done_callback(tasks.discard)

    listening = await asyncio.start_server(join, "127.0.0.1", 0)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await listening.serve_forever()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: float, delay_s: float) -> None:
    """One direction of one connection. rate: bytes per second."""
    line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def deliver() -> None:
        while True:
            due, data = await line.get()
            await asyncio.sleep(max(due - time.monotonic(), 0))
            if not data:
                writer.close()
                return
            writer.write(data)
            await writer.drain()

    delivering = asyncio.ensure_future(deliver())
    free_at = 0.0  # when the link has passed what it was given
    try:
        while data := await reader.read(_PIECE):
            free_at = max(free_at, time.monotonic()) + len(data) / rate
            line.put_nowait((free_at + delay_s, data))
            if (ahead_s := free_at - time.monotonic()) > _QUEUED_S:
                await asyncio.sleep(ahead_s - _QUEUED_S)
    except ConnectionError:
        pass
    line.put_nowait((free_at + delay_s, b""))
    await asyncio.wait([delivering])


@contextmanager
def _beside(*argv: str) -> Iterator[int]:
    """Run this program in another process; gives the port that it prints."""
    process = subprocess.Popen([sys.executable, __file__, *argv], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


# The robot's


def measure(ways: Sequence[Way], ports: Mapping[str, int], requests: int, quality: int) -> None:
    """Ask in turns, each way over a connection of its own."""
    seen = {pictures: observation_of(pictures) for pictures in {way.pictures for way in ways}}
    with ExitStack() as stack:
        clients: list[Client] = []
        for way in ways:
            url = f"ws://127.0.0.1:{ports[way.server]}"
            images: Any = way.images
            client = stack.enter_context(Client(url, images=images, jpeg_quality=quality, timeout_s=60))
            clients.append(client)
            way.sent = _bytes_sent(way, client, seen[way.pictures], quality)
            for _ in range(_WARM):
                client.infer(seen[way.pictures])
        for _ in range(requests):
            for way, client in zip(ways, clients, strict=True):
                began_at = time.perf_counter()
                client.infer(seen[way.pictures])
                way.took_s.append(time.perf_counter() - began_at)


def _bytes_sent(way: Way, client: Client, observation: Mapping[str, Any], quality: int) -> int:
    """How long a request's message is; of "auto" where it goes as JPEG."""
    dialect = by_name("openpi")
    if way.images != "raw":
        sender = ImageSender("jpeg", quality, "")
        sender.on_connected(dialect, client.metadata)
        observation = sender.prepared(observation)
    return len(dialect.write_request(observation))


def report(ways: Sequence[Way]) -> bool:
    """Print the table; whether all marks are met."""
    print("| way | kB a request | time to action, ms: p50 | max | Hz | of raw's | marks |")
    print("|---|---|---|---|---|---|---|")
    raw_s, are_met = median(ways[0].took_s), True
    for way in ways:
        p50 = median(way.took_s)
        ratio, hz = p50 / raw_s, 1 / p50
        marks = [(f"≤ {way.most:g} ×", ratio <= way.most)] if way.most is not None else []
        marks += [(f"≥ {way.least_hz:g} Hz", hz >= way.least_hz)] if way.least_hz is not None else []
        told = ", ".join(f"{mark} {'met' if is_met else 'MISSED'}" for mark, is_met in marks)
        are_met = are_met and all(is_met for _, is_met in marks)
        times = f"{p50 * 1e3:.1f} | {max(way.took_s) * 1e3:.1f} | {hz:.1f} | {ratio:.2f}"
        print(f"| {way.name} | {way.sent / 1e3:.0f} | {times} | {told or '–'} |")
    return are_met


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mbit", type=float, default=100.0)
    parser.add_argument("--rtt-ms", type=float, default=20.0)
    parser.add_argument("--requests", type=int, default=20, help="of each way")
    parser.add_argument("--quality", type=int, default=90)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--relay", type=int, help=argparse.SUPPRESS)
    flags = parser.parse_args(argv)
    if flags.serve:
        asyncio.run(serve(flags.serve))
    if flags.relay:
        asyncio.run(relay(flags.relay, flags.mbit, flags.rtt_ms))
    ways = the_ways()
    with ExitStack() as stack:
        link = ("--mbit", str(flags.mbit), "--rtt-ms", str(flags.rtt_ms))
        servers = {size: stack.enter_context(_beside("--serve", size)) for size in SIZES}
        ports = {size: stack.enter_context(_beside("--relay", str(port), *link)) for size, port in servers.items()}
        measure(ways, ports, flags.requests, flags.quality)
    print(f"{flags.mbit:g} Mbit/s, {flags.rtt_ms:g} ms there and back, 3 x 480 x 640, quality {flags.quality}\n")
    return 0 if report(ways) else 1


if __name__ == "__main__":
    sys.exit(main())
