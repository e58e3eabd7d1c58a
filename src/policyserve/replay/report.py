"""What a replay found, as people read it, in 80 columns. Pure."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from policyserve.bench.machine import counted
from policyserve.core.printable import one_line
from policyserve.replay.comparing import Comparison, Dimension, Place
from policyserve.replay.gathered import Gathered, Verdict

COLUMNS = 80
MOST_ROWS = 12
_NAMES = 13  # columns of what stands before each line
_FIRST = 24  # columns of a dimension's name

Highlight = Callable[[str], str]


def text(verdict: Verdict, recording: str, highlight: Highlight = str) -> str:
    """All but the last line. recording: what was replayed, for people. highlight: for what is beyond the tolerance."""
    gathered, found = verdict.gathered, verdict.comparison
    lines = [
        *_row("recording", recording),
        *_row("recorded", gathered.recorded),
        *_row("replayed", gathered.replayed),
        *_row("", gathered.origin),
        *_row("compared", _compared(gathered, found)),
        *_row("tolerance", _tolerance(verdict.tolerance)),
    ]
    if found.dimensions and found.differing:
        lines += ["", *_table(verdict, highlight), ""]
        lines += _places(gathered, found)
    for name, told in _remarks(verdict):
        lines += _row(name, told)
    return "\n".join(lines)


def last_line(verdict: Verdict) -> str:
    """What all of it means."""
    gathered, found = verdict.gathered, verdict.comparison
    missing = ", ".join(_missing(gathered))
    if not found.requests:
        told = "nothing could be compared"
        return f"{told}: {missing}" if missing else f"{told}: no request of the recording was answered with actions"
    if found.other_shapes and not found.beyond:
        others = len(found.other_shapes)
        return f"different: {others} of {counted(found.requests, 'answer')} {_have(others)} another shape"
    if not found.is_within:
        are = "is" if found.beyond == 1 else "are"
        return f"different: {found.beyond} of {counted(found.requests, 'answer')} {are} beyond the tolerance"
    if missing:
        return f"not all could be compared: {missing}"
    if found.is_same:
        return f"the same: no number of {counted(found.requests, 'answer')} differs"
    differ = "differs" if found.differing == 1 else "differ"
    return f"within the tolerance: {found.differing} of {counted(found.requests, 'answer')} {differ}"


def _compared(gathered: Gathered, found: Comparison) -> str:
    of = f"{found.requests} of {counted(gathered.requests, 'request')} in {counted(gathered.sessions, 'session')}"
    if not found.dimensions:
        return of
    numbers = counted(len(found.dimensions), "number")
    chunk = f"chunks of {counted(found.rows, 'action')}, {numbers} each" if found.rows > 1 else f"actions of {numbers}"
    return f"{of}, {chunk}"


def _tolerance(tolerance: float | None) -> str:
    if tolerance is None:
        return "float rounding: 0.00001 of each dimension's largest number"
    return f"{tolerance:g}, in the actions' own units" if tolerance else "0: every number has to be the same"


def _table(verdict: Verdict, highlight: Highlight) -> Iterator[str]:
    gathered, found = verdict.gathered, verdict.comparison
    shown = sorted(found.worst_first[:MOST_ROWS])
    width = min(max(len("difference"), *(len(gathered.name_of(number)) for number in shown)), _FIRST)
    heads = "".join(f"{head:>11}" for head in ("max", "mean", "rms", "of range", "beyond"))
    yield f"{'difference':<{width}}{heads}"
    for number in shown:
        dimension = found.dimensions[number]
        figures = "".join(f"{told:>11}" for told in _figures(dimension))
        line = f"{gathered.name_of(number)[:width]:<{width}}{figures}"
        yield highlight(line) if dimension.beyond else line
    left = found.worst_first[MOST_ROWS:]
    if left:
        most = found.dimensions[left[0]]
        yield f"and {len(left)} more, of which none differs by more than {_share(most)} of its range"


def _figures(dimension: Dimension) -> list[str]:
    numbers = [number_text(value) for value in (dimension.max, dimension.mean, dimension.rms)]
    return [*numbers, _share(dimension), str(dimension.beyond)]


def number_text(value: float) -> str:
    """Three figures, and 0 for none."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:.3g}" if value else "0"


