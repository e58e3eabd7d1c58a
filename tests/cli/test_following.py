"""`policyserve serve --follow`: a training run is served while it trains."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve import Client, RemoteError
from policyserve.cli import main
from policyserve.cli.following import Followed, begun, followed
from policyserve.core.errors import ConfigError
from policyserve.core.recipe import Newest, Recipe
from policyserve.policies.registry import Source
from policyserve.policies.vibe_rl import demo_directory
from policyserve.server.server import Server
from tests.cli.serving import POLICYSERVE, Serving, serving
from tests.server.live import DEADLINE_S

FLAGS = ("--host", "127.0.0.1", "--port", "0", "--follow", "--follow-every-s", "0.02", "--stats-every-s", "0")


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    shutil.copytree(demo_directory("cartpole_ppo"), tmp_path / "run")
    (step,) = (tmp_path / "run" / "checkpoints").iterdir()
    step.rename(step.with_name("step_1"))
    return tmp_path / "run"


def write_step(folder: Path, step: int) -> None:
    """Write a checkpoint as a training program does: piece by piece."""
    whole = (folder / "checkpoints" / "step_1" / "state.eqx").read_bytes()
    target = folder / "checkpoints" / f"step_{step}"
    target.mkdir()
    with (target / "state.eqx").open("wb", buffering=0) as file:
        for start in range(0, len(whole), 1 << 15):
            file.write(whole[start : start + (1 << 15)])


def step_now(url: str, name: str = "") -> int:
    """The step that a new session of this policy is told of; 0: it is not served."""
    try:
        with Client(f"{url.rstrip('/')}/{name}/openpi".replace("//openpi", "/openpi")) as client:
            client.infer({"obs": np.zeros(4, np.float32)})
            return int(client.metadata["checkpoint_step"])
    except RemoteError:
        return 0


def until_step(server: Serving, step: int, name: str = "") -> None:
    deadline = time.monotonic() + DEADLINE_S
    while step_now(server.url, name) != step:
        assert time.monotonic() < deadline, f"step {step} is not served"


def test_newer_checkpoints_are_taken_while_a_client_stays(run_folder: Path) -> None:
    with serving((*POLICYSERVE, "serve", f"vibe_rl:{run_folder}", *FLAGS)) as server:
        with Client(server.url, dialect="vibe_rl") as client:
            client.infer({"obs": np.zeros(4, np.float32)})
            for step in (2, 3):
                write_step(run_folder, step)
                until_step(server, step)
                client.infer({"obs": np.zeros(4, np.float32)})
            shutil.rmtree(run_folder / "checkpoints")
            told = until_told(server, "step 3 goes on, since newer ones cannot be looked for")
            client.infer({"obs": np.zeros(4, np.float32)})
        assert "PPO on CartPole-v1 step 3 answers after" in told


def test_of_several_policies_each_run_is_followed_and_one_that_has_not_begun_costs_the_others_nothing(
    run_folder: Path,
) -> None:
    late = run_folder.with_name("late")
    shutil.copytree(run_folder, late)
    first = (late / "checkpoints" / "step_1" / "state.eqx").read_bytes()
    shutil.rmtree(late / "checkpoints" / "step_1")
    file = run_folder.with_name("lab.toml")
    file.write_text(
        f'[policies.old]\nsource = "vibe_rl:{run_folder}"\nfollow = true\n'
        f'[policies.late]\nsource = "vibe_rl:{late}"\nfollow = true\n'
        f'[policies.still]\nsource = "vibe_rl:{run_folder}"\nstep = 1\n'
    )
    flags = [flag for flag in FLAGS if flag != "--follow"]
    with serving((*POLICYSERVE, "serve", "--config", str(file), *flags)) as server:
        told = "".join(server.lines)
        assert "/late" in told
        assert "not served" in told
        write_step(run_folder, 2)
        until_step(server, 2, "old")
        (late / "checkpoints" / "step_1").mkdir()
        (late / "checkpoints" / "step_1" / "state.eqx").write_bytes(first)
        write_step(late, 7)
        until_step(server, 7, "late")
        assert step_now(server.url, "still") == 1


def until_told(server: Serving, text: str) -> str:
    told: list[str] = []
    assert server.process.stderr is not None
    stderr = server.process.stderr
    reading = threading.Thread(target=lambda: told.extend(_lines_up_to(stderr, text)), daemon=True)
    reading.start()
    reading.join(DEADLINE_S)
    assert text in "".join(told)
    return "".join(told)


def _lines_up_to(stderr: Any, text: str) -> list[str]:
    lines: list[str] = []
    for line in stderr:
        lines.append(line)
        if text in "".join(lines):
            break
    return lines


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["cartpole_ppo", "--follow"], 2, "--follow: expected a training run, such as vibe_rl:FOLDER"),
        (["vibe_rl:run", "--step", "1", "--follow"], 2, "and no step of it; got PPO on CartPole-v1"),
        (["vibe_rl:run", "--follow", "--follow-every-s", "0"], 2, "--follow-every-s: expected more than 0 seconds"),
        (["vibe_rl:run", "--follow", "--reload"], 2, "got --reload as well, which watches code"),
        (["a=demo_image", "b=cartpole_ppo", "--follow"], 2, "among them, got 2 policies: a, b"),
    ],
)
def test_what_cannot_be_followed_is_told_before_a_port_is_opened(
    words: list[str], code: int, told: str, run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(run_folder.parent)
    with pytest.raises(SystemExit, match=str(code)):
        main(["serve", *words])
    assert told in " ".join(capsys.readouterr().err.split())


def test_the_first_checkpoint_is_waited_for() -> None:
    looks: list[Newest | None] = [None, None, Newest(5, Recipe("a:b"), 0)]
    source = Source("a run", "somewhere", Recipe("a:latest"), newest=lambda: looks.pop(0))
    waits: list[float] = []
    found = followed(source, waits.append)
    assert found.newest is not None
    assert (found.newest.step, found.source.recipe, len(waits)) == (5, Recipe("a:b"), 2)


def test_a_source_without_steps_is_refused() -> None:
    with pytest.raises(ConfigError, match="got a file"):
        followed(Source("a file", "somewhere", Recipe("a:b")))


def test_of_several_runs_the_first_checkpoint_is_waited_for_where_there_is_nothing_else_to_serve() -> None:
    looks: dict[str, list[Newest | None]] = {"a": [None] * 3, "b": [None, Newest(5, Recipe("b:five"), 0)]}
    runs = [
        Followed(Source(name, "somewhere", Recipe(f"{name}:latest")), None, lambda name=name: looks[name].pop(0))
        for name in looks
    ]
    waits: list[float] = []
    found = begun(runs, waits.append)
    assert [run.source.recipe.target for run in found] == ["a:latest", "b:five"]
    assert len(waits) == 2


def test_the_flag_is_for_the_runs_among_several_and_a_table_may_say_otherwise(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers: list[Server] = []
    monkeypatch.setattr("policyserve.cli.serve.serve_until_stopped", lambda server, *_: servers.append(server))
    file = run_folder.with_name("lab.toml")
    file.write_text(f'[policies.fixed]\nsource = "vibe_rl:{run_folder}"\nfollow = false\n')
    words = ["image=demo_image", f"run=vibe_rl:{run_folder}", "--config", str(file), "--follow"]
    main(["serve", *words])
    assert [vars(one)["_run"] for one in vars(servers[0])["_followers"]] == ["run: "]
