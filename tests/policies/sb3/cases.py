"""Zips that Stable-Baselines3 saved, what it predicts with them, and how a test changes what is in one."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from policyserve.core.policy import Policy, PolicyInput
from tests.shared import shared_path

MADE = Path(__file__).parent / "made"  # by tests/interop/programs/sb3_cases.py
CARTPOLE = Path(__file__).parent / "cartpole"  # by scripts/train_sb3.py
MADE_NAMES = tuple(sorted(path.name for path in MADE.iterdir()))
PUBLIC_NAMES = (
    "dqn_discrete",
    "ppo_box",
    "ppo_cnn",
    "ppo_multibinary",
    "ppo_relu_discrete",
    "ppo_vecnormalize",
    "recurrent_ppo",
    "sac_box",
    "td3_box",
)
NAMES = (*PUBLIC_NAMES, *MADE_NAMES)
MARK = "policyserve_pickle_ran"  # the folder that appears where something runs what a pickle says


class Golden(NamedTuple):
    """One case. sessions: each a list of observations by key; actions: (sessions, steps, *action).

    begins: steps of the first session before which it begins anew.
    """

    sessions: list[list[dict[str, Any]]]
    actions: Any
    begins: tuple[int, ...] = ()


def path_of(name: str) -> Path:
    """The zip of a case."""
    return (MADE / name if name in MADE_NAMES else shared_path("any_policy", "sb3", name)) / "model.zip"


def golden_of(name: str) -> Golden:
    """What the original predicts: of a policy without memory each observation is a session of one step."""
    arrays = dict(np.load(path_of(name).with_name("golden.npz")))
    arrays |= {f"{head}obs/obs": arrays.pop(f"{head}obs") for head in ("", "episode/") if f"{head}obs" in arrays}
    if "actions" in arrays:
        rows = {key.removeprefix("obs/"): value for key, value in arrays.items() if key.startswith("obs/")}
        sessions = [[{key: value[row] for key, value in rows.items()}] for row in range(len(arrays["actions"]))]
        return Golden(sessions, arrays["actions"][:, None])
    rows = {key.removeprefix("episode/obs/"): value for key, value in arrays.items() if "/obs/" in key}
    count, steps = arrays["episode/actions"].shape[:2]
    sessions = [
        [{key: value[one, step] for key, value in rows.items()} for step in range(steps)] for one in range(count)
    ]
    return Golden(sessions, arrays["episode/actions"], (int(arrays["episode/reset_at"]),))


def as_input(policy: Policy, observation: Mapping[str, Any], state: Any = None) -> PolicyInput:
    """One observation as a server hands it over."""
    return PolicyInput(policy.spec.validate(dict(observation)).observation, state=state)


def changed(source: Path, target: Path, **changes: Callable[[bytes], bytes]) -> Path:
    """A copy of a zip with entries changed; a `.` in a name is `__` here, as in policy__pth."""
    by_name = {name.replace("__", "."): change for name, change in changes.items()}
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, by_name.get(name, bytes)(old.read(name)))
    return target


def changed_pickle(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """What changes the pickle within a policy.pth."""

    def change_pth(content: bytes) -> bytes:
        packed = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(packed, "w") as new:
            for name in old.namelist():
                new.writestr(name, change(old.read(name)) if name.endswith("data.pkl") else old.read(name))
        return packed.getvalue()

    return change_pth


class Runs:
    """What makes a folder where it is unpickled."""

    def __reduce__(self) -> Any:
        import os

        return os.mkdir, (MARK,)


def pickle_with_code(protocol: int = 4) -> bytes:
    """A pickle that makes a folder in the working directory of whoever runs it."""
    return pickle.dumps(Runs(), protocol)
