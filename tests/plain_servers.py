"""Servers that are none of ours, in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from websockets.sync.server import ServerConnection, serve


@contextmanager
def in_thread(server: Any) -> Iterator[None]:
    """Have a server with serve_forever() and shutdown() serve."""
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


@contextmanager
def plain_server(handle: Callable[[ServerConnection], None], port: int = 0, **options: Any) -> Iterator[int]:
    """A WebSocket server; gives its port."""
    with serve(handle, "127.0.0.1", port, **options) as server, in_thread(server):
        yield server.socket.getsockname()[1]
