"""The program that measures slow links runs, and its relay is as slow as it says."""

from __future__ import annotations

import sys

from tests.cli.serving import run
from tests.policies.frameworks import import_or_skip


def test_each_way_is_measured_against_raw_pictures() -> None:
    import_or_skip("simplejpeg")
    import_or_skip("PIL.Image")
    done = run(sys.executable, "benchmarks/network.py", "--mbit", "400", "--rtt-ms", "10", "--requests", "2")
    assert done.returncode in (0, 1), done.stderr  # whether marks are met is no test's business
    rows = {line.split(" | ")[0][2:]: line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")}
    ways = ("raw", "jpeg", "auto", "jpeg, noise", "raw, shrunk by the robot", "jpeg, shrunk")
    assert tuple(rows)[1:] == ways
    took_ms, sent_kb = float(rows["raw"][2]), float(rows["raw"][1])
    assert took_ms >= 10 + sent_kb * 8 / 400  # the link's delay, and the time that so many bits take
    assert float(rows["jpeg, shrunk"][1]) < float(rows["jpeg"][1]) < float(rows["jpeg, noise"][1]) < sent_kb
