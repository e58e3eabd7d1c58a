"""What /live.json says, from servers of ours and from anybody."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyserve.cli.watch.document import FORMAT, read_document
from policyserve.cli.watch.drawing import View, draw
from policyserve.core.errors import ConfigError
from policyserve.server import live_data
from tests.cli.watch.told import document, told

SOME_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def test_what_a_server_says_is_read() -> None:
    read = document()
    assert (read.policy.name, read.policy.is_ready, read.up_s) == ("kitchen_arm", True, 303.0)
    assert read.policy.facts == [("checkpoint", "runs/kitchen/step_30000"), ("device", "cpu")]
    assert (read.numbers.p50_ms.now, read.numbers.p99_ms.now) == (12.34, None)
    assert read.numbers.answers_per_s.history == [0.0, 10.0, 20.0, 40.0, 80.0]
    assert [one.dialect for one in read.sessions] == ["openpi", "wall_x", "vibe_rl"]
    assert [(one.code, one.session, one.count) for one in read.refusals] == [
        ("bad_observation", 9, 3),
        ("http_403", None, 1),
    ]


def test_the_servers_format_is_the_one_that_is_read() -> None:
    assert live_data.FORMAT == FORMAT


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("<html>", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "it is no policyserve server"),
        ('{"status": "ok"}', "it is no policyserve server"),
        (json.dumps(told(format=2)), "reads format 1 of /live.json, and the server has 2"),
    ],
)
def test_anything_else_is_an_error_of_one_line(body: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_document(body)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_strangers_text_becomes_one_printable_line() -> None:
    read = document(policy={"name": "a\x1b[2J\nb"}, sessions=[{"peer": "\u202ex"}])
    assert read.policy.name == "a\\x1b[2J\\nb"
    assert read.sessions[0].peer == "\\u202ex"


@settings(max_examples=50)
@given(part=st.sampled_from(["server", "policy", "numbers", "history", "sessions", "refusals"]), value=SOME_JSON)
def test_whatever_a_part_is_it_is_drawn_or_refused(part: str, value: Any) -> None:
    with suppress(ConfigError):
        draw(View(document(**{part: value}), "ws://robot"), 80, 24)


@settings(max_examples=50)
@given(part=st.sampled_from(["policy", "numbers", "history"]), data=st.data())
def test_whatever_a_field_is_it_is_drawn(part: str, data: st.DataObject) -> None:
    fields = told()[part]
    name = data.draw(st.sampled_from(sorted(fields)))
    draw(View(document(**{part: {**fields, name: data.draw(SOME_JSON)}}), "ws://robot"), 80, 24)
