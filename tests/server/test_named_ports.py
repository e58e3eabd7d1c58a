"""Ports by the names of policies, as `--gr00t-for` has them."""

from __future__ import annotations

import pytest

from policyserve.core.errors import ConfigError
from policyserve.server.config import ServerConfig
from policyserve.server.named_ports import read_named_ports


def test_each_word_is_a_name_and_its_port() -> None:
    assert read_named_ports("gr00t_for", ("pick=5556", "place-2=0")) == {"pick": 5556, "place-2": 0}
    assert ServerConfig(gr00t_for=("pick=0", "place=0")).gr00t_ports == {"pick": 0, "place": 0}


@pytest.mark.parametrize(
    "word", ["pick", "=5556", "pick=", "pick=five", "pick=70000", "pick=-1", "pick=²", "5556=pick"]
)
def test_anything_else_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match=r"^gr00t_for: expected NAME=PORT, with a port from 0 to 65535, got "):
        ServerConfig(gr00t_for=(word,))


def test_a_name_or_a_port_that_stands_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="gr00t_for: expected each name once, got pick twice"):
        ServerConfig(gr00t_for=("pick=5556", "pick=5557"))
    for words in (("pick=8000",), ("pick=5555",), ("pick=5556", "place=5556")):
        with pytest.raises(ConfigError, match="gr00t_for: expected each port once"):
            ServerConfig(gr00t=5555, gr00t_for=words)
