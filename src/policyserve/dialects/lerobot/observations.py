"""One observation of LeRobot's client: joints one by one and cameras by their names become arrays. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import WireError, names_told
from policyserve.core.limits import WireLimits
from policyserve.core.messages import Observation
from policyserve.core.nearest import nearest
from policyserve.core.pickle_things import Thing
from policyserve.core.printable import type_name
from policyserve.core.roles import IMAGES, PROMPT, STATE
from policyserve.dialects.conversing import by_roles
from policyserve.dialects.lerobot.pickled import OBSERVATION, Walk, fields_of, module_of
from policyserve.dialects.lerobot.setup import Numbers, PolicySetup

_TASK = "task"
_LATEST = 1 << 31  # a timestep is written as four bytes


class Context(NamedTuple):
    """What an answer repeats of its observation. timestamp: seconds. module: where the client knows LeRobot's classes.

    most: actions that it wants; None: all.
    """

    timestamp: float
    timestep: int
    module: str
    most: int | None = None


def read_observation(
    thing: Thing, size: int, limits: WireLimits, setup: PolicySetup | None
) -> tuple[Observation, Context]:
    """Read a pickled TimedObservation of so many bytes; raises WireError with the path of what is wrong.

    setup: says which numbers make the state; None: all of them do, in the order in which they come.
    """
    fields = Walk(size, limits).value(fields_of(thing, OBSERVATION), "")
    timestamp, timestep, raw = (fields.get(name) for name in ("timestamp", "timestep", "observation"))
    if not isinstance(timestamp, (int, float)) or isinstance(timestamp, bool) or not math.isfinite(timestamp):
        raise WireError("timestamp", "a finite number", type_name(timestamp))
    if type(timestep) is not int or not 0 <= timestep < _LATEST:
        raise WireError("timestep", f"a whole number from 0 to {_LATEST - 1}", f"{timestep!r:.40}")
    if not isinstance(raw, dict):
        raise WireError("observation", "a map", type_name(raw))
    most = None if setup is None else setup.actions_per_chunk
    context = Context(float(timestamp), timestep, module_of(thing), most)
    return (_as_it_comes(raw) if setup is None else _as_told(raw, setup)), context


def _as_told(raw: Mapping[str, Any], setup: PolicySetup) -> Observation:
    made: dict[str, Any] = {}
    used = {_TASK}
    for numbers in setup.numbers:
        joints = _numbers_of(raw) if numbers.joints is None else numbers.joints
        made[numbers.name] = _array(raw, numbers, joints)
        used.update(joints)
    for camera in setup.cameras:
        if not isinstance(raw.get(camera.key), np.ndarray):
            raise _missing(camera.name, camera.key, "a picture", raw)
        made[camera.name] = raw[camera.key]
        used.add(camera.key)
    rest = {key: value for key, value in raw.items() if key not in used and key not in made}
    return _with_cameras({**made, **_prompt(raw), **rest})


def _as_it_comes(raw: Mapping[str, Any]) -> Observation:
    joints = _numbers_of(raw)
    made: dict[str, Any] = {STATE: _array(raw, Numbers(STATE, joints), joints)} if joints else {}
    for key, value in raw.items():
        if key not in joints and key != _TASK:
            is_picture = isinstance(value, np.ndarray) and value.ndim == 3
            made[f"{IMAGES}/{key}" if is_picture else key] = value
    return _with_cameras({**made, **_prompt(raw)})


def _with_cameras(made: Mapping[str, Any]) -> Observation:
    """With cameras in a map of their own, as other dialects have them: a policy may have no spec that finds them."""
    first = f"{IMAGES}/"
    pictures = [(path.removeprefix(first), value) for path, value in made.items() if path.startswith(first)]
    return by_roles([one for one in made.items() if not one[0].startswith(first)], pictures)


def _prompt(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {PROMPT: raw[_TASK]} if raw.get(_TASK) is not None else {}


def _numbers_of(raw: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(key for key, value in raw.items() if _is_number(value))


def _array(raw: Mapping[str, Any], numbers: Numbers, joints: tuple[str, ...]) -> Array:
    for joint in joints:
        if not _is_number(raw.get(joint)):
            raise _missing(f"{numbers.name}/{joint}", joint, "a number", raw)
    with np.errstate(over="ignore"):  # a number that float32 cannot hold is Inf, as LeRobot makes it
        return np.array([raw[joint] for joint in joints], np.float32)


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float)) or (isinstance(value, np.ndarray) and value.ndim == 0)


def _missing(path: str, key: str, expected: str, raw: Mapping[str, Any]) -> WireError:
    if key in raw:
        return WireError(path, expected, type_name(raw[key]))
    near = nearest(key, list(raw)[:64])
    return WireError(path, expected, f"keys {names_told(raw, 300)}", f"did you mean {near!r}?" if near else "")
