"""What GR00T's clients call the parts of an observation, and what these are called here.

A camera `front` comes as `video.front`, or as `front` in the map `video`; a state likewise; a text under a name such as
`annotation.human.task_description`. Where the policy's spec has one of these names, the part gets it. Else it stands
where it is found by what it is: `images/front`, `state/arm`, `prompt`, the last for the first text alone.

Arrays have a time axis, and most a batch axis before it. Both go where they are of length one and the spec has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import BadObservation
from policyserve.core.leaf_specs import ArraySpec, ImageSpec, LeafSpec, TextListSpec, name_of
from policyserve.core.roles import IMAGES, PROMPT, STATE
from policyserve.core.spec import PolicySpec

Kind: TypeAlias = Literal["video", "state", "language"]

KINDS: tuple[Kind, ...] = ("video", "state", "language")
_CALLED: Mapping[Kind, str] = {"video": IMAGES, "state": STATE}
_BARE: Mapping[Kind, int] = {"video": 3, "state": 1}  # axes without batch and time
_SHAPES: Mapping[Kind, str] = {"video": "(T, H, W, 3)", "state": "(T, D)"}
_TEXT_NAMES = ("annotation.", "language.")
_MOST_TEXTS = 4096


class Part(NamedTuple):
    """One part of an observation. path: in the message. name: without what tells its kind; of a text its whole name.

    is_flat: its key told its kind.
    """

    kind: Kind
    path: str
    name: str
    value: Any
    is_flat: bool = False


def read_parts(data: Mapping[str, Any], path: str) -> tuple[list[Part], dict[str, Any]]:
    """The parts of an observation, nested or flat, and what else is in it. path: of the observation."""
    parts: list[Part] = []
    rest: dict[str, Any] = {}
    for key, value in data.items():
        kind = _kind_of(key)
        if key in KINDS and isinstance(value, Mapping):
            parts += (Part(key, f"{path}/{key}/{name}", name, inner) for name, inner in value.items())
        elif kind is not None:
            parts.append(Part(kind, f"{path}/{key}", _bare_name(kind, key), value, True))
        else:
            rest[key] = value
    return parts, rest


def has_batch(parts: list[Part]) -> bool:
    """Whether a flat observation has a batch axis, as N1.5's server decides it: by the states, else by the pictures."""
    states = [np.ndim(part.value) for part in parts if part.kind == "state" and isinstance(part.value, np.ndarray)]
    videos = [np.ndim(part.value) for part in parts if part.kind == "video" and isinstance(part.value, np.ndarray)]
    return min(states) >= 3 if states else bool(videos) and min(videos) >= 5


def is_several(parts: list[Part]) -> bool:
    """Whether the batch axis of a batched observation has another length than one somewhere."""
    return any(isinstance(part.value, np.ndarray) and part.value.shape[:1] not in ((), (1,)) for part in parts)


def fitted(parts: list[Part], spec: PolicySpec, is_batched: bool) -> dict[str, Any]:
    """The observation under the spec's names, or by what each part is; raises BadObservation.

    A batch of one has no axis here; one of several keeps it as the first.
    """
    is_alone = not is_batched or not is_several(parts)
    observation: dict[str, Any] = {}
    for part in parts:
        if part.kind == "language":
            _add_text(observation, part, spec)
        else:
            name, leaf = _place(part.kind, part.name, spec)
            array = _array(part, leaf, spec, is_batched, is_alone)
            if leaf is None:
                _put(observation.setdefault(_CALLED[part.kind], {}), part.name, array, part)
            else:
                _put(observation, name, array, part)
    return observation


def _add_text(observation: dict[str, Any], part: Part, spec: PolicySpec) -> None:
    texts = _texts(part)
    name, leaf = _place(part.kind, part.name, spec)
    if name == PROMPT and name in observation:
        name = part.name  # the first text is the task's
    if isinstance(leaf, TextListSpec):
        _put(observation, name, texts, part)
        return
    if any(text != texts[0] for text in texts):
        raise BadObservation(part.path, "the same text in each row of the batch", "several")
    _put(observation, name, texts[0], part)


def _texts(part: Part) -> list[str]:
    """The texts of `[[str], …]`, `[str, …]` or `str`, one of each row."""
    value = part.value
    rows = [value] if isinstance(value, str) else value
    if isinstance(rows, (list, tuple)) and 0 < len(rows) <= _MOST_TEXTS:
        texts = [row[0] if isinstance(row, (list, tuple)) and row else row for row in rows]
        if all(isinstance(text, str) for text in texts):
            return [str(text) for text in texts]
    raise BadObservation(part.path, "a list of texts, or of lists of them", name_of(value))


def _array(part: Part, leaf: LeafSpec | None, spec: PolicySpec, is_batched: bool, is_alone: bool) -> Array:
    """The part's array without the axes that stand for nothing here."""
    value = part.value
    if not isinstance(value, np.ndarray):
        raise BadObservation(part.path, f"an array {_SHAPES[part.kind]}", name_of(value))
    axes = value.ndim - _BARE[part.kind] - is_batched  # 1 with time, 0 without
    if axes not in (0, 1) or (is_batched and not axes):
        before = "(B, " if is_batched else "("
        raise BadObservation(part.path, f"an array {before}{_SHAPES[part.kind][1:]}", name_of(value))
    array: Array = value[0] if is_batched and is_alone else value
    if not axes or _has_time(part.kind, leaf):
        return array
    at = 0 if is_alone or not is_batched else 1
    if array.shape[at] == 1:
        return array.squeeze(at)
    if spec.observation is None:
        return array
    told = "the policy's spec has no axis for them; get_modality_config tells the steps that it takes"
    raise BadObservation(part.path, "one step in time", f"{array.shape[at]}", told)


def _has_time(kind: Kind, leaf: LeafSpec | None) -> bool:
    """Whether the spec has a time axis."""
    if isinstance(leaf, ImageSpec):
        return all(len(layout) > _BARE[kind] for layout in leaf.layouts)
    return isinstance(leaf, ArraySpec) and len(leaf.shape) > _BARE[kind]


def _place(kind: Kind, name: str, spec: PolicySpec) -> tuple[str, LeafSpec | None]:
    """What a part is called here, and its spec if there is one of this name."""
    for candidate in _candidates(kind, name):
        path = spec.aliases.get(candidate, candidate)
        if path in spec.leaves:
            return candidate, spec.leaves[path]
    return (PROMPT if kind == "language" else name), None


def _candidates(kind: Kind, name: str) -> Iterator[str]:
    """The names that a spec may have for a part, the surest first."""
    yield f"{kind}.{name}"
    yield f"{kind}/{name}"
    if kind != "language":
        yield f"{_CALLED[kind]}/{name}"
    yield name
    if kind == "language":
        yield PROMPT


def _put(observation: dict[str, Any], name: str, value: Any, part: Part) -> None:
    if name in observation:
        raise BadObservation(part.path, "one value", f"two for {name}")
    observation[name] = value


def _kind_of(key: str) -> Kind | None:
    """What a flat key is."""
    if key.startswith(_TEXT_NAMES) or key == "task":
        return "language"
    kind, dot, name = key.partition(".")
    return kind if dot and name and kind in ("video", "state") else None  # type: ignore[return-value]


def _bare_name(kind: Kind, key: str) -> str:
    return key.removeprefix("language.") if kind == "language" else key.partition(".")[2]
