"""Clients of LeRobot's port, over gRPC: robots that ask one observation after the other, and peers of no use.

A robot asks for the newest observation alone, so that one here sends no second one before the first has its answer.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from importlib.util import find_spec
from typing import Any

import numpy as np

from policyserve.core.dialect import code_in_text
from policyserve.core.errors import WireError
from policyserve.core.messages import Reply
from policyserve.dialects.lerobot.answers import read_actions
from policyserve.dialects.lerobot.client_half import MODULE, observation_messages, write_observation, write_setup
from policyserve.dialects.lerobot.messages import BEGIN, read_actions_data, write_part
from policyserve.dialects.lerobot.messages import write_setup as setup_message

from .asks import Ask, draw
from .clients import PATIENCE_S, Books
from .ledger import Ledger
from .misdeeds import complaint_of
from .raw import RawPeer
from .rig import KEY, OTHER_KEY, Place

_POLICY = "accountant"
_NO_USE = 0.15  # of the visits
_SERVICE = "/transport.AsyncInference/"
_FEATURES = {
    "observation.who": {"dtype": "float32", "shape": (3,), "names": ["who.0", "who.1", "who.2"]},
    "observation.do": {"dtype": "float32", "shape": (3,), "names": ["do.0", "do.1", "do.2"]},
    "observation.any": {"dtype": "float32", "shape": (0,), "names": None},  # so that a picture need not be told
}
# `os.system("exit")`, were anybody to unpickle it.
_FORGED = b"\x80\x04cposix\nsystem\nX\x04\x00\x00\x00exit\x85R."


def has_grpc() -> bool:
    """Whether there can be clients of LeRobot's here."""
    return find_spec("grpc") is not None


async def live_lerobot(place: Place, ledger: Ledger, dice: random.Random, client: int, session: int) -> None:
    """One connection: a robot, or a peer that is of no use."""
    if dice.random() < _NO_USE:
        name = dice.choice(tuple(_DEEDS))
        ledger.misdeed(name, await complaint_of(_DEEDS[name](place, dice), 2 * PATIENCE_S))
        return
    books = Books(ledger, "gRPC, LeRobot")
    asks = [draw(dice, client, session, number) for number in range(dice.randrange(1, 30))]
    leaves_early = dice.random() < 0.3
    async with _Robot(place) as robot:
        books.account["sessions"] += 1
        for number, ask in enumerate(asks):
            if not await robot.is_ready():
                return  # the server is ending
            books.sent()
            if leaves_early and number == len(asks) - 1:
                await robot.vanish(ask)
                books.closed()
            else:
                await _ask(robot, ask, books)


async def _ask(robot: _Robot, ask: Ask, books: Books) -> None:
    """Ask, and book how that ends."""
    import grpc

    try:
        pickled = await asyncio.wait_for(robot.answer(ask), PATIENCE_S)
        books.answered(ask, Reply(read_actions(pickled)[0], {}, {}))
    except asyncio.TimeoutError:
        books.lost(ask)
    except WireError as error:
        books.answered_wrongly(ask, error)
    except grpc.aio.AioRpcError as error:
        told = error.details() or ""
        if code_in_text(told) is not None:
            books.refused(ask, told)
        elif error.code().name in ("UNAVAILABLE", "FAILED_PRECONDITION"):  # its session was ended, or the server
            books.closed()
            robot.begin_again()
        else:
            books.answered_wrongly(ask, error)


