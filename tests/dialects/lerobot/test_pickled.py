"""Pickles of strangers: what they name is neither called nor imported, and what they say costs little."""

from __future__ import annotations

import os
import pickle
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from policyserve.core.errors import WireError
from policyserve.core.limits import WireLimits
from policyserve.core.messages import Control, Request
from policyserve.dialects.lerobot.dialect import LeRobot
from policyserve.dialects.lerobot.pickled import Walk, read_thing
from policyserve.dialects.lerobot.setup import read_setup
from tests.dialects.lerobot.written import FeatureType, PolicyFeature, lerobots_modules, seen, setup
from tests.shared import shared_path

GOLDEN = ("calls_a_function", "memo_bomb", "object_array")


class Called:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self._function, self._args = function, args

    def __reduce__(self) -> Any:
        return self._function, self._args


class SetState:
    """Pickles as an object whose own __setstate__ gets something."""

    def __setstate__(self, state: Any) -> None:
        Path(state["mark"]).touch()


def programs(mark: Path) -> list[bytes]:
    """Pickles that would make this file, at every place of a message where a value may stand."""
    made = SetState()
    made.mark = str(mark)  # type: ignore[attr-defined]
    calls = [
        Called(os.system, f"touch {mark}"),
        Called(eval, f"open({str(mark)!r}, 'w')"),
        Called(exec, f"open({str(mark)!r}, 'w')"),
        Called(open, str(mark), "w"),
        made,
    ]
    found: list[bytes] = []
    for protocol in (0, 1, 2, 3, 4, 5):
        found += [pickle.dumps(call, protocol) for call in calls]
        for call in calls[:2]:
            holding = np.empty(1, object)
            holding[0] = call
            found.append(pickle.dumps(holding, protocol))
            found.append(seen(1.0, 2.0, 3.0, protocol=max(protocol, 2), extra=call))
            found.append(seen(1.0, 2.0, 3.0, protocol=max(protocol, 2), extra=holding))
            found.append(setup("policy", {"observation.state": call}))
    return found


def own(mark: Path) -> list[bytes]:
    """Opcodes that no pickler of LeRobot's writes."""
    command = f"touch {mark}".encode()
    text = b"X" + len(command).to_bytes(4, "little") + command
    return [
        b"\x80\x04cos\nsystem\n" + text + b"\x85R.",
        b"\x80\x04(" + text + b"ios\nsystem\n.",  # INST
        b"\x80\x04(cos\nsystem\n" + text + b"o.",  # OBJ
        b"\x80\x04\x8c\x02os\x8c\x06system\x93" + text + b"\x85R.",
        b"\x80\x04\x82\x01.",  # EXT1
        b"\x80\x04" + text + b"Q.",  # BINPERSID
        b"Pid\n.",  # PERSID
        b"\x80\x05\x97.",  # NEXT_BUFFER
        b"L1L\n.",
        b"F1.5\n.",
        # An allowed name called with what it must not get, or given a state of its own.
        b"\x80\x04cnumpy\nndarray\n)R}X\x01\x00\x00\x00aK\x01sb.",
        b"\x80\x04c_codecs\nencode\n" + text + b"X\x06\x00\x00\x00base64\x86R.",
        b"\x80\x04cnumpy\ndtype\nX\x01\x00\x00\x00OK\x00K\x01\x87R.",
    ]


def refuse_all(data: bytes) -> None:
    """Read it as each message that a client may send; it is refused each time."""
    reads: list[Callable[[bytes], Any]] = [LeRobot().read_message, LeRobot().read_reply, read_setup]
    for read in reads:
        with pytest.raises(WireError):
            read(data)


