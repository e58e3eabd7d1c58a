"""A policy that is loaded anew when its files change: who answers meanwhile, and what becomes of the one before."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Hashable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.core.effects import Answered, Outcome
from policyserve.core.errors import ConfigError
from policyserve.core.observer import Observers
from policyserve.core.policy import ActionChunk
from policyserve.core.spec import PolicySpec
from policyserve.engine.answering import OnStage, Task
from policyserve.engine.engine import Change, ChangingEngine, Engine, OnOutcome
from policyserve.engine.reloading import ReloadingEngine
from tests.engine.running import NOBODY, PATIENCE_S, until


class Version:
    """An engine whose loading reads its number from a file; it keeps what it is told."""

    stage = ""
    is_working = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.number = 0
        self.looks = 0
        self._files: list[Path] = []
        self.waiting: list[OnOutcome] = []
        self.forgotten: list[Hashable] = []
        self.is_closed = False
        self.is_slow_to_close = False  # the next close() ends only when it is cancelled
        self.is_held = False  # answers wait for the test
        self.may_load: asyncio.Event | None = None

    @property
    def load(self) -> int:
        return len(self.waiting)

    async def start(self, on_stage: OnStage, observers: Observers) -> PolicySpec:
        on_stage("importing")
        if self.may_load is not None:
            await self.may_load.wait()
        self._import()
        return PolicySpec(f"version {self.number}", None, None)

    @property
    def sources(self) -> list[str]:
        self.looks += 1
        return [str(file) for file in self._files]

    def _import(self) -> None:
        text = (self.folder / "arm.py").read_text()
        self._files = [self.folder / name for name in ("arm.py", *text.split()[1:])]
        if any("error" in file.read_text() for file in self._files):
            raise ConfigError("SyntaxError: invalid syntax")
        self.number = int(text.split()[0])

    def submit(self, task: Task, arrived_at: float, on_outcome: OnOutcome) -> None:
        if self.is_held:
            self.waiting.append(on_outcome)
        else:
            on_outcome(self.outcome())

    def outcome(self) -> Outcome:
        return Answered(ActionChunk(np.array(self.number)), 0.0, 0.0)

    def forget(self, session: Hashable) -> None:
        self.forgotten.append(session)

    async def drained(self) -> None:
        await until(lambda: not self.waiting)

    async def close(self, timeout_s: float) -> None:
        if self.is_slow_to_close:
            self.is_slow_to_close = False
            await asyncio.Event().wait()  # until it is cancelled
        self.is_closed = True


class Bench:
    """A started engine over a folder with `arm.py`: a number, and the names of other files that it loads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.versions: list[Version] = []
        self.specs: list[str] = []
        self.may_load: asyncio.Event | None = None
        self.engine = ReloadingEngine(self._make, look_every_s=0.005)
        self.engine.on_change = lambda change: self.specs.append(change.spec.name)

    def _make(self) -> Version:
        self.versions.append(Version(self.folder))
        self.versions[-1].may_load = self.may_load
        return self.versions[-1]

    def write(self, text: str, name: str = "arm.py") -> None:
        (self.folder / name).write_text(text)

    def ask(self) -> int:
        outcomes: list[Outcome] = []
        self.engine.submit(Task(1, {}), 0.0, outcomes.append)
        (outcome,) = outcomes
        assert isinstance(outcome, Answered)
        return int(outcome.chunk.actions)

    async def until_answering(self, number: int) -> None:
        await until(lambda: self.ask() == number)


def converse(tmp_path: Path, talk: Callable[[Bench], Awaitable[None]], text: str = "1") -> None:
    async def run() -> None:
        bench = Bench(tmp_path)
        bench.write(text)
        settle(tmp_path / "arm.py")
        await bench.engine.start(lambda _: None, NOBODY)
        try:
            await asyncio.wait_for(talk(bench), PATIENCE_S)
        finally:
            await bench.engine.close(1)
        assert len(asyncio.all_tasks()) == 1
        assert all(version.is_closed for version in bench.versions)

    asyncio.run(run())


