"""Where torch computes."""

from __future__ import annotations

import pytest

from policyserve.core.errors import ConfigError
from policyserve.policies.torch_device import find_device
from tests.policies.frameworks import import_or_skip

torch = import_or_skip("torch")


def test_a_device_is_found_by_its_name() -> None:
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(
        ConfigError,
        match=r"--device cuda:99: torch .*CUDA.*; use cpu$",
    ):
        find_device("cuda:99")
