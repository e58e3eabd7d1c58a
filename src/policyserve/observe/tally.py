"""What /metrics needs beyond the counters: requests by policy, dialect and outcome, the policy's work, and bytes.

Counted while requests are answered, so each fact costs an addition or two. Written by the event loop's thread only.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import NamedTuple

from policyserve.core.dialect import TOLD
from policyserve.core.errors import PolicyserveError
from policyserve.core.messages import EncodedText, Message, Timing
from policyserve.core.observer import Observer, SessionFacts
from policyserve.core.policy import ActionChunk
from policyserve.observe.histogram import TIMES_MS, Histogram

ANSWERED, OTHER = "answered", "other"
_OUTCOMES = (ANSWERED, *TOLD)
HUNG, BROKE = "hung", "broke"  # why a policy is replaced


class Asked(NamedTuple):
    """What requests are counted by. outcome: answered, or an error's code."""

    policy: str
    dialect: str
    outcome: str


class Tally(Observer):
    """Counts since the server started. policy: the name of what is served, empty until it is known.

    answered: of open sessions by their number; those of closed ones are in requests(). infer_ms: of each request that
    was answered, the policy's own call. calls: the policy's calls by the number of their requests. busy_s: all of them.
    """

    def __init__(self, policy: Callable[[], str]) -> None:
        self.infer_ms = Histogram(TIMES_MS)
        self.calls: defaultdict[int, int] = defaultdict(int)
        self.busy_s = 0.0
        self.received_bytes = self.sent_bytes = 0
        self.replaced: Counter[str] = Counter({HUNG: 0, BROKE: 0})
        self._policy = policy
        self._answered: defaultdict[int, int] = defaultdict(int)
        self._speakers: dict[int, tuple[str, str]] = {}  # policy and dialect of open sessions
        self._settled: Counter[Asked] = Counter()
        self._infers, self._infer_sums = self.infer_ms.counts, self.infer_ms.sums

    def requests(self) -> Counter[Asked]:
        """Requests that have their outcome.

        Each policy and dialect that was heard of has all outcomes, most of them 0: of a number that appears only with
        the first error, Prometheus' rate() would miss that error.
        """
        told = self._settled.copy()
        for session, count in self._answered.items():
            told[self._asked(session, ANSWERED)] += count
        for policy, dialect in {asked[:2] for asked in told}:
            for outcome in _OUTCOMES:
                told[Asked(policy, dialect, outcome)] += 0
        return told

    def on_session_opened(self, session: SessionFacts) -> None:
        self._answered[session.number] = 0
        self._speakers[session.number] = self._policy(), session.dialect

    def on_dialect(self, session: int, dialect: str) -> None:
        if session in self._speakers:
            self._speakers[session] = self._speakers[session][0], dialect

    def on_session_closed(self, session: int) -> None:
        asked = self._asked(session, ANSWERED)
        if count := self._answered.pop(session, 0):
            self._settled[asked] += count
        self._speakers.pop(session, None)

    def on_message(self, session: int, message: Message | EncodedText, arrived_at: float) -> None:
        self.received_bytes += len(message)

    def on_sent(self, session: int, message: Message) -> None:
        self.sent_bytes += len(message) if type(message) is not str else len(message.encode("utf-8", "replace"))

    def on_answer(self, session: int, ticket: int, chunk: ActionChunk, timing: Timing) -> None:
        # Histogram.add() without the call, since it is for each answer.
        infer_ms = timing.infer_ms
        place = bisect_left(TIMES_MS, infer_ms)
        self._infers[place] += 1
        self._infer_sums[place] += infer_ms
        self._answered[session] += 1

    def on_refusal(self, session: int, ticket: int | None, error: PolicyserveError) -> None:
        self._settled[self._asked(session, error.code if error.code in TOLD else OTHER)] += 1

    def on_batch_ended(self, size: int, seconds: float) -> None:
        self.busy_s += seconds
        self.calls[size] += 1

    def on_policy_replaced(self, name: str, reason: str) -> None:
        # The scheduler's words for a call that never returned; whatever else was said, the policy broke.
        self.replaced[HUNG if "has been running for" in reason else BROKE] += 1

    def on_stage(self, stage: str) -> None:
        for session, (policy, dialect) in self._speakers.items():
            self._speakers[session] = policy or self._policy(), dialect

    def _asked(self, session: int, outcome: str) -> Asked:
        policy, dialect = self._speakers.get(session, ("", "auto"))
        return Asked(policy or self._policy(), dialect, outcome)
