"""Stacking, cutting, padding and splitting: every input gets its own rows back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyserve.core.errors import ConfigError, PolicyFailed
from policyserve.core.policy import Policy, PolicyInput, PreparingPolicy
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextListSpec, TextSpec
from policyserve.engine.answering import warm_up
from policyserve.policies.stacked import StackedPolicy, powers_of_two

STATE = ArraySpec((3,))
ACTION = ArraySpec((2,))


class Recorder:
    """Doubles the first two numbers of `state`, and keeps how many rows each call had."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, observations: Mapping[str, Any]) -> Any:
        self.rows.append(len(observations["state"]))
        return 2 * observations["state"][:, :2]


def stacked(
    max_batch: int = 4, buckets: Sequence[int] | None = None, action: ArraySpec | None = ACTION
) -> tuple[StackedPolicy, Recorder]:
    forward = Recorder()
    spec = PolicySpec("stacked", {"state": STATE}, action, max_batch=max_batch, max_client_batch=100)
    return StackedPolicy(forward, spec, buckets=buckets), forward


def single(value: float) -> PolicyInput:
    return PolicyInput({"state": np.arange(3, dtype=np.float32) + np.float32(value)})


def client_batch(value: float, size: int) -> PolicyInput:
    rows = np.arange(3 * size, dtype=np.float32).reshape(size, 3) + np.float32(value)
    return PolicyInput({"state": rows}, batch_size=size)


def expected(one: PolicyInput) -> Any:
    return 2 * one.observation["state"][..., :2]


def test_it_is_a_policy() -> None:
    policy, _ = stacked()
    assert isinstance(policy, Policy)
    assert isinstance(policy, PreparingPolicy)
    policy.close()


def test_one_input_is_one_row_and_its_action_has_no_batch_axis() -> None:
    policy, forward = stacked()
    (chunk,) = policy.infer([single(5)])
    np.testing.assert_array_equal(chunk.actions, [10, 12])
    assert forward.rows == [1]


def test_many_inputs_are_one_call() -> None:
    policy, forward = stacked()
    inputs = [single(value) for value in (1, 2, 3)]
    for one, chunk in zip(inputs, policy.infer(inputs), strict=True):
        np.testing.assert_array_equal(chunk.actions, expected(one))
    assert forward.rows == [3]


def test_a_clients_own_batch_is_cut_into_calls_of_max_batch() -> None:
    policy, forward = stacked(max_batch=4)
    one = client_batch(1, 10)
    (chunk,) = policy.infer([one])
    np.testing.assert_array_equal(chunk.actions, expected(one))
    assert forward.rows == [4, 4, 2]


def test_an_empty_client_batch_is_answered_without_calling_the_model() -> None:
    policy, forward = stacked()
    (chunk,) = policy.infer([client_batch(0, 0)])
    assert chunk.actions.shape == (0, 2)
    assert chunk.actions.dtype == np.float32
    assert forward.rows == []


def test_an_empty_client_batch_of_chunks_has_the_horizon() -> None:
    spec = PolicySpec("chunks", {"state": STATE}, ACTION, horizon=5, max_batch=4, max_client_batch=9)
    (chunk,) = StackedPolicy(Recorder(), spec).infer([client_batch(0, 0)])
    assert chunk.actions.shape == (0, 5, 2)


def test_an_empty_client_batch_needs_an_action_spec() -> None:
    policy, _ = stacked(action=None)
    with pytest.raises(ConfigError, match="needs an action spec"):
        policy.infer([client_batch(0, 0)])


def test_a_scalar_action_stays_an_array() -> None:
    spec = PolicySpec("discrete", {"state": STATE}, ArraySpec((), "int32"), max_batch=4)
    policy = StackedPolicy(lambda rows: rows["state"].argmax(axis=-1).astype(np.int32), spec)
    for chunk in (policy.infer([single(0)])[0], policy.infer([single(0), single(1)])[1]):
        assert isinstance(chunk.actions, np.ndarray)
        assert chunk.actions.shape == ()
        assert chunk.actions == 2


def test_calls_are_padded_to_the_next_bucket() -> None:
    policy, forward = stacked(max_batch=8, buckets=powers_of_two(8))
    inputs = [single(value) for value in range(5)]
    for one, chunk in zip(inputs, policy.infer(inputs), strict=True):
        np.testing.assert_array_equal(chunk.actions, expected(one))
    (chunk,) = policy.infer([client_batch(3, 11)])
    np.testing.assert_array_equal(chunk.actions, expected(client_batch(3, 11)))
    assert forward.rows == [8, 8, 4]


def test_buckets_are_powers_of_two_and_the_largest_batch() -> None:
    assert powers_of_two(1) == (1,)
    assert powers_of_two(8) == (1, 2, 4, 8)
    assert powers_of_two(24) == (1, 2, 4, 8, 16, 24)


