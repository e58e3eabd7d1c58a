"""Servers that are ill in one way each, and what the doctor says of them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import msgpack
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

from policyserve import dialects
from policyserve.core.dialect import Dialect
from policyserve.core.messages import Timing
from policyserve.core.policy import ActionChunk
from policyserve.doctor import asking, opening
from policyserve.doctor.examination import Brought, examine
from policyserve.doctor.findings import Finding
from policyserve.doctor.server import Examined
from tests.plain_servers import plain_server

Handle = Callable[[ServerConnection], None]
NOTHING = Brought()
_GREETINGS = {"openpi": {}, "wall_x": {"predict_mode": "fast"}}
TIMING = Timing(0.1, 0.2, 0.4)


def take_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing called slow: how long things take on a busy machine is no test's business."""
    monkeypatch.setattr(opening, "_SLOW_PING_MS", 1e6)
    monkeypatch.setattr(asking, "_SLOW_MS", 1e6)
    monkeypatch.setattr(asking, "_LEAST_PER_S", 0.0)


def examined(url: str, brought: Brought = NOTHING, **settings: Any) -> list[Finding]:
    """Everything that is found of a server."""
    return list(examine(Examined(url, **settings), brought))


def of(findings: list[Finding], check: str) -> Finding:
    """The first finding of a check."""
    (found, *_) = [finding for finding in findings if finding.check == check]
    return found


def worst(findings: list[Finding]) -> Finding:
    """The last finding, which is the one that is broken."""
    assert [finding for finding in findings if finding.verdict == "broken"] == findings[-1:], findings
    return findings[-1]


@contextmanager
def stand_in(family: str, actions: Any, metadata: Mapping[str, Any] | None = None, **options: Any) -> Iterator[str]:
    """A server of a family that answers every request with these actions, on plain `websockets`; gives its URL."""
    dialect: Dialect = dialects.by_name(family)

    def handle(connection: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            if dialect.greets:
                greeting = msgpack.packb(_GREETINGS[family] if metadata is None else metadata)
                connection.send(greeting or b"")
            for message in connection:
                dialect.read_request(message)
                connection.send(dialect.write_reply(ActionChunk(actions), TIMING))  # type: ignore[arg-type]

    with plain_server(handle, **{"compression": None, **options}) as port:
        yield f"ws://127.0.0.1:{port}"


@contextmanager
def tcp_server(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server of bare TCP that does this with each connection, one after the other; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_accept, args=(listener, answer))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _accept(listener: socket.socket, answer: Callable[[socket.socket], None]) -> None:
    with suppress(OSError):
        while True:
            connected, _ = listener.accept()
            with connected, suppress(OSError):
                connected.settimeout(30)
                answer(connected)


def until_closed(connected: socket.socket) -> None:
    """Say nothing until the peer has gone."""
    while connected.recv(1 << 16):
        pass


def closed_port() -> int:
    """A port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
