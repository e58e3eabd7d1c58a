"""Reads one peer's messages, and learns what they have in common, so that most of them need no decoding.

The first messages are decoded; after two of the same size their Layout (core/layouts.py) is learned, which then reads
the next ones. A server's readers do so for requests, a client's for replies, where the floats of the timing differ too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from policyserve.core.arrays import Placed
from policyserve.core.dialect import Dialect, ZeroCopyDialect
from policyserve.core.encoded_images import check_together
from policyserve.core.errors import PolicyserveError
from policyserve.core.footprint import footprint
from policyserve.core.layouts import ArrayHole, Hole, Layout, hole_of, template_of
from policyserve.core.leaf_specs import ArraySpec
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.core.messages import Message, Observation, Reply, Request
from policyserve.core.spec import PolicySpec, ValidObservation, look_up


class Fitting(Protocol):
    """Makes the observations of a dialect those of a spec."""

    @property
    def moves(self) -> Sequence[object]:
        """What it did with the newest one, to be told."""
        ...

    def __call__(self, observation: Observation, /) -> Observation:
        """The observation under the spec's names; raises BadObservation. It looks at keys, never at numbers."""
        ...


# None: observations are taken as they are.
Fit: TypeAlias = Callable[[Dialect, PolicySpec], "Fitting | None"]

_TRIES = 4  # layouts that are learned and never used before we stop
_HITS_PER_TRY = 64  # so many messages read by a layout allow one attempt more
_MAX_ITEMS = 2048  # of a message whose layout is learned: that takes three times as long as reading it
_MAX_AROUND = 1 << 14  # bytes around the arrays, which a layout keeps as long as the session lasts


class RequestReader:
    """Reads one session's requests for one policy: by the layout of the messages before where it fits, else decoded.

    What it has learned holds for this dialect and this spec alone. A session that gets another of them takes another
    reader. fit: makes observations the spec's; it may look at which keys exist, never at a number.
    """

    def __init__(
        self, dialect: Dialect, spec: PolicySpec, limits: WireLimits = DEFAULT_LIMITS, fit: Fitting | None = None
    ) -> None:
        self._dialect = dialect
        self._spec = spec
        self._limits = limits
        self._fit = fit
        self._learns = dialect if isinstance(dialect, ZeroCopyDialect) else None
        self._layout: RequestLayout | None = None
        self._worth = _Worth()

    def read(self, message: Message) -> ValidObservation:
        """The observation, as the policy gets it; raises WireError and BadObservation."""
        if self._layout is not None and isinstance(message, memoryview):
            valid = self._layout.read(message)
            if valid is not None:
                self._worth.hits += 1
                return valid
        valid = self.valid(self._dialect.read_request(message, self._limits))
        if self._learns is None or not isinstance(message, memoryview) or valid.footprint > len(message) + _MAX_AROUND:
            return valid  # of the last: texts and numbers that take more than their bytes, and would be made once more
        if self._worth.is_another(len(message)):
            self._layout = learn_layout(self._learns, self._spec, message, self._limits, valid.footprint, self._fit)
        return valid

    def valid(self, request: Request) -> ValidObservation:
        """A request's observation, as the policy gets it; raises WireError and BadObservation."""
        request = _fitted(request, self._fit)
        valid = self._spec.validate(request.observation, self._limits)
        observation = _unwrapped(request, valid, self._spec)
        is_encoded = check_together(observation, self._limits)
        return ValidObservation(observation, valid.batch_size, valid.unknown, footprint(observation), is_encoded)


