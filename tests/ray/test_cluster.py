"""Who may use which cluster. What is deployed on one is in test_drills.py."""

from __future__ import annotations

import importlib.util
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.ray import cluster
from policyserve.ray.cluster import (
    Deployed,
    asks_for_token,
    check_installed,
    check_token,
    knock,
    newest,
    place_of,
    reason,
    refusal,
)
from tests.doctor.sick import closed_port
from tests.policies.frameworks import import_or_skip


def test_a_cluster_that_runs_what_anybody_sends_is_refused_off_loopback() -> None:
    with pytest.raises(
        ConfigError, match=r"whoever reaches 10\.0\.0\.3 runs code on this cluster.*RAY_AUTH_MODE=token"
    ):
        check_token(["127.0.0.1", "10.0.0.3"], asks=False, insecure=False)


@pytest.mark.parametrize(
    ("addresses", "asks", "insecure"),
    [
        (["127.0.0.1", "::1"], False, False),
        (["10.0.0.3"], True, False),
        (["10.0.0.3"], False, True),
    ],
)
def test_one_is_used_that_asks_for_a_token_or_that_nobody_else_reaches(
    addresses: list[str], asks: bool, insecure: bool
) -> None:
    check_token(addresses, asks, insecure)


@pytest.mark.parametrize(("is_asked", "expected"), [(True, True), (False, False), (None, None)])
def test_the_cluster_itself_is_asked_whether_it_wants_a_token(is_asked: bool | None, expected: bool | None) -> None:
    grpc = import_or_skip("grpc")

    def gcs(request: bytes, context: Any) -> bytes:
        assert request == b""
        if is_asked is not False:
            code = grpc.StatusCode.UNAUTHENTICATED if is_asked else grpc.StatusCode.UNAVAILABLE
            context.abort(code, "InvalidAuthToken: Authentication token is missing or incorrect")
        return b""

    handlers = {"CheckAlive": grpc.unary_unary_rpc_method_handler(gcs)}
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("ray.rpc.NodeInfoGcsService", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert asks_for_token(f"127.0.0.1:{port}") is expected
    finally:
        server.stop(None).wait()


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


@pytest.mark.parametrize(
    ("address", "environment", "expected"),
    [
        ("10.0.0.3:6379", {"RAY_ADDRESS": "10.0.0.4:6379"}, "10.0.0.3:6379"),
        ("auto", {"RAY_ADDRESS": "10.0.0.4:6379"}, "10.0.0.4:6379"),
        ("auto", {}, ""),
        ("local", {"RAY_ADDRESS": "10.0.0.4:6379"}, ""),
    ],
)
def test_auto_is_the_cluster_of_the_environment_or_one_that_ray_looks_for(
    address: str, environment: dict[str, str], expected: str
) -> None:
    assert place_of(address, environment) == expected


def test_an_address_where_nobody_listens_is_told_at_once() -> None:
    place = f"127.0.0.1:{closed_port()}"
    with pytest.raises(ConnectionRefusedError) as refused:
        knock(place)
    told = (
        f"--ray-address: no cluster at {place} (Connection refused): expected the address that `ray start --head` told"
    )
    assert refusal(place, refused.value, {}) == told
    knock("")
    knock("ray://127.0.0.1:1")  # Ray's own way through a proxy, which nobody can knock at


@pytest.mark.parametrize(
    ("text", "environment", "got"),
    [
        ("RPC error: InvalidAuthToken: Authentication token is missing", {}, "got RAY_AUTH_MODE not set"),
        ("RPC error: InvalidAuthToken", {"RAY_AUTH_MODE": "token"}, "got another token"),
        ("RPC error: InvalidAuthToken", {"RAY_AUTH_MODE": "disabled"}, "got RAY_AUTH_MODE=disabled"),
        ("enabled but no authentication token was found", {"RAY_AUTH_MODE": "token"}, "got none"),
    ],
)
def test_a_token_that_does_not_fit_is_told_as_that(text: str, environment: dict[str, str], got: str) -> None:
    """Ray says of it, some twenty seconds later, that it cannot connect."""
    late = ConnectionError("Failed to connect to Ray cluster at 10.0.0.3:6379")
    late.__cause__ = RuntimeError(text)
    for error in (RuntimeError(text), late):
        told = refusal("10.0.0.3:6379", error, environment)
        assert told.startswith("ray: the cluster at 10.0.0.3:6379 asks for a token: expected RAY_AUTH_MODE=token here")
        assert told.endswith(got)


def test_no_cluster_at_this_machine_is_told_with_both_ways_to_have_one() -> None:
    told = refusal("", ConnectionError("Could not find any running Ray instance. Please specify `--address`"), {})
    assert "got none: `ray start --head` begins one, `ray start --address HOST:PORT` joins one" in told


def test_asking_how_a_cluster_is_starts_nothing_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(**_: object) -> None:
        raise AssertionError("Serve was started")

    serve = SimpleNamespace(status=lambda: SimpleNamespace(applications={}), start=start)
    context = SimpleNamespace(_get_global_client=lambda **_: None)
    modules = {"ray": SimpleNamespace(serve=serve), "ray.serve": serve, "ray.serve.context": context}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    assert cluster.status() == []


def test_who_waits_is_told_each_stage_once_and_may_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [[], [Deployed("arm", "1", "DEPLOYING", 0, 0)], [Deployed("arm", "1", "DEPLOYING", 0, 1)]]
    leave, stages = threading.Event(), list[str]()

    def status() -> list[Deployed]:
        found = answers.pop(0) if answers else [Deployed("arm", "1", "DEPLOYING", 0, 1)]
        if not answers:
            leave.set()
        return found

    monkeypatch.setattr(cluster, "status", status)
    cluster.wait_until_running("arm", stages.append, leave=leave)
    assert stages == ["waiting for the cluster", "being looked at", "0 of 1 replicas"]