@given(
    sizes=st.lists(st.none() | st.integers(0, 9), min_size=1, max_size=8),
    max_batch=st.integers(1, 12),
    is_padded=st.booleans(),
)
def test_any_mix_of_singles_and_batches_comes_back_in_order(
    sizes: list[int | None], max_batch: int, is_padded: bool
) -> None:
    buckets = powers_of_two(max_batch) if is_padded else None
    policy, forward = stacked(max_batch, buckets)
    inputs = [
        single(10 * place) if size is None else client_batch(10 * place, size) for place, size in enumerate(sizes)
    ]
    chunks = policy.infer(inputs)
    assert len(chunks) == len(inputs)
    for one, chunk in zip(inputs, chunks, strict=True):
        np.testing.assert_array_equal(chunk.actions, expected(one))
    assert all(rows in buckets if buckets else rows <= max_batch for rows in forward.rows)


@given(
    sizes=st.lists(st.none() | st.integers(0, 9), min_size=1, max_size=8),
    max_batch=st.integers(1, 12),
    is_padded=st.booleans(),
)
def test_what_is_prepared_ahead_is_answered_as_without(
    sizes: list[int | None], max_batch: int, is_padded: bool
) -> None:
    policy, forward = stacked(max_batch, powers_of_two(max_batch) if is_padded else None)
    inputs = [
        single(10 * place) if size is None else client_batch(10 * place, size) for place, size in enumerate(sizes)
    ]
    expected_chunks, calls = policy.infer(inputs), forward.rows.copy()
    prepared = policy.prepare(inputs)
    assert forward.rows == calls
    assert (prepared is not None) == (len(calls) == 1)
    chunks = policy.infer_prepared(inputs, prepared)
    assert forward.rows == calls * 2
    for chunk, expected_chunk in zip(chunks, expected_chunks, strict=True):
        np.testing.assert_array_equal(chunk.actions, expected_chunk.actions)


def test_inputs_of_different_shapes_are_grouped_when_their_turn_comes() -> None:
    spec = PolicySpec("ragged", {"state": ArraySpec((None,))}, ArraySpec((1,)), max_batch=8)
    policy = StackedPolicy(lambda rows: rows["state"][:, :1], spec)
    inputs = [PolicyInput({"state": np.full(size, size, np.float32)}) for size in (1, 2, 1)]
    assert policy.prepare(inputs) is None
    assert [chunk.actions for chunk in policy.infer_prepared(inputs, None)] == [1, 2, 1]


def test_inputs_of_different_shapes_go_to_the_model_apart() -> None:
    calls: list[tuple[int, ...]] = []

    def forward(rows: Mapping[str, Any]) -> Any:
        calls.append(rows["camera"]["front"].shape)
        return np.stack([rows["camera"]["front"][:, 0, 0, 0], rows["state"][:, 0]], axis=-1).astype(np.float32)

    spec = PolicySpec("ragged", {"camera": {"front": ImageSpec()}, "state": STATE}, ACTION, max_batch=8)
    inputs = [
        PolicyInput(
            {"camera": {"front": np.full((size, 6, 3), size, np.uint8)}, "state": np.full(3, place, np.float32)}
        )
        for place, size in enumerate((4, 5, 4, 4))
    ]
    chunks = StackedPolicy(forward, spec).infer(inputs)
    np.testing.assert_array_equal([chunk.actions for chunk in chunks], [[4, 0], [5, 1], [4, 2], [4, 3]])
    assert sorted(calls) == [(1, 5, 6, 3), (3, 4, 6, 3)]


def test_inputs_with_and_without_an_optional_key_go_to_the_model_apart() -> None:
    spec = PolicySpec("optional", {"state": STATE, "extra": ArraySpec((1,), optional=True)}, ACTION, max_batch=8)
    policy = StackedPolicy(lambda rows: rows["state"][:, :2] + rows.get("extra", 0), spec)
    extra = PolicyInput({**single(1).observation, "extra": np.array([100], np.float32)})
    chunks = policy.infer([single(1), extra, single(2)])
    np.testing.assert_array_equal([chunk.actions for chunk in chunks], [[1, 2], [101, 102], [2, 3]])


@pytest.mark.parametrize("answer", [None, {"actions": np.zeros((1, 2))}, [[0, 0]]])
def test_a_function_that_answers_no_array_is_told_so(answer: Any) -> None:
    policy = StackedPolicy(lambda rows: answer, PolicySpec("odd", {"state": STATE}, ACTION))
    with pytest.raises(PolicyFailed, match=f"odd answered {type(answer).__name__}, expected an array of 1 rows"):
        policy.infer([single(1)])


