"""How a function, an object or a policy becomes a Policy, and how its answers are read."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import BadAction, BadObservation, ConfigError, PolicyFailed, PolicyserveError
from policyserve.core.policy import (
    ActionChunk,
    FunctionPolicy,
    PerSessionPolicy,
    Policy,
    PolicyInput,
    ResettablePolicy,
    as_policy,
    open_spec,
    policy_from,
    read_answer,
    split_rows,
)
from policyserve.core.spec import ArraySpec, PolicySpec
from tests.strange import STRANGE, strange

SPEC = PolicySpec("twice", {"x": ArraySpec((2,))}, ArraySpec((2,)), max_client_batch=8)


def answers(
    policy: Policy, *observations: Any, batch_size: int | None = None
) -> Sequence[ActionChunk | PolicyserveError]:
    return policy.infer([PolicyInput(observation, batch_size) for observation in observations])


def actions(answer: ActionChunk | PolicyserveError) -> Any:
    assert isinstance(answer, ActionChunk)
    return answer.actions.tolist()


class Doubler:
    def __init__(self) -> None:
        self.metadata = {"robot": "arm"}

    def infer(self, observation: Any) -> Any:
        return {"actions": observation * 2, "note": "twice"}


class Whole:
    spec = SPEC

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk | PolicyserveError]:
        return [ActionChunk(one.observation["x"] * 2) for one in batch]

    def close(self) -> None: ...


def test_a_policy_stays_itself() -> None:
    policy = Whole()
    assert as_policy(policy) is policy
    assert isinstance(policy, Policy)


def test_a_function_becomes_a_policy_named_after_it() -> None:
    def twice(observation: Any) -> Any:
        return observation * 2

    policy = as_policy(twice)
    assert policy.spec.name == "twice"
    assert (policy.spec.observation, policy.spec.max_batch, policy.spec.max_client_batch) == (None, 1, 0)
    assert actions(answers(policy, np.ones(2))[0]) == [2, 2]


def test_a_function_policy_needs_no_spec_either() -> None:
    def twice(observation: Any) -> Any:
        return observation * 2

    assert FunctionPolicy(twice).spec == as_policy(twice).spec
    assert actions(answers(FunctionPolicy(twice), np.ones(2))[0]) == [2, 2]
    with pytest.raises(ConfigError, match="function: expected a function of one observation, got dict"):
        FunctionPolicy({})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_spec_of_a_functions_has_to_be_one() -> None:
    spec: Any = {"x": ArraySpec((2,))}
    with pytest.raises(ConfigError, match="spec: expected a PolicySpec, got dict"):
        FunctionPolicy(lambda observation: 0, spec)


class Half:
    spec = PolicySpec("half", {"x": ArraySpec((2,))}, ArraySpec((2,)))

    def infer(self, observation: Any) -> Any:
        return observation["x"] / 2


def test_an_object_that_has_a_spec_and_takes_one_observation_is_told_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"infer\(\) gets a list of inputs; .* serve as_policy\(Half\(\), spec\)"):
        as_policy(Half())
    with pytest.raises(ConfigError, match="got the class Half"):
        as_policy(Half)


def two(left: Any, right: Any) -> Any: ...


def none() -> Any: ...


class Asks:
    def infer(self, observation: Any, prompt: str) -> Any: ...


@pytest.mark.parametrize(
    ("thing", "got"), [(two, r"two\(left, right\)"), (none, r"none\(\)"), (Asks(), r"infer\(observation, prompt\)")]
)
def test_a_function_that_no_observation_fits_is_refused_when_it_is_served(thing: Any, got: str) -> None:
    with pytest.raises(ConfigError, match=f"expected a function of one observation, got {got}$"):
        as_policy(thing)


async def awaited(observation: Any) -> Any: ...


class Awaited:
    async def infer(self, observation: Any) -> Any: ...


@pytest.mark.parametrize(("thing", "name"), [(awaited, "awaited"), (Awaited(), "infer")])
def test_a_function_that_is_to_be_awaited_is_refused_with_the_cure(thing: Any, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"got async {name}\(\): one thread .*; write def, and asyncio.run"):
        as_policy(thing)


@pytest.mark.parametrize("function", [lambda *all_of_it: 0, lambda observation, gain=1: 0, np.asarray, max])
def test_a_function_that_one_observation_fits_is_taken_whatever_else_it_takes(function: Any) -> None:
    as_policy(function)


def test_an_object_with_infer_becomes_a_policy_with_its_metadata_and_extras() -> None:
    policy = as_policy(Doubler())
    (answer,) = answers(policy, np.ones(2))
    assert actions(answer) == [2, 2]
    assert isinstance(answer, ActionChunk)
    assert answer.extras == {"note": "twice"}
    assert policy.spec.metadata == {"robot": "arm"}
    assert policy.spec.name == "Doubler"


def test_a_callable_without_a_name_takes_its_types() -> None:
    assert as_policy(functools.partial(np.add, 1)).spec.name == "partial"


def test_a_spec_that_is_given_is_taken() -> None:
    assert as_policy(lambda observation: observation, SPEC).spec is SPEC


def test_metadata_that_is_no_map_is_left_out() -> None:
    assert open_spec("p", metadata=lambda: {}).metadata == {}


@pytest.mark.parametrize("thing", [None, 1, "policy", [], Doubler, int, object()])
def test_what_cannot_answer_is_no_policy(thing: Any) -> None:
    with pytest.raises(ConfigError, match="a policy is"):
        as_policy(thing)


def test_a_functions_exception_fails_its_own_input_alone() -> None:
    def picky(observation: Any) -> Any:
        if observation < 0:
            raise KeyError("negative")
        return observation

    good, bad, last = answers(FunctionPolicy(picky, open_spec("picky")), 1, -1, 2)
    assert actions(good) == 1
    assert isinstance(bad, PolicyFailed)
    assert "picky raised KeyError" in str(bad)
    assert isinstance(bad.__cause__, KeyError)
    assert actions(last) == 2


def test_a_functions_own_refusal_passes_through() -> None:
    error = BadObservation("x", "less", "more")

    def refuse(observation: Any) -> Any:
        raise error

    assert answers(FunctionPolicy(refuse, open_spec("refuse")), 1)[0] is error


def test_a_clients_batch_is_answered_row_by_row() -> None:
    policy = FunctionPolicy(lambda observation: observation["x"] * 2, SPEC)
    (answer,) = answers(policy, {"x": np.array([[1, 2], [3, 4]], np.float32)}, batch_size=2)
    assert actions(answer) == [[2, 4], [6, 8]]


def test_an_empty_batch_is_answered_without_the_function() -> None:
    def never(observation: Any) -> Any:
        raise AssertionError("called")

    (answer,) = answers(FunctionPolicy(never, SPEC), {"x": np.zeros((0, 2), np.float32)}, batch_size=0)
    assert isinstance(answer, ActionChunk)
    assert answer.actions.shape == (0, 2)
    assert answer.actions.dtype == np.float32


@pytest.mark.parametrize("answer", [[1, 2], (1, 2), np.array([1, 2]), {"actions": [1, 2]}, {"action": [1, 2]}])
def test_an_answer_may_be_numbers_or_a_map(answer: Any) -> None:
    assert read_answer(answer).actions.tolist() == [1, 2]


def test_a_chunk_is_read_as_it_is() -> None:
    chunk = ActionChunk(np.zeros(2), state="s")
    assert read_answer(chunk) is chunk


class HalfTensor:
    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("Got unsupported ScalarType BFloat16")


HalfTensor.__module__ = "torch"


class OnGpu:
    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "the policy answered None, expected numbers$"),
        ({1, 2}, "answered set, expected numbers$"),
        (OnGpu(), r"answered OnGpu, expected numbers: .* Use Tensor.cpu\(\)$"),
        (HalfTensor(), r"BFloat16; return .detach\(\).cpu\(\).float\(\).numpy\(\) of it$"),
        ([[1, 2], [3]], "answered list, expected numbers: .*inhomogeneous"),
    ],
)
def test_what_is_no_array_of_numbers_is_told_with_the_reason(answer: Any, said: str) -> None:
    with pytest.raises(BadAction, match=said):
        read_answer(answer)


def test_a_map_without_actions_names_its_keys() -> None:
    with pytest.raises(BadAction, match="movement"):
        read_answer({"movement": [1, 2]})


def test_a_ragged_answer_is_a_bad_action() -> None:
    with pytest.raises(BadAction):
        read_answer([[1], [1, 2]])


def test_rows_of_a_nested_batch_keep_their_texts() -> None:
    rows = split_rows({"a": {"x": np.arange(4).reshape(2, 2)}, "prompt": "go", "names": ["one"]}, 2)
    assert [row["a"]["x"].tolist() for row in rows] == [[0, 1], [2, 3]]
    assert all(row["prompt"] == "go" and row["names"] == ["one"] for row in rows)
    assert split_rows({"x": np.zeros((0, 2))}, 0) == []


class Remembering:
    def infer(self, observation: Any) -> Any:
        return observation

    def reset(self) -> None:
        self.forgotten = True


class Forgetful(Remembering):
    def reset(self) -> None:
        """Nothing is remembered."""


class Choosy(Remembering):
    def reset(self, seed: int) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self.seed = seed


def test_an_object_with_a_reset_of_its_own_is_resettable_and_one_with_an_empty_reset_is_not() -> None:
    assert isinstance(as_policy(Remembering()), ResettablePolicy)
    for thing in (Forgetful(), Choosy(), Doubler(), lambda observation: observation):
        assert not isinstance(as_policy(thing), ResettablePolicy)


def test_a_factory_gives_one_policy_for_all_or_one_for_each_session_where_it_has_a_memory() -> None:
    made: list[Remembering] = []

    def make() -> Remembering:
        made.append(Remembering())
        return made[-1]

    assert isinstance(policy_from(make), PerSessionPolicy)
    assert len(made) == 1
    assert isinstance(policy_from(Doubler), FunctionPolicy)
    assert isinstance(policy_from(Whole), Whole)


@pytest.mark.parametrize("bound", [0, -1])
def test_a_factory_for_no_session_is_refused(bound: int) -> None:
    with pytest.raises(ConfigError, match="max_sessions: expected 1 or more"):
        PerSessionPolicy(Remembering, max_sessions=bound)


@pytest.mark.parametrize("name", STRANGE)
def test_any_error_of_a_function_fails_its_own_input_alone_and_calls_the_others_once(name: str) -> None:
    calls: list[int] = []

    def act(observation: Any) -> Any:
        calls.append(observation)
        return strange(name) if observation == 2 else np.zeros(1)

    policy = FunctionPolicy(act)
    first, bad, last = policy.infer([PolicyInput(number) for number in (1, 2, 3)])
    assert isinstance(first, ActionChunk)
    assert isinstance(last, ActionChunk)
    assert isinstance(bad, PolicyserveError)
    assert str(bad).isprintable()
    assert calls == [1, 2, 3]


def test_a_sessions_object_that_fails_to_close_keeps_no_other_open() -> None:
    closed: list[str] = []

    class Own:
        spec = PolicySpec("own", None, None)

        def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
            return [ActionChunk(np.zeros(1))]

        def close(self) -> None:
            closed.append("one")
            sys.exit("bad luck")

    policy = PerSessionPolicy(Own)
    chunks = [policy.infer([PolicyInput(1)])[0] for _ in range(3)]  # as long as they are there, the objects are
    with pytest.raises(SystemExit, match="bad luck"):
        policy.close()
    assert len(closed) == len(chunks) == 3
