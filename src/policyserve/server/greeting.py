"""How a session begins: the dialect that its path names, its greeting, and the wait for its first message. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from policyserve import dialects
from policyserve.core.dialect import Dialect, for_policy
from policyserve.core.encoded_images import GREETING_KEY, JPEG
from policyserve.core.errors import ConfigError
from policyserve.core.printable import text_of
from policyserve.core.sameness import is_same
from policyserve.core.spec import PolicySpec
from policyserve.core.version import VERSION
from policyserve.server.config import ServerConfig
from policyserve.transforms import jpeg

_OWN = ("spec", "policyserve")  # what every greeting has
_POLICY = "policy"  # the name of the one that a session was drawn to, where its route tells


class Beginning(Protocol):
    """A session, as this module sees it."""

    @property
    def dialect(self) -> Dialect | None: ...
    @property
    def has_begun(self) -> bool: ...


def pinned_dialect(config: ServerConfig) -> Dialect | None:
    """The dialect of a connection whose path names none; None: its first message tells."""
    return None if config.dialect == "auto" else dialects.by_name(config.dialect)


def patience_s(session: Beginning, spec: PolicySpec, config: ServerConfig) -> float | None:
    """How long to wait for a session's first message; None where the server speaks first."""
    if session.has_begun:
        return None
    if session.dialect is not None:
        return None if session.dialect.greets else config.first_frame_timeout_s
    home = spec.dialect and dialects.by_name(spec.dialect)
    return config.hello_grace_s(client_first=bool(home and not home.greets))


def metadata_of(spec: PolicySpec) -> Mapping[str, Any]:
    """What a greeting tells: what the policy declares, its spec, and which server this is."""
    return {**spec.metadata, **_own(spec)}


def with_images(metadata: Mapping[str, Any], asked: str) -> Mapping[str, Any]:
    """What a greeting tells a client that asks whether its pictures may be JPEGs; others are greeted as ever.

    asked: what its handshake said, formats by commas.
    """
    if JPEG not in (form.strip() for form in asked.lower().split(",")) or not jpeg.is_installed():
        return metadata
    return {**metadata, GREETING_KEY: [JPEG]}


def of_split(own: Mapping[str, Any], others: Sequence[Mapping[str, Any]], name: str | None) -> Mapping[str, Any]:
    """What a greeting tells a session that was drawn to one of several policies.

    own: what that one's greetings tell. others: what those of the others do, empty of one that is not ready.
    name: the policy's, to be told; None: what could tell it from the others is left out, but for the spec, by which
    clients ask.
    """
    if name is not None:
        return {**own, _POLICY: name}
    return {key: value for key, value in own.items() if key in _OWN or all(_has(told, key, value) for told in others)}


def _has(told: Mapping[str, Any], key: str, value: Any) -> bool:
    return key in told and is_same(told[key], value)


def check_spec(spec: PolicySpec, config: ServerConfig) -> None:
    """Raise ConfigError for a policy that cannot be served with these settings: see check_metadata, and `--map`."""
    check_metadata(spec)
    config.key_map.check(spec)


def check_metadata(spec: PolicySpec) -> None:
    """Raise ConfigError with the path of what clients could not read in a policy's metadata, before one connects.

    Every dialect that greets has to write it, and to read what it wrote; another may look for something in it. The
    greeting's own keys are not the policy's.
    """
    try:
        _check_metadata(spec)
    except ConfigError:
        raise
    except BaseException as error:  # metadata is the policy's, and a dialect may be another package's
        raise ConfigError(f"{spec.name}: metadata: {text_of(error)}") from error


def _check_metadata(spec: PolicySpec) -> None:
    for key in _own(spec).keys() & spec.metadata.keys():
        raise ConfigError(f"{spec.name}: metadata/{key}: expected another key, got one that every greeting has itself")
    for name in dialects.names():
        dialect = for_policy(dialects.by_name(name), metadata_of(spec))
        written = dialect.greeting(metadata_of(spec)) if dialect.greets else None
        if written is not None:
            dialect.read_greeting(written)


def _own(spec: PolicySpec) -> Mapping[str, Any]:
    return dict(zip(_OWN, (spec.describe(), VERSION), strict=True))