class _Robot:
    """One channel, a connection of its own."""

    def __init__(self, place: Place, key: str = KEY) -> None:
        import grpc

        alone = [("grpc.use_local_subchannel_pool", 1)]  # else all channels of this process are one connection
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{place.lerobot}", options=alone)
        self._metadata = (("authorization", f"Bearer {key}"),)
        self._has_begun = False

    async def __aenter__(self) -> _Robot:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._channel.close()

    async def is_ready(self) -> bool:
        """Say hello, unless that is done; False where nobody answers."""
        import grpc

        if self._has_begun:
            return True
        try:
            await self.call("Ready", b"")
            await self.call("SendPolicyInstructions", setup_message(write_setup(_POLICY, _FEATURES, 1)))
        except grpc.aio.AioRpcError:
            return False
        self._has_begun = True
        return True

    def begin_again(self) -> None:
        """Say hello once more before the next request."""
        self._has_begun = False

    async def answer(self, ask: Ask) -> bytes:
        """The pickled actions for an observation."""
        await self.observe(observation_messages(_pickled(ask)))
        while not (pickled := read_actions_data(await self.call("GetActions", b""))):
            pass
        return pickled

    async def vanish(self, ask: Ask) -> None:
        """Send an observation, begin to wait for its answer, and be gone."""
        import grpc

        try:
            await self.observe(observation_messages(_pickled(ask)))
        except grpc.aio.AioRpcError:
            return
        waiting = self._channel.unary_unary(f"{_SERVICE}GetActions")(b"", metadata=self._metadata)
        await asyncio.sleep(0)
        waiting.cancel()

    async def observe(self, messages: Iterable[bytes], *, ends: bool = True) -> None:
        """Send the parts of an observation. ends: whether the stream does; else it is cancelled after a while."""

        async def parts() -> AsyncIterator[bytes]:
            for message in messages:
                yield message
            if not ends:
                await asyncio.sleep(PATIENCE_S)

        call = self._channel.stream_unary(f"{_SERVICE}SendObservations")
        await call(parts(), metadata=self._metadata, timeout=PATIENCE_S)

    async def call(self, name: str, message: bytes) -> bytes:
        """One call, and what it gets."""
        answer = await self._channel.unary_unary(f"{_SERVICE}{name}")(
            message, metadata=self._metadata, timeout=PATIENCE_S
        )
        assert isinstance(answer, bytes)
        return answer

    async def refusal(self, work: Any) -> tuple[str, str]:
        """The status and the text that a call is refused with; empty if it is not."""
        import grpc

        try:
            await work
        except grpc.aio.AioRpcError as error:
            return error.code().name, error.details() or ""
        return "", ""


def _pickled(ask: Ask) -> bytes:
    seen = ask.observation()
    raw: dict[str, Any] = {"picture": np.asarray(seen.pop("picture"))}
    for name, numbers in seen.items():
        raw.update((f"{name}.{place}", number) for place, number in enumerate(numbers.tolist()))
    return write_observation(raw)


async def _no_grpc(place: Place, dice: random.Random) -> str:
    """Bytes that are no HTTP/2; the server ends it, or it goes by itself."""
    said = dice.choice((dice.randbytes(200), b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
    await RawPeer(*await asyncio.open_connection("127.0.0.1", place.lerobot)).say_and_leave(said)
    return ""


async def _without_end(place: Place, dice: random.Random) -> str:
    """An observation that begins and never ends is cut after --message-timeout-s."""
    async with _Robot(place) as robot:
        if not await robot.is_ready():
            return ""
        began = [write_part(BEGIN, bytes(dice.randrange(1, 100_000)))]
        status, told = await robot.refusal(robot.observe(began, ends=False))
    return "" if status in ("DEADLINE_EXCEEDED", "UNAVAILABLE") else f"told {status} {told}"


async def _forged(place: Place, dice: random.Random) -> str:
    """A pickle that wants to run something is refused by its name, as an observation and as a setup."""
    async with _Robot(place) as robot:
        as_setup = dice.random() < 0.5
        if not as_setup and not await robot.is_ready():
            return ""
        if as_setup:
            status, told = await robot.refusal(robot.call("SendPolicyInstructions", setup_message(_FORGED)))
        else:
            await robot.refusal(robot.observe(observation_messages(_FORGED)))
            status, told = await robot.refusal(robot.call("GetActions", b""))
    return "" if status == "UNAVAILABLE" or "system" in told else f"told {status} {told}"


async def _another_name(place: Place, dice: random.Random) -> str:
    """A robot that wants a policy which is not served here, or has a key that is none."""
    key = dice.choice((KEY, OTHER_KEY[::-1]))
    async with _Robot(place, key) as robot:
        asked = setup_message(write_setup(_POLICY if key != KEY else f"{MODULE}/act", _FEATURES))
        status, told = await robot.refusal(robot.call("SendPolicyInstructions", asked))
    expected = ("INVALID_ARGUMENT", "UNAVAILABLE") if key == KEY else ("UNAUTHENTICATED", "UNAVAILABLE")
    return "" if status in expected else f"told {status} {told}"


_DEEDS = {
    "no gRPC": _no_grpc,
    "an observation of LeRobot's without end": _without_end,
    "a pickle that runs something": _forged,
    "a robot that is not let in": _another_name,
}
