"""/metrics: what the server counts, for Prometheus. Everything is read when it is asked for, by prometheus-client.

Nothing here is asked more often than a scrape comes, except LoopLag, which looks once a second.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from policyserve import dialects
from policyserve.core.spec import checkpoint_of
from policyserve.core.version import VERSION
from policyserve.engine.engine import CountingEngine
from policyserve.observe.histogram import TIMES_MS, Histogram
from policyserve.observe.tally import Tally
from policyserve.recordings.recorder import Recorder
from policyserve.server.reception import Reception
from policyserve.server.routes import Asked, Response, Route
from policyserve.server.served import Served

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"  # of the text format
_MOST_OF_LABEL = 200  # characters
_LOOK_EVERY_S = 1.0
_LOOKS = 15  # as many seconds as Prometheus usually leaves between two scrapes
_FIRST, _LAST, _STEP = 12, 80, 4  # of TIMES_MS: 0.08 ms to 10.5 s, each bound twice the one before
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

Buckets: TypeAlias = list[tuple[str, float]]


class LoopLag:
    """How late the event loop wakes: the latest of the last 15 looks, one a second."""

    def __init__(self) -> None:
        self._late_s: deque[float] = deque([0.0], maxlen=_LOOKS)
        self._timer: asyncio.TimerHandle | None = None

    @property
    def seconds(self) -> float:
        """0 before the first look."""
        return max(self._late_s)

    def start(self) -> None:
        """Begin; there is an event loop."""
        loop = asyncio.get_running_loop()
        due = loop.time() + _LOOK_EVERY_S
        self._timer = loop.call_at(due, self._look, due)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def note(self, late_s: float) -> None:
        """It woke so much later than it was asked to."""
        self._late_s.append(max(late_s, 0.0))

    def _look(self, due: float) -> None:
        self.note(asyncio.get_running_loop().time() - due)
        self.start()


class Metrics(Collector):
    """The page of one server, whose policies are counted from now on. page: what to add to its routes."""

    def __init__(self, reception: Reception, recorder: Recorder | None = None) -> None:
        self.lag = LoopLag()
        self.page = Route(self._respond)
        self._reception, self._recorder = reception, recorder
        self._policies = [_Counted(served) for served in reception.catalogue]
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def _respond(self, asked: Asked) -> Response:
        return Response(200, generate_latest(self._registry), _CONTENT_TYPE)

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry need not ask before there is a server."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All that stands on the page, but for the process."""
        yield self._requests()
        yield from self._times()
        told = "Requests in one call of the policy."
        yield self._histogram("batch_size", told, lambda policy: _sizes(policy.tally.calls))
        yield from self._sessions()
        yield from self._work()
        yield from self._recording()
        yield from self._state()
        yield from self._engines()

    def _requests(self) -> Metric:
        told = "Requests by outcome: answered, or the error's code."
        family = CounterMetricFamily("policyserve_requests", told, labels=("policy", "dialect", "outcome"))
        for policy in self._policies:
            for asked, count in sorted(policy.tally.requests().items()):
                family.add_metric([_label(text) for text in asked], count)
        return family

    def _times(self) -> Iterator[Metric]:
        told = "From a request's arrival to just before its answer is written."
        yield self._histogram("request_seconds", told, lambda policy: _times(policy.counters.round_trip_ms))
        told = "From a request's arrival to the start of its call."
        yield self._histogram("queue_seconds", told, lambda policy: _times(policy.counters.queue_ms))
        told = "The policy's call, once for each request that it answered."
        yield self._histogram("infer_seconds", told, lambda policy: _times(policy.tally.infer_ms))

    def _sessions(self) -> Iterator[Metric]:
        facts = self._reception.sessions
        told = "Open sessions by dialect; auto: their first message is awaited."
        family = GaugeMetricFamily("policyserve_sessions", told, labels=("policy", "dialect"))
        for policy in self._policies:
            open_now = Counter(one.dialect for one in facts if one.number in policy.served.sessions)
            for name in sorted({"auto", *dialects.names(), *open_now}):
                family.add_metric((policy.label, name), open_now[name])
        yield family
        opened = "Sessions that were opened."
        yield self._counter("sessions_opened", opened, lambda policy: policy.counters.sessions_opened)

    def _work(self) -> Iterator[Metric]:
        told = "Requests that have no answer yet, those at the policy too."
        yield self._gauge("queue_length", told, lambda policy: policy.served.engine.load)
        told = "Time that the policy's calls took; replicas are added up."
        yield self._counter("busy_seconds", told, lambda policy: policy.tally.busy_s)
        told = "Bytes of clients' messages."
        yield self._counter("received_bytes", told, lambda policy: policy.tally.received_bytes)
        told = "Bytes of messages to clients."
        yield self._counter("sent_bytes", told, lambda policy: policy.tally.sent_bytes)
        held = sum(peer.held_bytes() for peer in self._reception.peers)
        told = "Bytes of messages that are unfinished, unanswered, or answered and unread."
        yield _gauge("buffered_bytes", told, held)
        told = "Policies that were replaced: hung, since a call never returned, or broke."
        family = CounterMetricFamily("policyserve_policy_replacements", told, labels=("policy", "reason"))
        for policy in self._policies:
            for reason, count in policy.tally.replaced.items():
                family.add_metric((policy.label, reason), count)
        yield family

    def _recording(self) -> Iterator[Metric]:
        recorder = self._recorder
        is_recording, left_out = (recorder.is_recording, recorder.left_out) if recorder else (False, 0)
        yield _gauge("recording", "1 while it records, 0 without --record and when that has ended.", int(is_recording))
        told = "Requests that are not in the recording, since the disk or the processor did not keep up."
        yield CounterMetricFamily("policyserve_recording_left_out", told, left_out)

    def _state(self) -> Iterator[Metric]:
        yield self._gauge("ready", "1 while the policy answers, else 0.", lambda policy: int(not policy.served.stage))
        yield _gauge("loop_lag_seconds", "The latest that the event loop woke in the last 15 s.", self.lag.seconds)
        info = InfoMetricFamily("policyserve_build", "What is served, and by which version.", labels=("policy",))
        for policy in self._policies:
            metadata = policy.served.spec.metadata if policy.served.spec is not None else {}
            info.add_metric((policy.label,), {"version": VERSION, "checkpoint": _label(checkpoint_of(metadata))})
        yield info

    def _engines(self) -> Iterator[Metric]:
        """What engines count of their own."""
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for policy in self._policies:
            engine = policy.served.engine
            for figure in engine.figures() if isinstance(engine, CountingEngine) else ():
                kind = CounterMetricFamily if figure.grows else GaugeMetricFamily
                family = families.get(figure.name)
                if family is None:
                    family = kind(f"policyserve_{figure.name}", figure.told, labels=("policy",))
                    families[figure.name] = family
                family.add_metric((policy.label,), figure.value)
        yield from families.values()

    def _gauge(self, name: str, told: str, value: Callable[[_Counted], float]) -> Metric:
        family = GaugeMetricFamily(f"policyserve_{name}", told, labels=("policy",))
        for policy in self._policies:
            family.add_metric((policy.label,), value(policy))
        return family

    def _counter(self, name: str, told: str, value: Callable[[_Counted], float]) -> Metric:
        family = CounterMetricFamily(f"policyserve_{name}", told, labels=("policy",))
        for policy in self._policies:
            family.add_metric((policy.label,), value(policy))
        return family

    def _histogram(self, name: str, told: str, value: Callable[[_Counted], tuple[Buckets, float]]) -> Metric:
        family = HistogramMetricFamily(f"policyserve_{name}", told, labels=("policy",))
        for policy in self._policies:
            family.add_metric((policy.label,), *value(policy))
        return family


