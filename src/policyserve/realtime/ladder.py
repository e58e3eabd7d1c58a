"""What a robot gets when no row is left: a ladder of rungs, each for some seconds, whose end is to stop. Pure.

What is safe depends on what an action is. To hold a position keeps the robot where it is; to hold a velocity makes it
run on until it meets something.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from policyserve.core.errors import ConfigError

ActionKind: TypeAlias = Literal["position", "velocity", "delta", "torque"]
RungName: TypeAlias = Literal["hold", "decay", "zero", "repeat", "stop"]
Fallback: TypeAlias = Sequence["str | tuple[str, float]"]

KINDS: tuple[ActionKind, ...] = ("position", "velocity", "delta", "torque")
_NAMES: tuple[RungName, ...] = ("hold", "decay", "zero", "repeat", "stop")
_FORM = 'rungs such as (("hold", 0.5), "stop")'
_LONGEST_S = 1e6
_ROUNDING_S = 1e-9


class Rung(NamedTuple):
    """One way to go on without rows.

    hold: the last action; decay: from it to zeros within `seconds`; zero: zeros; repeat: the last action, of
    increments; stop: nothing.
    """

    name: RungName
    seconds: float


class Ladder(NamedTuple):
    """The rungs in their order; the last one is to stop."""

    rungs: tuple[Rung, ...]

    def at(self, elapsed_s: float) -> tuple[Rung, float]:
        """The rung after so many seconds without a row, and for how long it has run."""
        for rung in self.rungs[:-1]:
            if elapsed_s < rung.seconds - _ROUNDING_S:
                return rung, elapsed_s
            elapsed_s -= rung.seconds
        return self.rungs[-1], elapsed_s


_STOP = Rung("stop", math.inf)
_DEFAULTS: Mapping[str, Ladder] = {
    "position": Ladder((Rung("hold", 0.5), _STOP)),
    **{kind: Ladder((Rung("zero", 0.5), _STOP)) for kind in ("velocity", "delta", "torque")},
}


def read_fallback(given: Any) -> Ladder:
    """The ladder of a user's words; raises ConfigError. A rung without seconds, but for stop, lasts for ever."""
    if isinstance(given, str) or not isinstance(given, Sequence) or not given:
        raise ConfigError(f"fallback: expected {_FORM}, got {given!r:.80}")
    rungs = [_read_rung(one) for one in given]
    for rung in rungs[:-1]:
        if rung.seconds == math.inf:
            what, cure = f"{rung.name} without seconds", f'; write ("{rung.name}", seconds)'
            if rung.name == "stop":
                what, cure = "stop", ""
            told = f"expected {what} as the last rung, got more behind it, which never begins"
            raise ConfigError(f"fallback: {told}{cure}")
    return Ladder(tuple(rungs) if rungs[-1].name == "stop" else (*rungs, _STOP))


def _read_rung(given: Any) -> Rung:
    name, seconds = (given, math.inf) if isinstance(given, str) else _pair(given)
    if name not in _NAMES:
        raise ConfigError(f"fallback: expected one of {', '.join(_NAMES)}, got {name!r:.40}")
    if name == "stop":
        if seconds != math.inf:
            raise ConfigError(f'fallback: expected "stop" without seconds, got {given!r:.80}')
        return _STOP
    if name == "decay" and seconds == math.inf:
        raise ConfigError('fallback: expected ("decay", seconds), got decay without the seconds that it takes')
    return Rung(name, seconds)


def _pair(given: Any) -> tuple[Any, float]:
    if not isinstance(given, Sequence) or len(given) != 2:
        raise ConfigError(f"fallback: expected {_FORM}, got the rung {given!r:.60}")
    name, seconds = given
    is_time = isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 0 < seconds <= _LONGEST_S
    if not is_time:
        raise ConfigError(f"fallback: expected seconds, more than 0 and at most {_LONGEST_S:.0f}, got {given!r:.60}")
    return name, float(seconds)


def read_kind(given: Any, where: str = "action_kind") -> ActionKind | None:
    """What an action is; raises ConfigError that lists the kinds."""
    if given is None:
        return None
    for kind in KINDS:
        if given == kind:
            return kind
    raise ConfigError(f"{where}: expected one of {', '.join(KINDS)}, or None, got {given!r:.40}")


def ladder_for(kind: ActionKind | None, chosen: Ladder | None) -> Ladder:
    """The ladder to use for actions of a kind, None: nobody knows it; raises ConfigError that lists the choices.

    chosen: the user's own.
    """
    if chosen is None:
        if kind is None:
            raise ConfigError(
                "fallback: the server does not say what its actions are, and to hold a velocity is a runaway; say "
                f'action_kind="position" (or {", ".join(KINDS[1:])}), or name what to do when no rows are left: '
                'fallback=(("hold", 0.5), "stop"), (("zero", 0.5), "stop"), (("decay", 0.5), "stop") or ("stop",)'
            )
        return _DEFAULTS[kind]
    names = {rung.name for rung in chosen.rungs}
    if "hold" in names and kind not in (None, "position"):
        cure = ' or "repeat"' if kind == "delta" else ""
        raise ConfigError(
            f'fallback: "hold" would repeat a {kind}, which moves the robot on; use "zero", "decay"{cure}, then "stop"'
        )
    if "repeat" in names and kind != "delta":
        got = "actions of an unknown kind" if kind is None else f"a {kind}"
        raise ConfigError(f'fallback: "repeat" is for action_kind="delta" alone, got {got}; use "hold" or "stop"')
    return chosen
