"""openpi's and Wall-X's conversations, server's half and client's half joined without a socket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from policyserve.core.effects import Answered, Close, Effect, Send, Submit
from policyserve.core.errors import (
    BadObservation,
    DeadlineExceeded,
    Overloaded,
    PolicyFailed,
    PolicyserveError,
    RemoteError,
    WireError,
)
from policyserve.core.messages import Message, Timing
from policyserve.core.policy import ActionChunk
from policyserve.core.session import Session
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextSpec
from policyserve.dialects import Auto, by_name

FAMILIES = ["openpi", "wall_x"]
SPEC = PolicySpec(
    "arm",
    observation={"view": ImageSpec(), "state": ArraySpec((3,)), "prompt": TextSpec()},
    action=ArraySpec((7,)),
    horizon=5,
)
OBSERVATION = {"view": np.zeros((4, 6, 3), np.uint8), "state": np.arange(3.0), "prompt": "fold"}
ACTIONS = np.arange(35, dtype=np.float32).reshape(5, 7)
METADATA: Mapping[str, Any] = {"robot": "arm", "spec": SPEC.describe()}
GREETED = {
    "openpi": {"action_dim": 7, "pred_horizon": 5, **METADATA},
    "wall_x": {"action_dim": 7, "pred_horizon": 5, "device": None, "predict_mode": None, "env": None, **METADATA},
}


def started(name: str | None) -> tuple[Session, list[Effect]]:
    session = Session(by_name(name) if name else None, choice=Auto(), max_pending=8)
    return session, session.serve(SPEC, METADATA)


def frames(effects: list[Effect]) -> list[Message]:
    return [effect.message for effect in effects if isinstance(effect, Send)]


def closes(effects: list[Effect]) -> list[int]:
    return [effect.code for effect in effects if isinstance(effect, Close)]


def ticket_of(effects: list[Effect]) -> int:
    (submit,) = [effect for effect in effects if isinstance(effect, Submit)]
    return submit.ticket


@pytest.mark.parametrize("name", FAMILIES)
def test_a_client_is_greeted_asks_and_reads_its_answer(name: str) -> None:
    session, effects = started(name)
    client = by_name(name)
    (greeting,) = frames(effects)
    assert client.read_greeting(greeting) == GREETED[name]
    for round_number in range(2):
        effects = session.receive(client.write_request(OBSERVATION), 10.0)
        outcome = Answered(ActionChunk(ACTIONS, extras={"note": "ok"}), 10.001, 10.021)
        (frame,) = frames(session.answer(ticket_of(effects), outcome, 10.025))
        reply = client.read_reply(frame)
        np.testing.assert_array_equal(reply.actions, ACTIONS)
        assert reply["note"] == "ok"
        assert reply.timing["infer_ms"] == pytest.approx(20)
        assert reply.timing["queue_ms"] == pytest.approx(1)
        assert ("prev_total_ms" in reply.timing) == (round_number == 1)
        assert round_number == 0 or reply.timing["prev_total_ms"] == pytest.approx(25)


def test_a_wall_x_reply_has_both_of_the_familys_names() -> None:
    session, _ = started("wall_x")
    effects = session.receive(by_name("wall_x").write_request(OBSERVATION), 0.0)
    outcome = Answered(ActionChunk(ACTIONS), 0.0, 0.0)
    (frame,) = frames(session.answer(ticket_of(effects), outcome, 0.0))
    reply = by_name("wall_x").read_reply(frame)
    assert reply["action"].shape == (5, 7)
    assert reply["predict_action"].shape == (1, 5, 7)
    assert "actions" not in reply


def test_a_cosmos_client_finds_the_actions_under_action_and_may_send_states_as_rows() -> None:
    states = {"observation/joint_position": ArraySpec((7,)), "observation/gripper_position": ArraySpec((1,))}
    session = Session(by_name("cosmos"), max_pending=8)
    (greeting,) = frames(session.serve(PolicySpec("arm", states, ArraySpec((7,)), horizon=5), METADATA))
    assert by_name("cosmos").read_greeting(greeting) == GREETED["openpi"]
    rows = {
        "observation/joint_position": np.ones((1, 7), "<f4"),
        "observation/gripper_position": np.ones((1, 1), "<f4"),
    }
    for round_number in range(4):  # later ones could be read by the layout of those before
        sent = {key: row * round_number for key, row in rows.items()}
        effects = session.receive(memoryview(bytearray(by_name("openpi").write_request(sent))), 0.0)
        (submit,) = [effect for effect in effects if isinstance(effect, Submit)]
        for key, row in sent.items():
            np.testing.assert_array_equal(submit.observation[key], row[0])
        outcome = Answered(ActionChunk(ACTIONS, extras={"video": np.zeros((2, 2, 3), np.uint8)}), 0.0, 0.0)
        (frame,) = frames(session.answer(submit.ticket, outcome, 0.0))
        reply = by_name("cosmos").read_reply(frame)
        np.testing.assert_array_equal(reply["action"], ACTIONS)
        np.testing.assert_array_equal(reply["actions"], ACTIONS)
        assert reply["video"].shape == (2, 2, 3)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_clients_mistake_is_one_text_frame_and_the_connection_stays(name: str) -> None:
    session, _ = started(name)
    client = by_name(name)
    effects = session.receive(client.write_request({**OBSERVATION, "state": np.zeros(2)}), 0.0)
    (frame,) = frames(effects)
    assert isinstance(frame, str)
    assert frame == "bad_observation: state: expected float32 (3,), got float64 (2,)"
    with pytest.raises(RemoteError, match="state: expected"):
        client.read_reply(frame)
    assert not closes(effects)
    assert ticket_of(session.receive(client.write_request(OBSERVATION), 0.0))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    ("error", "code"),
    [(PolicyFailed("broke"), 1011), (Overloaded("full"), None), (DeadlineExceeded("late"), None)],
    ids=lambda value: getattr(value, "code", None),
)
def test_only_a_fault_of_ours_that_no_retry_mends_closes(name: str, error: PolicyserveError, code: int | None) -> None:
    session, _ = started(name)
    effects = session.receive(by_name(name).write_request(OBSERVATION), 0.0)
    effects = session.answer(ticket_of(effects), error, 0.0)
    (frame,) = frames(effects)
    assert frame == f"{error.code}: {error}"
    assert closes(effects) == ([code] if code else [])


def test_a_traceback_reaches_the_wire_only_where_the_server_is_told_so() -> None:
    try:
        raise PolicyFailed("broke") from ValueError("the inner reason")
    except PolicyFailed as error:
        failure = error
    for debug_wire in (False, True):
        session = Session(by_name("openpi"), max_pending=8, debug_wire=debug_wire)
        session.serve(SPEC, METADATA)
        effects = session.receive(by_name("openpi").write_request(OBSERVATION), 0.0)
        (frame,) = frames(session.answer(ticket_of(effects), failure, 0.0))
        assert isinstance(frame, str)
        assert ("Traceback" in frame and "the inner reason" in frame) == debug_wire


BAD_REQUESTS: dict[str, tuple[dict[str, Any], str]] = {
    "a wrong camera key": ({"veiw": OBSERVATION["view"], "state": np.zeros(3), "prompt": "x"}, "did you mean 'view'"),
    "a missing state": ({"view": OBSERVATION["view"], "prompt": "x"}, "state: expected float32 (3,)"),
    "a prompt that is bytes": ({**OBSERVATION, "prompt": b"fold"}, "prompt: expected a text (str), got bytes"),
    "a prompt of 200 kB": ({**OBSERVATION, "prompt": "x" * 200_000}, "at most 100000 characters"),
    "an image of 0 pixels": ({**OBSERVATION, "view": np.zeros((0, 6, 3), np.uint8)}, "an image of 0 pixels"),
    "an image that is CHW": ({**OBSERVATION, "view": np.zeros((3, 4, 6), np.uint8)}, "which looks like CHW"),
    "an RGBA image": ({**OBSERVATION, "view": np.zeros((4, 6, 4), np.uint8)}, "4 channels (RGBA)"),
    "a gray image": ({**OBSERVATION, "view": np.zeros((4, 6), np.uint8)}, "a gray HW image"),
    "a float image": ({**OBSERVATION, "view": np.zeros((4, 6, 3), np.float32)}, "got float32 (4, 6, 3)"),
    "an image too wide": ({**OBSERVATION, "view": np.zeros((1, 20_000, 3), np.uint8)}, "at most 8192 pixels a side"),
    "a flat key and a nested one": ({**OBSERVATION, "a/b": np.zeros(2), "a": {"b": np.zeros(2)}}, "two: a flat key"),
}


@pytest.mark.parametrize("mistake", BAD_REQUESTS)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_bad_observation_is_told_with_path_expected_and_got(name: str, mistake: str) -> None:
    observation, said = BAD_REQUESTS[mistake]
    spec = PolicySpec("arm", {**(SPEC.observation or {}), "a/b": ArraySpec((2,), optional=True)}, None)
    with pytest.raises(BadObservation) as refused:
        spec.validate(by_name(name).read_request(by_name(name).write_request(observation)).observation)
    assert said in str(refused.value)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_breaks_the_wire_is_a_wire_error(name: str) -> None:
    deep: Any = np.zeros(1)
    for _ in range(12):
        deep = {"x": deep}
    twice = b"\x82\xa1a\x01\xc4\x01a\x02"  # {"a": 1, b"a": 2}
    for frame in (by_name(name).write_request({"deep": deep}), twice, b"\x90", b"", b"\xc1", "text", b"\x01"):
        with pytest.raises(WireError):
            by_name(name).read_request(frame)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_the_wire_cannot_carry_is_a_wire_error_at_the_client(name: str) -> None:
    for value in (object(), np.array(["text"]), np.zeros(2, complex)):
        with pytest.raises(WireError):
            by_name(name).write_request({"x": value})


@pytest.mark.parametrize("name", FAMILIES)
def test_on_a_path_of_its_own_another_familys_frame_closes_with_the_path_to_use(name: str) -> None:
    for other in {"openpi", "wall_x", "vibe_rl"} - {name}:
        session, _ = started(name)
        effects = session.receive(by_name(other).write_request({"obs": np.zeros(4)}), 0.0)
        (frame,) = frames(effects)
        assert isinstance(frame, str)
        assert f"/{other}" in frame
        assert closes(effects) == [1008]


@pytest.mark.parametrize("name", FAMILIES)
def test_an_unknown_client_that_waits_is_greeted_and_settles_with_its_first_observation(name: str) -> None:
    session, effects = started(None)
    assert frames(effects) == []
    (greeting,) = frames(session.silence())
    told = by_name(name).read_greeting(greeting)
    assert {key: value for key, value in told.items() if key in GREETED["openpi"]} == GREETED["openpi"]
    assert told["action_chunk_size"] == 5
    assert ticket_of(session.receive(by_name(name).write_request(OBSERVATION), 0.0))
    assert session.dialect is by_name(name)
    assert session.silence() == []


@pytest.mark.parametrize("name", FAMILIES)
def test_a_metadata_first_client_that_speaks_at_once_is_greeted_first(name: str) -> None:
    session, _ = started(None)
    effects = session.receive(by_name(name).write_request(OBSERVATION), 0.0)
    assert isinstance(effects[0], Send)
    assert by_name(name).read_greeting(effects[0].message) == GREETED[name]
    assert ticket_of(effects)


def test_an_unknown_client_that_speaks_first_is_vibe_rls_and_never_greeted() -> None:
    spec = PolicySpec("pole", {"obs": ArraySpec((4,))}, ArraySpec((), "int32"))
    session = Session(None, choice=Auto(), max_pending=8)
    session.serve(spec, METADATA)
    effects = session.receive(by_name("vibe_rl").write_request({"obs": np.zeros(4)}), 0.0)
    assert frames(effects) == []
    assert ticket_of(effects)


def test_a_vibe_rl_client_that_was_greeted_is_sent_to_its_path() -> None:
    session, _ = started(None)
    session.silence()
    effects = session.receive(by_name("vibe_rl").write_request({"obs": np.zeros(4)}), 0.0)
    assert closes(effects) == [1008]
    (close,) = [effect for effect in effects if isinstance(effect, Close)]
    assert "/vibe_rl" in close.reason
    assert frames(effects) == []


def test_silence_where_the_client_must_speak_first_closes_with_the_paths_to_use() -> None:
    session, _ = started("vibe_rl")
    effects = session.silence()
    (close,) = [effect for effect in effects if isinstance(effect, Close)]
    assert close.code == 1008
    assert "/openpi" in close.reason
    assert len(close.reason.encode()) <= 123
    assert session.receive(by_name("vibe_rl").write_request({"obs": np.zeros(4)}), 0.0) == []


@pytest.mark.parametrize("name", FAMILIES)
def test_a_message_that_is_one_array_is_no_map(name: str) -> None:
    dialect = by_name(name)
    whole = dialect.write_request({"state": np.arange(3.0)})
    alone = whole[1 + len(b"\xa5state") :]  # what stands behind the map's head and its only key
    for read in (dialect.read_request, dialect.read_reply, dialect.read_greeting):
        with pytest.raises(WireError, match="expected a map, got an array"):
            read(alone)


# A reply without extras is put together around its arrays.
SHAPES = [np.arange(6, dtype=">f4").reshape(2, 3), np.zeros((0, 7), np.float32), np.asarray(3)]


@pytest.mark.parametrize("name", ["openpi", "wall_x"])
@pytest.mark.parametrize("previous_ms", [None, 4.5])
@pytest.mark.parametrize("actions", SHAPES, ids=["big-endian", "empty", "one number"])
def test_a_reply_is_what_packing_it_whole_gives(name: str, previous_ms: float | None, actions: Any) -> None:
    dialect, timing = by_name(name), Timing(1.25, 2.5, 3.75, previous_ms)
    around = dialect.write_reply(ActionChunk(actions), timing)
    whole = dialect.write_reply(ActionChunk(actions, extras={"x": None}), timing)
    assert isinstance(around, bytes)
    assert whole == bytes((around[0] + 1,)) + b"\xa1x\xc0" + around[1:]  # one more entry, the first
