"""Which of several policies a new session gets: drawn by their shares, the same ones again with the same seed. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass

from policyserve.core.errors import ConfigError


@dataclass(frozen=True)
class Split:
    """A route's policies and their shares, by name. seed: of the draws; None: another one each time.

    is_blind: greetings do not tell which policy it is, nor what of the policies differs.
    """

    shares: Mapping[str, float]
    seed: int | None = None
    is_blind: bool = True

    def check(self, where: str) -> None:
        """Raise ConfigError for shares that cannot be drawn by. where: what to blame."""
        expected = "shares of 0 or more, one of them above 0, such as {v1 = 0.5, v2 = 0.5}"
        fine = all(math.isfinite(share) and share >= 0 for share in self.shares.values())
        if not fine or not any(self.shares.values()):
            raise ConfigError(f"{where}: expected {expected}, got {dict(self.shares)}")


class Draws:
    """The draws of one route. seed: the split's, or the one that was made up for it, to repeat them by."""

    def __init__(self, path: str, split: Split) -> None:
        split.check(f'routes."{path}": split')
        self.path, self.split = path, split
        self.seed = random.SystemRandom().getrandbits(32) if split.seed is None else split.seed
        self._names, self._shares = list(split.shares), list(split.shares.values())
        self._random = random.Random(self.seed)

    def draw(self) -> str:
        """The policy of the next session."""
        return self._random.choices(self._names, self._shares)[0]
