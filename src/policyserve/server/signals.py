"""Signals that call functions in an event loop."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def signals_call(handlers: Mapping[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    """Have signals call functions; only the main thread may take signals, elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    for number, function in handlers.items():
        loop.add_signal_handler(number, function)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
