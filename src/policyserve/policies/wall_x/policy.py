"""A Wall-X model as a policy: observations of many sessions in, un-normalised action chunks out."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeAlias

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import BadAction, Overloaded, PolicyFailed, PolicyserveError
from policyserve.core.log import Log
from policyserve.core.policy import ActionChunk, PolicyInput
from policyserve.core.printable import error_text
from policyserve.core.spec import PolicySpec
from policyserve.core.throttle import Throttle, suppressed_note
from policyserve.policies.prefix import rtc_extras
from policyserve.policies.rtc import Rtc
from policyserve.policies.wall_x.conventions import Attention
from policyserve.policies.wall_x.fast import FastTokenizer
from policyserve.policies.wall_x.inputs import ModelInput
from policyserve.policies.wall_x.memory import is_out_of_memory
from policyserve.policies.wall_x.processor import Processor
from policyserve.policies.wall_x.warming import Warming

log = Log(__name__)

Answer: TypeAlias = ActionChunk | PolicyserveError
MAX_NEW_TOKENS = 100


class Model(Protocol):
    """The network: prepared observations in, normalised actions or token ids out, one for each; see WallXModel."""

    def flow(
        self, inputs: Sequence[ModelInput], *, attention: Attention, num_steps: int = 10, how: Rtc | None = None
    ) -> list[Array]: ...
    def generate(self, inputs: Sequence[ModelInput], *, max_new_tokens: int = 100) -> list[list[int]]: ...
    def begin_service(self) -> None: ...
    def free(self) -> None: ...
    def shape_of(self, item: ModelInput) -> Hashable | None: ...
    def neighbours(self, item: ModelInput) -> list[ModelInput]: ...


class Answering(Protocol):
    """How prepared observations become normalised actions, (horizon, at least action_dim) each, or errors."""

    def __call__(self, network: Model, inputs: Sequence[ModelInput]) -> list[Array | PolicyserveError]: ...


@dataclass(frozen=True)
class FlowAnswering:
    """Samples actions from noise. how: how they agree with what a client will execute; None: clients do not say it."""

    attention: Attention
    num_steps: int = 10
    how: Rtc | None = None

    def __call__(self, network: Model, inputs: Sequence[ModelInput]) -> list[Array | PolicyserveError]:
        return [*network.flow(inputs, attention=self.attention, num_steps=self.num_steps, how=self.how)]


@dataclass(frozen=True)
class FastAnswering:
    """Lets the model write action tokens and decodes them.

    first_id: the first action token's id in the model's vocabulary. text_of: ids to text, for the error.
    """

    tokenizer: FastTokenizer
    first_id: int
    text_of: Callable[[Sequence[int]], str]
    horizon: int
    action_dim: int

    def __call__(self, network: Model, inputs: Sequence[ModelInput]) -> list[Array | PolicyserveError]:
        return [self.decode(ids) for ids in network.generate(inputs, max_new_tokens=MAX_NEW_TOKENS)]

    def decode(self, new_ids: Sequence[int]) -> Array | BadAction:
        """Decode what the model wrote, text between the action tokens left out; (horizon, action_dim) float64."""
        action_ids = [id_ - self.first_id for id_ in new_ids if id_ >= self.first_id]
        try:
            return self.tokenizer.decode(action_ids, self.horizon, self.action_dim)
        except BadAction as error:
            return BadAction(f"{error}; the model wrote {self.text_of(new_ids)}")


class WallXModelPolicy:
    """Answers a batch with one call of the network; an observation that is refused fails alone.

    Images and prompts of the next batch are prepared, on the CPU, while the network has the device.
    A session's state is the number of its chunks so far, for its noise. Where the device's memory does not suffice,
    that batch fails and later ones are cut smaller. buckets: the batch sizes that a server warms; sizes: those that are
    computed ahead of their first request once the first real observation was seen.
    """

    def __init__(
        self,
        network: Model,
        processor: Processor,
        answering: Answering,
        spec: PolicySpec,
        *,
        on_undecodable: Literal["error", "zeros"] = "error",
        buckets: Sequence[int] = (1,),
        sizes: Sequence[int] = (),
    ) -> None:
        self.spec = spec
        self.buckets = buckets
        self._network, self._processor, self._answering = network, processor, answering
        self._on_undecodable = on_undecodable
        self._largest = spec.max_batch
        self._warming = Warming(network, sizes)
        self._method = spec.metadata["rtc"]["methods"][0] if "rtc" in spec.metadata else ""
        self._throttle = Throttle()  # of lines that any answer may bring

    def infer(self, batch: Sequence[PolicyInput]) -> list[Answer]:
        return self.infer_prepared(batch, self.prepare(batch))

    def prepare(self, batch: Sequence[PolicyInput]) -> list[ModelInput | PolicyserveError]:
        """All but the noise, which is the session's next."""
        return [self._prepare(one) for one in batch]

    def infer_prepared(
        self, batch: Sequence[PolicyInput], prepared: Sequence[ModelInput | PolicyserveError]
    ) -> list[Answer]:
        prepared = [self._with_noise(one, ready) for one, ready in zip(batch, prepared, strict=True)]
        answers: list[Answer | None] = [one if isinstance(one, PolicyserveError) else None for one in prepared]
        waiting = [place for place, answer in enumerate(answers) if answer is None]
        while waiting:
            places, waiting = waiting[: self._largest], waiting[self._largest :]
            inputs = [one for place in places if isinstance(one := prepared[place], ModelInput)]
            for place, answer in zip(places, self._answer(inputs), strict=True):
                answers[place] = self._chunk(batch[place], prepared[place], answer)
        return [answer for answer in answers if answer is not None]

    def warm_up(self, size: int) -> None:
        """Run the network on an observation of zeros, in a batch of this size, and with actions that are known.

        Raises PolicyFailed where it cannot. Tokens that are no actions are no error: zeros need not make any.
        """
        example = self._processor.prepare(self.spec.example())
        self._warm_up([example] * size)
        if example.prefix is not None:
            known = example.prefix._replace(known=len(example.prefix.rows), delay=1)
            self._warm_up([replace(example, prefix=known)] * size)

    def _warm_up(self, example: Sequence[ModelInput]) -> None:
        try:
            answers = self._answering(self._network, example)
            for answer in answers:
                if not isinstance(answer, PolicyserveError):
                    self.spec.check_actions(answer[:, : self._processor.action_dim])
        except (RuntimeError, MemoryError, PolicyserveError) as error:
            told = f"warm-up with zeros failed in a batch of {len(example)}: {error_text(error)}"
            if is_out_of_memory(error):
                error.__traceback__ = None  # it holds the frames that hold the tensors
                self._network.free()
            raise PolicyFailed(told) from error
        self._warming.note(example)

    def begin_service(self) -> None:
        """From now on clients wait for what is computed."""
        self._network.begin_service()
        self._warming.begin()

    def settle(self) -> bool:
        """Compute a shape that may be asked for, see warming.py. Returns whether there was one."""
        planned = self._warming.next()
        if planned is None:
            return False
        item, size = planned
        if size <= self._largest and isinstance(self._answer([item] * size)[0], Overloaded):
            self._warming.stop()  # there is no memory for what nobody has asked for yet
        return True

    def close(self) -> None:
        """Let go of the network, whose memory is free when nobody else holds it."""
        for name in ("_network", "_warming"):
            vars(self).pop(name, None)

    def _prepare(self, one: PolicyInput) -> ModelInput | PolicyserveError:
        try:
            return self._processor.prepare_ahead(one.observation)
        except PolicyserveError as error:
            return error

    def _with_noise(self, one: PolicyInput, prepared: ModelInput | PolicyserveError) -> ModelInput | PolicyserveError:
        if isinstance(prepared, PolicyserveError):
            return prepared
        return self._processor.with_noise(prepared, one.state or 0)

    def _answer(self, inputs: Sequence[ModelInput]) -> Sequence[Array | PolicyserveError]:
        try:
            answers = self._answering(self._network, inputs)
            self._warming.note(inputs)
            return answers
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside of the handler: the error holds the frames that hold the tensors.
        self._network.free()
        return [self._shrink(len(inputs))] * len(inputs)

    def _shrink(self, size: int) -> PolicyserveError:
        self._largest = max(1, size // 2)
        log.error("out of memory with a batch of %d; batches of at most %d from now on", size, self._largest)
        if size > 1:
            return Overloaded(f"out of memory with a batch of {size}; from now on {self._largest} at a time, ask again")
        return Overloaded(
            "out of memory with one observation; serve smaller images, bfloat16, or on a device with more memory"
        )

    def _chunk(
        self, one: PolicyInput, prepared: ModelInput | PolicyserveError, answer: Array | PolicyserveError
    ) -> Answer:
        state = (one.state or 0) + 1
        if isinstance(answer, BadAction) and self._on_undecodable == "zeros":
            self._note_zeros(answer)
            return ActionChunk(self._zeros(), state)
        if isinstance(answer, PolicyserveError) or isinstance(prepared, PolicyserveError):
            return answer if isinstance(answer, PolicyserveError) else ActionChunk(answer)
        scale = self._processor.normalizer.action[prepared.dataset]
        actions = scale.unnormalise(answer[:, : self._processor.action_dim])
        return ActionChunk(actions.astype(np.float32), state, rtc_extras(self._method, prepared.prefix))

    def _note_zeros(self, why: BadAction) -> None:
        suppressed = self._throttle.passes("zeros", time.monotonic())
        if suppressed is not None:
            log.warning("answered zeros: %s%s", why, suppressed_note(suppressed))

    def _zeros(self) -> Array:
        return np.zeros((self._processor.horizon, self._processor.action_dim), np.float32)
