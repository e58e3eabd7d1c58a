"""`policyserve eval --realtime`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gymnasium")

from policyserve.cli import main
from policyserve.cli.eval_realtime import RealtimeFlags
from policyserve.core.errors import ConfigError
from tests.bench.toy_environments import HERE
from tests.cli.terminals import WHERE, Where, plain, run_in, unbroken

FLAGS = (
    "eval",
    "demo_flow",
    "--realtime",
    "--latency-ms",
    "120",
    "--jitter",
    "40",
    "--episodes",
    "2",
    "--sessions",
    "1",
)


def test_the_table_shows_starved_steps_age_and_seams_beside_the_return(capsys: pytest.CaptureFixture[str]) -> None:
    main(FLAGS)
    table = capsys.readouterr().out
    assert max(map(len, table.splitlines())) <= 80
    for told in (
        r"return +-\d+\.\d ± ",
        r"real time +50 Hz, answers after 120 ± 40 ms, rtc guided, blend 5 actions$",
        r"starved +0 of 1000 steps \(0\.0 %\)$",
        r"action age +mean \d+ ms, p99 \d+ ms$",
        r"seams +p50 0\.\d\d, p95 0\.\d\d, worst \d\.\d\d ",
    ):
        assert re.search(f"^{told}", table, re.MULTILINE), told


def test_it_is_the_same_each_time(tmp_path: Path) -> None:
    written: list[Any] = []
    for number in range(2):
        path = tmp_path / f"{number}.json"
        main([*FLAGS, "--json", str(path)])
        document = json.loads(path.read_text())
        written.append((document["realtime"], document["episodes"]))
    assert written[0] == written[1]
    figures = written[0][0]
    assert (figures["control_hz"], figures["latency_ms"], figures["jitter_ms"], figures["rtc"]) == (
        50,
        120,
        40,
        "guided",
    )
    assert figures["starved_steps"] == 0
    assert figures["action_age_ms"]["mean"] < figures["action_age_ms"]["p99"]
    assert figures["seam"]["p95"] <= 1


def test_the_policys_own_flags_of_the_same_name_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    main([*FLAGS, "--rtc", "off", "--policy-seed", "3", "--policy-latency-ms", "1", "--blend-steps", "0"])
    assert "ms, rtc none, no blend\n" in capsys.readouterr().out


def test_they_are_apart_in_a_file_of_settings_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*FLAGS, "--policy-seed", "3", "--print-config"])
    settings = tmp_path / "eval.toml"
    settings.write_text(capsys.readouterr().out)
    main(["eval", "--config", str(settings), "--episodes", "1"])
    assert "\nreal time    50 Hz, answers after 120 ± 40 ms, rtc guided" in capsys.readouterr().out
    assert "policy-seed = 3 " in settings.read_text()


WRONG: dict[str, tuple[list[str], int, str]] = {
    "a latency without it": (["demo_flow", "--latency-ms", "5"], 2, "--latency-ms: expected --realtime with it"),
    "a negative latency": (["demo_flow", "--realtime", "--latency-ms", "-1"], 2, "--latency-ms: expected ms, 0 to"),
    "a negative jitter": (["demo_flow", "--realtime", "--jitter", "-3"], 2, "--jitter: expected ms, 0 to 600000"),
    "jitter of nothing": (
        ["demo_flow", "--realtime", "--latency-ms", "0", "--jitter", "3"],
        2,
        "--jitter: expected 0 with a latency of 0 ms",
    ),
    "no rate": (["demo_flow", "--realtime", "--control-hz", "0"], 2, "--control-hz: expected rows per second, more"),
    "an unknown ladder": (["demo_flow", "--realtime", "--fallback", "wobble"], 2, "--fallback: expected one of hold, "),
    "a rung's time": (["demo_flow", "--realtime", "--fallback", "hold:x"], 2, "expected seconds behind hold:, got 'x'"),
    "a rung behind the last": (["demo_flow", "--realtime", "--fallback", "stop,hold"], 2, "expected stop as the last"),
    "half a row": (["demo_flow", "--realtime", "--blend-steps", "-1"], 2, "--blend-steps: expected a whole number"),
    "actions that are no numbers": (
        ["demo_flow", "--realtime", "--env", f"{HERE}Dot-v0"],
        2,
        "acts by Discrete(2); --realtime expects a Box of numbers",
    ),
    "single actions": (["pendulum_sac", "--realtime"], 1, "--realtime expects a policy that answers chunks"),
}


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_one_line(mistake: str, where: Where) -> None:
    argv, code, told = WRONG[mistake]
    said = run_in(where, ["eval", *argv])
    assert said.code == code
    complaint = unbroken(plain(said.err)).splitlines()[-1]  # behind the progress of a terminal
    assert complaint.startswith("error: ")
    assert told in complaint
    assert "Traceback" not in said.err


def test_a_fallback_is_read_from_words() -> None:
    plan = RealtimeFlags(realtime=True, fallback="hold:0.5, decay:1,stop").plan
    assert plan is not None
    assert plan.settings["fallback"] == [("hold", 0.5), ("decay", 1.0), "stop"]
    assert RealtimeFlags().plan is None
    with pytest.raises(ConfigError, match=r"^--execution-horizon: expected a whole number of rows"):
        RealtimeFlags(realtime=True, execution_horizon=0)
