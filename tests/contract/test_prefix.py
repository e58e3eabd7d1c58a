"""What real-time chunking adds to the wire: nothing to plain traffic, little to its own, and no decoding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from policyserve import Client
from policyserve.core.arrays import Placed
from policyserve.core.dialect import ZeroCopyDialect
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.core.messages import Message, Request, Timing
from policyserve.core.policy import ActionChunk, PolicyInput
from policyserve.core.reading import RequestReader
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextSpec
from policyserve.dialects import by_name
from policyserve.dialects.openpi import OpenPI
from policyserve.engine.answering import run_batch
from policyserve.policies.demo_flow import FlowDemo, Scene
from policyserve.policies.prefix import read_prefix, rtc_leaves
from policyserve.policies.rtc import Rtc
from tests.contract.clients import Make
from tests.server.live import serving

DIALECTS = ("openpi", "wall_x", "vibe_rl")
H, D = 50, 7
ARM = {"image": ImageSpec(24, 32), "state": ArraySpec((D,)), "prompt": TextSpec(default="go")}
SPEC = PolicySpec("arm", {**ARM, **rtc_leaves(H, D)}, ArraySpec((D,)), horizon=H)
MOST_BYTES = 1700
TIMING = Timing(queue_ms=0.1, infer_ms=0.5, total_ms=1.25)


class Counting(OpenPI):
    """A dialect that counts what it was asked to decode."""

    def __init__(self, dialect: ZeroCopyDialect) -> None:
        self._dialect = dialect
        self.read = 0

    def read_request(
        self, message: Message, limits: WireLimits = DEFAULT_LIMITS, placed: list[Placed] | None = None
    ) -> Request:
        self.read += 1
        return self._dialect.read_request(message, limits, placed)


def plain(random: np.random.Generator) -> dict[str, Any]:
    return {
        "image": random.integers(0, 256, (24, 32, 3)).astype(np.uint8),
        "state": random.standard_normal(D).astype(np.float32),
    }


def prefixed(random: np.random.Generator) -> dict[str, Any]:
    known = int(random.integers(0, H + 1))
    counts = {"rtc/prev_length": known, "rtc/inference_delay": int(random.integers(0, 20))}
    rows = random.standard_normal((H, D)).astype(np.float32)
    return {
        **plain(random),
        "rtc/prev_chunk": rows,
        **{key: np.array(value, np.int32) for key, value in counts.items()},
    }


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """As openpi's clients may have it: a map `rtc`."""
    inside = {key.partition("/")[2]: value for key, value in flat.items() if key.startswith("rtc/")}
    return {**{key: value for key, value in flat.items() if not key.startswith("rtc/")}, "rtc": inside}


@pytest.mark.parametrize("name", DIALECTS)
def test_a_request_grows_by_little(name: str) -> None:
    random, dialect = np.random.default_rng(0), by_name(name)
    without, with_prefix = plain(random), prefixed(random)
    sizes = [len(dialect.write_request(one)) for one in (without, {**with_prefix, **without})]
    assert sizes[1] - sizes[0] <= MOST_BYTES


@pytest.mark.parametrize(
    ("name", "is_nested"), [*((name, False) for name in DIALECTS), ("openpi", True), ("wall_x", True)]
)
def test_repeated_requests_are_read_by_the_layout_that_was_learned(name: str, is_nested: bool) -> None:
    random, dialect = np.random.default_rng(0), by_name(name)
    assert isinstance(dialect, ZeroCopyDialect)
    counting = Counting(dialect)
    reader = RequestReader(counting, SPEC)
    for _ in range(12):
        sent = prefixed(random)
        message = dialect.write_request(nested(sent) if is_nested else sent)
        prefix = read_prefix(reader.read(memoryview(bytearray(message))).observation)
        assert prefix is not None
        known = int(sent["rtc/prev_length"])
        assert (prefix.known, prefix.delay) == (known, min(known, int(sent["rtc/inference_delay"])))
        np.testing.assert_array_equal(prefix.rows[:known], sent["rtc/prev_chunk"][:known])
    assert counting.read == 3  # the first two, and the second once more to learn its layout


def test_numbers_of_pythons_are_read_anew_each_time_and_right() -> None:
    """Their bytes decide what is read, so that a layout would be of one request alone."""
    random, dialect = np.random.default_rng(0), by_name("openpi")
    reader = RequestReader(dialect, SPEC)
    for known in (3, 4, 5, 6):
        sent = {**prefixed(random), "rtc/prev_length": known, "rtc/inference_delay": 2}
        prefix = read_prefix(reader.read(memoryview(bytearray(dialect.write_request(sent)))).observation)
        assert prefix is not None
        assert prefix.known == known


@pytest.mark.parametrize("name", DIALECTS)
def test_plain_requests_have_the_same_replies_to_the_byte(name: str) -> None:
    scene, dialect, written = Scene(500), by_name(name), []
    for how in (None, Rtc()):
        policy = FlowDemo(how)
        seen = policy.spec.validate(scene.observation(60, scene.start)).observation
        (chunk,) = run_batch(policy, (PolicyInput(seen),))
        assert isinstance(chunk, ActionChunk)
        reply: Any = dialect.write_reply(chunk, TIMING)
        written.append(bytes(reply))
    assert written[0] == written[1]


@pytest.mark.parametrize("name", DIALECTS)
def test_both_clients_send_one_and_a_policy_without_drops_it(make: Make, name: str) -> None:
    scene = Scene(500)
    seen = dict(scene.observation(60, scene.start))
    rows = np.zeros((50, 2), np.float32)
    sent = {
        **seen,
        "rtc/prev_chunk": rows,
        "rtc/prev_length": np.array(40, np.int32),
        "rtc/inference_delay": np.array(6, np.int32),
    }
    for how in (Rtc("inpaint"), None):
        with serving(FlowDemo(how)) as live:
            client = make(live.url(""), dialect=name)
            reply = client.infer(sent)
            assert (np.abs(reply.actions[:6]).max() < 1e-6) == (how is not None)
            assert ("rtc" in reply) == (how is not None and name != "vibe_rl")


def test_a_policy_without_it_is_greeted_as_before() -> None:
    spec = PolicySpec("arm", ARM, ArraySpec((D,)), horizon=H)
    assert "rtc" not in str(spec.describe())
    with serving(FlowDemo(None)) as live, Client(live.url("/openpi")) as client:
        scene = Scene(10)
        client.infer(dict(scene.observation(0, scene.start)))
        assert "rtc" not in client.metadata
