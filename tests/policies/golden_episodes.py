"""Checks that kinds of policies share: golden episodes of two sessions, and the founding client's own code.

A golden episode has `episode/obs` (2 sessions, steps, …), `episode/actions` by the original library, each
session alone, and `episode/reset_at`: the step before which the first session begins anew.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from policyserve import ActionChunk, Client, Policy, PolicyInput
from policyserve.core.arrays import Array
from tests.shared import shared_path

FOUNDING = Path(__file__).parents[1] / "interop" / "programs" / "vibe_rl_actions.py"


class Step(NamedTuple):
    """What both sessions send in one step, and what they have to get."""

    observed: Array
    wanted: Array
    is_reset: bool


def infer(policy: Policy, *batch: PolicyInput) -> list[ActionChunk]:
    """The answers of a policy that has one for each."""
    chunks = [chunk for chunk in policy.infer(batch) if isinstance(chunk, ActionChunk)]
    assert len(chunks) == len(batch)
    return chunks


def steps_of(arrays: Mapping[str, Array]) -> Iterator[Step]:
    observed, wanted, reset_at = arrays["episode/obs"], arrays["episode/actions"], int(arrays["episode/reset_at"])
    for step in range(observed.shape[1]):
        yield Step(observed[:, step], wanted[:, step], step == reset_at)


def check_side_by_side(policy: Policy, arrays: Mapping[str, Array], atol: float) -> None:
    """Two sessions in each batch get what each gets alone."""
    states: list[Any] = [None, None]
    for step in steps_of(arrays):
        if step.is_reset:
            states[0] = None
        inputs = [PolicyInput({"obs": obs}, state=state) for obs, state in zip(step.observed, states, strict=True)]
        chunks = infer(policy, *inputs)
        states = [chunk.state for chunk in chunks]
        np.testing.assert_allclose(np.stack([chunk.actions for chunk in chunks]), step.wanted, rtol=0, atol=atol)


def check_over_the_wire(url: str, dialect: str, arrays: Mapping[str, Array], atol: float) -> None:
    """The same of two clients of a server, after a third has vanished in the middle of its episode."""
    with Client(url, dialect=dialect) as gone:
        gone.infer({"obs": arrays["episode/obs"][0, 3]})
    with Client(url, dialect=dialect) as first, Client(url, dialect=dialect) as second:
        for step in steps_of(arrays):
            if step.is_reset:
                first.reset()
            for client, obs, wanted in zip((first, second), step.observed, step.wanted, strict=True):
                np.testing.assert_allclose(client.infer({"obs": obs}).actions, wanted, rtol=0, atol=atol)


def founding_actions(port: int, rows: Array, folder: Path) -> list[Any]:
    """What the code of vibe_rl's founding document, unmodified, is answered that sends each row as `obs`."""
    np.save(folder / "rows.npy", rows)
    document = shared_path("founding", "vibe_rl_policy_server.md")
    program = [sys.executable, FOUNDING, str(port), document, folder / "rows.npy"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
