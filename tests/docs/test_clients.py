"""docs/clients.md: each family is one that is spoken, each command serves, and names meet as its table says."""

from __future__ import annotations

import re
import shlex

import numpy as np
import pytest

from policyserve import dialects
from policyserve.client.sync import Client
from policyserve.core.mapping import Fitted
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextSpec
from tests.cli.serving import POLICYSERVE, ROOT, serving
from tests.cli.terminals import knows

PAGE = (ROOT / "docs" / "clients.md").read_text()
COMMANDS = re.findall(r"^policyserve (.*)$", PAGE, re.MULTILINE)


def test_the_table_has_every_family_that_is_spoken_and_no_other() -> None:
    table = PAGE.partition("## Names")[0]
    told = re.findall(r"^\|[^|]*\| \[`(\w+)`\]", table, re.MULTILINE)
    on_ports_of_their_own = {"gr00t", "lerobot"}
    assert {*told, *on_ports_of_their_own} == set(dialects.names())


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_have_their_flags(command: str) -> None:
    assert knows(shlex.split(command))


def test_its_curl_line_is_the_one_that_is_run() -> None:
    (line,) = re.findall(r"^curl .*$", PAGE, re.MULTILINE)
    assert line in (ROOT / "docs" / "wire" / "rest.md").read_text(), "tests/docs/test_rest.py runs those"


def test_the_originals_that_it_names_are_those_that_the_tests_install() -> None:
    originals = PAGE.partition("## Which originals")[2]
    installed = (ROOT / "tests" / "interop" / "environments.py").read_text()
    named = re.findall(r"([a-z][a-z0-9-]+) (\d+\.\d+\.\d+)", originals)
    assert len(named) > 10
    assert [f"{name}=={version}" for name, version in named if f"{name}=={version}" not in installed] == []


def test_a_key_that_the_command_maps_is_what_a_client_sends() -> None:
    (command,) = [command for command in COMMANDS if "--map" in command]
    with (
        serving([*POLICYSERVE, *shlex.split(command), "--host", "127.0.0.1", "--port", "0"]) as server,
        Client(server.url, dialect="openpi") as client,
    ):
        picture = np.zeros((64, 64, 3), np.uint8)
        assert client.infer({"images": {"left": picture}, "state": np.zeros(3, np.float32)}).actions.shape == (14,)
        assert any("maps" in line and "images/left as image" in line for line in server.lines)


def test_names_meet_as_the_table_says() -> None:
    leaves = {
        "observation/wrist_image": ImageSpec(),
        "observation/exterior_image": ImageSpec(),
        "joint_position": ArraySpec((2,)),
        "gripper_position": ArraySpec((1,)),
        "task": TextSpec(),
    }
    picture = np.zeros((4, 4, 3), np.uint8)
    observation = {"images": {"hand": picture, "agentview": picture}, "state": np.zeros(3), "prompt": "go"}
    fit = Fitted({}, PolicySpec("told", leaves, None), by_role=True)
    assert set(fit(observation)) == set(leaves)
