"""Opening the port: where it listens, and what is told where it cannot."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import pytest

from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.server.config import ServerConfig
from policyserve.server.gr00t.opening import Opened, open_router
from policyserve.server.policy_server import PolicyServer
from tests.policies.frameworks import import_or_skip
from tests.server.gr00t.asking import Asker as Client
from tests.server.gr00t.asking import asking, echo, echoed, url_of
from tests.server.live import making, running, serving

import_or_skip("zmq")


def opened(**settings: Any) -> Opened:
    async def run() -> Opened:
        config = ServerConfig(**{"gr00t": 0, **settings})
        assert config.gr00t is not None
        return await open_router(config, config.gr00t)

    made = asyncio.run(run())
    made.monitor.close(linger=0)
    made.router.close(linger=0)
    made.context.term()
    return made


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_it_listens_where_the_server_does(host: str) -> None:
    with serving(echo(), host=host, gr00t=0) as live:
        client = Client(url_of(live).replace("0.0.0.0", "127.0.0.1"))
        try:
            assert echoed(client.ask(asking(3.0))) == 3.0
        finally:
            client.close()


def test_a_port_that_another_program_has_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"^gr00t: port {port} on 127.0.0.1 is in use by another program"):
            opened(host="127.0.0.1", gr00t=port)
        with making(lambda _: echo(), gr00t=port) as server, pytest.raises(ConfigError, match="in use"):  # noqa: SIM117
            with running(server):
                pass


def test_a_host_that_is_none_of_this_machines_is_told() -> None:
    with pytest.raises(ConfigError, match=r"gr00t: host: 192.0.2.1 is no address of this machine"):
        opened(host="192.0.2.1")


def test_without_pyzmq_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zmq", None)
    with pytest.raises(MissingDependency, match=r"pyzmq is not installed; run: pip install 'policyserve\[gr00t\]'"):
        PolicyServer(lambda x: x, config=ServerConfig(gr00t=0))
    assert PolicyServer(lambda x: x).gr00t is None


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"gr00t": 8000}, "gr00t: expected another port than 8000, which the server itself listens on"),
        ({"gr00t": 5000, "port": 5000}, "gr00t: expected another port than 5000"),
        ({"gr00t": -1}, "gr00t: expected 0 … 65535"),
        ({"gr00t": 70000}, "gr00t: expected 0 … 65535"),
        ({"gr00t_n15": True}, "gr00t_n15: expected off, or gr00t=PORT too, got True"),
    ],
)
def test_a_port_that_cannot_be_is_refused_by_name(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        ServerConfig(**settings)


def test_beside_a_unix_socket_it_is_for_this_machine_alone() -> None:
    assert opened(uds="/tmp/socket").host == "127.0.0.1"


def test_any_free_port_may_be_asked_for_twice() -> None:
    assert ServerConfig(port=0, gr00t=0).gr00t == 0
    assert opened(host="127.0.0.1").port != 0
