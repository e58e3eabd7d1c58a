"""WallXClient, with and without an event loop, over a real socket."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from policyserve.compat.wall_x import MODEL_CONFIGS, WallXClient, WallXPolicy, WebsocketPolicyServer
from policyserve.core.errors import ConfigError, ConnectionLost
from tests.compat.running import running


def libero_policy(**changes: Any) -> WallXPolicy:
    arguments: dict[str, Any] = {
        "model_path": "stand-in",
        "train_config": "",
        "action_tokenizer_path": "",
        "action_dim": 7,
        "agent_pos_dim": 8,
        "pred_horizon": 32,
        "camera_key": MODEL_CONFIGS["libero"].camera_key,
    }
    return WallXPolicy(**{**arguments, **changes})


def observation(**changes: Any) -> dict[str, Any]:
    return {
        "front_view": np.full((48, 64, 3), 100, np.uint8),
        "left_wrist_view": np.full((48, 64, 3), 30, np.uint8),
        "prompt": "open the drawer",
        "state": np.linspace(-1, 1, 8),
        "dataset_names": ["physical-intelligence/libero"],
        **changes,
    }


def test_it_connects_predicts_and_closes_without_an_event_loop() -> None:
    policy = libero_policy()
    with running(WebsocketPolicyServer(policy, "127.0.0.1", 0)) as url:
        client = WallXClient(uri=url)
        assert client.metadata == {}
        client.connect_sync()
        assert client.metadata["pred_horizon"] == 32
        response = client.predict_sync(observation())
        assert type(response) is dict
        assert response["action"].shape == (32, 7)
        assert response["action"].dtype == np.float32
        assert response["predict_action"].shape == (1, 32, 7)
        assert set(response["server_timing"]) >= {"infer_ms"}
        np.testing.assert_array_equal(response["action"], policy.infer(observation())["action"])
        client.close_sync()


def test_it_connects_predicts_and_closes_in_an_event_loop() -> None:
    async def ask(url: str) -> None:
        client = WallXClient(uri=url)
        await client.connect()
        assert client.metadata["action_dim"] == 7
        first = await client.predict(observation())
        assert first["action"].shape == (32, 7)
        assert "prev_total_ms" in (await client.predict(observation()))["server_timing"]
        await client.close()

    with running(WebsocketPolicyServer(libero_policy(), "127.0.0.1", 0)) as url:
        asyncio.run(ask(url))


def test_both_kinds_predict_without_being_connected_first() -> None:
    async def ask(client: WallXClient) -> None:
        assert (await client.predict(observation()))["action"].shape == (32, 7)
        await client.close()

    with running(WebsocketPolicyServer(libero_policy(), "127.0.0.1", 0)) as url:
        client = WallXClient(url)
        assert client.predict_sync(observation())["action"].shape == (32, 7)
        client.close_sync()
        asyncio.run(ask(client))


def test_a_wrong_camera_is_a_runtime_error_that_names_the_right_one() -> None:
    async def ask(client: WallXClient) -> None:
        with pytest.raises(RuntimeError, match="front_view"):
            await client.predict(wrong)
        assert (await client.predict(observation()))["action"].shape == (32, 7)
        await client.close()

    wrong = observation(front_veiw=np.zeros((8, 8, 3), np.uint8))
    del wrong["front_view"]
    with running(WebsocketPolicyServer(libero_policy(), "127.0.0.1", 0)) as url:
        client = WallXClient(url)
        with pytest.raises(RuntimeError, match="did you mean 'front_view' by 'front_veiw'"):
            client.predict_sync(wrong)
        assert client.predict_sync(observation())["action"].shape == (32, 7)
        client.close_sync()
        asyncio.run(ask(client))


def test_nobody_there_is_a_lost_connection() -> None:
    with running(WebsocketPolicyServer(libero_policy(), "127.0.0.1", 0)) as url:
        pass
    with pytest.raises(ConnectionLost):
        WallXClient(url).connect_sync()


def test_a_uri_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="ws://host:port"):
        WallXClient("localhost:8000")
