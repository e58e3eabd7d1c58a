"""What is told of a server, in the columns of a terminal."""

from __future__ import annotations

import ast
import io
import os
from pathlib import Path
from typing import Any

import pytest

from policyserve.cli import layout
from policyserve.cli.foreground.start_screen import Screen
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextSpec
from policyserve.policies.wall_x.config import MODEL_CONFIGS
from policyserve.policies.wall_x.spec import wall_x_spec
from policyserve.server.listener import Address, TlsAddress, UnixAddress

HERE = Address("127.0.0.1", 8000)
SMALL = PolicySpec(
    "small",
    {"obs": ArraySpec((4,), doc="cart position m, cart velocity m/s, pole angle rad, pole velocity rad/s")},
    ArraySpec((), "int32", doc="0 pushes the cart left, 1 right"),
)
CAMERAS = PolicySpec(
    "cameras",
    {
        "observation/exterior_image_1_left": ImageSpec(224, 224, doc="the room"),
        "observation/wrist_image_left": ImageSpec(224, 224, doc="the hand"),
        "observation/joint_position": ArraySpec((7,), doc="rad, " + "each of the seven joints in its order, " * 4),
        "prompt": TextSpec("the task", optional=True),
    },
    ArraySpec((8,), doc="joint velocities rad/s and the gripper"),
    horizon=10,
)
LONG_NAMES = PolicySpec("long", {"a/" * 40 + name: ArraySpec((2,), doc="m") for name in "xy"}, None)
CHINESE = PolicySpec("中文", {"obs": ArraySpec((4,), doc="小车位置和速度" * 12)}, ArraySpec((1,), doc="力" * 50))
ANYTHING = PolicySpec("anything", None, None)
WALL_X = wall_x_spec(MODEL_CONFIGS["aloha"], env="aloha", noise_width=14)
SPECS = [SMALL, CAMERAS, LONG_NAMES, CHINESE, ANYTHING, WALL_X]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class AsciiTerminal(Terminal):
    encoding = "ascii"


def described(
    spec: PolicySpec, stream: io.StringIO | None = None, address: Address = HERE, **options: Any
) -> list[str]:
    return Screen(stream or Terminal()).description(spec, address, **options)


