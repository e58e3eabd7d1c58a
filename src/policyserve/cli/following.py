"""What `policyserve serve --follow` follows: a training run, from its first complete checkpoint on."""

from __future__ import annotations

import time
from collections.abc import Callable
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
    """A run: the source of its newest checkpoint, and what looks for newer ones."""

    source: Source
    newest: Newest
    look: Look


def followed(source: Source, sleep: Callable[[float], object] = time.sleep) -> Followed:
    """The run of a source, once it has a complete checkpoint, which is waited for.

    Raises ConfigError for a source without steps, and for a run that is gone.
    """
    look = source.newest
    if look is None:
        told = "expected a training run, such as vibe_rl:FOLDER, sb3:NAME_1000_steps.zip or lerobot:FOLDER"
        raise ConfigError(f"--follow: {told}, and no step of it; got {source.title}")
    line = ProgressLine()
    with line.shared():
        while (newest := look()) is None:
            line.show(stage_line(f"waiting for the first checkpoint of {source.origin}"))
            sleep(_LOOK_EVERY_S)
    return Followed(replace(source, recipe=newest.recipe), newest, look)
