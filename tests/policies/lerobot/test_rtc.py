"""Flow policies of the lerobot package take the prefix by arguments of their own: a stand-in has its signatures."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.core.arrays import Array
from policyserve.core.errors import BadObservation, ConfigError
from policyserve.core.policy import ActionChunk, Policy, PolicyInput
from policyserve.policies.lerobot.loading import check_policy, load_policy
from policyserve.policies.lerobot.options import LeRobotFlags
from policyserve.policies.lerobot.rtc import KINDS
from tests.policies.frameworks import import_or_skip
from tests.policies.lerobot.cases import copied, edit, folder

import_or_skip("torch")

CONFIGS = """
import json, pathlib
class PreTrainedConfig:
    rtc_config = None

    @classmethod
    def from_pretrained(cls, path):
        own = cls()
        vars(own).update(json.loads((pathlib.Path(path) / "config.json").read_text()))
        return own
"""
TYPES = """
from enum import Enum
class RTCAttentionSchedule(str, Enum):
    ZEROS = "ZEROS"
    ONES = "ONES"
    LINEAR = "LINEAR"
    EXP = "EXP"
"""
RTC = """
from dataclasses import dataclass
from lerobot.configs.types import RTCAttentionSchedule
@dataclass
class RTCConfig:
    enabled: bool = False
    prefix_attention_schedule: RTCAttentionSchedule = RTCAttentionSchedule.LINEAR
    max_guidance_weight: float = 10.0
    execution_horizon: int = 10
"""
# Actions are normalised by (a - 1) / 2, so that a prefix in physical units would be seen. As the package's processor,
# the stand-in differentiates what it made of a tensor that it has just marked.
FACTORY = """
import torch
CALLS = []

