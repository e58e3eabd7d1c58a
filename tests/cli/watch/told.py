"""What a server's /live.json may say, to be drawn: three clients of three dialects, and two that were refused."""

from __future__ import annotations

import json
from typing import Any

from policyserve.cli.watch.document import Document, read_document
from policyserve.cli.watch.rows import Row

COUNTS = [0.0, 10.0, 20.0, 40.0, 80.0]


def told(**changes: Any) -> dict[str, Any]:
    """The JSON object, with these of its parts replaced."""
    return {
        "format": 1,
        "server": {"version": "0.1.0", "up_s": 303.0},
        "policy": {
            "name": "kitchen_arm",
            "checkpoint": "runs/kitchen/step_30000",
            "stage": "",
            "is_ready": True,
            "takes": [leaf("front", "uint8 image HWC, 180 x 320"), leaf("state", "float32 (7,)")],
            "gives": "float32 (7,), chunks of 50",
            "facts": {"checkpoint": "runs/kitchen/step_30000", "device": "cpu"},
        },
        "numbers": {
            "answers_per_s": 80.0,
            "p50_ms": 12.34,
            "p99_ms": None,
            "busy": 0.456,
            "sessions": 3,
            "unanswered": 2,
            "answers": 1250,
            "refused": {"bad_observation": 4},
            "refused_lately": {"bad_observation": 3},
        },
        "history": {
            "every_s": 1.0,
            "kept": 120,
            "answers_per_s": COUNTS,
            "p50_ms": [None, 12.0, 12.0, 13.0, 12.34],
            "p99_ms": [None, 20.0, 21.0, 41.5, None],
            "busy": [0.0, 0.1, 0.2, 0.4, 0.456],
            "sessions": [1, 1, 2, 3, 3],
        },
        "sessions": [session(1), session(2, dialect="wall_x", pending=2), session(3, dialect="vibe_rl", p99_ms=None)],
        "sessions_left_out": 0,
        "refusals": [
            refusal(
                expected="uint8 (180, 320, 3)", got="float32 (90, 160, 3)", path="front", hint="send bytes", count=3
            ),
            refusal(code="http_403", session=None, text="pages of 'https://elsewhere' may not connect"),
        ],
        **changes,
    }


def leaf(path: str, kind: str) -> dict[str, Any]:
    """Something that the policy takes."""
    return {"path": path, "kind": kind, "doc": ""}


def session(number: int, **changes: Any) -> dict[str, Any]:
    """One client."""
    usual = {"peer": f"10.0.0.7:{51000 + number}", "dialect": "openpi", "key": "", "hz": 12.5, "p99_ms": 20.4}
    return {"number": number, **usual, "pending": 0, "age_s": 75.2, **changes}


def refusal(**changes: Any) -> dict[str, Any]:
    """One refusal."""
    usual = {"code": "bad_observation", "session": 9, "peer": "10.0.0.9:40000", "text": "no", "path": "", "hint": ""}
    return {**usual, "expected": "", "got": "", "ago_s": 2.4, "count": 1, **changes}


def document(**changes: Any) -> Document:
    """The same, read."""
    return read_document(json.dumps(told(**changes)))


def text_of_row(row: Row) -> str:
    """A row without its styles."""
    return "".join(piece.text for piece in row)
