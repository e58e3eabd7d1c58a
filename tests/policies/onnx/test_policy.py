"""What a session remembers, and that nobody else's rows touch it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import policyserve
from policyserve import ActionChunk, BadAction, BadObservation, Client, Policy, PolicyInput, load_policy
from policyserve.core.effects import Answered
from policyserve.engine.answering import Answering, Task
from tests.policies.frameworks import import_or_skip
from tests.policies.onnx.models import Value, copying, linear, save, summing


@pytest.fixture(autouse=True)
def _runtime() -> None:
    import_or_skip("onnxruntime")


def chunks(policy: Policy, *batch: PolicyInput) -> list[ActionChunk]:
    return [chunk for chunk in policy.infer(batch) if isinstance(chunk, ActionChunk)]


def observed(value: float, state: Any = None) -> PolicyInput:
    return PolicyInput({"obs": np.full(2, value, np.float32)}, state=state)


@pytest.mark.parametrize("batch", [1, "N"])
@pytest.mark.parametrize("layers", [1, 3])
def test_each_session_remembers_its_own_in_whatever_batch_it_comes(
    batch: int | str, layers: int, tmp_path: Path
) -> None:
    policy = load_policy(save(tmp_path / "a.onnx", summing(2, batch=batch, layers=layers)))
    assert list(policy.spec.leaves) == ["obs"]
    rng = np.random.default_rng(0)
    sums, states = [0.0] * 5, [None] * 5
    for _ in range(20):
        who = rng.permutation(5)[: rng.integers(1, 6)]
        found = chunks(policy, *(observed(float(one + 1), states[one]) for one in who))
        for one, chunk in zip(who, found, strict=True):
            sums[one] += one + 1
            assert chunk.actions.tolist() == [sums[one]] * 2
            states[one] = chunk.state


@pytest.mark.parametrize("batch", [1, "N"])
def test_a_state_is_never_written_into(batch: int | str, tmp_path: Path) -> None:
    policy = load_policy(save(tmp_path / "a.onnx", summing(2, batch=batch)))
    (first,) = chunks(policy, observed(1))
    again = [chunks(policy, observed(2, first.state))[0] for _ in range(2)]
    together = chunks(policy, observed(2, first.state), observed(2, first.state))
    assert [chunk.actions.tolist() for chunk in (*again, *together)] == [[3, 3]] * 4
    assert first.state is not None
    with pytest.raises(ValueError, match="read-only"):
        first.state.states[0][...] = 9


def test_a_policy_that_remembers_nothing_keeps_nothing(tmp_path: Path) -> None:
    policy = load_policy(save(tmp_path / "a.onnx", linear(np.ones((2, 1)))))
    assert chunks(policy, observed(1))[0].state is None


def test_a_bad_observation_harms_neither_its_session_nor_the_others_of_its_batch(tmp_path: Path) -> None:
    answering = Answering(load_policy(save(tmp_path / "a.onnx", summing(2, batch="N"))))

    def told(*tasks: tuple[str, float]) -> list[Any]:
        batch = [Task(session, {"obs": np.full(2, value, np.float32)}) for session, value in tasks]
        return [one.chunk.actions[0] if isinstance(one, Answered) else type(one) for one in answering.answer(batch)]

    assert told(("first", 1), ("second", 10)) == [1, 10]
    assert told(("first", np.nan), ("second", 10)) == [BadAction, 20]
    assert told(("first", 2), ("second", 10)) == [3, 30]
    answering.forget("first")  # it vanished in the middle of its episode
    assert told(("first", 5), ("second", 10)) == [5, 40]


def test_a_client_that_vanishes_leaves_no_state(tmp_path: Path) -> None:
    with policyserve.start(f"onnx:{save(tmp_path / 'a.onnx', summing(2))}") as server:
        for _ in range(3):
            with Client(server.url) as client:
                found = [client.infer({"obs": [value, value]}).actions[0] for value in (1, 2)]
            assert found == [1, 3]


def test_a_nan_in_a_batch_is_its_own_rows_alone(tmp_path: Path) -> None:
    policy = load_policy(save(tmp_path / "a.onnx", summing(2, batch="N")))
    good, bad, other = chunks(policy, observed(1), observed(np.nan), observed(3))
    assert (good.actions.tolist(), other.actions.tolist()) == ([1, 1], [3, 3])
    assert np.isnan(bad.actions).all()


def test_the_step_is_counted_for_each_session_and_a_client_may_send_its_own(tmp_path: Path) -> None:
    values = (
        [Value("obs", ["N", 2]), Value("time_step", ["N", 1])],
        [Value("other", ["N", 2]), Value("action", ["N", 1])],
    )
    policy = load_policy(save(tmp_path / "a.onnx", copying(*values)), extras="all")
    found = chunks(policy, observed(7), observed(8))
    assert [chunk.actions.tolist() for chunk in found] == [[0], [0]]
    assert [chunk.extras["other"].tolist() for chunk in found] == [[7, 7], [8, 8]]
    sent = PolicyInput({"obs": np.zeros(2, np.float32), "time_step": np.array([40], np.float32)}, state=found[1].state)
    found = chunks(policy, observed(7, found[0].state), sent)
    assert [chunk.actions.tolist() for chunk in found] == [[1], [40]]
    with pytest.raises(BadObservation):
        policy.spec.validate({"time_step": [1]})


def test_a_model_of_pictures_and_states_takes_them_in_one_batch(tmp_path: Path) -> None:
    values = (
        [Value("image", ["N", 3, 4, 5]), Value("h_in", ["N", 2])],
        [Value("actions", ["N", 3, 4, 5]), Value("h_out", ["N", 2])],
    )
    policy = load_policy(save(tmp_path / "a.onnx", copying(*values)), image="image=uint8:HWC/255")
    pictures = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), np.uint8)
    found = chunks(policy, *(PolicyInput({"obs": picture}) for picture in pictures))
    for chunk, picture in zip(found, pictures, strict=True):
        np.testing.assert_allclose(chunk.actions, picture.transpose(2, 0, 1) / np.float32(255), rtol=1e-6)
