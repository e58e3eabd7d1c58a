"""The server's flags: in groups, each with a line that says what it does."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any

import pytest
from tyro.conf import arg

from policyserve.cli.arguments.parsing import parse
from policyserve.cli.arguments.server_flags import GROUPS, PATHS, USUAL, groups, help_lines
from policyserve.server.config import ServerConfig
from tests.cli.terminals import run_in


@dataclass(frozen=True)
class Flags:
    """As a command has them."""

    server: Annotated[ServerConfig, arg(name="")] = field(default_factory=ServerConfig)
    debug: bool = False


def read(*argv: str, default: Flags | None = None) -> ServerConfig:
    return parse(Flags, "test", argv, default).server


def test_every_setting_is_in_a_group_and_the_usual_ones_are_settings() -> None:
    assert sorted(groups()) == sorted(one.name for one in fields(ServerConfig))
    assert set(groups().values()) == set(GROUPS)
    assert {*USUAL, *PATHS} <= set(groups())


def test_every_flag_has_one_line_that_says_what_it_does() -> None:
    told = help_lines()
    for one in fields(ServerConfig):
        assert len(told[one.name].split()) >= 4, one.name


@pytest.mark.parametrize("group", GROUPS)
def test_help_shows_a_group_whole_and_nothing_else(group: str) -> None:
    shown = re.findall(
        r"^  --(?:\[no-\])?([a-z0-9-]+)", run_in("pipe", ["serve", "demo_image", f"--help={group}"]).out, re.MULTILINE
    )
    assert [name.replace("-", "_") for name in shown] == [one.name for one in fields(GROUPS[group])]


def test_flags_keep_their_names_in_both_spellings_and_all_reach_the_config() -> None:
    other: dict[str, Any] = {
        "host": "::1", "port": 9, "uds": "/u", "tls_cert": "c", "tls_key": "k", "gr00t": 5555, "api_key_file": "f",
        "gr00t_n15": True, "gr00t_for": ("a=1", "b=2"),
        "proxy_protocol": True, "trusted_proxies": ("10.0.0.7", "10.1.0.0/16"),
        "allowed_origins": ("http://a", "http://b"), "dialect": "openpi", "hello_grace_ms": 3.0, "debug_wire": True,
        "map": ("a=b", "c=d"), "serve_steps": True, "chunk_size": 8, "http_errors": "plain",
        "isolate": "process", "replicas": 2, "devices": "cpu,cpu", "max_wait_ms": 1.0, "idle_timeout_s": 4.0,
        "max_depth": 9, "max_buffered_mib": 2048.0, "metrics": False, "live": False,
        "live_images": False, "lerobot": 8080, "lerobot_host": "::1", "record": "r", "record_views": False,
    }  # fmt: skip
    default = ServerConfig()
    for one in fields(ServerConfig):
        if one.name not in other:
            other[one.name] = getattr(default, one.name) + 1
    argv: list[str] = []
    for number, (name, value) in enumerate(other.items()):
        spelled = f"no_{name}" if value is False else name
        flag = f"--{spelled if number % 2 else spelled.replace('_', '-')}"
        values = value if isinstance(value, tuple) else () if isinstance(value, bool) else (value,)
        argv += [flag, *map(str, values)]
    assert read(*argv) == ServerConfig(**other)


def test_a_commands_own_defaults_are_kept() -> None:
    default = Flags(server=ServerConfig(dialect="wall_x", max_queue=3))
    assert read("--port", "1", default=default) == replace(default.server, port=1)


@pytest.mark.parametrize(
    "flag", ["--host", "--uds", "--api-key-file", "--tls-cert", "--tls_key", "--devices", "--dialect"]
)
def test_an_empty_flag_is_refused_by_its_name(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_request:
        read(flag, "")
    assert exit_request.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {flag.replace('_', '-')}: expected ")
    assert told.endswith(", got nothing\n")
