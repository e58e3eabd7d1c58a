"""A policy that stays with its test while a server runs it in a process of its own.

The process loads a `FarPolicy`, by name as any policy; each of its calls crosses a socket to the test's own object. So
events, counters and closures of a test mean the same on either runner, and all that is the runner's is the real thing.
"""

from __future__ import annotations

import io
import pickle
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Client, Connection, Listener
from types import MappingProxyType
from typing import Any

from policyserve.core.policy import Policy, PolicyInput
from policyserve.core.recipe import Recipe
from policyserve.engine.answering import LoadPolicy, OnStage
from policyserve.engine.isolated.faults import read_error, write_error


class FarPolicy:
    """The policy as its process has it."""

    def __init__(self, address: str, on_stage: OnStage) -> None:
        self._home = Client(address)
        self.spec, self.buckets = self._call("load", on_stage=on_stage)

    def infer(self, batch: Sequence[PolicyInput]) -> Any:
        return self._call("infer", batch)

    def close(self) -> None:
        self._call("close")

    def _call(self, name: str, *arguments: Any, on_stage: OnStage | None = None) -> Any:
        _send(self._home, name, *arguments)
        while True:
            kind, value = _receive(self._home)
            if kind == "stage" and on_stage is not None:
                on_stage(value)
            elif kind == "raised":
                raise value
            else:
                return value


class PolicyHome:
    """The test's end: calls the policy that `load` brings, for each process that loads `recipe`."""

    def __init__(self, load: LoadPolicy) -> None:
        self._load = load
        self._is_closed = False
        self._listener = Listener(family="AF_UNIX")
        self._thread = threading.Thread(target=self._accept, name="policy home")
        self._thread.start()
        self.recipe = Recipe(f"{__name__}:FarPolicy", {"address": self._listener.address})

    def close(self) -> None:
        """Take no more processes; calls that run go on."""
        self._is_closed = True
        Client(self._listener.address).close()  # so that accept() returns
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            connection = self._listener.accept()
            if self._is_closed:
                connection.close()
                return
            # A daemon: a call that hangs is not to keep the tests from ending.
            threading.Thread(target=self._serve, args=(connection,), name="policy", daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        policy: Policy | None = None
        with connection, suppress(EOFError, OSError):  # the process has ended, or was killed
            while True:
                name, *arguments = _receive(connection)
                try:
                    if name == "load":
                        policy = self._load(lambda stage: _send(connection, "stage", stage))
                        answer = policy.spec, getattr(policy, "buckets", None)
                    else:
                        answer = getattr(policy, name)(*arguments)
                    said = _written("done", answer)
                except BaseException as error:  # whatever it raises is what the process is to see
                    said = _written("raised", error)
                connection.send_bytes(said)


class _Pickler(pickle.Pickler):
    """Errors go as they go between a policy's process and its server: most cannot be made again from their text."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, BaseException):
            return read_error, (write_error(obj),)
        return (dict, (dict(obj),)) if isinstance(obj, MappingProxyType) else NotImplemented


def _written(*message: Any) -> bytes:
    written = io.BytesIO()
    _Pickler(written).dump(message)
    return written.getvalue()


def _send(connection: Connection, *message: Any) -> None:
    connection.send_bytes(_written(*message))


def _receive(connection: Connection) -> Any:
    return pickle.loads(connection.recv_bytes())
