"""How often a group of requests is sent: replicas that are lost with it count, and those that fall silent. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Tries:
    """How often requests were sent in vain. lost: with their replica; silent: without an answer in time.

    most: that may be lost, since a request may be what kills; twice as many may be silent.
    """

    most: int
    lost: int = 0
    silent: int = 0
    is_alone: bool = False

    @property
    def are_spent(self) -> bool:
        """Whether no replica is asked any more."""
        return self.lost >= self.most or self.silent >= 2 * self.most

    @property
    def want_alone(self) -> bool:
        """Whether the next call is the last one, after others were lost, and has other requests with it."""
        return 0 < self.lost == self.most - 1 and not self.is_alone
