"""What the system knows of a connection whose descriptor is another library's."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from policyserve.server.gr00t import tcp


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection: a server's and a client's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        with client, server:
            yield server, client


def test_both_ends_are_told(ends: tuple[socket.socket, socket.socket]) -> None:
    server, client = ends
    place = tcp.place_of(server.fileno())
    assert place == tcp.Place(client.getpeername(), client.getsockname())


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="this system does not tell")
def test_what_came_in_is_counted_also_before_anybody_reads_it(ends: tuple[socket.socket, socket.socket]) -> None:
    server, client = ends
    place = tcp.place_of(server.fileno())
    assert place is not None
    assert tcp.received(server.fileno(), place) == 0
    client.sendall(bytes(1234))
    assert server.recv(10, socket.MSG_PEEK)
    assert tcp.received(server.fileno(), place) == 1234


def test_a_cut_connection_ends_at_both_ends_and_its_descriptor_stays(ends: tuple[socket.socket, socket.socket]) -> None:
    server, client = ends
    place = tcp.place_of(server.fileno())
    assert place is not None
    tcp.cut(server.fileno(), place)
    assert client.recv(1) == b""
    assert server.recv(1) == b""


def test_another_connection_of_the_same_number_is_left_alone(ends: tuple[socket.socket, socket.socket]) -> None:
    server, client = ends
    place = tcp.Place(("127.0.0.1", 1), ("127.0.0.1", 2))
    tcp.cut(server.fileno(), place)
    assert tcp.received(server.fileno(), place) is None
    client.sendall(b"x")
    assert server.recv(1) == b"x"


def test_what_is_no_connection_is_none() -> None:
    reader, writer = os.pipe()
    pair = socket.socketpair()
    try:
        for number in (reader, pair[0].fileno(), 99_999):
            assert tcp.place_of(number) is None
            tcp.cut(number, tcp.Place(("127.0.0.1", 1), ("127.0.0.1", 2)))
    finally:
        os.close(reader)
        os.close(writer)
        for one in pair:
            one.close()
