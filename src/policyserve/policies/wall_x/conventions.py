"""The choices in which Wall-X's programs disagree, as one value with four named bundles.

The originals answer the same observation with different actions. Whoever knows how a checkpoint was trained, or which
program a robot was tuned with, says so here; every field of a bundle can be replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args, get_type_hints

from policyserve.core.errors import ConfigError

Attention = Literal["upstream_sdpa", "bidir_island", "causal"]
Padding = Literal["none", "checkpoint", "20"]
RELEASED_WIDTH = 20  # numbers in a state or action of the layout that the first checkpoints were released with


@dataclass(frozen=True)
class Conventions:
    """How an observation becomes the model's input, and how its action tokens see each other.

    Raises ConfigError for a value that a field does not have.
    """

    attention: Attention = "upstream_sdpa"
    """What action tokens see of each other: upstream_sdpa (causal in the first step, everything after it; causal
    throughout where the checkpoint asks for that), bidir_island (each other, always), or causal."""
    trailing_tokens: bool = True
    """Whether the end of the assistant's turn follows the action tokens."""
    state: Literal["raw", "normalised"] = "raw"
    """Whether the client has scaled the state (raw: taken as it comes) or the server does it."""
    statistics: Literal["min_max", "mean_std"] = "min_max"
    """What scales state and actions: the 1st and 99th percentile, or mean and standard deviation."""
    state_mask_end: Literal["action_dim", "state_dim"] = "action_dim"
    """Where the mask of the state ends; numbers behind it are there, but marked as absent."""
    padding: Padding = "none"
    """How wide states and actions are for the model: as configured, as the checkpoint's, or 20."""
    long_side_256: bool = True
    """Whether images are first resized to 256 pixels on their long side."""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            allowed = (True, False) if kind is bool else get_args(kind)
            if getattr(self, name) not in allowed:
                expected = ", ".join(map(str, allowed))
                raise ConfigError(f"{name}: expected one of {expected}, got {getattr(self, name)!r:.60}")

    def describe(self) -> dict[str, Any]:
        """The fields by name, for the log and the metadata."""
        return asdict(self)


CONVENTIONS: Mapping[str, Conventions] = {
    "upstream": Conventions(),
    "trained": Conventions(
        attention="causal",
        trailing_tokens=False,
        state="normalised",
        state_mask_end="state_dim",
        padding="checkpoint",
    ),
    "pad20": Conventions(
        attention="causal",
        trailing_tokens=False,
        state_mask_end="state_dim",
        padding="20",
        long_side_256=False,
    ),
    "lerobot": Conventions(
        attention="bidir_island",
        trailing_tokens=False,
        state="normalised",
        statistics="mean_std",
        state_mask_end="state_dim",
        padding="20",
    ),
}


def conventions_named(name: str, **changes: Any) -> Conventions:
    """A bundle by name, with some of its fields replaced; a change to None is none. Raises ConfigError."""
    if name not in CONVENTIONS:
        raise ConfigError(f"conventions: expected one of {', '.join(CONVENTIONS)}, got {name!r:.60}")
    given = {field: value for field, value in changes.items() if value is not None}
    unknown = sorted(given.keys() - {field.name for field in fields(Conventions)})
    if unknown:
        raise ConfigError(f"conventions: there is no field {', '.join(unknown)}")
    return replace(CONVENTIONS[name], **given)


def fit_conventions(
    chosen: Conventions | None, *, state_dim: int, action_dim: int, state_width: int, action_width: int
) -> Conventions:
    """The conventions that this checkpoint can be run with; raises ConfigError if the chosen ones cannot be.

    state_width, action_width: the checkpoint's. None: upstream's, or, where vectors of the checkpoint are wider than
    the robot's, upstream's with padding and the whole state valid, which is how such checkpoints were trained.
    """
    fits = (state_dim, action_dim) == (state_width, action_width)
    if chosen is None:
        chosen = CONVENTIONS["upstream"]
        if not fits:
            chosen = replace(chosen, padding="checkpoint", state_mask_end="state_dim")
    told = f"the checkpoint's states are {state_width} wide and its actions {action_width}"
    if state_dim > state_width or action_dim > action_width:
        raise ConfigError(f"state_dim {state_dim}, action_dim {action_dim}: too large, {told}")
    if chosen.padding == "none" and not fits:
        raise ConfigError(
            f"state_dim {state_dim}, action_dim {action_dim}: {told}; without padding they must be equal "
            "(conventions pad20, or padding checkpoint, fill up with zeros)"
        )
    if chosen.padding == "20" and (state_width, action_width) != (RELEASED_WIDTH, RELEASED_WIDTH):
        raise ConfigError(f"padding 20: {told}; choose padding checkpoint")
    return chosen


def bundles_that_fit(**widths: int) -> tuple[str, ...]:
    """The named bundles that fit_conventions takes with these widths.

    How a checkpoint was trained is not written in it: its widths rule bundles out, and choose none.
    """

    def fits(chosen: Conventions) -> bool:
        with suppress(ConfigError):
            fit_conventions(chosen, **widths)
            return True
        return False

    return tuple(name for name, chosen in CONVENTIONS.items() if fits(chosen))