class SmolVLA(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config, self.weight = config, torch.nn.Parameter(torch.ones(1))

    @classmethod
    def from_pretrained(cls, path, *, config=None):
        return cls(config)

    def init_rtc_processor(self):
        self.rtc = self.config.rtc_config

    def predict_action_chunk(self, batch, noise=None, **kwargs):
        assert "action" not in batch
        CALLS.append((len(noise), {**kwargs}))
        left = kwargs.get("prev_chunk_left_over")
        x = noise[..., :6].clone().detach()
        if left is None:
            return self.weight * x
        assert self.rtc.enabled and left.shape == (len(x), left.shape[1], 6)
        padded = torch.zeros_like(x)
        padded[:, : left.shape[1]] = left
        with torch.enable_grad():
            x.requires_grad_(True)
            error = padded - x * self.weight
            (correction,) = torch.autograd.grad(x * 1.0, x, error.detach())
        weights = torch.zeros(x.shape[1])
        weights[: kwargs["inference_delay"]] = 1.0
        weights[kwargs.get("execution_horizon", self.rtc.execution_horizon) :] = 0.0
        return x + weights[:, None] * correction

def get_policy_class(name):
    return SmolVLA

def make_pre_post_processors(policy_cfg, pretrained_path=None, **kwargs):
    def before(batch):
        return {**batch, "action": (batch["action"] - 1) / 2} if "action" in batch else batch
    return before, (lambda actions: actions * 2 + 1)
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A package `lerobot` that can be imported while the test runs."""
    root = tmp_path / "site"
    modules = {
        "configs/policies": CONFIGS,
        "configs/types": TYPES,
        "policies/rtc/configuration_rtc": RTC,
        "policies/factory": FACTORY,
    }
    for name, text in modules.items():
        path = root / "lerobot" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for parent in (path.parent, path.parent.parent):
            (parent / "__init__.py").touch()
    forget()
    monkeypatch.syspath_prepend(str(root))
    yield
    forget()


def forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "lerobot"]:
        del sys.modules[name]


def load(**flags: Any) -> Policy:
    return load_policy(str(folder("smolvla_tiny")), LeRobotFlags(device="cpu", seed=1, **flags), lambda _stage: None)


def calls() -> list[tuple[int, dict[str, Any]]]:
    """How often the stand-in was asked since the last look, with how many rows, and with which arguments."""
    found = sys.modules["lerobot.policies.factory"].CALLS
    asked = [*found]
    found.clear()
    return asked


def seen(policy: Policy, rows: Array | None = None, known: int = 4, delay: int = 2, **more: int) -> PolicyInput:
    observation = {key: value for key, value in policy.spec.example().items() if key != "rtc"}
    if rows is not None:
        counts = {"prev_length": known, "inference_delay": delay, **more}
        sent = {"prev_chunk": rows, **{key: np.array(value, np.int32) for key, value in counts.items()}}
        observation = {**observation, "rtc": sent}
    return PolicyInput(policy.spec.validate(observation).observation)


def chunk(answer: Any) -> ActionChunk:
    assert isinstance(answer, ActionChunk)
    return answer


def rows(value: float, horizon: int = 4) -> Array:
    return np.full((horizon, 6), value, np.float32)


def test_the_greeting_tells_it_and_a_plain_request_is_asked_as_before() -> None:
    policy = load()
    assert policy.spec.metadata["rtc"] == {"methods": ["identity"], "max_delay": None, "action_kind": None}
    assert policy.spec.leaves["rtc/prev_chunk"].describe()["shape"] == [4, 6]
    (plain,) = policy.infer([seen(policy)])
    assert calls() == [(1, {})]
    assert not chunk(plain).extras
    (without,) = load(rtc="off").infer([seen(policy)])
    np.testing.assert_array_equal(chunk(plain).actions, chunk(without).actions)


def test_a_prefix_comes_in_the_models_own_units_and_holds() -> None:
    policy = load()
    (answer,) = policy.infer([seen(policy, rows(7), delay=2)])
    ((count, given),) = calls()
    assert count == 1
    np.testing.assert_allclose(given.pop("prev_chunk_left_over"), np.full((1, 4, 6), 3))
    assert given == {"inference_delay": 2}
    np.testing.assert_allclose(chunk(answer).actions[:2], 7, atol=1e-5)
    assert np.abs(chunk(answer).actions[2:] - 7).min() > 1e-3
    assert chunk(answer).extras == {"rtc": {"method": "identity", "inference_delay": 2, "rows": 4}}


def test_where_guidance_ends_is_passed_on() -> None:
    policy = load()
    policy.infer([seen(policy, rows(7), known=3, delay=2, prefix_attention_horizon=9)])
    ((_, given),) = calls()
    assert given["execution_horizon"] == 3
    assert given["prev_chunk_left_over"].shape == (1, 3, 6)


def test_a_batch_is_asked_in_groups_and_answers_as_singles_do() -> None:
    policy, alone = load(), load()
    calls()
    batch = [
        seen(policy, rows(7), delay=2),
        seen(policy),
        seen(policy, rows(np.nan)),
        seen(policy, rows(5), delay=2),
        seen(policy, rows(3), known=0),
        seen(policy, rows(3), delay=1),
    ]
    answers = [*policy.infer(batch)]
    assert [count for count, _ in calls()] == [2, 2, 1]
    singles = [alone.infer([one])[0] for one in batch]
    refused = answers.pop(2), singles.pop(2)
    for error in refused:
        assert isinstance(error, BadObservation)
        assert error.path == "rtc/prev_chunk"
    for one, single in zip(answers, singles, strict=True):
        np.testing.assert_array_equal(chunk(one).actions, chunk(single).actions)
        assert chunk(one).extras == chunk(single).extras
        assert chunk(one).state == chunk(single).state
    assert chunk(answers[3]).extras["rtc"]["rows"] == 0


def test_flags_go_before_what_the_checkpoint_says() -> None:
    policy: Any = load(rtc_schedule="exp", rtc_max_guidance_weight=5)
    made = vars(policy)["_model"].policy.config.rtc_config
    assert (made.enabled, made.prefix_attention_schedule.value, made.max_guidance_weight) == (True, "EXP", 5)
    untouched = vars(load())["_model"].policy.config.rtc_config
    assert (untouched.prefix_attention_schedule.value, untouched.max_guidance_weight) == ("LINEAR", 10)


def test_a_version_without_it_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    factory = import_or_skip("lerobot.policies.factory")
    monkeypatch.delattr(factory.SmolVLA, "init_rtc_processor")
    with pytest.raises(ConfigError, match=r"^--rtc: expected off, since this version of the lerobot package has none"):
        load(rtc="lerobot")
    assert "rtc" not in load().spec.metadata


def test_policies_without_it_refuse_the_flag_and_have_no_leaves(tmp_path: Path) -> None:
    target = copied("smolvla_tiny", tmp_path)
    edit(target / "config.json", type="pi0_fast")
    with pytest.raises(ConfigError, match=r"^--rtc: expected none or off for pi0_fast; pi0, pi05, smolvla have it$"):
        check_policy(str(target), LeRobotFlags(rtc="lerobot"))
    with pytest.raises(ConfigError, match=r"^--rtc: expected none or off for act; "):
        check_policy(str(folder("act_state")), LeRobotFlags(rtc_schedule="exp"))
    with pytest.raises(ConfigError, match=r"^--rtc: expected none or off for smolvla served by steps$"):
        check_policy(str(folder("smolvla_tiny")), LeRobotFlags(rtc="lerobot", mode="step"))
    assert "rtc" not in load(mode="step").spec.metadata
    assert "smolvla" in KINDS


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"rtc_max_guidance_weight": -1}, "rtc_max_guidance_weight: expected more than 0, got -1"),
        ({"rtc": "off", "rtc_schedule": "exp"}, "rtc_schedule: expected none with --rtc off, got 'exp'"),
        ({"rtc": "guided"}, "rtc: expected lerobot or off or None, got 'guided'"),
    ],
)
def test_a_flag_that_cannot_be_is_refused(flags: Mapping[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        LeRobotFlags(**flags)
    assert str(refused.value) == said