def test_no_program_of_a_peer_runs(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    made = [*programs(mark), *own(mark)]
    for data in made:
        refuse_all(data)
    assert not mark.exists()
    assert len(made) > 80


def test_the_programs_of_this_test_would_run_in_a_reader_that_unpickles(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    for data in (programs(mark)[0], own(mark)[0]):
        pickle.loads(data)
        assert mark.exists()
        mark.unlink()


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_pickles_that_must_be_refused_are_and_call_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = shared_path("design", "golden_more", "unsafe", f"lerobot_pickle_{name}.bin").read_bytes()
    called: list[str] = []
    monkeypatch.setattr(sys.modules[os.name], "getpid", lambda: called.append(name))
    refuse_all(data)
    assert called == []
    if name == "calls_a_function":
        pickle.loads(data)
        assert called == [name]


def test_the_refusal_names_what_the_pickle_wants_to_have_called() -> None:
    with pytest.raises(WireError, match=r"got 'os\.system', which is not built here .*; nothing .* is run"):
        read_setup(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(WireError, match=r"opcode b'Q' \(BINPERSID\), which none of LeRobot's messages has"):
        read_setup(b"\x80\x04NQ.")


def bomb(levels: int, leaf: Any = "x") -> Any:
    value: Any = leaf
    for _ in range(levels):
        value = [value, value]
    return value


@pytest.mark.parametrize("extra", [bomb(7, [0] * 2000), {str(n): bomb(6) for n in range(900)}], ids=["list", "maps"])
def test_values_that_are_held_a_thousand_times_are_counted_each_time(extra: Any) -> None:
    limits = WireLimits(max_depth=20)
    with pytest.raises(WireError, match=r"at most 16384 items \(--max-items\)|more than 16384 opcodes"):
        LeRobot().read_message(seen(1.0, extra=extra), limits)


def test_depth_is_bounded_and_a_value_that_holds_itself_ends() -> None:
    endless: list[Any] = []
    endless.append(endless)
    for extra in (bomb(40), endless):
        with pytest.raises(WireError, match=r"at most 8 levels of nesting \(--max-depth\)"):
            LeRobot().read_message(seen(1.0, extra=extra))


def test_one_arrays_bytes_are_not_copied_for_each_place_that_names_it() -> None:
    array = np.zeros(1 << 20, ">f4")  # another byte order, so that each would be a copy
    cameras: dict[str, Any] = {f"camera{number}": array for number in range(30)}
    data = seen(1.0, **cameras)
    assert len(data) < 5 << 20
    tracemalloc.start()
    with pytest.raises(WireError, match="arrays of no more bytes than the message"):
        LeRobot().read_message(memoryview(bytearray(data)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * len(data)


def test_more_arrays_than_a_message_may_have_are_refused() -> None:
    arrays: dict[str, Any] = {f"a{number}": np.zeros(1, np.uint8) for number in range(201)}
    with pytest.raises(WireError, match=r"at most 200 arrays \(--max-arrays\)"):
        LeRobot().read_message(seen(1.0, **arrays))


@pytest.mark.parametrize(
    "value", [b"bytes", 1 << 70, "x" * 100_001, np.array(["text"]), np.zeros(1, "M8[s]"), {1: 2}, {"k" * 129: 2}]
)
def test_values_that_no_observation_has_are_refused(value: Any) -> None:
    with pytest.raises(WireError):
        LeRobot().read_message(seen(1.0, extra=value))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["u1", "<f4", ">f8", "b1", "<i2", "f2"])
def test_arrays_are_what_was_pickled_in_every_protocol(protocol: int, order: Any, dtype: str) -> None:
    array = np.asarray(np.arange(24).reshape(2, 3, 4) % 7, dtype, order=order)
    heard = LeRobot().read_message(memoryview(bytearray(seen(1.0, cam=array, protocol=protocol))))
    assert isinstance(heard, Request)
    found = heard.observation["images"]["cam"]
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype.newbyteorder("=")
    assert found.flags.c_contiguous
    assert found.flags.writeable


def test_a_picture_of_letters_that_are_no_bytes_is_refused() -> None:
    good = seen(1.0, cam=np.full((2, 2, 1), 255, np.uint8), protocol=2)
    letters = ("\xff" * 4).encode()
    assert letters in good
    for wrong in (good.replace(letters, "\u0100".encode() * 4), good.replace(b"latin1", b"latin2")):
        with pytest.raises(WireError, match="its content as _codecs encode: objects, which are never made"):
            LeRobot().read_message(wrong)


def test_a_dtype_with_fields_is_refused() -> None:
    good = seen(1.0, cam=np.zeros(2, "<f4"), protocol=2)
    wrong = good.replace(b"NNN", b"N}N")
    assert wrong != good
    with pytest.raises(WireError, match="one with fields"):
        LeRobot().read_message(wrong)


def test_a_picture_is_a_view_of_the_message() -> None:
    message = bytearray(seen(1.0, cam=np.zeros((4, 5, 3), np.uint8)))
    heard = LeRobot().read_message(memoryview(message))
    assert isinstance(heard, Request)
    assert np.shares_memory(heard.observation["images"]["cam"], np.frombuffer(message, np.uint8))


PLACES = st.integers(0, 600)
GOOD = [seen(1.0, 2.0, 3.0, front=np.zeros((2, 3, 3), np.uint8), task="fold"), setup("policy"), seen(1.0, protocol=2)]


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2), st.lists(st.tuples(PLACES, st.integers(0, 255)), max_size=4), PLACES)
@example(0, [], 5)
def test_any_bytes_are_a_message_or_are_refused(which: int, changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(GOOD[which])
    for place, byte in changes:
        data[place % len(data)] = byte
    for message in (bytes(data), memoryview(data[:cut])):
        for read in (LeRobot().read_message, read_setup):
            try:
                heard = read(message)
            except WireError:
                continue
            assert not isinstance(heard, (Request, Control)) or heard is not None


def test_getattr_is_a_feature_type_by_its_name_and_nothing_else() -> None:
    walk = Walk(1_000, WireLimits())
    with lerobots_modules():
        by_name, of_another = (pickle.dumps(Called(getattr, kind, "mro")) for kind in (FeatureType, PolicyFeature))
        of_a_member = pickle.dumps(Called(getattr, Called(FeatureType, "STATE"), "value"))
    assert walk.value(read_thing(by_name, WireLimits()), "") == "mro"  # as a text: nobody looks it up
    for wrong in (of_another, of_a_member, pickle.dumps(Called(getattr, "a", "join"))):
        with pytest.raises(WireError, match="builtins getattr"):
            walk.value(read_thing(wrong, WireLimits()), "")
    with pytest.raises(WireError, match="a call of what is no global"):
        read_thing(called_again(), WireLimits())
    with pytest.raises(WireError, match=r"'builtins\.int', which is not built here"):
        read_thing(pickle.dumps(Called(getattr, int, "real")), WireLimits())


def called_again() -> bytes:
    """A pickle that calls what getattr() would give."""
    return b"\x80\x04cbuiltins\ngetattr\n(cx\nFeatureType\nX\x03\x00\x00\x00mrotR)R."
