"""/metrics: what the server counts, for Prometheus. Everything is read when it is asked for, by prometheus-client.

Nothing here is asked more often than a scrape comes, except LoopLag, which looks once a second.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
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
from policyserve.core.version import VERSION
from policyserve.engine.engine import Engine
from policyserve.observe.counters import Counters
from policyserve.observe.histogram import TIMES_MS, Histogram
from policyserve.observe.tally import Tally
from policyserve.recordings.recorder import Recorder
from policyserve.server.reception import Reception
from policyserve.server.routes import Asked, Response, Route

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
    """The page of one server. page: what to add to its routes."""

    def __init__(
        self, reception: Reception, engine: Engine, counters: Counters, recorder: Recorder | None = None
    ) -> None:
        self.tally = Tally(lambda: reception.spec.name if reception.spec is not None else "")
        self.lag = LoopLag()
        self.page = Route(self._respond)
        self._reception, self._engine, self._counters = reception, engine, counters
        self._recorder = recorder
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
        yield _histogram("batch_size", "Requests in one call of the policy.", *_sizes(self.tally.calls))
        yield from self._sessions()
        yield from self._work()
        yield from self._recording()
        yield from self._state()

    def _requests(self) -> Metric:
        told = "Requests by outcome: answered, or the error's code."
        family = CounterMetricFamily("policyserve_requests", told, labels=("policy", "dialect", "outcome"))
        for asked, count in sorted(self.tally.requests().items()):
            family.add_metric([_label(text) for text in asked], count)
        return family

    def _times(self) -> Iterator[Metric]:
        counters = self._counters
        told = "From a request's arrival to just before its answer is written."
        yield _histogram("request_seconds", told, *_times(counters.round_trip_ms))
        told = "From a request's arrival to the start of its call."
        yield _histogram("queue_seconds", told, *_times(counters.queue_ms))
        told = "The policy's call, once for each request that it answered."
        yield _histogram("infer_seconds", told, *_times(self.tally.infer_ms))

    def _sessions(self) -> Iterator[Metric]:
        open_now = Counter(session.dialect for session in self._reception.sessions)
        counts = {name: open_now[name] for name in sorted({"auto", *dialects.names(), *open_now})}
        told = "Open sessions by dialect; auto: their first message is awaited."
        yield _labelled(GaugeMetricFamily, "sessions", told, "dialect", counts)
        yield _counter("sessions_opened", "Sessions that were opened.", self._counters.sessions_opened)

    def _work(self) -> Iterator[Metric]:
        tally = self.tally
        yield _gauge("queue_length", "Requests that have no answer yet, those at the policy too.", self._engine.load)
        yield _counter("busy_seconds", "Time that the policy's calls took; replicas are added up.", tally.busy_s)
        yield _counter("received_bytes", "Bytes of clients' messages.", tally.received_bytes)
        yield _counter("sent_bytes", "Bytes of messages to clients.", tally.sent_bytes)
        held = sum(peer.held_bytes() for peer in self._reception.peers)
        yield _gauge(
            "buffered_bytes", "Bytes of messages that are unfinished, unanswered, or answered and unread.", held
        )
        told = "Policies that were replaced: hung, since a call never returned, or broke."
        yield _labelled(CounterMetricFamily, "policy_replacements", told, "reason", tally.replaced)

    def _recording(self) -> Iterator[Metric]:
        recorder = self._recorder
        is_recording, left_out = (recorder.is_recording, recorder.left_out) if recorder else (False, 0)
        yield _gauge("recording", "1 while it records, 0 without --record and when that has ended.", int(is_recording))
        told = "Requests that are not in the recording, since the disk or the processor did not keep up."
        yield _counter("recording_left_out", told, left_out)

    def _state(self) -> Iterator[Metric]:
        is_ready = not (self._reception.stage or self._engine.stage)
        yield _gauge("ready", "1 while the policy answers, else 0.", int(is_ready))
        yield _gauge("loop_lag_seconds", "The latest that the event loop woke in the last 15 s.", self.lag.seconds)
        spec = self._reception.spec
        name, metadata = (spec.name, spec.metadata) if spec is not None else ("", {})
        checkpoint = metadata.get("checkpoint", metadata.get("checkpoint_step", ""))
        info = {"version": VERSION, "policy": _label(name), "checkpoint": _label(checkpoint)}
        yield InfoMetricFamily("policyserve_build", "What is served, and by which version.", info)


def _label(value: object) -> str:
    """A policy's own text, at most so long. It can be encoded: the greeting that tells it was checked."""
    return str(value)[:_MOST_OF_LABEL]


def _gauge(name: str, told: str, value: float) -> Metric:
    return GaugeMetricFamily(f"policyserve_{name}", told, value)


def _counter(name: str, told: str, value: float) -> Metric:
    return CounterMetricFamily(f"policyserve_{name}", told, value)


def _labelled(
    kind: type[GaugeMetricFamily] | type[CounterMetricFamily],
    name: str,
    told: str,
    label: str,
    values: Mapping[str, float],
) -> Metric:
    family = kind(f"policyserve_{name}", told, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family


def _histogram(name: str, told: str, buckets: Buckets, total: float) -> Metric:
    return HistogramMetricFamily(f"policyserve_{name}", told, buckets, total)


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
