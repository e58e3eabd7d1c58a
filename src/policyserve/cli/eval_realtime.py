"""The flags of `policyserve eval --realtime`: chunks are executed while the next one is asked for."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

from policyserve.bench.in_real_time import RealtimePlan
from policyserve.core.errors import ConfigError
from policyserve.realtime.latency import LatencyModel


@dataclass(frozen=True)
class RealtimeFlags:
    """How chunks are executed while the policy is asked, and how late they come."""

    realtime: bool = False
    """The environment goes on while the policy is asked, in virtual time: the same each time, and as fast as it can."""
    latency_ms: float = 100.0
    """From an observation to its chunk, on average; how long the answer really takes plays no part."""
    jitter: float = 0.0
    """How much that varies: the standard deviation, in ms, drawn from the episode's seed."""
    control_hz: float | None = None
    """Actions per second; None: what the policy says, else how many frames per second the environment draws."""
    execution_horizon: int | None = None
    """Ask when so many actions of the newest chunk are done; None: as soon as the last answer is there."""
    blend_steps: int | None = None
    """Actions over which a chunk fades in, 0 for a hard switch; None: 5 with real-time chunking, 10 without."""
    fallback: str | None = None
    """What to do when no action is left, `hold:0.5,stop` for example, of hold, decay, zero, repeat and stop, with
    seconds; None: by what the policy says that its actions are, else hold."""
    group: ClassVar[str] = "realtime"

    def __post_init__(self) -> None:
        """Raise ConfigError for a flag that is out of its range, or that nothing would read."""
        given = [one for one in fields(self) if getattr(self, one.name) != one.default]
        if not self.realtime and given:
            name = given[0].name.replace("_", "-")
            raise ConfigError(f"--{name}: expected --realtime with it, which executes chunks in real time")
        self._plan()

    @property
    def plan(self) -> RealtimePlan | None:
        """How to execute chunks; None: the environment waits."""
        return self._plan() if self.realtime else None

    def _plan(self) -> RealtimePlan:
        """Raises ConfigError that names the flag."""
        settings = {
            "execution_horizon": self.execution_horizon,
            "blend_steps": self.blend_steps,
            "fallback": None if self.fallback is None else _rungs(self.fallback),
        }
        try:
            plan = RealtimePlan(self.control_hz, LatencyModel(self.latency_ms, self.jitter), settings)
            plan.settings_for({}, 1.0)
        except ConfigError as error:
            name, colon, told = str(error).partition(":")
            raise ConfigError(f"--{name.replace('jitter_ms', 'jitter').replace('_', '-')}{colon}{told}") from error
        return plan


def _rungs(text: str) -> list[str | tuple[str, float]]:
    """The fallback that words such as `hold:0.5,stop` stand for; what is wrong in them is told where it is read."""
    rungs: list[str | tuple[str, float]] = []
    for word in text.split(","):
        name, colon, seconds = word.strip().partition(":")
        try:
            rungs.append((name, float(seconds)) if colon else name)
        except ValueError:
            raise ConfigError(f"fallback: expected seconds behind {name}:, got {seconds!r:.40}") from None
    return rungs
