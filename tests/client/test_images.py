"""What a client does with pictures before it sends them, against real servers of ours and of others."""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from websockets.sync.server import ServerConnection

from policyserve import AsyncClient, Client
from policyserve.client import options
from policyserve.client.images import ImageSender
from policyserve.core.encoded_images import EncodedImage
from policyserve.core.errors import ConfigError, MissingDependency, RemoteError, WireError
from policyserve.core.messages import Reply, Timing
from policyserve.core.policy import ActionChunk, FunctionPolicy
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec
from policyserve.dialects import by_name
from policyserve.transforms import jpeg
from policyserve.transforms.fitting import resize_with_pad
from tests.jpegs import picture
from tests.plain_servers import plain_server
from tests.policies.frameworks import import_or_skip
from tests.server.live import serving

import_or_skip("simplejpeg")
import_or_skip("PIL.Image")

OPENPI, VIBE_RL, VLA_EVAL = by_name("openpi"), by_name("vibe_rl"), by_name("vla_eval")
SPEC = PolicySpec(
    "cameras",
    {
        "observation": {"image": ImageSpec(48, 64), "first": ImageSpec(layouts=("CHW",), optional=True)},
        "any": ImageSpec(dtypes=("uint8", "float"), optional=True),
        "map": ArraySpec((None, None, 3), "uint8", optional=True),
    },
    None,
    aliases={"cam": "observation/image"},
)
LARGE = picture(480, 640)


class Echo:
    """Answers the mean of each picture, and keeps what it saw."""

    def __init__(self) -> None:
        self.seen: list[Mapping[str, Any]] = []

    def __call__(self, observation: Mapping[str, Any]) -> Any:
        self.seen.append(observation)
        return np.zeros(2, np.float32)


@contextmanager
def cameras(spec: PolicySpec | None = SPEC) -> Iterator[tuple[str, Echo]]:
    echo = Echo()
    with serving(FunctionPolicy(echo, spec), isolate="thread") as live:
        live.ready()
        echo.seen.clear()  # zeros, for warming up
        yield f"ws://127.0.0.1:{live.port}", echo


def connected(way: str, metadata: Mapping[str, Any], **changes: Any) -> ImageSender:
    sender = ImageSender(way, 90, "ws://robot:1", **changes)
    sender.on_connected(OPENPI, metadata)
    return sender


TAKES = {"spec": SPEC.describe(), "encoded_images": ["jpeg"]}


@pytest.mark.parametrize("dialect", ["openpi", "wall_x", "vla_eval"])
def test_a_picture_goes_as_a_jpeg_in_the_size_that_the_server_names(dialect: str) -> None:
    shrunk = resize_with_pad(LARGE, 48, 64)
    expected = jpeg.decode(EncodedImage(jpeg.encode(shrunk, 75).data).check(""), "")
    before = LARGE.copy()
    with cameras() as (url, echo), Client(url, dialect=dialect, images="jpeg", jpeg_quality=75) as client:
        for observation in ({"observation": {"image": LARGE}}, {"observation/image": LARGE}, {"cam": LARGE}):
            client.infer(observation)
    for seen in echo.seen:
        np.testing.assert_array_equal(seen["observation"]["image"], expected)
        assert seen["observation"]["image"].flags.writeable
    np.testing.assert_array_equal(LARGE, before)


def test_the_asyncio_client_does_the_same() -> None:
    async def main(url: str) -> None:
        async with AsyncClient(url, images="jpeg") as client:
            await client.infer({"cam": LARGE})

    with cameras() as (url, echo):
        asyncio.run(main(url))
    assert not np.array_equal(echo.seen[0]["observation"]["image"], resize_with_pad(LARGE, 48, 64))
    assert np.abs(echo.seen[0]["observation"]["image"].astype(int) - resize_with_pad(LARGE, 48, 64)).mean() < 5


def test_channels_first_arrives_so() -> None:
    first = np.ascontiguousarray(LARGE.transpose(2, 0, 1))
    with cameras() as (url, echo), Client(url, images="jpeg") as client:
        client.infer({"cam": picture(), "observation/first": first})
    seen = echo.seen[0]["observation"]["first"]
    assert seen.shape == (3, 480, 640)
    assert np.abs(seen.astype(int) - first).mean() < 5


def test_what_is_no_picture_of_the_spec_stays_as_it_is() -> None:
    floats, table = np.random.default_rng(0).random((8, 9, 3)).astype(np.float32), picture()
    with cameras() as (url, echo), Client(url, images="jpeg") as client:
        client.infer({"cam": picture(), "any": floats, "map": table})
    np.testing.assert_array_equal(echo.seen[0]["any"], floats)
    np.testing.assert_array_equal(echo.seen[0]["map"], table)


def test_a_float_picture_where_bytes_are_taken_is_refused_with_the_cure() -> None:
    with cameras() as (url, echo), Client(url, images="jpeg") as client:
        with pytest.raises(WireError) as caught:
            client.infer({"observation": {"image": LARGE / np.float32(255)}})
        told = "observation/image: expected uint8 image HWC, 48 x 64, got float32 (480, 640, 3); send uint8 0 … 255"
        assert str(caught.value) == told
        client.infer({"cam": picture()})  # the connection is as good as before
        assert (client.sessions_opened, len(echo.seen)) == (1, 1)


