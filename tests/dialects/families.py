"""Sessions of the families without a socket, and what their tests ask of them."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np

from policyserve.core.effects import Answered, Effect, Send, Submit
from policyserve.core.policy import ActionChunk
from policyserve.core.session import Session
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextSpec
from policyserve.dialects import Auto, by_name
from policyserve.server.greeting import metadata_of

SPEC = PolicySpec(
    "arm",
    {"images": {"0": ImageSpec(optional=True)}, "state": ArraySpec((8,)), "prompt": TextSpec(default="")},
    ArraySpec((8,)),
    horizon=3,
    max_client_batch=4,
)


STATE = {"state": np.arange(8, dtype=np.float32)}


ACTIONS = np.arange(24, dtype=np.float32).reshape(3, 8)


def session(name: str | None, spec: PolicySpec = SPEC, **settings: Any) -> tuple[Session, list[Effect]]:
    made = Session(by_name(name) if name else None, choice=Auto(), max_pending=8, **settings)
    return made, made.serve(spec, metadata_of(spec))


def packed(message: Any) -> bytes:
    made = msgpack.packb(message)
    assert isinstance(made, bytes)
    return made


def sent(effects: list[Effect]) -> list[Any]:
    return [effect.message for effect in effects if isinstance(effect, Send)]


def submitted(effects: list[Effect]) -> Submit:
    (submit,) = [effect for effect in effects if isinstance(effect, Submit)]
    return submit


def answered(one: Session, effects: list[Effect], actions: Any = ACTIONS, **extras: Any) -> Any:
    outcome = Answered(ActionChunk(actions, extras=extras), 0.0, 0.001)
    (message,) = sent(one.answer(submitted(effects).ticket, outcome, 0.002))
    return message


def examples(*prompts: str, pictures: int = 1, **more: Any) -> bytes:
    image = np.zeros((2, 2, 3), np.uint8)
    made = [{"image": [image] * pictures, "lang": prompt, "state": STATE["state"][None], **more} for prompt in prompts]
    return by_name("openpi").write_request({"examples": made})
