"""Who may use which cluster. What is deployed on one is in test_drills.py."""

from __future__ import annotations

import importlib.util

import pytest

from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.ray.cluster import check_installed, check_token, newest, reason


def test_a_cluster_that_runs_what_anybody_sends_is_refused_off_loopback() -> None:
    with pytest.raises(
        ConfigError, match=r"whoever reaches 10\.0\.0\.3 runs code on this cluster.*RAY_AUTH_MODE=token"
    ):
        check_token(["127.0.0.1", "10.0.0.3"], {}, insecure=False)


@pytest.mark.parametrize(
    ("addresses", "environment", "insecure"),
    [
        (["127.0.0.1", "::1"], {}, False),
        (["10.0.0.3"], {"RAY_AUTH_MODE": "token"}, False),
        (["10.0.0.3"], {}, True),
    ],
)
def test_one_is_used_that_asks_for_a_token_or_that_nobody_else_reaches(
    addresses: list[str], environment: dict[str, str], insecure: bool
) -> None:
    check_token(addresses, environment, insecure)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="ray is installed")
def test_without_the_extra_the_error_says_how_to_get_it() -> None:
    with pytest.raises(MissingDependency, match=r"pip install 'policyserve\[ray\]'"):
        check_installed()


@pytest.mark.parametrize(
    ("applications", "expected"),
    [
        ([], ""),
        (["pick"], "pick"),
        (["pick", "pick@2", "place@9"], "pick@2"),
        (["pick@9", "pick@10", "picking@11"], "pick@10"),
    ],
)
def test_new_sessions_get_the_newest_version_of_their_policy(applications: list[str], expected: str) -> None:
    assert newest("pick", applications) == expected


TRACEBACK = """The deployment failed to start 3 times in a row. Error:
\x1b[36mray::ServeReplica:pick:Replica.initialize_and_get_metadata()\x1b[39m (pid=26705)
RuntimeError: Traceback (most recent call last):
  File "replica.py", line 1867, in initialize
policyserve.core.errors.ConfigError: gone.onnx: there is no such file
"""


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("", ""),
        (TRACEBACK, "gone.onnx: there is no such file"),
        (TRACEBACK.replace("policyserve.core.errors.Config", "OS"), "OSError: gone.onnx: there is no such file"),
        ('Deployment has 1 replica\nthat waits for {"GPU": 1}', 'Deployment has 1 replica that waits for {"GPU": 1}'),
    ],
)
def test_of_a_replicas_traceback_its_last_line_is_told(message: str, expected: str) -> None:
    assert reason(message) == expected