def test_a_smaller_picture_is_not_blown_up_and_the_server_says_what_it_wants() -> None:
    told = r"expected uint8 image HWC, 48 x 64, got a JPEG of uint8 \(24, 32, 3\)"
    with cameras() as (url, _), Client(url, images="jpeg") as client, pytest.raises(RemoteError, match=told):
        client.infer({"cam": picture(24, 32)})


def test_without_a_spec_what_looks_like_a_camera_picture_is_one() -> None:
    small = np.random.default_rng(0).integers(0, 255, (8, 9, 3)).astype(np.uint8)
    with cameras(None) as (url, echo), Client(url, images="jpeg") as client:
        client.infer({"a": {"b": LARGE}, "small": small, "first": LARGE.transpose(2, 0, 1)})
    assert echo.seen[0]["a"]["b"].shape == (480, 640, 3)
    assert not np.array_equal(echo.seen[0]["a"]["b"], LARGE)
    np.testing.assert_array_equal(echo.seen[0]["small"], small)
    np.testing.assert_array_equal(echo.seen[0]["first"], LARGE.transpose(2, 0, 1))


def test_a_client_that_sends_raw_says_and_sends_what_it_always_did() -> None:
    heads, frames = [], []

    def handle(connection: ServerConnection) -> None:
        assert connection.request is not None
        heads.append(connection.request.headers)
        connection.send(OPENPI.write_request(TAKES))
        frames.append(connection.recv())
        connection.send(OPENPI.write_reply(ActionChunk(np.zeros(2)), Timing(0, 0, 1)))

    observation = {"observation": {"image": LARGE}}
    with plain_server(handle) as port, Client(f"ws://127.0.0.1:{port}") as client:
        client.infer(observation)
    assert "Policyserve-Images" not in heads[0]
    assert frames == [OPENPI.write_request(observation)]


