"""PUT /policies/NAME: who may exchange a policy, how that is asked for, and what is told of it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest

from policyserve import Client
from policyserve.core.errors import ConfigError
from policyserve.core.policy import Policy
from policyserve.core.recipe import OnStage
from policyserve.core.spec import ArraySpec
from policyserve.engine.batcher import Batcher
from policyserve.engine.local import LocalEngine
from policyserve.server.exchange import FoundPolicy
from policyserve.server.exchange_page import read_swap
from policyserve.server.server import Server
from tests.server.exchanging import CONFIG, Numbered
from tests.server.live import DEADLINE_S, Live, running

ADMIN, ROBOT = "an-admins-key-of-some-letters", "a-robots-key-of-some-letters"


class Shop:
    """Finds the policies `number:N`; loading waits for may_load. `wider:N` has another spec."""

    def __init__(self) -> None:
        self.may_load = threading.Event()
        self.may_load.set()

    def find(self, named: str, flags: Sequence[str]) -> FoundPolicy:
        kind, _, number = named.partition(":")
        if kind not in ("number", "wider"):
            raise ConfigError(f"there is no policy {named!r}")

        def load(on_stage: OnStage) -> Policy:
            on_stage("reading weights")
            assert self.may_load.wait(DEADLINE_S)
            if "--broken" in flags:
                raise KeyError("weights")
            more = {"observation": {"x": ArraySpec((1,)), "y": ArraySpec(())}} if kind == "wider" else {}
            return Numbered(int(number), **more)

        return FoundPolicy(load, f"the policy {number}")


@contextmanager
def serving(tmp_path: Path, shop: Shop | None = None, policy: Any = lambda _: Numbered(1)) -> Iterator[Live]:
    keys = tmp_path / "keys"
    keys.write_text(f"ops admin: {ADMIN}\nrobot: {ROBOT}\n")
    keys.chmod(0o600)
    server = Server(policy, replace(CONFIG, api_key_file=str(keys)))
    server.find_policy = None if shop is None else shop.find
    with running(server) as live:
        live.ready()
        yield live


def fetch(live: Live, method: str = "GET", key: str = ADMIN, name: str = "default", **query: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", live.port, timeout=DEADLINE_S)
    connection.request(method, f"/policies/{name}?{urlencode(query)}", headers={"Authorization": f"Bearer {key}"})
    answer = connection.getresponse()
    text = answer.read().decode()
    return answer.status, json.loads(text) if text.startswith("{") else text


def settled(live: Live) -> dict[str, Any]:
    found: list[Any] = []

    def look() -> bool:
        _, told = fetch(live)
        found.append(told)
        return told["last"].get("state") != "coming"

    while not look():
        live.until(lambda server: True)
    return found[-1]


def ask(client: Client) -> float:
    return float(np.ravel(client.infer({"x": np.zeros(1, np.float32)}).actions)[0])


def test_an_admin_exchanges_a_policy_and_is_told_how_far_it_is(tmp_path: Path) -> None:
    shop = Shop()
    with serving(tmp_path, shop) as live, Client(live.url("/openpi"), api_key=ROBOT) as client:
        assert ask(client) == 1
        nothing = {"stage": "", "coming": "", "staying": 0, "last": {}}
        assert fetch(live)[1] == {"policy": "default", "title": "numbered 1", "version": 1, "before": None, **nothing}
        shop.may_load.clear()
        assert fetch(live, "PUT", source="number:2") == (202, {"policy": "default", "number": 1})
        live.until(lambda server: "reading weights" in getattr(server.engine, "swapping", ""))
        told = fetch(live)[1]
        assert told["coming"].startswith("the policy 2, reading weights, since ")
        assert told["last"] == {"number": 1, "state": "coming", "title": "number:2"}
        status, told = fetch(live, "PUT", source="number:3")
        assert status == 409
        assert told.startswith("another policy is on its way already: the policy 2, reading weights")
        shop.may_load.set()
        told = settled(live)
        assert (told["title"], told["version"], told["before"]) == ("the policy 2", 2, "numbered 1")
        assert told["last"]["state"] == "answers"
        assert ask(client) == 2
        assert fetch(live, "PUT", back="true")[0] == 202
        assert settled(live)["title"] == "numbered 1"
        assert ask(client) == 1


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ({"source": "number:2", "flags": '["--broken"]'}, "KeyError: 'weights'"),
        ({"source": "missing:2"}, "there is no policy 'missing:2'"),
        ({"source": "wider:2"}, "another spec, which sessions were not told (force closes them"),
        ({"back": "true"}, "there is no policy to go back to: this one is the first"),
    ],
)
def test_one_that_does_not_take_over_is_told_with_the_reason(query: dict[str, str], told: str, tmp_path: Path) -> None:
    with serving(tmp_path, Shop()) as live, Client(live.url("/openpi"), api_key=ROBOT) as client:
        assert fetch(live, "PUT", **query)[0] == 202
        last = settled(live)["last"]
        assert last["state"] == "refused"
        assert told in last["error"]
        assert ask(client) == 1


def test_nobody_else_may(tmp_path: Path) -> None:
    with serving(tmp_path, Shop()) as live:
        status, told = fetch(live, "PUT", ROBOT, source="number:2")
        assert (status, told) == (
            403, "PUT /policies/default needs an admin's key: a line `NAME admin: KEY` in --api-key-file\n",
        )  # fmt: skip
        assert fetch(live, "PUT", "another-key-of-some-letters", source="number:2")[0] == 401
        assert fetch(live, "PUT", name="arm", source="number:2")[0] == 404
        assert fetch(live, "POST", source="number:2")[0] == 405


def test_without_keys_nobody_may() -> None:
    with running(Server(lambda _: Numbered(1), CONFIG)) as live:
        live.ready()
        assert fetch(live, "PUT", source="number:2")[0] == 403


def test_a_server_that_finds_no_policies_says_so(tmp_path: Path) -> None:
    with serving(tmp_path) as live:
        status, told = fetch(live, "PUT", source="number:2")
        assert status == 501
        assert "call server.swap()" in told


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ({}, "source, back: expected a policy to serve or back=true, got neither"),
        ({"source": "x", "back": "true"}, "got both"),
        ({"source": "x", "force": "yes"}, "force: expected true or false, got 'yes'"),
        ({"source": "x", "timeout_s": "soon"}, "timeout_s: expected a number of seconds, got 'soon'"),
        ({"source": "x", "timeout_s": "nan"}, "timeout_s: expected more than 0 seconds"),
        ({"source": "x", "flags": "--step 7"}, "flags: expected a JSON list of texts"),
        ({"source": "x", "flags": "[7]"}, "flags: expected a JSON list of texts"),
        ({"source": "x", "when": "later"}, "when: expected one of now, next-session, got 'later'"),
        ({"source": "x", "wen": "now"}, "wen: no parameter of PUT /policies/NAME; those are source, flags, when"),
    ],
)
def test_what_is_asked_wrongly_is_refused(query: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_swap(query)
    assert told in str(refused.value)


def test_what_is_asked_wrongly_is_a_400(tmp_path: Path) -> None:
    with serving(tmp_path, Shop()) as live:
        assert fetch(live, "PUT")[0] == 400


def test_what_is_asked_rightly_is_read() -> None:
    asked = read_swap({"source": "x:y", "flags": '["--step", "7"]', "force": "true", "timeout_s": "2.5"})
    assert (asked.source, asked.flags) == ("x:y", ("--step", "7"))
    assert (asked.how.force, asked.how.timeout_s, asked.how.when) == (True, 2.5, "now")


def test_a_policy_that_another_exchanges_has_a_page_that_says_how(tmp_path: Path) -> None:
    class Kept(LocalEngine):
        def how_to_exchange(self, source: str, flags: Sequence[str], *, sessions_stay: bool) -> str:
            return f"roll {source} {' '.join(flags)}{' and stay' if sessions_stay else ''}"

    engine = Kept(lambda _: Numbered(1), lambda most: Batcher(most, 100), 30.0)
    with serving(tmp_path, policy={"arm": engine}) as live:
        asked = {"source": "number:2", "flags": json.dumps(["--step", "7"]), "when": "next-session"}
        told = "arm is not exchanged here: roll number:2 --step 7 and stay\n"
        assert fetch(live, "PUT", name="arm", **asked) == (409, told)
        assert fetch(live, "PUT", name="arm")[0] == 400
        assert fetch(live, "PUT", key=ROBOT, name="arm", **asked)[0] == 403
        assert fetch(live, name="arm") == (200, {"policy": "arm", "exchange": "roll  "})
