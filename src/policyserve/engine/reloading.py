"""An engine that loads its policy anew when its code changes, for people who are writing it.

Each version is loaded in a process of its own, since Python keeps what it has imported once. Until it has loaded, and
for good if it cannot be loaded, the version before answers. Then the new one takes all requests, and the one before is
closed when those that it was given are answered.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from policyserve.core.errors import ConfigError, NotReady
from policyserve.core.events import Event
from policyserve.core.log import Log
from policyserve.core.observer import Observers
from policyserve.core.spec import PolicySpec
from policyserve.engine.answering import OnStage
from policyserve.engine.engine import Change, Engine
from policyserve.engine.versions import CLOSE_S, VersionsEngine

log = Log(__name__)

_LOOK_EVERY_S = 0.3
_MOST_NAMED = 5

# A file's time of change and size, by its path; None: it is not there, or it changed while it was being loaded.
Stamp: TypeAlias = tuple[int, int]
Stamps: TypeAlias = Mapping[str, Stamp | None]


class SourcedEngine(Engine, Protocol):
    """An engine that knows the files of people's own code that its policy was loaded from."""

    @property
    def sources(self) -> Sequence[str]: ...


class ReloadingEngine(VersionsEngine[SourcedEngine]):
    """An Engine of one version of the policy after the other; `make` makes each version's.

    on_change: told of a version that takes over, before it does; a ConfigError that it raises keeps it out. Sessions
    are closed, to connect again: code that changed may take anything. look_every_s: how often files are looked at.
    """

    def __init__(self, make: Callable[[], SourcedEngine], look_every_s: float = _LOOK_EVERY_S) -> None:
        super().__init__(make())
        self._make = make
        self._look_every_s = look_every_s
        self._watching: asyncio.Task[None] | None = None
        self._stamps: Stamps = {}
        self._has_failed = False  # the last version could not be loaded
        self._missing: Mapping[str, bool] = {}  # files that were not there at the last look: whether that was told

    async def start(self, on_stage: OnStage, observers: Observers) -> PolicySpec:
        """Load the first version, and watch its files from then on; raises what loading raised.

        Raises ConfigError if there is nothing to watch.
        """
        self._observers = observers
        started_at = time.time_ns()
        spec = await self._versions.current.start(on_stage, observers)
        if not self._versions.current.sources:
            raise ConfigError("--reload: expected code of your own to watch, got a policy of installed packages alone")
        self._stamps = _since(started_at, {}, self._versions.current.sources)
        self._watching = asyncio.get_running_loop().create_task(self._watch())
        self._watching.add_done_callback(_tell_end)
        log.info("watched for changes: %s", _named(self._stamps), event=Event("policy_watched"))
        return spec

    def how_to_exchange(self, source: str, flags: Sequence[str], *, sessions_stay: bool) -> str:
        """See KeptEngine."""
        return "its code is loaded anew when it changes (--reload): change it, or serve without that flag"

    async def close(self, timeout_s: float) -> None:
        """See Engine."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        await self._versions.close(timeout_s)

    async def _watch(self) -> None:
        while True:
            changed = await self._changed_files()
            while changed:
                log.info("%s changed: the policy is loaded anew", _named(changed), event=Event("policy_changed"))
                changed = await self._renew()

    async def _changed_files(self) -> list[str]:
        """Wait until files change, and until they have stayed the same for a moment: an editor may still write."""
        while True:
            await asyncio.sleep(self._look_every_s)
            stamps = await asyncio.to_thread(self._look)
            self._tell_of_missing(stamps)
            if not _differing(self._stamps, stamps):
                continue
            await asyncio.sleep(self._look_every_s)
            if stamps == await asyncio.to_thread(self._look):
                changed, self._stamps = _differing(self._stamps, stamps), stamps
                return changed

    def _tell_of_missing(self, stamps: Stamps) -> None:
        """Say once that a loaded file is gone: at the second look, since an editor may be replacing it."""
        gone = [file for file, stamp in stamps.items() if stamp is None and self._stamps.get(file) is not None]
        new = [file for file in gone if self._missing.get(file) is False]
        if new:
            told = "%s is gone: the policy goes on as it was loaded, until the file is back"
            log.warning(told, _named(new), event=Event("policy_not_reloaded"))
        self._missing = {file: file in self._missing for file in gone}

    def _look(self) -> Stamps:
        files = {*self._versions.current.sources, *self._stamps}
        if self._has_failed:  # what is wrong may stand in a file that no version before has loaded
            files |= {str(file) for folder in {Path(file).parent for file in files} for file in folder.glob("*.py")}
        return {file: _stamp_of(file) for file in files}

    async def _renew(self) -> list[str]:
        """Load another version and have it take over; keep the one before if that fails, or if files change meanwhile.

        Returns the files that did.
        """
        engine, started_at, began_at = self._make(), time.time_ns(), time.monotonic()
        self._versions.coming = engine
        loading = asyncio.ensure_future(engine.start(_note_stage, self._observers))
        changing = asyncio.ensure_future(self._changed_files())
        try:
            await asyncio.wait([loading, changing], return_when=asyncio.FIRST_COMPLETED)
            if changing.done():
                return changing.result()
            self._take_over(engine, loading.result(), started_at, began_at)
        except Exception as error:  # a stranger's code, which is being written
            self._has_failed = True
            self._stamps = {**self._look(), **self._stamps}
            told = "the changed policy cannot be loaded, so the one before goes on: %s"
            log.error(told, error, event=Event("policy_not_reloaded"))
        finally:
            await _end(loading, changing)
            if engine is not self._versions.current:
                await engine.close(CLOSE_S)
            self._versions.coming = None
        return []

    def _take_over(self, engine: SourcedEngine, spec: PolicySpec, started_at: int, began_at: float) -> None:
        self.on_change(Change(spec, NotReady("the policy was loaded anew: connect again")))
        self._versions.take_over(engine)
        self._versions.coming = None
        self._stamps = _since(started_at, self._stamps, engine.sources)
        self._has_failed = False
        seconds = time.monotonic() - began_at
        event = Event("policy_reloaded", policy=spec.name, ms=seconds * 1e3)
        log.info("the changed policy answers after %.1f s", seconds, event=event)


def _named(files: Iterable[str]) -> str:
    """The names of files, the first few of many."""
    names = sorted({Path(file).name for file in files})
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _stamp_of(file: str) -> Stamp | None:
    try:
        found = os.stat(file)
    except OSError:  # it is being replaced, or was removed
        return None
    return found.st_mtime_ns, found.st_size


def _differing(before: Stamps, now: Stamps) -> list[str]:
    """The files that are there and are not as before."""
    return [file for file, stamp in now.items() if stamp is not None and stamp != before.get(file)]


def _since(started_at: int, before: Stamps, files: Iterable[str]) -> Stamps:
    """The stamps that loaded files had when they were read; None where one may have changed since started_at."""
    stamps = {file: before.get(file) or _stamp_of(file) for file in files}
    return {
        file: None if stamp and file not in before and stamp[0] > started_at else stamp
        for file, stamp in stamps.items()
    }


async def _end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel what still runs and wait for it; what it raised has been told, or concerns nobody any more."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()


def _tell_end(watching: asyncio.Task[None]) -> None:
    if not watching.cancelled() and (error := watching.exception()) is not None:
        told, event = "files are not watched any more: restart the server to see changes", Event("policy_not_reloaded")
        log.error(told, event=event, cause=error)


def _note_stage(stage: str) -> None:
    log.debug("%s", stage, event=Event("stage"))