def _share(dimension: Dimension) -> str:
    """The largest difference of the recorded range; a dash where the recorded number never changed."""
    share = dimension.share
    if math.isinf(share):
        return "–"
    percent = share * 100
    return "0 %" if not percent else f"{percent:.0f} %" if percent >= 10 else f"{percent:.2g} %"


def _places(gathered: Gathered, found: Comparison) -> Iterator[str]:
    if found.first_beyond is not None:
        yield from _row("first beyond", place_text(gathered, found.first_beyond, found.rows))
    elif found.first is not None:
        yield from _row("first", place_text(gathered, found.first, found.rows))
    if found.worst is not None:
        yield from _row("worst", place_text(gathered, found.worst, found.rows))


def place_text(gathered: Gathered, place: Place, rows: int) -> str:
    """Where two numbers differ, and both."""
    step = f", step {place.row} of its chunk" if rows > 1 else ""
    digits = next((one for one in (6, 9) if f"{place.recorded:.{one}g}" != f"{place.replayed:.{one}g}"), 17)
    numbers = f"{place.recorded:.{digits}g} recorded, {place.replayed:.{digits}g} replayed"
    return f"session {place.session}, request {place.step}{step}: {gathered.name_of(place.dimension)} {numbers}"


def _remarks(verdict: Verdict) -> Iterator[tuple[str, str]]:
    """What else there is to know, each with what stands before it."""
    gathered, found = verdict.gathered, verdict.comparison
    if found.other_shapes:
        one = found.other_shapes[0]
        count = counted(len(found.other_shapes), "answer")
        shapes = f"{one.recorded} recorded, {one.replayed} replayed in session {one.session}, request {one.step}"
        yield "other shape", f"{count} {_have(len(found.other_shapes))} another shape: {shapes}"
    for code, count in Counter(one.code for one in gathered.refused).most_common():
        one = next(refusal for refusal in gathered.refused if refusal.code == code)
        yield "refused", f"{counted(count, 'request')} ({code}), session {one.session}, request {one.step}: {one.text}"
    for told in gathered.unmatched:
        yield "unmatched", told
    if gathered.stopped:
        yield "stopped", gathered.stopped
    if gathered.unreadable:
        yield "note", f"{counted(gathered.unreadable, 'request')} could not be read, then or now"
    if gathered.without_actions:
        yield (
            "note",
            f"{counted(gathered.without_actions, 'request')} had no actions when they were recorded",
        )
    for told in gathered.notes:
        yield "note", told
    if found.beyond and gathered.compared(None).comparison.is_within:
        yield "note", "all differences are of the size of float rounding, as another kind of processor brings"
    yield from (("noise", told) for told in _noise(verdict))


def _noise(verdict: Verdict) -> Iterator[str]:
    gathered = verdict.gathered
    for key, count in gathered.repeated.items():
        yield f"{counted(count, 'request')} asked with the recorded answer's own {key}"
    if gathered.draws_noise:
        yield (
            "the policy answered the same first request differently when it was asked twice: it draws noise, and the "
            "recording does not say which. Whether it is the same policy cannot be known from this; docs/replay.md "
            "says how a policy tells its noise"
        )
    elif gathered.draws_noise is False and not verdict.comparison.is_within:
        yield "none: asked twice, the policy gives the same answer, so that the differences are no chance"


def _missing(gathered: Gathered) -> Sequence[str]:
    found = []
    if gathered.refused:
        found.append(f"{counted(len(gathered.refused), 'request')} refused")
    if gathered.unmatched:
        found.append("one recording has more")
    if gathered.stopped:
        found.append("stopped early")
    return found


def _have(count: int) -> str:
    return "has" if count == 1 else "have"


def _row(name: str, told: str) -> list[str]:
    """A line, or several where 80 columns do not hold it; none where there is nothing to tell."""
    if not told:
        return []
    blank = " " * _NAMES
    return textwrap.wrap(
        f"{name:<{_NAMES - 1}} {one_line(told)}",
        COLUMNS,
        subsequent_indent=blank,
        break_long_words=False,
        break_on_hyphens=False,
    )
