"""What one end of the queue is given the other end gets, whole and in order; what has no room is refused at once."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyserve.recordings.queue import Descriptors, Entry, Incoming, Kind, Outgoing

KIB = 1024


@contextmanager
def ends(most: int = 1 << 20) -> Iterator[tuple[Outgoing, Incoming]]:
    """Both ends in this process, as a process of its own would have them."""
    outgoing = Outgoing(most)
    incoming = Incoming(Descriptors(*(os.dup(descriptor) for descriptor in outgoing.other_end)))
    outgoing.other_end.close()
    try:
        yield outgoing, incoming
    finally:
        incoming.close()
        if not incoming.has_ended:
            outgoing.close()


def put(outgoing: Outgoing, data: bytes, number: int = 1, spare: int = 0) -> bool:
    return outgoing.put(Kind.REQUEST, 3, number, data, 5, is_text=False, spare=spare)


def take(incoming: Incoming, entry: Entry) -> bytes:
    """A copy of an entry's bytes."""
    with incoming.lent(entry) as data:
        return bytes(data)


def entries(incoming: Incoming) -> list[Entry]:
    """All that are there."""
    found: list[Entry] = []
    while select.select([incoming.descriptor], [], [], 0)[0] and not incoming.has_ended:
        found += incoming.read()
    return found


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=20 * KIB), st.booleans()), max_size=60))
def test_messages_come_out_as_they_went_in_whenever_they_are_read(messages: list[tuple[bytes, bool]]) -> None:
    read: list[bytes] = []
    with ends(8 << 20) as (outgoing, incoming):
        for number, (data, reads_now) in enumerate(messages):
            assert put(outgoing, data, number)
            if reads_now:
                read += [take(incoming, entry) for entry in entries(incoming)]
        found = entries(incoming)
        assert [(entry.kind, entry.session, entry.at, entry.is_text) for entry in found] == [(1, 3, 5, False)] * len(
            found
        )
        read += [take(incoming, entry) for entry in found]
    assert read == [data for data, _ in messages]


def test_what_has_no_room_is_refused_and_taken_when_there_is_some() -> None:
    with ends(64 * KIB) as (outgoing, incoming):
        assert put(outgoing, bytes(40 * KIB))
        assert not put(outgoing, bytes(40 * KIB))
        assert not put(outgoing, bytes(10 * KIB), spare=20 * KIB)
        assert put(outgoing, bytes(10 * KIB))
        for entry in entries(incoming):
            take(incoming, entry)
        assert put(outgoing, bytes(60 * KIB))
        assert not put(outgoing, bytes(65 * KIB)), "more than the queue ever has"


def test_a_reader_that_keeps_up_gets_everything_in_the_same_pages() -> None:
    with ends() as (outgoing, incoming):
        places: set[int] = set()
        for _ in range(50):
            assert put(outgoing, bytes(100 * KIB))
            (entry,) = entries(incoming)
            places.add(entry.slot.start)
            take(incoming, entry)
        assert len(places) == 1


def test_a_pipe_that_is_full_refuses_and_loses_nothing() -> None:
    with ends(1 << 30) as (outgoing, incoming):
        taken = 0
        while put(outgoing, b"x", taken):
            taken += 1
            assert taken < 1_000_000
        used = outgoing.used
        assert not put(outgoing, b"x")
        assert outgoing.used == used
        found: list[int] = []
        while len(found) < taken:
            for entry in incoming.read():
                assert take(incoming, entry) == b"x"
                found.append(entry.number)
        assert found == list(range(taken))
        assert put(outgoing, b"x")


def test_an_end_that_is_closed_is_noticed_once_all_is_read() -> None:
    with ends() as (outgoing, incoming):
        assert put(outgoing, b"last")
        outgoing.close()
        (entry,) = incoming.read()
        assert not incoming.has_ended
        assert take(incoming, entry) == b"last"
        assert list(incoming.read()) == []
        assert incoming.has_ended


def test_without_a_reader_it_says_so() -> None:
    outgoing = Outgoing(1 << 20)
    outgoing.other_end.close()
    with pytest.raises(BrokenPipeError):
        put(outgoing, b"x")
    outgoing.close()
