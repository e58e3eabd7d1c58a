"""Which dialect answers, and what the server says of itself."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.sync.server import ServerConnection

from policyserve.doctor import greeting
from policyserve.policies.fakes import EchoPolicy, demo_image
from tests.doctor.sick import examined, of, stand_in, take_any_time, worst
from tests.plain_servers import plain_server
from tests.server.live import serving

ACTIONS = np.zeros((2, 7), np.float32)


@pytest.fixture(autouse=True)
def on_any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    take_any_time(monkeypatch)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that stays silent does so for ever."""
    monkeypatch.setattr(greeting, "_GREETING_S", 1.0)


@pytest.mark.parametrize("path", ["", "/", "/openpi", "/wall_x", "/vibe_rl"])
def test_a_server_of_ours_tells_its_spec_at_every_path(path: str) -> None:
    with serving(demo_image()) as live:
        findings = examined(f"ws://127.0.0.1:{live.port}{path}")
    assert of(findings, "dialect").found.startswith("policyserve ")
    assert of(findings, "spec").found.split("\n") == [
        "image  uint8 image HWC, 64 x 64",
        "state  float32 (*,)",
        "-> actions  float32 (14,)",
    ]
    assert {finding.verdict for finding in findings} == {"ok"}


def test_a_unix_socket_is_examined_like_a_port(tmp_path: Any) -> None:
    with serving(EchoPolicy(), uds=str(tmp_path / "s")):
        findings = examined(f"ws+unix://{tmp_path}/s:/vibe_rl")
    assert {finding.verdict for finding in findings} == {"ok"}
    assert findings[-1].check == "round trip"


def test_a_policy_without_a_spec_is_told_and_cannot_be_asked() -> None:
    with serving() as live:
        findings = examined(f"ws://127.0.0.1:{live.port}")
    assert of(findings, "spec").verdict == "warning"
    assert findings[-1].check == "request"
    assert findings[-1].found.startswith("cannot ask")


@pytest.mark.parametrize(
    ("family", "metadata"), [("openpi", {"model": "pi0"}), ("wall_x", {"predict_mode": "fast", "action_dim": 7})]
)
def test_a_server_that_greets_is_known_by_its_greeting(family: str, metadata: dict[str, Any]) -> None:
    with stand_in(family, ACTIONS, metadata) as url:
        found = of(examined(url), "dialect")
    assert found.figures == {"family": family, "is_policyserve": False}


@pytest.mark.usefixtures("impatient")
def test_a_server_that_waits_is_taken_for_vibe_rls() -> None:
    with stand_in("vibe_rl", ACTIONS) as url:
        found = of(examined(url), "dialect")
    assert found.verdict == "ok"
    assert found.figures["family"] == "vibe_rl"


@pytest.mark.parametrize("path", ["/vibe_rl", ""])
def test_vibe_rl_asked_of_a_server_that_greets_is_the_wrong_dialect(path: str) -> None:
    with stand_in("openpi", ACTIONS) as url:
        found = worst(examined(url + path, dialect="auto" if path else "vibe_rl"))
    assert found.check == "dialect"
    assert found.cure == "use a client of openpi's: --dialect openpi"


@pytest.mark.usefixtures("impatient")
def test_openpi_asked_of_a_server_that_waits_is_the_wrong_dialect() -> None:
    with stand_in("vibe_rl", ACTIONS) as url:
        found = worst(examined(f"{url}/openpi"))
    assert "no greeting came within 1 s" in found.found
    assert "--dialect vibe_rl" in found.cure


def test_wall_x_asked_of_openpis_server_is_doubted() -> None:
    with stand_in("openpi", ACTIONS) as url:
        found = of(examined(url, dialect="wall_x"), "dialect")
    assert (found.verdict, found.cure) == ("warning", "try --dialect openpi, or another path in the URL")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"\xc1", "it greets as no policy server does"),
        (msgpack.packb([1, 2]), "it greets as no policy server does"),
        (
            "Traceback (most recent call last):\n  KeyError: 'weights'",
            "its first word is an error: KeyError: 'weights'",
        ),
        (None, "the connection ended"),
    ],
)
def test_a_greeting_that_is_none_is_told(said: Any, told: str) -> None:
    def handle(connection: ServerConnection) -> None:
        if said is not None:
            connection.send(said)
            connection.recv()

    with plain_server(handle, compression=None) as port:
        found = worst(examined(f"ws://127.0.0.1:{port}"))
    assert found.check == "dialect"
    assert found.found.startswith(told)


@pytest.mark.parametrize(
    "spec",
    [
        {"observation": {"image": {"kind": "hologram"}}},
        {"action": [1]},
        {"observation": {"state": {"kind": "array", "shape": [-3], "dtype": "float32"}}},
    ],
)
def test_a_spec_that_cannot_be_read_is_told(spec: Any) -> None:
    with stand_in("openpi", ACTIONS, {"policyserve": "9.9", "spec": spec}) as url:
        found = of(examined(url), "spec")
    assert found.verdict == "warning"
    assert "cannot be read" in found.found
