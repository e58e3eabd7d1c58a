"""What a wire dialect is: it turns messages, which are bytes or text, into observations and actions, and back.

Both halves live in one class so that server and client cannot drift apart. CONTRIBUTING.md says how to add a dialect,
in this package or in another one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from policyserve.core import errors
from policyserve.core.arrays import Placed
from policyserve.core.encoded_images import GREETING_KEY, JPEG
from policyserve.core.errors import PolicyserveError
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.core.messages import Control, Heard, Message, Observation, Part, Reply, Request, Timing
from policyserve.core.policy import ActionChunk

_MAX_CLOSE_REASON = 123  # bytes, RFC 6455 section 5.5.1
_KINDS = (
    *(errors.WireError, errors.WrongDialect, errors.BadObservation, errors.PolicyFailed, errors.BadAction),
    *(errors.Unavailable, errors.Overloaded, errors.DeadlineExceeded, errors.NotReady, errors.PolicyLost),
    errors.PolicyChanged,
)
_SERVICE_RESTART = 1012
TOLD: Mapping[str, type[PolicyserveError]] = {kind.code: kind for kind in _KINDS}  # what a server tells its clients


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """How a dialect tells a peer of an error: by a message, a close, or both.

    message: sent first, a str as a text message. close_code: set if the connection ends with it (1000 … 4999).
    close_reason: at most 123 bytes of UTF-8, as close_reason() makes it.
    """

    message: Message | None = None
    close_code: int | None = None
    close_reason: str = ""


@runtime_checkable
class Dialect(Protocol):
    """One family's wire format.

    One instance serves every session of a server and every client of a process, from any thread. So a dialect keeps
    nothing between two calls and uses no socket, clock, log or file: what it does depends on its arguments alone. A
    server calls it in its event loop, where all sessions wait for it.

    A message is a whole WebSocket message: a str is a text message, everything else a binary one.
    """

    name: str
    """What `--dialect` and a client's `dialect=` call it. `/name` is its path on every server; no slash in it.

    A dialect whose clients ask for other paths, of several steps, has them in an attribute `paths`: `v1/realtime`.
    """

    greets: bool
    """Whether the server speaks first: its clients wait for a greeting before they ask."""

    # The server's half.

    def greeting(self, metadata: Mapping[str, Any]) -> Message | None:
        """Write the server's first message; None if `greets` is False.

        metadata: what the policy says of itself, nested maps with str keys, lists, texts, bytes, numbers, None and
        arrays of numbers; `spec`, what PolicySpec.describe() gives; `policyserve`, the server's version. It stays as it
        is. What this raises ends the session as policy_failed.
        """
        ...

    def read_request(self, message: Message, limits: WireLimits = DEFAULT_LIMITS) -> Request:
        """Read an observation: nested maps with str keys of arrays, texts, numbers, lists, None.

        Arrays have native byte order, are aligned and may be written to: the policy gets them as they are and may keep
        them. Where `message` is a writable memoryview, which is what a server passes, an array may be a view of it: its
        buffer is not used again while a view is there. Of any other message an array is a copy. limits: how deep, how
        many items and how many arrays may be built, how long keys may be; texts and pictures are bounded by the spec
        later. A text message is a str, of at most four bytes for each of limits.max_text letters.

        Raises WireError for every message that is no request, with the path of what is wrong, and WrongDialect where it
        can tell that another family sent it. Anything else that it raises is a bug: that request is told policy_failed.
        """
        ...

    def write_reply(self, chunk: ActionChunk, timing: Timing) -> Message:
        """Write an answer.

        chunk.actions: (horizon, *action), (*action) without a horizon, with a batch axis in front if the request had
        one; bool, int or float of any byte order, finite. Nobody writes into them any more. chunk.extras: what else the
        policy says, to be sent where the wire has a place for it. chunk.state is not to be sent.

        Raises PolicyFailed with the path of an extra that clients could not read. Whatever it raises, the peer is told
        policy_failed.
        """
        ...

    def write_error(self, error: PolicyserveError, detail: str = "") -> ErrorReply:
        """Tell the peer of an error; raises nothing.

        Clients need its text, `code` and `retryable` (see core/errors.py). detail: a traceback, where the server was
        told to send them; else empty. Where the reply has a close code, what the peer sends later is not read.
        """
        ...

    # The client's half.

    def write_request(self, observation: Observation) -> bytes:
        """Write an observation as one binary message; raises WireError with the path of what the wire cannot carry.

        The observation is the caller's, and stays as it is.
        """
        ...

    def read_greeting(self, message: Message) -> Mapping[str, Any]:
        """Read the server's first message.

        Raises RemoteError if it is the server's error, WireError if it is no greeting.
        """
        ...

    def read_reply(self, message: Message) -> Reply:
        """Read an answer; arrays are as read_request() makes them, and belong to the caller.

        Raises RemoteError if it is the server's error, with the code where the message has a place for one, WireError
        if it is no answer. What a server sends is bounded by the default limits, and may have any number of arrays.
        """
        ...


@runtime_checkable
class ZeroCopyDialect(Dialect, Protocol):
    """A dialect that also says where arrays stand in its messages. Optional: all works without.

    With it, messages of one session that differ in nothing but numbers are read without decoding them
    (core/reading.py), and large arrays are sent without copying them.

    `placed`, if given, is filled with the arrays and float64s whose data stands in the message as it is; no other
    decoded value may depend on those bytes. read_reply(message) is reply_of(reply_fields(message)).
    """

    def read_request(
        self, message: Message, limits: WireLimits = DEFAULT_LIMITS, placed: list[Placed] | None = None
    ) -> Request: ...

    def request_parts(self, observation: Observation) -> list[Part]:
        """Write the bytes of write_request() in pieces; those of large arrays are views of the arrays' own memory."""
        ...

    def reply_fields(self, message: Message, placed: list[Placed] | None = None) -> dict[str, Any]:
        """Read all that an answer carries; raises what read_reply() raises."""
        ...

    def reply_of(self, fields: dict[str, Any]) -> Reply:
        """Make the reply of what reply_fields() read; raises WireError where the actions are missing.

        It may look at which keys exist, never at a number: numbers of later messages are put in without asking it.
        """
        ...


