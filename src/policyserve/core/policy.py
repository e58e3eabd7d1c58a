"""What a policy is to the server, and how a plain function or an `infer(obs)` object becomes one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable
from weakref import WeakSet

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import BadAction, ConfigError, Overloaded, PolicyserveError, of_policy
from policyserve.core.messages import Observation
from policyserve.core.printable import text_of, type_name
from policyserve.core.spec import PolicySpec

_TENSOR_CURE = "return .detach().cpu().float().numpy() of it"


class PolicyInput(NamedTuple):
    """One session's request.

    observation: as the spec has it; writable arrays that the policy may keep. batch_size: set if the arrays carry the
    client's own batch axis (only where the spec has a max_client_batch). state: what this session's last chunk carried.
    """

    observation: Any
    batch_size: int | None = None
    state: Any = None


NO_EXTRAS: Mapping[str, Any] = MappingProxyType({})


class ActionChunk(NamedTuple):
    """One session's answer.

    actions: (horizon, *action), in physical units. state: kept for the session's next input, never sent. extras: more
    that the policy has to say, sent where the dialect can carry it.
    """

    actions: Array
    state: Any = None
    extras: Mapping[str, Any] = NO_EXTRAS


@runtime_checkable
class Policy(Protocol):
    """Anything that answers a batch of inputs.

    All methods are called by one thread at a time, which also loaded the policy; an inline policy's infer() is called
    in the event loop's thread. A policy may have `buckets`, the batch sizes to warm up; else these are the powers of
    two up to its max_batch, and that.
    """

    spec: PolicySpec
    """What it takes and gives. Read once, after loading; it stays the same."""

    def infer(self, batch: Sequence[PolicyInput]) -> Sequence[ActionChunk | PolicyserveError]:
        """Answer every input, in order: as many answers as there are inputs.

        batch: at least one input and at most spec.max_batch, of as many sessions. Their arrays have the spec's shapes
        and dtypes, are writable and are the policy's own: it may keep and change them.
        Each chunk's actions are spec.action's shape behind the horizon, if the spec has one; finite; whatever the
        spec's dtype can be cast from. They are read after infer() returns, so the policy must not write into them
        later. A PolicyserveError in place of a chunk fails that input alone.
        Whatever it raises fails the batch; the inputs of a batch of several are then tried again one by one.
        """
        ...

    def close(self) -> None:
        """Let go of what it holds; called once, after the last infer(). What it raises is logged."""
        ...


@runtime_checkable
class PreparingPolicy(Policy, Protocol):
    """A policy a part of whose work needs the observations alone: resizing, stacking, copying to a GPU.

    While it works on one batch that part of the next is done in a second thread. infer(batch) gives what
    infer_prepared(batch, prepare(batch)) gives; a server calls those two, unless the policy is inline.
    """

    def prepare(self, batch: Sequence[PolicyInput]) -> Any:
        """Do the part that needs observations alone, and leave them unchanged. The inputs have no state yet.

        Called by one thread at a time, while another may be in infer_prepared() with the batch before. What it raises
        counts as raised by infer().
        """
        ...

    def infer_prepared(self, batch: Sequence[PolicyInput], prepared: Any) -> Sequence[ActionChunk | PolicyserveError]:
        """Answer as infer() does.

        prepared: what prepare() made of these inputs, which now have their states; nobody else holds it.
        """
        ...


@runtime_checkable
class SettlingPolicy(Policy, Protocol):
    """A policy that has work of its own which can wait, such as compiling what later batches will need."""

    def settle(self) -> bool:
        """Do a part of it, as short as there are parts, and return whether there may be more.

        Called by the thread that calls infer(), after a batch was answered and while no other waits. What it raises is
        logged, and it is not called again.
        """
        ...


@runtime_checkable
class ResettablePolicy(Policy, Protocol):
    """A policy with one memory, which is right for one session at a time.

    A server calls reset() before a session's first request, and so after client.reset(), which begins a new session. It
    does so only while no other session is open: it would take the other's memory. With a second session open it warns
    once that they share.
    """

    def reset(self) -> None:
        """Forget what came before. Called by the thread that calls infer(); what it raises fails the request."""
        ...


class FunctionPolicy:
    """A policy around `function(observation) -> actions`, or -> a map that holds `actions` or `action`.

    Without a spec it takes whatever a client sends. A client's own batch is answered one by one and stacked.
    Raises ConfigError for what cannot be called, or not with one observation.
    """

    def __init__(self, function: Callable[[Any], Any], spec: PolicySpec | None = None) -> None:
        if not callable(function):
            raise ConfigError(f"function: expected a function of one observation, got {type(function).__name__}")
        _check_takes_one(function)
        if spec is not None and not isinstance(spec, PolicySpec):
            raise ConfigError(f"spec: expected a PolicySpec, got {type(spec).__name__}")
        self.spec = spec or open_spec(getattr(function, "__name__", None) or type(function).__name__)
        self._function = function

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk | PolicyserveError]:
        return [self._answer(one) for one in batch]

    def close(self) -> None:
        """Nothing to release: the function belongs to its author."""

    def _answer(self, one: PolicyInput) -> ActionChunk | PolicyserveError:
        try:
            if one.batch_size is None:
                return read_answer(self._function(one.observation))
            chunks = [read_answer(self._function(row)) for row in split_rows(one.observation, one.batch_size)]
            return ActionChunk(np.stack([chunk.actions for chunk in chunks]) if chunks else self._no_actions())
        except BaseException as error:  # a stranger's function may raise anything, and fails this input alone
            return of_policy(error, f"{self.spec.name} raised")

    def _no_actions(self) -> Array:
        action = self.spec.action
        shape = () if action is None else action.example().shape
        steps = () if self.spec.horizon is None else (self.spec.horizon,)
        return np.zeros((0, *steps, *shape), "float32" if action is None else action.dtype)


def _check_takes_one(function: Callable[[Any], Any]) -> None:
    """Raise ConfigError for a function that wants more than one observation, or none, or that is to be awaited."""
    name = getattr(function, "__name__", type(function).__name__)
    if inspect.iscoroutinefunction(function):
        raise ConfigError(
            f"expected a function of one observation, got async {name}(): one thread calls a policy and waits for it; "
            "write def, and asyncio.run(…) within"
        )
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some that are written in C have none
        return
    try:
        signature.bind(None)
    except TypeError:
        wants = f"{name}({', '.join(signature.parameters)})"
        raise ConfigError(f"expected a function of one observation, got {wants}") from None


class ObjectPolicy(FunctionPolicy):
    """A policy around an object with `infer(obs)` and `reset()`, one for all sessions: see ResettablePolicy."""

    def __init__(self, served: Any, spec: PolicySpec) -> None:
        super().__init__(served.infer, spec)
        self._served = served

    def reset(self) -> None:
        """Call the object's own."""
        self._served.reset()


