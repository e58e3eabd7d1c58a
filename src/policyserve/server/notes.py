"""Lines of the log about peers: of many alike only some are logged, whatever a client does."""

from __future__ import annotations

import logging
import time

from policyserve.core.events import Event
from policyserve.core.log import Log
from policyserve.core.throttle import LogThrottle, suppressed_note

_MOST_TOLD = 1000  # clients that ask by HTTP, and what they speak


class Notes:
    """Logs them. log: of the module whose lines they are."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._throttle = LogThrottle()
        self._told: set[tuple[str, str, str]] = set()  # who asks by HTTP, as it was logged

    def note(
        self,
        address: str,
        level: int,
        kind: str,
        text: str,
        *args: object,
        event: Event,
        cause: BaseException | None = None,
    ) -> None:
        """Log a line; of many of one kind only some, which say how many were left out.

        Lines are counted for each peer's address, and for all: those of a policy that fails whoever asks.
        """
        suppressed = self._throttle.passes(kind, address, time.monotonic())
        if suppressed is not None:
            size = self._log.log(level, text + "%s", *args, suppressed_note(suppressed), event=event, cause=cause)
            self._throttle.spend(kind, address, size)

    def note_briefly(
        self,
        address: str,
        level: int,
        kind: str,
        text: str,
        *args: object,
        event: Event,
        cause: BaseException | None = None,
    ) -> None:
        """As note(), of clients that connect for each request: that they come is told once, and never that they go."""
        who = address, kind, str(args[-1])  # which policy by which key, or which dialect
        if level > logging.INFO or (kind in ("opened", "speaks") and who not in self._told):
            if len(self._told) < _MOST_TOLD and level == logging.INFO:
                self._told.add(who)
            self.note(address, level, kind, text, *args, event=event, cause=cause)
        else:
            self._log.debug(text, *args, event=event)
