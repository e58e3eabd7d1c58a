"""The families whose clients say more than observations, each in a session without a socket."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest

from policyserve.core.dialect import ConversingDialect, ZeroCopyDialect
from policyserve.core.effects import Answered, Close, Effect, EndEpisode, Failed, Reuse, Send, Submit
from policyserve.core.errors import BadObservation, Overloaded, PolicyFailed, WireError
from policyserve.core.policy import ActionChunk
from policyserve.core.session import Session
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextSpec
from policyserve.dialects import Auto, by_name
from policyserve.server.greeting import metadata_of

FAMILIES = ["starvla", "roboarena", "dreamzero", "vllm_omni", "behavior1k", "molmospaces"]
SPEC = PolicySpec(
    "arm",
    {"images": {"0": ImageSpec(optional=True)}, "state": ArraySpec((8,)), "prompt": TextSpec(default="")},
    ArraySpec((8,)),
    horizon=3,
    max_client_batch=4,
)
STATE = {"state": np.arange(8, dtype=np.float32)}
ACTIONS = np.arange(24, dtype=np.float32).reshape(3, 8)


def session(name: str | None, spec: PolicySpec = SPEC, **settings: Any) -> tuple[Session, list[Effect]]:
    made = Session(by_name(name) if name else None, choice=Auto(), max_pending=8, **settings)
    return made, made.serve(spec, metadata_of(spec))


def packed(message: Any) -> bytes:
    made = msgpack.packb(message)
    assert isinstance(made, bytes)
    return made


def sent(effects: list[Effect]) -> list[Any]:
    return [effect.message for effect in effects if isinstance(effect, Send)]


def submitted(effects: list[Effect]) -> Submit:
    (submit,) = [effect for effect in effects if isinstance(effect, Submit)]
    return submit


def answered(one: Session, effects: list[Effect], actions: Any = ACTIONS, **extras: Any) -> Any:
    outcome = Answered(ActionChunk(actions, extras=extras), 0.0, 0.001)
    (message,) = sent(one.answer(submitted(effects).ticket, outcome, 0.002))
    return message


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_converses_and_is_greeted(name: str) -> None:
    assert isinstance(by_name(name), ConversingDialect)
    assert isinstance(by_name(name), ZeroCopyDialect) == (name in ("roboarena", "dreamzero", "vllm_omni"))
    _, effects = session(name)
    (greeting,) = sent(effects)
    told = by_name(name).read_greeting(greeting)
    assert ("policyserve" in told) == (name not in ("roboarena", "dreamzero"))


@pytest.mark.parametrize("name", FAMILIES)
def test_each_familys_client_half_asks_and_reads_its_answer(name: str) -> None:
    one, _ = session(name)
    client = by_name(name)
    for _ in range(2):
        effects = one.receive(client.write_request({**STATE, "prompt": "go"}), 0.0)
        assert submitted(effects).observation["prompt"] == "go"
        reply = client.read_reply(answered(one, effects))
        has_one = name in ("behavior1k", "molmospaces")
        np.testing.assert_array_equal(reply.actions, ACTIONS[0] if has_one else ACTIONS)
        for row in (1, 2) if has_one else ():
            (message,) = sent(one.receive(client.write_request(STATE), 0.0))
            np.testing.assert_array_equal(client.read_reply(message).actions, ACTIONS[row])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_silent_client_of_any_family_is_greeted_and_settles_with_its_first_request(name: str) -> None:
    one, effects = session(None)
    assert sent(effects) == []
    (greeting,) = sent(one.silence())
    told = by_name(name).read_greeting(greeting)
    assert told["action_chunk_size"] == 3
    assert told["model_name"] == "policyserve"
    assert told["n_external_cameras"] == 1
    assert told["action_dim"] == 8
    request = {"images": {"0": np.zeros((2, 2, 3), np.uint8)}, **STATE}
    if name == "molmospaces":
        message = by_name(name).write_request({"state": {"arm": np.zeros(7)}, "prompt": "go"})
    else:
        message = by_name(name).write_request(request)
    one.receive(message, 0.0)
    assert one.dialect is not None
    assert one.dialect.name == {"dreamzero": "roboarena", "vllm_omni": "roboarena"}.get(name, name)


def test_what_the_policy_says_itself_goes_before_what_the_greeting_adds() -> None:
    spec = PolicySpec("arm", None, None, metadata={"action_chunk_size": 7, "action_space": "joint_velocity", "x": 1})
    one, _ = session(None, spec)
    told = by_name("openpi").read_greeting(sent(one.silence())[0])
    assert (told["action_chunk_size"], told["action_space"], told["x"]) == (7, "joint_velocity", 1)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_bad_observation_is_told_in_the_familys_form_and_the_connection_stays(name: str) -> None:
    one, _ = session(name)
    client = by_name(name)
    effects = one.receive(client.write_request({"state": np.zeros(3)}), 0.0)
    with pytest.raises(Exception, match=r"state: expected float32 \(8,\), got float64 \(3,\)"):
        client.read_reply(sent(effects)[0])
    assert not [effect for effect in effects if isinstance(effect, Close)]
    assert client.read_reply(answered(one, one.receive(client.write_request(STATE), 0.0))).actions.shape[-1] == 8


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "message",
    ["a text", b"", b"\xc1", packed([1]), packed({"__ndarray__": True, "data": b"", "dtype": "<f4", "shape": [0]})],
)
def test_what_is_no_message_is_refused_and_kills_nothing(name: str, message: Any) -> None:
    one, _ = session(name)
    effects = one.receive(message, 0.0)
    (failed,) = [effect for effect in effects if isinstance(effect, Failed)]
    assert isinstance(failed.error, WireError)
    assert len(sent(effects)) == 1
    closes = [effect.code for effect in effects if isinstance(effect, Close)]
    assert closes == ([1011] if name == "starvla" else [])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_client_of_vibe_rls_is_told_where_it_belongs(name: str) -> None:
    one, _ = session(name)
    effects = one.receive(by_name("vibe_rl").write_request({"obs": np.zeros(4)}), 0.0)
    (close,) = [effect for effect in effects if isinstance(effect, Close)]
    assert close.code in (1008, 1011)
    assert "connect to /vibe_rl" in close.reason


# Episodes


def request(session_id: Any, endpoint: str = "infer") -> bytes:
    return by_name("openpi").write_request({**STATE, "session_id": session_id, "endpoint": endpoint})


@pytest.mark.parametrize("name", ["roboarena", "vllm_omni"])
def test_a_session_id_keys_what_the_policy_remembers_until_its_reset(name: str) -> None:
    one, _ = session(name)
    episodes = []
    for who in ("a", "b", "a", np.array([7], np.int32), 7, "7"):
        effects = one.receive(request(who), 0.0)
        episodes.append(submitted(effects).episode)
        answered(one, effects)
    assert episodes == [0, 1, 0, 2, 2, 2]
    ended = one.receive(request("a", "reset"), 0.0)
    assert [effect.episode for effect in ended if isinstance(effect, EndEpisode)] == [0]
    assert len(sent(ended)) == 1
    assert submitted(one.receive(request("a"), 0.0)).episode == 3


@pytest.mark.parametrize("name", ["roboarena", "vllm_omni"])
def test_a_reset_of_no_episode_ends_all_of_the_connection(name: str) -> None:
    one, _ = session(name)
    for who in ("a", "b"):
        answered(one, one.receive(request(who), 0.0))
    submit = submitted(one.receive(request("c"), 0.0))
    ended = one.receive(packed({"endpoint": "reset"}), 0.0)
    assert [effect.episode for effect in ended if isinstance(effect, EndEpisode)] == [0, 1]
    told = one.answer(submit.ticket, Answered(ActionChunk(ACTIONS), 0.0, 0.0), 0.0)
    assert [effect.episode for effect in told if isinstance(effect, EndEpisode)] == [2]
    assert len(sent(told)) == 2
    assert one.episodes == []


def test_a_roboarena_session_may_begin_with_a_reset() -> None:
    one, _ = session(None)
    one.silence()
    assert sent(one.receive(packed({"endpoint": "reset", "session_id": "s1"}), 0.0)) == ["reset successful"]
    assert one.dialect is by_name("roboarena")


@pytest.mark.parametrize("bad", [[1, 2], {"a": 1}, 1.5, True, "x" * 257, np.zeros(2), np.zeros(1)])
@pytest.mark.parametrize("name", ["roboarena", "vllm_omni"])
def test_a_session_id_that_is_none_is_refused(name: str, bad: Any) -> None:
    one, _ = session(name)
    effects = one.receive(request(bad), 0.0)
    (failed,) = [effect for effect in effects if isinstance(effect, Failed)]
    assert str(failed.error).startswith("session_id: expected a text of at most 256 letters, or a whole number, got")
    assert not one.closed


def test_an_endpoint_is_needed_where_the_original_needs_it() -> None:
    one, _ = session("roboarena")
    (told,) = sent(one.receive(by_name("openpi").write_request(STATE), 0.0))
    assert told == "bad_frame: endpoint: expected a text, infer or reset, got none; openpi's clients connect to /openpi"
    one, _ = session("vllm_omni")
    assert submitted(one.receive(by_name("openpi").write_request(STATE), 0.0))
    assert submitted(one.receive(request("s", "anything"), 0.0))


def test_a_policy_that_counts_its_cameras_from_one_gets_them_so() -> None:
    cameras = {f"observation/exterior_image_{number}_left": ImageSpec() for number in (1, 2)}
    one, _ = session("roboarena", PolicySpec("droid", {**cameras, "state": ArraySpec((8,))}, ArraySpec((8,))))
    pictures = [np.full((2, 2, 3), number, np.uint8) for number in (0, 1)]
    names = [f"observation/exterior_image_{number}_left" for number in (0, 1)]
    message = by_name("roboarena").write_request({**dict(zip(names, pictures, strict=True)), **STATE})
    found = submitted(one.receive(message, 0.0)).observation
    assert [found[name][0, 0, 0] for name in cameras] == [0, 1]
    same = by_name("roboarena").write_request({**dict(zip(cameras, pictures, strict=True)), **STATE})
    found = submitted(one.receive(same, 0.0)).observation
    assert [found[name][0, 0, 0] for name in cameras] == [0, 1], "a client that counts from one as well"


# starVLA's batches


def examples(*prompts: str, pictures: int = 1, **more: Any) -> bytes:
    image = np.zeros((2, 2, 3), np.uint8)
    made = [{"image": [image] * pictures, "lang": prompt, "state": STATE["state"][None], **more} for prompt in prompts]
    return by_name("openpi").write_request({"examples": made})


def test_several_examples_are_a_clients_own_batch() -> None:
    one, _ = session("starvla")
    effects = one.receive(examples("go", "go"), 0.0)
    submit = submitted(effects)
    assert (submit.batch_size, submit.observation["prompt"]) == (2, "go")
    assert submit.observation["images"]["0"].shape == (2, 2, 2, 3)
    told = by_name("starvla").read_greeting(answered(one, effects, np.stack([ACTIONS, ACTIONS])))
    assert told["data"]["actions"].shape == (2, 3, 8)


def test_a_policy_without_a_horizon_answers_starvlas_three_axes_all_the_same() -> None:
    one, _ = session("starvla", PolicySpec("arm", {"state": ArraySpec((8,))}, ArraySpec((8,)), max_client_batch=4))
    for count in (1, 2):
        effects = one.receive(examples(*["go"] * count), 0.0)
        told = by_name("starvla").read_greeting(answered(one, effects, ACTIONS[:count] if count > 1 else ACTIONS[0]))
        assert told["data"]["actions"].shape == (count, 1, 8)


BAD_EXAMPLES: dict[str, tuple[bytes, str]] = {
    "none": (packed({"examples": []}), "examples: expected a list of one example or more"),
    "no list": (packed({"examples": 4}), "examples: expected a list of one example or more"),
    "no examples": (packed({"lang": "go"}), "examples: expected a list of one example or more"),
    "an example that is none": (packed({"examples": [4]}), "examples[0]: expected a map, got int"),
    "another text": (examples("go", "stop"), "examples[1]: expected the keys and the text of the first example"),
    "a key that is a number": (packed({"examples": [{}], "unnorm_key": 4}), "unnorm_key: expected a text or nil"),
    "a payload that is none": (packed({"type": "infer", "payload": 4}), "examples: expected a list"),
    "a number for a number": (packed({"request_id": 4, "examples": [{}]}), "request_id: expected a text, got int"),
}


@pytest.mark.parametrize("what", BAD_EXAMPLES)
def test_a_bad_request_of_starvlas_is_refused_in_its_envelope(what: str) -> None:
    message, said = BAD_EXAMPLES[what]
    one, _ = session("starvla")
    effects = one.receive(message, 0.0)
    told = by_name("starvla").read_greeting(sent(effects)[0])
    assert said in told["error"]["message"]
    assert told["status"] == "error"
    assert not one.closed


def test_examples_with_pictures_of_several_sizes_are_no_batch() -> None:
    one, _ = session("starvla")
    two = [{"image": np.zeros((side, 2, 3), np.uint8), **STATE} for side in (2, 3)]
    told = by_name("starvla").read_greeting(
        sent(one.receive(by_name("openpi").write_request({"examples": two}), 0.0))[0]
    )
    assert "images/0: expected arrays of one shape in all examples" in told["error"]["message"]


def test_starvlas_client_is_told_of_failures_and_stays() -> None:
    one, _ = session("starvla")
    for error in (PolicyFailed("broke"), Overloaded("full")):
        submit = submitted(one.receive(examples("go"), 0.0))
        told = by_name("starvla").read_greeting(sent(one.answer(submit.ticket, error, 0.0))[0])
        assert (told["ok"], told["error"]["message"]) == (False, f"{error.code}: {error}")
    assert not one.closed


# One action for each request


def test_behaviors_reset_drops_the_rows_and_is_not_answered() -> None:
    one, _ = session(None)
    one.silence()
    assert one.receive(packed({"reset": True}), 0.0) == []
    client = by_name("behavior1k")
    answered(one, one.receive(client.write_request(STATE), 0.0))
    assert any(isinstance(effect, Reuse) for effect in one.receive(client.write_request(STATE), 0.0))
    ended = one.receive(packed({"reset": True}), 0.0)
    assert ended == [EndEpisode(0)]
    assert submitted(one.receive(client.write_request(STATE), 0.0)).episode == 1


def test_extras_go_where_the_wire_has_a_place_for_them() -> None:
    for name in FAMILIES:
        one, _ = session(name)
        message = answered(one, one.receive(by_name(name).write_request(STATE), 0.0), note="hi")
        fields = by_name(name).read_reply(message).fields
        assert fields.get("note") == (None if name in ("dreamzero", "vllm_omni") else "hi"), name


@pytest.mark.parametrize("name", ["starvla", "roboarena", "behavior1k", "molmospaces"])
def test_an_extra_that_no_client_could_read_is_the_policys_fault(name: str) -> None:
    one, _ = session(name)
    submit = submitted(one.receive(by_name(name).write_request(STATE), 0.0))
    outcome = Answered(ActionChunk(ACTIONS, extras={"note": object()}), 0.0, 0.0)
    (failed,) = [effect for effect in one.answer(submit.ticket, outcome, 0.0) if isinstance(effect, Failed)]
    assert isinstance(failed.error, PolicyFailed)
    assert f"the answer cannot be read by {name}'s clients" in str(failed.error)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_key_that_cannot_be_sent_is_named(name: str) -> None:
    for bad in ({"state": object()}, [1], 4):
        with pytest.raises(WireError):
            by_name(name).write_request(bad)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_refusals_of_unknown_requests_are_starvlas_default() -> None:
    told = by_name("starvla").write_error(BadObservation("x", "a", "b"))
    assert told.close_code is None
    assert msgpack.unpackb(told.message)["request_id"] == "default"  # type: ignore[arg-type]


TWICE: dict[str, tuple[str, dict[str, Any], str]] = {
    "a camera": (
        "behavior1k",
        {f"{robot}:zed_link:Camera:0::rgb": np.zeros((2, 2, 3), np.uint8) for robot in "ab"},
        "images/head",
    ),
    "a state": ("behavior1k", {"a::proprio": np.zeros(2), "state": np.zeros(2)}, "state"),
    "cameras": (
        "behavior1k",
        {"a::zed_link::rgb": np.zeros((2, 2, 3), np.uint8), "images": 4},
        "images",
    ),
    "joints": ("molmospaces", {"qpos": {"arm": np.zeros(2)}, "state": np.zeros(2)}, "state"),
    "a text": ("starvla", {"examples": [{"lang": "a", "prompt": "b"}]}, "prompt"),
}


@pytest.mark.parametrize("what", TWICE)
def test_what_a_client_has_under_two_names_is_refused(what: str) -> None:
    name, message, path = TWICE[what]
    one, _ = session(name)
    effects = one.receive(by_name("openpi").write_request(message), 0.0)
    (failed,) = [effect for effect in effects if isinstance(effect, Failed)]
    assert isinstance(failed.error, WireError)
    assert failed.error.path == path


def test_a_type_and_texts_that_are_arrays_are_no_types_and_no_texts() -> None:
    one, _ = session("starvla")
    message = by_name("openpi").write_request({"type": np.zeros(2), "examples": [{}]})
    assert (
        "Unsupported message type"
        in by_name("starvla").read_greeting(sent(one.receive(message, 0.0))[0])["error"]["message"]
    )
    two = [{"lang": np.zeros(2), **STATE}, {"lang": np.zeros(2), **STATE}]
    assert len(sent(one.receive(by_name("openpi").write_request({"examples": two}), 0.0))) == 1
    assert not one.closed


def test_an_array_of_a_million_pictures_without_a_pixel_is_refused() -> None:
    one, _ = session("starvla")
    message = by_name("openpi").write_request({"examples": [{"image": np.zeros((1_000_000, 0, 1, 1), np.uint8)}]})
    told = by_name("starvla").read_greeting(sent(one.receive(message, 0.0))[0])
    assert told["error"]["message"] == "bad_frame: examples[0]/image: expected at most 64 pictures, got 1000000"


def test_an_action_beyond_float32_never_reaches_vllm_omnis_wire() -> None:
    one, _ = session("vllm_omni", PolicySpec("wide", {"state": ArraySpec((8,))}, ArraySpec((1,), "float64")))
    submit = submitted(one.receive(by_name("vllm_omni").write_request(STATE), 0.0))
    (told,) = sent(one.answer(submit.ticket, Answered(ActionChunk(np.array([1e300])), 0.0, 0.0), 0.0))
    assert "it is beyond them" in msgpack.unpackb(told)["message"]


# What comes in another order than it should


@pytest.mark.parametrize("name", ["starvla", "roboarena", "behavior1k"])
def test_a_client_that_asks_before_it_is_greeted_is_greeted_first(name: str) -> None:
    one, _ = session(None)
    message = {"endpoint": "infer", **STATE} if name == "roboarena" else {"robot_r1::proprio": STATE["state"]}
    effects = one.receive(examples("go") if name == "starvla" else by_name("openpi").write_request(message), 0.0)
    assert one.dialect is by_name(name)
    assert by_name(name).read_greeting(sent(effects)[0])
    assert by_name(name).read_reply(answered(one, effects)).actions.shape[-1] == 8


@pytest.mark.parametrize("name", ["roboarena", "starvla", "behavior1k"])
def test_messages_that_come_while_the_policy_loads_are_answered_in_their_order(name: str) -> None:
    control = {"roboarena": {"endpoint": "reset"}, "starvla": {"type": "ping"}, "behavior1k": {"reset": True}}[name]
    one = Session(by_name(name), max_pending=8)
    for message in (packed(control), by_name(name).write_request(STATE)):
        assert one.receive(message, 0.0) == []
    effects = one.serve(SPEC, metadata_of(SPEC))
    assert len(sent(effects)) == (1 if name == "behavior1k" else 2), "a greeting, and what the control is answered"
    assert by_name(name).read_reply(answered(one, effects)).actions.shape[-1] == 8


@pytest.mark.parametrize("name", ["roboarena", "vllm_omni", "starvla", "behavior1k"])
def test_a_control_is_no_observation_for_who_reads_these_alone(name: str) -> None:
    control: dict[str, dict[str, Any]] = {"starvla": {"type": "ping"}, "behavior1k": {"reset": True}}
    with pytest.raises(WireError, match=r"expected an observation, got '(reset|ping)'"):
        by_name(name).read_request(packed(control.get(name, {"endpoint": "reset"})))
    if name == "starvla":
        with pytest.raises(WireError, match="examples: expected a list"):
            by_name(name).read_request(packed({"lang": "go"}))


# What our clients are told by servers of others


BAD_ANSWERS: dict[str, list[Any]] = {
    "starvla": [{"data": {"actions": 4}}, {"data": 4}, {}],
    "roboarena": [{"server_timing": {}}, 4],
    "vllm_omni": [{"arm": {"nd": True}}, "x", 4],
    "behavior1k": [{"actions": 4}, [1]],
    "molmospaces": [{"server_timing": {"infer_ms": 3}}, {"arm": [1.0]}],
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_what_is_no_answer_is_a_wire_error(name: str) -> None:
    for bad in BAD_ANSWERS[name]:
        with pytest.raises(WireError):
            by_name(name).read_reply(packed(bad))


def test_parts_of_an_action_stand_side_by_side_or_are_refused() -> None:
    written = by_name("openpi").write_request({"arm": np.zeros((2, 7)), "gripper": np.ones((2, 1))})
    assert by_name("vllm_omni").read_reply(written).actions.shape == (2, 8)
    written = by_name("openpi").write_request({"arm": np.zeros((2, 7)), "gripper": np.ones((3, 1))})
    with pytest.raises(WireError, match=r"side by side, got arm \(2, 7\), gripper \(3, 1\)"):
        by_name("vllm_omni").read_reply(written)


@pytest.mark.parametrize("timing", [{"infer_ms": 3, "note": "x", "total_ms": 4.5}, 7])
def test_of_a_servers_timing_the_numbers_are_taken(timing: Any) -> None:
    reply = by_name("behavior1k").read_reply(
        by_name("openpi").write_request({"action": np.zeros(3), "server_timing": timing})
    )
    assert reply.timing == ({"infer_ms": 3.0, "total_ms": 4.5} if isinstance(timing, dict) else {})


def test_our_client_writes_cameras_as_the_simulator_does() -> None:
    picture = np.zeros((2, 2, 3), np.uint8)
    written = by_name("behavior1k").write_request({"images": {"head": picture, "belly": picture}, **STATE})
    read = by_name("behavior1k").read_request(written).observation
    assert list(read["images"]) == ["head", "belly"]
    kept = by_name("behavior1k").read_request(packed({"rgb": 1, "x::rgb": 1, "a::b::depth": 2})).observation
    assert list(kept) == ["rgb", "x::rgb", "a::b::depth"]


def test_a_jpeg_is_a_picture_of_molmospaces_by_its_mark() -> None:
    jpeg = {"__image__": True, "format": "jpeg", "data": b"\xff\xd8"}
    read = by_name("molmospaces").read_request(packed({"wrist_camera": jpeg, "task": "go"})).observation
    assert list(read["images"]) == ["wrist_camera"]
