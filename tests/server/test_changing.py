"""A policy that takes another one's place under open sessions: they are answered, told, and connect again."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from policyserve import Client, PolicyserveError, RemoteError
from policyserve.core.recipe import Recipe
from policyserve.core.spec_from_values import SeenPolicy
from policyserve.engine.reloading import ReloadingEngine
from policyserve.server.config import ServerConfig
from policyserve.server.offers import local_engine
from policyserve.server.server import Server
from tests.server.live import DEADLINE_S, Live, running

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a policy's own process needs Linux or macOS")

OPEN = "import numpy as np\ndef policy(obs):\n    return np.full(SIZE, NUMBER)\n"
SPECIFIED = """
import time
from pathlib import Path
import numpy as np
from policyserve import ArraySpec, FunctionPolicy, PolicySpec


def act(obs):
    if obs["hold"]:
        Path("held").touch()
        while not Path("go_on").exists():
            time.sleep(0.002)
    return np.full(2, NUMBER, np.float32)


policy = FunctionPolicy(act, PolicySpec("arm", {"KEY": ArraySpec(()), "hold": ArraySpec(())}, None))
"""


def write(number: int, source: str = OPEN, size: int = 2, key: str = "x") -> None:
    text = source.replace("NUMBER", str(number)).replace("SIZE", str(size)).replace("KEY", key)
    Path("my_policy.py").write_text(text)


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")


@contextmanager
def reloading(**settings: Any) -> Iterator[Live]:
    """A server of my_policy.py in the working directory, which is looked at all the time."""
    recipe = Recipe(
        "policyserve.policies.objects:load_from_file", {"path": Path("my_policy.py").absolute(), "name": "policy"}
    )
    config = ServerConfig(host="127.0.0.1", port=0, isolate="process", **settings)
    engine = ReloadingEngine(lambda: local_engine(recipe, config), look_every_s=0.01)
    with running(Server(engine, config)) as live:
        live.ready()
        yield live


def answer(live: Live, **observation: Any) -> float:
    with Client(live.url("/openpi")) as client:
        return float(client.infer(observation or {"x": 1.0}).actions[0])


def until_answering(live: Live, number: float, **observation: Any) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            if answer(live, **observation) == number:
                return
        except PolicyserveError as error:
            if not error.retryable:  # what a request is told that comes between two versions
                raise
    raise AssertionError(f"no answer is {number}")


def test_a_client_connects_again_by_itself_and_gets_the_new_policys_answers() -> None:
    write(1)
    with reloading() as live, Client(live.url("/openpi")) as client:
        assert client.infer({"x": 1.0}).actions.tolist() == [1, 1]
        write(2)
        until_answering(live, 2)
        assert client.infer({"x": 1.0}).actions.tolist() == [2, 2]


def test_a_session_is_closed_with_a_code_that_says_to_come_again() -> None:
    write(1)
    with reloading() as live, live.websocket("/openpi") as peer:
        peer.recv(timeout=DEADLINE_S)
        write(2)
        with pytest.raises(Exception, match="the policy was loaded anew: connect again") as ended:
            peer.recv(timeout=DEADLINE_S)
        received = getattr(ended.value, "rcvd", None)
        assert received is not None
        assert (received.code, received.reason) == (1013, "the policy was loaded anew: connect again [not_ready]")


def test_a_request_under_way_is_answered_by_the_policy_that_it_was_sent_to(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    write(1, SPECIFIED)
    with reloading() as live, Client(live.url("/openpi")) as client:
        answers: list[Any] = []
        asking = threading.Thread(target=lambda: answers.append(client.infer({"x": 0.0, "hold": 1.0}).actions[0]))
        asking.start()
        live.until(lambda _: Path("held").exists())
        write(2, SPECIFIED)
        live.until(lambda _: "the changed policy answers" in caplog.text)
        assert answer(live, x=0.0, hold=0.0) == 2
        assert answers == []
        Path("go_on").touch()
        asking.join(DEADLINE_S)
        assert answers == [1]


def test_the_next_policys_spec_holds_for_the_sessions_to_come(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    write(1, SPECIFIED)
    with reloading() as live:
        assert answer(live, x=0.0, hold=0.0) == 1
        write(2, SPECIFIED, key="y")

        live.until(lambda _: "the changed policy answers" in caplog.text)
        with Client(live.url("/openpi")) as client:
            client.connect()
            assert list(client.metadata["spec"]["observation"]) == ["y", "hold"]
        assert answer(live, y=0.0, hold=0.0) == 2
        with pytest.raises(RemoteError, match="y: expected float32"):
            answer(live, x=0.0, hold=0.0)


def test_a_syntax_error_disturbs_no_session(caplog: pytest.LogCaptureFixture) -> None:
    write(1)
    with reloading() as live, Client(live.url("/openpi")) as client:
        assert client.infer({"x": 1.0}).actions[0] == 1
        Path("my_policy.py").write_text("def policy(obs:\n")
        live.until(lambda _: "so the one before goes on" in caplog.text)
        assert "SyntaxError" in caplog.text
        assert "(my_policy.py, line 1)" in caplog.text
        assert client.infer({"x": 1.0}).actions[0] == 1
        write(3)
        until_answering(live, 3)
    assert live.server.counters.errors == {}


def test_what_a_policy_without_a_spec_takes_is_learned_of_each_version() -> None:
    write(1, size=2)
    with reloading() as live:
        seen: list[SeenPolicy] = []
        live.server.on_seen = seen.append
        assert answer(live) == 1
        write(2, size=3)
        until_answering(live, 2)
        live.until(lambda _: len(seen) == 2)
        with Client(live.url("/openpi")) as client:
            client.connect()
            assert client.metadata["action_dim"] == 3
    assert [one.spec.action.shape for one in seen if one.spec.action] == [(2,), (3,)]
