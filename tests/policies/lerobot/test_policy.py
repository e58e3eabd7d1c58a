"""What is remembered of a session, and of nobody else, with a model that counts its calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.policy import ActionChunk, PolicyInput
from policyserve.core.spec import ArraySpec, PolicySpec
from policyserve.engine.answering import Answering, Task
from policyserve.policies.lerobot.ensemble import Ensembling
from policyserve.policies.lerobot.policy import Asking, ChunkPolicy, Row, StepPolicy
from policyserve.policies.lerobot.statistics import Affine

SPEC = PolicySpec("model", {"x": ArraySpec((1,))}, ArraySpec((1,)), max_batch=8)


class SummingModel:
    """Answers with the sum of a row's frames and of its noise, 1000 times it, and 0, 1, 2 … for each step."""

    def __init__(self, size: int = 4, draws: int = 0) -> None:
        self.size, self.draws = size, draws
        self.rows: list[int] = []

    def __call__(self, rows: Sequence[Row], noise: Array | None) -> Array:
        self.rows.append(len(rows))
        sums = np.array([sum(frame["own"][0] for frame in row) for row in rows], np.float32)
        if noise is not None:
            sums += noise[:, 0, 0, 0]
        return (1000 * sums[:, None] + np.arange(self.size, dtype=np.float32))[..., None]


def noise(session: int, chunk: int) -> Array:
    return np.full((1, 4, 1), 100 * session + chunk, np.float32)


def asking(model: SummingModel, **settings: Any) -> Asking:
    return Asking(model, noise, None, {"own": "x"}, **settings)


def steps(
    model: SummingModel, count: int = 2, n_obs_steps: int = 1, ensembling: Ensembling | None = None
) -> StepPolicy:
    policy = asking(model, n_obs_steps=n_obs_steps)
    return StepPolicy(policy, SPEC, (1,), n_action_steps=count, ensembling=ensembling)


def seen(value: float, state: Any = None) -> PolicyInput:
    return PolicyInput({"x": np.array([value], np.float32)}, None, state)


def acted(policy: Any, *inputs: PolicyInput) -> tuple[list[float], list[Any]]:
    answers = policy.infer(inputs)
    return [float(answer.actions.ravel()[0]) for answer in answers], [answer.state for answer in answers]


def test_the_model_is_asked_for_those_alone_that_have_no_actions_left() -> None:
    model = SummingModel()
    policy = steps(model)
    actions, (first,) = acted(policy, seen(1))
    assert actions == [1000]
    actions, (first, second) = acted(policy, seen(5, first), seen(2))
    assert actions == [1001, 2000]
    actions, (first, second) = acted(policy, seen(3, first), seen(9, second))
    assert actions == [3000, 2001]
    assert model.rows == [1, 1, 1], "never for one that still has an action"


def test_frames_are_pushed_at_each_step_also_while_the_queue_lasts() -> None:
    policy = steps(SummingModel(), n_obs_steps=3)
    actions, (state,) = acted(policy, seen(1))
    assert actions == [3000], "the first frame stands for those before it"
    _actions, (state,) = acted(policy, seen(10, state))
    actions, _states = acted(policy, seen(100, state))
    assert actions == [111_000]


def test_a_state_that_is_used_twice_gives_the_same_twice() -> None:
    policy = steps(SummingModel(draws=1), n_obs_steps=2, ensembling=Ensembling(0.1, 4))
    _actions, (state,) = acted(policy, seen(1))
    again = [acted(policy, seen(2, state)) for _ in range(2)]
    assert again[0][0] == again[1][0], "a batch that failed is tried again row by row"


def test_noise_is_the_sessions_own_however_batches_are_made() -> None:
    policy = ChunkPolicy(asking(SummingModel(draws=1)), SPEC, (1,))
    actions, states = acted(policy, seen(0), seen(0))
    assert actions == [0, 100_000]
    actions, states = acted(policy, *(seen(0, state) for state in reversed(states)))
    assert actions == [101_000, 1000]
    actions, _states = acted(policy, seen(0, states[1]))
    assert actions == [2000], "session 0's third chunk, alone"


def test_a_chunk_without_noise_leaves_no_state() -> None:
    policy = ChunkPolicy(asking(SummingModel()), SPEC, (1,))
    assert acted(policy, seen(1))[1] == [None]


def test_history_comes_from_the_client_or_is_the_frame_again() -> None:
    policy = ChunkPolicy(asking(SummingModel(), n_obs_steps=2), SPEC, (1,))
    assert acted(policy, seen(1))[0] == [2000]
    policy = ChunkPolicy(asking(SummingModel(), n_obs_steps=2, has_history=True), SPEC, (1,))
    assert acted(policy, PolicyInput({"x": np.array([[1], [10]], np.float32)}))[0] == [11_000]


def test_actions_are_brought_back_to_physical_units() -> None:
    scale = Affine(np.array([10.0]), np.array([2.0]), np.array([2.0]), 2.0, -1.0)
    policy = StepPolicy(Asking(SummingModel(), noise, scale, {"own": "x"}), SPEC, (1,), n_action_steps=4)
    actions, _states = acted(policy, seen(0))
    assert actions == [(0 + 1) / 2 * 2 + 10]


def test_a_session_that_vanishes_leaves_nothing_and_a_bad_row_harms_no_other() -> None:
    answering = Answering(steps(SummingModel(), n_obs_steps=2))
    good, bad = {"x": np.array([1], np.float32)}, {"x": np.array([np.nan], np.float32)}
    first, second = answering.answer([Task("a", good), Task("b", bad)])
    assert float(first.chunk.actions[0]) == 2000  # type: ignore[union-attr]
    assert "NaN or Inf" in str(second)
    (first,) = answering.answer([Task("a", good)])
    assert float(first.chunk.actions[0]) == 2001  # type: ignore[union-attr]
    answering.forget("a")
    (first,) = answering.answer([Task("a", good)])
    assert float(first.chunk.actions[0]) == 2000, "it begins anew"  # type: ignore[union-attr]
    answering.forget("a")
    assert not any(vars(answering._keeping).values())  # pyright: ignore[reportPrivateUsage]


def test_what_is_closed_holds_no_model() -> None:
    for policy in (steps(SummingModel()), ChunkPolicy(asking(SummingModel()), SPEC, (1,))):
        policy.close()
        assert not hasattr(policy, "_asking")


def test_answers_are_chunks() -> None:
    (answer,) = ChunkPolicy(asking(SummingModel()), SPEC, (1,)).infer([seen(1)])
    assert isinstance(answer, ActionChunk)
    assert answer.actions.shape == (4, 1)
