"""FAST action tokens to actions: BPE ids → characters → coefficients of a cosine transform → numbers over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import BadAction, ConfigError
from policyserve.policies.files import read_json, reading

_LARGEST = 1 << 31  # beyond, a number is a mistake


@dataclass(frozen=True)
class FastTokenizer:
    """Decodes one vocabulary.

    tokens: the string of each id. A character's code point + min_token is a coefficient, `scale` times too large.
    """

    tokens: dict[int, str]
    scale: float
    min_token: int

    @property
    def vocab_size(self) -> int:
        return len(self.tokens)

    def decode(self, ids: Sequence[int], horizon: int, action_dim: int) -> Array:
        """Decode ids to (horizon, action_dim) float64, normalised; raises BadAction for another number of them."""
        coefficients = np.array([ord(character) for character in self.characters(ids)], np.float64) + self.min_token
        wanted = horizon * action_dim
        if coefficients.size != wanted:
            raise BadAction(
                f"the model's action tokens do not decode: expected {horizon} × {action_dim} = {wanted} numbers, "
                f"got {coefficients.size}"
            )
        return _inverse_cosine(horizon) @ (coefficients.reshape(horizon, action_dim) / self.scale)

    def characters(self, ids: Sequence[int]) -> str:
        """The text that ids stand for; ids outside the vocabulary are skipped, broken UTF-8 becomes U+FFFD."""
        return b"".join(_token_bytes(self.tokens.get(int(id_), "")) for id_ in ids).decode("utf-8", "replace")


def load_fast_tokenizer(directory: Path) -> FastTokenizer:
    """Read tokenizer.json and processor_config.json; raises ConfigError naming the file."""
    config = _read_json(directory / "processor_config.json")
    model = _read_json(directory / "tokenizer.json").get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocabulary, dict):
        raise ConfigError(f"{directory / 'tokenizer.json'}: expected a BPE tokenizer with model and vocab")
    scale, min_token = config.get("scale"), config.get("min_token")
    if not (_is_number(scale) and scale != 0 and _is_number(min_token) and isinstance(min_token, int)):
        got = f"{scale!r:.40} and {min_token!r:.40}"
        raise ConfigError(f"{directory / 'processor_config.json'}: expected the numbers scale and min_token, got {got}")
    with reading(directory / "tokenizer.json", "a vocabulary of tokens with their ids"):
        return FastTokenizer({int(id_): token for token, id_ in vocabulary.items()}, float(scale), min_token)


def _is_number(value: Any) -> TypeGuard[int | float]:
    """Whether it is a finite number of a size that makes sense."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _LARGEST


def _read_json(path: Path) -> dict[str, Any]:
    content = read_json(path, "a FAST tokenizer's JSON")
    if not isinstance(content, dict):
        raise ConfigError(f"action_tokenizer_path: {path}: expected a JSON object, got {type(content).__name__}")
    return content


def _token_bytes(token: str) -> bytes:
    """A token with a letter outside the alphabet stands for its own UTF-8."""
    table = _byte_of_letter()
    if all(letter in table for letter in token):
        return b"".join(table[letter] for letter in token)
    return token.encode("utf-8", "replace")


@lru_cache(maxsize=1)
def _byte_of_letter() -> dict[str, bytes]:
    """GPT-2's alphabet: a letter for each byte. Visible bytes are themselves, the others follow after 255."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in visible]
    letters = {chr(byte): bytes([byte]) for byte in visible}
    return letters | {chr(256 + place): bytes([byte]) for place, byte in enumerate(hidden)}


@lru_cache(maxsize=16)
def _inverse_cosine(length: int) -> Array:
    """(time, frequency): the orthonormal DCT-III."""
    time, frequency = np.arange(length)[:, None] + 0.5, np.arange(length)
    matrix = np.cos(np.pi * time * frequency / length) * np.sqrt(2 / length)
    matrix[:, 0] = np.sqrt(1 / length)
    return matrix
