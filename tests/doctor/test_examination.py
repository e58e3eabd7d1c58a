"""All checks together: a healthy server, and a client's recorded message against a server's spec."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve import dialects
from policyserve.doctor.examination import Brought
from policyserve.doctor.findings import Finding
from policyserve.doctor.given import read_frame
from policyserve.policies.fakes import demo_image
from tests.cli.serving import ROOT
from tests.doctor.sick import examined, of, stand_in, take_any_time
from tests.server.live import serving

IMAGE, STATE = np.zeros((64, 64, 3), np.uint8), np.zeros(5, np.float32)
ASKED = Brought({"state": STATE}, "seen.npz")


@pytest.fixture(autouse=True)
def on_any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    take_any_time(monkeypatch)


def brought(tmp_path: Path, dialect: str = "openpi", **observation: Any) -> Brought:
    """A frame as a client of this dialect sends it."""
    path = tmp_path / "frame.bin"
    path.write_bytes(dialects.by_name(dialect).write_request(observation))
    return Brought(frame=read_frame(path), frame_name=path.name)


def of_frame(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.check == "frame"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(demo_image()) as live:
        yield f"ws://127.0.0.1:{live.port}"


def test_a_healthy_server_passes_every_check(url: str) -> None:
    findings = examined(url)
    assert {finding.verdict for finding in findings} == {"ok"}
    checks = ["connection", "handshake", "proxy", "health", "readiness", "dialect", "spec"]
    assert [finding.check for finding in findings] == [*checks, "request", "answer", "round trip", "images"]


@pytest.mark.parametrize("dialect", ["openpi", "wall_x", "vibe_rl"])
def test_a_good_frame_of_any_dialect_is_as_the_spec_has_it(url: str, tmp_path: Path, dialect: str) -> None:
    (found,) = of_frame(examined(url, brought(tmp_path, dialect, image=IMAGE, state=STATE)))
    assert found.verdict == "ok"
    assert dialect in found.found


@pytest.mark.parametrize(
    ("observation", "told", "cure"),
    [
        (
            {"cam": IMAGE, "state": STATE},
            "image: expected uint8 image HWC, 64 x 64, got no such key, but cam",
            "rename cam to image",
        ),
        ({"image": IMAGE.transpose(2, 0, 1), "state": STATE}, "image: expected", "turn its axes"),
        ({"image": IMAGE / np.float32(255), "state": STATE}, "image: expected", "send uint8: (image * 255)"),
        ({"image": IMAGE}, "state: expected float32 (*,), got no such key", "send it as state"),
    ],
)
def test_what_the_spec_dislikes_in_a_frame_is_told_key_by_key(
    url: str, tmp_path: Path, observation: dict[str, Any], told: str, cure: str
) -> None:
    (found,) = of_frame(examined(url, brought(tmp_path, **observation)))
    assert found.verdict == "broken"
    assert found.found.startswith(told)
    assert found.cure.startswith(cure)


def test_a_frame_that_nobody_can_read_is_told(url: str, tmp_path: Path) -> None:
    (tmp_path / "frame.bin").write_bytes(b"\x82\xa3abc")
    (found,) = of_frame(examined(url, Brought(frame=read_frame(tmp_path / "frame.bin"))))
    assert found.verdict == "broken"
    assert "record one whole message" in found.cure


def test_a_frame_is_asked_with_where_the_server_has_no_spec(tmp_path: Path) -> None:
    with stand_in("openpi", np.zeros(2, np.float32)) as url:
        findings = examined(url, brought(tmp_path, image=IMAGE))
    assert of_frame(findings)[0].verdict == "warning"
    assert of(findings, "request").found.startswith("made of frame.bin")
    assert of(findings, "answer").verdict == "ok"


def test_a_frame_of_another_dialect_than_the_servers_is_told(tmp_path: Path) -> None:
    with stand_in("openpi", np.zeros(2, np.float32)) as url:
        findings = examined(url, brought(tmp_path, "vibe_rl", obs=STATE))
    assert of_frame(findings)[0].found.endswith("bytes of vibe_rl, and the server speaks openpi")


@contextmanager
def program(*command: str) -> Iterator[str]:
    """A stand-in for an original server, in a process of its own, with nothing of ours; gives its URL."""
    with subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"ws://\S+", process.stdout.readline())
            assert found is not None
            yield found.group()
        finally:
            process.terminate()


@pytest.mark.parametrize(
    ("family", "command"),
    [
        ("openpi", ["benchmarks/rivals/metadata_first.py", "--family", "openpi"]),
        ("wall_x", ["benchmarks/rivals/metadata_first.py", "--family", "wall_x"]),
        ("vibe_rl", ["benchmarks/rivals/vibe_rl.py", "--policy", "zeros"]),
    ],
)
def test_the_originals_stand_ins_are_known_and_asked(family: str, command: list[str]) -> None:
    with program(*command) as url:
        findings = examined(url, ASKED, timeout_s=10)
    assert of(findings, "dialect").figures["family"] == family
    assert of(findings, "answer").found == "float32 (32, 7), all finite"
    assert of(findings, "round trip").verdict == "ok"
    assert [finding for finding in findings if finding.verdict == "broken"] == []
