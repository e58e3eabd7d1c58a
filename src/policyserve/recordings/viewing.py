"""A recording in Rerun: each camera as pictures, each number as a line over time, by session."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from policyserve.core.errors import MissingDependency, PolicyserveError
from policyserve.core.leaf_specs import ImageSpec
from policyserve.core.spec import look_up, paths_in
from policyserve.recordings.reading import Exchange, Recording
from policyserve.recordings.views import jpeg, named, picture_of

if TYPE_CHECKING:
    from policyserve.core.spec import PolicySpec

_MOST_NUMBERS = 64  # lines of one array
_TIMELINE = "time"


def show(recording: Recording, save: Path | None = None) -> int:
    """Open it in Rerun's viewer, or write it to an .rrd file; returns how many requests are in it.

    Raises MissingDependency without rerun-sdk, RecordingError for what cannot be read.
    """
    try:
        rerun: Any = import_module("rerun")
    except ModuleNotFoundError as error:
        raise MissingDependency(error.name or "rerun", "rerun") from error
    stream = rerun.RecordingStream(f"policyserve {recording.facts.policy}".strip())
    if save is None:
        stream.spawn()
    else:
        stream.save(str(save))
    count = 0
    for session in recording.sessions:
        for exchange in recording.exchanges(session.number):
            _show(rerun, stream, f"session_{session.number}", exchange, recording.facts.spec)
            count += 1
    stream.flush()
    return count


def _show(rerun: Any, stream: Any, place: str, exchange: Exchange, spec: PolicySpec | None) -> None:
    stream.set_time(_TIMELINE, timestamp=exchange.arrived_at)
    stream.set_time("request", sequence=exchange.number)
    try:
        sent = exchange.sent
    except PolicyserveError as error:
        stream.log(f"{place}/refused", rerun.TextLog(str(error), level="ERROR"))
        return
    for path in paths_in(sent):
        value = look_up(sent, path)
        leaf = None if spec is None else spec.leaves.get(path)
        picture = picture_of(value) if leaf is None or isinstance(leaf, ImageSpec) else None
        if picture is not None:
            stream.log(f"{place}/{path}", rerun.EncodedImage(contents=jpeg(picture), media_type="image/jpeg"))
        elif isinstance(value, str):
            stream.log(f"{place}/{path}", rerun.TextLog(value))
        else:
            _plot(rerun, stream, f"{place}/{path}", value, leaf)
    if exchange.error is not None:
        stream.log(f"{place}/refused", rerun.TextLog(": ".join(exchange.error), level="ERROR"))
    elif exchange.actions is not None:
        rank = 1 if spec is None or spec.action is None else len(spec.action.shape)
        actions = exchange.actions
        first = actions.reshape(-1, *actions.shape[actions.ndim - min(rank, actions.ndim) :])[0]
        _plot(rerun, stream, f"{place}/actions", first, None if spec is None else spec.action)


def _plot(rerun: Any, stream: Any, place: str, value: Any, leaf: Any) -> None:
    array = np.asarray(value)
    if array.dtype.kind in "biuf" and 0 < array.size <= _MOST_NUMBERS:
        for name, number in named(array, leaf).items():
            stream.log(f"{place}/{name}", rerun.Scalars(float(number)))
