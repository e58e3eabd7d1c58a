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
        is_brief: bool = False,
    ) -> None:
        """Log a line; of many of one kind only some, which say how many were left out.

        Lines are counted for each peer's address, and for all: those of a policy that fails whoever asks. is_brief: of
        clients that connect for each request: it is told once that they come, and never that they go.
        """
        if is_brief and not self._is_news(level, kind, (address, kind, str(args[-1]))):
            self._log.debug(text, *args, event=event)
            return
        suppressed = self._throttle.passes(kind, address, time.monotonic())
        if suppressed is not None:
            size = self._log.log(level, text + "%s", *args, suppressed_note(suppressed), event=event, cause=cause)
            self._throttle.spend(kind, address, size)

    def _is_news(self, level: int, kind: str, who: tuple[str, str, str]) -> bool:
        """Whether a line is a warning, or the first of who comes: an address, by which key or in which dialect."""
        if level > logging.INFO:
            return True
        if kind not in ("opened", "speaks") or who in self._told:
            return False
        if len(self._told) < _MOST_TOLD:
            self._told.add(who)
        return True
