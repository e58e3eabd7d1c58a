"""Whatever a policy raises, wherever it or its answer is read: that request fails, at once, with a text; no other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest

from policyserve.core.dialect import ErrorReply
from policyserve.core.observer import Observer
from policyserve.core.printable import error_text
from policyserve.core.recipe import Recipe
from policyserve.core.throttle import OF_ONE_PEER
from policyserve.dialects import by_name
from policyserve.engine import inline
from tests.core.test_printable import is_harmless
from tests.engine.awkward import PLACES, RUNNERS
from tests.server.live import Live, making, masked, none_open, open_raw, read_frame, running
from tests.strange import FORGED, STRANGE

DIALECTS = ["openpi", "wall_x", "vibe_rl"]
TEXT, BINARY, CLOSE = 1, 2, 8
# vibe_rl's wire has no place for extras: these are not read for it, unless they have to leave a process.
UNREAD = {"an extra", "an extra within", "an extra's key"}


class Replaced(Observer):
    """Whether a policy had to be replaced."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def on_policy_replaced(self, name: str, reason: str) -> None:
        self.reasons.append(reason)


class Served(NamedTuple):
    live: Live
    runner: str
    replaced: Replaced


@pytest.fixture(scope="module", params=RUNNERS)
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    """One server for each runner."""
    with serving_on(request.param, "load") as served:
        yield served


@contextmanager
def serving_on(runner: str, function: str, **arguments: Any) -> Iterator[Served]:
    """A server whose policy runs in the event loop, a thread or a process."""
    load = Recipe(f"tests.engine.awkward:{function}", {"is_inline": runner == "inline", **arguments})
    isolate = "process" if runner == "process" else "thread"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inline, "_LIMIT_MS", 1e6)  # on a busy machine it stays in the event loop, too
        with making(load, isolate=isolate) as server, running(server) as live:
            live.ready()
            replaced = Replaced()
            live.call(lambda: server.observers.add(replaced))
            yield Served(live, runner, replaced)


class Peer:
    """A client that asks by numbers, over bare TCP."""

    def __init__(self, live: Live, dialect: str) -> None:
        self._dialect = by_name(dialect)
        self.socket, _ = open_raw(live, path=f"/{dialect}")
        if self._dialect.greets:
            opcode, self.greeting = read_frame(self.socket)
            assert opcode == BINARY

    def ask(self, place: str = "", name: str = "") -> tuple[int, bytes]:
        """What comes first in answer: opcode and payload."""
        numbers = [[*PLACES].index(place), STRANGE.index(name)] if place else [-1, -1]
        self.socket.sendall(masked(BINARY, self._dialect.write_request({"obs": np.array(numbers, np.float32)})))
        return read_frame(self.socket)

    def where(self) -> str:
        """Where an ordinary request was answered."""
        opcode, payload = self.ask()
        assert opcode == BINARY, payload
        return RUNNERS[int(self._dialect.read_reply(payload).actions[1])]

    def close(self) -> None:
        self.socket.close()


def told(peer: Peer, answer: tuple[int, bytes]) -> str:
    """The text of an error, which ends the session: a text frame, and then the close frame, or that alone."""
    opcode, payload = answer
    text = ""
    if opcode == TEXT:
        text = payload.decode()
        opcode, payload = read_frame(peer.socket)
    assert opcode == CLOSE
    assert int.from_bytes(payload[:2], "big") == 1011
    return text or payload[2:].decode()


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("place", PLACES)
def test_any_error_anywhere_fails_its_request_alone(served: Served, place: str, dialect: str) -> None:
    with closing(Peer(served.live, dialect)) as other:
        for name in STRANGE:
            with closing(Peer(served.live, dialect)) as peer:
                opcode, payload = peer.ask(place, name)
                if opcode == BINARY:
                    assert place in UNREAD, name
                    assert dialect == "vibe_rl"
                    continue
                text = told(peer, (opcode, payload))
            assert is_harmless(text), name
            assert "policy_failed" in text or "bad_action" in text or "own_textless" in text, name
            assert len(text) < 3_100
        assert other.where() == served.runner
    assert served.replaced.reasons == []


