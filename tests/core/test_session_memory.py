"""What a session holds of its messages, counted: no more than it tells, and nothing of what is over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from policyserve.core.effects import Answered, Effect, Send, Submit
from policyserve.core.messages import EncodedText
from policyserve.core.policy import ActionChunk
from policyserve.core.session import Session
from policyserve.core.spec import ArraySpec, PolicySpec
from policyserve.dialects.openpi import OpenPI
from tests.counted_memory import counted_memory

OPEN = PolicySpec("open", None, None)
NUMBER = PolicySpec("number", {"obs": ArraySpec((1,))}, None)


def submits(effects: Sequence[Effect]) -> list[Submit]:
    return [effect for effect in effects if isinstance(effect, Submit)]


def answered(actions: Any) -> Answered:
    return Answered(ActionChunk(actions), 0.0, 0.0)


def binary(**sent: Any) -> memoryview:
    return memoryview(bytearray(OpenPI().write_request(sent)))


def test_a_text_that_comes_before_the_policy_is_kept_as_its_bytes() -> None:
    """A str of it would take four times as much."""
    text = EncodedText(memoryview("\U0001f600".encode() + b"a" * 1_000_000))
    session = Session(OpenPI(), max_pending=8)
    with counted_memory() as memory:
        session.receive(text, 0.0)
    assert memory.peak < 10_000
    assert 1_000_000 < session.held_bytes < 1_010_000


def test_a_text_that_is_too_long_to_be_made_a_str_is_refused_by_its_length() -> None:
    session = Session(OpenPI(), max_pending=8)
    session.serve(OPEN, {})
    text = EncodedText(memoryview("\U0001f600".encode() + b"a" * 1_000_000))
    with counted_memory() as memory:
        effects = session.receive(text, 0.0)
    (told,) = [str(effect.message) for effect in effects if isinstance(effect, Send)]
    assert "a text message of at most 100000 characters (--max-text)" in told
    assert memory.peak < 100_000


def test_what_waits_is_counted_with_what_was_made_of_it_until_it_is_answered() -> None:
    session = Session(OpenPI(), max_pending=8)
    session.serve(OPEN, {})
    waiting: list[Effect] = []
    with counted_memory() as memory:
        for _ in range(4):
            waiting += session.receive(binary(texts=[f"number {n}" for n in range(1_000)], state=np.zeros(10)), 0.0)
    assert memory.left / 1.5 < session.held_bytes < memory.left * 1.5
    assert session.received_bytes == session.held_bytes
    for one in submits(waiting):
        session.answer(one.ticket, answered(np.zeros(1)), 0.0)
    assert session.held_bytes == 0


def test_a_refused_message_that_waits_for_its_turn_is_not_kept() -> None:
    """The traceback of its refusal would hold it, in the frames of those who read it."""
    session = Session(OpenPI(), max_pending=8)
    session.serve(NUMBER, {})
    session.receive(binary(obs=np.zeros(1)), 0.0)
    with counted_memory() as memory:
        for sent in (binary(obs=np.zeros(200_000)), binary(nothing=np.zeros(200_000)), binary(obs=["x"] * 2_000)):
            assert session.receive(sent, 0.0) == []
        del sent
    assert session.pending == 4
    assert memory.left < 50_000


def test_what_a_client_repeats_is_not_kept_for_ever() -> None:
    """A layout keeps all bytes around the arrays; of a message that is little but arrays those are few."""
    session = Session(OpenPI(), max_pending=8)
    session.serve(OPEN, {})
    with counted_memory() as memory:
        for _ in range(3):
            effects = session.receive(binary(state=np.zeros(3), prompt="x" * 90_000), 0.0)
            session.answer(submits(effects)[0].ticket, answered(np.zeros(1)), 0.0)
            effects.clear()
    assert memory.left < 50_000
