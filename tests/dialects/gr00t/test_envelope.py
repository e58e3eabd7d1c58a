"""What stands around an observation: endpoint, token, data."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from policyserve.core.errors import WireError
from policyserve.core.limits import DEFAULT_LIMITS
from policyserve.dialects.gr00t.envelope import (
    open_envelope,
    token_of,
    told_unknown,
    unknown_endpoint,
    unmarked,
    without_token,
)
from policyserve.dialects.gr00t.spellings import NPY
from tests.dialects.gr00t.golden import golden, index, unsafe


def packed(message: Any) -> bytes:
    made = msgpack.packb(message)
    assert isinstance(made, bytes)
    return made


@pytest.mark.parametrize("version", ["n15", "n16", "n17"])
def test_endpoint_and_token_of_each_golden_request_are_read(version: str) -> None:
    requests = {name: content for name, content in index(version).items() if not name.endswith("_reply")}
    assert requests
    for name, content in requests.items():
        envelope = open_envelope(golden(version, name))
        assert envelope.endpoint == content["endpoint"]
        assert envelope.token == token_of(golden(version, name)) == content.get("api_token", "")


def test_without_an_endpoint_actions_are_asked_for() -> None:
    assert open_envelope(packed({"data": {"a": 1}})) == ("get_action", "", {"a": 1})


def test_a_token_that_is_no_text_is_none() -> None:
    assert token_of(packed({"api_token": 3})) == ""
    assert token_of(packed([1])) == ""
    assert token_of(b"\xc1") == ""


@pytest.mark.parametrize("token", ["a", "go", "a-key-of-sixteen-letters", "k" * 300, "k" * 70_000, "é.*"])
def test_a_token_becomes_stars_and_nothing_else_does(token: str) -> None:
    message = memoryview(packed({"endpoint": "ping", "api_token": token, "data": {"task": f"go {token}"}}))
    hidden = without_token(message, token)
    assert open_envelope(hidden) == ("ping", "*" * len(token.encode()), {"task": f"go {token}"})
    assert len(hidden) == len(message)
    assert without_token(message, "") is message


@pytest.mark.parametrize("message", [b"", b"\xc1", packed([1]), packed({"endpoint": 3}), packed(1), b"\x81", "text"])
def test_what_is_no_request_is_refused(message: Any) -> None:
    with pytest.raises(WireError):
        open_envelope(message)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_an_archive_with_a_pickle_is_refused_by_its_first_bytes(kind: Any) -> None:
    with pytest.raises(WireError, match=r"an archive of torch.save\(\); it holds a pickle and is not opened"):
        open_envelope(kind(unsafe("torch_save_n10")))


def test_an_endpoint_that_is_not_known_is_told_as_the_original_tells_it() -> None:
    (told,) = index("n16")["unknown_endpoint_reply"].values()
    assert told_unknown("nope") == told
    assert len(told_unknown("x" * 1000)) < 100
    assert "get_action, reset" in str(unknown_endpoint("nope"))
    assert "no client may stop this server" in str(unknown_endpoint("kill"))


def test_arrays_are_counted() -> None:
    with pytest.raises(WireError, match="at most 200 arrays"):
        unmarked([{"nd": True, "type": "|u1", "shape": [0], "data": b""} for _ in range(201)], NPY, DEFAULT_LIMITS)
