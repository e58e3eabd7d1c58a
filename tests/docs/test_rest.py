"""docs/wire/rest.md: its bodies are read and written as it shows them, and its curl lines are answered."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from policyserve.core.errors import BadObservation
from policyserve.core.limits import DEFAULT_LIMITS
from policyserve.core.messages import Request, Timing
from policyserve.core.policy import ActionChunk
from policyserve.dialects.rest.plain_errors import plain_error
from policyserve.dialects.rest.recognition import FAMILIES, read_body
from policyserve.policies.fakes import demo_image
from policyserve.transforms import jpeg
from tests.cli.serving import ROOT
from tests.policies.frameworks import import_or_skip
from tests.server.live import DEADLINE_S, Live, serving

PAGE = (ROOT / "docs" / "wire" / "rest.md").read_text()
SECTIONS = {
    "openvla": "OpenVLA",
    "openvla_oft": "OpenVLA-OFT",
    "xvla": "X-VLA",
    "molmoact2": "MolmoAct2",
    "gr00t_http": "GR00T",
}
TIMING = Timing(queue_ms=0.1, infer_ms=0.5, total_ms=1.25)
ACTION = np.array([0.25, -0.5], np.float32)


def blocks(section: str) -> list[str]:
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return re.findall(r"```json\n(.*?)\n```", text)


@pytest.mark.parametrize("name", SECTIONS)
def test_a_familys_section_shows_its_request_and_its_answer(name: str) -> None:
    request, answer = blocks(SECTIONS[name])
    body = read_body(request.encode(), "/act", DEFAULT_LIMITS)
    assert body.family == name
    assert isinstance(body.heard, Request)
    assert body.heard.observation["prompt"] == "go"
    (picture,) = body.heard.observation["images"].values()
    assert picture.tolist() == [[[0, 1, 2], [3, 4, 5]]]
    family = FAMILIES[name]
    actions = ACTION if family.one_action else ACTION[None]
    assert family.write_reply(ActionChunk(actions), TIMING).decode() == answer


def test_the_plain_answers_are_as_they_are_shown() -> None:
    answer, refusal = blocks("curl")
    assert FAMILIES["json"].write_reply(ActionChunk(ACTION), TIMING).decode() == answer
    assert plain_error(BadObservation("state", "float32 (2,)", "int64 (3,)")).decode() == refusal


def test_the_array_is_one() -> None:
    (array,) = blocks("Arrays")
    heard = read_body(f'{{"x": {array}}}'.encode(), "/act", DEFAULT_LIMITS).heard
    assert isinstance(heard, Request)
    assert heard.observation["x"].shape == (1, 2, 3)


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with serving(demo_image()) as live:
        yield live


@pytest.mark.parametrize("line", re.findall(r"```bash\n(curl .*?)\n```", PAGE))
def test_a_curl_line_is_answered(live: Live, tmp_path: Path, line: str) -> None:
    import_or_skip("simplejpeg")
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    picture = bytes(jpeg.encode(np.zeros((64, 64, 3), np.uint8), 90).data)
    (tmp_path / "camera.jpg").write_bytes(picture)
    observation = {"image": base64.b64encode(picture).decode(), "state": [0.1, 0.2]}
    (tmp_path / "observation.json").write_text(json.dumps(observation))
    command = ["bash", "-c", line.replace("8000", str(live.port))]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, timeout=DEADLINE_S, check=True, stdin=subprocess.DEVNULL
    )
    assert len(json.loads(done.stdout)["actions"]) == 14
