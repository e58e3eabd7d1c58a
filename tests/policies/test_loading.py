"""policyserve.load_policy: what `policyserve serve` takes, in a program."""

from __future__ import annotations

import numpy as np
import pytest

import policyserve
from policyserve import PolicyInput
from policyserve.core.errors import ConfigError


def test_a_policy_is_loaded_by_its_name_with_its_flags() -> None:
    policy = policyserve.load_policy("cartpole_ppo", max_batch=4)
    assert policy.spec.max_batch == 4
    (chunk,) = policy.infer([PolicyInput({"obs": np.zeros(4, np.float32)})])
    assert isinstance(chunk, policyserve.ActionChunk)
    assert chunk.actions in (0, 1)


@pytest.mark.parametrize(
    ("target", "flags", "said"),
    [
        ("cartpole_ppo", {"max_bach": 1}, r"^cartpole_ppo has no flag 'max_bach': did you mean max_batch\?$"),
        ("demo_image", {"zzz": 1}, r"^demo_image has no flag 'zzz': expected none$"),
        ("cartpole_ppo", {"max_batch": 0}, "^max_batch: expected 1 or more, got 0$"),
        ("nowhere.onnx", {}, "^nowhere.onnx: there is no such file$"),
    ],
)
def test_what_cannot_be_loaded_is_refused(target: str, flags: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        policyserve.load_policy(target, **flags)
