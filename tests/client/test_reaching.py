"""A socket to a server, or why there is none, told in the client's words: by a call and by a coroutine."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

import pytest

from policyserve.client.connecting import Place
from policyserve.client.options import ClientOptions
from policyserve.client.reaching import aio_reach, reach
from policyserve.client.retries import NotYet
from policyserve.core.errors import DeadlineExceeded
from tests.doctor.sick import closed_port
from tests.server.live import DEADLINE_S

Reach = Callable[[ClientOptions, float], socket.socket]


def reach_in_a_loop(options: ClientOptions, deadline: float) -> socket.socket:
    return asyncio.run(aio_reach(options, deadline))


ways = pytest.mark.parametrize("reaches", [reach, reach_in_a_loop])


@ways
def test_a_server_that_is_there_is_reached(reaches: Reach) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with reaches(ClientOptions(f"zmq://127.0.0.1:{port}"), time.monotonic() + DEADLINE_S) as reached:
            assert reached.getpeername()[1] == port


@ways
def test_a_port_where_nothing_listens_may_be_tried_again(reaches: Reach) -> None:
    with pytest.raises(NotYet, match="refused"):
        reaches(ClientOptions(f"zmq://127.0.0.1:{closed_port()}"), time.monotonic() + DEADLINE_S)


@ways
def test_a_server_that_is_silent_is_given_up_at_the_deadline(reaches: Reach, silent: Place) -> None:
    host, port = silent[-1]
    with pytest.raises(DeadlineExceeded, match=f"no connection to zmq://{host}:{port} within 7 s"):
        reaches(ClientOptions(f"zmq://{host}:{port}", timeout_s=7.0), time.monotonic() + 0.1)
