"""How a client's observation meets a policy's spec: which of its keys is which of the spec's. Pure.

core/roles.py says what a dialect may call things. Which of the spec's keys these are is decided by names, then by
order, and never guessed between several: then the client is refused, and told of `--map`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.dialect import Dialect
from policyserve.core.errors import BadObservation, ConfigError, names_told
from policyserve.core.leaf_specs import ArraySpec, LeafSpec
from policyserve.core.messages import Observation
from policyserve.core.nearest import nearest
from policyserve.core.reading import Fitting
from policyserve.core.roles import (
    IMAGES,
    PROMPT,
    STATE,
    Kind,
    are_same,
    is_state,
    kind_of,
    kind_of_leaf,
    names_roles,
    share_a_word,
    words_of,
)
from policyserve.core.spec import MISSING, PolicySpec, look_up, paths_in

_MOST_PLANS = 8  # of one session, whose keys may differ from request to request
_MOST_KEYS = 256


class Move(NamedTuple):
    """What becomes of which keys: one client's, several joined, or a part of one.

    sources: the client's paths; several are joined along their last axis. part: the slice of the last axis that is
    meant; None: all of it.
    """

    sources: tuple[str, ...]
    target: str
    part: tuple[int, int] | None = None

    def __str__(self) -> str:
        cut = "" if self.part is None else f"[{self.part[0]}:{self.part[1]}]"
        return f"{' + '.join(self.sources)}{cut} as {self.target}"


Keys: TypeAlias = tuple[tuple[str, Kind], ...]


@dataclass(frozen=True)
class KeyMap:
    """What a user said of it: a client's key by the policy's, `--map`."""

    given: Mapping[str, str]

    @classmethod
    def read(cls, words: Iterable[str]) -> KeyMap:
        """Read `client_key=policy_key`, one or more; raises ConfigError."""
        given: dict[str, str] = {}
        for word in words:
            name, equals, path = word.partition("=")
            if not equals or not name or not path or "=" in path:
                raise ConfigError(f"map: expected client_key=policy_key, got {word!r}")
            if name in given:
                raise ConfigError(f"map: expected each client_key once, got {name} twice")
            given[name] = path
        return cls(given)

    def check(self, spec: PolicySpec) -> None:
        """Raise ConfigError if the policy takes none of a name that is mapped to."""
        if spec.observation is None:
            return
        for name, path in self.given.items():
            if path not in spec.leaves:
                near = nearest(path, list(spec.leaves))
                hint = f" (did you mean {near}?)" if near else ""
                known = names_told(tuple(spec.leaves), 300)
                raise ConfigError(f"map: {name}={path}: expected one of the policy's keys, {known}, got {path}{hint}")

    def fit(self, dialect: Dialect, spec: PolicySpec) -> Fitting | None:
        """How this dialect's observations become this spec's; None: they are taken as they are."""
        by_role = spec.observation is not None and names_roles(dialect)
        if not self.given and not by_role:
            return None
        return Fitted(self.given, spec, by_role)


class Fitted:
    """Makes one session's observations those of a spec. given: what the user said. by_role: whether more is decided.

    moves: what was decided for the newest observation.
    """

    def __init__(self, given: Mapping[str, str], spec: PolicySpec, by_role: bool) -> None:
        self._given = given
        self._spec = spec
        self._by_role = by_role
        self._plans: dict[Keys, Sequence[Move]] = {}
        self.moves: Sequence[Move] = ()

    def __call__(self, observation: Observation) -> Observation:
        """The observation under the spec's names; what has no place there stays under its own.

        Raises BadObservation where several of the client's keys might be meant, or none of them.
        """
        keys = keys_of(observation)
        moves = self._plans.get(keys)
        if moves is None:
            moves = plan(keys, observation, self._spec, self._given, self._by_role)
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            self._plans[keys] = moves
        self.moves = moves
        return _moved(observation, moves) if moves else observation


def keys_of(observation: Observation) -> Keys:
    """The paths of an observation's values and what they are; of values of no kind none."""
    found: list[tuple[str, Kind]] = []
    for path in paths_in(observation):
        kind = kind_of(look_up(observation, path))
        if kind is not None:
            found.append((path, kind))
        if len(found) >= _MOST_KEYS:
            break
    return tuple(found)


def plan(
    keys: Keys, observation: Observation, spec: PolicySpec, given: Mapping[str, str], by_role: bool
) -> Sequence[Move]:
    """Decide which keys become which of the spec's; raises BadObservation, see Fitted."""
    moves = [Move((name,), path) for name, path in given.items() if look_up(observation, name) is not MISSING]
    if spec.observation is None or not by_role:
        return moves
    taken = {source for move in moves for source in move.sources}
    filled = {move.target for move in moves}
    for path in spec.leaves:
        if path in filled:
            continue
        value = spec.look_up(observation, path)
        if value is not MISSING and not isinstance(value, Mapping):
            filled.add(path)
            taken.update((path, *(name for name, target in spec.aliases.items() if target == path)))
    open_leaves = {path: leaf for path, leaf in spec.leaves.items() if path not in filled}
    left: Keys = tuple((path, kind) for path, kind in keys if path not in taken)
    moves += _texts(open_leaves, left)
    moves += _pictures(open_leaves, [path for path, kind in left if kind == "picture"])
    moves += _states(open_leaves, [path for path, kind in left if kind == "numbers"], observation, spec)
    _check_filled(open_leaves, {move.target for move in moves}, left, moves)
    return moves


