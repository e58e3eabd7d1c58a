"""What an edge tells whoever asks it by HTTP."""

from __future__ import annotations

import http.client
import re

_NO_BALANCER = ("127.0.0.2", 0)  # of this machine, too: an edge behind a balancer expects a header from 127.0.0.1


def is_ready(url: str) -> bool:
    """Whether an edge's /readyz says so."""
    status, _ = _read(url, "/readyz")
    assert status in (200, 503)
    return status == 200


def figure(url: str, name: str) -> int:
    """A figure of an edge's /metrics that counts, summed over its labels."""
    _, page = _read(url, "/metrics")
    found = re.findall(rf"^policyserve_{name}(?:{{.*}})? (\S+)$", page, re.MULTILINE)
    return int(sum(map(float, found)))


def _read(url: str, path: str) -> tuple[int, str]:
    host, _, port = url.removeprefix("ws://").rpartition(":")
    source = _NO_BALANCER if host == "127.0.0.1" else None
    connection = http.client.HTTPConnection(host, int(port), timeout=30, source_address=source)
    try:
        connection.request("GET", path)
        told = connection.getresponse()
        return told.status, told.read().decode()
    finally:
        connection.close()
