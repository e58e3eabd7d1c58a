"""What can be said of a policy on a cluster, and what cannot."""

from __future__ import annotations

from typing import Any

import pytest

from policyserve.core.errors import ConfigError
from policyserve.ray.config import ClusterConfig


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"min_replicas": 0}, "min_replicas: expected 1 or more, got 0"),
        ({"min_replicas": 3, "max_replicas": 2}, "max_replicas: expected 3 or more, got 2"),
        ({"num_gpus": -1.0}, "num_gpus: expected 0 or more, got -1.0"),
        ({"surge_percent": 101}, "surge_percent: expected 0 … 100, got 101"),
        ({"call_timeout_s": 0.0}, "call_timeout_s: expected more than 0, got 0.0"),
        ({"max_tries": 0}, "max_tries: expected 1 or more, got 0"),
        ({"session_state": "here"}, "session_state: expected travels or stays, got 'here'"),
        (
            {"session_state": "stays", "carrier": "handle"},
            "carrier: expected tcp, where session_state stays: Serve's handle cannot choose a replica, got 'handle'",
        ),
        ({"deployed_as": "a/b"}, "deployed_as: expected letters, digits, - and _, got 'a/b'"),
        ({"ray_address": ""}, "ray_address: expected auto, local or HOST:PORT, got nothing"),
        ({"max_state_kib": "64"}, "max_state_kib: expected a finite number, got '64'"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_expected(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as error:
        ClusterConfig(**wrong)
    assert str(error.value) == told
