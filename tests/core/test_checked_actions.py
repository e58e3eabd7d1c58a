"""What a policy gives: which actions are refused before they reach a robot, and what becomes of the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import BadAction
from policyserve.core.spec import ArraySpec, PolicySpec


def test_actions_come_out_in_the_specs_dtype() -> None:
    spec = PolicySpec("p", None, ArraySpec((2,)), horizon=3)
    actions = spec.check_actions(np.zeros((3, 2), np.float64))
    assert actions.dtype == np.float32
    assert spec.check_actions([[1, 2]] * 3).tolist() == [[1, 2]] * 3
    assert spec.check_actions(np.zeros((5, 3, 2)), batch_size=5).shape == (5, 3, 2)
    assert spec.check_actions(np.zeros((0, 3, 2)), batch_size=0).shape == (0, 3, 2)


def test_checked_actions_are_the_servers_own() -> None:
    """A policy may write its next answer over its last: that must not change an action on its way to a robot."""
    buffer = np.zeros((2,), np.float32)
    for spec in (PolicySpec("p", None, ArraySpec((2,))), PolicySpec("p", None, None)):
        checked = spec.check_actions(buffer)
        buffer += 1
        assert not np.shares_memory(checked, buffer)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("spec", [PolicySpec("p", None, ArraySpec((2,))), PolicySpec("p", None, None)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_nan_and_inf_never_reach_a_robot(value: float, spec: PolicySpec, dtype: str) -> None:
    with pytest.raises(BadAction, match="NaN or Inf"):
        spec.check_actions(np.array([0, value], dtype))


def test_an_action_that_overflows_its_dtype_is_refused() -> None:
    with pytest.raises(BadAction):
        PolicySpec("p", None, ArraySpec((1,))).check_actions(np.array([1e300]))


@pytest.mark.parametrize(("dtype", "value"), [("int32", 2**40), ("int8", 200), ("uint8", -1), ("bool", 2)])
def test_an_integer_action_is_never_wrapped_around(dtype: str, value: int) -> None:
    with pytest.raises(BadAction, match=dtype):
        PolicySpec("p", None, ArraySpec((1,), dtype)).check_actions(np.array([value], np.int64))


def test_an_integer_action_is_cast_where_it_fits_and_a_float_one_never() -> None:
    spec = PolicySpec("p", None, ArraySpec((), "int32"))
    assert spec.check_actions(np.int64(7)).dtype == np.int32
    with pytest.raises(BadAction, match="float64"):
        spec.check_actions(np.float64(7))


@pytest.mark.parametrize("shape", [(), (3,), (2, 1), (1, 2), (0,)])
def test_a_wrong_shape_is_no_action(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadAction, match=r"expected float32 \(2,\)"):
        PolicySpec("p", None, ArraySpec((2,))).check_actions(np.zeros(shape, np.float32))


@pytest.mark.parametrize("answer", [None, "left", ["a", "b"], {"a": 1}, object(), np.array([1j, 2]), b"ab"])
@pytest.mark.parametrize("action", [ArraySpec((2,)), None])
def test_what_is_no_number_is_no_action(answer: Any, action: ArraySpec | None) -> None:
    with pytest.raises(BadAction, match="expected numbers"):
        PolicySpec("p", None, action).check_actions(answer)


def test_a_bfloat16_action_becomes_float32() -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    for action in (ArraySpec((2,)), None):
        actions = PolicySpec("p", None, action).check_actions(np.array([1, 2], bfloat16))
        assert actions.dtype == np.float32
        assert actions.tolist() == [1, 2]
    with pytest.raises(BadAction, match="NaN or Inf"):
        PolicySpec("p", None, None).check_actions(np.array([1, np.nan], bfloat16))
