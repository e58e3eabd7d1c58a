"""/policies tells which policies there are, to who has a key, and no more of them than that key may use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import InvalidStatus

from policyserve import Client
from policyserve.core.errors import ConfigError
from policyserve.server.config import ServerConfig
from policyserve.server.offers import Offer
from policyserve.server.server import Server
from policyserve.server.splits import Split
from tests.server.live import Live, always, running
from tests.server.test_offers import TWO, failing, make, saying

ROBOT, SIMULATOR = "robot-key-0123456789abcdef", "simulator-key-0123456789ab"


def policies(live: Live, key: str = "") -> Any:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    status, body, _ = live.http("GET", "/policies", headers=headers)
    return json.loads(body) if status == 200 else status


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    path = tmp_path / "keys"
    path.write_text(f"robot: {ROBOT}\nsimulator: {SIMULATOR}\n")
    path.chmod(0o600)
    return str(path)


def test_it_lists_policies_and_routes() -> None:
    offers = {"pick": always(saying(1.0, metadata={"checkpoint": "step_7"})), "gone": failing, **{"b": TWO["place"]}}
    with running(make(offers, {"/arm": Split({"pick": 1, "b": 1}, seed=4)})) as live:
        live.ready()
        with Client(live.url("/pick")) as client:
            client.infer({"obs": np.zeros(1, np.float32)})
            told = policies(live)
    pick, gone, _ = told["policies"]
    assert (pick["name"], pick["path"], pick["is_default"], pick["is_ready"]) == ("pick", "/pick", True, True)
    assert (pick["calls_itself"], pick["checkpoint"], pick["sessions"], pick["answers"]) == ("mine", "step_7", 1, 1)
    assert (gone["is_ready"], gone["stage"], gone["failure"]) == (
        False,
        "loading failed",
        "not served: no such checkpoint",
    )
    assert told["routes"] == [{"path": "/arm", "split": {"pick": 1, "b": 1}, "seed": 4, "blind": True}]


def test_a_server_of_one_lists_it_as_the_default() -> None:
    with running(Server(always(saying(1.0)), ServerConfig(host="127.0.0.1", port=0))) as live:
        live.ready()
        (one,) = policies(live)["policies"]
        assert (one["name"], one["path"], one["calls_itself"]) == ("default", "/", "mine")


def test_a_policy_is_for_its_keys_alone(key_file: str) -> None:
    offers = {"pick": Offer(TWO["pick"], keys=["robot"]), "place": TWO["place"]}
    routes = {"/both": Split({"pick": 1, "place": 1})}
    with running(make(offers, routes, api_key_file=key_file)) as live:
        live.ready()
        for path, key, status in (
            ("/pick", ROBOT, 101),
            ("/pick", SIMULATOR, 403),
            ("/place", SIMULATOR, 101),
            ("/both", SIMULATOR, 403),
            ("/both", ROBOT, 101),
            ("/pick", "no-key-that-is-known", 401),
            ("/nowhere", "no-key-that-is-known", 401),  # names are told to who has a key
            ("/nowhere", ROBOT, 404),
        ):
            assert _opened(live, path, key) == status, (path, key)
        assert policies(live) == 401
        assert [one["name"] for one in policies(live, ROBOT)["policies"]] == ["pick", "place"]
        seen = policies(live, SIMULATOR)
        assert ([one["name"] for one in seen["policies"]], seen["routes"]) == (["place"], [])


def test_a_key_that_there_is_not_is_refused(key_file: str) -> None:
    offers = {"pick": Offer(TWO["pick"], keys=["robto"])}
    with pytest.raises(ConfigError, match=r"policies\.pick\.keys: no API key is named 'robto'; there are robot, sim"):
        running(make(offers, api_key_file=key_file)).__enter__()
    with pytest.raises(ConfigError, match="since --api-key-file names no file"):
        running(make(offers)).__enter__()


def _opened(live: Live, path: str, key: str) -> int:
    try:
        with live.websocket(path, additional_headers={"Authorization": f"Bearer {key}"}):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code