def test_a_function_that_answers_too_few_rows_is_a_failed_policy() -> None:
    spec = PolicySpec("short", {"state": STATE}, ACTION, max_batch=8)
    policy = StackedPolicy(lambda rows: rows["state"][:1, :2], spec)
    with pytest.raises(PolicyFailed, match="short answered 1 rows for 3"):
        policy.infer([single(1), single(2), single(3)])


class Listener:
    """Answers how long each row's prompt is and the first number of its state; keeps the prompts of each call."""

    def __init__(self) -> None:
        self.prompts: list[list[str]] = []

    def __call__(self, rows: Mapping[str, Any]) -> Any:
        prompts = rows["task"]["prompt"]
        assert len(prompts) == len(rows["state"])
        self.prompts.append(prompts)
        return np.stack([[len(prompt) for prompt in prompts], rows["state"][:, 0]], axis=-1).astype(np.float32)


def listening(optional: bool = False, *, buckets: Sequence[int] | None = None) -> tuple[StackedPolicy, Listener]:
    forward = Listener()
    observation = {"state": STATE, "task": {"prompt": TextSpec(), "note": TextSpec(optional=optional)}}
    spec = PolicySpec("listening", observation, ACTION, max_batch=4, max_client_batch=100)
    return StackedPolicy(forward, spec, buckets=buckets), forward


def told(prompt: str, value: float, size: int | None = None, **others: str) -> PolicyInput:
    state = np.full((3,) if size is None else (size, 3), value, np.float32)
    return PolicyInput({"state": state, "task": {"prompt": prompt, **others}}, size)


def test_the_texts_of_a_batch_are_a_list_in_its_order() -> None:
    policy, forward = listening(optional=True)
    chunks = policy.infer([told("lift", 1), told("put down", 2), told("", 3)])
    np.testing.assert_array_equal([chunk.actions for chunk in chunks], [[4, 1], [8, 2], [0, 3]])
    assert forward.prompts == [["lift", "put down", ""]]


def test_one_input_brings_a_list_of_one_text() -> None:
    policy, forward = listening(optional=True)
    (chunk,) = policy.infer([told("lift", 7)])
    np.testing.assert_array_equal(chunk.actions, [4, 7])
    assert forward.prompts == [["lift"]]


def test_the_text_of_a_clients_own_batch_is_each_of_its_rows() -> None:
    policy, forward = listening(optional=True)
    whole, single_one = policy.infer([told("up", 1, 5), told("down", 2)])
    np.testing.assert_array_equal(whole.actions, [[2, 1]] * 5)
    np.testing.assert_array_equal(single_one.actions, [4, 2])
    assert forward.prompts == [["up"] * 4, ["up", "down"]]


def test_a_padded_batch_has_empty_texts() -> None:
    policy, forward = listening(optional=True, buckets=(1, 4))
    chunks = policy.infer([told("a", 1), told("bc", 2)])
    np.testing.assert_array_equal([chunk.actions for chunk in chunks], [[1, 1], [2, 2]])
    assert forward.prompts == [["a", "bc", "", ""]]


def test_inputs_with_and_without_an_optional_text_go_to_the_model_apart() -> None:
    policy, forward = listening(optional=True)
    policy.infer([told("a", 1), told("b", 2, note="n"), told("c", 3)])
    assert forward.prompts == [["a", "c"], ["b"]]


def test_texts_are_prepared_ahead_too() -> None:
    policy, forward = listening()
    inputs = [told("a", 1, note="x"), told("bc", 2, 2, note="y")]
    prepared = policy.prepare(inputs)
    assert prepared is not None
    chunks = policy.infer_prepared(inputs, prepared)
    np.testing.assert_array_equal(chunks[0].actions, [1, 1])
    np.testing.assert_array_equal(chunks[1].actions, [[2, 2], [2, 2]])
    assert forward.prompts == [["a", "bc", "bc"]]
    assert inputs[0].observation["task"]["prompt"] == "a"


def test_a_policy_of_texts_is_warmed_for_its_sizes() -> None:
    policy, forward = listening(optional=True, buckets=(1, 2, 4))
    warm_up(policy, lambda stage: None)
    assert forward.prompts == [[""], [""] * 2, [""] * 4]


def test_a_map_in_a_specs_place_is_refused_with_an_example_that_works() -> None:
    with pytest.raises(ConfigError, match=r"^spec: expected a PolicySpec, got dict; .* is one$") as refused:
        StackedPolicy(Recorder(), {"state": STATE})  # pyright: ignore[reportArgumentType]
    example = str(refused.value).partition("; ")[2].removesuffix(" is one")
    assert StackedPolicy(Recorder(), eval(example)).spec.name == "arm"


def test_a_spec_with_lists_of_texts_is_refused() -> None:
    with pytest.raises(ConfigError, match="takes arrays, images and single texts, got TextListSpec in its spec"):
        StackedPolicy(Recorder(), PolicySpec("texts", {"state": STATE, "prompt": TextListSpec()}, ACTION))