def settle(file: Path) -> None:
    """Make a file older than what loads it."""
    then = time.time() - 60
    os.utime(file, (then, then))


def test_it_is_an_engine(tmp_path: Path) -> None:
    engine = Bench(tmp_path).engine
    assert isinstance(engine, Engine)
    assert isinstance(engine, ChangingEngine)


def test_a_changed_file_brings_another_version_which_takes_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def talk(bench: Bench) -> None:
        assert bench.ask() == 1
        bench.write("22")
        await bench.until_answering(22)
        await until(lambda: bench.versions[0].is_closed)
        assert bench.specs == ["version 22"]
        bench.write("333")
        await bench.until_answering(333)

    converse(tmp_path, talk)
    assert "watched for changes: arm.py\n" in caplog.text
    assert "arm.py changed: the policy is loaded anew" in caplog.text
    assert "the changed policy answers after" in caplog.text


def test_files_that_it_imports_are_watched_too(tmp_path: Path) -> None:
    async def talk(bench: Bench) -> None:
        bench.write("good and changed", "net.py")
        await until(lambda: len(bench.specs) == 1)

    (tmp_path / "net.py").write_text("good")
    (tmp_path / "other.py").write_text("good")
    settle(tmp_path / "net.py")
    converse(tmp_path, talk, "1 net.py")


def test_a_file_that_is_gone_is_told_once_and_the_policy_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone = "arm.py is gone: the policy goes on as it was loaded, until the file is back"

    async def talk(bench: Bench) -> None:
        (bench.folder / "arm.py").unlink()
        await until(lambda: gone in caplog.text)
        await asyncio.sleep(0.05)
        assert bench.ask() == 1
        bench.write("22")
        await bench.until_answering(22)

    converse(tmp_path, talk)
    assert caplog.text.count(gone) == 1


def test_a_version_that_cannot_be_loaded_is_told_and_the_one_before_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def talk(bench: Bench) -> None:
        bench.write("error")
        await until(lambda: "cannot be loaded" in caplog.text)
        assert bench.ask() == 1
        await until(lambda: bench.versions[1].is_closed)
        assert not bench.versions[0].is_closed
        bench.write("3")
        await bench.until_answering(3)

    converse(tmp_path, talk)
    told = "the changed policy cannot be loaded, so the one before goes on: SyntaxError: invalid syntax"
    assert caplog.text.count(told) == 1


def test_the_mending_of_a_file_that_no_version_has_loaded_is_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def talk(bench: Bench) -> None:
        bench.write("error", "net.py")
        bench.write("2 net.py")
        await until(lambda: "cannot be loaded" in caplog.text)
        bench.write("mended now", "net.py")
        await bench.until_answering(2)

    converse(tmp_path, talk)


def test_a_file_that_changes_while_it_is_loaded_is_loaded_once_more(tmp_path: Path) -> None:
    async def talk(bench: Bench) -> None:
        bench.may_load = asyncio.Event()
        bench.write("22")
        await until(lambda: len(bench.versions) == 2)
        bench.may_load = None
        bench.write("333")
        await bench.until_answering(333)
        assert bench.specs == ["version 333"]
        assert bench.versions[1].is_closed

    converse(tmp_path, talk)


def test_a_file_that_changed_while_the_first_version_loaded_is_noticed(tmp_path: Path) -> None:
    async def run() -> None:
        bench = Bench(tmp_path)
        bench.versions[0].may_load = asyncio.Event()
        bench.write("1")
        starting = asyncio.ensure_future(bench.engine.start(lambda _: None, NOBODY))
        await asyncio.sleep(0)
        later = time.time() + 1
        os.utime(tmp_path / "arm.py", (later, later))
        bench.versions[0].may_load.set()
        await starting
        await until(lambda: len(bench.specs) == 1)
        await until(lambda: bench.versions[0].is_closed)
        await bench.engine.close(1)
        assert len(bench.versions) == 2

    asyncio.run(run())


