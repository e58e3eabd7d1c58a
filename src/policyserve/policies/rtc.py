"""Real-time chunking: a flow policy's next chunk agrees with the rows that the robot executes meanwhile. Pure.

A flow policy makes a chunk of H rows from noise, in steps from time 0, noise, to time 1, data, along a velocity
v(x, t). From x at time t it is heading for D(x) = x + (1 - t)·v(x, t). Guidance adds to v a part of what D(x) still
lacks of the rows that are known, the prefix: all of it where the robot will have executed them, less behind.

What must stay true: a chunk without a prefix comes out as if there were none in its batch. Nothing but arithmetic is
done with arrays, so that they may be NumPy's or torch's.

Sources: Black et al., Real-Time Execution of Action Chunking Flow Policies (arXiv 2506.07339) and its program
real-time-chunking-kinetix; LeRobot's RTCProcessor; training-time RTC (arXiv 2512.05964).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import e
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from policyserve.core.arrays import Array
from policyserve.policies.prefix import Prefix

Method = Literal["guided", "identity", "inpaint", "trained"]
Schedule = Literal["ones", "zeros", "linear", "exp"]
METHODS: tuple[Method, ...] = get_args(Method)

# (∂v/∂x)ᵀ e, for an e of x's shape.
Pull: TypeAlias = Callable[[Any], Any]
# x and a time, which is one number or an array (B, H, 1) of them -> v(x, t) and its Pull. A field of a network makes
# the graph that its Pull needs only where it is asked to guide.
Field: TypeAlias = Callable[[Any, Any], tuple[Any, Pull]]


@dataclass(frozen=True)
class Rtc:
    """How chunks are made to agree with a prefix.

    method: `guided`, the paper's; `identity`, the same with the error itself in place of its vector-Jacobian product,
    which costs no reverse pass; `inpaint`: the rows that will have run are put in place at each step; `trained`: they
    are given to a network that was trained with such rows, each at time 1.
    schedule: how guidance fades behind the rows that will have run, see prefix_weights().
    max_guidance_weight: the most that one step corrects; None: as many as there are steps.
    end: the row where guidance ends if a request does not say it; None: with the rows that are known.
    """

    method: Method = "guided"
    schedule: Schedule = "exp"
    max_guidance_weight: float | None = None
    end: int | None = None


LEROBOT = Rtc("identity", "linear", 10.0, 10)  # what LeRobot's RTCProcessor does when nothing is set


class Target(NamedTuple):
    """The prefixes of a batch, zeros where a row of it has none.

    rows: (B, H, D) float32. weights: (B, H, 1) float32, how strongly each row is guided. frozen: (B, H, 1) float32, 1
    for the rows that will have run before the answer is there, else 0.
    """

    rows: Any
    weights: Any
    frozen: Any


def prefix_weights(rows: int, delay: int, end: int, schedule: Schedule = "exp") -> Array:
    """How strongly each of `rows` rows of a chunk is guided, (rows,) float32.

    delay: rows that will have run before the answer is there, whose weight is 1. end: the first row that is free.
    Between them: `ones` 1, `zeros` 0, `linear` a straight line, `exp` a curve that falls sooner.
    """
    start, row = min(delay, end), np.arange(rows)
    if schedule == "ones":
        weights = np.ones(rows)
    elif schedule == "zeros":
        weights = (row < start).astype(np.float64)
    else:
        line = np.clip(1 - (row - start + 1) / (end - start + 1), 0, 1)
        weights = line if schedule == "linear" else line * np.expm1(line) / (e - 1)
    return np.where(row < end, weights, 0).astype(np.float32)


def guidance_weights(steps: int, most: float | None = None) -> tuple[float, ...]:
    """How much of the error each step corrects. most: None: as many as there are steps.

    (t² + (1 - t)²) / (t·(1 - t)) at the time t of the step, at most `most`, which is also that of t = 0.
    """
    most = float(steps) if most is None else most
    times = [step / steps for step in range(steps)]
    return tuple(most if t == 0 else min(most, (t * t + (1 - t) ** 2) / (t * (1 - t))) for t in times)


def target_of(prefixes: Sequence[Prefix | None], how: Rtc, rows: int, width: int) -> Target | None:
    """The prefixes of a batch for chunks of (rows, width); None if nothing is known in any of them."""
    if not any(prefix is not None and prefix.known for prefix in prefixes):
        return None
    target = np.zeros((len(prefixes), rows, width), np.float32)
    weights, frozen = np.zeros((2, len(prefixes), rows, 1), np.float32)
    for place, prefix in enumerate(prefixes):
        if prefix is not None and prefix.known:
            known = min(prefix.known, rows)
            end = min(known, next((one for one in (prefix.end, how.end) if one is not None), known))
            target[place, :known, : prefix.rows.shape[1]] = prefix.rows[:known]
            weights[place, :, 0] = prefix_weights(rows, prefix.delay, end, how.schedule)
            frozen[place, : min(prefix.delay, known)] = 1
    return Target(target, weights, frozen)


def corrected(velocity: Any, x: Any, t: float, target: Target, strength: float, pull: Pull | None) -> Any:
    """The velocity that is guided towards a target. strength: of this step, see guidance_weights(). pull: None: 1."""
    error = target.weights * (target.rows - (x + (1 - t) * velocity))
    return velocity + strength * (error if pull is None else error + (1 - t) * pull(error))


def sample(field: Field, noise: Any, steps: int, how: Rtc | None = None, target: Target | None = None) -> Any:
    """Chunks (B, H, D) from noise of that shape, in Euler steps. target: None: plain sampling.

    With `trained` the field is asked with a time for each row, (B, H, 1).
    """
    x, how = noise, None if target is None else how
    if how is None or target is None:
        for step in range(steps):
            x = x + field(x, step / steps)[0] / steps
        return x
    if how.method in ("inpaint", "trained"):
        return _with_rows_in_place(field, noise, steps, target, is_trained=how.method == "trained")
    for step, strength in enumerate(guidance_weights(steps, how.max_guidance_weight)):
        velocity, pull = field(x, step / steps)
        guided = corrected(velocity, x, step / steps, target, strength, pull if how.method == "guided" else None)
        x = x + guided / steps
    return x


def _with_rows_in_place(field: Field, noise: Any, steps: int, target: Target, *, is_trained: bool) -> Any:
    """Chunks whose frozen rows are the target's: at each step as they are, or as the flow would have them by then."""
    frozen, free, x = target.frozen, 1 - target.frozen, noise
    for step in range(steps):
        t = step / steps
        known = target.rows if is_trained else (1 - t) * noise + t * target.rows
        x = frozen * known + free * x
        velocity, _ = field(x, frozen + free * t if is_trained else t)
        x = x + velocity / steps
    return frozen * target.rows + free * x
