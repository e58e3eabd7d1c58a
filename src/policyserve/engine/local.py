"""The engine of this machine: one runner or several of the same policy, in threads or processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Protocol

from policyserve.core.errors import ConfigError
from policyserve.core.observer import Observers
from policyserve.core.recipe import Recipe
from policyserve.core.spec import PolicySpec
from policyserve.engine.answering import LoadPolicy, OnStage, Task
from policyserve.engine.batcher import Batcher
from policyserve.engine.engine import OnOutcome
from policyserve.engine.ready import ReadyPolicy
from policyserve.engine.routing import Router
from policyserve.engine.runner import ThreadRunner
from policyserve.engine.scheduler import Scheduler
from policyserve.engine.supervisor import Supervisor

_MAX_HUNG_THREADS = 3
_BY_NAME = (
    "serve it by name, `policyserve serve package.module:name`, or hand over a Recipe('package.module:function'), so "
    "that {purpose}"
)


class _Requests(Protocol):
    """What takes the requests: the only scheduler, or the router in front of several."""

    @property
    def is_working(self) -> bool: ...
    @property
    def load(self) -> int: ...
    def submit(self, task: Task, arrived_at: float, on_outcome: OnOutcome) -> None: ...
    def forget(self, session: Hashable) -> None: ...
    async def drained(self) -> None: ...


class LocalEngine:
    """An Engine of `count` runners of the policy that `load` brings, each replaced when it breaks or hangs.

    make_batcher: makes each runner's queue, given the spec's max_batch. request_timeout_s: from a request's arrival to
    its answer. is_isolated: in processes, which needs a Recipe. devices: one for each process, the only one that it
    sees. name: what the log calls the policy. Raises ConfigError for what does not go together.
    """

    def __init__(
        self,
        load: LoadPolicy,
        make_batcher: Callable[[int], Batcher],
        request_timeout_s: float,
        *,
        is_isolated: bool = False,
        count: int = 1,
        devices: Sequence[str] = (),
        name: str = "the policy",
    ) -> None:
        self._make_batcher = make_batcher
        self._request_timeout_s = request_timeout_s
        self._requests: _Requests | None = None  # once the policy is loaded
        self._schedulers: list[Scheduler] = []
        make = _runners_in_processes if is_isolated else _runners_in_threads
        self._supervisors = make(load, count, devices, name)

    @property
    def stage(self) -> str:
        """What the runners are at while none can answer, empty while one can."""
        stages = [supervisor.stage for supervisor in self._supervisors]
        return "" if "" in stages else stages[0]

    @property
    def is_working(self) -> bool:
        """Whether a policy is at work, or being loaded."""
        return self._requests is None or self._requests.is_working

    @property
    def sources(self) -> Sequence[str]:
        """The files of people's own code that a policy in a process of its own was loaded from."""
        return self._supervisors[0].sources

    @property
    def load(self) -> int:
        """Requests that have no answer yet."""
        return 0 if self._requests is None else self._requests.load

    async def start(self, on_stage: OnStage, observers: Observers) -> PolicySpec:
        """Load the policy in all runners; raises what loading raised.

        The first is loaded alone: what is wrong is told once, and what an import does is done by one thread.
        """
        first, *others = self._supervisors
        spec = await first.start(on_stage)
        told = f"loading {len(others)} more"
        if others:
            on_stage(told)
        await asyncio.gather(*(other.start(lambda stage: on_stage(f"{told}: {stage}")) for other in others))
        self._requests = self._open(spec, observers)
        return spec

    def submit(self, task: Task, arrived_at: float, on_outcome: OnOutcome) -> None:
        """See Engine."""
        assert self._requests is not None, "a request comes after start()"
        self._requests.submit(task, arrived_at, on_outcome)

    def forget(self, session: Hashable) -> None:
        """See Engine."""
        if self._requests is not None:
            self._requests.forget(session)

    async def drained(self) -> None:
        """Wait until nothing waits and nothing runs."""
        if self._requests is not None:
            await self._requests.drained()

    async def close(self, timeout_s: float) -> None:
        """Close all runners; gives up waiting after timeout_s."""
        await asyncio.gather(*(supervisor.close(timeout_s) for supervisor in self._supervisors))
        for scheduler in self._schedulers:
            scheduler.close()

    def _open(self, spec: PolicySpec, observers: Observers) -> _Requests:
        schedulers = self._schedulers = [
            Scheduler(
                supervisor,
                self._make_batcher(spec.max_batch),
                self._request_timeout_s,
                observers,
                supervisor.replace,
            )
            for supervisor in self._supervisors
        ]
        router = Router(schedulers)
        for supervisor, scheduler in zip(self._supervisors, schedulers, strict=True):
            supervisor.on_replaced = partial(_tell_replaced, observers)
            _connect(supervisor, scheduler, router)
        return schedulers[0] if len(schedulers) == 1 else router


def _runners_in_threads(load: LoadPolicy, count: int, devices: Sequence[str], name: str) -> list[Supervisor]:
    if count > 1 and isinstance(load, ReadyPolicy):
        raise ConfigError("replicas: one object is one policy: " + _BY_NAME.format(purpose="each loads its own"))
    make = partial(ThreadRunner, load, may_inline=count == 1)
    return [Supervisor(make, _MAX_HUNG_THREADS, _name(name, place, count)) for place in range(count)]


def _runners_in_processes(load: LoadPolicy, count: int, devices: Sequence[str], name: str) -> list[Supervisor]:
    from policyserve.engine.isolated.child import check_devices  # what a thread does not need costs time at the start
    from policyserve.engine.isolated.runner import ProcessRunner

    check_devices(devices)
    if not isinstance(load, Recipe):
        purpose = "the policy's own process can load it"
        raise ConfigError("isolate: a policy object cannot move: " + _BY_NAME.format(purpose=purpose))
    made = [partial(ProcessRunner, load, device) for device in devices or [None] * count]
    return [Supervisor(make, 1, _name(name, place, count)) for place, make in enumerate(made)]


def _tell_replaced(observers: Observers, name: str, reason: str) -> None:
    for tell in observers.policy_replaced:
        tell(name, reason)


def _connect(supervisor: Supervisor, scheduler: Scheduler, router: Router) -> None:
    def go_down() -> None:
        scheduler.hold()
        router.move_from(scheduler)

    def come_up(max_batch: int) -> None:
        scheduler.resume(min(max_batch, most))

    most = scheduler.max_batch
    supervisor.on_down, supervisor.on_up = go_down, come_up
    if supervisor.stage:  # it was lost already
        scheduler.hold()


def _name(name: str, place: int, count: int) -> str:
    return name if count == 1 else f"{name}'s replica {place + 1}"
