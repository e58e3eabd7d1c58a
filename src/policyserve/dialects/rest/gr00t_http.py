"""GR00T's bodies, of N1.5's HTTP server: flat keys for cameras, joints and the task. docs/wire/rest.md has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import PolicyserveError, WireError
from policyserve.core.limits import WireLimits
from policyserve.core.messages import Observation, Timing
from policyserve.core.policy import ActionChunk
from policyserve.dialects import action_groups
from policyserve.dialects.rest import json_numpy
from policyserve.dialects.rest.asking import sort
from policyserve.dialects.rest.bodies import ReplyBody
from policyserve.dialects.rest.family import Family, picture, steps
from policyserve.dialects.rest.plain_errors import with_header

OBSERVATION = "observation"
VIDEO, STATE, ANNOTATION = "video.", "state.", "annotation."
_TASK = f"{ANNOTATION}human.action.task_description"
_WHOLE = "state"  # what a state without parts is called


class Gr00tHTTP(Family):
    """{"observation": {"video.…", "state.…", "annotation.…"}} -> {"action.…": (T, d) array}.

    groups: the parts of an action and how many numbers each has; empty: it is one part, `action.action`.
    """

    name = "gr00t_http"

    def __init__(self, groups: Mapping[str, int] | None = None) -> None:
        self._groups = groups or {}

    def for_policy(self, metadata: Mapping[str, Any]) -> Gr00tHTTP:
        """The same for a policy that declares the parts of its actions: `modality`, name -> numbers."""
        groups = action_groups.groups_of(metadata)
        return Gr00tHTTP(groups) if groups else self

    def observation(self, fields: dict[str, Any], limits: WireLimits) -> Observation:
        """`images/…`, `state/…` and `prompt`; an axis of one moment is left out. Raises WireError."""
        flat = fields.get(OBSERVATION)
        if not isinstance(flat, dict):
            raise WireError(OBSERVATION, "a map", "none" if flat is None else type(flat).__name__)
        images: dict[str, Any] = {}
        state: dict[str, Any] = {}
        made: dict[str, Any] = {"images": images, "state": state}
        for key, value in flat.items():
            path = f"{OBSERVATION}/{key}"
            if key.startswith(VIDEO):
                images[key.removeprefix(VIDEO)] = _now(picture(value, path), 4)
            elif key.startswith(STATE):
                state[key.removeprefix(STATE)] = _now(_numbers(value, path), 2)
            elif key.startswith(ANNOTATION) and "prompt" not in made:
                made["prompt"] = _text(value, path)
            else:
                made[key] = value
        return {key: value for key, value in made.items() if value != {}}

    def answer(self, chunk: ActionChunk, timing: Timing) -> Any:
        """The chunk's columns, cut into the policy's parts; without a client's batch no axis has length one."""
        actions = steps(chunk.actions)
        parts = action_groups.split(actions, self._groups) if self._groups else {action_groups.ALONE: actions}
        is_batch = actions.ndim > 2
        return {f"action.{name}": part if is_batch else part.squeeze() for name, part in parts.items()}

    def refusal(self, error: PolicyserveError, detail: str) -> ReplyBody:
        """Status 500 whoever is to blame, as GR00T's server tells all errors."""
        return with_header(json_numpy.written({"detail": f"Internal server error: {error}"}), 500, error)

    def body(self, observation: Observation) -> Any:
        """Pictures and states get an axis of one moment."""
        asked = sort(observation)
        flat: dict[str, Any] = {f"{VIDEO}{name}": np.asarray(one)[None] for name, one in asked.pictures.items()}
        flat.update((f"{STATE}{name or _WHOLE}", one[None]) for name, one in asked.states.items())
        return {OBSERVATION: {**flat, _TASK: [asked.prompt], **asked.rest}}


def _now(value: Any, axes: int) -> Any:
    """Without the axis of moments, if there is one moment."""
    return value[0] if isinstance(value, np.ndarray) and value.ndim == axes and len(value) == 1 else value


def _numbers(value: Any, path: str) -> Array:
    if isinstance(value, np.ndarray):
        return value
    raise WireError(path, "an array of numbers", type(value).__name__)


def _text(value: Any, path: str) -> str:
    """A text, or the first of a list."""
    first = value[0] if isinstance(value, list) and value else value
    if isinstance(first, str):
        return first
    raise WireError(path, "a text, or a list of one", type(first).__name__)
