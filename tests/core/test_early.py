"""Messages that come before the policy is ready."""

from __future__ import annotations

from sys import getsizeof

from policyserve.core.early import MESSAGE_OVERHEAD, Early, EarlyMessages
from policyserve.core.errors import Overloaded
from policyserve.core.messages import Message


def kept(*messages: Message) -> EarlyMessages:
    early = EarlyMessages()
    for number, message in enumerate(messages):
        assert early.keep(message, float(number))[0] is None
    return early


def test_they_are_taken_once_in_their_order_with_the_time_of_their_arrival() -> None:
    early = kept(b"a", "b")
    assert len(early) == 2
    assert early.take() == [Early(b"a", 0.0), Early("b", 1.0)]
    assert len(early) == 0
    assert early.take() == []


def test_what_is_dropped_is_not_taken_any_more() -> None:
    early = kept(b"a", b"b")
    taken = early.take()
    early.keep(b"c", 2.0)
    early.clear()
    assert (len(early), early.held_bytes, early.take()) == (0, 0, [])
    assert [one.message for one in taken] == [b"a", b"b"]


def test_the_first_may_be_of_any_size_and_those_behind_it_a_megabyte_together() -> None:
    early = kept(bytes(5_000_000), bytes(600_000), bytes(400_000))
    refused, size = early.keep(bytes(1), 3.0)
    assert isinstance(refused, Overloaded)
    assert str(refused) == "the policy is still loading, and more than a megabyte waits for it already"
    assert size == MESSAGE_OVERHEAD + 1  # what came is counted all the same
    assert [type(one.message) for one in early.take()] == [bytes, bytes, bytes, Overloaded]  # it takes its turn


def test_a_refusal_takes_its_turn_and_no_room() -> None:
    early = kept(b"a")
    told = Overloaded("9 requests of this session have no answer yet")
    assert early.keep(told, 1.0) == (told, MESSAGE_OVERHEAD)
    assert early.held_bytes == 2 * MESSAGE_OVERHEAD + 1


def test_what_they_take_in_memory_is_told() -> None:
    assert kept(b"abc", memoryview(b"abcd")).held_bytes == 2 * MESSAGE_OVERHEAD + 7
    assert kept("día").held_bytes == MESSAGE_OVERHEAD + getsizeof("día")
