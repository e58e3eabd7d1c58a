"""A Wall-X model samples; its noise follows from --seed and the session, so that a recording is repeated as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.core.policy import Policy
from policyserve.policies.wall_x import load_policy
from tests.policies.frameworks import import_or_skip
from tests.policies.wall_x.golden import model_config, observation, options
from tests.replay.recorded import record
from tests.replay.test_asking import replayed
from tests.server.live import serving

for package in ("torch", "tokenizers", "PIL.Image", "yaml", "safetensors.numpy"):
    import_or_skip(package)

CASE = "flow_libero_basic"


def model(**changes: Any) -> Policy:
    return load_policy(model_config(CASE), options=options(CASE, **changes))


def steps(count: int) -> list[dict[str, Any]]:
    """Observations without noise of their own, each another state."""
    found = observation(CASE)
    found.pop("noise", None)
    return [{**found, "state": np.asarray(found["state"]) + step / 100} for step in range(count)]


@pytest.mark.parametrize("dialect", ["wall_x", "openpi"])
def test_a_sampled_chunk_is_sampled_again(dialect: str, tmp_path: Path) -> None:
    path = record(tmp_path / "one.mcap", model(), [steps(3), steps(2)], dialect)
    with serving(model(), isolate="thread") as live:
        gathered = replayed(path, live)
    verdict = gathered.compared(None)
    assert verdict.is_passed, verdict
    assert verdict.comparison.rows > 1


def test_another_seed_is_another_sample(tmp_path: Path) -> None:
    path = record(tmp_path / "one.mcap", model(), [steps(2)])
    with serving(model(seed=1), isolate="thread") as live:
        gathered = replayed(path, live)
    assert gathered.compared(None).word == "beyond"
    assert gathered.draws_noise is False