def _texts(leaves: Mapping[str, LeafSpec], keys: Keys) -> list[Move]:
    texts = [path for path, leaf in leaves.items() if kind_of_leaf(leaf) == "text"]
    is_told = (PROMPT, "text") in keys
    return [Move((PROMPT,), texts[0])] if is_told and len(texts) == 1 else []


def _pictures(leaves: Mapping[str, LeafSpec], names: Sequence[str]) -> list[Move]:
    paths = [path for path, leaf in leaves.items() if kind_of_leaf(leaf) == "picture"]
    numbered = sorted((name for name in names if re.fullmatch(rf"{IMAGES}/\d+", name)), key=_number)
    if numbered:
        return [Move((name,), path) for name, path in zip(numbered, paths, strict=False)]
    moves: list[Move] = []
    rest = list(names)
    for is_alike in (are_same, share_a_word):
        for path in list(paths):
            alike = [name for name in rest if is_alike(name, path)]
            rivals = [other for other in paths if alike and is_alike(alike[0], other)]
            if len(alike) == 1 and len(rivals) == 1:
                moves.append(Move((alike[0],), path))
                rest.remove(alike[0])
                paths.remove(path)
    if len(paths) == 1 and len(rest) == 1:
        moves.append(Move((rest[0],), paths[0]))
    return moves


def _states(
    leaves: Mapping[str, LeafSpec], names: Sequence[str], observation: Observation, spec: PolicySpec
) -> list[Move]:
    paths = [path for path, leaf in leaves.items() if kind_of_leaf(leaf) == "numbers" and is_state(path, spec)]
    parts = [name for name in names if name == STATE or name.startswith(f"{STATE}/")]
    moves: list[Move] = []
    for path in list(paths):  # parts of the same name
        alike = [name for name in parts if name != STATE and words_of(name)[-1:] == words_of(path)[-1:]]
        if len(alike) == 1:
            moves.append(Move((alike[0],), path))
            paths.remove(path)
            parts.remove(alike[0])
    if len(paths) == 1 and parts:
        return [*moves, Move(tuple(parts), paths[0])]
    if len(paths) > 1 and parts == [STATE]:
        return [*moves, *_cut(paths, leaves, look_up(observation, STATE))]
    return moves


def _cut(paths: Sequence[str], leaves: Mapping[str, LeafSpec], state: Any) -> list[Move]:
    """Cut one vector into the spec's parts, in their order; nothing where the sizes do not add up."""
    sizes = [leaf.shape[-1] for leaf in (leaves[path] for path in paths) if isinstance(leaf, ArraySpec) and leaf.shape]
    if len(sizes) != len(paths) or None in sizes or sum(cast("list[int]", sizes)) != np.shape(state)[-1:][0]:
        return []
    moves, start = [], 0
    for path, size in zip(paths, cast("list[int]", sizes), strict=True):
        moves.append(Move((STATE,), path, (start, start + size)))
        start += size
    return moves


def _check_filled(leaves: Mapping[str, LeafSpec], filled: set[str], left: Keys, moves: Sequence[Move]) -> None:
    """Raise BadObservation for the first key that is missing while the client has some that may be meant."""
    taken = {source for move in moves for source in move.sources}
    for path, leaf in leaves.items():
        if path in filled or leaf.optional or getattr(leaf, "default", None) is not None:
            continue
        kind = kind_of_leaf(leaf)
        rest = [name for name, is_kind in left if is_kind == kind and name not in taken]
        if rest:
            near = nearest(path, rest) or rest[0]
            cure = f"say which it is, such as --map {near}={path}"
            raise BadObservation(path, str(leaf), f"keys {names_told(tuple(rest), 300)}", cure)


def _moved(observation: Observation, moves: Sequence[Move]) -> Observation:
    taken = {source for move in moves for source in move.sources}
    found = {path: look_up(observation, path) for path in paths_in(observation) if path not in taken}
    for move in moves:
        values = [look_up(observation, source) for source in move.sources]
        value = values[0] if len(values) == 1 else _joined(values, move.sources)
        if move.part is not None:
            value = np.ascontiguousarray(np.asarray(value)[..., slice(*move.part)])
        if move.target in found:
            raise BadObservation(move.target, "one value", f"two: {move.target} and {move.sources[0]}")
        found[move.target] = value
    return found


def _joined(values: Sequence[Any], sources: Sequence[str]) -> Array:
    arrays = [np.atleast_1d(value) for value in values]
    try:
        return np.concatenate(arrays, axis=-1)
    except ValueError as error:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in zip(sources, arrays, strict=True))
        raise BadObservation(sources[0], "parts that can be joined along their last axis", shapes) from error


def _number(name: str) -> int:
    return int(name.rpartition("/")[2])
