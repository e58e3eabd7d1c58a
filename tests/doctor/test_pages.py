"""Whether the server is alive and ready."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from policyserve.core.policy import as_policy
from policyserve.doctor.pages import pages
from policyserve.doctor.server import Examined
from policyserve.server.splits import Split
from tests.doctor.sick import examined, of, stand_in
from tests.plain_servers import in_thread
from tests.server.live import DEADLINE_S, always, running, serving
from tests.server.test_offers import failing, make

KEY = "a-key-of-16-letters"


@pytest.mark.parametrize("by", ["none", "key", "url"])
def test_a_server_that_is_still_loading_tells_its_stage_and_is_not_asked(by: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    keys.chmod(0o600)
    may_load = threading.Event()

    def load(on_stage: Any) -> Any:
        on_stage("reading weights")
        assert may_load.wait(DEADLINE_S)
        return as_policy(lambda observation: observation)

    with serving(load=load, isolate="thread", api_key_file=None if by == "none" else str(keys)) as live:
        try:
            live.until(lambda server: server.reception.stage == "reading weights")
            user = f"robot:{KEY}@" if by == "url" else ""
            findings = examined(f"ws://{user}127.0.0.1:{live.port}", api_key=KEY if by == "key" else None)
        finally:
            may_load.set()
        live.ready()
    assert findings[-1].check == "readiness"
    assert findings[-1].verdict == "warning"
    assert findings[-1].found == "not ready: reading weights"
    assert findings[-1].figures == {"is_ready": False, "stage": "reading weights"}


def test_a_ready_server_tells_what_it_has_answered() -> None:
    with serving() as live:
        findings = examined(f"ws://127.0.0.1:{live.port}")
    assert of(findings, "health").figures["requests"] == 0
    assert of(findings, "readiness").figures == {"is_ready": True}


def test_of_several_policies_the_one_of_the_urls_path_is_asked_for() -> None:
    offers = {"arm": always(as_policy(lambda x: x)), "gone": failing}
    with running(make(offers, {"/both": Split({"arm": 1, "gone": 1})})) as live:
        live.ready()
        found = {
            path: of(examined(f"ws://127.0.0.1:{live.port}{path}"), "readiness")
            for path in ("", "/arm", "/arm/openpi", "/openpi", "/gone", "/both")
        }
        (*_, refused) = examined(f"ws://127.0.0.1:{live.port}/arn")
    ready = {path: finding.figures["is_ready"] for path, finding in found.items()}
    assert ready == {"": True, "/arm": True, "/arm/openpi": True, "/openpi": True, "/gone": False, "/both": False}
    assert found[""].found == "ready: the default policy is loaded, and not yet gone"
    assert "did you mean /arm?" in refused.found
    assert refused.cure == "connect to one of those that there are"


def test_a_server_of_another_family_has_no_readiness() -> None:
    with stand_in("openpi", [0.0]) as url:
        findings = examined(url)
    assert of(findings, "readiness").figures == {"is_ready": None}
    assert of(findings, "readiness").verdict == "ok"


@contextmanager
def web_server(status: int, body: bytes) -> Iterator[str]:
    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Pages) as server, in_thread(server):
        yield f"ws://127.0.0.1:{server.server_port}"


@pytest.mark.parametrize(
    ("status", "body", "verdict", "told"),
    [
        (200, b"OK\n", "ok", "alive"),
        (200, b'{"requests": 3, "avg_latency_ms": 1.25}', "ok", "alive, 3 requests so far in 1.2 ms on average"),
        (200, b'{"requests": 1, "avg_latency_ms": 1.25}', "ok", "alive, 1 request so far in 1.2 ms on average"),
        (200, b'{"requests": "many"}', "ok", "alive"),
        (200, b"[" * 100_000, "ok", "alive"),
        (404, b"", "warning", "GET /healthz: HTTP 404"),
        (500, b"x" * 1_000_000, "warning", "GET /healthz: HTTP 500"),
    ],
)
def test_every_page_is_understood(status: int, body: bytes, verdict: str, told: str) -> None:
    with web_server(status, body) as url:
        health, readiness = pages(Examined(url))
    assert (health.verdict, health.found) == (verdict, told)
    assert readiness.figures["is_ready"] is None
