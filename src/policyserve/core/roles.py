"""What a key of an observation is: a picture, joint state, a text; and what words of a camera's name mean. Pure.

A dialect may name what it reads by what it is: pictures `images/<camera>` (`images/0`, `images/1` where the wire has no
names), joint state `state` or `state/<part>`, the task's text `prompt`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from policyserve.core.dialect import ConversingDialect, Dialect
from policyserve.core.encoded_images import EncodedImage
from policyserve.core.leaf_specs import ImageSpec, LeafSpec, TextListSpec, TextSpec
from policyserve.core.spec import PolicySpec

IMAGES, STATE, PROMPT = "images", "state", "prompt"

Kind: TypeAlias = Literal["picture", "text", "numbers"]

# Words of a camera's name that say nothing, and those that mean the same.
_EMPTY = frozenset(
    ["observation", "observations", "obs", "images", "image", "img", "video", "cam", "camera", "rgb", "color", "view"]
)
_SCENE = ("agentview", "primary", "base", "exterior", "external", "exo", "static", "scene", "third", "full", "front")
_WRIST = ("wrist", "hand", "gripper", "eye")
_HEAD = ("head", "zed", "ego")
_MEANS = {**dict.fromkeys(_SCENE, "scene"), **dict.fromkeys(_WRIST, "wrist"), **dict.fromkeys(_HEAD, "head")}
_STATE_WORDS = frozenset(
    ["state", "states", "proprio", "qpos", "joint", "joints", "gripper", "position", "eef", "arm", "obs"]
)


def names_roles(dialect: Dialect) -> bool:
    """Whether a dialect names what it reads by what it is.

    Those that converse do, unless an attribute `names_roles` says otherwise; others do if it is True.
    """
    return getattr(dialect, "names_roles", isinstance(dialect, ConversingDialect)) is True


def roles_told(spec: PolicySpec) -> Mapping[str, Sequence[str]]:
    """Which of a spec's keys pictures, joint state and the task's text become, for people."""
    told: dict[str, list[str]] = {IMAGES: [], STATE: [], PROMPT: []}
    roles: Mapping[Kind, str] = {"picture": IMAGES, "numbers": STATE, "text": PROMPT}
    for path, leaf in spec.leaves.items():
        role = roles[kind_of_leaf(leaf)]
        if role != STATE or is_state(path, spec):
            told[role].append(path)
    return {role: paths for role, paths in told.items() if paths}


def is_state(path: str, spec: PolicySpec) -> bool:
    """Whether a key of numbers is joint state: it says so, or is the only one that a request must have."""
    numbers = [name for name, leaf in spec.leaves.items() if kind_of_leaf(leaf) == "numbers" and not leaf.optional]
    return path in numbers and (len(numbers) == 1 or bool(_STATE_WORDS & set(_all_words(path))))


def words_of(path: str) -> list[str]:
    """The words of a name that tell it from others, synonyms as one."""
    return [_MEANS.get(word, word) for word in _all_words(path) if word not in _EMPTY]


def are_same(one: str, other: str) -> bool:
    """Whether two names have the same words, and any."""
    return set(words_of(one)) == set(words_of(other)) and bool(words_of(one))


def share_a_word(one: str, other: str) -> bool:
    """Whether two names have a word in common."""
    return bool(set(words_of(one)) & set(words_of(other)))


def kind_of_leaf(leaf: LeafSpec) -> Kind:
    """What a spec's leaf is."""
    if isinstance(leaf, ImageSpec):
        return "picture"
    return "text" if isinstance(leaf, (TextSpec, TextListSpec)) else "numbers"


def kind_of(value: Any) -> Kind | None:
    """What a client's value is; None: nothing that a spec could ask for."""
    if isinstance(value, EncodedImage):
        return "picture"
    if isinstance(value, str):
        return "text"
    if isinstance(value, np.ndarray):
        return "picture" if value.dtype == np.uint8 and value.ndim > 1 else "numbers"
    return "numbers" if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _all_words(path: str) -> list[str]:
    return [word for word in re.split(r"[^a-z0-9]+", path.lower()) if word]
