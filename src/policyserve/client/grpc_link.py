"""One connection to a server of LeRobot's over gRPC, for both clients: it says what the robot is, and asks.

What the robot is, its joints and cameras, is told with the first observation, which shows it. gRPC connects again by
itself; a server that has forgotten the robot meanwhile says so, and that connection is given up.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from policyserve.client.address import Address
from policyserve.client.options import ClientOptions
from policyserve.client.reaching import aio_reach, reach
from policyserve.client.sockets import left_s
from policyserve.core.dialect import code_in_text
from policyserve.core.errors import ConnectionLost, DeadlineExceeded, MissingDependency, RemoteError
from policyserve.core.messages import Message, Part
from policyserve.core.printable import one_line
from policyserve.dialects.lerobot import messages
from policyserve.dialects.lerobot.client_half import features_of, observation_messages, write_setup
from policyserve.dialects.packing import joined

if TYPE_CHECKING:
    import socket

_SERVICE = "/transport.AsyncInference/"
# Else all clients of a process have one connection, and are one robot to the server; answers may be of any size.
_SETTINGS = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
_REFUSED = ("INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND")
_GONE = ("UNAVAILABLE", "FAILED_PRECONDITION", "CANCELLED")
_LONGEST = 300  # letters of what gRPC says of a connection that failed


class _Common:
    """What both clients' links have in common."""

    def __init__(self, options: ClientOptions, channel: Any, failure: type[Exception]) -> None:
        address = options.address
        self._address = address
        self._timeout_s = options.timeout_s
        self._metadata = (("authorization", f"Bearer {options.api_key}"),) if options.api_key else ()
        self._failure = failure
        self._is_told = False  # the server knows what the robot is
        self._channel = channel
        self._observe = channel.stream_unary(f"{_SERVICE}SendObservations")
        self._calls = {
            name: channel.unary_unary(f"{_SERVICE}{name}") for name in ("Ready", "SendPolicyInstructions", "GetActions")
        }

    def _setup(self, pickled: bytes) -> bytes:
        """What the robot is whose observation this is, and which policy it wants."""
        return messages.write_setup(write_setup(self._address.policy, features_of(pickled)))

    def _with(self, deadline: float) -> dict[str, Any]:
        """How each call is made; raises TimeoutError after the deadline."""
        if time.monotonic() >= deadline:
            raise TimeoutError
        return {"metadata": self._metadata, "timeout": left_s(deadline)}

    def _message_of(self, error: Any, doubt: str = "") -> Message:
        """What the server said where it refused; raises how the connection, or the wait, ended otherwise."""
        status, told = error.code().name, str(error.details() or "")
        if code_in_text(told) is not None or status in _REFUSED:
            return told
        if status == "DEADLINE_EXCEEDED":
            raise self._no_answer(doubt) from error
        if status in _GONE:
            raise ConnectionLost(f"the connection ended without an answer ({_short(told)})") from error
        raise RemoteError(f"{status}: {_short(told)}") from error

    def _no_server(self, error: Any) -> Exception:
        """The error for a port where somebody answers, who speaks no gRPC of LeRobot's."""
        told = _short(str(error.details() or error.code().name))
        return ConnectionLost(f"cannot connect to {self._address.url}: no server of LeRobot's answers there: {told}")

    def _no_answer(self, doubt: str = "") -> DeadlineExceeded:
        return DeadlineExceeded(f"no answer from {self._address.url} within {self._timeout_s:g} s{doubt}")


