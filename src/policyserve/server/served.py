"""One policy of a server: its engine, how far it is, and what clients are told of it.

What must stay true: whatever becomes of one policy, those beside it neither wait for it nor hear of it.
Everything here runs in the event loop's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from policyserve.core.callbacks import do_nothing
from policyserve.core.errors import NotReady, PolicyFailed, PolicyserveError
from policyserve.core.events import Event
from policyserve.core.log import Log
from policyserve.core.observer import Observers
from policyserve.core.printable import text_of
from policyserve.core.spec import PolicySpec
from policyserve.core.spec_from_values import SeenPolicy
from policyserve.engine.engine import Change, ChangingEngine, Engine
from policyserve.engine.stages import from_any_thread
from policyserve.observe.counters import Counters
from policyserve.observe.spec_learner import SpecLearner
from policyserve.server import greeting
from policyserve.server.config import ServerConfig
from policyserve.server.exchange import MakeNext

log = Log(__name__)

DEFAULT = "default"  # what the only policy of a server is called where nobody gave it a name


class Served:
    """A policy that is being served, or loaded, or that could not be loaded.

    name: by which clients find it; None where it is the only one and has none. engine: where its requests go.
    observers: told of what happens to it. config: the server's settings, with those that are its own. keys: the names
    of the API keys that may use it; None: all. max_sessions: the most at a time; None: as many as the server takes.
    stage: what it is at; empty once it answers.
    """

    def __init__(
        self,
        name: str | None,
        engine: Engine,
        observers: Observers,
        config: ServerConfig,
        *,
        keys: Collection[str] | None = None,
        max_sessions: int | None = None,
    ) -> None:
        self.name = name or DEFAULT
        self.is_named = name is not None
        self.engine, self.observers, self.config = engine, observers, config
        self.keys, self.max_sessions = keys, max_sessions
        self.key_map = config.key_map
        self.next_policy: MakeNext | None = None  # makes one that can take its place
        self.counters = Counters()  # of what happens to it, once it is among its observers
        self.spec: PolicySpec | None = None  # once it is ready
        self.metadata: Mapping[str, Any] = {}  # of its greetings, once it is ready
        self.failure: PolicyserveError | None = None  # why it will never be ready
        self.own_name = ""  # what the policy calls itself, once it is ready
        self.sessions: set[int] = set()  # the numbers of those that are open
        # Told of changes: that it is ready or will never be, that another policy took its place, what loading is at,
        # and once what a policy without a spec takes.
        self.on_settled: Callable[[Served], object] = do_nothing
        self.on_changed: Callable[[Served, Change], object] = do_nothing
        self.on_stage: Callable[[Served, str], object] = do_nothing
        self.on_seen: Callable[[SeenPolicy], object] = do_nothing
        self._stage = "starting"  # of loading
        self._learner: SpecLearner | None = None  # while a policy without a spec has answered nothing
        if isinstance(engine, ChangingEngine):
            engine.on_change = self.say_changed

    def __repr__(self) -> str:
        return f"<policyserve.{type(self).__name__} {self.name}: {self.stage or 'ready'}>"

    @property
    def stage(self) -> str:
        """What is done while it cannot answer; empty while it can."""
        return self._stage or self.engine.stage

    @property
    def label(self) -> str:
        """Its name; of the only policy, which has none, what it calls itself, empty until that is known."""
        if self.is_named:
            return self.name
        return self.spec.name if self.spec is not None else ""

    @property
    def learns_spec(self) -> bool:
        """Whether the policy declares no spec, and has not answered yet."""
        return self._learner is not None

    async def load(self) -> PolicySpec:
        """Load the policy, and tell whoever waits for it; raises what loading raised."""
        loop = asyncio.get_running_loop()
        try:
            spec = await self.engine.start(from_any_thread(loop, self._note_stage), self.observers)
            greeting.check_spec(spec, self.config)
        except Exception as error:  # a stranger's loader: the sessions that wait are told, the caller gets it
            told = error if isinstance(error, PolicyserveError) else PolicyFailed("the policy could not be loaded")
            self.say_failed(NotReady(f"not served: {told}"))
            raise
        self.say_ready(spec)
        for tell in self.observers.stage:
            tell("")
        return spec

    def say_ready(self, spec: PolicySpec) -> None:
        """It answers: sessions that wait are served, and those to come."""
        self._take(spec)
        self._stage = ""
        self.on_settled(self)

    def say_changed(self, change: Change) -> None:
        """Another policy answers from now on; raises ConfigError for what cannot be served."""
        greeting.check_spec(change.spec, self.config)
        self._take(change.spec)
        self._stage, self.failure = "", None  # the one before may have failed to load
        self.on_changed(self, change)

    def say_failed(self, failure: PolicyserveError) -> None:
        """It will never answer: sessions that wait are told, and those to come."""
        self._stage = "loading failed"
        self.failure = failure
        self.on_settled(self)

    def may_use(self, key: str) -> bool:
        """Whether the API key of this name may use it."""
        return self.keys is None or key in self.keys

    def _take(self, spec: PolicySpec) -> None:
        self.own_name = spec.name
        if self.is_named:
            spec = replace(spec, name=self.name)
        self._learn(spec)
        for tell in self.observers.policy_ready:
            tell(spec)
        self.spec, self.metadata = spec, greeting.metadata_of(spec)

    def _learn(self, spec: PolicySpec) -> None:
        """Watch a policy that declares no spec, and no other one."""
        if self._learner is not None:
            self.observers.remove(self._learner)
            self._learner = None
        if spec.observation is None:
            self._learner = SpecLearner(spec.name, self._note_seen)
            self.observers.add(self._learner)

    def _note_seen(self, seen: SeenPolicy) -> None:
        assert self._learner is not None
        self.observers.remove(self._learner)
        self._learner = None
        self.metadata = {**seen.facts, **self.metadata}  # seen, where the policy itself says nothing
        self.on_seen(seen)

    def _note_stage(self, stage: str) -> None:
        stage = text_of(stage)  # a loader's
        if self._stage:
            self._stage = stage
            shown = f"{self.name}: {stage}" if self.is_named else stage
            log.debug("%s", shown, event=Event("stage"))
            for tell in self.observers.stage:
                tell(shown)
            self.on_stage(self, shown)
