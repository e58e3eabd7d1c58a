"""What the founding clients do alike: wait as long as it takes, and raise RuntimeError for what a server refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from policyserve.core.errors import ConnectionLost, RemoteError

# The originals wait for ever; no socket can be told to, and an answer that takes a day is none.
DAY_S = 86_400.0


class InferenceError(RemoteError, RuntimeError):
    """The server refused or failed the request: our RemoteError, and the RuntimeError that the originals raise."""


@contextmanager
def runtime_errors() -> Iterator[None]:
    """Raise InferenceError for a RemoteError; a connection that ended stays ConnectionLost."""
    try:
        yield
    except ConnectionLost:
        raise
    except RemoteError as error:
        raise InferenceError(str(error), error.close_code, error.code) from error
