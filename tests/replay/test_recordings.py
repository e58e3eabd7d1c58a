"""The demos do what they did when they were recorded, and a recording of this machine is repeated to the bit."""

from __future__ import annotations

import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from policyserve.policies.vibe_rl import demo_directory
from tests.cli.terminals import run_in
from tests.policies.frameworks import import_or_skip

RECORDINGS = Path(__file__).parent / "recordings"
DEMOS = ("cartpole_ppo", "pendulum_sac", "demo_image")
MOST_BYTES = 200_000


@pytest.mark.parametrize("demo", DEMOS)
def test_each_demo_does_what_was_recorded_of_it(demo: str) -> None:
    """Other kinds of processors add in another order, so that the last bits of a float may differ on them."""
    said = run_in("pipe", ["replay", str(RECORDINGS / f"{demo}.mcap"), demo])
    assert said.code == 0, said
    assert "tolerance" in said.out.splitlines()[-1] or "the same: no number" in said.out


def test_what_is_a_whole_number_is_the_same_on_every_machine() -> None:
    said = run_in("pipe", ["replay", str(RECORDINGS / "cartpole_ppo.mcap"), "cartpole_ppo", "--tolerance", "0"])
    assert said.code == 0, said
    assert said.out.splitlines()[-1] == "the same: no number of 450 answers differs"


@pytest.mark.parametrize("demo", DEMOS)
def test_the_recordings_are_small(demo: str) -> None:
    assert (RECORDINGS / f"{demo}.mcap").stat().st_size < MOST_BYTES


def test_the_script_that_makes_them_makes_what_is_repeated_to_the_bit(tmp_path: Path) -> None:
    import_or_skip("gymnasium")
    from scripts.record_demos import main

    main(tmp_path)
    for demo in DEMOS:
        said = run_in("pipe", ["replay", str(tmp_path / f"{demo}.mcap"), demo, "--tolerance", "0"])
        assert said.code == 0, said
        assert said.out.splitlines()[-1].startswith("the same: no number of ")


def test_a_changed_checkpoint_is_caught(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(demo_directory("pendulum_sac"), run)
    (state,) = run.glob("checkpoints/*/state.eqx")
    change_one_weight(state)
    words = ["replay", str(RECORDINGS / "pendulum_sac.mcap"), "pendulum_sac"]
    said = run_in("pipe", [*words, "--checkpoint-dir", str(run / "checkpoints")])
    assert said.code == 1, said
    assert "are beyond the tolerance" in said.out.splitlines()[-1]


def change_one_weight(state: Path) -> None:
    """Make the first weight of each float array of a checkpoint larger by a tenth."""
    read, written = BytesIO(state.read_bytes()), BytesIO()
    while read.tell() < len(read.getvalue()):
        array = np.load(read)
        if array.dtype.kind == "f" and array.ndim == 2:
            array[0, 0] *= 1.1
        np.save(written, array)
    state.write_bytes(written.getvalue())
