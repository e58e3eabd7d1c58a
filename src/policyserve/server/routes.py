"""What plain HTTP requests on the server's port get: a pure table, to which each part of the server adds its pages."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

from policyserve.core.printable import one_line

# Not Api-Key or Bearer beside it: a browser that reads one of those first does not ask its user.
_ASK_FOR_KEY = (("WWW-Authenticate", 'Basic realm="policyserve"'),)


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP answer."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks for a page. has_key: it has one of the server's keys, or none is needed.

    is_trusted_page: no web page of a stranger can have sent this: see Admission. is_admin: its key may change what is
    served; nobody's may where no key is needed. key: its name, empty where it has none.
    """

    has_key: bool = True
    is_trusted_page: bool = True
    is_admin: bool = False
    key: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a page is asked for. query: of `?name=value` the last value of each name. method: one of the route's."""

    caller: Caller
    query: Mapping[str, str]
    method: str = "GET"


Answer: TypeAlias = Callable[[Asked], Response]


@dataclass(frozen=True, slots=True)
class Route:
    """A page. needs_key: where the server has keys, only who has one gets it.

    is_private: it shows what a policy sees: a browser gets it by a host name that no stranger owns, or with a key.
    shares_path: a WebSocket handshake at its path opens a session all the same.
    is_listed: it is named to whoever asks for a path without a page; not what only another page asks for.
    changes: whether it takes PUT as well, from an admin's key alone.
    """

    answer: Answer
    needs_key: bool = True
    is_private: bool = False
    shares_path: bool = False
    is_listed: bool = True
    changes: bool = False


class Routes:
    """The pages of one server, by path."""

    def __init__(self) -> None:
        self._routes: dict[str, Route] = {}
        self._asked_by_post: tuple[str, ...] = ()

    def add_post(self, *paths: str) -> None:
        """Have these paths, also below a policy's name, asked by POST, with a body; somebody else answers."""
        self._asked_by_post += paths

    def takes_body(self, path: str) -> bool:
        """Whether `path` is asked by POST, with a body."""
        return path.endswith(self._asked_by_post)

    def add(self, path: str, route: Route) -> None:
        """Answer requests for `path` from now on; a path has one page."""
        assert path not in self._routes, f"{path} has a page already"
        self._routes[path] = route

    @property
    def paths(self) -> tuple[str, ...]:
        """Those that have a page."""
        return (*self._routes, *self._asked_by_post)

    def is_page(self, path: str) -> bool:
        """Whether `path` is answered over HTTP even to a WebSocket handshake."""
        route = self._routes.get(path)
        return route is not None and not route.shares_path

    def respond(self, method: str, path: str, query: str, caller: Caller) -> Response:
        """Answer a request that is no WebSocket handshake."""
        route = self._routes.get(path)
        if self.takes_body(path):
            told = f"{path} answers POST with a JSON body; docs/wire/rest.md says what is in it"
            return text(405, told, (("Allow", "POST"),))
        if route is None:
            return text(404, f"no page at this path; {self._instead_of(path, caller)}")
        methods = ("GET", "PUT") if route.changes else ("GET",)
        if method not in methods:
            return text(405, f"{path} answers {' and '.join(methods)}", (("Allow", ", ".join(methods)),))
        if route.needs_key and not caller.has_key:
            return text(401, f"{path} needs an API key: send `Authorization: Bearer KEY`", _ASK_FOR_KEY)
        if route.is_private and not caller.is_trusted_page:
            told = "open it by its IP address, or let this name in with --allowed-origins http://NAME:PORT"
            return text(403, f"{path} is not shown under a host name that strangers may own: {told}")
        if method == "PUT" and not caller.is_admin:
            return text(403, f"PUT {path} needs an admin's key: a line `NAME admin: KEY` in --api-key-file")
        return route.answer(Asked(caller, dict(parse_qsl(query)), method))

    def _instead_of(self, path: str, caller: Caller) -> str:
        """Which pages there are: those beside that path, such as other policies', or else those that are listed."""
        above = path.rpartition("/")[0] + "/"
        beside = [one for one, page in self._routes.items() if one.startswith(above) and _may_see(page, caller)]
        if above != "/" and beside:
            return f"there are {', '.join(beside)}"
        pages = ", ".join(path for path, page in self._routes.items() if page.is_listed)
        return f"robots connect here by WebSocket, pages are {pages}"


def _may_see(page: Route, caller: Caller) -> bool:
    return (caller.has_key or not page.needs_key) and (caller.is_trusted_page or not page.is_private)


def text(status: int, message: str, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """A one-line answer for people."""
    return Response(status, f"{one_line(message)}\n".encode(), "text/plain; charset=utf-8", headers)


def json_of(status: int, fields: Mapping[str, Any]) -> Response:
    """An answer for programs."""
    return Response(status, json.dumps(fields, separators=(",", ":")).encode() + b"\n")
