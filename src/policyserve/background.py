"""A server in a thread of this program, with an event loop of its own: for notebooks, tests and programs.

What must stay true: a server that is let go, by stop(), by an interrupt or by forgetting it, leaves no thread and no
open port, and nobody waits for its end without a bound. It is told to stop through its event loop, since it belongs to
that loop's thread.
"""

from __future__ import annotations

import asyncio
import atexit
import errno
import threading
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from inspect import Parameter, Signature, signature
from typing import Any, Concatenate, ParamSpec, cast

from policyserve.core.errors import ConfigError
from policyserve.core.log import Log
from policyserve.core.nearest import nearest
from policyserve.core.policy import Policy, as_policy
from policyserve.core.printable import text_of, type_name
from policyserve.core.recipe import OnStage, Recipe
from policyserve.core.spec import PolicySpec
from policyserve.engine.answering import LoadPolicy
from policyserve.engine.ready import ReadyPolicy
from policyserve.engine.swaps import Swapped, When
from policyserve.policies import registry
from policyserve.policies.objects import load_object, makes_a_policy
from policyserve.server.config import ServerConfig
from policyserve.server.offers import Offer
from policyserve.server.server import Server

log = Log(__name__)

P = ParamSpec("P")

_SETTINGS = signature(ServerConfig).parameters
_LOOPBACK = {"host": "127.0.0.1", "port": 0}
_FAREWELL_S = 0.5  # a client of this program that is not in a call answers no close frame, however long one waits
_REST_S = 5.0  # for what ends a server besides the answers under way


class RunningServer:
    """A server that start() has started. It serves until stop(), or until nothing refers to this object any more.

    url: where clients of this machine connect. spec: what the policy takes and gives.
    """

    def __init__(self, thread: _ServerThread, spec: PolicySpec) -> None:
        self.url = _url_of(thread.server)
        self.spec = spec
        self._thread = thread
        self._forgotten = weakref.finalize(self, _end_forgotten, thread, self.url)
        self._forgotten.atexit = False  # _end_all() waits, too

    def __repr__(self) -> str:
        state = f"serving {text_of(self.spec.name)}" if self._thread.is_alive() else "stopped"
        return f"<policyserve.{type(self).__name__} {self.url} {state}>"

    def stop(self) -> None:
        """Answer what is in flight, close the sessions and the policy, and end the thread; once, however often called.

        It waits for the answers up to drain_s, 10 s unless start() was told otherwise, and for the rest up to 5 s. A
        call that comes while another waits ends the wait for the answers.
        """
        self._forgotten.detach()
        self._thread.end()

    def swap(
        self,
        policy: Any,
        *,
        title: str = "",
        when: When = "now",
        unload_first: bool = False,
        force: bool = False,
        timeout_s: float | None = None,
    ) -> Swapped:
        """Have another policy take over while clients stay connected; returns when it answers. From any other thread.

        policy: what start() takes. The rest, and what it raises, is Server.swap()'s.
        """
        server, how = self._thread.server, {"when": when, "unload_first": unload_first, "force": force}
        swapping = server.swap(_loader_of(policy), title=title, timeout_s=timeout_s, **how)
        swapped = asyncio.run_coroutine_threadsafe(swapping, self._thread.loop).result()
        self.spec = swapped.spec
        return swapped

    def __enter__(self) -> RunningServer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


def _taking(
    settings: Callable[P, ServerConfig],
) -> Callable[[Callable[..., RunningServer]], Callable[Concatenate[Any, P], RunningServer]]:
    """Tell type checkers, and whoever asks for a function's signature, that its keywords are these settings."""
    names = dict.fromkeys([*_LOOPBACK, *_SETTINGS])  # people look for host and port first
    known = [_SETTINGS[name].replace(default=_LOOPBACK.get(name, _SETTINGS[name].default)) for name in names]

    def told(function: Any) -> Any:
        function.__signature__ = Signature([Parameter("policy", Parameter.POSITIONAL_ONLY), *known])
        return function

    return told


@_taking(ServerConfig)
def start(policy: Any, **settings: Any) -> RunningServer:
    """Serve a policy in a thread of this program, with an event loop of its own; returns when it answers.

    policy: a Policy, an object with infer(obs), a function of one observation, or a class or a function without
    arguments that makes one; or by name what `policyserve serve` takes, "cartpole_ppo" or "package.module:name"; or a
    Recipe; or a map of names to any of these, or to Offers, which serves several. settings: those of ServerConfig, but
    that host is 127.0.0.1 and port any free one unless they are given.

    It may be called where an event loop runs already, as in a notebook: that loop waits until the policy is loaded.
    Raises ConfigError for what cannot be served, a wrong setting or a port in use, and what loading raised. Whatever it
    raises, an interrupt (Ctrl-C) included, the server has ended then.
    """
    thread = _ServerThread(Server(_served(policy), _config_of(settings)))
    try:
        thread.start()
        return RunningServer(thread, thread.ready.result())
    except BaseException as error:  # Ctrl-C while it loads, say
        thread.end()
        _explain_port_in_use(error, thread.server.config)
        raise