class GrpcLink(_Common):
    """A Client's connection. After an exception of any call but close() it must be cut."""

    def begin(self, deadline: float) -> None:
        """Begin anew at the server; raises ConnectionLost where it is none of LeRobot's."""
        try:
            self._calls["Ready"](b"", **self._with(deadline))
        except self._failure as error:
            raise self._no_server(error) from error

    def ask(self, parts: list[Part], deadline: float, doubt: str = "") -> Message:
        """Send one observation and wait for its actions; a text is a refusal. Raises DeadlineExceeded, ConnectionLost.

        doubt: what the error of a time-out adds.
        """
        pickled = joined(parts)
        try:
            if not self._is_told:
                self._calls["SendPolicyInstructions"](self._setup(pickled), **self._with(deadline))
                self._is_told = True
            self._observe(observation_messages(pickled), **self._with(deadline))
            while not (data := messages.read_actions_data(self._calls["GetActions"](b"", **self._with(deadline)))):
                pass  # the server waits for an observation itself
            return data
        except self._failure as error:
            return self._message_of(error, doubt)
        except TimeoutError as error:
            raise self._no_answer(doubt) from error

    def is_usable(self, may_close: bool, deadline: float) -> bool:
        """True: gRPC does not tell when a connection has ended."""
        return True

    def close(self, deadline: float) -> None:
        """End it."""
        self._channel.close()

    def cut(self) -> None:
        """End it at once."""
        self._channel.close()

    def forget(self) -> None:
        """After a fork: the connection is the parent's, and does nothing here."""


class AsyncGrpcLink(_Common):
    """An AsyncClient's connection, of one event loop. After an exception of any call but close() it must be cut."""

    def __init__(self, options: ClientOptions, channel: Any, failure: type[Exception]) -> None:
        super().__init__(options, channel, failure)
        self.loop = asyncio.get_running_loop()
        self._ending: asyncio.Task[None] | None = None

    async def begin(self, deadline: float) -> None:
        """Begin anew at the server; raises ConnectionLost where it is none of LeRobot's."""
        try:
            await self._calls["Ready"](b"", **self._with(deadline))
        except self._failure as error:
            raise self._no_server(error) from error

    async def ask(self, parts: list[Part], deadline: float, doubt: str = "") -> Message:
        """Send one observation and wait for its actions; a text is a refusal. Raises DeadlineExceeded, ConnectionLost.

        doubt: what the error of a time-out adds.
        """
        pickled = joined(parts)
        try:
            if not self._is_told:
                await self._calls["SendPolicyInstructions"](self._setup(pickled), **self._with(deadline))
                self._is_told = True
            await self._observe(observation_messages(pickled), **self._with(deadline))
            act = self._calls["GetActions"]
            while not (data := messages.read_actions_data(await act(b"", **self._with(deadline)))):
                pass  # the server waits for an observation itself
            return data
        except self._failure as error:
            return self._message_of(error, doubt)
        except TimeoutError as error:
            raise self._no_answer(doubt) from error

    async def is_usable(self, may_close: bool, deadline: float) -> bool:
        """True: gRPC does not tell when a connection has ended."""
        return True

    async def close(self, deadline: float) -> None:
        """End it."""
        await self._channel.close()

    def cut(self) -> None:
        """End it at once."""
        self._ending = self.loop.create_task(self._channel.close())


def open_grpc(options: ClientOptions, deadline: float, check: Callable[[socket.socket, Address], None]) -> GrpcLink:
    """Connect, and begin as a robot; raises NotYet, ConnectionLost or DeadlineExceeded.

    check: called with a socket that is connected, raises ConfigError where its server can never answer.
    """
    grpc, address = _load(), options.address
    with reach(options, deadline) as tried:
        check(tried, address)
    link = GrpcLink(options, grpc.insecure_channel(_target(address), options=_SETTINGS), grpc.RpcError)
    try:
        link.begin(deadline)
    except BaseException:
        link.cut()
        raise
    return link


async def open_async_grpc(options: ClientOptions, deadline: float) -> AsyncGrpcLink:
    """As open_grpc()."""
    grpc, address = _load(), options.address
    (await aio_reach(options, deadline)).close()
    link = AsyncGrpcLink(options, grpc.aio.insecure_channel(_target(address), options=_SETTINGS), grpc.RpcError)
    try:
        await link.begin(deadline)
    except BaseException:
        link.cut()
        raise
    return link


def _load() -> Any:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its C library writes to the terminal, past every log
    try:
        import grpc  # and with it grpc.aio
    except ModuleNotFoundError as error:
        raise MissingDependency("grpcio", "lerobot-client") from error
    return grpc


def _target(address: Address) -> str:
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port}"


def _short(text: str) -> str:
    return one_line(text)[:_LONGEST]
