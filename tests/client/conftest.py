"""What several of the clients' tests connect to."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from policyserve.client.connecting import Place


@pytest.fixture
def silent() -> Iterator[Place]:
    """An address that answers no connection: its queue is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.family, socket.SOCK_STREAM, 0, "", listener.getsockname()
