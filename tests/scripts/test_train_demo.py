"""The training program: its environments, its files, its command line, and the two demos that ship."""

from __future__ import annotations

import importlib
import io
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.cli import main
from policyserve.core.policy import PolicyInput
from policyserve.policies.vibe_rl.run_adapter import RunFlags, load_run

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "train_demo.py"
DEMOS = ROOT / "src" / "policyserve" / "policies" / "vibe_rl" / "demos"

TOYS = "tests.bench.toy_environments"

ACTOR = {"cartpole_ppo": [(64, 4), (64,), (64, 64), (64,), (2, 64), (2,)]}
ACTOR["pendulum_sac"] = [(64, 3), (64,), (64, 64), (64,), (1, 64), (1,), (1, 64), (1,)]
PPO_CRITIC = [(64, 4), (64,), (64, 64), (64,), (1, 64), (1,)]
SAC_CRITICS = 2 * PPO_CRITIC  # observation 3 and action 1 make 4 inputs


def adam(shapes: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The shapes of count, first moments and second moments."""
    return [(), *shapes, *shapes]


RECORDS: dict[str, list[tuple[int, ...]]] = {
    "cartpole_ppo": [
        *(network := ACTOR["cartpole_ppo"] + PPO_CRITIC),
        *adam(network),
        (),  # step
        (2,),  # rng
    ],
    "pendulum_sac": [
        *(actor := ACTOR["pendulum_sac"]),
        *SAC_CRITICS,
        *SAC_CRITICS,  # their slow copies
        *adam(actor),
        *adam(SAC_CRITICS),
        (),  # log_alpha
        *adam([()]),
        (),  # step
        (2,),  # rng
    ],
}


def run_script(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False)


def run_here(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    """Run it in this process, which is quicker; returns its exit code."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    return ended.value.code


def read_records(path: Path) -> list[np.ndarray]:
    records = []
    with path.open("rb") as file:
        while file.peek(1):
            records.append(np.load(file, allow_pickle=False))
    return records


def only_checkpoint(run: Path) -> Path:
    (checkpoint,) = (run / "checkpoints").iterdir()
    return checkpoint


class NumpyPolicy:
    """The deterministic policy of a run folder, from its files and nothing else."""

    def __init__(self, run: Path) -> None:
        config = json.loads((run / "config.json").read_text())
        stats = json.loads((run / "norm_stats.json").read_text())["obs"]
        self.algo: dict[str, Any] = config["algo"]
        self.mean, self.std = (np.array(stats[name], np.float32) for name in ("mean", "std"))
        records = read_records(only_checkpoint(run) / "state.eqx")[: 2 * len(self.algo["hidden_sizes"]) + 2]
        self.layers = list(zip(records[::2], records[1::2], strict=True))

    def __call__(self, obs: np.ndarray) -> Any:
        x = (obs - self.mean) / np.maximum(self.std, np.float32(1e-8))
        for weight, bias in self.layers[:-1]:
            x = weight @ x + bias
            x = np.tanh(x) if "clip_eps" in self.algo else np.maximum(x, 0)
        weight, bias = self.layers[-1]
        x = weight @ x + bias
        if "clip_eps" in self.algo:
            return int(np.argmax(x))
        low, high = self.algo["action_low"], self.algo["action_high"]
        return low + 0.5 * (np.tanh(x) + 1) * (high - low)


@pytest.mark.parametrize("name", ["cartpole_ppo", "pendulum_sac"])
def test_a_tiny_run_writes_the_whole_layout(name: str, tmp_path: Path) -> None:
    for module in ("jax", "equinox", "optax", "matplotlib", "tqdm"):
        pytest.importorskip(module)
    run = tmp_path / name
    done = run_script(name, "--total-steps", "300", "--seed", "3", "--output", run)
    assert done.returncode == 0, done.stderr

    config = json.loads((run / "config.json").read_text())
    assert config["runner"]["seed"] == 3
    assert config["algo"]["hidden_sizes"] == [64, 64]
    checkpoint = only_checkpoint(run)
    metadata = json.loads((checkpoint / "metadata.json").read_text())
    assert checkpoint.name == f"step_{metadata['env_steps']}"
    assert metadata["env_steps"] == config["runner"]["total_timesteps"]
    records = read_records(checkpoint / "state.eqx")
    assert [record.shape for record in records] == RECORDS[name]
    assert int(records[-2]) == metadata["updates"] > 0
    assert records[-1].dtype == np.uint32
    assert all(np.isfinite(record).all() for record in records)
    stats = json.loads((run / "norm_stats.json").read_text())
    assert set(stats) == {"obs"}
    assert set(stats["obs"]) == {"mean", "std", "q01", "q99"}
    assert (run / "reward.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("Dot", {"observation_size": 2, "action_count": 2}),
        ("Slider", {"observation_size": 2, "action_size": 2}),  # whose numbers have bounds of their own
    ],
)
def test_a_run_in_an_environment_of_gymnasiums_is_served_and_evaluated_by_the_commands_that_are_printed(
    name: str,
    sizes: dict[str, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for module in ("jax", "equinox", "optax", "matplotlib", "tqdm", "gymnasium"):
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    env_id = f"{TOYS}:{name}-v0"
    assert run_here(monkeypatch, env_id, "--total-steps", "100") == 0
    told = capsys.readouterr().out
    run = Path("runs") / f"{TOYS}_{name}-v0"
    assert json.loads((run / "environment.json").read_text()) == {"env_id": env_id, **sizes}
    assert (run / "reward.png").read_bytes().startswith(b"\x89PNG")
    assert f"serve it     policyserve serve vibe_rl:{run}\n" in told
    command = told.partition("evaluate it  policyserve ")[2].split()
    assert command[:2] == ["eval", f"vibe_rl:{run}"]
    main([*command[:-1], "2"])
    assert f"environment  {env_id}\n" in capsys.readouterr().out

    policy = load_run(RunFlags(), run / "checkpoints", lambda _: None)
    assert policy.spec.name == f"{env_id}_{'sac' if name == 'Slider' else 'ppo'}".lower().replace("-", "_")
    if name == "Slider":
        for place in (-3.0, 0.0, 3.0):
            observation = {"obs": np.array([place, 0], np.float32)}
            (chunk,) = policy.infer([PolicyInput(observation)])
            assert not isinstance(chunk, Exception)
            force, other = chunk.actions
            assert -0.02 <= force <= 0.02
            assert -3 <= other <= 1


def test_what_is_trained_goes_to_runs_unless_the_demo_is_to_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    read_arguments = runpy.run_path(str(SCRIPT))["_read_arguments"]
    package = [DEMOS / "cartpole_ppo", ROOT / "docs" / "demos" / "cartpole_ppo.png"]
    for flags, places in (
        ([], [Path("runs/cartpole_ppo"), Path("runs/cartpole_ppo/reward.png")]),
        (["--output", "mine"], [Path("mine"), Path("mine/reward.png")]),
        (["--replace-demo"], package),
    ):
        monkeypatch.setattr(sys, "argv", ["train_demo", "cartpole_ppo", *flags])
        arguments = read_arguments()
        assert [arguments.output, arguments.plot] == places


@pytest.mark.parametrize(("total", "done"), [(409_600, 184_320), (30_000, 1_500), (204_800_000, 204_800_000)])
def test_the_bar_has_room_in_80_columns(total: int, done: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("jax", "tqdm"):
        pytest.importorskip(module)
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    loop = importlib.import_module("training.loop")
    shown = io.StringIO()
    with loop.progress_bar(total, file=shown, ncols=79, initial=done) as bar:
        bar.set_postfix_str(loop.postfix(-1234.56, -987.65))
    lines = shown.getvalue().replace("\n", "").split("\r")
    assert max(map(len, lines)) <= 79
    assert all("return -1235, best -987.6" in line for line in lines[2:])
    assert min(len(line.split("|")[1]) for line in lines if line) >= 10


def test_ctrl_c_leaves_nothing_to_the_interpreters_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Interrupted while it compiles, JAX crashes there, some seconds after the bar came."""
    for module in ("optax", "equinox", "matplotlib"):
        pytest.importorskip(module)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    ended: list[int] = []
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    monkeypatch.setattr(importlib.import_module("training.loop"), "train", interrupted)
    monkeypatch.setattr(os, "_exit", ended.append)
    run_here(monkeypatch, "cartpole_ppo", "--output", str(tmp_path / "run"))
    assert ended == [130]


def test_what_never_varied_before_training_does_not_blow_a_trained_policy_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    stats = importlib.import_module("training.norm_stats").measured(np.array([[1, 5], [3, 5]], np.float32))
    assert stats.std.tolist() == [1, 1]
    assert stats.normalize(np.array([2, 6], np.float32)).tolist() == [0, 1]


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_the_environments_step_as_those_of_gymnasium(env_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    jax = pytest.importorskip("jax")
    gymnasium = pytest.importorskip("gymnasium")
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    ours = importlib.import_module("training.envs").ENVIRONMENTS[env_id]
    step = jax.jit(ours.step)
    theirs = gymnasium.make(env_id)
    theirs.action_space.seed(0)
    obs, _ = theirs.reset(seed=0)
    ends = 0
    for _ in range(400):
        # From their state each time: a rounding error grows without bound along an unstable rollout.
        state = np.array(theirs.unwrapped.state, np.float32)
        np.testing.assert_allclose(ours.observe(state), obs, atol=1e-5)
        action = theirs.action_space.sample() * (np.float32(1.5) if env_id == "Pendulum-v1" else 1)
        obs, reward, terminated, truncated, _ = theirs.step(action)
        state, our_reward, our_terminated = step(state, action)
        np.testing.assert_allclose(ours.observe(state), obs, atol=1e-5)
        np.testing.assert_allclose(our_reward, reward, rtol=1e-4)
        assert bool(our_terminated) == terminated
        if terminated or truncated:
            obs, _ = theirs.reset()
            ends += 1
    assert ends >= 2
    assert ours.max_steps == theirs.spec.max_episode_steps


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "the following arguments are required: NAME"),
        (["cartpole_pp"], "or a Gymnasium id such as Acrobot-v1, got 'cartpole_pp' (did you mean cartpole_ppo?)"),
        (["CartPol-v1"], "Gymnasium has no environment 'CartPol-v1' (did you mean CartPole-v1?)"),
        (["no_such_package:Own-v0"], "there is no module 'no_such_package'"),
        ([f"{TOYS}:Camera-v0"], "Camera-v0 shows pictures of uint8 (31, 101, 3); expected a vector of numbers"),
        ([f"{TOYS}:Table-v0"], "Table-v0 shows arrays of float32 (3, 2); expected a vector of numbers"),
        ([f"{TOYS}:Named-v0"], "Named-v0 shows Dict("),
        ([f"{TOYS}:Counted-v0"], "Counted-v0 shows Discrete(5); expected a vector of numbers"),
        ([f"{TOYS}:Paired-v0"], "Paired-v0 acts by Tuple(Discrete(2), Discrete(2)); expected actions 0, 1, 2"),
        ([f"{TOYS}:Offset-v0"], "Offset-v0 acts by Discrete(2, start=5); expected actions 0, 1, 2"),
        ([f"{TOYS}:Unbounded-v0"], "Unbounded-v0 acts by Box(-inf, inf, (1,), float32); expected"),
        ([f"{TOYS}:Unmade-v0"], "Unmade-v0 cannot be made: physics is not installed, run `pip install physics`"),
        (["Acrobot-v1", "--replace-demo"], "--replace-demo: expected cartpole_ppo or pendulum_sac, got 'Acrobot-v1'"),
        (["cartpole_ppo", "--replace-demo", "--output", "x"], "its own place, so it takes no --output"),
        (["cartpole_ppo", "--output", str(SCRIPT / "run")], "train_demo.py is no folder"),
        (["cartpole_ppo", "--output", "x", "--plot", "x.jpg"], "expected a file that ends in .png, .svg or .pdf"),
        (["cartpole_ppo", "--seed", "-1"], "expected a whole number from 0 on, got '-1'"),
        (["cartpole_ppo", "--total-steps", "0"], "expected a whole number from 1 on, got '0'"),
        (["cartpole_ppo", "--output", str(ROOT / "tests")], "tests exists, expected a new folder"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_code_2(
    arguments: list[str], complaint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if any("-v" in argument for argument in arguments):
        pytest.importorskip("gymnasium")
        pytest.importorskip("optax")
    assert run_here(monkeypatch, *arguments) == 2
    said = capsys.readouterr().err
    assert complaint in said
    assert said.startswith("train_demo: ")
    assert said.count("\n") == 1


def test_a_missing_framework_names_the_extra(tmp_path: Path) -> None:
    hide_jax = f"import sys, runpy; sys.modules['jax'] = None; sys.path.insert(0, {str(SCRIPT.parent)!r});"
    run_it = f"sys.argv = ['train_demo', 'cartpole_ppo', '--output', {str(tmp_path / 'run')!r}];"
    run_it += f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", hide_jax + run_it], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "train_demo: jax is missing: pip install 'policyserve[train]'\n"


@pytest.mark.parametrize(("name", "least"), [("cartpole_ppo", 490.0), ("pendulum_sac", -170.0)])
def test_the_shipped_demo_solves_its_task_in_gymnasium(name: str, least: float) -> None:
    gymnasium = pytest.importorskip("gymnasium")
    policy = NumpyPolicy(DEMOS / name)
    env = gymnasium.make(json.loads((DEMOS / name / "config.json").read_text())["env_id"])
    returns = []
    for seed in range(100):
        obs, _ = env.reset(seed=seed)
        returns.append(0.0)
        ended = False
        while not ended:
            obs, reward, terminated, truncated, _ = env.step(policy(obs))
            returns[-1] += float(reward)
            ended = terminated or truncated
    assert np.mean(returns) >= least


@pytest.mark.parametrize("name", ["cartpole_ppo", "pendulum_sac"])
def test_the_shipped_demo_is_complete_and_small(name: str) -> None:
    records = read_records(only_checkpoint(DEMOS / name) / "state.eqx")
    assert [record.shape for record in records] == RECORDS[name]
    assert sum(path.stat().st_size for path in (DEMOS / name).rglob("*") if path.is_file()) < 500_000
