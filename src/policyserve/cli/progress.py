"""What loading is at, on one line of a terminal."""

from __future__ import annotations

import re

from policyserve.core.printable import one_line

_BAR = 30  # columns
_STAGE_COLUMNS = 38


def show_stage(stage: str) -> None:
    """Show on one line of a terminal what loading is at, with a bar where the stage says `12 %`."""
    found = re.search(r"(\d+) %", stage)
    done = int(found.group(1)) * _BAR // 100 if found else 0
    bar = f"[{'#' * done}{'.' * (_BAR - done)}] " if found else ""
    end = "\n" if done == _BAR else ""  # what is logged next has a line of its own
    print(f"\r\033[K  {bar}{one_line(stage)[:_STAGE_COLUMNS]}", end=end, flush=True)
