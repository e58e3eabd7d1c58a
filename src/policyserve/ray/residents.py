"""The sessions that a replica keeps, where what the policy remembers of them stays with it. Pure.

An edge keeps a token in the place of the state: it comes back with each answer and goes with the next request. So a
request that reaches another replica, or this one after it has forgotten the session, is found out, and its session is
told that its state is lost.
"""

from __future__ import annotations

import os
from collections.abc import Hashable
from typing import Any, NamedTuple

from policyserve.core.errors import PolicyLost

_LOST = "the replica that kept this session is gone, or has forgotten it, and what the policy remembered with it"


class _Resident(NamedTuple):
    token: str
    seen_at: float


class Residents:
    """Sessions by their names, each with the token of its present life."""

    def __init__(self) -> None:
        self._home = os.urandom(8).hex()  # no two replicas have the same
        self._known: dict[Hashable, _Resident] = {}
        self._lives = 0

    def admit(self, session: Hashable, token: Any, now: float) -> bool:
        """A request has come; True: its session begins anew here. Raises PolicyLost for a token that is not its own."""
        known = self._known.get(session)
        if token is None:
            self._lives += 1
            self._known[session] = _Resident(f"{self._home}:{self._lives}", now)
            return True
        if known is None or known.token != token:
            raise PolicyLost(_LOST)
        self._known[session] = known._replace(seen_at=now)
        return False

    def token(self, session: Hashable) -> str | None:
        """What its edge is to bring back."""
        known = self._known.get(session)
        return None if known is None else known.token

    def forget(self, session: Hashable, token: Any) -> bool:
        """The life with that token has ended; whether it was the present one."""
        if self.token(session) != token or token is None:
            return False
        del self._known[session]
        return True

    def forget_silent(self, before: float) -> list[Hashable]:
        """Forget, and tell, those that were last seen before that time."""
        silent = [session for session, known in self._known.items() if known.seen_at < before]
        for session in silent:
            del self._known[session]
        return silent
