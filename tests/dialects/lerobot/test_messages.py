"""The messages around LeRobot's pickles, as protobuf has them."""

from __future__ import annotations

import pytest

from policyserve.core.errors import WireError
from policyserve.dialects.lerobot.messages import BEGIN, END, MIDDLE, Parts, read_setup_data, write_actions
from tests.server.lerobot_grpc.calling import part, parts, pickled_in, setup_message


def joined(*messages: bytes, most: int = 1000) -> bytes:
    made = Parts(most)
    *before, last = messages
    assert not any(made.add(one) for one in before)
    assert made.add(last)
    return bytes(made.data)


def test_an_observation_of_one_part_is_just_its_end() -> None:
    assert joined(part(END, b"abc")) == b"abc"


def test_parts_are_put_together_in_their_order() -> None:
    data = bytes(range(256)) * 3
    assert joined(*parts(data, 100)) == data


def test_a_beginning_starts_over() -> None:
    assert joined(part(BEGIN, b"old"), part(MIDDLE, b"old"), part(BEGIN, b"a"), part(END, b"b")) == b"ab"


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([part(MIDDLE, b"x")], "expected BEGIN or END as the first part, got MIDDLE"),
        ([part(0, b"x")], r"expected BEGIN \(1\), MIDDLE \(2\) or END \(3\), got 0"),
        ([b"\x12\x01x"], "got 0"),
        ([part(7, b"x")], "got 7"),
        ([b"\x0a\x01x\x12\x01x"], "expected BEGIN"),
        ([b"\x08\x03\x10\x05"], "expected bytes, got a number"),
        ([part(END, b"abc")[:-1]], "one whose end is missing"),
        ([b"\x08"], "one whose end is missing"),
        ([b"\x08" + b"\xff" * 12], "numbers of at most 64 bits"),
        ([b"\x0b"], "a field of kind 3"),
        ([part(BEGIN, bytes(600)), part(MIDDLE, bytes(600))], r"at most 1000 bytes in all \(--max-frame-mib\)"),
        ([part(END, bytes(1001))], "at most 1000 bytes"),
    ],
)
def test_what_is_no_observation_is_refused_and_nothing_is_kept(messages: list[bytes], told: str) -> None:
    made = Parts(1000)
    *before, last = messages
    for message in before:
        made.add(message)
    with pytest.raises(WireError, match=told):
        made.add(last)
    assert made.data == b""


def test_fields_that_are_not_known_are_passed_over() -> None:
    unknown = b"\x18\x07" + b"\x21" + bytes(8) + b"\x2d" + bytes(4) + b"\x32\x02zz"
    assert joined(unknown + part(END, b"abc") + unknown) == b"abc"


@pytest.mark.parametrize("size", [0, 1, 127, 128, 20_000])
def test_a_setup_is_read_and_an_answer_written_whatever_their_sizes(size: int) -> None:
    data = bytes(size)
    assert read_setup_data(setup_message(data)) == data
    written = write_actions(data)
    assert (pickled_in(written) if size else written) == data
