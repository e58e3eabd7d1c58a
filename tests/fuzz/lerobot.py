"""LeRobot's messages: pickles of the opcodes that its reader knows in any order, and good ones with changes."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np

from policyserve.core.errors import BadObservation, WireError
from policyserve.core.messages import Control, Request
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextSpec
from policyserve.dialects.lerobot.dialect import LeRobot
from policyserve.dialects.lerobot.messages import Parts, read_setup_data
from policyserve.dialects.lerobot.setup import read_setup
from tests.dialects.lerobot.written import features, seen, setup
from tests.fuzz.choices import Choices

_SPEC = PolicySpec("fuzzed", {"state": ArraySpec((3,)), "images/top": ImageSpec(2, 3), "prompt": TextSpec()}, None)
_TOP: dict[str, Any] = {"top": np.zeros((2, 3, 3), np.uint8), "task": "fold"}
_SEEDS = (
    *(seen(1.0, 2.0, 3.0, protocol=protocol, **_TOP) for protocol in (2, 3, 4, 5)),
    setup("fuzzed", features(top=(2, 3, 3))),
)
_SETUP = read_setup(_SEEDS[-1])


def _text(text: str) -> bytes:
    return b"X" + len(text).to_bytes(4, "little") + text.encode()


_PIECES = (
    *(b"(", b")", b"]", b"}", b"N", b"\x88", b"\x89", b"t", b"\x85", b"\x86", b"\x87", b"a", b"e", b"s", b"u", b"\x94"),
    *(b"R", b"\x81", b"b", b"\x93", b"h\x00", b"h\x01", b"q\x00", b"q\x01", b"K\x03", b"M\x00\x01"),
    *(b"J\xff\xff\xff\xff", b"\x8a\x09" + b"\xff" * 9, b"G" + bytes(8), b"G\x7f\xf0" + bytes(6), b"C\x04abcd"),
    *(b"\x8c\x01|", b"\x8c\x02u1"),
    *(_text(name) for name in ("timestamp", "timestep", "observation", "task", "<", "F", "latin1", "lerobot_features")),
    *(b"cx\nTimedObservation\n", b"cx\nRemotePolicyConfig\n", b"cx\nPolicyFeature\n", b"cx\nFeatureType\n"),
    *(b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"c_codecs\nencode\n"),
    *(b"cnumpy.core.multiarray\nscalar\n", b"cnumpy.core.numeric\n_frombuffer\n", b"cos\nsystem\n", b"."),
    *(b"\x80\x04", b"\x95" + bytes(8), b"\x96\x04" + bytes(7) + b"abcd"),
    *(b"0", b"2", b"Q", b"i", b"o", b"\x82\x01", b"\x97"),
)  # fmt: skip


def check_pickles(data: bytes) -> None:
    """A pickle that may be anything is a message whose observation is checked, or a refusal."""
    choices = Choices(data)
    pickled = _pickle(choices)
    for dialect in (LeRobot(), LeRobot(_SETUP)):
        with suppress(WireError, BadObservation):
            heard = dialect.read_message(memoryview(bytearray(pickled)))
            assert isinstance(heard, (Request, Control))
            if isinstance(heard, Request):
                _SPEC.validate(heard.observation)
        with suppress(WireError):
            dialect.read_reply(pickled)
    with suppress(WireError):
        made = read_setup(pickled)
        made.example()
    with suppress(WireError):
        read_setup_data(pickled)
    parts = Parts(64)
    for piece in choices.pieces(pickled[:200]):
        with suppress(WireError):
            parts.add(piece)
        assert len(parts.data) <= 64


def _pickle(choices: Choices) -> bytes:
    if choices.chance(8):
        return choices.rest()
    if choices.chance(3):
        return choices.scribbled(choices.pick(_SEEDS))
    made = [b"\x80\x04"]
    while not choices.is_used_up and len(made) < 200:
        made.append(choices.pick(_PIECES))
    return b"".join([*made, b"."])
