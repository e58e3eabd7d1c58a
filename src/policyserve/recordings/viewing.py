"""A recording in Rerun: a tab for each session, of its cameras, its numbers over time and its texts."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from policyserve.core.errors import MissingDependency, PolicyserveError
from policyserve.core.leaf_specs import ImageSpec
from policyserve.core.spec import look_up, paths_in
from policyserve.recordings.reading import Exchange, Recording
from policyserve.recordings.views import jpeg, named, picture_of

if TYPE_CHECKING:
    from policyserve.core.spec import PolicySpec

_MOST_NUMBERS = 64  # lines of one array
_TIMELINE = "time"
_COLOURS = (  # of a plot's lines, which Rerun's own, chosen by name, do not keep apart; fit for the colour-blind
    [86, 180, 233],
    [230, 159, 0],
    [0, 158, 115],
    [240, 228, 66],
    [204, 121, 167],
    [213, 94, 0],
    [150, 150, 150],
    [0, 114, 178],
)


def show(recording: Recording, save: Path | None = None) -> int:
    """Open it in Rerun's viewer, or write it to an .rrd file; returns how many requests are in it.

    Raises MissingDependency without rerun-sdk, RecordingError for what cannot be read.
    """
    try:
        rerun: Any = import_module("rerun")
    except ModuleNotFoundError as error:
        raise MissingDependency(error.name or "rerun", "rerun") from error
    stream = rerun.RecordingStream(f"policyserve {recording.facts.policy}".strip())
    if save is None:
        stream.spawn()
    else:
        stream.save(str(save))
    count = 0
    panels = [_Panels(rerun, stream, session.number, recording.spec_of(session)) for session in recording.sessions]
    for panel in panels:
        for exchange in recording.exchanges(panel.session):
            if panel.show(exchange):
                stream.send_blueprint(_layout(rerun, panels))
            count += 1
    stream.flush()
    return count


class _Panels:
    """One session in Rerun: what it logged so far, and where it is to be seen."""

    def __init__(self, rerun: Any, stream: Any, session: int, spec: PolicySpec | None) -> None:
        self.session = session
        self._rerun, self._stream, self._spec = rerun, stream, spec
        self._cameras: dict[str, str] = {}  # the titles of places, in the order in which they were seen
        self._lines: dict[str, str] = {}
        self._texts: dict[str, str] = {}  # the newest text of each place

    def show(self, exchange: Exchange) -> bool:
        """Log a request and its answer; whether there is something that was not there before."""
        before = self.places
        self._stream.set_time(_TIMELINE, timestamp=exchange.arrived_at)
        self._stream.set_time("request", sequence=exchange.number)
        try:
            self._show_request(exchange)
        except PolicyserveError as error:
            self._say("refused", str(error), "ERROR")
            return self.places != before
        if exchange.error is not None:
            self._say("refused", ": ".join(exchange.error), "ERROR")
        elif exchange.actions is not None:
            action = None if self._spec is None else self._spec.action
            rank = 1 if action is None else len(action.shape)
            actions = exchange.actions
            first = actions.reshape(-1, *actions.shape[actions.ndim - min(rank, actions.ndim) :])[0]
            self._plot("actions", first, action)
        return self.places != before

    def panel(self) -> Any:
        """The session's tab: its cameras beside its numbers, its texts below."""
        views = self._rerun.blueprint
        cameras = [views.Spatial2DView(origin=place, name=title) for place, title in self._cameras.items()]
        lines = [views.TimeSeriesView(origin=place, name=title) for place, title in self._lines.items()]
        rows = [views.Horizontal(*(views.Vertical(*some) for some in (cameras, lines) if some))]
        shares = [5]
        if self._texts:
            origin = self._rerun.new_entity_path([f"session_{self.session}"])
            rows.append(views.TextLogView(origin=origin, name="texts"))
            shares.append(1)
        return views.Vertical(*rows, row_shares=shares, name=f"session {self.session}")

    @property
    def places(self) -> tuple[int, int, bool]:
        """How many there are of each kind."""
        return len(self._cameras), len(self._lines), bool(self._texts)

    def _show_request(self, exchange: Exchange) -> None:
        sent = exchange.sent
        for path in paths_in(sent):
            value = look_up(sent, path)
            leaf = None if self._spec is None else self._spec.leaves.get(path)
            picture = picture_of(value) if leaf is None or isinstance(leaf, ImageSpec) else None
            if picture is not None:
                place = self._place(path)
                self._stream.log(place, self._rerun.EncodedImage(contents=jpeg(picture), media_type="image/jpeg"))
                self._cameras.setdefault(place, path)
            elif isinstance(value, str):
                self._say(path, value)
            else:
                self._plot(path, value, leaf)

    def _say(self, path: str, text: str, level: str = "INFO") -> None:
        """A text, unless it was the last one there: a prompt comes with each request."""
        place = self._place(path)
        if level != "INFO" or self._texts.get(place) != text:
            self._stream.log(place, self._rerun.TextLog(text, level=level))
            self._texts[place] = text

    def _plot(self, path: str, value: Any, leaf: Any) -> None:
        array = np.asarray(value)
        if array.dtype.kind in "biuf" and 0 < array.size <= _MOST_NUMBERS:
            place = self._place(path)
            for index, (name, number) in enumerate(named(array, leaf).items()):
                line = self._place(path, name)
                if place not in self._lines:
                    colour = _COLOURS[index % len(_COLOURS)]
                    self._stream.log(line, self._rerun.SeriesLines(colors=[colour], names=[name]), static=True)
                self._stream.log(line, self._rerun.Scalars(float(number)))
            self._lines.setdefault(place, path)

    def _place(self, path: str, *more: str) -> str:
        """Where in Rerun's tree something is: names may have spaces, units in them say."""
        return self._rerun.new_entity_path([f"session_{self.session}", *path.split("/"), *more])


def _layout(rerun: Any, panels: Sequence[_Panels]) -> Any:
    """A tab for each session that has shown something."""
    views = rerun.blueprint
    tabs = [panel.panel() for panel in panels if any(panel.places)]
    return views.Blueprint(views.Tabs(*tabs), collapse_panels=True)
