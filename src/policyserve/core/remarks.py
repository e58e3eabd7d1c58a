"""What is to be said of a session's observations, each thing once. Pure."""

from __future__ import annotations

from typing import Any

from policyserve.core.effects import BinaryPictures, Dropped, Mapped
from policyserve.core.pictures import binary_pictures
from policyserve.core.reading import Fitting

_LOOKED_AT = 3  # of a session's first observations: looking at a picture takes microseconds


class Remarks:
    """Keys that were dropped or mapped, and pictures of 0 and 1 alone."""

    def __init__(self) -> None:
        self._told_unknown = False
        self._looks_left = _LOOKED_AT
        self._fitting: Fitting | None = None  # until what it does was told

    def begin(self, fitting: Fitting | None) -> None:
        """Observations are read for another policy, or in another dialect, from now on."""
        self._told_unknown = False
        self._fitting = fitting

    def are_due(self, unknown: tuple[str, ...]) -> bool:
        """Whether of() would have anything to say, or to look at; unknown: the keys that no spec has."""
        return bool(self._looks_left) or bool(unknown and not self._told_unknown)

    def of(self, observation: Any, unknown: tuple[str, ...]) -> list[Dropped | Mapped | BinaryPictures]:
        """What is to be said of this observation."""
        remarks: list[Dropped | Mapped | BinaryPictures] = []
        if unknown and not self._told_unknown:
            self._told_unknown = True
            remarks.append(Dropped(unknown))
        if self._fitting is not None and self._fitting.moves:
            remarks.append(Mapped(tuple(map(str, self._fitting.moves))))
            self._fitting = None
        if self._looks_left:
            self._looks_left -= 1
            found = tuple(binary_pictures(observation))
            if found:
                self._looks_left = 0
                remarks.append(BinaryPictures(found))
        return remarks
