"""What openpi's and Wall-X's servers serve: an object that answers one observation at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class BasePolicy(ABC):
    """Subclass it, or bring any object with the same `infer`.

    A server calls `infer` in a thread of its own, one call at a time, with the observations of all its sessions.
    """

    @abstractmethod
    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        """Answer an observation with a map that holds `actions` or `action`; what else it holds is sent along."""

    def reset(self) -> None:  # noqa: B027  # most policies have nothing to do here
        """Forget what came before. A server calls it when a session begins, while no other session is open."""

    @property
    def metadata(self) -> dict[str, Any]:
        """What clients are told when they connect."""
        return {}
