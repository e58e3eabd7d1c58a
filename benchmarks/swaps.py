"""A thousand policies one after the other, under load: nothing may be lost or crossed, and nothing kept.

    python benchmarks/swaps.py --swaps 1000 --clients 8 [--when next-session] [--unload-first]

A server in this process is asked by clients in threads, which stay connected, while each policy takes over from the one
before. A policy has a megabyte of weights, and answers with its number, with how often this session has asked it, and
with what it was asked. A client checks that its answers are its own, that numbers never go back, and that a policy
which it has not asked yet remembers nothing of it. With next-session a client is a new session every fifty requests.

Exit code 1 if a request got no answer or another's, or if the process has more threads or descriptors at the end than
after the first tenth, or 16 MiB more memory. Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import policyserve
from policyserve import ActionChunk, ArraySpec, Client, PolicyInput, PolicySpec
from policyserve.core import memory

_SPEC = PolicySpec("numbered", {"x": ArraySpec((1,), "float64")}, ArraySpec((3,), "float64"), max_batch=8)
_WEIGHTS = 1 << 17  # float64s: a megabyte
_SETTLED = 0.1  # of the swaps, after which nothing may be kept
_MOST_MIB = 16.0
_SETTLING_S = 5.0
_REQUESTS_A_SESSION = 50


class Numbered:
    """A policy that tells which one it is, and what it remembers."""

    def __init__(self, number: int) -> None:
        self.spec = _SPEC
        self._weights = np.full(_WEIGHTS, float(number))

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        return [self._answer(one) for one in batch]

    def _answer(self, one: PolicyInput) -> ActionChunk:
        count = (one.state or 0) + 1
        return ActionChunk(np.array([self._weights[0], count, one.observation["x"][0]]), state=count)

    def close(self) -> None:
        """It has nothing to close."""


@dataclass
class Ledger:
    """What all clients saw."""

    asked: int = 0
    answered: int = 0
    faults: list[str] = field(default_factory=list)
    round_trips_ms: list[float] = field(default_factory=list)

    def add(self, other: Ledger) -> None:
        self.asked += other.asked
        self.answered += other.answered
        self.faults += other.faults
        self.round_trips_ms += other.round_trips_ms


@dataclass(frozen=True)
class Held:
    """What the process has: memory in MiB, threads, descriptors."""

    mib: float
    threads: int
    descriptors: int


def held() -> Held:
    """Read it from /proc, once what is free is given back."""
    memory.give_back()
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return Held(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, threading.active_count(), len(os.listdir("/proc/self/fd")))


def settled(early: Held) -> Held:
    """What is held once the policies before have ended, which takes them a moment."""
    deadline = time.monotonic() + _SETTLING_S
    while (late := held()).threads > early.threads and time.monotonic() < deadline:
        time.sleep(0.01)
    return late


def ask(url: str, robot: int, is_over: threading.Event, ledger: Ledger, renews: bool) -> None:
    """Ask until it is over, and note what is wrong."""
    while not is_over.is_set():
        number, counted = 0.0, 0.0
        with Client(url, dialect="openpi") as client:
            while not is_over.is_set():
                ledger.asked += 1
                asked, began_at = robot * 1e9 + ledger.asked, time.perf_counter()
                answer: Any = client.infer({"x": np.array([asked])}).actions
                ledger.round_trips_ms.append((time.perf_counter() - began_at) * 1e3)
                ledger.answered += 1
                expected = counted + 1 if answer[0] == number else 1.0
                if answer[2] != asked or answer[0] < number or answer[1] != expected:
                    ledger.faults.append(f"robot {robot} asked {asked:.0f} of {number:.0f}: {answer.tolist()}")
                number, counted = float(answer[0]), float(answer[1])
                if renews and ledger.asked % _REQUESTS_A_SESSION == 0:
                    break


def drive(swaps: int, clients: int, when: str = "now", unload_first: bool = False) -> tuple[Ledger, Held, Held, float]:
    """Exchange the policy so often; what was seen, what was held after a tenth and at the end, and seconds."""
    is_over, ledgers = threading.Event(), [Ledger() for _ in range(clients)]
    with policyserve.start(Numbered(1), max_queue_ms=60_000.0) as server:
        url = server.url
        renews = when == "next-session"
        robots = [
            threading.Thread(target=ask, args=(url, robot, is_over, ledger, renews))
            for robot, ledger in enumerate(ledgers)
        ]
        for robot in robots:
            robot.start()
        early, began_at = held(), time.monotonic()
        done = 0
        while done < swaps:
            try:
                server.swap(Numbered(done + 2), when=when, unload_first=unload_first)  # type: ignore[arg-type]
            except policyserve.ConfigError as error:
                if "sessions still end" not in str(error):
                    raise
                time.sleep(0.001)  # sessions of the one before the one before
                continue
            done += 1
            if done == max(int(swaps * _SETTLED), 1):
                early = held()
        seconds = time.monotonic() - began_at
        late = settled(early)
        is_over.set()
        for robot in robots:
            robot.join()
    whole = Ledger()
    for ledger in ledgers:
        whole.add(ledger)
    return whole, early, late, seconds


def main() -> int:
    parser = argparse.ArgumentParser(description="Exchange policies under load.")
    parser.add_argument("--swaps", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--when", choices=["now", "next-session"], default="now")
    parser.add_argument("--unload-first", action="store_true")
    given = parser.parse_args()
    ledger, early, late, seconds = drive(given.swaps, given.clients, given.when, given.unload_first)
    p50, p99, most = np.percentile(ledger.round_trips_ms, [50, 99, 100])
    print(f"{given.swaps} swaps in {seconds:.1f} s, {given.clients} clients, {given.when}")
    print(f"asked {ledger.asked}, answered {ledger.answered}, lost {ledger.asked - ledger.answered}")
    print(f"crossed or out of order {len(ledger.faults)}")
    print(f"round trip p50 {p50:.2f} ms, p99 {p99:.2f} ms, longest {most:.0f} ms")
    print(f"memory {early.mib:.1f} MiB after a tenth, {late.mib:.1f} MiB at the end")
    print(f"threads {early.threads} and {late.threads}, descriptors {early.descriptors} and {late.descriptors}")
    for fault in ledger.faults[:10]:
        print(fault)
    grew = late.mib - early.mib
    kept = grew > _MOST_MIB or late.threads > early.threads or late.descriptors > early.descriptors
    return 1 if kept or ledger.faults or ledger.asked != ledger.answered else 0


if __name__ == "__main__":
    raise SystemExit(main())
