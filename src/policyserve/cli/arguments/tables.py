"""The tables of a file of settings that say which policies a server has, and which of them stand behind one path."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from policyserve.cli.arguments.setting import Setting, shown
from policyserve.core.errors import ConfigError
from policyserve.core.nearest import nearest
from policyserve.server.catalogue import check_name
from policyserve.server.splits import Split

POLICIES, ROUTES = "policies", "routes"
A_NAME = "a policy's name, such as cartpole_ppo"
_SOURCE = "source"
_EXAMPLE = '[policies.pick] with source = "cartpole_ppo"'
_SHARES = "shares of 0 or more, such as split = {v1 = 0.5, v2 = 0.5}"


@dataclass(frozen=True)
class PolicyTable:
    """One policy of several. source: what loads it. settings: its flags and those that are the server's for others."""

    name: str
    source: Setting
    settings: tuple[Setting, ...] = ()


def is_of_tables(name: str) -> bool:
    """Whether a key of a file stands in one of these tables, or is one."""
    return name.partition(".")[0] in (POLICIES, ROUTES)


def policies_in(settings: Iterable[Setting]) -> list[PolicyTable]:
    """The policies in their order; raises ConfigError that names the line."""
    found: dict[str, list[Setting]] = defaultdict(list)
    for setting in settings:
        first, _, rest = setting.name.partition(".")
        if first == POLICIES:
            name, _, key = rest.partition(".")
            check_name(name, f"{setting.source}: policies.{name}") if name else _fail(setting, f"tables {_EXAMPLE}")
            found[name].append(replace(setting, name=key.replace("_", "-")))
    return [_policy(name, own) for name, own in found.items()]


def routes_in(settings: Iterable[Setting]) -> dict[str, Split]:
    """The splits by their path; raises ConfigError that names the line."""
    found: dict[str, list[Setting]] = defaultdict(list)
    for setting in settings:
        first, _, rest = setting.name.partition(".")
        if first == ROUTES:
            path, _, key = rest.partition(".")
            if not path.startswith("/"):
                _fail(setting, f'a path, as in [routes."/arm"] with {_SHARES.rpartition("as ")[2]}')
            found[path].append(replace(setting, name=key))
    return {path: _split(path, own) for path, own in found.items()}


def _policy(name: str, settings: Sequence[Setting]) -> PolicyTable:
    seen: set[str] = set()
    for one in settings:
        if one.name in seen:
            raise ConfigError(f"{one.place} stands there again: keep one")
        seen.add(one.name)
    source = next((one for one in settings if one.name == _SOURCE), None)
    if source is None:
        near = next((one for one in settings if nearest(one.name, [_SOURCE], 0.7)), settings[0])
        raise ConfigError(f"{near.source}: policies.{name}: expected a source, as in {_EXAMPLE}, got none")
    return PolicyTable(name, source, tuple(one for one in settings if one is not source and one.name))


def _split(path: str, settings: Sequence[Setting]) -> Split:
    shares: dict[str, float] = {}
    seed: int | None = None
    is_blind = True
    for one in settings:
        key, _, policy = one.name.partition(".")
        if key == "split" and policy and _is_number(one.value):
            shares[policy] = float(one.value)
        elif key == "split":
            _fail(one, _SHARES)
        elif key == "seed" and not policy:
            seed = one.value if _is_number(one.value, int) else _fail(one, "a whole number")
        elif key == "blind" and not policy:
            is_blind = one.value if isinstance(one.value, bool) else _fail(one, "true or false")
        elif key or one.value != {}:
            raise ConfigError(f"{one.source}: unknown key {one.name}; a route has split, seed and blind")
    if not shares:
        raise ConfigError(f'{settings[0].source}: routes."{path}": expected {_SHARES}, got no split')
    return Split(shares, seed, is_blind)


def _is_number(value: object, kind: type | tuple[type, ...] = (int, float)) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _fail(setting: Setting, expected: str) -> NoReturn:
    raise ConfigError(f"{setting.place}: expected {expected}, got {shown(setting.value)}")


def named(words: Iterable[str], taken: Mapping[str, object]) -> list[PolicyTable]:
    """The policies of words as they are typed, `pick=onnx:pick.onnx` or `cartpole_ppo`; raises ConfigError.

    taken: the names that a file has given already.
    """
    found: dict[str, PolicyTable] = {}
    for word in words:
        name, equals, source = word.partition("=")
        if not (equals and is_named(word)):
            name, source = word, word
            _check_unnamed(word)
        check_name(name, f"{word}")
        if not source:
            raise ConfigError(f"{word}: expected what to serve behind the name, as in {name}=cartpole_ppo, got nothing")
        if name in found or name in taken:
            raise ConfigError(f"{word}: two policies are named {name}: give one another, as in {name}2={source}")
        found[name] = PolicyTable(name, Setting("policy", source, "typed", ""))
    return list(found.values())


def is_named(word: str) -> bool:
    """Whether it has a name before its source; the name of a path may have the same sign behind its first folder."""
    name, equals, _ = word.partition("=")
    return bool(equals) and "/" not in name and ":" not in name and not name.endswith(".py")


def _check_unnamed(word: str) -> None:
    try:
        check_name(word)
    except ConfigError:
        raise ConfigError(f"{word}: one of several policies needs a name: NAME={word}") from None


def policy_of_file(setting: Setting, folder: str) -> Setting:
    """A policy that a file names, a module in it from the file's folder on; raises ConfigError for what is no name."""
    if not isinstance(setting.value, str) or not setting.value.strip():
        raise ConfigError(f"{setting.place}: expected {A_NAME}, got {shown(setting.value)}")
    place, colon, name = setting.value.rpartition(":")
    if not place.endswith(".py"):
        return setting
    return replace(setting, value=f"{os.path.join(folder, os.path.expanduser(place))}{colon}{name}")