@runtime_checkable
class ConversingDialect(Dialect, Protocol):
    """A dialect whose clients say more than observations, or number what they ask.

    A server calls these four in place of read_request(), write_reply() and write_error(); that one is still called for
    what concerns no request: a message that cannot be read at all, the end of the session.
    """

    one_action: bool
    """Whether an answer carries one action: the server then answers with one row of the policy's chunk after the other.

    chunk.actions is (*action) then, without an axis of steps, whatever the policy's horizon.
    """

    def read_message(self, message: Message, limits: WireLimits = DEFAULT_LIMITS) -> Heard:
        """Read whatever a client may send; raises what read_request() raises."""
        ...

    def write_answer(self, chunk: ActionChunk, timing: Timing, context: Any) -> Message:
        """As write_reply(); context: the Request's."""
        ...

    def write_refusal(self, error: PolicyserveError, detail: str, context: Any) -> ErrorReply:
        """As write_error(), for the request with this context."""
        ...

    def answer_control(self, control: Control, metadata: Mapping[str, Any]) -> Message | None:
        """Answer a message that asked for no actions, in its turn; None: its clients expect no answer.

        metadata: as greeting() gets it. Raises WireError, which is told as a refusal of that message.
        """
        ...


def carries_jpeg(dialect: Dialect) -> bool:
    """Whether its requests can carry an EncodedImage, and its greeting can say that the server takes it.

    A dialect says so by an attribute `carries_jpeg`. What it reads as one, the server checks and decodes. The answer to
    an opening is a greeting as well.
    """
    return getattr(dialect, "carries_jpeg", False) is True and (dialect.greets or bool(opening_of(dialect)))


def takes_jpeg(dialect: Dialect, metadata: Mapping[str, Any]) -> bool:
    """Whether the server that greeted so takes an EncodedImage: it says so, or is one that always does.

    A dialect whose servers need not say it has a method `takes_jpeg(metadata)`.
    """
    formats, always = metadata.get(GREETING_KEY), getattr(dialect, "takes_jpeg", None)
    return (isinstance(formats, list) and JPEG in formats) or (always is not None and always(metadata))


