"""Loads the policies of a server, all at once: one that cannot be loaded keeps none of the others from being served."""

from __future__ import annotations

import asyncio

from policyserve.core.events import Event
from policyserve.core.log import Log
from policyserve.core.spec import PolicySpec
from policyserve.server.catalogue import Catalogue
from policyserve.server.served import Served

log = Log(__name__)


async def load_all(catalogue: Catalogue[Served]) -> PolicySpec:
    """Load them; returns the spec of the first that can be loaded, raises what loading raised if none can."""
    if len(catalogue) == 1:
        return await catalogue.default.load()
    loaded = await asyncio.gather(*(_load_beside(served) for served in catalogue), return_exceptions=True)
    specs = [one for one in loaded if isinstance(one, PolicySpec)]
    failures = [one for one in loaded if isinstance(one, BaseException)]
    if not specs:
        raise failures[0]
    return specs[0]


async def _load_beside(served: Served) -> PolicySpec:
    """Load one of several; that it fails is told here, since the server goes on."""
    try:
        spec = await served.load()
    except Exception as error:  # a stranger's loader
        told = "policy %s cannot be loaded, its sessions are told so, and the others are served: %s"
        log.error(told, served.name, error, event=Event("failed", policy=served.name))
        log.debug("the traceback", cause=error)
        raise
    log.info("policy %s is ready", served.name, event=Event("ready", policy=served.name))
    return spec
