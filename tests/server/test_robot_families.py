"""Clients of starVLA, RoboArena, DreamZero, vLLM-Omni, BEHAVIOR-1K and MolmoSpaces, imitated, against a real server.

Each does what the original does, in its order, over a plain WebSocket. tests/interop has originals.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, ConnectionClosedError
from websockets.sync.client import ClientConnection

from policyserve import Client
from policyserve.core.errors import PolicyserveError
from policyserve.core.messages import Observation
from policyserve.core.policy import ActionChunk, PolicyInput
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextSpec
from policyserve.dialects.marked_arrays import MSGPACK_NUMPY, OPENPI
from tests.server.live import DEADLINE_S, Live, serving

PICTURE = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
RGBA = np.full((2, 3, 4), 7, np.uint8)
DROID = {
    "observation/wrist_image_left": ImageSpec(180, 320),
    "observation/exterior_image_1_left": ImageSpec(180, 320),
    "observation/joint_position": ArraySpec((7,)),
    "observation/gripper_position": ArraySpec((1,)),
    "prompt": TextSpec(),
}
WHOLE = {"images": {"0": ImageSpec(optional=True)}, "state": ArraySpec((None,)), "prompt": TextSpec(default="")}


class Counting:
    """Answers with how often this episode has asked, step by step; asked: how often the policy was called."""

    def __init__(self, leaves: Any, size: int, horizon: int | None = 3, **facts: Any) -> None:
        self.spec = PolicySpec("counting", leaves, ArraySpec((size,)), horizon=horizon, metadata=facts)
        self.seen: list[Observation] = []

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk | PolicyserveError]:
        return [self._answer(one) for one in batch]

    def close(self) -> None:
        pass

    def _answer(self, one: PolicyInput) -> ActionChunk:
        self.seen.append(one.observation)
        count, action = (one.state or 0) + 1, self.spec.action
        assert action is not None
        size, steps = action.shape[0], self.spec.horizon
        assert size is not None
        rows = np.full((steps or 1, size), count, np.float32) + np.arange(steps or 1, dtype=np.float32)[:, None] / 10
        return ActionChunk(rows if steps else rows[0], state=count)


@pytest.fixture(scope="module")
def droid() -> Iterator[Live]:
    with serving(Counting(DROID, 8, action_space="joint_velocity"), isolate="thread") as live:
        yield live


@pytest.fixture(scope="module")
def whole() -> Iterator[Live]:
    with serving(Counting(WHOLE, 23, task_prompts=["tidy up"]), isolate="thread") as live:
        yield live


def told(message: str | bytes, spelling: Any = OPENPI) -> Any:
    assert isinstance(message, bytes), message
    return spelling.unmark(msgpack.unpackb(message, object_pairs_hook=named))


def named(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    return {key.decode() if isinstance(key, bytes) else key: value for key, value in pairs}


def ask(peer: ClientConnection, message: Any, spelling: Any = OPENPI) -> Any:
    peer.send(spelling.pack(message))
    return told(peer.recv(DEADLINE_S), spelling)


# RoboArena

SIX = {
    "image_resolution": [180, 320],
    "needs_wrist_camera": True,
    "n_external_cameras": 1,
    "needs_stereo_camera": False,
    "needs_session_id": True,
    "action_space": "joint_velocity",
}


def arena(session_id: str, endpoint: str = "infer", picture: Any = None) -> dict[str, Any]:
    image = np.zeros((180, 320, 3), np.uint8) if picture is None else picture
    return {
        "observation/wrist_image_left": image,
        "observation/exterior_image_0_left": image,
        "session_id": session_id,
        "observation/joint_position": np.zeros(7, np.float32),
        "observation/cartesian_position": np.zeros(6, np.float32),
        "observation/gripper_position": np.zeros(1, np.float32),
        "prompt": "put the marker in the cup",
        "endpoint": endpoint,
    }


@pytest.mark.parametrize("path", ["/", "/roboarena"])
@pytest.mark.parametrize("spelling", [OPENPI, MSGPACK_NUMPY], ids=lambda it: it.name)
def test_roboarenas_client_is_greeted_asks_and_resets(droid: Live, path: str, spelling: Any) -> None:
    with droid.websocket(path) as peer:
        greeting = told(peer.recv(DEADLINE_S))
        assert greeting == SIX if path == "/roboarena" else greeting.items() >= SIX.items()
        for who, expected in (("a", 1), ("b", 1), ("a", 2), ("b", 2)):
            reply = ask(peer, arena(who), spelling)
            assert list(reply) == ["actions"]
            assert reply["actions"].shape == (3, 8)
            assert reply["actions"][0, 0] == expected
        peer.send(spelling.pack(arena("a", "reset")))
        assert peer.recv(DEADLINE_S) == "reset successful"
        assert [int(ask(peer, arena(who), spelling)["actions"][0, 0]) for who in "ab"] == [1, 3]


def test_roboarenas_dialect_can_be_pinned_and_dreamzeros_answers_the_array_alone() -> None:
    with serving(Counting(DROID, 8), dialect="roboarena", isolate="thread") as live:
        with live.websocket("/") as peer:
            assert list(told(peer.recv(DEADLINE_S))) == list(SIX)
        with live.websocket("/dreamzero") as peer:
            assert list(told(peer.recv(DEADLINE_S))) == list(SIX)
            assert ask(peer, arena("a")).shape == (3, 8)
        with Client(live.url("/dreamzero")) as client:
            observation = {key: value for key, value in arena("a").items() if key != "endpoint"}
            assert client.infer(observation).actions.shape == (3, 8)


def test_a_roboarena_client_gets_a_reason_and_goes_on(droid: Live) -> None:
    with droid.websocket("/") as peer:
        peer.recv(DEADLINE_S)
        peer.send(OPENPI.pack(arena("a", picture=np.zeros((3, 4, 3), np.uint8))))
        said = peer.recv(DEADLINE_S)
        assert isinstance(said, str)
        assert said.startswith(
            "bad_observation: observation/wrist_image_left: expected uint8 image HWC, 180 x 320, got"
        )
        assert ask(peer, arena("a"))["actions"].shape == (3, 8)


def test_our_client_speaks_roboarena_to_a_server_of_theirs_and_of_ours(droid: Live) -> None:
    observation = {key: value for key, value in arena("a").items() if key not in ("endpoint", "session_id")}
    with Client(f"ws://127.0.0.1:{droid.port}", dialect="roboarena") as client:
        for number in (1, 2):
            assert client.infer(observation).actions[0, 0] == number
        assert client.metadata == SIX
        client.reset()
        assert client.infer(observation).actions[0, 0] == 1


# vLLM-Omni


def test_vllm_omnis_endpoint_answers_arrays_and_maps(droid: Live) -> None:
    with droid.websocket("/v1/realtime/robot/openpi") as peer:
        assert told(peer.recv(DEADLINE_S)).items() >= SIX.items()
        asked = {key: value for key, value in arena("a").items() if key != "endpoint"}
        assert [ask(peer, asked)[0, 0] for _ in range(2)] == [1, 2]
        assert ask(peer, {"endpoint": "reset", "session_id": "a"}) == {"status": "reset successful"}
        refused = ask(peer, {"prompt": "go"})
        assert refused["type"] == "error"
        assert refused["message"].startswith("bad_observation: observation/wrist_image_left: expected")
        assert ask(peer, [1])["type"] == "error"
        assert ask(peer, asked)[0, 0] == 1
    with Client(droid.url("/v1/realtime/robot/openpi")) as client:
        assert client.infer(asked).actions.shape == (3, 8)


# starVLA


def test_starvlas_client_asks_pings_and_is_told_of_mistakes(whole: Live) -> None:
    with whole.websocket("/") as peer:
        size = int(told(peer.recv(DEADLINE_S))["action_chunk_size"])
        examples = [{"image": [PICTURE, PICTURE], "lang": "go", "state": np.zeros((1, 8), np.float32)}]
        reply = ask(peer, {"examples": examples, "unnorm_key": None})
        assert reply["status"] == "ok"
        assert reply["data"]["actions"].shape == (1, size, 23)
        enveloped = ask(peer, {"type": "infer", "request_id": "r2", "payload": {"examples": examples}})
        assert (enveloped["request_id"], enveloped["type"]) == ("r2", "inference_result")
        pong = ask(peer, {"type": "ping", "request_id": "r3"})
        assert pong == {"status": "ok", "ok": True, "type": "ping", "request_id": "r3"}
        for bad in ({"type": "reset"}, {"examples": []}, {"examples": [{"state": "none"}]}):
            assert ask(peer, bad)["ok"] is False
        assert ask(peer, {"examples": examples})["ok"] is True
        peer.send(b"\xc1")
        assert str(peer.recv(DEADLINE_S)).startswith("bad_frame: ")
        with pytest.raises(ConnectionClosedError) as closed:
            peer.recv(DEADLINE_S)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1011


# BEHAVIOR-1K


def behavior(task: int = 0) -> dict[str, Any]:
    robot = "robot_r1::robot_r1:"
    return {
        f"{robot}left_realsense_link:Camera:0::rgb": RGBA,
        f"{robot}zed_link:Camera:0::rgb": RGBA,
        "robot_r1::proprio": np.zeros(256, np.float32),
        "robot_r1::cam_rel_poses": np.zeros(21, np.float32),
        "task_id": np.array([task]),
    }


@pytest.mark.parametrize("path", ["/", "/behavior1k"])
def test_behaviors_client_gets_one_action_after_the_other_and_resets_without_an_answer(path: str) -> None:
    cameras = {"images": {"head": ImageSpec(), "left_wrist": ImageSpec()}}
    policy = Counting({**cameras, "state": ArraySpec((256,)), "prompt": TextSpec()}, 23, task_prompts=["tidy up"])
    with serving(policy, isolate="thread") as live:
        policy.seen.clear()  # of warming up
        assert live.http("GET", "/healthz")[0] == 200
        with live.websocket(path) as peer:
            peer.recv(DEADLINE_S)
            peer.send(OPENPI.pack({"reset": True}))
            replies = [ask(peer, behavior()) for _ in range(4)]
            assert {reply["action"].shape for reply in replies} == {(23,)}
            assert [round(float(reply["action"][0]), 1) for reply in replies] == [1.0, 1.1, 1.2, 2.0]
            assert ["prev_total_ms" in reply["server_timing"] for reply in replies] == [False, True, True, True]
            peer.send(OPENPI.pack({"reset": True}))
            assert float(ask(peer, behavior())["action"][0]) == 1.0
    assert len(policy.seen) == 3
    assert {seen["prompt"] for seen in policy.seen} == {"tidy up"}
    assert {seen["images"][name].shape for seen in policy.seen for name in ("head", "left_wrist")} == {(2, 3, 3)}


# MolmoSpaces


def molmo() -> dict[str, Any]:
    joints = {"arm": np.arange(7.0), "gripper": np.array([0.4])}
    return {"wrist_camera": PICTURE, "exo_camera_1": PICTURE, "qpos": joints, "task": "pick up the mug"}


MOLMO = {
    "images": {"wrist_camera": ImageSpec(), "exo_camera_1": ImageSpec()},
    "state": {"arm": ArraySpec((7,)), "gripper": ArraySpec((1,))},
    "prompt": TextSpec(),
}


@pytest.mark.parametrize("path", ["/", "/molmospaces"])
def test_molmospaces_client_gets_an_action_by_its_parts_and_a_connection_is_an_episode(path: str) -> None:
    policy = Counting(MOLMO, 8, model_name="toy")
    with serving(policy, isolate="thread") as live:
        policy.seen.clear()  # of warming up
        for _ in range(2):
            with live.websocket(path) as peer:
                assert told(peer.recv(DEADLINE_S))["model_name"] == "toy"
                replies = [ask(peer, molmo(), MSGPACK_NUMPY) for _ in range(2)]
                assert [(reply["arm"].shape, reply["gripper"].shape) for reply in replies] == [((7,), (1,))] * 2
                assert [round(float(reply["arm"][0]), 1) for reply in replies] == [1.0, 1.1]
                assert all(isinstance(ms, int) for ms in replies[0]["server_timing"].values())
    assert [seen["prompt"] for seen in policy.seen] == ["pick up the mug"] * 2


# All of them


def test_clients_of_all_families_at_once_get_their_own_answers(whole: Live) -> None:
    """Each sends its own number as state, and gets as many episodes as it has."""
    failures: list[str] = []

    def run(client: Callable[[], None]) -> None:
        try:
            client()
        except BaseException as error:
            failures.append(f"{client.__name__}: {error!r}")

    def starvla() -> None:
        with whole.websocket("/") as peer:
            peer.recv(DEADLINE_S)
            for number in range(1, 21):
                reply = ask(peer, {"examples": [{"state": np.zeros(8, np.float32)}], "request_id": str(number)})
                assert (reply["request_id"], reply["data"]["actions"][0, 0, 0]) == (str(number), number)

    def behaves() -> None:
        with whole.websocket("/") as peer:
            peer.recv(DEADLINE_S)
            for number in range(60):
                action = ask(peer, behavior())["action"]
                assert round(float(action[0]), 1) == number // 3 + 1 + number % 3 / 10

    def openpi() -> None:
        with Client(whole.url("/")) as client:
            for number in range(1, 21):
                assert client.infer({"state": np.zeros(2)}).actions[0, 0] == number

    def roboarena() -> None:
        with whole.websocket("/") as peer:
            peer.recv(DEADLINE_S)
            for number in range(1, 21):
                for who in "ab":
                    reply = ask(peer, {"endpoint": "infer", "session_id": who, "state": np.zeros(2)})
                    assert reply["actions"][0, 0] == number

    threads = [threading.Thread(target=run, args=(client,)) for client in (starvla, behaves, openpi, roboarena) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert failures == []


FAMILIES = ["starvla", "roboarena", "dreamzero", "vllm_omni", "behavior1k", "molmospaces"]


def array(mark: str, kind: str, dtype: Any, shape: Any, data: Any) -> dict[str, Any]:
    return {mark: True, kind: dtype, "kind": b"", "shape": shape, "data": data}


def forged(dtype: Any = "<f4", shape: Any = (1,), data: Any = bytes(4), **more: Any) -> list[dict[str, Any]]:
    return [{**array("__ndarray__", "dtype", dtype, shape, data), **more}, array("nd", "type", dtype, shape, data)]


HOSTILE: dict[str, Any] = {
    "objects": forged("|O", [1], b"cos\nsystem\n(S'id'\ntR."),
    "2**80 bytes": forged("<f4", [2**40, 2**40]),
    "a shape that lies": forged("<f4", [1000], b""),
    "a shape below zero": forged("<f4", [-1]),
    "fields": forged([["a", "<f4"], ["b", "|O"]]),
    "deep maps": [{"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": 1}}}}}}}}}],
    "300 arrays": [[array("__ndarray__", "dtype", "<f4", [1], bytes(4)) for _ in range(300)]],
    "an extension": [msgpack.ExtType(5, b"cos\nsystem\n(S'id'\ntR.")],
    "a torch tensor": [{"__torch__": True, "data": b"x", "dtype": "float32"}],
    "a long key": [{"x" * 4000: 1}],
    "not a number": [float("nan")],
}


@pytest.mark.parametrize("name", FAMILIES)
def test_hostile_values_in_any_place_are_refused_and_the_session_goes_on(whole: Live, name: str) -> None:
    for value in [one for values in HOSTILE.values() for one in values]:
        messages = [
            {"state": value, "endpoint": "infer", "session_id": "s"},
            {"examples": [{"state": value, "image": value}], "endpoint": "infer"},
            {"endpoint": "infer", "session_id": value, "state": 4},
            {"task": value, "qpos": value, "endpoint": value},
            {"robot_r1::proprio": value, "task_id": value, "endpoint": "infer"},
            {"type": value, "request_id": value, "payload": value, "endpoint": "infer"},
        ]
        with whole.websocket(f"/{name}") as peer:
            peer.recv(DEADLINE_S)
            try:
                for message in messages:
                    peer.send(msgpack.packb(message))  # type: ignore[arg-type]
                for _ in messages:
                    peer.recv(DEADLINE_S)
            except ConnectionClosed:
                assert name == "starvla", "the one that closes behind what it cannot decode"
    with Client(whole.url("/openpi")) as client:
        assert client.infer({"state": np.zeros(2)}).actions.shape == (3, 23)


@pytest.mark.parametrize("name", FAMILIES)
def test_truncated_messages_are_refused(whole: Live, name: str) -> None:
    message = OPENPI.pack({"examples": [{"state": np.zeros(4)}], "endpoint": "infer", "qpos": {"arm": np.zeros(7)}})
    for length in range(0, len(message), 7):
        with whole.websocket(f"/{name}") as peer:
            peer.recv(DEADLINE_S)
            peer.send(message[:length])
            said = peer.recv(DEADLINE_S)
            text = said if isinstance(said, str) else json.dumps(told(said))
            assert "bad_frame" in text


def test_session_ids_without_end_are_refused_at_their_bound_until_one_is_reset(whole: Live) -> None:
    with whole.websocket("/roboarena") as peer:
        peer.recv(DEADLINE_S)
        refused = 0
        for number in range(300):
            peer.send(OPENPI.pack({"endpoint": "infer", "session_id": f"s{number}", "state": np.zeros(2)}))
            refused += str(peer.recv(DEADLINE_S)[:20]).startswith("overloaded")
        assert refused == 300 - 256
        peer.send(OPENPI.pack({"endpoint": "reset", "session_id": "s0"}))
        assert peer.recv(DEADLINE_S) == "reset successful"
        assert ask(peer, {"endpoint": "infer", "session_id": "s299", "state": np.zeros(2)})["actions"][0, 0] == 1