def test_what_was_asked_before_is_answered_by_the_version_that_was_asked(tmp_path: Path) -> None:
    async def talk(bench: Bench) -> None:
        bench.versions[0].is_held = True
        outcomes: list[Any] = []
        bench.engine.submit(Task(1, {}), 0.0, outcomes.append)
        bench.write("22")
        await until(lambda: bench.specs)
        assert bench.ask() == 22
        assert not bench.versions[0].is_closed
        assert bench.engine.load == 1
        bench.engine.forget(7)
        assert [version.forgotten for version in bench.versions] == [[7], [7]]
        bench.versions[0].waiting.pop()(bench.versions[0].outcome())
        assert outcomes[0].chunk.actions == 1
        await until(lambda: bench.versions[0].is_closed)

    converse(tmp_path, talk)


def test_a_policy_that_the_server_refuses_does_not_take_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def talk(bench: Bench) -> None:
        def refuse(change: Change) -> None:
            raise ConfigError("metadata/spec: expected another key")

        bench.engine.on_change = refuse
        bench.write("22")
        await until(lambda: "the one before goes on: metadata/spec: expected another key" in caplog.text)
        assert bench.ask() == 1

    converse(tmp_path, talk)


def test_a_version_is_closed_though_the_server_stops_while_it_closes(tmp_path: Path) -> None:
    async def talk(bench: Bench) -> None:
        def refuse(change: Change) -> None:
            bench.versions[-1].is_slow_to_close = is_refused[0] = True
            raise ConfigError("metadata/spec: expected another key")

        is_refused = [False]
        bench.engine.on_change = refuse
        bench.write("22")
        await until(lambda: is_refused[0] and not bench.versions[-1].is_slow_to_close)

    converse(tmp_path, talk)


def test_a_file_that_is_gone_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def talk(bench: Bench) -> None:
        os.rename(tmp_path / "arm.py", tmp_path / "arm.py~")  # as some editors do
        looks = bench.versions[0].looks
        await until(lambda: bench.versions[0].looks > looks + 3)
        assert len(bench.versions) == 1
        bench.write("22")
        await bench.until_answering(22)

    converse(tmp_path, talk)
    assert "cannot be loaded" not in caplog.text


def test_a_server_that_ends_while_a_version_loads_closes_all(tmp_path: Path) -> None:
    async def talk(bench: Bench) -> None:
        bench.may_load = asyncio.Event()
        bench.write("22")
        await until(lambda: len(bench.versions) == 2)

    converse(tmp_path, talk)


def test_of_many_files_some_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def talk(bench: Bench) -> None: ...

    names = [f"part_{number}.py" for number in range(9)]
    for name in names:
        (tmp_path / name).write_text("good")
    caplog.set_level("INFO")
    converse(tmp_path, talk, f"1 {' '.join(names)}")
    assert "watched for changes: arm.py, part_0.py, part_1.py, part_2.py, part_3.py and 5 more\n" in caplog.text


def test_a_fault_in_watching_is_told_and_the_policy_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Faulty(Version):
        @property
        def sources(self) -> list[str]:
            if self.looks > 2:
                raise RuntimeError("a bug")
            return super().sources

    async def run() -> None:
        (tmp_path / "arm.py").write_text("1")
        settle(tmp_path / "arm.py")
        engine = ReloadingEngine(lambda: Faulty(tmp_path), look_every_s=0.005)
        await engine.start(lambda _: None, NOBODY)
        await until(lambda: "files are not watched any more" in caplog.text)
        outcomes: list[Outcome] = []
        engine.submit(Task(1, {}), 0.0, outcomes.append)
        assert len(outcomes) == 1
        await engine.close(1)

    asyncio.run(run())
    assert "RuntimeError: a bug" in caplog.text


def test_a_policy_without_files_of_ones_own_is_refused(tmp_path: Path) -> None:
    class Installed(Version):
        async def start(self, on_stage: OnStage, observers: Observers) -> PolicySpec:
            return PolicySpec("installed", None, None)

    async def run() -> None:
        engine = ReloadingEngine(lambda: Installed(tmp_path))
        with pytest.raises(ConfigError, match="--reload: expected code of your own to watch"):
            await engine.start(lambda _: None, NOBODY)
        await engine.close(1)

    asyncio.run(run())
