"""The pages of the server's port, over plain HTTP: whether it is alive, and ready."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import h11

from policyserve.bench.machine import counted
from policyserve.client.sockets import check_time, left_s
from policyserve.core.printable import one_line
from policyserve.doctor.findings import Finding, ok, warning
from policyserve.doctor.server import Examined

_MOST_BYTES = 1 << 16
_NO_PAGE = "this server has no such page, or a proxy hides it"


@dataclass(frozen=True)
class Page:
    """An answer over HTTP. headers: names in lower case."""

    status: int
    body: str
    headers: dict[str, str]

    @property
    def fields(self) -> dict[str, Any]:
        """The body's JSON object; empty where it is none."""
        try:
            told = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return told if isinstance(told, dict) else {}


def fetch(server: Examined, path: str, most_bytes: int = _MOST_BYTES, method: str = "GET") -> Page:
    """GET a page, or PUT one without a body; raises an OSError, or h11.ProtocolError for what is no HTTP.

    The body ends behind most_bytes.
    """
    deadline = server.deadline()
    with closing(server.connect(deadline)) as connected:
        asked = h11.Connection(h11.CLIENT)
        host = urlsplit(server.address.http_url).netloc.rpartition("@")[2]
        headers = [("Host", host), ("Connection", "close"), ("User-Agent", "policyserve")]
        if server.authorization is not None:  # the stage of loading is told to those with a key
            headers.append(("Authorization", server.authorization))
        connected.sendall(asked.send(h11.Request(method=method, target=path, headers=headers)) or b"")
        connected.sendall(asked.send(h11.EndOfMessage()) or b"")
        return _read(connected, asked, deadline, most_bytes)


def _read(connected: socket.socket, asked: h11.Connection, deadline: float, most_bytes: int) -> Page:
    status, headers, body = 0, {}, b""
    while len(body) < most_bytes:
        event = asked.next_event()
        if event is h11.NEED_DATA:
            connected.settimeout(left_s(deadline))
            try:
                asked.receive_data(connected.recv(_MOST_BYTES))
            except ConnectionResetError:
                asked.receive_data(b"")
            check_time(deadline)
        elif isinstance(event, h11.Response):
            status = event.status_code
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif not isinstance(event, h11.InformationalResponse):
            break
    return Page(status, body.decode("utf-8", "replace"), headers)


def pages(server: Examined) -> Iterator[Finding]:
    """Ask whether the server is alive and ready."""
    yield _health(server)
    yield _readiness(server)


def _health(server: Examined) -> Finding:
    try:
        page = fetch(server, "/healthz")
    except TimeoutError:
        cure = "its policy may hold its event loop: a server that answers no page while it infers is busy"
        return warning("health", f"GET /healthz: no answer within {server.timeout_s:g} s", cure)
    except (OSError, h11.ProtocolError) as error:
        return warning("health", f"GET /healthz: {error}", _NO_PAGE)
    if page.status != 200:
        return warning("health", f"GET /healthz: HTTP {page.status}", _NO_PAGE)
    told, figures = page.fields, {"http_status": page.status}
    requests, mean_ms = told.get("requests"), told.get("avg_latency_ms")
    if isinstance(requests, int) and isinstance(mean_ms, (int, float)):
        took = f" in {mean_ms:.1f} ms on average" if requests else ""
        text = f"alive, {counted(requests, 'request')} so far{took}"
        return ok("health", text, **figures, requests=requests, avg_latency_ms=mean_ms)
    return ok("health", "alive", **figures)


def _readiness(server: Examined) -> Finding:
    name = _first_of_path(server)
    page = _found(server, f"/readyz/{name}") if name else Page(404, "", {})
    if page.status == 404:  # no policy has this name: it may be a dialect's
        name, page = "", _found(server, "/readyz")
    status = page.fields.get("status")
    if not name and page.status == 503 and (others := _others_that_wait(server)):
        return ok("readiness", f"ready: the default policy is loaded, and not yet {others}", is_ready=True)
    if page.status == 200 and status == "ready":
        return ok("readiness", "ready: the policy is loaded", is_ready=True)
    if page.status == 503 and status == "loading":
        stage = str(page.fields.get("stage") or "it tells the stage to those with a key alone")
        cure = "wait, and ask again; the server's own terminal shows how far it is, and what failed"
        return warning("readiness", f"not ready: {stage}", cure, is_ready=False, stage=stage)
    return ok("readiness", "not told: only servers of ours have /readyz", is_ready=None)


def _found(server: Examined, path: str) -> Page:
    """A page, or an empty one where nothing is to be had."""
    try:
        return fetch(server, path)
    except (OSError, h11.ProtocolError):
        return Page(0, "", {})


def _first_of_path(server: Examined) -> str:
    """What a URL's path begins with: the name of a policy, where a server has several."""
    return urlsplit(server.address.http_url).path.strip("/").partition("/")[0]


def _others_that_wait(server: Examined) -> str:
    """The names of those of several policies that are not ready, if the default one is; else empty."""
    told = _found(server, "/policies").fields.get("policies")
    policies = [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []
    if not any(one.get("is_default") and one.get("is_ready") is True for one in policies):
        return ""
    return one_line(", ".join(str(one.get("name")) for one in policies if one.get("is_ready") is not True), 200)
