"""Names with several addresses, with silent ones among them, and a name service that is silent itself: both clients."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from policyserve import AsyncClient, Client
from policyserve.client import aio_connecting, connecting
from policyserve.client.connecting import Place, is_address, look_up
from policyserve.core.errors import ConnectionLost, DeadlineExceeded
from tests.server.live import DEADLINE_S

NAME = "policy.lab"
Connect = Callable[[], socket.socket]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Place]]:
    """What the name service says of whom; a name that is not there is not known."""
    told: dict[str, list[Place]] = {}
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, flags: int = 0, **options: Any) -> Any:
        if host == NAME and not flags & socket.AI_NUMERICHOST:
            return told[NAME]
        return real(host, *arguments, flags=flags, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return told


def place_of(listener: socket.socket) -> Place:
    return (listener.family, socket.SOCK_STREAM, 0, "", listener.getsockname())


@pytest.fixture
def answering() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def refusing() -> Place:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return place_of(listener)


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Connect:
    """Connect to NAME."""
    if request.param == "sync":
        return lambda: connecting.connect(NAME, 1, time.monotonic() + DEADLINE_S)
    return lambda: asyncio.run(asyncio.wait_for(aio_connecting.connect(NAME, 1), DEADLINE_S))


@pytest.fixture
def endless_head_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (connecting, aio_connecting):
        monkeypatch.setattr(module, "HEAD_START_S", 10 * DEADLINE_S)


def reaches(connect: Connect, listener: socket.socket) -> bool:
    with connect() as connected:
        return connected.getpeername() == listener.getsockname()


def test_a_silent_address_keeps_the_next_from_nothing(
    connect: Connect, names: dict[str, list[Place]], silent: Place, answering: socket.socket
) -> None:
    names[NAME] = [silent, silent, place_of(answering), silent]
    assert reaches(connect, answering)


@pytest.mark.usefixtures("endless_head_start")
def test_the_next_address_is_tried_as_soon_as_one_has_failed(
    connect: Connect, names: dict[str, list[Place]], refusing: Place, answering: socket.socket
) -> None:
    names[NAME] = [refusing, (socket.AF_INET6, socket.SOCK_STREAM, 0, "", ("::1", 1, 0, 0)), place_of(answering)]
    assert reaches(connect, answering)


def test_the_first_address_is_taken_where_several_answer(
    connect: Connect, names: dict[str, list[Place]], answering: socket.socket
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as second:
        names[NAME] = [place_of(answering), place_of(second)]
        assert reaches(connect, answering)
        second.setblocking(False)
        with pytest.raises(BlockingIOError):
            second.accept()


def test_in_a_loop_what_lost_the_race_has_ended_with_it(
    names: dict[str, list[Place]], silent: Place, answering: socket.socket
) -> None:
    async def tasks_left(deadline_s: float) -> int:
        with suppress(asyncio.TimeoutError):
            (await asyncio.wait_for(aio_connecting.connect(NAME, 1), deadline_s)).close()
        return len(asyncio.all_tasks()) - 1

    names[NAME] = [silent, place_of(answering), silent]
    assert asyncio.run(tasks_left(DEADLINE_S)) == 0
    names[NAME] = [silent, silent]
    assert asyncio.run(tasks_left(0.3)) == 0


def test_when_all_addresses_refuse_the_error_is_the_last_ones(
    connect: Connect, names: dict[str, list[Place]], refusing: Place
) -> None:
    names[NAME] = [refusing, refusing]
    with pytest.raises(ConnectionRefusedError):
        connect()


def test_a_name_without_an_address_is_an_error(connect: Connect, names: dict[str, list[Place]]) -> None:
    names[NAME] = []
    with pytest.raises(OSError, match=r"policy\.lab has no address"):
        connect()


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", True), ("::1", True), ("localhost", False), ("a" * 300, False), ("", False)]
)
def test_only_a_name_needs_a_name_service(host: str, expected: bool) -> None:
    assert is_address(host) == expected


def test_what_a_look_up_raises_reaches_whoever_waits_for_it() -> None:
    with pytest.raises(UnicodeError):
        look_up("é" * 70, 1).result(DEADLINE_S)


# The clients


def infer_blocking(url: str, timeout_s: float = 0.2) -> None:
    Client(url, timeout_s=timeout_s, retry_for_s=0).connect()


def infer_in_a_loop(url: str, timeout_s: float = 0.2) -> None:
    asyncio.run(AsyncClient(url, timeout_s=timeout_s, retry_for_s=0).connect())


clients = pytest.mark.parametrize("ask", [infer_blocking, infer_in_a_loop])


@clients
def test_all_silent_addresses_share_one_deadline(
    ask: Callable[[str], None], names: dict[str, list[Place]], silent: Place
) -> None:
    names[NAME] = [silent] * 1000  # each with a time-out of its own: 200 s
    with pytest.raises(DeadlineExceeded, match=r"no handshake with ws://policy\.lab:1/openpi within 0\.2 s"):
        ask(f"ws://{NAME}:1")


@clients
def test_a_name_service_that_is_silent_holds_nobody_beyond_the_deadline(
    ask: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, release = threading.Event(), threading.Event()
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, flags: int = 0, **options: Any) -> Any:
        if host == NAME and not flags & socket.AI_NUMERICHOST:
            asked.set()
            assert release.wait(DEADLINE_S)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real(host, *arguments, flags=flags, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(DeadlineExceeded):
        ask(f"ws://{NAME}:1")
    assert asked.is_set()
    assert not release.is_set()
    release.set()


@clients
def test_a_name_that_nobody_has_is_told(ask: Callable[[str, float], None], monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: Any, **options: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(ConnectionLost, match="Name or service not known"):
        ask(f"ws://{NAME}:1", DEADLINE_S)
