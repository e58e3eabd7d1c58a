"""vla-eval's and XPolicyLab's clients on a real server: whole episodes, pictures, bad messages, others beside them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from policyserve import ArraySpec, Client, FunctionPolicy, ImageSpec, PolicySpec
from policyserve.core.arrays import Array
from tests.dialects.recorded import message
from tests.policies.frameworks import import_or_skip
from tests.server.live import DEADLINE_S, Live, serving

SPEC = PolicySpec(
    "benchmarked",
    {"images": {"agentview": ImageSpec(optional=True)}, "state": ArraySpec((2,))},
    ArraySpec((2,)),
    horizon=3,
)


def act(observation: Any) -> Array:
    """Row by row: the picture's sum, or the state's where there is none, and the row's number."""
    image = observation.get("images", {}).get("agentview")
    first = np.sum(observation["state"] if image is None else image)
    return np.stack([np.array([first, row], np.float32) for row in range(3)])


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with serving(FunctionPolicy(act, SPEC), max_frame_mib=8.0) as live:
        live.ready()
        yield live


def dial(live: Live, path: str = "") -> ClientConnection:
    return connect(live.url(path), compression=None, max_size=None, open_timeout=DEADLINE_S)


def say(peer: ClientConnection, kind: str, payload: Any, seq: int) -> None:
    peer.send(msgpack.packb({"type": kind, "payload": payload, "seq": seq, "timestamp": 1.0}) or b"")


def hear(peer: ClientConnection) -> Any:
    return msgpack.unpackb(peer.recv(DEADLINE_S), strict_map_key=False)


def action(peer: ClientConnection, seq: int) -> list[float]:
    answer = hear(peer)
    assert (answer["type"], answer["seq"]) == ("action", seq), answer
    marked = answer["payload"]["actions"]
    assert (marked["dtype"], marked["shape"]) == ("<f4", [2])
    return np.frombuffer(marked["data"], "<f4").tolist()


def state(first: float) -> Any:
    numbers = np.array([first, 0], np.float64)
    return {"states": {"__ndarray__": True, "data": numbers.tobytes(), "dtype": "<f8", "shape": [2]}}


def picture(array: Array, form: str) -> Any:
    file = io.BytesIO()
    import_or_skip("PIL.Image").fromarray(array).save(file, form.upper())
    return {"__image__": True, "format": form, "data": file.getvalue(), "shape": list(array.shape)}


@pytest.mark.parametrize("path", ["", "/vla_eval", "/whatever"])
def test_a_benchmark_plays_episodes_whatever_its_path(live: Live, path: str) -> None:
    with dial(live, path) as peer:
        say(peer, "hello", {"harness_version": "0.8.0", "protocol_version": 1}, 1)
        told = hear(peer)
        assert (told["type"], told["seq"], told["payload"]["model_server"]) == ("hello", 1, "policyserve")
        for episode in (10, 20):
            say(peer, "episode_start", {"task": {"name": "pick"}}, episode)
            for step in (1, 2, 3, 4):
                say(peer, "observation", state(episode + step), episode + step)
                first = episode + (1 if step < 4 else 4)
                assert action(peer, episode + step) == [first, (step - 1) % 3]
            say(peer, "episode_end", {"metrics": {"success": True}}, episode + 5)


