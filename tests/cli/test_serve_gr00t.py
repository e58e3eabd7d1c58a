"""`policyserve serve --gr00t`, as a person types it."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.cli.serving import POLICYSERVE, run, serving
from tests.policies.frameworks import import_or_skip
from tests.server.gr00t.asking import Asker, packed, unpacked

import_or_skip("zmq")

HERE = ("--host", "127.0.0.1", "--port", "0")


def test_the_screen_says_where_its_clients_connect_to_and_a_policy_for_others_answers_them() -> None:
    with serving([*POLICYSERVE, "serve", "cartpole_ppo", *HERE, "--gr00t", "0"]) as server:
        found = re.search(r"^ *gr00t +(tcp://127\.0\.0\.1:\d+)$", "".join(server.lines), re.MULTILINE)
        assert found, server.lines
        client = Asker(found.group(1))
        try:
            asked = {"endpoint": "get_action", "data": {"state.obs": np.zeros((1, 4))}}
            answer = unpacked(client.ask(packed(asked)))
            assert answer["action.action"] in (0, 1)
            bench = ["bench", found.group(1).replace("tcp", "zmq"), "--payload", "cartpole", "--duration-s", "0.2"]
            ended = run(*POLICYSERVE, *bench)
            assert ended.returncode == 0, ended.stderr
            assert re.search(r"^errors +none$", ended.stdout, re.MULTILINE)
        finally:
            client.close()
        assert server.stop()[0] == 0


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--port", "5555", "--gr00t", "5555"), "--gr00t: expected another port than 5555"),
        (("--gr00t", "70000"), "--gr00t: expected 0 … 65535"),
    ],
)
def test_a_port_that_cannot_be_ends_the_command_in_one_line(flags: tuple[str, ...], told: str) -> None:
    ended = run(*POLICYSERVE, "serve", "cartpole_ppo", *flags)
    assert ended.returncode != 0
    assert told in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
