"""What both real-time clients take beside the URL: settings of the execution, of the client, and functions to call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from inspect import signature
from typing import Any

from policyserve.client.sync import Client
from policyserve.core.errors import ConfigError
from policyserve.core.log import Log
from policyserve.realtime.ladder import KINDS
from policyserve.realtime.machine import Change
from policyserve.realtime.prefix import action_kind_of
from policyserve.realtime.settings import RealtimeSettings, check_names
from policyserve.realtime.values import Ask, MergedChunk

log = Log(__name__)

# The state machine decides when to try again, so that it asks with the newest observation then.
OWN_DEFAULTS: Mapping[str, Any] = {"retry_for_s": 0.0, "busy_poll_us": 0.0, "dead_after_s": 3.0}
_SETTINGS = {one.name for one in fields(RealtimeSettings)}
_OF_CLIENT = set(signature(Client).parameters) - {"url", "retry_for_s"}


def split_options(kind: str, control_hz: float, options: Mapping[str, Any]) -> tuple[RealtimeSettings, dict[str, Any]]:
    """The execution's settings and the client's; raises ConfigError for what is neither's, with the nearest name."""
    check_names(kind, options, [*_SETTINGS, *_OF_CLIENT], "those of RealtimeSettings and of Client are taken")
    settings = {name: value for name, value in options.items() if name in _SETTINGS}
    return RealtimeSettings(control_hz, **settings), {k: v for k, v in options.items() if k not in _SETTINGS}


def warn_of_single_actions(ask: Ask, newest: MergedChunk | None) -> None:
    """Say once, at the first answer, that nothing is gained where each answer is one action."""
    if ask.number == 1 and newest is not None and len(newest.actions) == 1:
        log.warning(
            "the server answers one action at a time, so that none is left while the next is asked for: real-time "
            "execution gains nothing; take policyserve.Client, or a policy that answers chunks"
        )


def warn_of_another_kind(chosen: str | None, metadata: Mapping[str, Any]) -> None:
    """Say that the server calls its actions something else than the user does, whose word counts."""
    told = action_kind_of(metadata)
    if chosen is not None and told in KINDS and told != chosen:
        log.warning(
            "action_kind=%s is used, although the server says that its actions are of the kind %s", chosen, told
        )


@dataclass(frozen=True)
class Callbacks:
    """A user's functions; raises ConfigError for what is none."""

    on_state: Callable[[str], None] | None = None
    on_error: Callable[[Exception], None] | None = None
    on_chunk: Callable[[MergedChunk], None] | None = None

    def __post_init__(self) -> None:
        for name, function in vars(self).items():
            if function is not None and not callable(function):
                raise ConfigError(f"{name}: expected a function, got {function!r:.80}")

    def __bool__(self) -> bool:
        return any(one is not None for one in vars(self).values())

    def call(self, changes: list[Change]) -> None:
        """Call them, one change after the other; what they raise is logged."""
        for change in changes:
            name = "on_state"
            if isinstance(change, MergedChunk):
                name = "on_chunk"
            elif isinstance(change, Exception):
                name = "on_error"
            function: Callable[[Any], None] | None = getattr(self, name)
            if function is None:
                continue
            try:
                function(change)
            except Exception as error:  # the user's function
                log.error("%s raised %s: %s", name, type(error).__name__, error, cause=error)