@pytest.mark.parametrize(
    "greeting", [{}, {"spec": SPEC.describe()}, {"encoded_images": "jpeg"}, {"spec": {"observation": 3}}]
)
def test_a_server_that_says_nothing_of_jpegs_never_gets_one_and_the_log_says_so_once(
    greeting: Mapping[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    heads, frames = [], []

    def handle(connection: ServerConnection) -> None:
        assert connection.request is not None
        heads.append(connection.request.headers)
        connection.send(OPENPI.write_request(greeting))
        frames.append(connection.recv())
        connection.send(OPENPI.write_reply(ActionChunk(np.zeros(2)), Timing(0, 0, 1)))

    with plain_server(handle) as port, Client(f"ws://127.0.0.1:{port}", images="jpeg") as client:
        for _ in range(2):
            client.infer({"image": LARGE})
            client.reset()
    assert frames[:2] == [OPENPI.write_request({"image": LARGE})] * 2
    assert heads[0]["Policyserve-Images"] == "jpeg"
    told = [record.getMessage() for record in caplog.records if "JPEG" in record.getMessage()]
    assert told == [f"ws://127.0.0.1:{port}/openpi does not say that it takes JPEG: images go raw"]


def test_a_server_of_vla_evals_gets_jpegs_unasked_and_one_of_ours_that_cannot_decode_them_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sent: list[np.ndarray | EncodedImage] = []
    for answer in (
        {"harness_version": "0.8.0"},
        {"harness_version": "0.8.0", "policyserve": "1", "spec": SPEC.describe()},
    ):
        sender = ImageSender("jpeg", 90, "ws://robot:1")
        sender.on_connected(VLA_EVAL, answer)
        prepared = sender.prepared({"cam": picture()})
        sent.append(VLA_EVAL.read_request(VLA_EVAL.write_request(prepared)).observation["cam"])
    assert [type(one) for one in sent] == [EncodedImage, np.ndarray]
    (told,) = [record.getMessage() for record in caplog.records]
    assert told == "ws://robot:1 does not say that it takes JPEG: images go raw"


def test_auto_decides_where_the_server_does_not_say_what_it_spent() -> None:
    now = [0.0]
    sender = ImageSender("auto", 90, "ws://robot:1", clock=lambda: now[0])
    sender.on_connected(VLA_EVAL, {})
    kinds = []
    for _ in range(9):
        kinds.append(type(sender.prepared({"cam": LARGE})["cam"]))
        now[0] += 0.01 if kinds[-1] is EncodedImage else 0.02
        sender.answered(Reply(np.zeros(2), {}, {}))
    assert kinds[:6].count(np.ndarray) == 3
    assert set(kinds[6:]) == {EncodedImage}


def test_greetings_say_it_to_those_alone_who_ask() -> None:
    with cameras() as (url, _):
        with Client(url) as client:
            assert "encoded_images" not in client.metadata
        for way in ("jpeg", "auto"):
            with Client(url, images=way) as client:  # type: ignore[arg-type]
                assert client.metadata["encoded_images"] == ["jpeg"]


def test_auto_tries_both_ways_and_keeps_the_quicker_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for raw_s, expected in ((0.3, EncodedImage), (0.001, np.ndarray)):
        caplog.clear()
        now = [0.0]
        sender = connected("auto", TAKES, clock=lambda now=now: now[0])
        kinds = []
        for _ in range(9):
            sent = sender.prepared({"cam": LARGE})["cam"]
            kinds.append(type(sent))
            now[0] += 0.01 if isinstance(sent, EncodedImage) else raw_s
            sender.answered(Reply(np.zeros(2), {"total_ms": 0.5}, {}))
        assert set(kinds[:6]) == {EncodedImage, np.ndarray}
        assert set(kinds[6:]) == {expected}
        (told,) = [record.getMessage() for record in caplog.records]
        way = "as JPEG" if expected is EncodedImage else "raw"
        raw_ms = raw_s * 1e3 - 0.5
        assert told == (
            f"ws://robot:1: images go {way} from now on: a request takes 9.5 ms as JPEG, coding included, "
            f"and {raw_ms:.1f} ms raw"
        )


def test_what_the_server_spends_on_its_policy_does_not_count() -> None:
    now = [0.0]
    sender = connected("auto", TAKES, clock=lambda: now[0])
    for _ in range(6):
        is_encoded = isinstance(sender.prepared({"cam": LARGE})["cam"], EncodedImage)
        total_s = 5.0 if is_encoded else 0.0  # a policy that was busy with the ones that were encoded
        now[0] += total_s + (0.01 if is_encoded else 0.02)
        sender.answered(Reply(np.zeros(2), {"total_ms": total_s * 1e3}, {}))
    assert isinstance(sender.prepared({"cam": LARGE})["cam"], EncodedImage)


def test_requests_without_a_picture_decide_nothing() -> None:
    sender = connected("auto", TAKES)
    for _ in range(20):
        sender.prepared({"map": np.zeros(3)})
        sender.answered(Reply(np.zeros(2), {"total_ms": 0.1}, {}))
    kinds = set()
    for _ in range(6):
        kinds.add(type(sender.prepared({"cam": LARGE})["cam"]))
        sender.answered(Reply(np.zeros(2), {"total_ms": 0.0}, {}))
    assert kinds == {EncodedImage, np.ndarray}


def test_auto_without_the_package_sends_raw_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(jpeg, "find_spec", lambda name: None)
    sender = connected("auto", TAKES)
    assert isinstance(sender.prepared({"cam": picture()})["cam"], np.ndarray)
    (told,) = [record.getMessage() for record in caplog.records]
    assert told == "images go raw: simplejpeg is not installed; run: pip install 'policyserve[jpeg]'"
    with pytest.raises(MissingDependency, match="simplejpeg is not installed"):
        Client("ws://robot:1", images="jpeg")


@pytest.mark.parametrize("make", [Client, AsyncClient])
def test_arguments_that_cannot_be_are_refused_by_name(make: Any) -> None:
    for images in ("png", None, True, 90):
        with pytest.raises(ConfigError, match="images: expected 'raw', 'jpeg', 'auto', got"):
            make("ws://robot:1", images=images)
    for quality in (0, 101, 90.0, True, "90", None):
        with pytest.raises(ConfigError, match="jpeg_quality: expected 1 … 100, got"):
            make("ws://robot:1", images="jpeg", jpeg_quality=quality)
    with pytest.raises(ConfigError, match="images: expected 'raw' for vibe_rl, whose messages carry no JPEG"):
        make("ws://robot:1", dialect="vibe_rl", images="jpeg")


def test_vibe_rl_with_auto_goes_raw(caplog: pytest.LogCaptureFixture) -> None:
    with serving(lambda observation: np.zeros(2)) as live:
        live.ready()
        with Client(f"ws://127.0.0.1:{live.port}", dialect="vibe_rl", images="auto") as client:
            client.infer({"obs": LARGE})
    assert "vibe_rl's messages carry no JPEG: images go raw" in [record.getMessage() for record in caplog.records]


def test_a_pickled_client_sends_pictures_in_the_same_way() -> None:
    with cameras() as (url, echo):
        client = pickle.loads(pickle.dumps(Client(url, images="jpeg", jpeg_quality=50)))
        with client:
            client.infer({"cam": LARGE})
    assert not np.array_equal(echo.seen[0]["observation"]["image"], resize_with_pad(LARGE, 48, 64))


def test_a_client_that_sends_raw_makes_no_sender() -> None:
    assert options.image_sender(options.ClientOptions("ws://robot:1")) is None


def test_a_lost_connection_is_replaced_and_the_next_server_is_asked_again() -> None:
    with cameras() as (url, echo), Client(url, images="jpeg") as client:
        client.infer({"cam": LARGE})
        client.close()
        client.infer({"cam": LARGE})
        assert client.sessions_opened == 2
    np.testing.assert_array_equal(echo.seen[0]["observation"]["image"], echo.seen[1]["observation"]["image"])
