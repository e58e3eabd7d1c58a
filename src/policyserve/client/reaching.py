"""A connected socket to the server of a client's options, for links that speak no WebSocket."""

from __future__ import annotations

import asyncio
import socket
import sys

from policyserve.client.aio_connecting import connect as aio_connect
from policyserve.client.connecting import connect
from policyserve.client.handshake import connect_error
from policyserve.client.options import ClientOptions
from policyserve.client.sockets import left_s
from policyserve.core.errors import DeadlineExceeded

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout


def reach(options: ClientOptions, deadline: float) -> socket.socket:
    """Connect; raises NotYet, ConnectionLost or DeadlineExceeded."""
    address = options.address
    try:
        return connect(address.host, address.port, deadline)
    except TimeoutError as error:
        raise _unreached(options) from error
    except (OSError, UnicodeError) as error:
        raise connect_error(address, error) from error


async def aio_reach(options: ClientOptions, deadline: float) -> socket.socket:
    """As reach()."""
    address = options.address
    try:
        async with timeout(left_s(deadline)):
            return await aio_connect(address.host, address.port)
    except (TimeoutError, asyncio.TimeoutError) as error:
        raise _unreached(options) from error
    except (OSError, UnicodeError) as error:
        raise connect_error(address, error) from error


def _unreached(options: ClientOptions) -> DeadlineExceeded:
    return DeadlineExceeded(f"no connection to {options.address.url} within {options.timeout_s:g} s")