class PerSessionPolicy:
    """A policy that gives each session an object of its own, which `factory()` makes.

    factory: makes what as_policy() takes; called once while loading, then in the policy's thread for each session but
    the first. first: what it has made already. max_sessions: how many objects may be there at a time; a session beyond
    them is refused as overloaded. A session's object goes when the session does, or calls client.reset().
    Raises ConfigError if max_sessions is below 1.
    """

    def __init__(self, factory: Callable[[], Any], max_sessions: int = 16, first: Any = None) -> None:
        if max_sessions < 1:
            raise ConfigError(f"max_sessions: expected 1 or more, got {max_sessions}")
        self._factory = factory
        self._max_sessions = max_sessions
        self._first: _OwnObject | None = _OwnObject(as_policy(factory() if first is None else first))
        self._objects: WeakSet[_OwnObject] = WeakSet()  # those that sessions have
        self.spec = replace(self._first.policy.spec, max_batch=1)

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk | PolicyserveError]:
        return [self._answer(one) for one in batch]

    def close(self) -> None:
        """Close the objects that are there; raises what the first raised that failed to, once all are closed."""
        failures: list[BaseException] = []
        for own in [*self._objects, *([self._first] if self._first is not None else [])]:
            try:
                own.policy.close()
            except BaseException as error:  # a stranger's close: the others hold something, too
                failures.append(error)
        if failures:
            raise failures[0]

    def _answer(self, one: PolicyInput) -> ActionChunk | PolicyserveError:
        own: _OwnObject = one.state if one.state is not None else self._make()
        (answer,) = own.policy.infer([one._replace(state=own.state)])
        if not isinstance(answer, ActionChunk):
            return answer
        own.state = answer.state
        return answer._replace(state=own)

    def _make(self) -> _OwnObject:
        if len(self._objects) >= self._max_sessions:
            raise Overloaded(f"{self._max_sessions} sessions have a policy object each, the most there may be")
        own, self._first = self._first or _OwnObject(as_policy(self._factory())), None
        self._objects.add(own)
        return own


