"""BEHAVIOR-1K's dialect: flat keys joined by `::`, one action for each observation, a reset that gets no answer.

A request names a task by a number. Its text is the challenge's: only a policy that declares `task_prompts`, a list of
texts or a map of them by number, gets one. docs/wire/behavior1k.md has the bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from policyserve.core.arrays import Array, Placed
from policyserve.core.errors import WireError, names_told
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.core.messages import Control, Heard, Message, Observation, Reply, Request, Timing
from policyserve.core.policy import ActionChunk
from policyserve.dialects.answers import pack_readable
from policyserve.dialects.conversing import Conversing, by_roles, read_answer_map, read_map, told_timing
from policyserve.dialects.marked_arrays import OPENPI
from policyserve.dialects.packing import joined
from policyserve.dialects.pieces import parts_of

_ROBOT, _RGB, _PROPRIO = "robot_r1", "::rgb", "::proprio"
_CAMERAS = {"left_realsense_link": "left_wrist", "right_realsense_link": "right_wrist", "zed_link": "head"}


class Behavior1K(Conversing):
    """The dialect's two halves. prompts: the texts of tasks, by their number as a text; empty: none is known."""

    name = "behavior1k"
    one_action = True

    def __init__(self, prompts: Mapping[str, str] | None = None) -> None:
        self._prompts = dict(prompts or {})

    def for_policy(self, metadata: Mapping[str, Any]) -> Behavior1K:
        """A policy may say what the tasks are called."""
        told = metadata.get("task_prompts")
        pairs = (
            enumerate(told) if isinstance(told, (list, tuple)) else told.items() if isinstance(told, Mapping) else ()
        )
        prompts = {str(number): text for number, text in pairs if isinstance(text, str)}
        return Behavior1K(prompts) if prompts else self

    def read_message(
        self, message: Message, limits: WireLimits = DEFAULT_LIMITS, placed: list[Placed] | None = None
    ) -> Heard:
        """Read an observation: pictures as `images/head`, … without alpha, `state`, `prompt`; or a reset."""
        fields, _ = read_map(message, limits, self.name, placed)
        if "reset" in fields:
            return Control("reset", ends="")
        cameras = {key: camera for key in fields if (camera := _camera_of(key)) is not None}
        rest = [("state" if key.endswith(_PROPRIO) else key, fields[key]) for key in fields if key not in cameras]
        pictures = [(camera, _opaque(fields[key])) for key, camera in cameras.items()]
        prompt = self._prompt_of(fields.get("task_id"))
        observation = by_roles(rest, pictures)
        return Request(observation if prompt is None else {"prompt": prompt, **observation})

    def write_answer(self, chunk: ActionChunk, timing: Timing, context: Any) -> Message:
        """{"action": (D,), …extras, "server_timing": {infer_ms, prev_total_ms}}; the latter is not in the first."""
        timings = {"infer_ms": timing.infer_ms}
        if timing.prev_total_ms is not None:
            timings["prev_total_ms"] = timing.prev_total_ms
        message = {"action": chunk.actions, **chunk.extras, "server_timing": timings}
        return pack_readable("answer", message, OPENPI, self.name)

    def write_request(self, observation: Observation) -> bytes:
        """Write an observation; `images` and `state` get the names that the simulator has for them."""
        if not isinstance(observation, Mapping):
            return joined(parts_of(observation, OPENPI))
        fields = {key: value for key, value in observation.items() if key not in ("images", "state")}
        links = {camera: link for link, camera in _CAMERAS.items()}
        for camera, picture in dict(observation.get("images") or {}).items():
            fields[f"{_ROBOT}::{_ROBOT}:{links.get(camera, camera)}:Camera:0{_RGB}"] = picture
        if "state" in observation:
            fields[f"{_ROBOT}{_PROPRIO}"] = observation["state"]
        return joined(parts_of(fields, OPENPI))

    def read_reply(self, message: Message) -> Reply:
        fields = read_answer_map(message)
        if fields.get("action") is None:
            raise WireError("action", "an action", f"keys {names_told(fields)}")
        return Reply(fields["action"], told_timing(fields.get("server_timing")), fields)

    def _prompt_of(self, task: Any) -> str | None:
        """The text of the task that a request names by a number."""
        numbers = np.asarray(task).reshape(-1) if isinstance(task, (int, np.ndarray, np.generic)) else np.empty(0)
        if numbers.size != 1 or numbers.dtype.kind not in "iu":
            return None
        return self._prompts.get(str(int(numbers[0])))


def _camera_of(key: str) -> str | None:
    """The camera of a key such as `robot_r1::robot_r1:zed_link:Camera:0::rgb`; None: it is of none, or no picture."""
    if not key.endswith(_RGB):
        return None
    links = key.removesuffix(_RGB).rpartition("::")[2].split(":")
    found = next((link for link in links if link in _CAMERAS), None)
    return _CAMERAS[found] if found is not None else links[1] if len(links) > 1 and links[1] else None


def _opaque(picture: Any) -> Array | Any:
    """The picture without its channel of alpha, which simulators render."""
    is_rgba = isinstance(picture, np.ndarray) and picture.ndim >= 3 and picture.shape[-1] == 4
    return picture[..., :3] if is_rgba else picture