class _ServerThread(threading.Thread):
    """The thread of one server. ready: the policy's spec once it answers, or why it does not."""

    def __init__(self, server: Server) -> None:
        # A daemon: a policy that hangs must not keep the program from ending.
        super().__init__(name="policyserve", daemon=True)
        self.server = server
        self.ready: Future[PolicySpec] = Future()
        server.farewell_s = _FAREWELL_S
        self.loop = asyncio.new_event_loop()  # and not asyncio.run(), which notebooks patch

    def run(self) -> None:
        try:
            self.loop.run_until_complete(self.server.run_until_stopped(self.ready.set_result))
        except BaseException as error:  # what loading raised, whatever that is, belongs to start()'s caller
            self._fail(error)
        self.loop.close()

    def has_port(self, port: int) -> bool:
        """Whether it listens on this TCP port."""
        try:
            return self.server.address.port == port
        except ConfigError:  # it does not listen yet
            return False

    def ask_to_stop(self) -> None:
        """Have it end; from any thread. A second call ends the wait for what is in flight."""
        if self.is_alive():  # in a fork's child it is not, though the loop is there
            with suppress(RuntimeError):  # the loop was closed meanwhile
                self.loop.call_soon_threadsafe(self.server.stop)

    def end(self) -> None:
        """Have it end, and wait for that as long as it may take; not in its own thread, which would wait for itself."""
        if self.ident is None:  # an interrupt came before it was started
            self.loop.close()
            return
        self.ask_to_stop()
        if threading.current_thread() is self:
            return
        longest_s = self.server.config.drain_s + _REST_S
        self.join(longest_s)
        if self.is_alive():
            log.warning("the server has not ended within %g s: its thread is left to itself", longest_s)

    def _fail(self, error: BaseException) -> None:
        if self.ready.done():
            log.error("the server has ended", cause=error)
        else:
            self.ready.set_exception(error)


@dataclass(frozen=True)
class _Maker:
    """Loads what a class or a function without arguments makes."""

    make: Callable[[], Any]

    def __call__(self, on_stage: OnStage) -> Policy:
        return load_object(self.make, getattr(self.make, "__name__", type_name(self.make)))


def _served(policy: Any) -> Any:
    """What the server is given; of several policies a map."""
    if not isinstance(policy, Mapping):
        return _loader_of(policy)
    policies = cast(Mapping[str, Any], policy)
    return {name: _offer_of(one) for name, one in policies.items()}


def _offer_of(policy: Any) -> Offer:
    return replace(policy, policy=_loader_of(policy.policy)) if isinstance(policy, Offer) else Offer(_loader_of(policy))


def _loader_of(policy: Any) -> LoadPolicy:
    if isinstance(policy, str):
        adapter = registry.find(policy)
        return adapter.source(adapter.defaults(None)).recipe
    if isinstance(policy, Recipe):
        return policy
    return _Maker(policy) if makes_a_policy(policy) else ReadyPolicy(as_policy(policy))


def _config_of(given: Mapping[str, Any]) -> ServerConfig:
    for name in given.keys() - _SETTINGS.keys():
        near = nearest(name, _SETTINGS)
        raise ConfigError(f"start() has no setting {name!r}{f' (did you mean {near}?)' if near else ''}")
    return ServerConfig(**{**_LOOPBACK, **given})


def _url_of(server: Server) -> str:
    """A server on all addresses is reached by the one that only this machine has."""
    address = server.address
    return (address.reachable if address.host in ("0.0.0.0", "::") else address).url


def _explain_port_in_use(error: BaseException, config: ServerConfig) -> None:
    """Raise ConfigError that says whose the port is, and the cure, in place of one that says that it is in use."""
    is_in_use = isinstance(error, ConfigError) and getattr(error.__cause__, "errno", None) == errno.EADDRINUSE
    if not is_in_use or config.uds is not None:
        return
    ours = next((one.server for one in _running() if one.has_port(config.port)), None)
    whose = "another program: take another" if ours is None else f"{ours!r} of this program: call its stop() first"
    raise ConfigError(f"port {config.port} on {config.host} is in use by {whose}, or leave port out") from error


def _running() -> list[_ServerThread]:
    return [one for one in threading.enumerate() if isinstance(one, _ServerThread)]


def _end_forgotten(thread: _ServerThread, url: str) -> None:
    if thread.is_alive():
        log.warning("the server at %s ends, since nothing refers to it any more: keep what start() returns", url)
        thread.ask_to_stop()


@atexit.register
def _end_all() -> None:
    """End all servers before the interpreter ends: clients are told, policies closed; what is in flight is dropped."""
    ending = _running()
    for thread in [*ending, *ending]:  # the second time ends the wait for what is in flight
        thread.ask_to_stop()
    for thread in ending:
        thread.join(_REST_S)
