"""Compares two recordings: the first session of one with the first of the other, request by request."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import numpy as np

from policyserve.core.errors import PolicyserveError
from policyserve.recordings.reading import Exchange, RecordedSession, Recording
from policyserve.replay.asking import OnStep
from policyserve.replay.gathered import Gathered


def compare_recordings(one: Recording, other: Recording, gathered: Gathered, on_step: OnStep) -> None:
    """Put what both have into `gathered`, which has what there is at any time."""
    gathered.describe_actions(one.facts.spec or other.facts.spec)
    parting = _Parting()
    for first, second in zip_longest(one.sessions, other.sessions):
        gathered.sessions += 1
        if first is None or second is None:
            left, there = (first, one) if second is None else (second, other)
            number = 0 if left is None else left.number
            gathered.unmatched.append(f"session {number} is in {there.path.name} alone")
            continue
        _compare_sessions(one, first, other, second, gathered, parting, on_step)
    if parting.count:
        told = f"{parting.count} of the requests have other observations, from {parting.first} on"
        gathered.notes.append(f"{told}: their answers may differ for that reason")


class _Parting:
    """How many requests of both are not the same, and the first of them."""

    def __init__(self) -> None:
        self.count = 0
        self.first = ""


def _compare_sessions(
    one: Recording,
    first: RecordedSession,
    other: Recording,
    second: RecordedSession,
    gathered: Gathered,
    parting: _Parting,
    on_step: OnStep,
) -> None:
    both = zip_longest(one.exchanges(first.number), other.exchanges(second.number))
    only: dict[str, int] = {}
    for asked, again in both:
        gathered.requests += 1
        if asked is None or again is None:
            name = (other if asked is None else one).path.name
            only[name] = only.get(name, 0) + 1
            continue
        if not _is_same_request(asked, again):
            parting.count += 1
            parting.first = parting.first or f"session {first.number}, request {asked.number}"
        _take(gathered, first.number, asked, again)
        on_step(gathered)
    for name, count in only.items():
        requests = "request is" if count == 1 else "requests are"
        gathered.unmatched.append(f"{count} {requests} in {name} alone, at the end of session {first.number}")


def _take(gathered: Gathered, session: int, asked: Exchange, again: Exchange) -> None:
    recorded, replayed = asked.actions, again.actions
    if recorded is None:
        gathered.without_actions += 1
    elif replayed is None:
        error = again.error
        code, text = ("no_answer", "it has no answer there") if error is None else (error.code, error.text)
        gathered.refuse(session, asked.number, code, text)
    else:
        gathered.answered(session, asked.number, recorded, replayed)


def _is_same_request(asked: Exchange, again: Exchange) -> bool:
    if asked.request == again.request:
        return True
    try:
        return _is_same(asked.sent, again.sent)
    except PolicyserveError:
        return False


def _is_same(one: Any, other: Any) -> bool:
    """Whether two observations hold the same, whichever dialects carried them."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_same(value, other[key]) for key, value in one.items())
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    return type(one) is type(other) and bool(one == other)
