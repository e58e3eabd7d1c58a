"""What a server is asked, by how many, how often; and how long one slice of that took."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from policyserve.bench.measures import Pace
from policyserve.bench.tally import Tally
from policyserve.core.messages import Observation


@dataclass(frozen=True)
class Load:
    """Who asks what, and how often. rate_hz: requests per second of each client; None: a closed loop."""

    url: str = field(repr=False)
    dialect: str
    observation: Observation
    clients: int = 1
    rate_hz: float | None = None
    timeout_s: float = 30.0
    is_raw: bool = False
    api_key: str | None = field(default=None, repr=False)
    images: str = "raw"  # how clients send their pictures; raw clients send them as they are
    jpeg_quality: int = 90
    offers_deflate: bool = False  # raw clients only: as a client on `websockets`' defaults does

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of `Client` and `AsyncClient`; a connection that fails is an error to count, not to mend."""
        return {
            "dialect": self.dialect,
            "timeout_s": self.timeout_s,
            "api_key": self.api_key,
            "retry_for_s": 0.0,
            "images": self.images,
            "jpeg_quality": self.jpeg_quality,
        }

    @property
    def told_images(self) -> str:
        """How pictures are sent, for headings; nothing of raw ones."""
        return "" if self.images == "raw" else f", images {self.images} of quality {self.jpeg_quality}"

    def paces(self, start: float, seconds: float) -> list[Pace]:
        """Every client's pace from `start` on; in an open loop their requests are spread over the period."""
        period = None if self.rate_hz is None else 1 / self.rate_hz
        shift = 0.0 if period is None else period / self.clients
        return [Pace(start, start + seconds, period, number * shift) for number in range(self.clients)]


class Watch:
    """Times one slice, interrupted or not: how long it took in all, and what it cost this process."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def __enter__(self) -> float:
        self._cpu = time.process_time()
        self._start = time.perf_counter()
        return self._start

    def __exit__(self, *exc_info: object) -> None:
        self._tally.seconds += time.perf_counter() - self._start
        self._tally.cpu_s += time.process_time() - self._cpu
