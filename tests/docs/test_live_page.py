"""docs/live_page.md names what /live.json has, and its pictures are small and whole."""

from __future__ import annotations

import json
import re

import pytest

from policyserve.cli.arguments.server_flags import groups
from tests.cli.serving import ROOT
from tests.server.live import ask, serving

PAGE = (ROOT / "docs" / "live_page.md").read_text()
README = (ROOT / "README.md").read_text()
ROW = re.compile(r"^\| `(\w+)` \| (.*) \|$", re.MULTILINE)


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
