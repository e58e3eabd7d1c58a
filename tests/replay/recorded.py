"""Recordings of small policies, as a server would have written them: what clients asked, and what was answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from policyserve import ArraySpec, Policy, PolicySpec, dialects
from policyserve.core.effects import Answered
from policyserve.core.errors import PolicyserveError
from policyserve.core.messages import Timing
from policyserve.core.policy import as_policy
from policyserve.engine.answering import Answering, Task
from policyserve.recordings.file import RecordingFile
from policyserve.recordings.layout import Opened, PolicyFacts

BEGIN = 1_700_000_000_000_000_000
PERIOD = 20_000_000  # nanoseconds between two requests
SPEC = PolicySpec("toy", {"obs": ArraySpec((3,))}, ArraySpec((2,), doc="reach, grip"), metadata={"checkpoint": "toy-1"})


def toy(gain: float = 1.0, spec: PolicySpec = SPEC) -> Policy:
    """Answers numbers that depend on the observation; another gain is another checkpoint."""
    return as_policy(lambda observation: observation["obs"][:2] * np.float32(gain), spec)


def walk(count: int, seed: int = 0) -> list[Mapping[str, Any]]:
    """Observations of a robot that moves."""
    steps = np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)
    return [{"obs": row} for row in np.cumsum(steps, axis=0, dtype=np.float32)]


def record(
    path: Path,
    policy: Policy | Callable[[Any], Any],
    sessions: Sequence[Sequence[Mapping[str, Any]]],
    dialect: str = "openpi",
    *,
    tells_policy: bool = True,
    is_cut: bool = False,
    period_s: float = PERIOD / 1e9,
) -> Path:
    """Ask the policy for each session's observations in turn and write what would have gone over the wire."""
    answering, wire = Answering(as_policy(policy)), dialects.by_name(dialect)
    file = RecordingFile(path)
    if tells_policy:
        file.tell_policy(PolicyFacts.of(answering.spec))
    at = BEGIN
    for session, observations in enumerate(sessions, 1):
        file.open_session(Opened(session, f"10.0.0.{session}:4000", dialect, at / 1e9))
        for number, observation in enumerate(observations, 1):
            at += int(period_s * 1e9)
            file.request(session, number, bytes(wire.write_request(observation)), at)
            valid = wire.read_request(wire.write_request(observation))
            taken = answering.spec.validate(valid.observation).observation
            (outcome,) = answering.answer([Task(session, taken)])
            _reply(file, wire, session, number, outcome, at + PERIOD // 4)
        file.close_session(session, at)
        answering.forget(session)
    if is_cut:
        file.flush()
        file.abandon()
    else:
        file.close()
    return path


def _reply(file: RecordingFile, wire: Any, session: int, number: int, outcome: Any, at: int) -> None:
    if isinstance(outcome, Answered):
        message = wire.write_reply(outcome.chunk, Timing(0.1, 0.2, 0.4))
        file.reply(session, number, bytes(message), at)
        return
    assert isinstance(outcome, PolicyserveError)
    file.refuse(session, number, outcome.code, str(outcome), at)
    told = wire.write_error(outcome).message
    if told is not None:
        file.reply(session, number, told.encode() if isinstance(told, str) else bytes(told), at, is_text=True)
