"""MolmoSpaces' dialect: a simulator's observation in msgpack_numpy's spelling, one action by its parts for each.

    {"wrist_camera": picture, …, "qpos": {"arm": array, "gripper": array}, "task": text}
    {"arm": array, "gripper": array, "server_timing": {"infer_ms": 3, "total_ms": 4}}

A new connection is a new episode; there is no reset. docs/wire/molmospaces.md has the bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from policyserve.core.arrays import Array, Placed
from policyserve.core.encoded_images import EncodedImage
from policyserve.core.errors import PolicyFailed, WireError
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.core.messages import Heard, Message, Observation, Reply, Request, Timing
from policyserve.core.policy import ActionChunk
from policyserve.dialects.action_groups import KEY, groups_of, side_by_side, split
from policyserve.dialects.answers import pack_readable
from policyserve.dialects.conversing import Conversing, by_roles, read_answer_map, read_map, told_timing
from policyserve.dialects.marked_arrays import MSGPACK_NUMPY
from policyserve.dialects.packing import joined
from policyserve.dialects.pieces import parts_of
from policyserve.dialects.policy_facts import model_name

_USUAL = {"arm": 7, "gripper": 1}  # of the simulator's own robot
_ROLES = {"qpos": "state", "task": "prompt"}
_TIMING = "server_timing"


class MolmoSpaces(Conversing):
    """The dialect's two halves. groups: the parts of a policy's action; None: the policy is not known, one part."""

    name = "molmospaces"
    one_action = True

    def __init__(self, groups: Mapping[str, int] | None = None) -> None:
        self._groups = groups

    def for_policy(self, metadata: Mapping[str, Any]) -> MolmoSpaces:
        """The parts that the policy declares; eight numbers without parts are an arm's seven and a gripper's."""
        return MolmoSpaces(groups_of(metadata))

    def greeted(self, metadata: Mapping[str, Any]) -> Mapping[str, Any]:
        """The metadata, which these clients expect to have a `model_name`."""
        return {"model_name": model_name(metadata), **metadata}

    def read_message(
        self, message: Message, limits: WireLimits = DEFAULT_LIMITS, placed: list[Placed] | None = None
    ) -> Heard:
        """Read an observation: cameras as `images/<camera>`, `qpos` as `state/<part>`, `task` as `prompt`."""
        fields, _ = read_map(message, limits, self.name, placed)
        pictures = [(key, value) for key, value in fields.items() if _is_picture(value)]
        rest = [(_ROLES.get(key, key), value) for key, value in fields.items() if not _is_picture(value)]
        return Request(by_roles(rest, pictures))

    def write_answer(self, chunk: ActionChunk, timing: Timing, context: Any) -> Message:
        """{part: (d,), …, …extras, "server_timing": {infer_ms, total_ms}}; raises PolicyFailed for unknown parts."""
        parts = {"action": chunk.actions} if self._groups is None else self._parts(chunk.actions, self._groups)
        timings = {"infer_ms": round(timing.infer_ms), "total_ms": round(timing.total_ms)}
        return pack_readable("answer", {**parts, **chunk.extras, _TIMING: timings}, MSGPACK_NUMPY, self.name)

    def write_request(self, observation: Observation) -> bytes:
        """Write an observation under the simulator's names."""
        if not isinstance(observation, Mapping):
            return joined(parts_of(observation, MSGPACK_NUMPY))
        fields: dict[str, Any] = {}
        for key, value in observation.items():
            if key == "images" and isinstance(value, Mapping):
                fields.update(value)
            else:
                fields[{"state": "qpos", "prompt": "task"}.get(key, key)] = value
        return joined(parts_of(fields, MSGPACK_NUMPY))

    def _parts(self, actions: Array, groups: Mapping[str, int]) -> dict[str, Array]:
        size = actions.shape[-1] if actions.ndim else 1
        if not groups and size != sum(_USUAL.values()):
            cure = f'say which parts the {size} numbers are, as metadata["{KEY}"] = {{"arm": {size - 1}, "gripper": 1}}'
            raise PolicyFailed(f"MolmoSpaces' clients want an action by its parts, and the policy has none: {cure}")
        return split(actions, groups or _USUAL)

    def read_reply(self, message: Message) -> Reply:
        """Read an answer; the parts stand side by side in `actions`."""
        fields = read_answer_map(message)
        parts = {key: value for key, value in fields.items() if isinstance(value, (np.ndarray, np.generic))}
        if not parts:
            raise WireError("", "an action by its parts", "none")
        return Reply(side_by_side(parts), told_timing(fields.get(_TIMING)), fields)


def _is_picture(value: Any) -> bool:
    if isinstance(value, EncodedImage):
        return True
    return isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 3 and value.shape[-1] == 3
