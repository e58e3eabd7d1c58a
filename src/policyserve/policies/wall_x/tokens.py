"""Text to token ids and back, with the tokenizer.json of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.policies.files import read_json, reading
from policyserve.policies.wall_x.checks import check_length, check_unicode, special_token
from policyserve.policies.wall_x.prompt import ACTION, IMAGE, PROPRIOCEPTION, TURN_END, prompt_text

_PROMPTS_KEPT = 256


def import_tokenizers() -> Any:
    """Import the tokenizers package; raises MissingDependency."""
    try:
        import tokenizers
    except ImportError as error:
        raise MissingDependency("tokenizers", "wall-x") from error
    return tokenizers


class PromptTokens:
    """Encodes prompts for one set of cameras. One thread at a time encodes; any may call text_of().

    tokenizer: of the tokenizers package. allow_special_tokens: a task's text may stand for added tokens, as long as it
    brings no images, states or actions of its own.
    """

    def __init__(self, tokenizer: Any, cameras: Sequence[str], *, allow_special_tokens: bool = False) -> None:
        self.tokenizer = tokenizer
        self._cameras = tuple(cameras)
        self._allow_special_tokens = allow_special_tokens
        self._added: dict[int, str] = {
            id_: token.content for id_, token in tokenizer.get_added_tokens_decoder().items()
        }
        self._image, self._state, self._action = (self.id_of(text) for text in (IMAGE, PROPRIOCEPTION, ACTION))
        self._turn_end = self._ids(TURN_END)
        self._template = self._count_added(self._ids(prompt_text("", self._cameras)))
        self._encoded = lru_cache(maxsize=_PROMPTS_KEPT)(self._encode)

    def id_of(self, text: str) -> int:
        """The id of a token; raises ConfigError if the tokenizer has none of this name."""
        id_ = self.tokenizer.token_to_id(text)
        if id_ is None:
            raise ConfigError(f"the tokenizer has no token {text}: it belongs to another model")
        return id_

    def prefix(self, task: str, image_tokens: Sequence[int]) -> Array:
        """Encode what stands before the model's answer; (L,) int64, each image's token repeated image_tokens times.

        Raises BadObservation for a task that holds special tokens, or with which the text would be too long.
        """
        ids = self._encoded(task)
        repeats = np.ones(ids.size, np.int64)
        repeats[ids == self._image] = image_tokens
        check_length(int(repeats.sum()))
        return np.repeat(ids, repeats)

    def with_actions(self, prefix: Array, horizon: int, *, trailing: bool) -> Array:
        """Append `horizon` action tokens and, with `trailing`, the end of the turn; raises BadObservation."""
        ids = np.concatenate([prefix, np.full(horizon, self._action), self._turn_end if trailing else []])
        check_length(ids.size)
        return ids.astype(np.int64)

    def text_of(self, ids: Sequence[int]) -> str:
        """The text that ids stand for, special tokens included."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=False)

    def _encode(self, task: str) -> Array:
        check_unicode(task)  # the tokenizer's own error for lone surrogates is a TypeError
        ids = self._ids(prompt_text(task, self._cameras))
        self._check_added(ids)
        check_length(ids.size)
        return ids

    def _ids(self, text: str) -> Array:
        return np.array(self.tokenizer.encode(text, add_special_tokens=False).ids, np.int64)

    def _count_added(self, ids: Array) -> dict[int, int]:
        found, counts = np.unique(ids, return_counts=True)
        return {int(id_): int(n) for id_, n in zip(found, counts, strict=True) if int(id_) in self._added}

    def _check_added(self, ids: Array) -> None:
        """What the tokenizer takes for special tokens decides, not what the text looks like."""
        for id_, count in self._count_added(ids).items():
            is_structure = id_ in (self._image, self._state, self._action)
            if count != self._template.get(id_, 0) and (is_structure or not self._allow_special_tokens):
                raise special_token(self._added[id_])


def load_tokenizer(model_path: Path, processor_path: Path | None = None, *, action_tokens: int = 0) -> Any:
    """Load tokenizer.json of a checkpoint, or of the processor that its train config names; raises ConfigError.

    Tokens that training added are added here if the file lacks them. action_tokens: how many FAST has.
    """
    tokenizers = import_tokenizers()
    places = [place / "tokenizer.json" for place in (model_path, processor_path) if place is not None]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise ConfigError(f"no tokenizer: {' and '.join(map(str, places))} do not exist")
    with reading(path, "a tokenizer"):
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        names = [PROPRIOCEPTION, ACTION, *(f"<|action_token_{index}|>" for index in range(action_tokens))]
        tokenizer.add_tokens([name for name in names if tokenizer.token_to_id(name) is None])
    return tokenizer


def special_ids(tokenizer: Any) -> dict[str, int]:
    """The ids of the tokens that the network treats specially, by name."""
    return {name: tokenizer.token_to_id(name) for name in (PROPRIOCEPTION, ACTION)}


def read_action_tokens(model_path: Path, tokenizer: Any) -> tuple[int, int]:
    """The id of the first FAST token in the model's vocabulary, and how many there are; raises ConfigError.

    tokenizer_config.json says so, and the tokenizer has to agree; without that file the tokenizer alone decides.
    """
    path = model_path / "tokenizer_config.json"
    config = read_json(path) if path.is_file() else {}
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: expected a JSON object, got {type(config).__name__}")
    first, count = (_read_count(config, name, path) for name in ("action_token_start_index", "action_token_vocab_size"))
    found = tokenizer.token_to_id("<|action_token_0|>")
    if first is None:
        first = found
    if first is None:
        told = "the model has no action tokens, which predict_mode fast needs"
        raise ConfigError(f"{model_path}: {told}; --model-config.predict-mode diffusion does without")
    if found is not None and found != first:
        raise ConfigError(f"{path}: action_token_start_index: expected {found}, as tokenizer.json has it, got {first}")
    if count is None:
        count = 0
        while tokenizer.token_to_id(f"<|action_token_{count}|>") is not None:
            count += 1
    return first, count


def _read_count(config: Mapping[str, Any], name: str, path: Path) -> int | None:
    value = config.get(name)
    if value is not None and (type(value) is not int or value < 0):
        raise ConfigError(f"{path}: {name}: expected an integer of 0 or more, got {value!r:.60}")
    return value
