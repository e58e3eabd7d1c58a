"""Tells a policy that has one memory when a session begins."""

from __future__ import annotations

from collections.abc import Hashable

from policyserve.core.errors import PolicyFailed, failed
from policyserve.core.events import Event
from policyserve.core.log import Log
from policyserve.core.policy import ResettablePolicy

log = Log(__name__)


class Resets:
    """Calls reset() for each session that begins while no other is open, and warns when two share the memory.

    A session is open from its first request until forget(). One thread at a time.
    """

    def __init__(self, policy: ResettablePolicy, name: str) -> None:
        self._policy = policy
        self._name = name
        self._open: set[Hashable] = set()
        self._has_warned = False

    def begin(self, session: Hashable) -> PolicyFailed | None:
        """A request of this session is about to be answered; the error if reset() failed, which is tried again."""
        if session in self._open:
            return None
        if self._open:
            self._open.add(session)
            self._warn()
            return None
        try:
            self._policy.reset()
        except BaseException as error:  # a stranger's reset: even sys.exit() must not end the policy's thread
            return failed(f"{self._name}.reset() raised", error)
        self._open.add(session)
        return None

    def forget(self, session: Hashable) -> None:
        """The session is over."""
        self._open.discard(session)

    def _warn(self) -> None:
        if self._has_warned:
            return
        self._has_warned = True
        log.warning(
            "%s has one memory, and %d sessions share it from now on: its reset() is not called while more than one is "
            "open. Serve a function that makes it (package.module:make_policy, PolicyServer(factory=make_policy)), so "
            "that each session has an object of its own, or return what it remembers as ActionChunk.state",
            self._name,
            len(self._open),
            event=Event("policy_shared", policy=self._name),
        )
