"""What only the client without an event loop has to bear."""

from __future__ import annotations

import signal
import threading
from typing import Any

import numpy as np
import pytest

from policyserve import Client
from tests.server.live import DEADLINE_S, serving


def test_an_interrupted_calls_answer_is_never_the_next_ones() -> None:
    """A robot's program catches Ctrl-C and sends the arm home: it must not get the action of the call it broke off."""
    release = threading.Event()

    def interrupt(x: Any) -> Any:
        if x[0] == 1:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            assert release.wait(DEADLINE_S)
        return x

    with serving(interrupt) as live, Client(f"ws://127.0.0.1:{live.port}", dialect="vibe_rl") as client:
        with pytest.raises(KeyboardInterrupt):
            client.infer({"obs": np.array([1.0])})
        release.set()
        assert client.infer({"obs": np.array([2.0])}).actions.tolist() == [2.0]


def test_a_with_statement_connects_and_closes() -> None:
    with serving() as live:
        with Client(f"ws://127.0.0.1:{live.port}", dialect="vibe_rl"):
            live.until(lambda server: server.stats.sessions_open == 1)
        live.until(lambda server: server.stats.sessions_open == 0)


def test_metadata_may_be_asked_for_first() -> None:
    with serving() as live, Client(f"ws://127.0.0.1:{live.port}") as client:
        assert "policyserve" in client.metadata
