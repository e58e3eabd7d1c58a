"""A LeRobot model as a policy: what it remembers of each session is in that session's state, and never in here.

ChunkPolicy answers each request with a chunk. StepPolicy is asked once for each step of the environment, as LeRobot's
select_action is: it keeps each session's last frames, the actions that are left of its chunk, and its ensemble.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.policy import ActionChunk, PolicyInput
from policyserve.core.spec import PolicySpec
from policyserve.policies.lerobot.ensemble import Ensemble, Ensembling
from policyserve.policies.lerobot.noise import Noise
from policyserve.policies.lerobot.statistics import Affine

Frame: TypeAlias = Mapping[str, Any]  # an observation, by the policy's own names
Fit: TypeAlias = Callable[[Array], Array]  # a picture of any size to one of the policy's
Row: TypeAlias = Sequence[Frame]  # the last n_obs_steps of them, the oldest first


class Model(Protocol):
    """What the policies ask: see model.LeRobotModel."""

    draws: int

    def __call__(self, rows: Sequence[Row], noise: Array | None) -> Array: ...


class Asking:
    """A model with what stands around it: clients' names, noise, and actions in physical units.

    names: of a spec's keys, by the policy's own. fits: what makes pictures fit, by the policy's own names.
    n_obs_steps: frames that a row has. has_history: an observation's arrays have an axis of frames in front.
    """

    def __init__(
        self,
        model: Model,
        noise: Noise,
        action: Affine | None,
        names: Mapping[str, str],
        *,
        fits: Mapping[str, Fit] | None = None,
        n_obs_steps: int = 1,
        has_history: bool = False,
    ) -> None:
        self.n_obs_steps = n_obs_steps
        self._model, self._noise, self._action = model, noise, action
        self._names, self._fits, self._has_history = names, fits or {}, has_history
        self._sessions = count()

    @property
    def is_random(self) -> bool:
        return self._model.draws > 0

    def new_session(self) -> int:
        """The number of a session that is asked for the first time."""
        return next(self._sessions)

    def frame(self, one: PolicyInput) -> Frame:
        """An observation by the policy's own names."""
        return framed(one, self._names, self._fits)

    def row(self, one: PolicyInput) -> Row:
        """An observation alone as a row: its own history, or itself again and again."""
        frame = self.frame(one)
        if not self._has_history:
            return (frame,) * self.n_obs_steps
        return tuple({name: values[index] for name, values in frame.items()} for index in range(self.n_obs_steps))

    def chunks(self, rows: Sequence[Row], turns: Sequence[tuple[int, int]]) -> Array:
        """Normalised actions, (B, actions, action). turns: of each row its session, and the chunks that it has had."""
        return self._model(rows, self.noise(turns))

    def noise(self, turns: Sequence[tuple[int, int]]) -> Array | None:
        """What the model begins with, (B, draws, actions, action); None where it draws nothing, or by itself."""
        return np.stack([self._noise(*turn) for turn in turns]) if self.is_random else None

    def physical(self, actions: Array) -> Array:
        """What a robot is sent."""
        action = self._action
        if action is None:
            return actions
        with np.errstate(all="ignore"):  # what is no finite number then is refused before it is sent
            return (actions - np.float32(action.offset)) / np.float32(action.gain) * action.scale + action.shift


def framed(one: PolicyInput, names: Mapping[str, str], fits: Mapping[str, Fit]) -> Frame:
    """An observation by the policy's own names, its pictures in the policy's size."""
    frame = {own: one.observation[name] for own, name in names.items()}
    return {**frame, **{own: fit(frame[own]) for own, fit in fits.items()}}


class _Turn(NamedTuple):
    """A session and how many chunks it has had."""

    session: int
    chunk: int


class ChunkPolicy:
    """Answers each request with the first `spec.horizon` actions of a chunk."""

    def __init__(self, asking: Asking, spec: PolicySpec, buckets: Sequence[int]) -> None:
        self.spec, self.buckets = spec, buckets
        self._asking = asking

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        turns = [self._turn(one.state) for one in batch]
        chunks = self._asking.chunks([self._asking.row(one) for one in batch], turns)[:, : self.spec.horizon]
        states = map(self._next, turns)
        return [ActionChunk(*one) for one in zip(self._asking.physical(chunks), states, strict=True)]

    def close(self) -> None:
        """Let go of the network, whose memory is free when nobody else holds it."""
        vars(self).pop("_asking", None)

    def _turn(self, state: _Turn | None) -> _Turn:
        if not self._asking.is_random:
            return _Turn(0, 0)
        return _Turn(self._asking.new_session(), 0) if state is None else state

    def _next(self, turn: _Turn) -> _Turn | None:
        """The state that goes with the chunk of a turn."""
        return _Turn(turn.session, turn.chunk + 1) if self._asking.is_random else None


class Steps(NamedTuple):
    """What is known of one session. frames: its last ones. queue: (n, action) that are still to be sent."""

    session: int
    chunk: int
    frames: tuple[Frame, ...]
    queue: Array
    ensemble: Ensemble | None


class StepPolicy:
    """Answers each request with one action; the model is asked for those sessions alone that have none left.

    n_action_steps: actions of each chunk that are sent. ensembling: asks at each step, and sends means of chunks.
    """

    def __init__(
        self,
        asking: Asking,
        spec: PolicySpec,
        buckets: Sequence[int],
        *,
        n_action_steps: int,
        ensembling: Ensembling | None = None,
    ) -> None:
        self.spec, self.buckets = spec, buckets
        self._asking, self._ensembling = asking, ensembling
        self._n_action_steps = n_action_steps

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        states = [self._seen(one) for one in batch]
        hungry = [place for place, state in enumerate(states) if not len(state.queue)]
        if hungry:
            asked = [states[place] for place in hungry]
            chunks = self._asking.chunks([one.frames for one in asked], [(one.session, one.chunk) for one in asked])
            for place, chunk in zip(hungry, chunks, strict=True):
                states[place] = self._filled(states[place], chunk)
        return [ActionChunk(state.queue[0], state._replace(queue=state.queue[1:])) for state in states]

    def close(self) -> None:
        """Let go of the network, whose memory is free when nobody else holds it."""
        vars(self).pop("_asking", None)

    def _seen(self, one: PolicyInput) -> Steps:
        """A session's state with this step's frame in it; before the first there were others like it."""
        frame, state = self._asking.frame(one), one.state
        if state is None:
            frames = (frame,) * self._asking.n_obs_steps
            return Steps(self._asking.new_session(), 0, frames, np.zeros((0, 0), np.float32), None)
        return state._replace(frames=(*state.frames[1:], frame))

    def _filled(self, state: Steps, chunk: Array) -> Steps:
        if self._ensembling is None:
            actions, ensemble = chunk[: self._n_action_steps], None
        else:
            action, ensemble = self._ensembling.add(state.ensemble, chunk)
            actions = action[None]
        return state._replace(chunk=state.chunk + 1, queue=self._asking.physical(actions), ensemble=ensemble)
