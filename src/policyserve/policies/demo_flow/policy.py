"""The policy demo_flow: chunks of 50 positions for the point in scene.py, by flow matching, with real-time chunking."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import PolicyserveError
from policyserve.core.policy import ActionChunk, PolicyInput
from policyserve.core.spec import ArraySpec, PolicySpec
from policyserve.policies.demo_flow.field import Mixture
from policyserve.policies.demo_flow.scene import CONTROL_HZ, HORIZON
from policyserve.policies.prefix import Prefix, read_prefix, rtc_extras, rtc_facts, rtc_leaves
from policyserve.policies.rtc import Rtc, sample, target_of

_STEPS = 10  # of the flow
_WIDTH = 2


class _Turn(NamedTuple):
    """A session and how many chunks it has had."""

    session: int
    chunk: int


class FlowDemo:
    """Answers where the point is to be in the next 50 steps.

    how: how a chunk is made to agree with a prefix; None: the policy takes none. latency_s: what a call takes at
    least, as one of a large model would. seed: of its noise, which depends on the session and its chunk beside.
    """

    buckets: Sequence[int] = (1,)

    def __init__(self, how: Rtc | None = None, *, latency_s: float = 0.0, seed: int = 0, max_batch: int = 16) -> None:
        self.spec = _spec(how, max_batch)
        self._how, self._latency_s, self._seed = how, latency_s, seed
        self._sessions = count()

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk | PolicyserveError]:
        ready_at = time.monotonic() + self._latency_s
        prefixes = [_read(one) for one in batch]
        turns = [one.state or _Turn(next(self._sessions), 0) for one in batch]
        chunks = self._chunks(batch, turns, [one if isinstance(one, Prefix) else None for one in prefixes])
        time.sleep(max(0.0, ready_at - time.monotonic()))
        return [
            prefix if isinstance(prefix, PolicyserveError) else self._answer(chunk, turn, prefix)
            for chunk, turn, prefix in zip(chunks, turns, prefixes, strict=True)
        ]

    def close(self) -> None:
        """Nothing to release."""

    def _answer(self, chunk: Array, turn: _Turn, prefix: Prefix | None) -> ActionChunk:
        extras = rtc_extras(self._how.method, prefix) if self._how is not None else {}
        return ActionChunk(chunk.astype(np.float32), turn._replace(chunk=turn.chunk + 1), extras)

    def _chunks(self, batch: Sequence[PolicyInput], turns: Sequence[_Turn], prefixes: Sequence[Prefix | None]) -> Array:
        """(B, H, 2)."""
        seen = [np.stack([one.observation[key] for one in batch]) for key in ("position", "stage", "time_s")]
        mixture = Mixture(*(values.astype(np.float64) for values in seen))
        draws = [np.random.default_rng([self._seed, *turn]) for turn in turns]
        noise = np.stack([draw.standard_normal((HORIZON, _WIDTH)) for draw in draws])
        how = self._how
        if how is None:
            return sample(mixture.field, noise, _STEPS)
        if how.method != "trained":
            return sample(mixture.field, noise, _STEPS, how, target_of(prefixes, how, HORIZON, _WIDTH))
        chunks = sample(mixture.field, noise, _STEPS)
        for place, prefix in enumerate(prefixes):
            if prefix is not None and prefix.delay:
                begun = prefix.rows[: prefix.delay].astype(np.float64)
                chunks[place] = mixture.continued(place, begun, noise[place], draws[place].random())
        return chunks


def _read(one: PolicyInput) -> Prefix | PolicyserveError | None:
    try:
        return read_prefix(one.observation)
    except PolicyserveError as error:
        return error


def _spec(how: Rtc | None, max_batch: int) -> PolicySpec:
    return PolicySpec(
        "demo_flow",
        observation={
            "position": ArraySpec((_WIDTH,), "float32", "where the point is: x and y in m"),
            "stage": ArraySpec((_WIDTH,), "float32", "how far the stage has drifted: x and y in m"),
            "time_s": ArraySpec((), "float64", "seconds since the episode began"),
            **(rtc_leaves(HORIZON, _WIDTH) if how is not None else {}),
        },
        action=ArraySpec((_WIDTH,), "float32", "where the point is to be: x and y in m"),
        horizon=HORIZON,
        max_batch=max_batch,
        metadata={
            "demo": "moves a point on a stage: it controls nothing else",
            "control_hz": CONTROL_HZ,
            "action_kind": "position",
            **(rtc_facts(how.method, "position") if how is not None else {}),
        },
    )