class _OwnObject:
    """One session's policy, and what that keeps as its state. The runner keeps this as the session's state."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.state: Any = None


def as_policy(thing: Any, spec: PolicySpec | None = None) -> Policy:
    """Make a Policy of a Policy, of an object with `infer(obs)`, or of a function of one observation.

    An object that has a reset() is told of new sessions, see ResettablePolicy.

    Raises ConfigError for anything else. Without a `spec` (given here, or the object's own) anything decodable passes.
    """
    function = getattr(thing, "infer", None) or thing
    has_spec = isinstance(getattr(thing, "spec", None), PolicySpec) and function is not thing and callable(function)
    if has_spec and not isinstance(thing, type):
        return _closable(thing)
    if isinstance(thing, type) or not callable(function):
        what = f"the class {thing.__name__}" if isinstance(thing, type) else type(thing).__name__
        raise ConfigError(
            f"a policy is a Policy, an object with infer(obs), or a function of one observation: got {what}"
        )
    name = getattr(thing, "__name__", None) or type(thing).__name__
    spec = spec or open_spec(name, getattr(thing, "metadata", None))
    return ObjectPolicy(thing, spec) if function is not thing and has_memory(thing) else FunctionPolicy(function, spec)


def _closable(thing: Any) -> Policy:
    """What has a spec and infer(), if it has close(); else raises ConfigError, as infer() may take one observation."""
    if not callable(getattr(thing, "close", None)):
        name = type(thing).__name__
        raise ConfigError(
            f"{name} has a spec but no close(): as a Policy it needs one, and its infer() gets a list of inputs;"
            f" for infer(observation) keep the spec apart and serve as_policy({name}(), spec)"
        )
    return thing


def policy_from(factory: Callable[[], Any]) -> Policy:
    """The policy that a function makes: one for all sessions, or one for each where it has a memory and a reset()."""
    made = factory()
    policy = as_policy(made)
    return PerSessionPolicy(factory, first=made) if isinstance(policy, ObjectPolicy) else policy


def has_memory(thing: Any) -> bool:
    """Whether an object has a reset() without arguments that does something; openpi's BasePolicy has an empty one."""
    reset = getattr(thing, "reset", None)
    if not callable(reset):
        return False
    try:
        inspect.signature(reset).bind()
    except (TypeError, ValueError):
        return False
    code = getattr(reset, "__code__", None)
    return code is None or code.co_code not in (_empty.__code__.co_code, _empty_but_documented.__code__.co_code)


def _empty(_self: Any) -> None:
    pass


def _empty_but_documented(_self: Any) -> None:
    """Do nothing."""


def open_spec(name: str, metadata: Any = None) -> PolicySpec:
    """The spec of a policy that declares none: anything decodable passes, one at a time."""
    return PolicySpec(name, observation=None, action=None, metadata=metadata if isinstance(metadata, Mapping) else {})


def read_answer(answer: Any) -> ActionChunk:
    """Read what a stranger's function returned: a chunk, an array, or a map with `actions` or `action`.

    Raises BadAction for anything else.
    """
    if isinstance(answer, ActionChunk):
        return answer
    if not isinstance(answer, Mapping):
        return ActionChunk(_as_numbers(answer))
    for key in ("actions", "action"):
        if key in answer:
            extras = {name: value for name, value in answer.items() if name != key}
            return ActionChunk(_as_numbers(answer[key]), extras=extras)
    raise BadAction(f"the policy answered a map without 'actions' or 'action': {', '.join(map(str, answer))[:200]}")


def _as_numbers(answer: Any) -> Array:
    try:
        array: Array = np.asarray(answer)
    except (ValueError, TypeError) as error:  # its text says what a tensor of a GPU, or a ragged list, lacks
        told = f"the policy answered {type_name(answer)}, expected numbers: {text_of(error)}"
        raise BadAction(told + ("; " + _TENSOR_CURE) * _is_tensor(answer)) from error
    if array.dtype.kind == "O":
        raise BadAction(f"the policy answered {'None' if answer is None else type_name(answer)}, expected numbers")
    return array


def _is_tensor(answer: Any) -> bool:
    return type(answer).__module__.split(".")[0] == "torch"


def split_rows(observation: Observation, batch_size: int) -> list[dict[str, Any]]:
    """Cut an observation that carries a client's batch axis into one observation per row; texts go to every row."""

    def row(value: Any, index: int) -> Any:
        if isinstance(value, Mapping):
            return {key: row(inner, index) for key, inner in value.items()}
        return value[index] if isinstance(value, np.ndarray) else value

    return [{key: row(value, index) for key, value in observation.items()} for index in range(batch_size)]
