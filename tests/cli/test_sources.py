"""Policies that a running server is asked for: read as a command line, and refused without ending the server."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from policyserve.cli.sources import find_named, source_of
from policyserve.core.errors import ConfigError
from policyserve.policies.vibe_rl import demo_directory

RUN = f"vibe_rl:{demo_directory('cartpole_ppo')}"


def test_a_policy_and_its_flags_are_named_as_serve_takes_them() -> None:
    source = source_of(RUN, ["--max-batch", "3"])
    assert source.recipe(print).spec.max_batch == 3
    assert find_named("cartpole_ppo", []).title.startswith("cartpole_ppo: ")


@pytest.mark.parametrize(
    ("named", "flags", "told"),
    [
        ("cartpole_pp0", [], "there is no policy 'cartpole_pp0'; did you mean cartpole_ppo?"),
        (RUN, ["--stp", "7"], "unknown flag --stp 7; did you mean --step?"),
        (RUN, ["--step", "x"], "--step"),
        (RUN, ["--max-batch", "0"], "--max-batch: expected 1 or more, got 0"),
        (RUN, ["--port", "8000"], "unknown flag --port 8000"),
        (RUN, ["--help"], f"`policyserve serve {RUN} --help` tells them"),
        ("vibe_rl:gone", [], "gone: expected a training run's folder, got nothing there"),
        ("sb3:gone.zip", [], "gone.zip"),
    ],
)
def test_what_is_wrong_is_raised_and_not_printed(
    named: str, flags: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError) as refused:
        find_named(named, flags)
    assert told in str(refused.value)
    assert capsys.readouterr() == ("", "")


def test_only_the_thread_that_reads_is_spared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from policyserve.cli.terminal import complain, complaints_raised

    ended: list[BaseException] = []

    def complain_elsewhere() -> None:
        try:
            complain("a wrong flag", 2)
        except SystemExit as error:
            ended.append(error)

    with complaints_raised():
        thread = threading.Thread(target=complain_elsewhere)
        thread.start()
        thread.join()
    assert len(ended) == 1
    assert "error: a wrong flag" in capsys.readouterr().err
