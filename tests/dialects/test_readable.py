"""What a policy says is sent only if its clients can read it; else its author is told the path."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from policyserve.core.effects import Answered, Failed, Submit
from policyserve.core.errors import PolicyFailed
from policyserve.core.limits import DEFAULT_LIMITS
from policyserve.core.messages import Timing
from policyserve.core.policy import ActionChunk
from policyserve.core.session import Session
from policyserve.core.spec import PolicySpec
from policyserve.dialects import by_name

marked = pytest.mark.parametrize("dialect", ["openpi", "wall_x"])
ACTIONS = np.zeros((2, 3), np.float32)


def told(dialect: str, extras: Any) -> Any:
    """The extras, as a client reads them."""
    wire = by_name(dialect)
    return wire.read_reply(wire.write_reply(ActionChunk(ACTIONS, extras=extras), Timing(1, 2, 3)))


def nested(levels: int, leaf: Any) -> dict[str, Any]:
    value: Any = leaf
    for _ in range(levels):
        value = {"x": value}
    return value


UNREADABLE: dict[str, tuple[Any, str, str]] = {
    "a number as key": ({"info": {0: 0.7}}, "info/0: ", "a text as key, got a key of type int"),
    "bytes as key": ({"info": {b"x": 1}}, "info/b'x': ", "a text as key"),
    "a key in a list": ({"info": [1, {None: 2}]}, "info[1]/None: ", "a text as key"),
    "a set": ({"info": {"seen": {1}}}, "info/seen: ", "got a set"),
    "a large int": ({"info": [2**64]}, "info[0]: ", "an int beyond 64 bits"),
    "a lone surrogate": ({"path": "\udcff"}, "path: ", "a text that is no UTF-8"),
    "complex numbers": ({"spectrum": np.zeros(2, complex)}, "spectrum: ", "complex128"),
    "objects": ({"info": {"why": np.array([None])}}, "info/why: ", "an array of object"),
    "maps too deep": (nested(10, 1), "x/x/x/x/x/x/x/x/x: ", "at most 8 levels"),
    "an array too deep": (nested(8, np.zeros(1)), "x/x/x/x/x/x/x/x: ", "at most 8 levels"),
    "too many": ({"log": list(range(20_000))}, "log: ", "at most 16384 map entries and list items"),
    "itself": ({"log": (ring := []), "_": ring.append(ring)}, "log[0]", "at most 8 levels"),
}


@marked
@pytest.mark.parametrize("what", UNREADABLE)
def test_an_extra_that_no_client_reads_is_named_by_its_path(dialect: str, what: str) -> None:
    extras, path, said = UNREADABLE[what]
    with pytest.raises(PolicyFailed) as refused:
        told(dialect, extras)
    assert f"clients: {path}" in str(refused.value)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("dialect", "extra"),
    [
        ("openpi", {"__ndarray__": True}),
        ("openpi", {"__npgeneric__": True, "data": 1}),
        ("wall_x", {"nd": False}),
        ("wall_x", {"complex": True}),
    ],
)
def test_a_map_that_its_clients_would_take_for_an_array_is_refused_there_alone(dialect: str, extra: Any) -> None:
    with pytest.raises(PolicyFailed, match=f"info: expected a map, got one whose keys mean an array to {dialect}'s"):
        told(dialect, {"info": extra})
    other = {"openpi": "wall_x", "wall_x": "openpi"}[dialect]
    assert told(other, {"info": extra})["info"] == extra


@marked
@pytest.mark.parametrize(
    "extra",
    [
        *(None, True, -(2**63), 2**64 - 1, 0.5, "é", b"raw", [1, "two", None], {"a": {"b": [1]}}, np.float32(2)),
        *(OrderedDict(a=1), MappingProxyType({"a": 1}), nested(7, 1), nested(6, np.zeros(2)), {"nd": 1}),
    ],
    ids=str,
)
def test_what_clients_read_is_sent(dialect: str, extra: Any) -> None:
    sent = dict(extra) if isinstance(extra, (OrderedDict, MappingProxyType)) else extra
    assert str(told(dialect, {"extra": extra})["extra"]) == str(sent)


PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=8),
    arrays.arrays(st.sampled_from(["<f4", ">i2", "|b1", "<c8", "<U3", "|O"]), st.sampled_from([(), (0,), (2, 2)])),
    st.sampled_from([np.float32(1), np.int8(2), {1}, object]),
)
ANY = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.sampled_from(["nd", "type", "complex", "__ndarray__", "data", "a", 1, b"a"]), st.text()),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=12,
)


@marked
@given(extras=st.dictionaries(st.text(min_size=1), ANY, min_size=1, max_size=3))
def test_any_extras_are_read_by_the_client_or_refused(dialect: str, extras: dict[str, Any]) -> None:
    with suppress(PolicyFailed):
        assert told(dialect, extras).keys() >= extras.keys()


@marked
def test_a_message_at_the_bound_is_read(dialect: str) -> None:
    """The count is as strict as the client's: what passes here passes there."""
    for count in range(DEFAULT_LIMITS.max_items - 60, DEFAULT_LIMITS.max_items):
        try:
            told(dialect, {"log": [0] * count})
        except PolicyFailed:
            break
    else:
        pytest.fail("nothing was refused")


@marked
def test_an_extra_that_no_client_reads_fails_its_request_as_policy_failed(dialect: str) -> None:
    wire = by_name(dialect)
    session = Session(wire, max_pending=4)
    session.serve(PolicySpec("open", None, None), {})
    (submit,) = [one for one in session.receive(wire.write_request({"x": ACTIONS}), 0.0) if isinstance(one, Submit)]
    effects = session.answer(submit.ticket, Answered(ActionChunk(ACTIONS, extras={"info": {0: 1}}), 0, 0), 1.0)
    (failed,) = [effect.error for effect in effects if isinstance(effect, Failed)]
    assert failed.code == "policy_failed"
    assert "info/0: expected a text as key" in str(failed)
