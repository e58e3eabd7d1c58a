"""What a run saw, and how its time is split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from policyserve.bench.measures import Quantiles
from policyserve.bench.tally import Tally, first_line, kind_of, split
from policyserve.core.errors import ConnectionLost, DeadlineExceeded, PolicyserveError, RemoteError

CLIENT = Quantiles(1.0, 1.0, 1.0, 1.0)


def tally_of(*timings: Mapping[str, Any]) -> Tally:
    """Every round trip took 10 ms, 2 of them before the request was sent."""
    tally = Tally(seconds=1.0)
    for timing in timings:
        tally.answered(5.0, 5.002, 5.010, timing)
    return tally


def medians(tally: Tally, client: Quantiles | None = CLIENT, is_paced: bool = False) -> dict[str, Any]:
    return {name: pytest.approx(part.p50) for name, part in split(tally, client, is_paced).items()}


OURS = {"total_ms": 6.0, "queue_ms": 2.0, "infer_ms": 3.0}


def test_a_server_of_ours_tells_all_its_parts() -> None:
    found = medians(tally_of(OURS, OURS))
    assert found == {"round trip": 10, "client": 1, "network": 3, "server": 1, "queue": 2, "infer": 3}


def test_in_an_open_loop_the_wait_before_sending_is_a_part() -> None:
    found = medians(tally_of(OURS), is_paced=True)
    assert found == {"round trip": 10, "client": 1, "late": 2, "network": 1, "server": 1, "queue": 2, "infer": 3}


def test_what_openpis_own_server_does_not_tell_stays_with_the_network() -> None:
    timing = {"infer_ms": 3.0, "prev_total_ms": 999.0}  # its total counts its wait for the request too
    assert medians(tally_of(timing)) == {"round trip": 10, "client": 1, "network + server": 6, "infer": 3}


def test_vibe_rls_server_tells_its_whole_side() -> None:
    found = medians(tally_of({"latency_ms": 4.0}))
    assert found == {"round trip": 10, "client": 1, "network": 5, "server + infer": 4}


@pytest.mark.parametrize("timing", [{}, {"infer_ms": "soon"}, {"infer_ms": float("nan")}, {"infer_ms": None}])
def test_a_timing_that_is_none_is_not_told(timing: Mapping[str, Any]) -> None:
    assert medians(tally_of(timing, {"infer_ms": 1.0}), None) == {"round trip": 10, "network + server": 10}


def test_a_clock_that_disagrees_makes_no_part_negative() -> None:
    assert medians(tally_of({**OURS, "total_ms": 50.0}))["network"] == 0


KINDS = {
    "overloaded": RemoteError("overloaded: 3 requests of this session have no answer yet"),
    "remote": RemoteError("something went wrong"),
    "close 1011": RemoteError("policy failed (close code 1011)", 1011),
    "connection_lost": ConnectionLost("the connection ended", 1006),
    "deadline_exceeded": DeadlineExceeded("no answer"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_errors_are_counted_by_kind(kind: str) -> None:
    tally = Tally()
    tally.failed(KINDS[kind])
    tally.failed(KINDS[kind])
    assert tally.errors == {kind: 2}
    assert kind_of(KINDS[kind]) == kind
    assert tally.examples[kind] in str(KINDS[kind])


def test_of_a_traceback_the_last_line_is_told() -> None:
    assert first_line('Traceback (most recent call last):\n  File "x"\n\nValueError: no\n') == "ValueError: no"
    assert first_line("\nbad_observation: obs\nmore") == "bad_observation: obs"
    assert first_line("") == "no text"


def test_slices_add_up() -> None:
    whole, part = tally_of(OURS), tally_of(OURS, OURS)
    part.failed(PolicyserveError("no"))
    part.unsent = 3
    whole.add(part)
    assert (whole.answers, whole.seconds, whole.unsent, whole.per_second) == (3, 2.0, 3, 1.5)
    assert whole.errors == {"internal": 1}
    assert Tally().per_second == 0