@pytest.fixture(autouse=True)
def _without_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_line_fits(spec: PolicySpec, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policyserve.cli.foreground.start_screen.columns_of", lambda stream: columns)
    screen = Screen(Terminal())
    lines = [*screen.heading("a title " * 30, f"file {'/home/somebody/a/long/path' * 8}/robot.py"), *described(spec)]
    assert [line for line in lines if layout.width_of(line) >= columns] == []
    assert all(line.isprintable() and line == line.rstrip() for line in lines)


def test_descriptions_stand_beside_each_other_where_there_is_room() -> None:
    assert described(SMALL)[1:4] == [
        "  takes   obs  float32 (4,)  cart position m, cart velocity m/s, pole angle",
        "                             rad, pole velocity rad/s",
        "  gives   int32 ()  0 pushes the cart left, 1 right",
    ]


def test_descriptions_stand_below_where_there_is_none() -> None:
    lines = described(CAMERAS)[1:]
    takes = [line[10:] for line in lines[: next(number for number, line in enumerate(lines) if "gives" in line)]]
    assert takes[:2] == ["observation/exterior_image_1_left  uint8 image HWC, 224 x 224", " " * 35 + "the room"]
    assert takes[2] == "observation/wrist_image_left       uint8 image HWC, 224 x 224"
    assert takes[-1] == "prompt                             a text (str) (optional)  the task"


def test_cameras_that_are_alike_are_described_once() -> None:
    takes = [line[10:] for line in described(WALL_X)]
    assert "left_wrist_view   as above" in takes
    assert sum("HWC" in line for line in takes) == 1
    assert not any("the cameras are" in line for line in takes)


def test_a_spec_of_hundreds_shows_the_first_and_how_many_more() -> None:
    spec = PolicySpec("many", {f"joint_{number}": ArraySpec((1,)) for number in range(300)}, None)
    lines = described(spec)
    assert len(lines) < 50
    assert "          … and 260 more" in lines


def test_in_a_pipe_each_line_is_whole() -> None:
    (takes,) = [line for line in described(SMALL, io.StringIO()) if "takes" in line]
    assert takes.endswith("obs  float32 (4,)  cart position m, cart velocity m/s, pole angle rad, pole velocity rad/s")


def test_the_client_line_is_short_and_is_python_where_nobody_knows_what_is_taken() -> None:
    assert "  client  python -m policyserve.client ws://localhost:8000" in described(CAMERAS)
    with_key = described(SMALL, address=TlsAddress("10.0.0.7", 443), needs_key=True)
    place = with_key.index("  client  python -m policyserve.client wss://10.0.0.7:443")
    assert with_key[place + 1] == "          with POLICYSERVE_API_KEY set to the key"
    lines = described(ANYTHING)
    place = next(number for number, line in enumerate(lines) if "client" in line)
    assert lines[place] == "  client  client = policyserve.Client('ws://localhost:8000')"
    assert lines[place + 1] == "          client.infer(obs) # what your policy takes"
    assert ast.parse("\n".join(line[10:] for line in lines[place : place + 2]))


def test_a_command_that_is_too_long_for_a_line_can_be_pasted_all_the_same() -> None:
    path = "/run/user/1000/policyserve/robots/arm.socket"
    url, *_, first, second = described(SMALL, address=UnixAddress(path, 0))
    assert url == f"  url     ws+unix://{path}"
    assert first == "  health  curl --unix-socket /run/user/1000/policyserve/robots/arm.socket \\"
    assert second == "          http://localhost/healthz"


@pytest.mark.parametrize(
    ("address", "needs_key", "told"),
    [
        (Address("0.0.0.0", 8000), False, "ws://localhost:8000  all addresses, no key: see SECURITY.md"),
        (Address("::", 8000), True, "ws://localhost:8000  all addresses, with a key"),
        (Address("127.0.0.1", 8000), False, "ws://localhost:8000"),
        (UnixAddress("/run/policy", 0), False, "ws+unix:///run/policy"),
    ],
)
def test_who_may_connect_is_told_with_the_url(address: Address, needs_key: bool, told: str) -> None:
    assert described(SMALL, address=address, needs_key=needs_key)[0] == f"  url     {told}"


def test_what_was_loaded_is_told_as_far_as_the_policy_says_it() -> None:
    spec = PolicySpec("p", None, None, metadata={"checkpoint_step": 3, "backend": "numpy", "device": None, "x": 1})
    assert described(spec)[0] == "  loaded  step 3, numpy"


def test_a_path_is_told_from_home_and_without_its_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ada"))
    screen = Screen(Terminal())
    assert screen.heading("a policy", "file /home/ada/robots/policy.py")[1] == "  from    file ~/robots/policy.py"
    (line,) = screen.heading("a policy", f"model path /data{'/checkpoints' * 20}/model-7")[1:]
    assert line.startswith("  from    model path /data/check")
    assert "…" in line
    assert line.endswith("/checkpoints/model-7")


def test_a_terminal_that_lacks_characters_gets_similar_ones_and_lines_that_fit() -> None:
    terminal = AsciiTerminal()
    lines = Screen(terminal).heading("a policy", "here")
    many = PolicySpec("many", {f"joint_{number}": ArraySpec((1,)) for number in range(41)}, None)
    lines += [*described(CHINESE, terminal), *described(many, terminal)]
    assert lines[0].split(" ", 2)[2] == "- a policy"
    assert all(line.isascii() and len(line) < 80 for line in lines)
    assert "          ... and 1 more" in lines


def test_strangers_texts_drive_no_terminal() -> None:
    spec = PolicySpec("p", {"a\x1b[2J": ArraySpec((1,), doc="m\n\x9b31m")}, ArraySpec((1,), doc="x\r\ny"))
    lines = [*Screen(Terminal()).heading("t\x1b[2J", f"file{os.sep}\x1b[2J"), *described(spec)]
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    ("address", "page"),
    [
        (Address("0.0.0.0", 8000), "http://localhost:8000/"),
        (Address("fe80::1", 8000), "http://[fe80::1]:8000/"),
        (TlsAddress("lab.example", 443), "https://lab.example:443/"),
    ],
)
def test_it_says_where_a_browser_shows_what_the_server_does(address: Address, page: str) -> None:
    assert f"  watch   {page}" in described(SMALL, address=address, has_page=True)
    assert not [line for line in described(SMALL, address=address) if "watch" in line]


def test_a_browser_opens_no_unix_socket() -> None:
    assert not [
        line for line in described(SMALL, address=UnixAddress("/run/p.sock", 0), has_page=True) if "watch" in line
    ]
