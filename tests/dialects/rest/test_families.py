"""The families of /act: what their own programs wrote is read, and their answers are written to the byte."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest

from policyserve.core.dialect import ConversingDialect, ErrorReply
from policyserve.core.encoded_images import EncodedImage
from policyserve.core.errors import (
    BadObservation,
    DeadlineExceeded,
    Overloaded,
    PolicyFailed,
    PolicyserveError,
    WireError,
)
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.core.messages import Control, Request, Timing, Unreadable
from policyserve.core.policy import ActionChunk
from policyserve.dialects.rest.bodies import Context, ReplyBody, RequestBody
from policyserve.dialects.rest.gr00t_http import Gr00tHTTP
from policyserve.dialects.rest.openvla import OpenVLA, OpenVLAOFT
from policyserve.dialects.rest.recognition import FAMILIES, ByBody, family_of, read_body
from tests.shared import shared_path

TIMING = Timing(0.1, 0.5, 1.25)
FOLDERS = {
    "openvla": "openvla_rest",
    "openvla_oft": "openvla_oft_rest",
    "xvla": "xvla_rest",
    "molmoact2": "molmoact2_rest",
    "gr00t_http": "gr00t_http",
}


def golden(folder: str, name: str) -> bytes:
    return shared_path("design", "golden_more", folder, f"{name}.bin").read_bytes()


def read(body: bytes | dict[str, Any], **options: Any) -> RequestBody:
    return read_body(body if isinstance(body, bytes) else json.dumps(body).encode(), "/act", DEFAULT_LIMITS, **options)


def observation(body: bytes | dict[str, Any]) -> dict[str, Any]:
    heard = read(body).heard
    assert isinstance(heard, Request), heard
    assert heard.begins
    return dict(heard.observation)


def refusal(body: bytes | dict[str, Any], **options: Any) -> tuple[str, ReplyBody]:
    """Whose the body is and the answer that it gets."""
    found = read(body, **options)
    assert isinstance(found.heard, Unreadable), found.heard
    told = FAMILIES[found.family].write_refusal(found.heard.error, "", found.heard.context)
    assert isinstance(told.message, ReplyBody)
    return found.family, told.message


def marked(array: Any) -> dict[str, Any]:
    array = np.asarray(array)
    return {"__numpy__": base64.b64encode(array.tobytes()).decode(), "dtype": array.dtype.str, "shape": [*array.shape]}


PICTURE = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_family_is_a_dialect(family: Any) -> None:
    assert isinstance(family, ConversingDialect)
    assert family.greeting({}) is None


# What the original programs wrote

PICTURES = {
    "openvla": {"0"},
    "openvla_oft": {"full_image", "left_wrist_image", "right_wrist_image"},
    "xvla": {"0"},
    "molmoact2": {"top_cam", "left_cam", "right_cam"},
    "gr00t_http": {"ego_view"},
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_golden_body_is_told_and_read(name: str) -> None:
    body = golden(FOLDERS[name], "act")
    assert read(body).family == name
    found = observation(body)
    assert set(found["images"]) == PICTURES[name]
    first = next(iter(found["images"].values()))
    assert first.tolist() == (np.arange(18) * 7).reshape(2, 3, 3).tolist()
    assert first.flags.writeable
    assert isinstance(found["prompt"], str)


def test_golden_values_are_those_of_the_index() -> None:
    assert observation(golden("openvla_oft_rest", "act"))["state"].tolist() == list(range(14))
    found = observation(golden("xvla_rest", "act"))
    assert found["state"].tolist() == list(range(20))
    assert (found["domain_id"], found["steps"]) == (0, 10)
    assert observation(golden("molmoact2_rest", "act"))["num_steps"] == 10
    assert observation(golden("molmoact2_rest", "act"))["state"].dtype == np.float32
    found = observation(golden("gr00t_http", "act"))
    assert found["state"]["left_arm"].shape == (7,)
    assert found["prompt"] == "pick up the pear"
    sent = observation(golden("openvla_rest", "act_inspect_robots_widowx"))
    assert sent["images"]["0"].shape == (16, 16, 3)
    assert sent["unnorm_key"] == "bridge_orig"


def actions_of(folder: str) -> Any:
    """What the golden answer says."""
    told = json.loads(golden(folder, "act_reply"))
    if isinstance(told, dict):
        told = told.get("action", told.get("actions", told))
    if isinstance(told, list) and isinstance(told[0], dict):
        return np.stack([unmarked(one) for one in told])
    return np.asarray(told) if isinstance(told, list) else unmarked(told)


def unmarked(told: Any) -> Any:
    return np.frombuffer(base64.b64decode(told["__numpy__"]), told["dtype"]).reshape(told["shape"])


def written(name: str, chunk: ActionChunk, asked: Context = Context()) -> bytes:  # noqa: B008 (it is frozen)
    return bytes(FAMILIES[name].write_answer(chunk, TIMING, asked))


@pytest.mark.parametrize("name", ["openvla", "openvla_oft", "xvla"])
def test_a_golden_answer_is_written_to_the_byte(name: str) -> None:
    chunk = ActionChunk(actions_of(FOLDERS[name]))
    assert written(name, chunk) == golden(FOLDERS[name], "act_reply")


def test_molmoact2s_answer_says_what_else_the_policy_says() -> None:
    chunk = ActionChunk(actions_of("molmoact2_rest"), extras={"dt_ms": 33.3})
    assert written("molmoact2", chunk) == golden("molmoact2_rest", "act_reply")


def test_a_body_of_gr00ts_without_an_observation_shows_nothing_of_gr00ts_and_is_plain() -> None:
    assert b"400: Missing 'observation' field" in golden("gr00t_http", "act_no_observation_reply")
    found = read(golden("gr00t_http", "act_no_observation"))
    assert found.family == "json"
    assert isinstance(found.heard, Request)
    assert found.heard.observation == {"obs": 1}


def test_gr00ts_answer_has_the_parts_that_the_policy_declares() -> None:
    told = json.loads(golden("gr00t_http", "act_reply"))
    chunk = ActionChunk(np.concatenate([unmarked(told[key]) for key in told], axis=-1))
    family = Gr00tHTTP().for_policy({"modality": {"left_arm": 7, "waist": 3}})
    assert bytes(family.write_answer(chunk, TIMING, Context())) == golden("gr00t_http", "act_reply")
    alone = json.loads(written("gr00t_http", chunk))
    assert list(alone) == ["action.action"]
    assert alone["action.action"]["shape"] == [2, 10]
    one = family.write_answer(ActionChunk(chunk.actions[:1]), TIMING, Context())
    assert [part["shape"] for part in json.loads(one).values()] == [[7], [3]]
    with pytest.raises(PolicyFailed, match="waist 4"):
        Gr00tHTTP().for_policy({"modality": {"left_arm": 7, "waist": 4}}).write_answer(chunk, TIMING, Context())
    assert Gr00tHTTP().for_policy({"modality": "none"}).name == "gr00t_http"


def test_a_body_in_a_text_is_answered_by_a_text() -> None:
    found = read(golden("openvla_rest", "act_double_encoded"))
    assert found.family == "openvla"
    assert isinstance(found.heard, Request)
    chunk = ActionChunk(actions_of("openvla_rest"))
    assert written("openvla", chunk, found.heard.context) == golden("openvla_rest", "act_double_encoded_reply")


@pytest.mark.parametrize(
    ("folder", "name", "status"),
    [
        ("openvla_rest", "act_missing_image", 200),
        ("openvla_oft_rest", "act_missing_instruction", 200),
        ("xvla_rest", "act_no_domain", 400),
        ("xvla_rest", "act_no_image", 400),
    ],
)
def test_an_error_is_told_as_the_original_server_told_it(folder: str, name: str, status: int) -> None:
    family, told = refusal(golden(folder, name))
    assert FOLDERS[family] == folder
    assert (bytes(told), told.status) == (golden(folder, f"{name}_reply"), status)
    ((header, text),) = told.headers
    assert header == "X-Error"
    assert "expected" in text


def test_xvlas_pictures_may_be_the_bytes_of_a_jpeg() -> None:
    found = observation(golden("xvla_rest", "act_jpeg_bytes_as_1d_uint8"))["images"]["0"]
    assert isinstance(found, EncodedImage)
    assert found.check("image0").shape == (8, 8, 3)


def test_a_data_set_is_refused_that_the_policy_does_not_list() -> None:
    body = read(golden("openvla_rest", "act_inspect_robots_widowx"))
    for family in (OpenVLA(), OpenVLAOFT()):
        for metadata in ({}, {"available_unnorm_keys": []}, {"available_unnorm_keys": ["bridge_orig"]}):
            assert isinstance(family.for_policy(metadata).read_message(body), Request)
        heard = family.for_policy({"available_unnorm_keys": ["fractal"]}).read_message(body)
        assert isinstance(heard, Unreadable)
        assert str(heard.error) == "unnorm_key: expected one of fractal, got str 'bridge_orig'"
        assert heard.context == Context()


# What nobody may send

PATHS = {
    "xvla": {"image0": '"/etc/passwd"', "domain_id": 0, "language_instruction": ""},
    "openvla": {"image": "/etc/passwd", "instruction": "go"},
    "openvla_oft": {"full_image": "http://10.0.0.1/x.png", "instruction": "go"},
    "molmoact2": {"top_cam": "file:///x", "left_cam": "", "right_cam": "", "instruction": "go"},
    "gr00t_http": {"observation": {"video.ego_view": "/etc/passwd"}},
    "json": {"image": "/etc/passwd", "prompt": "go"},
}


@pytest.mark.parametrize("name", PATHS)
def test_a_path_in_place_of_a_picture_is_refused(name: str) -> None:
    family, told = refusal(PATHS[name])
    assert family == name
    assert "never opened here" in told.headers[0][1]


def test_the_unsafe_golden_body_is_refused() -> None:
    family, told = refusal(golden("unsafe", "rest_path_as_image_xvla"))
    assert family == "xvla"
    assert told.status == 400


ARRAYS = {
    "objects": {"dtype": "|O"},
    "structures": {"dtype": "f4,f4"},
    "texts": {"dtype": "<U4"},
    "another size": {"shape": [3, 3, 3]},
    "a negative size": {"shape": [-1]},
    "sizes that overflow": {"shape": [1 << 62, 1 << 62]},
    "sizes that are no list": {"shape": 18},
    "no shape": {"shape": ...},
    "no base64": {"__numpy__": "?"},
    "no text": {"__numpy__": [1, 2]},
}


@pytest.mark.parametrize("change", ARRAYS.values(), ids=ARRAYS)
def test_a_forged_array_is_refused(change: dict[str, Any]) -> None:
    forged = {key: value for key, value in {**marked(PICTURE), **change}.items() if value is not ...}
    for body in ({"image": forged, "instruction": ""}, {"x": {"y": [forged]}}):
        family, told = refusal(body)
        assert told.headers[0][1].startswith("bad_frame: ")
        if family == "json":
            assert json.loads(told)["error"]["path"].startswith("x/y[0]")


def test_more_arrays_than_one_message_may_have_are_refused() -> None:
    found = read_body(json.dumps({"x": [marked(0)] * 3}).encode(), "/act", WireLimits(max_arrays=2))
    assert isinstance(found.heard, Unreadable)


@pytest.mark.parametrize("body", [b"[]", b"7", b'"x"', b"null", b"{}", b"", b'{"encoded": "[]"}'])
def test_what_is_no_map_is_told_what_bodies_there_are(body: bytes) -> None:
    family, told = refusal(body)
    assert family == "json"
    assert told.status == 400
    if b"encoded" not in body:
        for word in ("full_image", "domain_id", "num_steps", "observation", "instruction"):
            assert word in json.loads(told)["error"]["cure"]


def test_a_marked_array_alone_is_no_observation() -> None:
    assert refusal(marked(PICTURE))[0] == "json"


# Whose a body is

BODIES = {
    "openvla": {"image": 1, "instruction": ""},
    "openvla_oft": {"left_wrist_image": 1, "instruction": ""},
    "xvla": {"proprio": "[0]", "instruction": ""},
    "molmoact2": {"num_steps": 10, "instruction": ""},
    "gr00t_http": {"observation": {"state.arm": []}},
    "json": {"image": 1, "prompt": "", "full_image": 1},
}


@pytest.mark.parametrize("name", BODIES)
def test_keys_tell_whose_a_body_is(name: str) -> None:
    assert family_of(BODIES[name]) == name
    assert ByBody().settle(RequestBody.of(b"", name, Control("")), False).name == name


def test_a_policys_own_keys_are_plain() -> None:
    assert family_of({"obs": [1]}) == family_of({"observation": {"state": []}}) == family_of({"image": 1}) == "json"
    assert ByBody().settle(b"", False).name == "json"


def test_a_reset_is_heard_whatever_its_body() -> None:
    for body in (b"", b"{}", b"{{{"):
        heard = read_body(body, "/reset", DEFAULT_LIMITS).heard
        assert isinstance(heard, Control)
        assert heard.ends == ""
        assert FAMILIES["json"].answer_control(heard, {}) == b'{"status":"ok"}'


# Plain JSON

JPEG = base64.b64encode(b"\xff\xd8\xff\xe0" + bytes(80)).decode()
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(80)).decode()


def test_plain_numbers_are_arrays_and_pictures_are_told_by_their_bytes() -> None:
    found = observation(
        {
            "state": [1, 2.5],
            "grid": [[1, 2], [3, 4]],
            "image": JPEG,
            "images": [PNG, f"data:image/png;base64,{PNG}"],
            "observation": {"image": {"wrist": JPEG}, "cam": PNG},
            "prompt": "go",
            "texts": ["a", "b"],
            "flag": True,
        }
    )
    assert found["state"].tolist() == [1.0, 2.5]
    assert found["grid"].dtype == np.int64
    assert found["image"].format == "jpeg"
    assert [found["images"][key].format for key in ("0", "1")] == ["png", "png"]
    assert found["observation"]["image"]["wrist"].format == "jpeg"
    assert found["observation"]["cam"].format == "png"
    assert (found["prompt"], found["texts"], found["flag"]) == ("go", ["a", "b"], True)


PLAIN = {
    "a list that is ragged": ({"state": [[1, 2], [3]]}, "state[1]"),
    "a text among numbers": ({"images": ["x"]}, "images[0]"),
    "a picture of another kind": ({"image": base64.b64encode(b"GIF89a" + bytes(80)).decode()}, "image"),
    "a picture that is no base64": ({"x": JPEG[:-4] + "???="}, "x"),
}


@pytest.mark.parametrize(("body", "path"), PLAIN.values(), ids=PLAIN)
def test_plain_bodies_are_refused_with_path_and_cure(body: dict[str, Any], path: str) -> None:
    _, told = refusal(body)
    assert 400 <= told.status < 500
    error = json.loads(told)["error"]
    assert error["path"] == path
    assert {"code", "message", "expected", "got", "cure", "retryable"} <= set(error)


def test_a_plain_answer_is_lists_and_times() -> None:
    chunk = ActionChunk(
        np.ones((2, 1), np.float32), extras={"value": np.float32(2), "mask": [np.zeros(2)], "why": {"a": "b"}}
    )
    assert json.loads(written("json", chunk)) == {
        "value": 2.0,
        "mask": [[0.0, 0.0]],
        "why": {"a": "b"},
        "actions": [[1.0], [1.0]],
        "server_timing": {"infer_ms": 0.5, "queue_ms": 0.1, "total_ms": 1.25},
    }


# Errors

ERRORS: list[tuple[PolicyserveError, int]] = [
    (WireError("x", "a", "b"), 400),
    (BadObservation("x", "a", "b", "do c"), 422),
    (Overloaded("full"), 503),
    (DeadlineExceeded("late"), 504),
    (PolicyFailed("ä\ud800\n" + "long " * 1000), 500),
]


@pytest.mark.parametrize(("error", "status"), ERRORS, ids=lambda one: getattr(one, "code", one))
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_tells_every_error(name: str, error: PolicyserveError, status: int) -> None:
    theirs = {"openvla": 200, "openvla_oft": 200, "xvla": 400, "gr00t_http": 500}.get(name, status)
    for asked, expected in ((Context(), theirs), (Context(has_plain_errors=True), status)):
        told = FAMILIES[name].write_refusal(error, "a traceback", asked)
        assert told.close_code is None
        assert isinstance(told.message, ReplyBody)
        assert told.message.status == expected
        ((_, text),) = told.message.headers
        assert text.isascii()
        assert text.isprintable()
        assert len(text) <= 1000
        json.loads(told.message)
    assert isinstance(FAMILIES[name].write_error(error), ErrorReply)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_family_writes_can_be_read_again(name: str) -> None:
    chunk = np.arange(6, dtype=np.float32).reshape(2, 3)
    family = FAMILIES[name]
    actions = chunk[0] if family.one_action else chunk
    reply = family.read_reply(family.write_reply(ActionChunk(actions), TIMING))
    assert np.array_equal(reply.actions, actions)
    with pytest.raises(WireError):
        family.read_reply(b'"error"')
    with pytest.raises(WireError):
        family.write_request({})


def test_a_body_is_read_as_a_recording_has_it() -> None:
    body = golden("openvla_rest", "act")
    request = FAMILIES["openvla"].read_request(body)
    assert list(request.observation) == ["images", "prompt"]
    with pytest.raises(WireError):
        FAMILIES["openvla"].read_request(b'{"instruction": "x"}')
