"""The spec that is written from one observation and its answer takes that observation, as it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from policyserve.core.errors import BadObservation
from policyserve.core.policy import as_policy
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextListSpec, TextSpec
from policyserve.core.spec_from_values import MOST_VALUES, SeenPolicy, seen_observation, seen_policy

VLA = {
    "observation/image": np.zeros((224, 224, 3), np.uint8),
    "observation/state": np.zeros(8),
    "prompt": "fold the towel",
}
CHUNK = np.zeros((50, 32), np.float32)


def seen(observation: Any, actions: Any = CHUNK) -> SeenPolicy:
    return seen_policy("policy", seen_observation(observation), np.asarray(actions))


def spec_of(source: str) -> PolicySpec:
    """What a person gets who pastes the source."""
    module: dict[str, Any] = {}
    exec(source, module)
    assert isinstance(module["spec"], PolicySpec)
    return module["spec"]


def test_what_was_seen_is_told_on_one_line() -> None:
    assert str(seen(VLA)) == (
        "observation/image uint8 (224, 224, 3), observation/state float64 (8,), prompt text -> actions float32 (50, 32)"
    )


def test_the_source_is_a_spec_to_paste() -> None:
    told = seen(VLA)
    assert told.source() == (
        "from policyserve import ArraySpec, ImageSpec, PolicySpec, TextSpec, as_policy\n"
        "\n"
        "spec = PolicySpec(\n"
        '    "policy",\n'
        "    observation={\n"
        '        "observation/image": ImageSpec(224, 224),\n'
        '        "observation/state": ArraySpec((8,), "float64"),\n'
        '        "prompt": TextSpec(),\n'
        "    },\n"
        "    action=ArraySpec((32,)),\n"
        "    horizon=50,\n"
        ")\n"
        "# Then serve this in place of policy, with policy() if it is a class:\n"
        "# policy = as_policy(policy, spec)\n"
    )
    assert spec_of(told.source()) == told.spec


def test_what_to_do_with_it_fits_a_terminal() -> None:
    told = seen_policy("LiberoPolicyOfMine", seen_observation(VLA), np.zeros(2)).source()
    assert max(map(len, told.splitlines())) <= 80
    assert spec_of(told).name == "LiberoPolicyOfMine"


@pytest.mark.parametrize(
    ("value", "leaf"),
    [
        (np.zeros((4, 6, 3), np.uint8), ImageSpec(4, 6)),
        (np.zeros((4, 6, 3), np.float32), ArraySpec((4, 6, 3))),
        (np.zeros((3, 4, 6), np.uint8), ArraySpec((3, 4, 6), "uint8")),
        (np.zeros((0, 6, 3), np.uint8), ArraySpec((0, 6, 3), "uint8")),
        (np.zeros(2, ">f8"), ArraySpec((2,), "float64")),
        (np.float16(1), ArraySpec((), "float16")),
        (np.array(True), ArraySpec((), "bool")),
        (True, ArraySpec((), "bool")),
        (3, ArraySpec((), "int64")),
        (0.5, ArraySpec((), "float64")),
        ([1, 2, 3], ArraySpec((3,), "int64")),
        ([[0.5], [1.5]], ArraySpec((2, 1), "float64")),
        ("lift", TextSpec()),
        (["lift", "put"], TextListSpec()),
    ],
)
def test_each_kind_of_value_has_its_leaf(value: Any, leaf: Any) -> None:
    told = seen({"x": value})
    assert told.spec.leaves == {"x": leaf}
    assert spec_of(told.source()).leaves == {"x": leaf}


@pytest.mark.parametrize(
    "value", [None, b"bytes", [], {}, [None], [{"a": 1}], [1, "two"], [[1], [1, 2]], 2**70, object(), [2**70]]
)
def test_what_no_spec_takes_is_left_out_by_name(value: Any) -> None:
    told = seen({"x": value, "state": np.zeros(2)})
    assert list(told.spec.leaves) == ["state"]
    kind = type(value).__name__
    assert f"x {kind}" in str(told)
    assert f'# no spec takes a {kind}: "x" is dropped' in told.source()
    assert spec_of(told.source()) == told.spec


def test_nested_observations_keep_their_nesting() -> None:
    observation = {"images": {"front": np.zeros((2, 2, 3), np.uint8), "depth": None}, "state": np.zeros(3)}
    told = seen(observation)
    assert told.spec.observation == {"images": {"front": ImageSpec(2, 2)}, "state": ArraySpec((3,), "float64")}
    assert spec_of(told.source()) == told.spec
    assert "images/depth NoneType" in str(told)


@pytest.mark.parametrize(
    ("actions", "action", "horizon", "facts"),
    [
        (np.zeros((50, 32), np.float32), ArraySpec((32,)), 50, {"action_dim": 32, "pred_horizon": 50}),
        (np.zeros(7), ArraySpec((7,), "float64"), None, {"action_dim": 7, "pred_horizon": 1}),
        (np.array(1, np.int32), ArraySpec((), "int32"), None, {}),
        (np.zeros((4, 50, 7), np.float32), ArraySpec((50, 7)), 4, {}),
    ],
)
def test_the_first_of_several_axes_of_actions_is_the_horizon(
    actions: Any, action: ArraySpec, horizon: int | None, facts: Mapping[str, int]
) -> None:
    told = seen(VLA, actions)
    assert (told.spec.action, told.spec.horizon, told.facts) == (action, horizon, facts)
    assert spec_of(told.source()) == told.spec


def test_an_array_alone_is_called_what_its_clients_call_it_and_the_source_says_how_to_give_it_on() -> None:
    told = seen(np.zeros(4, np.float32), 1)
    assert told.spec.observation == {"obs": ArraySpec((4,))}

    def act(observation: Any) -> Any:
        return observation[:1]

    code = told.source().splitlines()[-1].removeprefix("# policy = ")
    policy = eval(code, {"as_policy": as_policy, "policy": act, "spec": told.spec})
    assert policy.spec == told.spec
    assert policy._function({"obs": np.arange(4)}) == [0]


def test_keys_that_need_escapes_and_names_with_quotes_are_still_python() -> None:
    observation = {'say "x"': 1, "it's": 2, "back\\slash": 3, "line\nend": 4, "\u202e": 5, "'\"": 6, "": 7}
    told = seen_policy('the "policy\'s"\n', seen_observation(observation), CHUNK)
    assert spec_of(told.source()) == told.spec
    assert list(told.spec.leaves) == list(observation)
    assert all(line.isprintable() for line in told.source().splitlines())
    assert str(told).isprintable()


def test_more_values_than_anybody_would_paste_are_refused() -> None:
    seen_observation({str(number): 1 for number in range(MOST_VALUES)})
    with pytest.raises(BadObservation, match="at most 64 values"):
        seen_observation({str(number): 1 for number in range(MOST_VALUES + 1)})


def test_a_path_that_stands_there_twice_is_refused() -> None:
    with pytest.raises(BadObservation, match="two: a flat key and a nested one"):
        seen_observation({"a/b": 1, "a": {"b": 2}})


NUMBERS = arrays(st.sampled_from(["f2", "<f4", ">f4", "f8", "u1", "i4", "?"]), array_shapes(min_dims=0, max_side=4))
KEYS = st.text("aé _\"'\\\n", max_size=5)
LEAVES = (
    NUMBERS | st.integers() | st.floats() | st.booleans() | KEYS | st.none() | st.binary()
    | st.lists(KEYS | st.integers(0, 9), max_size=3)
)  # fmt: skip


@given(st.dictionaries(KEYS, LEAVES | st.dictionaries(KEYS, LEAVES, max_size=3), max_size=4))
def test_the_spec_takes_what_it_was_made_from_and_gives_it_on_as_it_was(observation: dict[str, Any]) -> None:
    told = seen(observation)
    spec = spec_of(told.source())
    taken = spec.validate(observation).observation
    left_out = {path for path, _ in told.observation.left_out}
    _check_same(observation, taken, left_out, "")


def _check_same(sent: Mapping[str, Any], taken: Mapping[str, Any], left_out: set[str], prefix: str) -> None:
    for key, value in sent.items():
        if isinstance(value, Mapping) and value:
            _check_same(value, taken.get(key, {}), left_out, f"{prefix}{key}/")
        elif key not in taken:
            assert prefix + key in left_out
        elif isinstance(value, (str, list)) and not isinstance(taken[key], np.ndarray):
            assert taken[key] == value
        else:
            np.testing.assert_array_equal(taken[key], value)