def has_client(dialect: Dialect) -> bool:
    """Whether clients of this package speak it. One whose requests only other people's programs write says no.

    A dialect says so by an attribute `has_client = False`.
    """
    return getattr(dialect, "has_client", True) is True


def answers_one_action(dialect: Dialect) -> bool:
    """Whether an answer is one action, whatever the policy's horizon: see ConversingDialect.one_action."""
    return getattr(dialect, "one_action", False) is True


def opening_of(dialect: Dialect) -> tuple[bytes, ...]:
    """What a client sends before its first request, where the server waits for it; empty: nothing.

    A dialect says so by a method `opening()`. The server's one answer to it is read by read_greeting(), as a greeting.
    """
    opening = getattr(dialect, "opening", None)
    return () if opening is None else opening()


def mark_of(dialect: Dialect, message: Message) -> Any:
    """What a client's message and the answer to it have in common, such as a number; None: nothing.

    A dialect whose answers may come in another order than its requests, or not at all, has a method `mark_of(message)`.
    """
    read = getattr(dialect, "mark_of", None)
    return None if read is None else read(message)


def for_policy(dialect: Dialect, metadata: Mapping[str, Any]) -> Dialect:
    """The dialect as it speaks for a policy that says this of itself, such as how its actions divide into groups.

    A dialect whose answers depend on that has a method `for_policy(metadata)`. metadata: as greeting() gets it.
    """
    adapt = getattr(dialect, "for_policy", None)
    return dialect if adapt is None else adapt(metadata)


class DialectChoice(Protocol):
    """How a connection that names no dialect finds its own."""

    greeter: Dialect
    """Greets a client that waits for the server's first word."""

    greeting_paths: tuple[str, ...]
    """The paths whose clients are greeted, for the hint to one that waits on another path."""

    def settle(self, message: Message, greeted: bool, limits: WireLimits = DEFAULT_LIMITS) -> Dialect:
        """The dialect of a connection's first message; greeted: it came after the greeting. Never raises."""
        ...


def request_writer(dialect: Dialect) -> Callable[[Observation], list[Part]]:
    """How a client writes its requests: in pieces, where the dialect can, else as one."""
    if isinstance(dialect, ZeroCopyDialect):
        return dialect.request_parts
    return lambda observation: [dialect.write_request(observation)]


def close_code_of(error: PolicyserveError | type[PolicyserveError]) -> int:
    """1008 for the client's fault, 1012 for another policy, 1013 for what may succeed later, 1011 for ours."""
    if error.code == errors.PolicyChanged.code:
        return _SERVICE_RESTART
    if error.blame == "client":
        return 1008
    return 1013 if error.retryable else 1011


def error_text(error: PolicyserveError) -> str:
    """The error as one text that begins with its code, for dialects that have messages for errors."""
    return f"{error.code}: {error}"


def code_in_text(text: str) -> str | None:
    """The code of what error_text() made; None for any other text.

    Only for texts of a server that is known to be ours: a text of another server may begin with the same word.
    """
    code, colon, _ = text.partition(": ")
    return code if colon and code in TOLD else None


def close_reason(error: PolicyserveError) -> str:
    """The error and its code in at most 123 bytes of UTF-8, as a close frame can carry it: `full [overloaded]`."""
    mark = f" [{error.code}]"
    room = _MAX_CLOSE_REASON - len(mark)
    encoded = str(error).encode("utf-8", "replace")  # file names bring lone surrogates
    if len(encoded) > room:
        encoded = encoded[: room - 3].decode("utf-8", "ignore").encode() + "…".encode()
    return (encoded.decode() + mark).strip()


def read_close_reason(close_code: int, reason: str) -> tuple[str, str | None]:
    """The text and the code of what close_reason() made; the reason as it is and None for any other one.

    A dialect without a greeting has no other place where it could say whose server it is, so the close code has to be
    the one that this server gives to such an error, too.
    """
    text, _, mark = reason.rpartition("[")
    kind = TOLD.get(mark.removesuffix("]")) if mark.endswith("]") else None
    if kind is None or close_code_of(kind) != close_code:
        return reason, None
    return text.rstrip(), kind.code
