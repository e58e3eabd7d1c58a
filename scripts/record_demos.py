"""Record what each demo answers: `python scripts/record_demos.py tests/replay/recordings`, which CI replays.

Needs the extras `record` and `gym`. Run it anew when a demo's checkpoint changes, or the format of recordings.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

import policyserve
from policyserve.core.arrays import Array
from policyserve.policies.demo_flow import HORIZON, Scene

DIALECTS = ("openpi", "vibe_rl", "wall_x")
ENVIRONMENTS = {"cartpole_ppo": "CartPole-v1", "pendulum_sac": "Pendulum-v1"}
STEPS = 150
PICTURES = 12


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*ENVIRONMENTS, *OTHERS):
        with tempfile.TemporaryDirectory() as made:
            record(name, Path(made))
            (recording,) = Path(made).glob("*.mcap")
            target = folder / f"{name}.mcap"
            shutil.copyfile(recording, target)
        print(f"{target}  {target.stat().st_size / 1e3:.1f} kB")


def record(name: str, folder: Path) -> None:
    """A session in each dialect, as a client of that family has it."""
    with policyserve.start(name, record=str(folder), record_views=False) as server:
        for seed, dialect in enumerate(DIALECTS):
            with policyserve.Client(server.url, dialect=dialect) as client:
                if name in ENVIRONMENTS:
                    play(client, ENVIRONMENTS[name], seed)
                else:
                    OTHERS[name](client, seed)


def play(client: policyserve.Client, env_id: str, seed: int) -> None:
    """An episode's first steps."""
    import gymnasium

    environment = gymnasium.make(env_id)
    observation, _ = environment.reset(seed=seed)
    for _ in range(STEPS):
        action = client.infer({"obs": np.asarray(observation, np.float32)}).action
        observation, _, is_over, is_cut, _ = environment.step(action if action.ndim else int(action))
        if is_over or is_cut:
            break
    environment.close()


def show_pictures(client: policyserve.Client, seed: int) -> None:
    """A bright spot that moves over a slope of grey."""
    rows, columns = np.mgrid[:64, :64]
    for step in range(PICTURES):
        spot = (rows - 5 * step) ** 2 + (columns - 32 - 8 * seed) ** 2 < 64
        picture = np.stack([rows * 2 + step, columns * 2, np.where(spot, 255, 40)], axis=-1).astype(np.uint8)
        client.infer({"image": picture, "state": np.array([step / PICTURES, seed, -0.5], np.float32)})


def follow(client: policyserve.Client, seed: int) -> None:
    """A point that asks after 25 actions: the first half of the chunks plain, the others agree with what is left."""
    scene, left = Scene(STEPS, seed), np.zeros((0, 2), np.float32)
    position = scene.start
    for step in range(0, STEPS, HORIZON // 2):
        observation = scene.observation(step, position)
        with_prefix = {} if step < STEPS / 2 else prefix_of(left)
        chunk = client.infer({**observation, **with_prefix}).actions
        for action in chunk[: HORIZON // 2]:
            position = scene.moved(position, action)
        left = chunk[HORIZON // 2 :]


def prefix_of(left: Array) -> Mapping[str, Array]:
    """The actions that are left of the last chunk, five of which run before the next one is there."""
    rows = np.concatenate([left, np.repeat(left[-1:], HORIZON - len(left), axis=0)])
    counts = {"rtc/prev_length": len(left), "rtc/inference_delay": 5}
    return {"rtc/prev_chunk": rows, **{key: np.array(value, np.int32) for key, value in counts.items()}}


OTHERS = {"demo_image": show_pictures, "demo_flow": follow}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
