"""Each program of docs/writing_a_policy.md is saved as its reader would save it, served, and asked."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve import Client, PolicyServer, Recipe, Server, StackedPolicy
from policyserve.core.errors import RemoteError
from policyserve.core.messages import Reply
from policyserve.core.policy import ActionChunk, PolicyInput, PreparingPolicy
from tests.cli.serving import POLICYSERVE, ROOT, Serving, serving
from tests.cli.terminals import knows
from tests.server import live

PAGE = (ROOT / "docs/writing_a_policy.md").read_text()
PORT_0 = ("--host", "127.0.0.1", "--port", "0")


def sections() -> dict[str, str]:
    """The page's sections by their headings."""
    _, *parts = re.split(r"^## (.*)$", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def blocks(language: str) -> dict[str, list[str]]:
    """The blocks of a language, by the headings that they stand under."""
    found = {name: re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL) for name, text in sections().items()}
    return {name: programs for name, programs in found.items() if programs}


def commands() -> list[list[str]]:
    return [shlex.split(line) for texts in blocks("bash").values() for text in texts for line in text.splitlines()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where my_policy.py is put, and found by whoever imports it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("my_policy", "test_my_policy"):
        sys.modules.pop(name, None)


def save(heading: str, folder: Path, name: str = "my_policy") -> Any:
    """Save the one program under a heading, and import it."""
    (program,) = blocks("python")[heading]
    (folder / f"{name}.py").write_text(program)
    importlib.invalidate_caches()
    return importlib.import_module(name)


@contextmanager
def asking(policy: Any) -> Iterator[Client]:
    """A client of a server of this policy."""
    with live.serving(policy) as server, Client(server.url("/openpi")) as client:
        yield client


def ask(server: Serving, observation: dict[str, Any]) -> Reply:
    with Client(server.url) as client:
        return client.infer(observation)


def test_every_program_has_its_test() -> None:
    tested = set(re.findall(r'save\("([^"]+)", folder', Path(__file__).read_text()))
    assert set(blocks("python")) == tested


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_is_one_that_the_program_knows(command: list[str]) -> None:
    assert command[0] == "policyserve"
    assert knows(command[1:])


def test_a_function_is_served_with_its_spec_and_without(folder: Path) -> None:
    save("A function", folder)
    state = np.array([0, 0, 3, 0.5])
    with serving([*POLICYSERVE, "serve", "my_policy:policy", *PORT_0], cwd=folder) as server:
        assert np.allclose(ask(server, {"state": state}).actions, [-1, -0.5])
        with pytest.raises(RemoteError, match="state"):
            ask(server, {"sate": state})
    with serving([*POLICYSERVE, "serve", "my_policy:act", *PORT_0], cwd=folder) as server:
        assert np.allclose(ask(server, {"state": state, "more": 1}).actions, [-1, -0.5])


def test_an_object_is_made_when_it_is_served_and_its_metadata_is_told(folder: Path) -> None:
    save("An object", folder)
    with (
        serving([*POLICYSERVE, "serve", "my_policy:Reacher", *PORT_0], cwd=folder) as server,
        Client(server.url) as client,
    ):
        assert np.allclose(client.infer({"state": np.arange(4.0)}).actions, [1.5, 1.5])
        assert client.metadata["robot"] == "planar arm"


def test_a_batch_gives_each_robot_its_own_rows(folder: Path) -> None:
    policy = save("A batch", folder).policy
    seen = {"image": np.full((64, 64, 3), 255, np.uint8), "state": np.arange(7.0)}
    with asking(policy) as client:
        assert client.infer(seen).actions.shape == (8, 7)
        batch = client.infer({"image": np.stack([seen["image"]] * 3), "state": np.stack([seen["state"]] * 3)})
    assert np.allclose(batch.actions, np.broadcast_to(-seen["state"], (3, 8, 7)))


def test_a_policy_answers_prompts_and_fails_one_input_alone(folder: Path) -> None:
    policy = save("A policy", folder).Follow()
    with asking(policy) as client:
        reply = client.infer({"state": np.zeros(3), "prompt": "lift"})
        assert reply.actions.tolist() == [0, 0, 1]
        assert reply["task"] == "lift"
        assert client.infer({"state": np.zeros(3)}).actions.tolist() == [0, 0, 0]
        with pytest.raises(RemoteError, match="expected one of stay, lift, lower, got 'fly'"):
            client.infer({"state": np.zeros(3), "prompt": "fly"})
        assert client.infer({"state": np.zeros(3), "prompt": "lower"}).actions.tolist() == [0, 0, -1]


def test_a_policy_that_prepares_is_served_as_one(folder: Path) -> None:
    policy = save("Preparing ahead", folder).Look()
    assert isinstance(policy, PreparingPolicy)
    image = np.full((120, 160, 3), 51, np.uint8)
    (plain,) = policy.infer([PolicyInput({"image": image})])
    assert isinstance(plain, ActionChunk)
    with asking(policy) as client:
        assert np.allclose(client.infer({"image": image}).actions, plain.actions)
    assert np.allclose(plain.actions, 0.2)


def test_a_flow_policys_chunk_agrees_with_the_rows_that_run_meanwhile(folder: Path) -> None:
    policy = save("Real-time chunking", folder).Reach()
    seen = {"goal": np.full(7, 0.5)}
    prefix = {
        "rtc/prev_chunk": np.zeros((16, 7), np.float32),
        "rtc/prev_length": np.array(12, np.int32),
        "rtc/inference_delay": np.array(4, np.int32),
    }
    with asking(policy) as client:
        assert client.metadata["rtc"] == {"methods": ["identity"], "max_delay": None, "action_kind": "position"}
        plain = client.infer(seen)
        assert np.allclose(plain.actions, 0.5)
        assert "rtc" not in plain
        guided = client.infer({**seen, **prefix})
        assert np.abs(guided.actions[:4]).max() < 0.1
        assert np.allclose(guided.actions[12:], 0.5)
        assert guided["rtc"] == {"method": "identity", "inference_delay": 4, "rows": 12}
        with pytest.raises(RemoteError, match="rtc/prev_length: expected at most 16, a chunk's rows, got 17"):
            client.infer({**seen, **prefix, "rtc/prev_length": np.array(17, np.int32)})


def test_a_factorys_objects_are_one_per_session_and_told_of_resets(folder: Path) -> None:
    make_policy = save("Objects that have reset()", folder).make_policy
    running = live.Live(PolicyServer(factory=make_policy, host="127.0.0.1", port=0))
    running.start()
    try:
        with Client(running.url("/openpi")) as one, Client(running.url("/openpi")) as other:
            assert [one.infer({"x": np.zeros(1)}).actions[0] for _ in range(3)] == [1, 2, 3]
            assert other.infer({"x": np.zeros(1)}).actions == [1]
            one.reset()
            assert one.infer({"x": np.zeros(1)}).actions == [1]
            assert other.infer({"x": np.zeros(1)}).actions == [2]
    finally:
        running.stop()
        running.join()


def test_a_recipe_loads_the_policy_in_a_process_of_its_own(folder: Path) -> None:
    module = save("In a process of its own", folder)
    np.save(folder / "weights.npy", np.eye(3, dtype=np.float32))
    made: Server = module.make_server(folder / "weights.npy")
    recipe = Recipe("my_policy:load", {"weights": folder / "weights.npy"})
    with live.serving(load=recipe, isolate=made.config.isolate) as server:
        server.ready()
        with Client(server.url("/openpi")) as client:
            assert client.infer({"state": np.arange(3.0)}).actions.tolist() == [0, 1, 2]


def test_the_test_passes_and_fails_for_a_policy_that_mixes_up_its_rows(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = save("A batch", folder)
    test = save("Testing it", folder, "test_my_policy")
    test.test_a_batch_answers_what_single_calls_answer()
    monkeypatch.setattr(test, "policy", StackedPolicy(lambda rows: module.forward(rows)[::-1], module.SPEC))
    with pytest.raises(AssertionError):
        test.test_a_batch_answers_what_single_calls_answer()
