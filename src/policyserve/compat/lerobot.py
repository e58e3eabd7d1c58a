"""The verbs of LeRobot's inference engines, over a policy server: for control loops that are written for those."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError, PolicyserveError
from policyserve.core.messages import Observation
from policyserve.realtime.sync import RealtimeClient
from policyserve.realtime.values import RealtimeStatus


class RealtimeEngine:
    """Answers get_action() at once, while a thread asks the server for the next chunk.

    url, control_hz, options: as RealtimeClient has them. prepare: makes what the server takes out of what the robot
    observed; None: it is sent as it is. convert: makes of each row, (D,), what get_action() returns:
    torch.from_numpy for LeRobot's own loops, which call its cpu(); None: the NumPy array. action_names: what a row's
    numbers are called, `shoulder_pan.pos` for example; None: the server's `action_names`, where it tells them. Raises
    ConfigError for wrong arguments. Any thread may call any of it.
    """

    def __init__(
        self,
        url: str,
        *,
        control_hz: float,
        action_names: Sequence[str] | None = None,
        prepare: Callable[[Any], Observation] | None = None,
        convert: Callable[[Array], Any] | None = None,
        **options: Any,
    ) -> None:
        for name, given in (("prepare", prepare), ("convert", convert)):
            if given is not None and not callable(given):
                raise ConfigError(f"{name}: expected a function, got {given!r:.80}")
        self._names = None if action_names is None else _read_names("action_names", action_names)
        self._make = lambda: RealtimeClient(url, control_hz=control_hz, **options)
        self._prepare, self._convert = prepare, convert
        self._client = self._make()
        self._is_closed = self._is_paused = False

    def start(self) -> None:
        """Connect, in the background; after a stop() too."""
        if self._is_closed:
            self._client, self._is_closed, self._is_paused = self._make(), False, False
        self._client.__enter__()

    def stop(self) -> None:
        """End the thread and the connection; get_action() gives None until start()."""
        self._is_closed = True
        self._client.close()

    def pause(self) -> None:
        """Hand out no action and ask nothing, until resume()."""
        self._is_paused = True
        self._client.stop()

    def resume(self) -> None:
        """Go on with a chunk of a new observation after a pause, or after the fallback's stop."""
        self._is_paused = False
        self._client.resume()

    def reset(self) -> None:
        """Begin a new episode: nothing of what was observed or asked before is executed. A pause stays one."""
        self._client.reset()
        if self._is_paused:
            self._client.stop()

    def notify_observation(self, obs: Any) -> None:
        """Give the newest observation. It raises nothing but what `prepare` raises: see `failed`."""
        if self._is_paused or self._is_closed:
            return
        observation = obs if self._prepare is None else self._prepare(obs)
        try:
            self._client.observe(observation)
        except PolicyserveError:
            return  # the loop goes on with the rows that it has; `failed` tells

    def get_action(self, obs: Any = None) -> Any:
        """The row that is due, (D,); None where there is none: the robot keeps what it does. obs plays no part."""
        values = self._client.act().values
        return values if values is None or self._convert is None else self._convert(values)

    def get_named_action(self, obs: Any = None) -> dict[str, float] | None:
        """The same as a map from names to floats, which a LeRobot robot's send_action() takes.

        Raises ConfigError where nobody said the names, or another number of them than a row has.
        """
        values = self._client.act().values
        if values is None:
            return None
        names = self.action_names
        if names is None:
            raise ConfigError(f"action_names: expected {len(values)} names, since the server tells none")
        if len(names) != len(values):
            raise ConfigError(f"action_names: expected {len(values)} names, as an action has numbers, got {len(names)}")
        return dict(zip(names, map(float, values), strict=True))

    @property
    def action_names(self) -> tuple[str, ...] | None:
        """What a row's numbers are called; None: nobody said."""
        if self._names is not None:
            return self._names
        told = self._client.metadata.get("action_names")
        return None if told is None else _read_names("the server's action_names", told)

    @property
    def ready(self) -> bool:
        """Whether a first chunk has come, so that the policy is warm."""
        return self._client.status.chunks > 0

    @property
    def failed(self) -> bool:
        """Whether the asking has ended for good, until reset(): a refused observation or key, for example."""
        return self._client.status.failed is not None

    @property
    def failure_traceback(self) -> str | None:
        """What it ended with, in one line; None unless `failed`."""
        failed = self._client.status.failed
        return None if failed is None else f"{type(failed).__name__}: {failed}"

    @property
    def status(self) -> RealtimeStatus:
        """A snapshot: state, latencies, counters, the last error."""
        return self._client.status

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the server said when the connection was opened; empty before."""
        return self._client.metadata


def _read_names(where: str, given: Any) -> tuple[str, ...]:
    is_list = isinstance(given, Sequence) and not isinstance(given, str)
    if not is_list or not given or not all(isinstance(one, str) for one in given):
        raise ConfigError(f"{where}: expected names of an action's numbers, got {given!r:.80}")
    if len(set(given)) != len(given):
        raise ConfigError(f"{where}: expected each name once, got {given!r:.80}")
    return tuple(given)
