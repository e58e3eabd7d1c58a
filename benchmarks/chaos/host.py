"""The server of the soak, a program of its own that can be asked how it stands.

It gets its settings as JSON, prints a JSON line when it listens, one when its policy is ready, one for each line on
stdin, and one at its end.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
from collections.abc import Mapping
from typing import Any

from policyserve.core.memory import give_back
from policyserve.core.observer import Observer, SessionFacts
from policyserve.core.recipe import Recipe
from policyserve.core.spec import PolicySpec
from policyserve.server.config import ServerConfig
from policyserve.server.conversation import Conversation
from policyserve.server.server import Server

_OF_OURS = ("asyncio", "policyserve.engine.scheduler")  # loggers whose errors no fault of policy or peer explains


class Host(Server):
    """The server, with a memory for the sessions of the last act."""

    complaints: list[str]
    last_sessions: list[Conversation] | None = None
    replaced = 0  # how often its policy was

    async def __aenter__(self) -> Host:
        await super().__aenter__()
        others = {"gr00t": self.gr00t and self.gr00t.port, "lerobot": self.lerobot and self.lerobot.address.port}
        say({"port": self.address.port, **others})
        return self

    def facts(self) -> Mapping[str, Any]:
        """What is there now."""
        return {
            "tasks": len(asyncio.all_tasks()),
            "sessions": self.counters.sessions_open,
            "strangers": self.reception.waiting,
            "pending": sum(one.session.pending for one in self.reception.conversations),
            "stage": self.reception.stage or self.engine.stage,
            "replaced": self.replaced,
        }

    def settle(self) -> None:
        """Give back what is kept to be used again, so that what is left is in use; where the C library can do that."""
        gc.collect()
        give_back()

    def remember(self) -> None:
        """Remember the sessions from now on."""
        self.last_sessions = []
        self.observers.add(LastSessions(self, self.last_sessions))

    def result(self) -> Mapping[str, Any]:
        """What is to be said at the end."""
        accepted = sum(session.session.received for session in self.last_sessions or ())
        return {
            "accepted": accepted,
            "answered": self.counters.requests,
            "errors": dict(self.counters.errors),
            "complaints": self.complaints[:20],
        }


class LastSessions(Observer):
    """Keeps the conversations that are opened."""

    def __init__(self, host: Host, kept: list[Conversation]) -> None:
        self._host = host
        self._kept = kept

    def on_session_opened(self, session: SessionFacts) -> None:
        self._kept.append(self._host.reception.conversations[-1])


class Replacements(Observer):
    """Counts how often the policy is replaced."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def on_policy_replaced(self, name: str, reason: str) -> None:
        self._host.replaced += 1


class Complaints(logging.Handler):
    """Keeps what must not be logged."""

    def __init__(self, kept: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        if record.name in _OF_OURS:
            self._kept.append(f"{record.name}: {record.getMessage()} {record.exc_info or ''}"[:1000])


async def serve(settings: Mapping[str, Any], gate: str | None) -> None:
    """Run until a signal comes. gate: a file, until whose end the policy loads."""
    host = Host(Recipe("chaos.policy:load", {"gate": gate}), ServerConfig(**settings))
    host.complaints = []
    host.observers.add(Replacements(host))
    logging.getLogger().addHandler(Complaints(host.complaints))

    def on_ready(_: PolicySpec) -> None:
        say({"is_ready": True})

    listening = asyncio.create_task(obey(host))
    listening.add_done_callback(lambda _: host.stop())  # the soak is gone, or we have a fault of our own
    try:
        await host.run(on_ready)
    finally:
        listening.cancel()
    if listening.done() and (error := listening.exception()) is not None:
        raise error
    say(host.result())


async def obey(host: Host) -> None:
    """Answer each line on stdin.

    `last act` has the server remember its sessions from then on, `settle` has it give back memory.
    """
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        if line.strip() == b"last act":
            host.remember()
        elif line.strip() == b"settle":
            host.settle()
        say(host.facts())
    transport.close()  # named until here: uvloop forgets a pipe that nobody holds


def say(message: Mapping[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def main() -> None:
    """Read the settings and serve, on the loop that they name."""
    settings = json.loads(sys.argv[1])
    loop, gate = settings.pop("loop"), settings.pop("gate", None)
    logging.basicConfig(format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", level=logging.WARNING)
    if loop == "uvloop":
        import uvloop

        uvloop.run(serve(settings, gate))
    else:
        asyncio.run(serve(settings, gate))


if __name__ == "__main__":
    main()
