"""Clients to be driven in turns that `policyserve bench` has not: openpi's own, bare TCP, `websockets` on defaults."""

from __future__ import annotations

import heapq
import random
import selectors
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from policyserve.bench.fleet import Fleet, Single
from policyserve.bench.load import Load, Watch
from policyserve.bench.payloads import payload_for
from policyserve.bench.raw import RawPeer
from policyserve.bench.raw_fleet import RawFleet
from policyserve.bench.tally import Tally
from policyserve.core.messages import Observation
from policyserve.dialects import by_name

from .turns import Asker

REPLY_BYTES = 1050  # of (32, 7) float32 with its timing, in a frame
_STEP_S = 3e-4, 1.5e-3  # of a simulator, from an answer to its next request
_SIZES = (40, 150_000, 301_000, 600_000, 1_100_000, 2_770_000, 3_500_000)  # bytes of a mixed fleet's observations


def open_fleet(asker: Asker, url: str) -> Fleet:
    """Connect one side's clients to the server at `url`."""
    place = f"{url}{asker.path}"
    if asker.way == "tcp":
        return TcpFleet(place, len(written(asker.payload)), REPLY_BYTES)
    if asker.way == "openpi-client":
        return OpenpiFleet(place, observation_for(asker.payload))
    if asker.way == "mixed":
        return MixedFleet(place, asker.clients)
    if asker.way == "stepping":
        return SteppingFleet(place, asker.clients, observation_for(asker.payload))
    observation = observation_for(asker.payload, asker.dialect)
    if asker.way == "plain":
        return PlainFleet(place, observation)
    load = Load(place, asker.dialect, observation, asker.clients, offers_deflate=asker.offers_deflate)
    return Single(load) if asker.way == "ours" else RawFleet(load)


def observation_for(payload: str, dialect: str = "openpi") -> Observation:
    """One of the known payloads, or "camera", 1.8 MB; what vibe_rl's dialect cannot carry, a text, is left out."""
    if payload == "camera":
        return {"images": np.random.default_rng(0).integers(0, 256, (3, 448, 448, 3)).astype(np.uint8)}
    observation = payload_for(payload, {}, dialect).observation
    return {key: value for key, value in observation.items() if dialect != "vibe_rl" or key != "prompt"}


def written(payload: str) -> bytes:
    """A request of openpi's dialect, without its frame."""
    message = by_name("openpi").write_request(observation_for(payload))
    assert not isinstance(message, str)
    return bytes(message)


class _Loop:
    """One client that asks again as soon as it is answered."""

    def __init__(self, ask: Callable[[], object], close: Callable[[], object] = int) -> None:
        self._ask = ask
        self._close = close

    def drive(self, tally: Tally, seconds: float) -> None:
        with Watch(tally) as start:
            while (sent := time.perf_counter()) < start + seconds:
                self._ask()
                tally.answered(sent, sent, time.perf_counter(), {})

    def close(self) -> None:
        self._close()


class OpenpiFleet(_Loop):
    """PyPI's unmodified openpi-client."""

    def __init__(self, url: str, observation: Observation) -> None:
        from openpi_client.websocket_client_policy import (  # pyright: ignore[reportMissingImports]
            WebsocketClientPolicy,
        )

        parts = urlsplit(url)
        client: Any = WebsocketClientPolicy(f"ws://{parts.hostname}", parts.port)
        super().__init__(lambda: client.infer(dict(observation)))  # it has no close()


class PlainFleet(_Loop):
    """vibe_rl's documented client: `websockets` on its defaults, but for the size of messages."""

    def __init__(self, url: str, observation: Observation) -> None:
        from websockets.sync.client import connect

        dialect = by_name("vibe_rl")
        # Entered by hand, since it outlives this call: the same in every release of the library.
        connection = connect(url, max_size=None).__enter__()

        def ask() -> None:
            connection.send(dialect.write_request(observation))
            dialect.read_reply(connection.recv())

        super().__init__(ask, connection.close)


class TcpFleet(_Loop):
    """One client of rivals/tcp.py: it sends as many bytes as a request has and reads as many as a reply has."""

    def __init__(self, url: str, request_bytes: int, reply_bytes: int) -> None:
        parts = urlsplit(url)
        connected = socket.create_connection((parts.hostname or "", parts.port or 0))
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request, reply = bytes(request_bytes), memoryview(bytearray(reply_bytes))

        def ask() -> None:
            connected.sendall(request)
            filled = 0
            while filled < len(reply):
                count = connected.recv_into(reply[filled:])
                assert count, "the server ended"
                filled += count

        super().__init__(ask, connected.close)


class MixedFleet:
    """Raw clients with observations of many sizes: each has another one in each round, and all are sent at once."""

    def __init__(self, url: str, clients: int) -> None:
        self._peers = [RawPeer(url, "openpi", 60.0) for _ in range(clients)]
        random = np.random.default_rng(0)
        pixels = [random.integers(0, 256, size).astype(np.uint8) for size in _SIZES]
        self._frames = [self._peers[0].frame({"image": one}, "openpi") for one in pixels]
        self._round = 0

    def drive(self, tally: Tally, seconds: float) -> None:
        with Watch(tally) as start:
            while (sent := time.perf_counter()) < start + seconds:
                self._round += 1
                for number, peer in enumerate(self._peers):
                    peer.send(self._frames[(number + self._round) % len(self._frames)])
                for peer in self._peers:
                    peer.receive()
                    tally.answered(sent, sent, time.perf_counter(), {})

    def close(self) -> None:
        for peer in self._peers:
            peer.close()


class SteppingFleet:
    """Raw clients that each step a simulator between an answer and the next request, for a time of no regularity."""

    def __init__(self, url: str, clients: int, observation: Observation) -> None:
        self._peers = [RawPeer(url, "openpi", 60.0) for _ in range(clients)]
        self._frame = self._peers[0].frame(observation, "openpi")
        self._random = random.Random(0)

    def drive(self, tally: Tally, seconds: float) -> None:
        with Watch(tally) as start, selectors.DefaultSelector() as selector:
            for peer in self._peers:
                selector.register(peer.socket, selectors.EVENT_READ, peer)
            steps = [(start, number) for number in range(len(self._peers))]  # a heap: when a step ends, and whose
            sent: dict[RawPeer, float] = {}
            while steps or sent:
                now = time.perf_counter()
                while steps and steps[0][0] <= now:
                    peer = self._peers[heapq.heappop(steps)[1]]
                    sent[peer] = time.perf_counter()
                    peer.send(self._frame)
                for key, _ in selector.select(max(steps[0][0] - now, 0.0) if steps else None):
                    peer = key.data
                    peer.read()
                    if peer.take():
                        now = time.perf_counter()
                        tally.answered(sent[peer], sent.pop(peer), now, {})
                        if now < start + seconds:
                            heapq.heappush(steps, (now + self._random.uniform(*_STEP_S), self._peers.index(peer)))

    def close(self) -> None:
        for peer in self._peers:
            peer.close()
