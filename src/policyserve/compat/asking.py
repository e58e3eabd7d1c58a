"""What the founding clients do alike: wait as long as it takes, and raise RuntimeError for what a server refuses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from policyserve.client.retries import may_heal
from policyserve.client.sync import Client
from policyserve.core.errors import ConnectionLost, DeadlineExceeded, RemoteError
from policyserve.core.log import Log

log = Log(__name__)

# The originals wait for ever; no socket can be told to, and an answer that takes a day is none.
DAY_S = 86_400.0
PAUSE_S = 5.0  # between two looks whether the server is there


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


def connect_when_there(client: Client) -> None:
    """Connect, and wait for that as long as it takes: for a server that starts, that is full, or that still loads.

    Raises ConnectionLost for what no waiting heals (no such name, no policy server), InferenceError for a refused key.
    """
    log.info("waiting for the server at %s", client.url)
    while True:
        try:
            with runtime_errors():
                client.connect()
            return
        except (ConnectionLost, DeadlineExceeded) as error:
            if isinstance(error, ConnectionLost) and not may_heal(error):
                raise
            log.info("still waiting for the server: %s", error)
        time.sleep(PAUSE_S)