class ReplyReader:
    """Reads one connection's replies, as a RequestReader its requests."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._learns = dialect if isinstance(dialect, ZeroCopyDialect) else None
        self._layout: Layout | None = None
        self._worth = _Worth()

    def read(self, message: Message) -> Reply:
        """The reply; raises RemoteError and WireError."""
        if self._learns is None or not isinstance(message, memoryview):
            return self._dialect.read_reply(message)
        if self._layout is not None:
            fields = self._layout.read(message)
            if fields is not None:
                self._worth.hits += 1
                return self._learns.reply_of(fields)
        reply = self._dialect.read_reply(message)
        if self._worth.is_another(len(message)):
            self._layout = learn_reply_layout(self._learns, message)
        return reply


class _Worth:
    """Decides whether a layout is worth learning, so that messages that differ each time are not learned for ever."""

    __slots__ = ("_last_size", "_tries", "hits")

    def __init__(self) -> None:
        self.hits = 0  # messages read by the layout since it was learned
        self._last_size = -1
        self._tries = _TRIES

    def is_another(self, size: int) -> bool:
        """Whether to learn the layout of a message that had to be decoded; counts it as learned if so."""
        last_size, self._last_size = self._last_size, size
        if last_size != size:  # messages of different sizes have different layouts
            return False
        self._tries = min(self._tries + self.hits // _HITS_PER_TRY, _TRIES)
        self.hits = 0
        if self._tries == 0:
            return False
        self._tries -= 1
        return True


class RequestLayout:
    """The layout of a session's requests."""

    def __init__(self, layout: Layout, valid: ValidObservation) -> None:
        self._layout = layout
        self._rest = valid[1:]

    def read(self, message: memoryview) -> ValidObservation | None:
        """The observation of a message of this layout; None for any other. Raises BadObservation as validate() does."""
        observation = self._layout.read(message)
        if observation is None:
            return None
        return ValidObservation(observation, *self._rest)


def learn_layout(
    dialect: ZeroCopyDialect,
    spec: PolicySpec,
    message: memoryview,
    limits: WireLimits = DEFAULT_LIMITS,
    size: int = 0,
    fit: Fitting | None = None,
) -> RequestLayout | None:
    """The layout of a good request, whose footprint is `size`; None if it is not worth it. fit: a RequestReader's.

    It must have an array that stands in it as raw bytes, few items, and little besides its arrays.
    """
    placed: list[Placed] = []
    try:
        request = _fitted(dialect.read_request(message, limits.with_items(_MAX_ITEMS), placed), fit)
        valid = spec.validate(request.observation, limits)
    except PolicyserveError:
        return None
    # Only arrays become holes. A number must stay the same, since validate() may have decided by its value.
    holes: dict[int, Hole] = {id(one.value): hole_of(one) for one in placed if isinstance(one.value, np.ndarray)}
    for path, leaf in spec.leaves.items():
        raw, cast = spec.look_up(request.observation, path), look_up(valid.observation, path)
        hole = holes.get(id(raw))
        if raw is not cast and isinstance(hole, ArrayHole) and isinstance(leaf, ArraySpec):
            holes[id(cast)] = hole.cast_by(leaf, path)
    used: list[Hole] = []
    template = template_of(_unwrapped(request, valid, spec), holes, used)
    # An array that the spec does not know is dropped, so its bytes may differ. A value that is found neither in the
    # template nor in the request was made into something else (a scalar, say), so its bytes must stay the same.
    dropped: list[Hole] = []
    template_of(request.observation, holes, dropped)
    if not used or not _is_mostly({*used, *dropped}, message):
        return None
    return RequestLayout(
        Layout(message, template, {*used, *dropped}),
        valid._replace(footprint=size, is_encoded=check_together(valid.observation, limits)),
    )


def learn_reply_layout(dialect: ZeroCopyDialect, message: memoryview) -> Layout | None:
    """The layout of a good reply's fields; None if nothing of it stands in the message as raw bytes."""
    placed: list[Placed] = []
    try:
        fields = dialect.reply_fields(message, placed)
    except PolicyserveError:
        return None
    used: list[Hole] = []
    template = template_of(fields, {id(one.value): hole_of(one) for one in placed}, used)
    return Layout(message, template, set(used)) if used and _is_mostly(set(used), message) else None


def _is_mostly(holes: set[Hole], message: memoryview) -> bool:
    """Whether a message has little besides these holes."""
    return len(message) - sum(hole.stop - hole.start for hole in holes) <= _MAX_AROUND


def _fitted(request: Request, fit: Fitting | None) -> Request:
    return request if fit is None else request._replace(observation=fit(request.observation))


def _unwrapped(request: Request, valid: ValidObservation, spec: PolicySpec) -> Observation | Any:
    """What the policy gets: the array alone where the wire carried just that and no spec asks for a map."""
    if request.bare and spec.observation is None:
        (alone,) = request.observation.values()
        return alone
    return valid.observation
