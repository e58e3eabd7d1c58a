"""How a session begins, without a socket."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve import dialects
from policyserve.core.errors import ConfigError
from policyserve.core.session import Session
from policyserve.core.spec import ArraySpec, PolicySpec
from policyserve.core.version import VERSION
from policyserve.server.config import ServerConfig
from policyserve.server.greeting import check_metadata, dialect_of, metadata_of, patience_s

SPEC = PolicySpec("arm", {"obs": ArraySpec((4,))}, ArraySpec((7,)), horizon=16, metadata={"device": "cuda:0"})
CONFIG = ServerConfig(first_frame_timeout_s=60)


def session(name: str | None) -> Session:
    dialect = dialects.by_name(name) if name else None
    return Session(dialect, choice=dialects.Auto(), max_pending=4)


@pytest.mark.parametrize(
    ("path", "pinned", "name"),
    [
        ("/openpi", "auto", "openpi"),
        ("/openpi", "vibe_rl", "openpi"),
        ("/", "vibe_rl", "vibe_rl"),
        ("/", "auto", None),
    ],
)
def test_a_path_is_certain_and_a_pinned_dialect_is_every_other_paths(path: str, pinned: str, name: str | None) -> None:
    found = dialect_of(path, ServerConfig(dialect=pinned))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert (found.name if found else None) == name


def test_who_is_greeted_is_not_waited_for() -> None:
    assert patience_s(session("openpi"), SPEC, CONFIG) is None
    assert patience_s(session("vibe_rl"), SPEC, CONFIG) == 60
    assert patience_s(session(None), SPEC, CONFIG) == CONFIG.hello_grace_s(client_first=False)


def test_a_greeting_tells_what_the_policy_says_its_spec_and_whose_server_it_is() -> None:
    assert metadata_of(SPEC) == {"device": "cuda:0", "spec": SPEC.describe(), "policyserve": VERSION}


@pytest.mark.parametrize("name", ["openpi", "wall_x"])
def test_founding_clients_find_in_it_what_they_look_for(name: str) -> None:
    def told(spec: PolicySpec) -> Mapping[str, Any]:
        greeting = dialects.by_name(name).greeting(metadata_of(spec))
        assert greeting is not None
        return dialects.by_name(name).read_greeting(greeting)

    arm = told(SPEC)
    assert (arm["action_dim"], arm["pred_horizon"], arm["device"], arm["env"]) == (7, 16, "cuda:0", None)
    bare = told(PolicySpec("anything", None, None))
    assert (bare["action_dim"], bare["pred_horizon"]) == (None, 1)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"spec": "mine"}, "arm: metadata/spec: expected another key"),
        ({"policyserve": "2.0"}, "arm: metadata/policyserve: expected another key"),
        ({"rates": {0: 10.0}}, "rates/0: expected a text as key, got a key of type int"),
        ({"robot": {"model": Path("arm.urdf")}}, "robot/model: expected an array of numbers, a text"),
        ({"joints": [{"limits": {1, 2}}]}, "joints[0]/limits: expected"),
        ({"a": {"nd": True}}, "a: expected a map, got one whose keys mean an array to wall_x's clients"),
        ({"a": {"__ndarray__": True}}, "a: expected a map, got one whose keys mean an array to openpi's clients"),
    ],
)
def test_metadata_that_clients_could_not_read_is_refused_by_its_path(metadata: Any, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_metadata(replace(SPEC, metadata=metadata))
    assert said in str(refused.value)


def test_metadata_that_clients_can_read_passes() -> None:
    check_metadata(SPEC)
    check_metadata(replace(SPEC, metadata={"mean": np.zeros(3), "rates": (1, 2), "action_dim": 6, "none": None}))
