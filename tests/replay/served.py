"""Policies by name: the one that was recorded, and one of another checkpoint."""

from __future__ import annotations

from tests.replay.recorded import toy

same = toy()
other = toy(1.25)
