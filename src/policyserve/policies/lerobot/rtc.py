"""Real-time chunking as the lerobot package's own flow policies do it: they take the prefix as arguments.

They guide a whole batch with one inference delay, so that a batch is asked in groups of requests that have theirs in
common. The prefix goes through the package's own preprocessing as an action of the observation that is answered: it is
normalised as in training, without clamping, and made relative to the state where the policy's actions are that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError, PolicyserveError
from policyserve.core.policy import ActionChunk, PolicyInput
from policyserve.core.spec import PolicySpec
from policyserve.policies.lerobot.options import LeRobotFlags
from policyserve.policies.lerobot.policy import Asking, ChunkPolicy, Row
from policyserve.policies.prefix import Prefix, read_prefix, rtc_extras

METHOD = "identity"  # what the package's guidance is: the error itself, without its vector-Jacobian product
KINDS = ("pi0", "pi05", "smolvla")  # pi0_fast takes the arguments too, and does nothing with them


class PrefixModel(Protocol):
    """A model that takes prefixes, all of one length, delay and end."""

    def chunks(self, rows: Sequence[Row], noise: Array | None, prefixes: Sequence[Prefix] | None) -> Array: ...


def takes_prefix(kind: str, flags: LeRobotFlags, *, is_step: bool) -> bool:
    """Whether a type is served with real-time chunking; raises ConfigError where flags want it and it has none."""
    can = kind in KINDS and not is_step
    if _wants(flags) and not can:
        told = f"{kind} served by steps" if kind in KINDS else f"{kind}; {', '.join(KINDS)} have it"
        raise ConfigError(f"--rtc: expected none or off for {told}")
    return can and flags.rtc != "off"


def _wants(flags: LeRobotFlags) -> bool:
    return flags.rtc == "lerobot" or flags.rtc_schedule is not None or flags.rtc_max_guidance_weight is not None


def switch_on(policy: Any, flags: LeRobotFlags) -> bool:
    """Have a policy of the package take prefixes; what the checkpoint's config says of it stays unless a flag does.

    False for a version of the package that has no real-time chunking; raises ConfigError if flags want it.
    """
    config = policy.config
    if not hasattr(config, "rtc_config") or not callable(getattr(policy, "init_rtc_processor", None)):
        if _wants(flags):
            raise ConfigError("--rtc: expected off, since this version of the lerobot package has none: upgrade it")
        return False
    kinds = import_module("lerobot.configs.types")
    made = config.rtc_config or import_module("lerobot.policies.rtc.configuration_rtc").RTCConfig()
    made.enabled = True
    if flags.rtc_schedule is not None:
        made.prefix_attention_schedule = kinds.RTCAttentionSchedule(flags.rtc_schedule.upper())
    if flags.rtc_max_guidance_weight is not None:
        made.max_guidance_weight = flags.rtc_max_guidance_weight
    config.rtc_config = made
    policy.init_rtc_processor()
    policy.requires_grad_(False)  # its guidance would build the graph of all weights, and use none of it
    return True


def arguments_of(prefixes: Sequence[Prefix], left: Any) -> Mapping[str, Any]:
    """What predict_action_chunk() is given. left: the prefixes as the model has actions, (B, known, action)."""
    first = prefixes[0]
    end = {} if first.end is None else {"execution_horizon": min(first.end, first.known)}
    return {"inference_delay": first.delay, "prev_chunk_left_over": left, **end}


class PrefixChunkPolicy(ChunkPolicy):
    """A ChunkPolicy whose requests may bring a prefix; one that is refused fails alone."""

    def __init__(self, model: PrefixModel, asking: Asking, spec: PolicySpec, buckets: Sequence[int]) -> None:
        super().__init__(asking, spec, buckets)
        self._model = model

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk | PolicyserveError]:  # type: ignore[override]
        turns = [self._turn(one.state) for one in batch]
        prefixes = [_read(one) for one in batch]
        answers: list[ActionChunk | PolicyserveError | None] = [
            one if isinstance(one, PolicyserveError) else None for one in prefixes
        ]
        for places in _alike(prefixes):
            given = [one for place in places if isinstance(one := prefixes[place], Prefix) and one.known]
            rows = [self._asking.row(batch[place]) for place in places]
            noise = self._asking.noise([turns[place] for place in places])
            chunks = self._model.chunks(rows, noise, given or None)[:, : self.spec.horizon]
            for place, actions in zip(places, self._asking.physical(chunks), strict=True):
                prefix = prefixes[place]
                extras = rtc_extras(METHOD, prefix if isinstance(prefix, Prefix) else None)
                answers[place] = ActionChunk(actions, self._next(turns[place]), extras)
        return [answer for answer in answers if answer is not None]

    def close(self) -> None:
        """Let go of the network."""
        super().close()
        vars(self).pop("_model", None)


def _read(one: PolicyInput) -> Prefix | PolicyserveError | None:
    try:
        return read_prefix(one.observation)
    except PolicyserveError as error:
        return error


def _alike(prefixes: Sequence[Prefix | PolicyserveError | None]) -> list[list[int]]:
    """The places of those that one call can answer: with nothing known, or with length, delay and end in common."""
    groups: dict[Any, list[int]] = {}
    for place, prefix in enumerate(prefixes):
        if not isinstance(prefix, PolicyserveError):
            key = None if prefix is None or not prefix.known else prefix[1:]
            groups.setdefault(key, []).append(place)
    return list(groups.values())
