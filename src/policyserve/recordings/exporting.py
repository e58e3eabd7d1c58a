"""A recording as NumPy's own files: one for each session, an array for each key."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from policyserve.core.errors import PolicyserveError
from policyserve.core.spec import look_up, paths_in
from policyserve.recordings.layout import RecordingError
from policyserve.recordings.reading import Exchange, Recording


def export_npz(recording: Recording, directory: Path) -> list[Path]:
    """Write `session_N.npz` for each session that has an answer; returns the files.

    Arrays have an axis of steps in front: `observation/…` by the paths of what was sent, `actions`, `arrived_at`,
    `left_at` (seconds since 1970), `request` (its number in the session). Steps without an answer are left out. A key
    whose values have several shapes is an error. Raises RecordingError, OSError.
    """
    directory.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for session in recording.sessions:
        exchanges = [one for one in recording.exchanges(session.number) if is_answered(one)]
        if exchanges:
            path = directory / f"session_{session.number}.npz"
            np.savez_compressed(path, **columns_of(exchanges, f"{recording.path}: session {session.number}"))
            written.append(path)
    return written


def columns_of(exchanges: Iterable[Exchange], where: str = "") -> dict[str, Any]:
    """The arrays of answered exchanges. Raises RecordingError for a key whose values have no one shape."""
    rows: dict[str, list[Any]] = {}
    count = 0
    for exchange in exchanges:
        sent = {f"observation/{path}": look_up(exchange.sent, path) for path in paths_in(exchange.sent)}
        left_at = exchange.left_at if exchange.left_at is not None else np.nan
        facts = {"arrived_at": exchange.arrived_at, "left_at": left_at, "request": exchange.number}
        for key, value in {**sent, "actions": exchange.actions, **facts}.items():
            rows.setdefault(key, []).append(value)
        count += 1
    return {key: _column(key, values, count, where) for key, values in rows.items()}


def _column(key: str, values: list[Any], count: int, where: str) -> Any:
    if len(values) != count:
        raise RecordingError(f"{where}: {key}: expected it in each request, got it in {len(values)} of {count}")
    try:
        column = np.stack([np.asarray(value) for value in values])
    except ValueError as error:
        shapes = sorted({str(np.shape(value)) for value in values})[:4]
        raise RecordingError(f"{where}: {key}: expected one shape, got {', '.join(shapes)}") from error
    if column.dtype == object:
        raise RecordingError(f"{where}: {key}: expected an array or a text, got {type(values[0]).__name__}")
    return column


def is_answered(exchange: Exchange) -> bool:
    """Whether a request could be read and had actions for an answer."""
    try:
        return exchange.actions is not None and bool(exchange.sent)
    except PolicyserveError:  # the client's message was no request
        return False
