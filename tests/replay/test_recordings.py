"""The demos do what they did when they were recorded, and a recording of this machine is repeated to the bit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from policyserve.policies.vibe_rl import demo_directory
from tests.cli.terminals import run_in
from tests.policies.frameworks import import_or_skip

RECORDINGS = Path(__file__).parent / "recordings"
DEMOS = ("cartpole_ppo", "pendulum_sac", "demo_image", "demo_flow")
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


@pytest.mark.parametrize("kind", ["Prescott", "Haswell"])
@pytest.mark.parametrize("demo", DEMOS)
def test_another_kind_of_processor_is_within_the_usual_tolerance(demo: str, kind: str) -> None:
    """OpenBLAS chooses its routines by this variable; where it is another library it has no effect."""
    command = [sys.executable, "-m", "policyserve", "replay", str(RECORDINGS / f"{demo}.mcap"), demo]
    done = subprocess.run(command, env={**os.environ, "OPENBLAS_CORETYPE": kind}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


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
    checkpoints = another_checkpoint(tmp_path / "run")
    words = ["replay", str(RECORDINGS / "pendulum_sac.mcap"), "pendulum_sac"]
    said = run_in("pipe", [*words, "--checkpoint-dir", str(checkpoints)])
    assert said.code == 1, said
    assert "are beyond the tolerance" in said.out.splitlines()[-1]


def another_checkpoint(run: Path) -> Path:
    """The pendulum's demo with other weights; returns the folder of its checkpoints."""
    shutil.copytree(demo_directory("pendulum_sac"), run)
    (state,) = run.glob("checkpoints/*/state.eqx")
    read, written = BytesIO(state.read_bytes()), BytesIO()
    random = np.random.default_rng(3)
    while read.tell() < len(read.getvalue()):
        array = np.load(read)
        if array.dtype.kind == "f" and array.ndim == 2:
            array = (array * (1 + 0.12 * random.normal(size=array.shape))).astype(array.dtype)
        np.save(written, array)
    state.write_bytes(written.getvalue())
    return run / "checkpoints"