@pytest.mark.parametrize("form", ["png", "raw"])
def test_pictures_are_the_pixels_that_were_sent(live: Live, form: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    raw = {"__image__": True, "format": "raw", "data": pixels.tobytes(), "dtype": "|u1", "shape": [32, 48, 3]}
    with dial(live, "/vla_eval") as peer:
        sent = raw if form == "raw" else picture(pixels, form)
        say(peer, "observation", {"images": {"agentview": sent}, **state(1)}, 5)
        assert action(peer, 5)[0] == pixels.sum()


def test_a_jpeg_is_taken_as_well(live: Live) -> None:
    import_or_skip("simplejpeg")
    with dial(live, "/vla_eval") as peer:
        black = picture(np.zeros((32, 48, 3), np.uint8), "jpeg")
        say(peer, "observation", {"images": {"agentview": black}, **state(1)}, 5)
        assert action(peer, 5)[0] == 0


def test_bad_messages_are_answered_by_errors_and_disturb_nobody(live: Live) -> None:
    import_or_skip("PIL")
    whole = picture(np.zeros((32, 48, 3), np.uint8), "png")
    broken = {**whole, "data": whole["data"][:60] + bytes(9)}
    with dial(live, "/vla_eval") as peer, Client(live.url("/openpi")) as other:
        bad: list[tuple[bytes, int]] = [
            (_told(message("unsafe", "vla_eval_object_dtype")), 1),
            (_told(message("unsafe", "vla_eval_png_bomb_header")), 2),
            (b"\xc1", 0),
            (_packed("observation", {"images": {"agentview": broken}, **state(1)}, 7), 7),
            (_packed("observation", {"images": {"agentview": {**whole, "format": "gif"}}, **state(1)}, 8), 8),
            (_packed("nonsense", {}, 9), 9),
            (_packed("observation", [1], 10), 10),
            (_packed("observation", {"x": [[[[[[[[[[1]]]]]]]]]]}, 11), 0),
        ]
        for sent, seq in bad:
            peer.send(sent)
            told = hear(peer)
            assert (told["type"], told["seq"]) == ("error", seq), told
            assert "expected" in told["payload"]["error"]
            assert other.infer({"state": np.array([seq, 1])}).actions[0, 0] == seq + 1
        say(peer, "observation", state(4), 12)
        assert action(peer, 12) == [4, 0]


def _told(data: bytes | str) -> bytes:
    assert isinstance(data, bytes)
    return data


def _packed(kind: str, payload: Any, seq: int) -> bytes:
    return msgpack.packb({"type": kind, "payload": payload, "seq": seq, "timestamp": 1.0}) or b""


def test_a_live_client_that_never_waits_gets_the_newest_answer_last(live: Live) -> None:
    with dial(live, "/vla_eval") as peer:
        say(peer, "episode_start", {"task": {}, "mode": "live"}, 1)
        for seq in range(2, 60):
            say(peer, "observation", state(seq), seq)
        seqs = []
        while not seqs or seqs[-1] != 59:
            answer = hear(peer)
            assert answer["type"] == "action"
            seqs.append(answer["seq"])
        assert seqs == sorted(set(seqs))


def test_an_xpolicylab_trial_goes_from_hello_to_close(live: Live) -> None:
    def ask(kind: str, payload: Any, number: int) -> Any:
        told = {"evaluation_id": "e", "action_case_id": None, "trial_id": "t", "repeat_index": None, "step": number}
        peer.send(msgpack.packb({"message_type": kind, **told, "message_id": f"{number}", "payload": payload}) or b"")
        answer = hear(peer) if kind != "close" else None
        assert answer is None or answer["message_id"] == f"{number}"
        return answer

    joints = np.array([3.0, 4.0])
    marked = {b"nd": True, b"type": "<f8", b"kind": b"", b"shape": [2], b"data": joints.tobytes()}
    with dial(live) as peer:
        assert ask("hello", {}, 1)["message_type"] == "hello_ack"
        assert ask("reset", {"trial_id": "t"}, 2)["message_type"] == "reset_result"
        told = ask("infer", {"observation": {"state": {"arm_joint_state": marked}, "instruction": "go"}}, 3)
        assert told["message_type"] == "infer_result"
        assert len(told["payload"]["actions"]) == 3
        assert set(told["payload"]["actions"][0]) == {"arm_joint_state"}
        assert ask("infer", {"observation": 5}, 4)["payload"]["code"] == "invalid_frame"
        assert ask("nonsense", {}, 5)["payload"]["code"] == "unknown_message_type"
        assert ask("trial_end", {}, 6)["message_type"] == "trial_end_ack"
        ask("close", {}, 7)
        with pytest.raises(ConnectionClosed):
            peer.recv(DEADLINE_S)