class _Counted:
    """A policy and what is counted of it."""

    def __init__(self, served: Served) -> None:
        self.served, self.counters = served, served.counters
        self.tally = Tally(lambda: served.label)
        served.observers.add(self.tally, is_trusted=True)

    @property
    def label(self) -> str:
        return _label(self.served.label)


def _label(value: object) -> str:
    """A policy's own text, at most so long. It can be encoded: the greeting that tells it was checked."""
    return str(value)[:_MOST_OF_LABEL]


def _gauge(name: str, told: str, value: float) -> Metric:
    return GaugeMetricFamily(f"policyserve_{name}", told, value)


def _times(histogram: Histogram) -> tuple[Buckets, float]:
    """Its counts up to each of a few of its bounds, in seconds: exact, since they are bounds of its own."""
    places = range(_FIRST, _LAST + 1, _STEP)
    counts = histogram.counts
    bounds = [(floatToGoString(round(TIMES_MS[place] / 1e3, 9)), sum(counts[: place + 1])) for place in places]
    return [*bounds, ("+Inf", sum(counts))], histogram.total / 1e3


def _sizes(calls: Mapping[int, int]) -> tuple[Buckets, float]:
    def up_to(most: float) -> int:
        return sum(count for size, count in calls.items() if size <= most)

    bounds = [(floatToGoString(size), up_to(size)) for size in SIZES]
    return [*bounds, ("+Inf", up_to(float("inf")))], sum(size * count for size, count in calls.items())
