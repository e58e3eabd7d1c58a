"""Opens the port of GR00T's clients: a ROUTER of ZeroMQ over listening sockets that are bound as the server's own are.

ZeroMQ reads its peers in a thread of its own, before anything here sees a message, so its bounds are set on the socket.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.server.config import ServerConfig
from policyserve.server.listener import bind_tcp

if TYPE_CHECKING:
    import zmq

_BACKLOG = 1024
_LOOPBACK = "127.0.0.1"
_WAITING_IN = 2  # messages of one peer that wait for the event loop, beside the one that is coming in
_SPARE_OUT = 8  # answers that a peer may leave unread, beyond those to all requests that it may have


class Opened(NamedTuple):
    """A socket that listens. monitor: tells of peers that come and go."""

    context: zmq.Context[Any]
    router: zmq.Socket[Any]
    monitor: zmq.Socket[Any]
    host: str
    port: int


def check_installed() -> None:
    """Raise MissingDependency without pyzmq."""
    try:
        import_module("zmq")
    except ImportError as error:
        raise MissingDependency("pyzmq", "gr00t") from error


async def open_router(config: ServerConfig, port: int, setting: str = "gr00t") -> Opened:
    """Listen on the server's host and this port; beside a Unix socket on this machine alone.

    Raises ConfigError; setting: what it blames.
    """
    import zmq

    try:
        sockets = await bind_tcp(config.host if config.uds is None else _LOOPBACK, port)
    except ConfigError as error:
        raise ConfigError(f"{setting}: {error}") from error
    host, port = sockets[0].getsockname()[:2]
    context: zmq.Context[Any] = zmq.Context(io_threads=1)
    router: zmq.Socket[Any] = context.socket(zmq.ROUTER)
    for option, value in _options(config).items():
        router.setsockopt(getattr(zmq, option), value)
    monitor = router.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
    for bound in sockets:
        bound.listen(_BACKLOG)
        bound.setblocking(False)
        address = bound.getsockname()[0]
        router.setsockopt(zmq.USE_FD, bound.detach())
        router.bind(f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}")
    return Opened(context, router, monitor, host, port)


def _options(config: ServerConfig) -> dict[str, int]:
    """What ZeroMQ is told, by the names of its options."""
    silence_s = max(int(config.ping_timeout_s), 4)
    alive = {"TCP_KEEPALIVE": 1, "TCP_KEEPALIVE_IDLE": silence_s // 2, "TCP_KEEPALIVE_CNT": 4}
    return {
        **alive,
        "TCP_KEEPALIVE_INTVL": silence_s // 8 or 1,
        "TCP_MAXRT": silence_s * 1000,
        "HANDSHAKE_IVL": max(int(config.handshake_timeout_s * 1000), 1),
        "IPV6": 1,
        "LINGER": 0,
        "MAXMSGSIZE": config.max_frame_bytes,
        "RCVHWM": _WAITING_IN,
        "SNDHWM": 2 * config.max_pending + _SPARE_OUT,
        "ROUTER_MANDATORY": 1,  # a peer that is gone, or reads nothing, is told of where it would be passed over
    }
