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
    │   ├── PolicyChanged      another policy with another spec took its place: connect again
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

import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

from policyserve.core.printable import UNPRINTABLE, error_text, one_line, some_lines, text_of

Blame = Literal["client", "server"]
_TRY_AGAIN_LATER = 1013  # a close code

# Characters of a path in an error: a client's key may be as long as its message, and a close reason has 123 bytes.
_MAX_PATH = 60

_CODE = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)  # an own class of a policy's may bring its own


class PolicyserveError(Exception):
    """Base of all errors here.

    code: its stable name on wires, in logs and in counters. retryable: whether the same request may succeed later.
    Its text is one line that can be printed, whatever it was made of: a peer's texts, a policy's, a file's.
    """

    code: str = "internal"
    blame: ClassVar[Blame] = "server"
    retryable: bool = False

    def __str__(self) -> str:
        try:
            return self._printable(super().__str__())
        except BaseException:  # it was made of a stranger's object
            return UNPRINTABLE

    def _printable(self, text: str) -> str:
        return one_line(text)

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
        super().__init__(one_line(f"{where}expected {expected}, got {got}" + (f"; {hint}" if hint else "")))


def names_told(names: Iterable[str], most: int = 80) -> str:
    """The first of some names, by commas, in so many characters: a peer may send thousands, and long ones."""
    told = ""
    for name in names:
        told = f"{told}, {name[:most]}" if told else name[:most]
        if len(told) >= most:
            break
    return told[:most] or "none"


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


class PolicyChanged(Unavailable):
    """Another policy, with another spec, took the place of the one that the session began with: connect again."""

    code = "policy_changed"


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
    """An optional framework is not installed; the message names the extra that brings it.

    told: the message where no extra of ours brings it.
    """

    code = "missing_dependency"

    def __init__(self, module: str, extra: str, told: str = "") -> None:
        self.module, self.extra = module, extra
        super().__init__(told or f"{module} is not installed; run: pip install 'policyserve[{extra}]'")


class RemoteError(PolicyserveError):
    """The server refused or failed the request.

    code: what the server called it, one of the codes above such as `overloaded` or `bad_observation`; "remote" where it
    told none. retryable: whether the same request may succeed later, by that code or the close code.
    close_code: of the WebSocket, set if the server also closed the connection.
    Its text is cut to 4,000 characters. It may have several lines, as some servers send tracebacks.
    """

    code = "remote"

    def __init__(self, message: str, close_code: int | None = None, code: str | None = None) -> None:
        self.close_code = close_code
        self.code = code or self.code
        self.retryable = self.retryable or close_code == _TRY_AGAIN_LATER or self.code in _RETRYABLE_CODES
        super().__init__(some_lines(message))

    def _printable(self, text: str) -> str:
        return some_lines(text)


class ConnectionLost(RemoteError):
    """The connection ended, or never opened, and the request has no answer."""

    code = "connection_lost"
    retryable = True


_RETRYABLE_CODES = {kind.code for kind in (Unavailable, Overloaded, DeadlineExceeded, NotReady, PolicyLost)}


def of_policy(error: BaseException, where: str) -> PolicyserveError:
    """What a policy raised, or gave in place of an answer, as an error that can be read without its help.

    One of the classes here stays as it is. One of a policy's own subclass becomes one of the class that it comes from,
    with its text, code and blame. Anything else is the cause of a PolicyFailed that begins with `where`.
    """
    try:
        own = _own(error)
    except BaseException:  # a stranger's class and properties
        own = None
    return failed(where, error) if own is None else own


def failed(where: str, error: BaseException) -> PolicyFailed:
    """A PolicyFailed that says where which error was raised: `where ValueError: negative`."""
    made = PolicyFailed(f"{where} {error_text(error)}")
    made.__cause__ = error
    return made


def _own(error: BaseException) -> PolicyserveError | None:
    """The error as one of the classes here; None if it comes from none, or its code or blame is none of theirs."""
    kind = type(error)
    own: type[PolicyserveError] | None = next((one for one in type.mro(kind) if one in _KINDS), None)
    if own is None or not isinstance(error, PolicyserveError):
        return None
    facts = {"code": error.code, "blame": error.blame, "retryable": error.retryable}
    if not _are_fine(facts):
        return None
    if own is kind:
        return error
    made = own.__new__(own)
    made.args = (text_of(error),)
    told = {name: value for name, value in vars(error).items() if type(value) in _PLAIN_TYPES}
    made.__dict__.update({**told, **facts})
    made.__cause__ = error.__cause__
    return made


def _are_fine(facts: Mapping[str, Any]) -> bool:
    code, blame, retryable = facts["code"], facts["blame"], facts["retryable"]
    is_code = type(code) is str and _CODE.fullmatch(code) is not None
    return is_code and type(blame) is str and blame in ("client", "server") and type(retryable) is bool


_PLAIN_TYPES = (str, int, float, bool, type(None))
_KINDS = {one for one in globals().values() if isinstance(one, type) and issubclass(one, PolicyserveError)}
