"""/policies/NAME: which policy is served by this name, and, by PUT with an admin's key, another one in its place.

PUT answers at once (202), since loading may take minutes; GET tells how far it is, and what came of the last one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from policyserve.core.errors import ConfigError, PolicyserveError
from policyserve.core.printable import error_text
from policyserve.engine.engine import KeptEngine
from policyserve.engine.swapping import SwappingEngine
from policyserve.engine.swaps import Swap, Swapped
from policyserve.server.catalogue import Catalogue
from policyserve.server.exchange import FindPolicy, MakeNext
from policyserve.server.routes import Asked, Response, Route, Routes, json_of, text
from policyserve.server.served import Served

_PARAMETERS = ("source", "flags", "when", "unload_first", "force", "timeout_s", "back")
_ANSWERS, _COMING, _REFUSED = "answers", "coming", "refused"


@dataclass(frozen=True)
class AskedSwap:
    """What a PUT asks for. source: what `policyserve serve` takes, with its flags; empty: back to the one before."""

    source: str
    flags: tuple[str, ...]
    how: Swap


def add_exchange_pages(routes: Routes, catalogue: Catalogue[Served], find: Callable[[], FindPolicy | None]) -> None:
    """Add a page for each policy that can be exchanged, or of which somebody knows how to do that.

    find: what finds those that are named, None if nothing can.
    """
    for served in catalogue:
        if isinstance(served.engine, KeptEngine):
            routes.add(f"/policies/{served.name}", KeptPage(served.name, served.engine).route)
        elif isinstance(served.engine, SwappingEngine) and served.next_policy is not None:
            page = ExchangePage(served.name, served.engine, served.next_policy, find)
            routes.add(f"/policies/{served.name}", page.route)


def read_swap(query: Mapping[str, str]) -> AskedSwap:
    """Read the parameters of a PUT; raises ConfigError for what they do not say, or say wrongly."""
    for name in query:
        if name not in _PARAMETERS:
            raise ConfigError(f"{name[:60]}: no parameter of PUT /policies/NAME; those are {', '.join(_PARAMETERS)}")
    source, is_back = query.get("source", ""), _flag(query, "back")
    if is_back == bool(source):
        got = "both" if is_back else "neither"
        raise ConfigError(f"source, back: expected a policy to serve or back=true, got {got}")
    timeout = query.get("timeout_s")
    how = Swap(
        when=query.get("when", "now"),  # pyright: ignore[reportArgumentType] - Swap checks it
        unload_first=_flag(query, "unload_first"),
        force=_flag(query, "force"),
        timeout_s=None if timeout is None else _number("timeout_s", timeout),
    )
    return AskedSwap(source, _words(query.get("flags", "[]")), how)


class KeptPage:
    """The page of a policy that somebody else exchanges: refuses to do it, and says how it is done."""

    def __init__(self, name: str, engine: KeptEngine) -> None:
        self.route = Route(self._respond, changes=True, is_listed=False)
        self._name, self._engine = name, engine

    def _respond(self, asked: Asked) -> Response:
        if asked.method != "PUT":
            how = self._engine.how_to_exchange("", (), sessions_stay=False)
            return json_of(200, {"policy": self._name, "exchange": how})
        try:
            swap = read_swap(asked.query)
        except ConfigError as error:
            return text(400, str(error))
        stay = swap.how.when == "next-session"
        how = self._engine.how_to_exchange(swap.source, swap.flags, sessions_stay=stay)
        return text(409, f"{self._name} is not exchanged here: {how}")


class ExchangePage:
    """The page of one policy. find: what finds the policies that are named; None where nothing can."""

    def __init__(
        self, name: str, engine: SwappingEngine, make: MakeNext, find: Callable[[], FindPolicy | None]
    ) -> None:
        self.route = Route(self._respond, changes=True, is_listed=False)
        self._name, self._engine, self._make, self._find = name, engine, make, find
        self._task: asyncio.Task[None] | None = None  # the swap that was asked for here
        self._count = 0
        self._last: dict[str, Any] = {}  # what came of the newest

    def _respond(self, asked: Asked) -> Response:
        return self._put(asked) if asked.method == "PUT" else json_of(200, self._told())

    def _told(self) -> dict[str, Any]:
        engine = self._engine
        told = {"policy": self._name, "title": engine.title, "version": engine.version, "before": engine.before}
        return {**told, "stage": engine.stage, "coming": engine.swapping, "staying": engine.staying, "last": self._last}

    def _put(self, asked: Asked) -> Response:
        try:
            swap = read_swap(asked.query)
        except ConfigError as error:
            return text(400, str(error))
        find = self._find()
        if find is None and swap.source:
            return text(501, "this server finds no policies by name: `policyserve serve` does, or call server.swap()")
        if self._task is not None:
            return text(409, f"another policy is on its way already: {self._engine.swapping or self._last['title']}")
        if refusal := self._engine.refusal():
            return text(409, refusal)
        self._count += 1
        title = swap.source or self._engine.before or "the one before"
        self._last = {"number": self._count, "state": _COMING, "title": title}
        self._task = asyncio.get_running_loop().create_task(self._swap(find, swap))
        return json_of(202, {"policy": self._name, "number": self._count})

    async def _swap(self, find: FindPolicy | None, swap: AskedSwap) -> None:
        try:
            came = self._told_of(await self._carry_out(find, swap))
        except PolicyserveError as error:
            came = {"state": _REFUSED, "error": str(error)}
        except Exception as error:  # a stranger's loader
            came = {"state": _REFUSED, "error": error_text(error)}
        finally:
            self._task = None
        self._last = {**self._last, **came}

    async def _carry_out(self, find: FindPolicy | None, swap: AskedSwap) -> Swapped:
        if not swap.source:
            return await self._engine.back(swap.how)
        assert find is not None
        found = await asyncio.to_thread(find, swap.source, swap.flags)
        return await self._engine.swap(self._make(found.load, found.title), swap.how)

    def _told_of(self, swapped: Swapped) -> dict[str, Any]:
        told = {"state": _ANSWERS, "title": swapped.title, "version": swapped.version}
        return {**told, "seconds": round(swapped.seconds, 3), "changes": list(swapped.changes)}


def _flag(query: Mapping[str, str], name: str) -> bool:
    value = query.get(name, "false")
    if value not in ("true", "false"):
        raise ConfigError(f"{name}: expected true or false, got {value!r:.60}")
    return value == "true"


def _number(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ConfigError(f"{name}: expected a number of seconds, got {value!r:.60}") from None


def _words(value: str) -> tuple[str, ...]:
    try:
        words = json.loads(value)
    except ValueError:
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ConfigError(f'flags: expected a JSON list of texts such as ["--step", "7"], got {value!r:.60}')
    return tuple(words)
