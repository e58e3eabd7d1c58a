"""A clock of events, and stations that do one thing after the other. Pure: the same seed, the same run."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from math import ceil
from typing import Any


class Clock:
    """Runs what is planned, in the order of its times, and of its planning where two are equal. Times in seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self._planned: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = count()

    def at(self, when: float, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function then."""
        heapq.heappush(self._planned, (when, next(self._numbers), function, arguments))

    def run(self, until: float = float("inf")) -> None:
        """Call all that is planned up to a time."""
        while self._planned and self._planned[0][0] <= until:
            self.now, _, function, arguments = heapq.heappop(self._planned)
            function(*arguments)


class Station:
    """Serves one job after the other, each as long as it takes.

    Who comes is told at once when it will be done, so that a job costs one event and no queue.
    """

    def __init__(self) -> None:
        self.free_at = 0.0
        self.busy_s = 0.0

    def take(self, now: float, takes_s: float) -> float:
        """When a job that comes now will be done."""
        self.free_at = max(now, self.free_at) + takes_s
        self.busy_s += takes_s
        return self.free_at


class Cores:
    """A machine's cores, which several stations share. cores: may be a fraction, of what other programs leave."""

    def __init__(self, cores: float) -> None:
        number = ceil(cores)
        self._slower = number / cores
        self._free_at = [0.0] * number  # a heap

    def take(self, now: float, station: Station, takes_s: float) -> float:
        """When a station's job will be done that needs one of the cores as well."""
        takes_s *= self._slower
        begins = max(now, station.free_at, self._free_at[0])
        heapq.heapreplace(self._free_at, begins + takes_s)
        station.free_at = begins + takes_s
        station.busy_s += takes_s
        return station.free_at
