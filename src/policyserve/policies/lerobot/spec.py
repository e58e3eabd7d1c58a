"""What a LeRobot policy takes and gives, as its files say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from policyserve.core.leaf_specs import LeafSpec
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextSpec
from policyserve.policies.lerobot.config import VISUAL, Feature, PolicyConfig
from policyserve.policies.lerobot.processors import Processors
from policyserve.policies.lerobot.statistics import Statistics
from policyserve.policies.naming import Names, client_names

TASK = "task"
_KINDS = {"pos": "position", "vel": "velocity"}  # by what LeRobot's robots call a number: shoulder_pan.pos
_AS_RECORDED = "as recorded: units of the dataset"
_PICTURE = "a camera frame; floats are 0 … 1"
_PASSING = (("HWC", "CHW"), ("uint8", "float"))  # layouts and dtypes of a picture


@dataclass(frozen=True)
class Shape:
    """How a policy is asked. horizon: actions of an answer, None for one without that axis. frames: of each value.

    is_resized: pictures of any size are taken.
    """

    mode: str
    horizon: int | None
    max_batch: int
    frames: int | None = None
    is_resized: bool = False


def names_of(features: tuple[Feature, ...], processors: Processors | None, renames: Mapping[str, str]) -> Names:
    """What clients call each feature: by --rename, else by the checkpoint's own renaming; raises ConfigError."""
    own = {one.name for one in features}
    trained = {} if processors is None else processors.renames
    kept = {client: name for client, name in trained.items() if name in own and name not in renames.values()}
    return client_names([one.name for one in features], {**kept, **renames})


def build_spec(
    config: PolicyConfig,
    statistics: Statistics,
    names: Names,
    shape: Shape,
    layout: str,
    joints: Mapping[str, Sequence[str]],
) -> PolicySpec:
    """The spec of a policy of ours. layout: where its statistics lie. joints: names of numbers, by feature."""
    observation = {
        names.client[one.name]: leaf_of(one, shape.frames, _told(joints.get(one.name)), is_resized=shape.is_resized)
        for one in config.used
    }
    return PolicySpec(
        f"lerobot {config.kind}",
        observation,
        ArraySpec(config.action.shape, doc=f"action {_AS_RECORDED}{_told(joints.get(config.action.name))}"),
        horizon=shape.horizon,
        max_batch=shape.max_batch,
        metadata=_metadata(config, statistics, shape, layout) | _told_of_action(joints.get(config.action.name)),
        aliases=names.aliases,
    )


def _told(joints: Sequence[str] | None) -> str:
    return "" if joints is None else f": {', '.join(joints)}"


def _told_of_action(joints: Sequence[str] | None) -> dict[str, Any]:
    """What the greeting says of actions whose numbers have names.

    action_names: for clients that hand robots their actions by name. action_kind: what an action is, where the endings
    that LeRobot's robots give their numbers say it.
    """
    if joints is None:
        return {}
    endings = {name.rpartition(".")[2] for name in joints}
    kind = _KINDS.get(endings.pop()) if len(endings) == 1 else None
    return {"action_names": list(joints), **({} if kind is None else {"action_kind": kind})}


def leaf_of(one: Feature, frames: int | None, told: str = "", *, is_resized: bool = False) -> LeafSpec:
    """What a feature has to be. frames: how many of them an observation brings; None: one, without that axis."""
    front = () if frames is None else (frames,)
    if one.kind != VISUAL:
        return ArraySpec((*front, *one.shape), doc=f"{_AS_RECORDED}{_history(frames)}{told}")
    channels, height, width = one.shape
    if frames is not None:  # an ImageSpec has no axis of frames
        return ArraySpec((frames, height, width, channels), "uint8", f"camera frames{_history(frames)}")
    if is_resized:
        return ImageSpec(None, None, *_PASSING, f"{_PICTURE}; resized to {height} x {width}")
    return ImageSpec(height, width, *_PASSING, _PICTURE)


def _history(frames: int | None) -> str:
    return "" if frames is None else ", the oldest first"


def task_spec() -> TextSpec:
    """The text that tells a language policy what to do."""
    return TextSpec("what to do", default="")


def _metadata(config: PolicyConfig, statistics: Statistics, shape: Shape, layout: str) -> dict[str, Any]:
    network = config.network
    assert network is not None
    facts = {
        "type": config.kind,
        "layout": layout,
        "mode": shape.mode,
        "n_obs_steps": config.n_obs_steps,
        "chunk_size": network.chunk_size,
        "n_action_steps": network.n_action_steps,
        "features": {one.name: {"type": one.kind, "shape": list(one.shape)} for one in config.features},
    }
    extremes = {"action_min": statistics.lowest, "action_max": statistics.highest}
    return {"lerobot": {**facts, **{name: one.tolist() for name, one in extremes.items() if one is not None}}}
