"""Other types through the lerobot package, for which a stand-in with its signatures stands here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.core.policy import Policy, PolicyInput
from policyserve.core.spec import TextSpec
from policyserve.policies.lerobot.loading import check_policy, load_policy
from policyserve.policies.lerobot.options import LeRobotFlags
from policyserve.policies.lerobot.processors import AFTER, BEFORE
from tests.policies.frameworks import import_or_skip
from tests.policies.lerobot.cases import copied, edit, folder
from tests.policies.lerobot.test_processors import with_step

import_or_skip("torch")

CONFIGS = """
import json, pathlib
class PreTrainedConfig:
    @classmethod
    def from_pretrained(cls, path):
        own = cls()
        vars(own).update(json.loads((pathlib.Path(path) / "config.json").read_text()))
        return own
"""
FACTORY = """
import torch
from collections import deque

class Policy(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config, self.weight = config, torch.nn.Parameter(torch.zeros(1))
        self.reset()

    @classmethod
    def from_pretrained(cls, path, *, config=None):
        return cls(config)

class SmolVLA(Policy):
    def reset(self):
        self._queues = {}

    def predict_action_chunk(self, batch, noise=None, **kwargs):
        assert batch["observation.images.top"].dtype == torch.float32 and batch["observation.images.top"].max() <= 1
        sums = batch["observation.state"].sum(1) + torch.tensor([len(task) for task in batch["task"]]) * 100.0
        steps = torch.arange(self.config.chunk_size) * 1000.0
        chunk = (sums[:, None] + steps)[..., None] + noise[..., : self.config.max_action_dim]
        return chunk[..., :6]

class VQBeT(Policy):
    def reset(self):
        self._queues = {"seen": deque(maxlen=2)}
        self._mean = None

    def select_action(self, batch, noise=None):
        self._queues["seen"].append(batch["observation.state"].sum())
        self._mean = sum(self._queues["seen"]) if self._mean is None else self._mean + sum(self._queues["seen"])
        return self._mean.expand(1, 6)

def get_policy_class(name):
    return {"smolvla": SmolVLA, "vqbet": VQBeT}[name]

def make_pre_post_processors(policy_cfg, pretrained_path=None, **kwargs):
    assert kwargs["preprocessor_overrides"] == {"device_processor": {"device": "cpu"}}
    return (lambda batch: batch), (lambda actions: actions)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package `lerobot` that can be imported while the test runs."""
    root = tmp_path / "site"
    for name, text in (("configs/policies", CONFIGS), ("policies/factory", FACTORY)):
        path = root / "lerobot" / f"{name}.py"
        path.parent.mkdir(parents=True)
        path.write_text(text)
        (path.parent / "__init__.py").touch()
    (root / "lerobot/__init__.py").touch()
    for name in [name for name in sys.modules if name.partition(".")[0] == "lerobot"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(root))


@pytest.fixture(autouse=True)
def forgotten() -> Any:
    """No stand-in stays for other tests."""
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "lerobot"]:
        del sys.modules[name]


def load(target: Path, **flags: Any) -> Policy:
    return load_policy(str(target), LeRobotFlags(device="cpu", **flags), lambda _stage: None)


def seen(policy: Policy, value: float, task: str = "", state: Any = None) -> PolicyInput:
    observation = {**policy.spec.example(), "observation.state": np.full(6, value, np.float32)}
    return PolicyInput({**observation, **({"task": task} if "task" in observation else {})}, None, state)


@pytest.mark.usefixtures("package")
def test_a_language_policy_answers_chunks_and_batches_as_singles() -> None:
    policy = load(folder("smolvla_tiny"), seed=1)
    task = policy.spec.leaves["task"]
    assert isinstance(task, TextSpec)
    assert (task.default, policy.spec.aliases["prompt"]) == ("", "task")
    assert policy.spec.horizon == 4
    singles = [policy.infer([seen(policy, value, "push" * value)])[0] for value in (1, 2)]
    policy = load(folder("smolvla_tiny"), seed=1)
    together = policy.infer([seen(policy, value, "push" * value) for value in (1, 2)])
    for single, one in zip(singles, together, strict=True):
        np.testing.assert_array_equal(one.actions, single.actions)  # type: ignore[union-attr]
    (first,) = load(folder("smolvla_tiny"), horizon="all").infer([seen(policy, 1)])
    assert first.actions.shape == (6, 6)  # type: ignore[union-attr]


@pytest.mark.usefixtures("package")
def test_a_language_policy_answers_steps_from_its_queue() -> None:
    policy = load(folder("smolvla_tiny"), mode="step", seed=1)
    states: list[Any] = [None, None]
    found: list[list[float]] = [[], []]
    for _step in range(5):
        for session, value in enumerate((1, 2)):
            (answer,) = policy.infer([seen(policy, value, state=states[session])])
            states[session] = answer.state  # type: ignore[union-attr]
            found[session].append(float(answer.actions[0]))  # type: ignore[union-attr]
    for actions in found:
        np.testing.assert_allclose(np.diff(actions[:4]), 1000, atol=20)
        assert actions[4] < 1000, "a new chunk"


@pytest.mark.usefixtures("package")
def test_a_policy_that_remembers_has_one_memory_for_each_session(tmp_path: Path) -> None:
    target = copied("smolvla_tiny", tmp_path)
    edit(target / "config.json", type="vqbet")
    policy = load(target)
    assert (policy.spec.horizon, policy.spec.max_batch) == (None, 1)
    assert "task" not in policy.spec.leaves
    states: list[Any] = [None, None]
    found: list[list[float]] = [[], []]
    for _step in range(3):
        for session, value in enumerate((1.0, 10.0)):
            (answer,) = policy.infer([seen(policy, value, state=states[session])])
            states[session] = answer.state  # type: ignore[union-attr]
            found[session].append(float(answer.actions[0]))  # type: ignore[union-attr]
            repeated = [policy.infer([seen(policy, value, state=states[session])])[0] for _ in range(2)]
            assert (repeated[0].actions == repeated[1].actions).all()  # type: ignore[union-attr]
    assert found == [[6, 18, 30], [60, 180, 300]]


@pytest.mark.usefixtures("package")
def test_what_the_package_would_import_or_run_raw_is_never_handed_to_it(tmp_path: Path) -> None:
    target = with_step(tmp_path / "a", BEFORE, 0, {"class": "evil.Step", "config": {}}, "smolvla_tiny")
    with pytest.raises(ConfigError, match="imports nothing that a file names"):
        load(target)
    target = copied("smolvla_tiny", tmp_path / "b")
    for name in (BEFORE, AFTER):
        (target / name).unlink()
    with pytest.raises(ConfigError, match="LeRobot would leave out the statistics"):
        load(target)
    assert "lerobot.policies.factory" not in sys.modules


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("kind", "flags", "told"),
    [
        ("smolvla", {"dtype": "bfloat16"}, "--dtype: expected none for smolvla"),
        ("smolvla", {"mode": "chunk", "history": True}, "--history: expected none for smolvla"),
        ("vqbet", {"mode": "chunk"}, "--mode: expected step for vqbet"),
    ],
)
def test_flags_that_the_package_has_no_use_for_are_refused(
    kind: str, flags: dict[str, Any], told: str, tmp_path: Path
) -> None:
    target = copied("smolvla_tiny", tmp_path)
    edit(target / "config.json", type=kind)
    with pytest.raises(ConfigError, match=told):
        check_policy(str(target), LeRobotFlags(**flags))


def test_without_the_package_it_is_a_missing_dependency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policyserve.policies.lerobot.package.find_spec", lambda _name: None)
    with pytest.raises(MissingDependency, match="install policyserve where lerobot is installed"):
        check_policy(str(folder("smolvla_tiny")), LeRobotFlags())
