"""The port itself: LeRobot's gRPC service, whose calls go to the client that calls."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from policyserve.core.errors import ConfigError, MissingDependency, NotReady, PolicyserveError
from policyserve.core.events import Event
from policyserve.core.log import Log
from policyserve.core.observer import Observer
from policyserve.core.printable import error_text
from policyserve.core.spec import PolicySpec
from policyserve.dialects.lerobot.messages import read_setup_data, write_actions
from policyserve.server.admission import is_local
from policyserve.server.config import ServerConfig
from policyserve.server.handshake import Credentials
from policyserve.server.lerobot_grpc import status
from policyserve.server.lerobot_grpc.robot import Robot
from policyserve.server.lerobot_grpc.robots import CALLS_OF_ONE, Robots
from policyserve.server.lerobot_grpc.status import Refused
from policyserve.server.listener import Address, with_port
from policyserve.server.reception import Reception

log = Log(__name__)

_SERVICE = "transport.AsyncInference"
_PAUSE_S = 1.0  # before a call is refused that its client would repeat at once
_GRACE_S = 1.0  # for calls to end that were released
_STREAMS_OF_ONE = 100  # of a connection; gRPC counts those too that have just ended, and refuses what is beyond


class LeRobotPort(Observer):
    """LeRobot's service. ready: waits for the policy. Raises MissingDependency without grpcio.

    As an observer it tells which name the clients of a policy that is ready have to give.
    """

    def __init__(self, config: ServerConfig, reception: Reception, ready: Callable[[], Awaitable[object]]) -> None:
        self._grpc = _load_grpc()
        self._config = config
        self._reception = reception
        self._ready = ready
        self._robots = Robots(reception, config)
        self._server: Any = None
        self.address = Address(config.lerobot_host, 0)

    @property
    def place(self) -> str:
        """Where it listens, as LeRobot's `--server_address` wants it: host:port."""
        return self.address.url.partition("//")[2]

    def bind(self) -> None:
        """Take the port, in the event loop that will serve it; raises ConfigError. Nobody is answered yet."""
        config, grpc = self._config, self._grpc
        most = CALLS_OF_ONE * (config.max_sessions + 1)
        options = [
            ("grpc.so_reuseport", 0),  # another server's port is no place for this one
            ("grpc.max_concurrent_streams", _STREAMS_OF_ONE),
            ("grpc.keepalive_time_ms", int(min(config.ping_interval_s * 1e3, 2**31 - 1))),
            ("grpc.keepalive_timeout_ms", int(min(config.ping_interval_s * 1e3, 2**31 - 1))),
        ]
        self._server = grpc.aio.server(options=options, maximum_concurrent_rpcs=most)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, self._handlers()),))
        host, asked = config.lerobot_host, config.lerobot
        assert asked is not None, "there is a port to take"
        try:
            port = self._server.add_insecure_port(with_port(host, asked))
        except RuntimeError as error:
            cure = "take another port, or 0 for any that is free, and an address of this machine as --lerobot-host"
            raise ConfigError(f"lerobot: port {asked} on {host} cannot be bound: {cure}") from error
        self.address = Address(host, port)

    async def start(self) -> None:
        """Answer from now on."""
        await self._server.start()
        place = self.place
        is_open, why = not _is_loopback(self.address.host), "its protocol has neither keys nor TLS"
        log.info(f"LeRobot's RobotClient connects to %s{'' if is_open else f', from this machine alone: {why}'}", place)
        if self._reception.admission.keys:
            told = "API keys are set, and LeRobot's client sends none: it is refused at %s unless a proxy adds one"
            log.warning(told, place, event=Event("access_warned"))
        elif is_open:
            told = f"anyone who reaches %s may use the policies there: LeRobot's client knows no keys, and {why}"
            log.warning(f"{told}; see SECURITY.md", place, event=Event("access_warned"))

    async def close(self) -> None:
        """End all sessions and calls."""
        self._robots.end_all()
        if self._server is not None:
            await self._server.stop(_GRACE_S)
            self._robots.end_all()  # those that have called meanwhile

    def on_policy_ready(self, spec: PolicySpec) -> None:
        log.info("LeRobot's clients ask for it by --pretrained_name_or_path=%r", spec.name)

    # Calls

    def _handlers(self) -> dict[str, Any]:
        one, stream = self._grpc.unary_unary_rpc_method_handler, self._grpc.stream_unary_rpc_method_handler
        return {
            "Ready": one(self._say_ready),
            "SendPolicyInstructions": one(self._instruct),
            "SendObservations": stream(self._observe),
            "GetActions": one(self._act),
        }

    async def _say_ready(self, message: bytes, context: Any) -> bytes:
        async def answer(robot: Robot) -> bytes:
            robot.reset()
            return b""

        return await self._answered(context, answer)

    async def _instruct(self, message: bytes, context: Any) -> bytes:
        async def answer(robot: Robot) -> bytes:
            data = read_setup_data(message)
            await self._until_ready()
            robot.begin(data, _credentials(context))
            return b""

        return await self._answered(context, answer)

    async def _observe(self, stream: AsyncIterator[bytes], context: Any) -> bytes:
        async def answer(robot: Robot) -> bytes:
            await robot.receive(stream)
            return b""

        return await self._answered(context, answer)

    async def _act(self, message: bytes, context: Any) -> bytes:
        async def answer(robot: Robot) -> bytes:
            if robot.setup is None:
                await asyncio.sleep(_PAUSE_S)
            return write_actions(await robot.actions())

        return await self._answered(context, answer)

    async def _answered(self, context: Any, answer: Callable[[Robot], Awaitable[bytes]]) -> bytes:
        """What the call gets; a refusal is told as gRPC's status."""
        try:
            with self._robots.calling(context.peer()) as robot:
                return await answer(robot)
        except Refused as refused:
            told = refused
        except PolicyserveError as error:
            told = status.of_error(error)
        await context.abort(getattr(self._grpc.StatusCode, told.status), told.text)
        raise AssertionError("abort() raises")

    async def _until_ready(self) -> None:
        try:
            await self._ready()
        except Exception as error:  # a stranger's loader
            raise NotReady(f"not served: {error_text(error)}") from None


def _load_grpc() -> Any:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its C library writes to the terminal, past every log
    try:
        import grpc  # and with it grpc.aio
    except ModuleNotFoundError as error:
        raise MissingDependency(error.name or "grpc", "lerobot-client") from error
    return grpc


def _credentials(context: Any) -> Credentials:
    """What a proxy, or a client that was changed, says of who calls."""
    told = [str(value) for key, value in context.invocation_metadata() or () if key == "authorization"]
    return Credentials(authorization=",".join(told))


def _is_loopback(host: str) -> bool:
    try:
        return is_local(host)
    except ValueError:  # a name
        return host == "localhost"
