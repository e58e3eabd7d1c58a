"""What a client does with the camera pictures of its observations before it sends them: shrinks and encodes them.

Rule 1: a server that has not said that it takes JPEGs never gets one, but for vla-eval's own, which all do.
Rule 2: where the server names a picture's size, no larger one is sent.
Rule 3: the caller's observation and its arrays stay as they are.

"auto" tries both ways, three requests each, and keeps to the one whose quickest took less: from the caller's call to
the reply, without what the server says it spent. Decoding, which the server spends, counts as much as encoding did.
A server that does not say what it spent is taken to spend the same either way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np

from policyserve.core.arrays import Array, describe
from policyserve.core.dialect import Dialect, carries_jpeg, takes_jpeg
from policyserve.core.encoded_images import JPEG, EncodedImage
from policyserve.core.errors import PolicyserveError, WireError
from policyserve.core.examples import spec_of
from policyserve.core.leaf_specs import ImageSpec, LeafSpec
from policyserve.core.log import Log
from policyserve.core.messages import Observation, Reply
from policyserve.core.spec import PolicySpec
from policyserve.transforms import jpeg
from policyserve.transforms.fitting import resize_with_pad

log = Log(__name__)

_COLOURED = frozenset(("HWC", "CHW"))  # layouts of pictures that a JPEG can carry
_TRIES = 3  # requests of each way, before "auto" decides
_LEAST_SIDE = 32  # pixels: what is smaller, where no spec says that it is a picture, may be anything


class ImageSender:
    """One client's way with pictures, over all its connections. One thread at a time.

    way: "jpeg" or "auto". url: the server's, for the log. clock: seconds.
    """

    def __init__(self, way: str, quality: int, url: str, clock: Callable[[], float] = time.perf_counter) -> None:
        self._quality = quality
        self._url = url
        self._clock = clock
        self._choice = _Choice(decided=JPEG if way == JPEG else None)
        self._can_encode = jpeg.is_installed()
        jpeg.load()
        self._is_taken = False  # JPEGs are, by the server of now
        self._spec: PolicySpec | None = None
        self._told: set[str] = set()
        self._request = _Request(0.0)

    def on_connected(self, dialect: Dialect, metadata: Mapping[str, Any]) -> None:
        """A connection is open. metadata: its greeting; empty where there is none."""
        self._spec = _spec_told(metadata)
        self._is_taken = carries_jpeg(dialect) and takes_jpeg(dialect, metadata)
        if not carries_jpeg(dialect):
            self._warn(f"{dialect.name}'s messages carry no JPEG: images go raw")
        elif not self._is_taken:
            self._warn(f"{self._url} does not say that it takes JPEG: images go raw")
        elif not self._can_encode:
            self._warn("images go raw: simplejpeg is not installed; run: pip install 'policyserve[jpeg]'")

    def prepared(self, observation: Observation) -> Observation:
        """What to send for an observation; raises WireError with the path of a picture that has to be uint8."""
        encodes = self._is_taken and self._can_encode
        self._request = _Request(self._clock(), is_jpeg=encodes and self._choice.next == JPEG, may_be_jpeg=encodes)
        return self._prepared(observation, "") if isinstance(observation, Mapping) else observation

    def answered(self, reply: Reply) -> None:
        """The reply of the request that was prepared last came."""
        request = self._request
        server_ms = reply.timing.get("total_ms", reply.timing.get("latency_ms", 0.0))
        if self._choice.decided is not None or not request.pictures or not isinstance(server_ms, (int, float)):
            return
        decoding_s = request.encoding_s
        took_s = self._clock() - request.began_at - server_ms / 1e3 + decoding_s
        told = self._choice.note(request.is_jpeg, took_s)
        if told:
            log.info("%s: images go %s from now on: %s", self._url, self._choice.told, told)

    def _prepared(self, value: Any, path: str) -> Any:
        if isinstance(value, Mapping):
            inner = cast(Observation, value).items()
            return {key: self._prepared(one, f"{path}/{key}" if path else str(key)) for key, one in inner}
        return self._picture(value, path) if isinstance(value, np.ndarray) else value

    def _picture(self, value: Array, path: str) -> Any:
        leaf = self._leaf(path)
        if not isinstance(leaf, ImageSpec):
            is_picture = self._spec is None and _looks_like_picture(value)
            return self._encoded(value) if is_picture else value
        takes_jpeg = not _COLOURED.isdisjoint(leaf.layouts) and "uint8" in leaf.dtypes
        if value.dtype.kind == "f" and takes_jpeg and self._request.may_be_jpeg and not _takes_floats(leaf, value):
            raise WireError(path, str(leaf), describe(value.dtype, value.shape), "send uint8 0 … 255")
        if "HWC" in leaf.layouts and _is_hwc(value):
            return self._encoded(_shrunk(value, leaf)) if takes_jpeg else value
        if not takes_jpeg or "CHW" not in leaf.layouts or not _is_hwc(value.T):
            return value
        shrunk = _shrunk(value.transpose(1, 2, 0), leaf)
        sent = self._encoded(shrunk)
        return sent if isinstance(sent, EncodedImage) else np.ascontiguousarray(shrunk.transpose(2, 0, 1))

    def _encoded(self, picture: Array) -> Array | EncodedImage:
        if not self._request.may_be_jpeg or max(picture.shape) > jpeg.MOST_SIDE:
            return picture
        self._request.pictures += 1
        if not self._request.is_jpeg:
            return picture
        began_at = self._clock()
        made = jpeg.encode(picture, self._quality)
        self._request.encoding_s += self._clock() - began_at
        return made

    def _leaf(self, path: str) -> LeafSpec | None:
        if self._spec is None:
            return None
        return self._spec.leaves.get(self._spec.aliases.get(path, path))

    def _warn(self, text: str) -> None:
        """Once: a client that connects anew says nothing new."""
        if text not in self._told:
            self._told.add(text)
            log.warning("%s", text)


class _Request:
    """The request that was prepared last."""

    __slots__ = ("began_at", "encoding_s", "is_jpeg", "may_be_jpeg", "pictures")

    def __init__(self, began_at: float, *, is_jpeg: bool = False, may_be_jpeg: bool = False) -> None:
        self.began_at = began_at
        self.is_jpeg = is_jpeg
        self.may_be_jpeg = may_be_jpeg
        self.encoding_s = 0.0
        self.pictures = 0  # that are JPEGs, or could be


class _Choice:
    """Which way pictures go. decided: JPEG or "raw"; None while both are tried."""

    def __init__(self, decided: str | None) -> None:
        self.decided = decided
        self._took: dict[bool, list[float]] = {True: [], False: []}  # seconds, of JPEGs and of raw pictures

    @property
    def next(self) -> str:
        """Which way the next request goes."""
        if self.decided is not None:
            return self.decided
        return JPEG if len(self._took[True]) <= len(self._took[False]) else "raw"

    @property
    def told(self) -> str:
        """The decision in words."""
        return "as JPEG" if self.decided == JPEG else "raw"

    def note(self, is_jpeg: bool, seconds: float) -> str:
        """How long a request took on its way; returns what was measured once that decides, else nothing."""
        self._took[is_jpeg].append(seconds)
        if min(map(len, self._took.values())) < _TRIES:
            return ""
        encoded, raw = min(self._took[True]), min(self._took[False])
        self.decided = JPEG if encoded < raw else "raw"
        return f"a request takes {encoded * 1e3:.1f} ms as JPEG, coding included, and {raw * 1e3:.1f} ms raw"


def _spec_told(metadata: Mapping[str, Any]) -> PolicySpec | None:
    """The spec of a greeting; None where it has none, or one that cannot be read: then nothing is shrunk."""
    described = metadata.get("spec")
    if not isinstance(described, Mapping):
        return None
    try:
        spec = spec_of(described)
    except PolicyserveError:
        return None
    return spec if spec.observation is not None else None


def _takes_floats(leaf: ImageSpec, value: Array) -> bool:
    return "float" in leaf.dtypes or value.dtype.name in leaf.dtypes


def _is_hwc(value: Array) -> bool:
    return value.dtype == np.uint8 and value.ndim == 3 and value.shape[-1] == 3 and value.size > 0


def _looks_like_picture(value: Array) -> bool:
    return _is_hwc(value) and min(value.shape[:2]) >= _LEAST_SIDE


def _shrunk(picture: Array, leaf: ImageSpec) -> Array:
    """A picture that is larger than the server wants it, in that size; one that is not as it is."""
    height, width = leaf.height, leaf.width
    if height is None or width is None or (picture.shape[0] <= height and picture.shape[1] <= width):
        return picture
    return resize_with_pad(picture, height, width)
