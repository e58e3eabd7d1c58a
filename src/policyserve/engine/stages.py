"""Brings what loading is at from the thread that loads a policy to the event loop."""

from __future__ import annotations

import asyncio

from policyserve.core.log import Log
from policyserve.core.recipe import OnStage

log = Log(__name__)


def from_any_thread(loop: asyncio.AbstractEventLoop, on_stage: OnStage) -> OnStage:
    """What calls `on_stage` in the loop's thread, whoever calls it; a loop that has ended is told nothing."""

    def tell(stage: str) -> None:
        try:
            loop.call_soon_threadsafe(on_stage, stage)
        except RuntimeError:
            log.debug("the loop ended while a policy loaded")

    return tell
