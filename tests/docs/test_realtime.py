"""docs/realtime.md: its commands and programs run, its figures are those that they print, its pictures are there."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.cli import main
from policyserve.policies.demo_flow import FlowDemo, Scene
from policyserve.policies.rtc import Rtc
from tests.cli.serving import ROOT
from tests.docs.promises import exists, named_tests
from tests.policies.frameworks import import_or_skip
from tests.server.live import serving

DOCS = ROOT / "docs"
PAGE = (DOCS / "realtime.md").read_text()
EVALUATIONS = re.findall(r"^(policyserve eval .*)$", PAGE, re.MULTILINE)
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


class Robot:
    """What the page's programs call `robot`: the point of demo_flow's scene."""

    def __init__(self) -> None:
        self._scene, self._step = Scene(5000), 0
        self._position = self._scene.start
        self.sent = 0

    def observe(self) -> dict[str, Any]:
        return dict(self._scene.observation(self._step, self._position))

    def send(self, values: Any) -> None:
        if values is not None:
            assert values.shape == (2,)
            self._position = self._scene.moved(self._position, values)
            self.sent += 1
        self._step += 1

    def send_action(self, action: dict[str, float]) -> None:
        self.send(np.array([action["x.pos"], action["y.pos"]]))


def agent(_: Any) -> Any:
    return np.zeros((20, 1), np.float32)


def told(table: str, row: str) -> str:
    (line,) = re.findall(rf"^{row} +(.*)$", table, re.MULTILINE)
    return line


@pytest.fixture(scope="module")
def tables() -> dict[str, str]:
    """What each evaluation prints."""
    import_or_skip("gymnasium")
    printed = {}
    for command in EVALUATIONS:
        with pytest.MonkeyPatch.context() as patch:
            lines: list[str] = []
            patch.setattr("builtins.print", lambda *words, lines=lines, **_: lines.append(" ".join(map(str, words))))
            main(shlex.split(command)[1:])
        printed[command] = "\n".join(lines)
    return printed


def test_the_evaluations_print_the_figures_that_the_page_shows(tables: dict[str, str]) -> None:
    (shown,) = re.findall(r"```text\n(environment.*?)```", PAGE, re.DOTALL)
    first = tables[EVALUATIONS[0]]
    for row in ("environment", "policy", "episodes", "real time", "starved", "action age", "chunks", "return", "seams"):
        assert told(first, row) == told(shown, row)


def test_the_seams_without_chunking_and_without_blending_are_those_of_the_page(tables: dict[str, str]) -> None:
    worst = [re.findall(r"worst ([\d.]+)", told(tables[command], "seams"))[0] for command in EVALUATIONS[1:]]
    sentence = r"worst of these seams is ([\d.]+), and with a hard switch beside that ([\d.]+)\."
    ((blended, switched),) = re.findall(sentence, PAGE)
    assert [round(float(one), 1) for one in worst] == [float(blended), float(switched)]


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_a_program_runs(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = PROGRAMS[number]
    if "gymnasium" in program:
        import_or_skip("gymnasium")
    monkeypatch.chdir(tmp_path)
    robot = Robot()
    with serving(FlowDemo(Rtc("guided"))) as live:
        here = program.replace("localhost:8000", f"127.0.0.1:{live.port}").replace(
            '"localhost", 8000', f'"127.0.0.1", {live.port}'
        )
        exec(compile(ast.parse(here), "realtime.md", "exec"), {"robot": robot, "agent": agent})
    assert ("robot." not in program) or robot.sent > 0


def test_every_goal_has_what_shows_it() -> None:
    rows = [row.strip("| ").split(" | ") for row in re.findall(r"^\| R\d+ .*$", PAGE, re.MULTILINE)]
    assert [row[0] for row in rows] == [f"R{number}" for number in range(1, 19)]
    for number, *_, shown in rows:
        named = re.findall(r"`(?:python )?((?:tests|benchmarks)/[\w/]+\.py)", shown)
        assert named, number
        assert all((ROOT / path).exists() for path in named), number
    assert [test for test in named_tests(PAGE) if not exists(test)] == []


def test_its_pictures_are_there_and_small() -> None:
    for name in re.findall(r"\]\((realtime\.\w+)\)", PAGE):
        assert 10_000 < (DOCS / name).stat().st_size < 1_000_000
