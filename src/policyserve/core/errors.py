"""Every error that policyserve raises, and whose fault each one is.

    PolicyserveError
    ├── Refusal                path, expected, got: something that a client sent
    │   ├── WireError          the bytes do not follow the dialect
    │   │   └── WrongDialect   they follow another one
    │   └── BadObservation     the observation does not follow the policy's spec
    ├── Unavailable            retryable: the same request may succeed later
    │   ├── Overloaded         a queue or a limit is full
    │   ├── DeadlineExceeded   no answer in time (also a TimeoutError)
    │   ├── NotReady           the policy is still loading, or the server is stopping
    │   └── PolicyLost         the policy broke or its process died at this request; it is being replaced
    ├── PolicyFailed           the policy raised, or broke its contract
    │   └── BadAction          NaN, Inf, a wrong shape or dtype: never reaches a robot
    ├── ClientInUse            a second call of one client, while another is running (also a RuntimeError)
    ├── ConfigError            a setting, a file or an argument is wrong (also a ValueError)
    │   └── MissingDependency  an extra is not installed (also an ImportError)
    └── RemoteError            a client's view: the server refused or failed the request
        └── ConnectionLost     a client's view: the connection ended without an answer

`blame` decides the reply and the log level; a `retryable` error never means that the request was wrong. A RemoteError
carries the code that the server told, so that `error.code` and `error.retryable` mean the same at both ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

Blame = Literal["client", "server"]
_TRY_AGAIN_LATER = 1013  # a close code

# Characters of a path in an error: a client's key may be as long as its message, and a close reason has 123 bytes.
_MAX_PATH = 60
_MAX_TOLD = 4096  # bytes of a server's text


class PolicyserveError(Exception):
    """Base of all errors here.

    code: its stable name on wires, in logs and in counters. retryable: whether the same request may succeed later.
    """

    code: str = "internal"
    blame: ClassVar[Blame] = "server"
    retryable: bool = False

    def __reduce__(self) -> Any:
        """Pickle it as it is: a worker's error reaches the process that started it, attributes included."""
        return _again, (type(self), self.args, vars(self))


def _again(kind: type[PolicyserveError], args: tuple[Any, ...], attributes: Mapping[str, Any]) -> PolicyserveError:
    """An error that was pickled; its constructor, which composed the message, is not called anew."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


class Refusal(PolicyserveError):
    """Something a client sent was refused.

    path: where in the message or observation, keys joined by `/`; empty for the whole of it.
    expected, got: the two halves of the reason. hint: what to do, if there is something to say.
    """

    blame = "client"

    def __init__(self, path: str, expected: str, got: str, hint: str = "") -> None:
        self.path, self.expected, self.got, self.hint = path, expected, got, hint
        where = f"{path if len(path) <= _MAX_PATH else path[:_MAX_PATH] + '…'}: " if path else ""
        super().__init__(_one_line(f"{where}expected {expected}, got {got}" + (f"; {hint}" if hint else "")))


def _one_line(text: str) -> str:
    """Without control characters: a client's key must not forge lines of a log."""
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


class WireError(Refusal):
    """The bytes do not follow the dialect."""

    code = "bad_frame"


class WrongDialect(WireError):
    """The peer speaks another dialect; the hint names the path to use. The connection closes with 1008."""

    code = "wrong_dialect"


class BadObservation(Refusal):
    """The observation does not follow the policy's spec."""

    code = "bad_observation"


class Unavailable(PolicyserveError):
    """The server cannot answer now; the request itself may be fine."""

    code = "unavailable"
    retryable = True


class Overloaded(Unavailable):
    """A queue or a limit is full. retry_after_ms: when to ask again, if that can be told; the text says it, too."""

    code = "overloaded"

    def __init__(self, message: str, retry_after_ms: float | None = None) -> None:
        self.retry_after_ms = retry_after_ms
        super().__init__(message if retry_after_ms is None else f"{message}; again in {max(retry_after_ms, 1):.0f} ms")


class DeadlineExceeded(Unavailable, TimeoutError):
    """No answer within the time that the request had."""

    code = "deadline_exceeded"


class NotReady(Unavailable):
    """The policy is still loading, or the server is stopping."""

    code = "not_ready"


class PolicyLost(Unavailable):
    """The policy broke, or its process died, while it worked on this request; it is being replaced."""

    code = "policy_lost"


class PolicyFailed(PolicyserveError):
    """The policy raised, or broke its contract."""

    code = "policy_failed"


class BadAction(PolicyFailed):
    """The policy answered something that must not reach a robot."""

    code = "bad_action"


class ClientInUse(PolicyserveError, RuntimeError):
    """A second call of one client while another is running, which goes on undisturbed."""

    code = "client_in_use"
    blame = "client"


class ConfigError(PolicyserveError, ValueError):
    """A setting, a file or an argument is wrong; the message is one line that says what to do."""

    code = "config"


class MissingDependency(ConfigError, ImportError):
    """An optional framework is not installed; the message names the extra that brings it."""

    code = "missing_dependency"

    def __init__(self, module: str, extra: str) -> None:
        self.module, self.extra = module, extra
        super().__init__(f"{module} is not installed; run: pip install 'policyserve[{extra}]'")


class RemoteError(PolicyserveError):
    """The server refused or failed the request.

    code: what the server called it, one of the codes above such as `overloaded` or `bad_observation`; "remote" where it
    told none. retryable: whether the same request may succeed later, by that code or the close code.
    close_code: of the WebSocket, set if the server also closed the connection. The text, which the server may have
    written, is cut to 4 KiB, and what is not printable is escaped.
    """

    code = "remote"

    def __init__(self, message: str, close_code: int | None = None, code: str | None = None) -> None:
        self.close_code = close_code
        self.code = code or self.code
        self.retryable = self.retryable or close_code == _TRY_AGAIN_LATER or self.code in _RETRYABLE_CODES
        super().__init__(told_by_server(message))


class ConnectionLost(RemoteError):
    """The connection ended, or never opened, and the request has no answer."""

    code = "connection_lost"
    retryable = True


def told_by_server(text: str) -> str:
    """A server's text as it may stand in a robot's terminal and log; what is too long loses its middle.

    It begins with what it is about, and a traceback ends with what went wrong.
    """
    if len(text) > _MAX_TOLD:
        text = text[:_MAX_TOLD] + text[-_MAX_TOLD:]  # no more of it is looked at
    if not text.isprintable():
        text = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    told = text.encode()
    if len(told) <= _MAX_TOLD:
        return text
    return (told[: _MAX_TOLD // 4] + " … ".encode() + told[5 - _MAX_TOLD * 3 // 4 :]).decode("utf-8", "ignore")


_RETRYABLE_CODES = {kind.code for kind in (Unavailable, Overloaded, DeadlineExceeded, NotReady, PolicyLost)}
