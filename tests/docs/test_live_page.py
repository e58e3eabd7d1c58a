"""docs/live_page.md names what /live.json has, and its pictures are small and whole."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest

from policyserve.cli.arguments.server_flags import groups
from tests.cli.serving import POLICYSERVE, ROOT
from tests.cli.serving import serving as serving_command
from tests.server.live import ask, serving

PAGE = (ROOT / "docs" / "live_page.md").read_text()
README = (ROOT / "README.md").read_text()
KEY = "a-key-of-many-letters"
ROW = re.compile(r"^\| `(\w+)` \| (.*) \|$", re.MULTILINE)


def blocks() -> list[str]:
    return re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)


def rows() -> dict[str, set[str]]:
    """The names that stand in each row of the table."""
    return {name: set(re.findall(r"`(\w+)`", told)) for name, told in ROW.findall(PAGE)}


def test_the_table_has_every_key_of_the_data() -> None:
    with serving() as live, live.websocket() as peer:
        ask(peer, 1.0)
        told = json.loads(live.http("GET", "/live.json?session=1")[1])
    named = rows()
    assert set(told) - {"format"} <= {*named, "sessions_left_out"}
    for key in ("server", "policy", "numbers", "history", "selected"):
        assert set(told[key]) <= named[key], key
    assert set(told["sessions"][0]) <= named["sessions"]


@pytest.mark.parametrize("text", [PAGE, README], ids=["the page", "README"])
def test_its_pictures_are_there_and_small(text: str) -> None:
    named = re.findall(r"!\[.+?\]\((\S*live_\w+\.png)\)", text)
    assert named
    for name in named:
        path = (ROOT / "docs" / name) if text is PAGE else ROOT / name
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size < 300_000


def test_the_flags_that_it_names_are_flags() -> None:
    named = {name.replace("-", "_") for name in re.findall(r"--no-([a-z-]+)", PAGE)}
    assert named == {"live", "live_images"}
    assert named <= set(groups())


def test_the_command_serves_and_says_where_to_look() -> None:
    words = shlex.split(blocks()[0])
    assert words[0] == "policyserve"
    with serving_command([*POLICYSERVE, *words[1:], "--host", "127.0.0.1", "--port", "0"]) as server:
        found = re.search(r"^  watch   (http://\S+/)$", "".join(server.lines), re.MULTILINE)
        assert found
        with urllib.request.urlopen(found[1]) as answer:
            assert b"<title>policyserve</title>" in answer.read()


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl command here")
def test_the_commands_for_programs_get_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLICYSERVE_API_KEY", KEY)
    with serving() as live:
        for command, is_let_in in zip(blocks()[1].splitlines(), (False, True), strict=True):
            command = command.replace("localhost:8000", f"127.0.0.1:{live.port}").replace("KEY", KEY)
            words = shlex.split(command)
            done = subprocess.run([*words, "-s"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
            assert done.stdout.startswith('{"format":1') is is_let_in
