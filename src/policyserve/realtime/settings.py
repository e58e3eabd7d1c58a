"""What real-time execution can be told: one frozen dataclass that checks itself. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError
from policyserve.core.messages import Observation
from policyserve.core.nearest import nearest
from policyserve.realtime.combining import REPLACE, Ensemble, read_aggregate
from policyserve.realtime.ladder import ActionKind, Fallback, Ladder, read_fallback, read_kind

BLEND_STEPS, BLEND_STEPS_WITH_RTC = 10, 5
_HIGHEST_HZ, _LONGEST_S, _MOST_ROWS = 1e5, 1e6, 1_000_000
_RTC = ("auto", "require", "off")

RollState = Callable[[Observation, Array], Observation]
OnAction = Callable[[Array], Array]


@dataclass(frozen=True)
class RealtimeSettings:
    """How chunks are executed. Raises ConfigError that names the setting, expected and got.

    control_hz: rows per second, what the policy was trained at; act() may be called faster. action_kind: what an action
    is: position, velocity, delta (an increment) or torque; None: what the server says. fallback: what the robot gets
    when no row is left, as rungs with seconds: (("hold", 0.5), "stop"); None: that for positions, (("zero", 0.5),
    "stop") for the other kinds. The rungs: hold (the last action), decay (from it to zeros), zero, repeat (the last
    action, for increments alone), stop (no action, until resume() or reset()).

    execution_horizon: ask when so many rows of the newest chunk are executed; None: as soon as the last answer is
    there, which gives the youngest actions; half of a chunk's rows costs the server a third. rtc: Real-Time Chunking:
    auto: where the server's spec has it; require: ConfigError where not; off. prefix_attention_horizon: the row where
    the server's guidance ends; None: behind the last row that is known. inference_delay: rows that run before an
    answer; None: by the longest of the last 20 latencies.

    blend_steps: rows over which a new chunk fades in, 0 for a hard switch; None: 5 with RTC, 10 without. aggregate:
    "replace", or as LeRobot's weighted_average, latest_only, average, conservative, or ensemble(m) as ACT's; these
    exclude RTC and blending.

    max_action_age_s: rows whose observation is older are not executed. interpolate: linear between rows where act() is
    called faster than control_hz. interpolate_dims: which numbers of an action; the others, grippers for example, take
    each row as it is; None: all. request_timeout_s: when a missing answer counts as overdue; None: four times what 19
    in 20 take, at least 0.5 s.

    on_action(rows): the last word on rows (n, D) before they are executed, to clip them for example; returns as many.
    roll_state(observation, rows): for checkpoints that were trained on the state at the chunk's beginning (VLASH):
    returns the observation as it will be when the rows (d, D), which will run meanwhile, are executed. Both are called
    where the requests are made, never in act().
    """

    control_hz: float
    action_kind: ActionKind | None = None
    fallback: Fallback | None = None
    execution_horizon: int | None = None
    rtc: str = "auto"
    prefix_attention_horizon: int | None = None
    inference_delay: int | None = None
    blend_steps: int | None = None
    aggregate: str | Ensemble = REPLACE
    max_action_age_s: float | None = None
    interpolate: bool = False
    interpolate_dims: Sequence[int] | None = None
    request_timeout_s: float | None = None
    on_action: OnAction | None = None
    roll_state: RollState | None = None

    def __post_init__(self) -> None:
        _number("control_hz", self.control_hz, _HIGHEST_HZ, "rows per second")
        read_kind(self.action_kind)
        if self.fallback is not None:
            read_fallback(self.fallback)
        for name in ("execution_horizon", "prefix_attention_horizon"):
            _whole(name, getattr(self, name), 1)
        _whole("inference_delay", self.inference_delay, 0)
        _whole("blend_steps", self.blend_steps, 0)
        _check("rtc", self.rtc in _RTC, f"one of {', '.join(_RTC)}", self.rtc)
        for name in ("max_action_age_s", "request_timeout_s"):
            if getattr(self, name) is not None:
                _number(name, getattr(self, name), _LONGEST_S, "seconds")
        _check("interpolate", isinstance(self.interpolate, bool), "True or False", self.interpolate)
        self._check_dims()
        for name in ("on_action", "roll_state"):
            given = getattr(self, name)
            _check(name, given is None or callable(given), "a function", given)
        self._check_aggregate()

    @property
    def period_s(self) -> float:
        """A row's time."""
        return 1 / self.control_hz

    @property
    def ladder(self) -> Ladder | None:
        """The user's own fallback."""
        return None if self.fallback is None else read_fallback(self.fallback)

    @property
    def joins(self) -> str | Ensemble:
        """How a chunk joins the rows before."""
        return read_aggregate(self.aggregate)

    def blend(self, has_rtc: bool) -> int:
        """Rows over which a chunk fades in."""
        if self.joins != REPLACE:
            return 0
        if self.blend_steps is not None:
            return int(self.blend_steps)
        return BLEND_STEPS_WITH_RTC if has_rtc else BLEND_STEPS

    @property
    def moving(self) -> bool | list[int]:
        """Which numbers of an action are interpolated: all, these, or none."""
        if not self.interpolate:
            return False
        return True if self.interpolate_dims is None else [int(one) for one in self.interpolate_dims]

    def _check_dims(self) -> None:
        dims = self.interpolate_dims
        if dims is None:
            return
        is_list = isinstance(dims, Sequence) and not isinstance(dims, str)
        is_fine = is_list and all(_is_whole(one, 0) for one in dims)
        _check("interpolate_dims", is_fine, "numbers of an action's values, from 0, such as (0, 1, 2)", dims)
        _check("interpolate_dims", self.interpolate, "interpolate=True with it", dims)

    def _check_aggregate(self) -> None:
        how = read_aggregate(self.aggregate)
        if how == REPLACE:
            return
        told = f"aggregate={self.aggregate!r}"
        _check("rtc", self.rtc != "require", f'"off" or "auto" with {told}, which excludes it', self.rtc)
        _check("blend_steps", not self.blend_steps, f"0 or None with {told}", self.blend_steps)


def read_settings(whose: str, control_hz: float, given: Mapping[str, Any]) -> RealtimeSettings:
    """Settings by name; raises ConfigError for a name that is none's, with the nearest one."""
    names = [one.name for one in fields(RealtimeSettings) if one.name != "control_hz"]
    check_names(whose, given, names, "those of RealtimeSettings are taken")
    return RealtimeSettings(control_hz, **given)


def check_names(whose: str, given: Iterable[str], names: Collection[str], taken: str) -> None:
    """Raise ConfigError for a name that is none of these, with the nearest one, or else what is taken."""
    for name in given:
        if name not in names:
            near = nearest(name, names)
            raise ConfigError(f"{whose} has no setting {name!r} ({f'did you mean {near}?' if near else taken})")


def _check(name: str, is_fine: bool, expected: str, got: object) -> None:
    if not is_fine:
        raise ConfigError(f"{name}: expected {expected}, got {got!r:.80}")


def _number(name: str, value: Any, most: float, unit: str) -> None:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    _check(name, is_number and 0 < float(value) <= most, f"{unit}, more than 0 and at most {most:.0f}", value)


def _whole(name: str, value: Any, least: int) -> None:
    _check(name, value is None or _is_whole(value, least), f"a whole number of rows, {least} or more, or None", value)


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) <= _MOST_ROWS
