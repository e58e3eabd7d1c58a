"""Where and when a measurement was made: figures without that say little to somebody else."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from policyserve.core.version import VERSION


@dataclass(frozen=True)
class Machine:
    """The machine that measured. date: local, to the minute. load: its load average of the last minute, if it has one.

    cores: those that this process may use.
    """

    host: str
    date: str
    policyserve: str
    python: str
    numpy: str
    cores: int
    load: float | None

    def __str__(self) -> str:
        versions = f"policyserve {self.policyserve}, Python {self.python}, NumPy {self.numpy}"
        return f"{self.host}, {counted(self.cores, 'core')} · {versions} · {self.date}"


def this_machine() -> Machine:
    """The machine that this runs on, now."""
    return Machine(
        host=platform.node() or "unknown host",
        date=f"{datetime.now():%Y-%m-%d %H:%M}",
        policyserve=VERSION,
        python=platform.python_version(),
        numpy=np.__version__,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    )


def counted(number: int, word: str) -> str:
    """`1 client`, `2 clients`: for words whose plural has an s."""
    return f"{number} {word}{'' if number == 1 else 's'}"
