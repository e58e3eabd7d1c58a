"""The stand-ins of other servers speak as those do, and `policyserve bench` finds out whose server each is."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest

from policyserve.cli import main
from tests.cli.serving import ROOT, serving

STAND_INS: dict[str, tuple[Sequence[str], str, str]] = {
    "openpi": (["metadata_first.py"], "openpi", "infer"),
    "Wall-X": (["metadata_first.py", "--family", "wall_x"], "wall_x", "infer"),
    "vibe_rl": (["vibe_rl.py", "--policy", "zeros"], "vibe_rl", "server + infer"),
}


@pytest.mark.parametrize("family", STAND_INS)
@pytest.mark.parametrize("flags", [[], ["--raw"], ["--clients", "3"]])
def test_the_bench_drives_other_peoples_servers(
    family: str, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (program, *options), dialect, part = STAND_INS[family]
    command = [sys.executable, f"benchmarks/rivals/{program}", *options]
    short = ["--payload", "cartpole", "--duration-s", "0.2", "--warmup-s", "0", *flags]
    with serving(command, cwd=ROOT) as server:
        main(["bench", server.url, *short])
    told = capsys.readouterr().out
    assert f"{server.url}   {dialect}, cartpole (16 bytes)" in told
    assert ("network + server" if "--raw" in flags else f"\n  {part} ") in told
    assert "chunks of 32" in told
    assert "errors            none" in told
