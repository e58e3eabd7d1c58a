"""Which event loop of this process serves a client's connection, by the names of sockets."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from policyserve.core import listening
from policyserve.core.listening import SocketName


class Loop:
    """Stands for an event loop."""


@contextmanager
def listening_at(*names: SocketName) -> Iterator[Loop]:
    loop = Loop()
    listening.note(loop, names)
    yield loop
    listening.forget(loop, names)


@pytest.mark.parametrize(
    ("name", "peer", "own"),
    [
        (("127.0.0.1", 8000), ("127.0.0.1", 8000), ("127.0.0.1", 5)),
        (("::1", 8000, 0, 0), ("::1", 8000, 0, 0), ("::1", 5, 0, 0)),
        (("0.0.0.0", 8000), ("127.0.0.1", 8000), ("127.0.0.1", 5)),
        (("0.0.0.0", 8000), ("127.0.0.2", 8000), ("127.0.0.1", 5)),
        (("0.0.0.0", 8000), ("10.0.0.7", 8000), ("10.0.0.7", 5)),
        (("::", 8000, 0, 0), ("127.0.0.1", 8000), ("127.0.0.1", 5)),
        (("::", 8000, 0, 0), ("fe80::7%eth0", 8000, 0, 2), ("fe80::7%eth0", 5, 0, 2)),
        ("/run/policy.sock", "/run/policy.sock", ""),
    ],
)
def test_a_loop_serves_who_reaches_its_socket(name: SocketName, peer: SocketName, own: SocketName) -> None:
    with listening_at(("127.0.0.1", 1), name) as loop:
        assert listening.serves(loop, peer, own)
        assert not listening.serves(Loop(), peer, own)
    assert not listening.serves(loop, peer, own)


@pytest.mark.parametrize(
    ("name", "peer", "own"),
    [
        (("127.0.0.1", 8000), ("127.0.0.1", 8001), ("127.0.0.1", 5)),
        (("127.0.0.1", 8000), ("10.0.0.7", 8000), ("10.0.0.7", 5)),
        (("0.0.0.0", 8000), ("10.0.0.8", 8000), ("10.0.0.7", 5)),
        (("::", 8000, 0, 0), ("fe80::8", 8000, 0, 2), ("fe80::7", 5, 0, 2)),
        ("/run/policy.sock", "/run/other.sock", ""),
        ("/run/policy.sock", ("127.0.0.1", 8000), ("127.0.0.1", 5)),
        (("127.0.0.1", 8000), "/run/policy.sock", ""),
    ],
)
def test_a_server_elsewhere_is_not_the_loops(name: SocketName, peer: SocketName, own: SocketName) -> None:
    with listening_at(name) as loop:
        assert not listening.serves(loop, peer, own)


def test_a_loop_that_nobody_closed_is_not_kept() -> None:
    loop = Loop()
    listening.note(loop, [("127.0.0.1", 8000)])
    del loop
    gc.collect()
    assert not [one for one in gc.get_objects() if type(one) is Loop]
