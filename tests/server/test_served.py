"""One policy among several: what becomes of it is told to those that it concerns, and to nobody else."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from policyserve.core.errors import ConfigError, PolicyFailed
from policyserve.core.observer import Observer, Observers
from policyserve.core.spec import PolicySpec
from policyserve.engine.engine import Change
from policyserve.engine.reloading import ReloadingEngine
from policyserve.server.config import ServerConfig
from policyserve.server.served import Served
from tests.server.test_conversation import SPEC, HandEngine


class Loading(HandEngine):
    """Loads, or fails to, as it is told."""

    def __init__(self, result: PolicySpec | BaseException = SPEC) -> None:
        super().__init__()
        self.result = result

    async def start(self, on_stage: Any, observers: Observers) -> PolicySpec:
        on_stage("reading weights")
        await asyncio.sleep(0)
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


class Heard(Observer):
    def __init__(self) -> None:
        self.specs: list[str] = []
        self.stages: list[str] = []

    def on_policy_ready(self, spec: PolicySpec) -> None:
        self.specs.append(spec.name)

    def on_stage(self, stage: str) -> None:
        self.stages.append(stage)


def make(name: str | None, engine: Loading) -> tuple[Served, Heard]:
    observers, heard = Observers(lambda _observer, error: pytest.fail(str(error))), Heard()
    observers.add(heard)
    return Served(name, engine, observers.below(), ServerConfig()), heard


def test_one_with_a_name_goes_by_it() -> None:
    served, heard = make("pick", Loading())
    settled: list[Served] = []
    served.on_settled = settled.append
    assert (served.stage, served.label) == ("starting", "pick")
    asyncio.run(served.load())
    assert settled == [served]
    assert (served.stage, heard.specs, heard.stages) == ("", ["pick"], ["pick: reading weights", ""])
    assert served.metadata["spec"] == SPEC.describe()


def test_the_only_one_goes_by_what_it_calls_itself() -> None:
    served, heard = make(None, Loading())
    assert (served.name, served.label) == ("default", "")
    asyncio.run(served.load())
    assert (served.label, heard.specs, heard.stages) == (SPEC.name, [SPEC.name], ["reading weights", ""])


@pytest.mark.parametrize("error", [PolicyFailed("no such file"), OSError("no such file")])
def test_one_that_cannot_be_loaded_says_so_and_raises(error: Exception) -> None:
    served, _ = make("pick", Loading(error))
    settled: list[Served] = []
    served.on_settled = settled.append
    with pytest.raises(type(error)):
        asyncio.run(served.load())
    assert settled == [served]
    assert served.stage == "loading failed"
    assert str(served.failure).startswith("not served: ")


def test_metadata_that_no_client_could_read_is_a_failure_to_load() -> None:
    served, _ = make("pick", Loading(replace(SPEC, metadata={"spec": 1})))
    with pytest.raises(ConfigError, match="every greeting has itself"):
        asyncio.run(served.load())
    assert served.failure is not None


def test_an_engine_that_changes_its_policy_tells_the_one_that_it_is_of() -> None:
    served, _ = make("pick", Loading())
    engine = ReloadingEngine(Loading)  # type: ignore[arg-type]
    changing = Served("place", engine, served.observers, ServerConfig())
    changed: list[Served] = []
    changing.on_changed = lambda served, change: changed.append(served)
    engine.on_change(Change(replace(SPEC, metadata={"checkpoint": 8})))
    assert changed == [changing]
    assert changing.metadata["checkpoint"] == 8
    with pytest.raises(ConfigError):
        engine.on_change(Change(replace(SPEC, metadata={"policyserve": 1})))
    assert changing.metadata["checkpoint"] == 8
    assert served.spec is None