def test_what_another_packages_dialect_writes_reaches_the_wire_as_utf_8(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_error(*_: Any) -> ErrorReply:
        return ErrorReply("caf\udce9", 1011, "caf\udce9\n")

    monkeypatch.setattr(type(by_name("openpi")), "write_error", write_error)
    with closing(Peer(served.live, "openpi")) as peer:
        assert peer.ask("infer", "ordinary") == (TEXT, b"caf?")
        assert read_frame(peer.socket) == (CLOSE, b"\x03\xf3caf\\udce9\\n")


@pytest.mark.parametrize("runner", RUNNERS)
def test_any_error_of_a_reset_fails_the_request_that_it_came_before(runner: str) -> None:
    with serving_on(runner, "load_living", place="reset", name="") as served:
        for number, name in enumerate(STRANGE):
            with closing(Peer(served.live, DIALECTS[number % 3])) as peer:
                text = told(peer, peer.ask())
            assert is_harmless(text), name
            assert "awkward.reset() raised" in text, name
            none_open(served.live)
        with closing(Peer(served.live, "openpi")) as peer:
            assert peer.where() == runner
    assert served.replaced.reasons == []


@pytest.mark.parametrize("place", ["spec", "metadata, later"])
@pytest.mark.parametrize("runner", RUNNERS)
def test_spec_and_metadata_are_read_once(runner: str, place: str) -> None:
    with serving_on(runner, "load_living", place=place, name="an exit") as served:
        for dialect in DIALECTS * 2:
            with closing(Peer(served.live, dialect)) as peer:
                assert b"robot" in getattr(peer, "greeting", b"robot")
                assert peer.where() == runner
                told(peer, peer.ask("infer", "without a text"))


@pytest.mark.parametrize("place", ["loading", "metadata"])
@pytest.mark.parametrize("runner", ["thread", "process"])
@pytest.mark.parametrize("name", ["without a text", "an iterator's end", "an exit", "a cancelled task", "a group"])
def test_any_error_while_it_is_loaded_is_told_to_who_waits(runner: str, place: str, name: str) -> None:
    load = Recipe("tests.engine.awkward:load_living", {"is_inline": False, "place": place, "name": name})
    with making(load, isolate=runner) as server, running(server) as live:
        peer, _ = open_raw(live, path="/openpi")
        with peer:
            with pytest.raises(Exception) as caught:  # noqa: PT011 - of any class
                live.ready()
            assert is_harmless(error_text(caught.value))
            assert read_frame(peer)[0] == TEXT
            assert read_frame(peer)[0] == CLOSE


@pytest.mark.parametrize("name", STRANGE)
def test_any_error_of_its_close_is_logged_and_the_server_ends(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with serving_on("thread", "load_living", place="close", name=name):
        pass
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    first, *traceback = record.getMessage().split("\n")
    assert first.startswith("policy awkward failed to close: ")
    assert is_harmless(first)
    assert all(is_harmless(line) and line.startswith(" ") for line in traceback)


def test_in_the_log_a_policys_error_forges_no_line_and_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    with serving_on("thread", "load") as served:
        for name in ("forging", "a megabyte", "a hundred thousand lines", "a group"):
            with closing(Peer(served.live, "openpi")) as peer:
                told(peer, peer.ask("infer", name))
    assert "unknown task x\\n2001-01-01" in caplog.text
    for record in caplog.records:
        first, *traceback = record.getMessage().split("\n")
        assert is_harmless(first)
        assert not first.startswith(FORGED)
        assert all(is_harmless(line) and line.startswith(" ") for line in traceback)
        assert len(record.getMessage()) < 15_000


def test_a_policy_that_fails_whoever_asks_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with serving_on("inline", "load") as served:
        for _ in range(150):
            with closing(Peer(served.live, "openpi")) as peer:
                told(peer, peer.ask("infer", "a megabyte"))
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert 5 < len(errors) < 100
    assert sum(map(len, errors)) < 2 * OF_ONE_PEER.burst_size
