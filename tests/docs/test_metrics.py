"""docs/metrics.md names what /metrics has, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.cli.serving import ROOT
from tests.server.live import ask, serving

PAGE = (ROOT / "docs" / "metrics.md").read_text()
DASHBOARD = (ROOT / "docs" / "grafana" / "policyserve.json").read_text()
ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| (.*?) ?\| ", re.MULTILINE)
ENDINGS = ("_bucket", "_sum", "_count")


@pytest.fixture(scope="module")
def families() -> dict[str, Metric]:
    """What a server tells that has answered a request, by the name that stands in Prometheus."""
    with serving() as live, live.websocket() as peer:
        ask(peer, 1.0)
        text = live.http("GET", "/metrics")[1].decode()
    found = list(text_string_to_metric_families(text))
    return {one.name + ("_total" if one.type == "counter" else ""): one for one in found}


def rows() -> dict[str, tuple[str, set[str]]]:
    """Kind and labels by name, as the page's table has them."""
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in ROW.findall(PAGE)}


def labels_of(family: Metric) -> set[str]:
    return {label for sample in family.samples for label in sample.labels} - {"le"}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="what is told of a process is of Linux")
def test_the_table_has_every_name_with_its_kind_and_its_labels(families: dict[str, Metric]) -> None:
    assert rows() == {name: (family.type, labels_of(family)) for name, family in families.items()}


@pytest.mark.parametrize("text", [PAGE, DASHBOARD], ids=["the page", "the dashboard"])
def test_no_other_name_is_told_of(text: str) -> None:
    named = set(re.findall(r"\b(?:policyserve|process)_\w+", text))
    known = {*rows(), *(name + ending for name in rows() for ending in ENDINGS)}
    assert named - known == set()


def test_the_dashboards_panels_lie_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD)["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
