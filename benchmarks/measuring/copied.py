"""`policyserve` that copies each message once, into memory that it has, and does nothing with it; for recordings.py.

python -m measuring.copied serve measuring.policies:aloha_inline
"""

from __future__ import annotations

import sys
from typing import Any

from policyserve.cli import main as serve
from policyserve.core.messages import EncodedText, Message
from policyserve.core.observer import Observer
from policyserve.server.server import Server

from .ablated import replace

_ROOM = 1 << 26


class Copier(Observer):
    """What a recorder cannot do without: the policy may change a message as soon as it has it."""

    def __init__(self) -> None:
        self._room = memoryview(bytearray(_ROOM))

    def on_message(self, session: int, message: Message | EncodedText, arrived_at: float) -> None:
        if isinstance(message, (bytes, bytearray, memoryview)):
            self._room[: len(message)] = message


def copy_each_message() -> None:
    started = Server.__init__

    def start(self: Server, *arguments: Any, **named: Any) -> None:
        started(self, *arguments, **named)
        self.observers.add(Copier())

    replace(Server, "__init__", start)


if __name__ == "__main__":
    copy_each_message()
    serve(sys.argv[1:])
