"""Golden cases that a client may send, with Wall-X's protocol over a socket."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from policyserve.compat.wall_x import WallXClient, WebsocketPolicyServer
from policyserve.policies.wall_x import Options, load_policy
from tests.compat.running import running
from tests.policies.frameworks import import_or_skip
from tests.policies.wall_x.golden import UNDECODABLE, WIRE_CASES, facts, model_config, observation, options, tensors

pytestmark = pytest.mark.usefixtures("one_torch_thread")
for package in ("torch", "tokenizers", "PIL.Image", "yaml", "safetensors.numpy"):
    import_or_skip(package)


def server(name: str, chosen: Options | None = None) -> WebsocketPolicyServer:
    policy = load_policy(model_config(name), options=chosen or options(name), env="libero")
    return WebsocketPolicyServer(policy, "127.0.0.1", 0)


def ask(url: str, sent: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The greeting and the answer."""
    client = WallXClient(url)
    try:
        client.connect_sync()
        return client.metadata, client.predict_sync(sent)
    finally:
        client.close_sync()


@pytest.mark.parametrize("name", WIRE_CASES)
def test_a_client_gets_the_originals_actions(name: str) -> None:
    case, arrays = facts(name), tensors(name)
    with running(server(name)) as url:
        greeting, answer = ask(url, observation(name))
    key = "fast/predict_action" if case["kind"] == "fast" else "upstream_sdpa/action"
    wanted = arrays[key][:, :, : case["action_dim"]].astype(np.float32)
    assert answer["predict_action"].dtype == answer["action"].dtype == np.float32
    np.testing.assert_allclose(answer["predict_action"], wanted, atol=1e-4, rtol=0)
    np.testing.assert_array_equal(answer["action"], answer["predict_action"][0])
    assert greeting["conventions"]["attention"] == "upstream_sdpa"
    assert {"action_dim", "pred_horizon", "device", "predict_mode", "env"} <= greeting.keys()


@pytest.mark.parametrize("name", UNDECODABLE)
def test_a_client_is_told_what_the_model_wrote_where_it_does_not_decode(name: str) -> None:
    with running(server(name)) as url, pytest.raises(RuntimeError, match=r"do not decode.*<\|action_token_"):
        ask(url, observation(name))


def test_a_client_that_sends_what_cannot_be_is_refused_and_goes_on() -> None:
    name = "flow_libero_basic"
    good = observation(name)
    bad = (
        {"prompt": "go <|image_pad|>"},
        {"prompt": "x" * 10_000},
        {"state": np.full(8, np.nan, np.float32)},
        {"state": np.zeros(7, np.float32)},
        {"dataset_names": ["mars"]},
        {"noise": np.zeros((32, 20), np.float32)},
        {"front_view": np.zeros((64, 64, 4), np.uint8)},
        {"front_view": np.zeros((64, 64, 3), np.int32)},
        {"front_view": np.zeros((1, 5000, 3), np.uint8)},
        {"front_view": np.zeros((1, 1, 3), np.uint8)},
        {"front_view": np.zeros((3, 64, 3), np.uint8)},
        {"front_view": np.full((64, 64, 3), 255.0, np.float32)},
    )
    with running(server(name)) as url:
        client = WallXClient(url)
        for changes in bad:
            with pytest.raises(RuntimeError, match=next(iter(changes))):
                client.predict_sync({**good, **changes})
        answer = client.predict_sync(good)
        np.testing.assert_allclose(answer["action"], tensors(name)["e2e/predict_action"][0], atol=1e-4, rtol=0)
        client.close_sync()


def test_without_noise_a_new_session_begins_where_the_last_one_did() -> None:
    sent = {key: value for key, value in observation("flow_libero_basic").items() if key != "noise"}
    with running(server("flow_libero_basic")) as url:
        answers = []
        for _ in range(2):
            client = WallXClient(url)
            answers.append([client.predict_sync(sent)["action"] for _ in range(2)])
            client.close_sync()
    np.testing.assert_array_equal(answers[0], answers[1])
    assert not np.array_equal(answers[0][0], answers[0][1])
