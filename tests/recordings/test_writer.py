"""The writing process's work without a process: files, their names, rotation, and what is where."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.policies.frameworks import import_or_skip

import_or_skip("mcap.writer")

from policyserve.recordings.layout import PolicyFacts, json_of  # noqa: E402
from policyserve.recordings.plan import Plan  # noqa: E402
from policyserve.recordings.queue import Descriptors, Incoming, Kind, Outgoing  # noqa: E402
from policyserve.recordings.reading import open_recording  # noqa: E402
from policyserve.recordings.writer import Writing, answered  # noqa: E402
from tests.recordings.written import SPEC, actions, reply, request  # noqa: E402

OFFSET = 1_700_000_000_000_000_000
MIB = 1 << 20


class Told:
    """A queue's end that tells what a recorder would."""

    def __init__(self) -> None:
        self.outgoing = Outgoing(256 * MIB)
        self.incoming = Incoming(Descriptors(*(os.dup(one) for one in self.outgoing.other_end)))
        self.outgoing.other_end.close()
        self.at = 0

    def event(self, event: str, **told: Any) -> None:
        self._put(Kind.EVENT, 0, 0, json_of({"event": event, **told}))

    def opened(self, session: int) -> None:
        self.event("opened", session=session, peer=f"robot:{session}", dialect="openpi", key="")

    def asked(self, session: int, number: int) -> None:
        self._put(Kind.REQUEST, session, number, request(number))

    def answered(self, session: int, number: int) -> None:
        self._put(Kind.REPLY, session, number, reply(number))

    def _put(self, kind: Kind, session: int, number: int, data: bytes) -> None:
        self.at += 1_000_000
        assert self.outgoing.put(kind, session, number, data, self.at, is_text=False)

    def written(self, plan: Plan) -> list[str]:
        """Have it written; what was said of it."""
        said: list[str] = []
        self.outgoing.close()
        Writing(plan, OFFSET, said.append).run(self.incoming)
        self.incoming.close()
        return said


def test_a_file_that_is_full_is_followed_by_another_and_exchanges_stay_whole(tmp_path: Path) -> None:
    told = Told()
    told.event("policy", **PolicyFacts.of(SPEC).record())
    told.opened(1)
    told.opened(2)
    told.asked(2, 1)  # a slow one, that is answered at the end
    for number in range(1, 7):
        told.asked(1, number)
        told.answered(1, number)
    told.answered(2, 1)
    for session in (1, 2):
        told.event("closed", session=session)
    said = told.written(Plan(str(tmp_path), max_bytes=1, has_views=False))
    files = [Path(line.removeprefix("file ")) for line in said]
    assert len(files) == len(set(files)) > 3
    recordings = [open_recording(file) for file in files]
    found = []
    for recording in recordings:
        assert not recording.facts.is_cut
        assert recording.facts.policy == "toy"
        for session in recording.sessions:
            assert session.peer == f"robot:{session.number}"
            for exchange in recording.exchanges(session.number):
                assert exchange.actions is not None
                assert np.array_equal(exchange.actions, actions(exchange.number))
                assert exchange.reset == (exchange.number == 1)
                found.append((session.number, exchange.number))
    assert sorted(found) == [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (1, 6), (2, 1)]
    assert [recording.sessions[0].is_continued for recording in recordings] == [False, *[True] * (len(files) - 1)]


def test_names_that_are_taken_are_no_ones_loss(tmp_path: Path) -> None:
    for _ in range(4):
        told = Told()
        told.opened(1)
        told.written(Plan(str(tmp_path)))
    assert len(list(tmp_path.glob("policyserve-*.mcap"))) == 4


def test_a_refusal_and_what_was_left_out_are_told(tmp_path: Path) -> None:
    told = Told()
    told.opened(1)
    told.asked(1, 1)
    told.event("refused", session=1, request=1, code="overloaded", text="full")
    told.asked(1, 2)
    told.event("left_out", session=1, request=2, count=1)
    told.event("left_out", count=7)
    (line,) = told.written(Plan(str(tmp_path)))
    recording = open_recording(line.removeprefix("file "))
    assert recording.facts.left_out == 8
    (exchange,) = recording.exchanges(1)
    assert exchange.error == ("overloaded", "full")


def test_times_are_of_one_clock(tmp_path: Path) -> None:
    told = Told()
    told.opened(1)
    told.asked(1, 1)
    told.answered(1, 1)
    (line,) = told.written(Plan(str(tmp_path)))
    recording = open_recording(line.removeprefix("file "))
    (exchange,) = recording.exchanges(1)
    assert exchange.arrived_at == pytest.approx(1_700_000_000.002, abs=1e-6)
    assert exchange.left_at == pytest.approx(1_700_000_000.003, abs=1e-6)
    assert recording.sessions[0].opened_at == pytest.approx(1_700_000_000.001, abs=1e-6)


def test_a_directory_that_is_gone_is_an_error_of_the_system(tmp_path: Path) -> None:
    told = Told()
    with pytest.raises(FileNotFoundError):
        told.written(Plan(str(tmp_path / "gone")))


def test_a_request_is_taken_with_its_reply_when_that_comes_in_time() -> None:
    told = Told()
    told.asked(1, 1)
    replies = threading.Thread(target=told.answered, args=(1, 1))
    replies.start()
    taken = answered(told.incoming, lambda _: False, patience_s=60)
    replies.join()
    assert [entry.kind for entry in taken] == [Kind.REQUEST, Kind.REPLY]
    told.outgoing.close()
    told.incoming.close()


def test_a_request_whose_reply_is_late_is_taken_without_it() -> None:
    told = Told()
    told.asked(1, 1)
    assert [entry.number for entry in answered(told.incoming, lambda _: False, patience_s=0.01)] == [1]
    told.asked(1, 2)
    told.outgoing.close()
    assert [entry.number for entry in answered(told.incoming, lambda _: False, patience_s=60)] == [2]
    assert told.incoming.has_ended
    told.incoming.close()


def test_while_much_is_waiting_nothing_waits_for_a_reply() -> None:
    told = Told()
    told.asked(1, 1)
    taken = answered(told.incoming, lambda entry: entry.waiting == 0, patience_s=60)
    assert [entry.number for entry in taken] == [1]
    told.outgoing.close()
    told.incoming.close()
