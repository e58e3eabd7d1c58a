"""The last refusals and failures, also of connections that never became a session, for people who ask why.

Kept whether somebody looks or not, since whoever looks comes later: a few texts, and nothing of what was sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from policyserve.core.errors import PolicyserveError, Refusal
from policyserve.core.observer import Observer
from policyserve.core.printable import one_line, text_of

_MOST = 50  # that are kept
_MOST_OF_TEXT = 300  # characters
REPLACED = "policy_replaced"


@dataclass(slots=True)
class Refused:
    """A refusal, and how often it came. session: None of a handshake. at: the last time (time.monotonic).

    path, expected, got, hint: empty where it has no such parts, and `text` says it all.
    """

    code: str
    session: int | None
    peer: str
    text: str
    path: str = ""
    expected: str = ""
    got: str = ""
    hint: str = ""
    at: float = 0.0
    count: int = 1

    def described(self, now: float) -> dict[str, Any]:
        """JSON-like, with its age."""
        told = {name: getattr(self, name) for name in ("code", "session", "peer", "text", "path", "expected", "got")}
        return {**told, "hint": self.hint, "ago_s": round(max(now - self.at, 0.0), 1), "count": self.count}


class Refusals(Observer):
    """The newest 50, the newest first; what one address repeats counts up. peer_of: who a session is with.

    Its texts are strangers': one line each, of at most 300 characters.
    """

    def __init__(self, peer_of: Callable[[int], str], clock: Callable[[], float] = time.monotonic) -> None:
        self._peer_of = peer_of
        self._clock = clock
        self._kept: dict[tuple[str, str, str], Refused] = {}  # the oldest first

    def described(self) -> list[dict[str, Any]]:
        """Those that are kept, the newest first."""
        now = self._clock()
        return [one.described(now) for one in reversed(self._kept.values())]

    def on_refusal(self, session: int, ticket: int | None, error: PolicyserveError) -> None:
        refused = Refused(one_line(error.code, 40), session, self._peer_of(session), text_of(error, _MOST_OF_TEXT))
        if isinstance(error, Refusal):
            refused.path, refused.expected = text_of(error.path, _MOST_OF_TEXT), text_of(error.expected, _MOST_OF_TEXT)
            refused.got, refused.hint = text_of(error.got, _MOST_OF_TEXT), text_of(error.hint, _MOST_OF_TEXT)
        self._keep(refused)

    def on_policy_replaced(self, name: str, reason: str) -> None:
        self._keep(Refused(REPLACED, None, "", f"{text_of(name, 40)}: {text_of(reason, _MOST_OF_TEXT)}".lstrip(": ")))

    def note_handshake(self, peer: str, code: str, reason: str) -> None:
        """A connection was refused before it had a session. code: `http_` and a status, or `tls`."""
        self._keep(Refused(code, None, peer, one_line(reason, _MOST_OF_TEXT)))

    def _keep(self, refused: Refused) -> None:
        # The address alone: a client that connects again after each refusal comes from a port of its own each time.
        key = (refused.code, refused.peer.rpartition(":")[0], refused.text)
        before = self._kept.pop(key, None)
        refused.at = self._clock()
        refused.count += before.count if before is not None else 0
        self._kept[key] = refused
        if len(self._kept) > _MOST:
            del self._kept[next(iter(self._kept))]
