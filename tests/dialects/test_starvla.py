"""starVLA's batches and envelopes, in a session without a socket."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest

from policyserve.core.errors import BadObservation, Overloaded, PolicyFailed
from policyserve.core.spec import ArraySpec, PolicySpec
from policyserve.dialects import by_name
from tests.dialects.families import ACTIONS, STATE, answered, examples, packed, sent, session, submitted


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


def test_refusals_of_unknown_requests_are_starvlas_default() -> None:
    told = by_name("starvla").write_error(BadObservation("x", "a", "b"))
    assert told.close_code is None
    assert msgpack.unpackb(told.message)["request_id"] == "default"  # type: ignore[arg-type]


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
