"""Pickles in files of Stable-Baselines3, whose parts are named and never made: core/pickles.py reads them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from policyserve.core import pickles
from policyserve.core.errors import ConfigError
from policyserve.core.pickle_things import PERSISTENT, PickleFault, Thing, Vocabulary, told_of

__all__ = ["PERSISTENT", "Thing", "read_pickle", "told_of"]

_MOST_OPS = 200_000  # a network of a thousand arrays needs 30,000


def read_pickle(data: bytes | memoryview, told: str, expected: Collection[str]) -> Any:
    """The value that a pickle describes.

    told: begins each error. expected: the globals that may be named, as `module name`; PERSISTENT among them allows
    persistent ids. Raises ConfigError for any other, for opcodes of protocol 0, and for what is no pickle.
    """
    vocabulary = Vocabulary(lambda kind: kind in expected, _MOST_OPS, "Stable-Baselines3's files")
    try:
        return pickles.read_pickle(data, vocabulary)
    except PickleFault as fault:
        raise ConfigError(f"{told}: expected a pickle of known parts, got {fault} at byte {fault.place}") from None
