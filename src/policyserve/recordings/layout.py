"""How a recording lies in an MCAP file: topics, metadata, events (docs/recordings.md says what they mean). Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from policyserve.core.errors import ConfigError
from policyserve.core.examples import spec_of
from policyserve.core.spec import PolicySpec, checkpoint_of

PROFILE = "policyserve"  # of the MCAP file
FORMAT = "1"  # of what follows; a reader refuses another one
FILE, POLICY, END = "policyserve.recording", "policyserve.policy", "policyserve.end"  # metadata records
EVENTS = "/events"
BINARY, TEXT = "binary", "text"  # message encodings of raw messages
ENDING = ".mcap"


class RecordingError(ConfigError):
    """A recording that cannot be read; one line that says which, what was expected, what it is, and what to do."""

    code = "bad_recording"


class Opened(NamedTuple):
    """A session as the file tells of it. opened_at, closed_at: seconds since 1970; None while it was open.

    is_continued: it was opened in an earlier file. policy: the one of several that answered it; empty of the only one.
    """

    number: int
    peer: str
    dialect: str
    opened_at: float
    closed_at: float | None = None
    key: str = ""
    is_continued: bool = False
    policy: str = ""


@dataclass(frozen=True)
class PolicyFacts:
    """What was served. spec: PolicySpec.describe() and its batch sizes; checkpoint: empty where it is not known."""

    name: str
    spec: Mapping[str, Any]
    checkpoint: str = ""
    dialect: str = ""

    @classmethod
    def of(cls, spec: PolicySpec) -> PolicyFacts:
        """Those of a policy's spec and what it says of itself."""
        told = spec.metadata
        batches = {"max_batch": spec.max_batch, "max_client_batch": spec.max_client_batch}
        return cls(spec.name, {**spec.describe(), **batches}, str(checkpoint_of(told)), spec.dialect or "")

    @classmethod
    def read(cls, told: Mapping[str, str]) -> PolicyFacts:
        """Those of a metadata record; raises ValueError for what is none."""
        spec = json.loads(told.get("spec", "{}"))
        if not isinstance(spec, dict):
            raise ValueError(f"spec: expected a map, got {spec!r:.60}")
        return cls(told.get("name", ""), spec, told.get("checkpoint", ""), told.get("dialect", ""))

    def record(self) -> dict[str, str]:
        """The metadata record."""
        return {
            "name": self.name,
            "spec": json_of(self.spec).decode(),
            "checkpoint": self.checkpoint,
            "dialect": self.dialect,
        }

    def policy_spec(self) -> PolicySpec | None:
        """The policy's spec; None where nobody told one. Raises WireError for what is none."""
        if "observation" not in self.spec:
            return None
        return spec_of(self.spec, self.name)


def request_topic(session: int) -> str:
    """Where a session's messages to the server lie."""
    return f"/s{session}/request"


def reply_topic(session: int) -> str:
    """Where a session's messages from the server lie, its greeting among them."""
    return f"/s{session}/reply"


def json_of(value: Any) -> bytes:
    """As JSON in UTF-8; what JSON has not is told as text."""
    return json.dumps(value, default=_jsonable, ensure_ascii=False).encode("utf-8", "replace")


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return dict(value) if isinstance(value, Mapping) else str(value)
