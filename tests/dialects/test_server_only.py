"""A dialect of a package that answers clients and is none: what it does not have says so."""

from __future__ import annotations

from typing import Any

import pytest

from policyserve import Client
from policyserve.core.dialect import has_client
from policyserve.core.errors import ConfigError, WireError
from policyserve.dialects import by_name, client_names
from policyserve.dialects.server_only import ServerOnly


class Letters(ServerOnly):
    name = "letters"


@pytest.mark.parametrize("call", ["write_request", "read_greeting", "read_reply"])
def test_the_clients_half_is_refused_by_the_dialects_name(call: str) -> None:
    with pytest.raises(WireError, match="a dialect that this package's clients speak, got letters"):
        getattr(Letters(), call)({})


def test_clients_refuse_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    letters: Any = Letters()
    assert not has_client(letters)
    monkeypatch.setattr(type(by_name("wall_x")), "has_client", False, raising=False)
    assert "wall_x" not in client_names()
    for url, options in (("ws://robot:1", {"dialect": "wall_x"}), ("ws://robot:1/wall_x", {})):
        with pytest.raises(ConfigError, match="got 'wall_x', which only other programs' clients speak"):
            Client(url, **options)  # type: ignore[arg-type]
