"""Encoded pictures are decoded in threads of the server's own; requests keep their order, and a broken one is alone."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from policyserve.core.encoded_images import EncodedImage
from policyserve.core.errors import BadObservation, NotReady, PolicyFailed
from policyserve.core.observer import Observers
from policyserve.core.session import Session
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec
from policyserve.dialects import by_name
from policyserve.server import decoding
from policyserve.server.conversation import Conversation
from policyserve.server.decoding import Decoder
from policyserve.server.server import Server
from policyserve.transforms import jpeg
from tests.jpegs import picture
from tests.policies.frameworks import import_or_skip
from tests.server.live import serving
from tests.server.test_conversation import HandEngine, Kept

import_or_skip("simplejpeg")

OPENPI = by_name("openpi")
SPEC = PolicySpec("camera", {"obs": ArraySpec((2,)), "cam": ImageSpec(optional=True)}, None)
STATE = np.zeros(2, np.float32)
ENCODED = jpeg.encode(picture(), 90)
BROKEN = EncodedImage(bytes(ENCODED.data)[:-30])


class Talk:
    """A conversation whose engine the test answers."""

    def __init__(self) -> None:
        self.engine, self.sink, self.decoder = HandEngine(), Kept(), Decoder()
        session = Session(OPENPI, max_pending=8)
        observers = Observers(lambda _observer, error: pytest.fail(str(error)))
        note = lambda *args, **facts: None  # noqa: E731
        self.conversation = Conversation(1, session, self.sink, self.engine, observers, note, self.decoder)
        self.conversation.serve(SPEC, {})
        self.sink.messages.clear()  # the greeting

    def ask(self, number: float, image: EncodedImage | None = None) -> None:
        observation: dict[str, Any] = {"obs": STATE + number}
        if image is not None:
            observation["cam"] = image
        message = OPENPI.write_request(observation)
        self.conversation.receive(memoryview(bytearray(message)), 0.0)

    @property
    def handed_over(self) -> list[float]:
        return [float(task.observation["obs"][0]) for task, _ in self.engine.tasks]


def test_the_event_loops_thread_decodes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []

    def decode(image: EncodedImage, path: str) -> Any:
        threads.append(threading.current_thread().name)
        return picture()

    async def main() -> None:
        talk = Talk()
        talk.ask(1, ENCODED)
        assert talk.handed_over == []  # not yet
        await talk.decoder.drained()
        (task, _), *_ = talk.engine.tasks
        assert (task.observation["cam"] == picture()).all()
        talk.decoder.close()

    monkeypatch.setattr(jpeg, "decode", decode)
    asyncio.run(main())
    assert [name.startswith("preparing pictures") for name in threads] == [True]


def test_requests_go_to_the_engine_in_their_order_and_a_broken_one_fails_alone() -> None:
    async def main() -> None:
        talk = Talk()
        talk.ask(1, ENCODED)
        talk.ask(2)
        talk.ask(3, BROKEN)
        talk.ask(4, ENCODED)
        talk.ask(5)
        assert talk.handed_over == []
        await talk.decoder.drained()
        assert talk.handed_over == [1, 2, 4, 5]
        for _ in range(4):
            talk.engine.answer([0.5])
        told = [message if isinstance(message, str) else "actions" for message in talk.sink.messages]
        assert told[:2] + told[3:] == ["actions"] * 4
        assert told[2].startswith("bad_observation: cam: expected a baseline JPEG, in colour or gray, got one that is")
        talk.ask(6)
        assert talk.handed_over == [6]  # nothing waits behind nothing
        talk.decoder.close()

    asyncio.run(main())


def test_what_was_read_for_the_policy_before_does_not_reach_the_next_one() -> None:
    async def main() -> None:
        talk = Talk()
        talk.ask(1, ENCODED)
        talk.conversation.drain(NotReady("the policy was loaded anew"))
        await talk.decoder.drained()
        assert talk.handed_over == []
        assert str(talk.sink.messages[0]).startswith("not_ready: the policy was loaded anew")
        assert talk.sink.closes != []
        talk.decoder.close()

    asyncio.run(main())


def test_a_session_that_is_gone_hands_nothing_over() -> None:
    async def main() -> None:
        talk = Talk()
        talk.ask(1, ENCODED)
        talk.conversation.lose()
        await talk.decoder.drained()
        assert talk.handed_over == []
        talk.decoder.close()

    asyncio.run(main())


def test_a_stopping_server_answers_what_is_being_decoded() -> None:
    async def main() -> None:
        talk = Talk()
        talk.ask(1, ENCODED)
        talk.conversation.drain()
        await talk.decoder.drained()
        assert talk.handed_over == [1]
        talk.decoder.close()

    asyncio.run(main())


def test_decoding_that_fails_for_want_of_memory_costs_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(observation: Any) -> Any:
        raise MemoryError("no room")

    async def main() -> None:
        told: list[Any] = []
        decoder = Decoder()
        decoder.decode({}, told.append)
        await decoder.drained()
        decoder.close()
        assert [type(one) for one in told] == [PolicyFailed]
        assert "decoding the request's pictures raised MemoryError: no room" in str(told[0])

    monkeypatch.setattr(decoding, "decode_images", fail)
    asyncio.run(main())


def test_a_refusals_frames_hold_no_message() -> None:
    async def main() -> None:
        told: list[Any] = []
        decoder = Decoder()
        decoder.decode({"cam": BROKEN}, told.append)
        await decoder.drained()
        decoder.close()
        (error,) = told
        assert isinstance(error, BadObservation)
        assert error.path == "cam"
        assert error.__traceback__ is None

    asyncio.run(main())


def test_a_server_without_jpegs_starts_no_thread_for_them() -> None:
    with serving(lambda observation: np.zeros(2)) as live:
        live.ready()
        assert isinstance(live.server, Server)
        assert not [one for one in threading.enumerate() if one.name.startswith("preparing pictures")]
