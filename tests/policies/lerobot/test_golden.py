"""Each public case of LeRobot's own answers, alone, batched, interleaved, and reset in the middle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from policyserve.core.arrays import Array
from policyserve.policies.lerobot.loading import assembled
from policyserve.policies.lerobot.noise import Noise
from policyserve.policies.lerobot.options import LeRobotFlags
from policyserve.policies.lerobot.plan import make_plan, read_folder
from policyserve.policies.lerobot.policy import ChunkPolicy, StepPolicy
from tests.policies.frameworks import import_or_skip
from tests.policies.lerobot.cases import ACT, CASES, DIFFUSION, TOLERANCE, folder, frames, golden, one

import_or_skip("torch")
import_or_skip("safetensors")


def served(case: str, noise: Noise | None = None, **flags: Any) -> ChunkPolicy | StepPolicy:
    from policyserve.policies.lerobot.model import load_model

    given = LeRobotFlags(device="cpu", **flags)
    plan = make_plan(read_folder(str(folder(case))), given)
    model = load_model(
        plan.config,
        plan.statistics,
        plan.weights,
        device="cpu",
        dtype="float32",
        threads=1,
        on_stage=lambda _stage: None,
    )
    return assembled(plan, given, model, 8, (1,), noise)


def chunk_noise(case: str, name: str = "chunk/noise") -> Noise:
    """The original's noise of each sample, which are sessions here."""
    return lambda session, _chunk: golden(case)[name][session]


def episode_noise(case: str) -> Noise:
    """The original's noise of each session. Session 2 is session 0 after its reset, and goes on in that one's."""
    arrays = golden(case)
    if "episode/noise_draws" not in arrays:
        return lambda _session, _chunk: np.zeros((1, 1, 1), np.float32)
    draws = arrays["episode/noise_draws"]
    reset_at = int(arrays["episode/reset_at"])
    before = int(draws[0, :reset_at].sum()) if reset_at >= 0 else 0
    each = int(draws.max())

    def draw(session: int, chunk: int) -> Array:
        start = chunk * each + (before if session == 2 else 0)
        return arrays[f"episode/noise_{session % 2}"][start : start + each]

    return draw


@pytest.mark.parametrize("case", ACT)
def test_acts_chunks_are_the_originals_alone_and_in_a_batch(case: str) -> None:
    policy = served(case, mode="chunk", horizon="all")
    expected = golden(case)["chunk/actions"]
    inputs = [one(frames(case, "chunk", sample, 0)) for sample in range(len(expected))]
    for place, single in enumerate(inputs):
        (answer,) = policy.infer([single])
        np.testing.assert_allclose(answer.actions, expected[place], atol=TOLERANCE, rtol=0)
        assert answer.state is None, "a chunk is a function of its observation"
    answers = np.stack([answer.actions for answer in policy.infer(inputs)])
    np.testing.assert_allclose(answers, golden(case)["chunk/actions_batch"], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("case", DIFFUSION)
def test_diffusions_chunks_are_the_originals_with_its_noise(case: str) -> None:
    expected = golden(case)["chunk/actions"]
    inputs = [one(frames(case, "chunk", sample)) for sample in range(len(expected))]
    policy = served(case, chunk_noise(case), mode="chunk", history=True)
    for place, single in enumerate(inputs):
        (answer,) = policy.infer([single])
        np.testing.assert_allclose(answer.actions, expected[place], atol=TOLERANCE, rtol=0)
    policy = served(case, chunk_noise(case), mode="chunk", history=True)
    together = np.stack([answer.actions for answer in policy.infer(inputs)])
    np.testing.assert_allclose(together, expected, atol=TOLERANCE, rtol=0)
    policy = served(case, chunk_noise(case, "chunk/noise_batch"), mode="chunk", history=True)
    together = np.stack([answer.actions for answer in policy.infer(inputs)])
    np.testing.assert_allclose(together, golden(case)["chunk/actions_batch"], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_two_interleaved_sessions_act_as_select_action_does_for_each(case: str, together: bool) -> None:
    arrays = golden(case)
    expected, reset_at = arrays["episode/actions"], int(arrays["episode/reset_at"])
    policy = served(case, episode_noise(case), mode="step")
    states: list[Any] = [None, None]
    for step in range(expected.shape[1]):
        if step == reset_at:
            states[0] = None
        inputs = [one(frames(case, "episode", session, step), states[session]) for session in (0, 1)]
        batches = [inputs] if together else [[single] for single in inputs]
        answers = [answer for batch in batches for answer in policy.infer(batch)]
        for session, answer in enumerate(answers):
            told = f"session {session}, step {step}"
            np.testing.assert_allclose(answer.actions, expected[session, step], atol=TOLERANCE, rtol=0, err_msg=told)
            states[session] = answer.state


@pytest.mark.parametrize("case", ["act_ensemble", "diffusion_state_ddim"])
def test_eight_sessions_in_one_batch_are_eight_alone(case: str) -> None:
    seen = [[frames(case, "episode", session % 2, step + session // 2) for step in range(6)] for session in range(8)]
    batched, alone = served(case, seed=5), served(case, seed=5)
    states: list[list[Any]] = [[None] * 8, [None] * 8]
    for step in range(6):
        together = batched.infer([one(seen[session][step], states[0][session]) for session in range(8)])
        singles = [alone.infer([one(seen[session][step], states[1][session])])[0] for session in range(8)]
        for session, (first, second) in enumerate(zip(together, singles, strict=True)):
            np.testing.assert_allclose(first.actions, second.actions, atol=TOLERANCE, rtol=0)
            states[0][session], states[1][session] = first.state, second.state
