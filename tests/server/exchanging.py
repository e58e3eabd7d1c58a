"""A running server whose policy is exchanged, for the tests of that."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from policyserve.core.errors import ConfigError
from policyserve.core.policy import ActionChunk, Policy, PolicyInput
from policyserve.core.recipe import OnStage
from policyserve.core.spec import ArraySpec, PolicySpec
from policyserve.engine.swapping import SwappingEngine
from policyserve.engine.swaps import NextPolicy
from policyserve.server.config import ServerConfig
from policyserve.server.offers import local_engine
from policyserve.server.server import Server
from tests.server.live import Live, running

SPEC = PolicySpec("numbered", {"x": ArraySpec((1,))}, ArraySpec((3,)), max_batch=4)
CONFIG = ServerConfig(host="127.0.0.1", port=0, max_queue_ms=60_000.0)


class Numbered:
    """Answers its number, how often this session has asked it, and x. may_answer: if set, answers wait for it."""

    def __init__(self, number: int, **spec: Any) -> None:
        self.spec = PolicySpec(
            **{
                "name": f"numbered {number}",
                "observation": SPEC.observation,
                "action": SPEC.action,
                "max_batch": 4,
                "metadata": {"checkpoint_step": number},
                **spec,
            }
        )
        self.number = number
        self.may_answer: threading.Event | None = None
        self.is_asked = threading.Event()

    def infer(self, batch: Any) -> list[ActionChunk]:
        self.is_asked.set()
        if self.may_answer is not None:
            self.may_answer.wait(30)
        return [self._answer(one) for one in batch]

    def _answer(self, one: PolicyInput) -> ActionChunk:
        count = (one.state or 0) + 1
        row = np.array([self.number, count, one.observation["x"][0]], np.float32)
        return ActionChunk(row if self.spec.horizon is None else np.tile(row, (self.spec.horizon, 1)), count)

    def close(self) -> None: ...


def numbered(
    number: int,
    *,
    fails: bool = False,
    may_load: threading.Event | None = None,
    config: ServerConfig = CONFIG,
    policy: Policy | None = None,
    **spec: Any,
) -> NextPolicy:
    """A policy that can take over. may_load: its loading waits for that."""

    def load(on_stage: OnStage) -> Policy:
        on_stage("reading weights")
        if may_load is not None:
            may_load.wait(30)
        if fails:
            raise ConfigError("weights.bin: expected 12 bytes, got 7")
        return policy or Numbered(number, **spec)

    return NextPolicy(f"checkpoint {number}", lambda: local_engine(load, config))


@contextmanager
def swapping(first: NextPolicy | None = None, config: ServerConfig = CONFIG) -> Iterator[tuple[Live, SwappingEngine]]:
    """A server of policy 1, or of another one, and its engine."""
    engine = SwappingEngine(first or numbered(1, config=config), config.request_timeout_s, config.max_queue)
    with running(Server(engine, config)) as live:
        live.ready()
        yield live, engine
