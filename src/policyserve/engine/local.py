"""The runners of one server: one, or several of the same policy, in threads or processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from policyserve.core.errors import ConfigError
from policyserve.core.spec import PolicySpec
from policyserve.engine.answering import LoadPolicy, OnStage
from policyserve.engine.batcher import Batcher
from policyserve.engine.recipe import ReadyPolicy, Recipe
from policyserve.engine.routing import Router
from policyserve.engine.runner import ThreadRunner
from policyserve.engine.scheduler import Scheduler
from policyserve.engine.supervisor import Supervisor

_MAX_HUNG_THREADS = 3
_BY_NAME = (
    "serve it by name, `policyserve serve package.module:name`, or hand over a Recipe('package.module:function'), so "
    "that {purpose}"
)


class Replicas:
    """`count` runners of the policy that `load` brings, each replaced when it breaks or hangs.

    is_isolated: in processes, which needs a Recipe. devices: one for each process, the only one that it sees.
    Raises ConfigError for what does not go together.
    """

    def __init__(self, load: LoadPolicy, *, is_isolated: bool, count: int, devices: Sequence[str] = ()) -> None:
        if is_isolated:
            from policyserve.engine.isolated.child import (
                check_devices,  # what a thread does not need costs time at the start
            )
            from policyserve.engine.isolated.runner import ProcessRunner

            check_devices(devices)
            if not isinstance(load, Recipe):
                purpose = "the policy's own process can load it"
                raise ConfigError("isolate: a policy object cannot move: " + _BY_NAME.format(purpose=purpose))
            made = [partial(ProcessRunner, load, device) for device in devices or [None] * count]
            self._supervisors = [Supervisor(make, 1, _name(place, count)) for place, make in enumerate(made)]
            return
        if count > 1 and isinstance(load, ReadyPolicy):
            raise ConfigError("replicas: one object is one policy: " + _BY_NAME.format(purpose="each loads its own"))
        self._supervisors = [
            Supervisor(lambda: ThreadRunner(load, may_inline=count == 1), _MAX_HUNG_THREADS, _name(place, count))
            for place in range(count)
        ]

    @property
    def stage(self) -> str:
        """What they are at while none can answer, empty while one can."""
        stages = [supervisor.stage for supervisor in self._supervisors]
        return "" if "" in stages else stages[0]

    async def start(self, on_stage: OnStage) -> PolicySpec:
        """Load the policy in all of them; raises what loading raised.

        The first is loaded alone: what is wrong is told once, and what an import does is done by one thread.
        """
        first, *others = self._supervisors
        spec = await first.start(on_stage)
        told = f"loading {len(others)} more"
        if others:
            on_stage(told)
        await asyncio.gather(*(other.start(lambda stage: on_stage(f"{told}: {stage}")) for other in others))
        return spec

    def serve(self, make_batcher: Callable[[], Batcher], request_timeout_s: float) -> Scheduler | Router:
        """What takes requests for the started runners; each has a batcher of its own."""
        schedulers = [
            Scheduler(supervisor, make_batcher(), request_timeout_s, supervisor.replace)
            for supervisor in self._supervisors
        ]
        router = Router(schedulers)
        for supervisor, scheduler in zip(self._supervisors, schedulers, strict=True):
            _connect(supervisor, scheduler, router)
        return schedulers[0] if len(schedulers) == 1 else router

    async def close(self, timeout_s: float) -> None:
        """Close them all; gives up waiting after timeout_s."""
        await asyncio.gather(*(supervisor.close(timeout_s) for supervisor in self._supervisors))


def _connect(supervisor: Supervisor, scheduler: Scheduler, router: Router) -> None:
    def go_down() -> None:
        scheduler.hold()
        router.vacate(scheduler)

    supervisor.on_down, supervisor.on_up = go_down, scheduler.resume
    if supervisor.stage:  # it was lost already
        scheduler.hold()


def _name(place: int, count: int) -> str:
    return "the policy" if count == 1 else f"the policy's replica {place + 1}"
