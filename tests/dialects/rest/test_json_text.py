"""JSON of strangers: what passes, and what is refused before it costs anything."""

from __future__ import annotations

import json

import pytest

from policyserve.core.errors import WireError
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.dialects.rest.json_text import read_json


def test_what_json_can_say_is_read() -> None:
    value = {"a": [1, -2.5, True, False, None], "b": {"ä": "ü 😀"}, "c": "", "d": [], "e": 1e300, "f": (1 << 64) - 1}
    assert read_json(json.dumps(value).encode(), DEFAULT_LIMITS) == value
    assert read_json(json.dumps(value, ensure_ascii=False), DEFAULT_LIMITS) == value


REFUSED = {
    "nothing": (b"", "expected JSON"),
    "no JSON": (b"{'a': 1}", "expected JSON"),
    "half of it": (b'{"a": [1, 2', "expected JSON"),
    "more behind it": (b"{} {}", "expected JSON"),
    "NaN": (b'{"a": NaN}', "finite numbers"),
    "Infinity": (b'{"a": -Infinity}', "finite numbers"),
    "a number beyond float64": (b'{"a": 1e999}', "float64"),
    "a float of a million digits": (b'{"a": 0.' + b"1" * 1_000_000 + b"}", "float64"),
    "a whole number beyond 64 bits": (b'{"a": 18446744073709551616}', "64 bits"),
    "a whole number of a million digits": (b"[" + b"9" * 1_000_000 + b"]", "64 bits"),
    "a key twice": (b'{"a": {"b": 1, "b": 2}}', "'b' twice"),
    "a key that is long": (b'{"' + b"k" * 5000 + b'": 1}', "--max-key"),
    "half a letter": (b'{"a": ["x", "\\ud800"]}', "a[1]: expected a text of whole letters"),
    "half a letter in a key": (b'{"\\udfff": 1}', "whole letters"),
    "another encoding": ('{"a": 1}'.encode("utf-16"), "UTF-8"),
    "control characters in a text": (b'{"a": "\x01"}', "expected JSON"),
    "deep lists": (b"[" * 10 + b"]" * 10 + b" ", "levels of nesting"),
    "very deep lists": (b"[" * 2000 + b"]" * 2000, "levels of nesting"),
    "deep maps": (b'{"a":' * 10 + b"1" + b"}" * 10, "levels of nesting"),
    "a million lists": (b"[" * 1_000_000, "--max-items"),
    "a million numbers": (b"[" + b"0," * 1_000_000 + b"0]", "--max-items"),
    "a million entries": (b"{" + b'"a":0,' * 1_000_000 + b'"b":0}', "--max-items"),
}


@pytest.mark.parametrize(("body", "told"), REFUSED.values(), ids=REFUSED.keys())
def test_a_body_is_refused_in_words(body: bytes, told: str) -> None:
    with pytest.raises(WireError) as refused:
        read_json(body, DEFAULT_LIMITS)
    assert told in str(refused.value)
    assert len(str(refused.value)) < 400


def test_as_many_items_pass_as_the_limits_say() -> None:
    limits = WireLimits(max_items=100)
    assert read_json(json.dumps([0] * 90).encode(), limits) == [0] * 90
    with pytest.raises(WireError, match="--max-items"):
        read_json(json.dumps([0] * 102).encode(), limits)


def test_signs_are_counted_where_a_long_body_is_looked_at_in_slices() -> None:
    with pytest.raises(WireError, match="--max-items"):
        read_json(b'["' + b"A" * (1 << 20) + b'",' + b"0," * 20_000 + b"0]", DEFAULT_LIMITS)
