"""What `policyserve serve --follow` follows: a training run, from its first complete checkpoint on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from policyserve.cli.foreground.progress import ProgressLine, stage_line
from policyserve.core.errors import ConfigError
from policyserve.core.recipe import Newest
from policyserve.engine.swaps import When
from policyserve.policies.registry import Source
from policyserve.server.following import Look

_LOOK_EVERY_S = 0.5


@dataclass(frozen=True)
class FollowFlags:
    """How a training run is followed."""

    follow: bool = False
    """Of a training run: serve its newest complete checkpoint, and each newer one as it appears; clients stay."""
    follow_when: When = "now"
    """now: a newer one answers each session's next request. next-session: running sessions end on the one before."""
    follow_every_s: float = 1.0
    """How often to look for a newer one."""
    usual: ClassVar[tuple[str, ...]] = ("follow",)

    def __post_init__(self) -> None:
        """Raise ConfigError for a flag that is out of its range."""
        if not self.follow_every_s > 0:
            raise ConfigError(f"--follow-every-s: expected more than 0 seconds, got {self.follow_every_s:g}")


@dataclass(frozen=True)
class Followed:
    """A run: the source of its newest checkpoint, and what looks for newer ones. newest: None: it has none yet."""

    source: Source
    newest: Newest | None
    look: Look

    def at_newest(self) -> Followed:
        """The same, its source that of its newest checkpoint, where it has one."""
        if self.newest is None:
            return self
        return replace(self, source=replace(self.source, recipe=self.newest.recipe))


def followed(source: Source, sleep: Callable[[float], object] = time.sleep) -> Followed:
    """The run of a source, once it has a complete checkpoint, which is waited for.

    Raises ConfigError for a source without steps, and for a run that is gone.
    """
    look = look_of(source)
    return begun([Followed(source, look(), look)], sleep)[0]


def look_of(source: Source) -> Look:
    """What finds the newest checkpoint of a source; raises ConfigError for one without steps."""
    if source.newest is None:
        told = "expected a training run, such as vibe_rl:FOLDER, sb3:NAME_1000_steps.zip or lerobot:FOLDER"
        raise ConfigError(f"--follow: {told}, and no step of it; got {source.title}")
    return source.newest


def begun(runs: Sequence[Followed], sleep: Callable[[float], object] = time.sleep) -> list[Followed]:
    """The runs at their newest checkpoints, once one of them has any, which is waited for.

    Raises ConfigError for one that is gone meanwhile.
    """
    found = list(runs)
    line = ProgressLine()
    with line.shared():
        while all(run.newest is None for run in found):
            line.show(stage_line(f"waiting for the first checkpoint of {found[0].source.origin}"))
            sleep(_LOOK_EVERY_S)
            found = [replace(run, newest=run.look()) for run in found]
    return [run.at_newest() for run in found]
