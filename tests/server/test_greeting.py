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
from policyserve.server.greeting import check_metadata, metadata_of, of_split, patience_s, pinned_dialect, with_images
from policyserve.transforms import jpeg
from tests.policies.frameworks import import_or_skip

SPEC = PolicySpec("arm", {"obs": ArraySpec((4,))}, ArraySpec((7,)), horizon=16, metadata={"device": "cuda:0"})
CONFIG = ServerConfig(first_frame_timeout_s=60)


def session(name: str | None) -> Session:
    dialect = dialects.by_name(name) if name else None
    return Session(dialect, choice=dialects.Auto(), max_pending=4)


@pytest.mark.parametrize(("pinned", "name"), [("vibe_rl", "vibe_rl"), ("auto", None)])
def test_a_pinned_dialect_is_that_of_paths_that_name_none(pinned: str, name: str | None) -> None:
    found = pinned_dialect(ServerConfig(dialect=pinned))
    assert (found.name if found else None) == name


def test_who_is_greeted_is_not_waited_for() -> None:
    assert patience_s(session("openpi"), SPEC, CONFIG) is None
    assert patience_s(session("vibe_rl"), SPEC, CONFIG) == 60
    assert patience_s(session(None), SPEC, CONFIG) == CONFIG.hello_grace_s(client_first=False)


def test_a_greeting_tells_what_the_policy_says_its_spec_and_whose_server_it_is() -> None:
    assert metadata_of(SPEC) == {"device": "cuda:0", "spec": SPEC.describe(), "policyserve": VERSION}


def greeted(name: str, spec: PolicySpec) -> Mapping[str, Any]:
    """What a client of this family reads, but for what every greeting has."""
    greeting = dialects.by_name(name).greeting(metadata_of(spec))
    assert greeting is not None
    read = dialects.by_name(name).read_greeting(greeting)
    return {key: value for key, value in read.items() if key not in ("spec", "policyserve")}


ANYTHING = PolicySpec("anything", None, None)


def test_a_greeting_states_only_what_is_known() -> None:
    assert greeted("openpi", SPEC) == {"device": "cuda:0", "action_dim": 7, "pred_horizon": 16}
    assert greeted("openpi", replace(SPEC, horizon=None)) == {"device": "cuda:0", "action_dim": 7, "pred_horizon": 1}
    assert greeted("openpi", PolicySpec("buttons", {}, ArraySpec((), "int32"))) == {"pred_horizon": 1}
    assert greeted("openpi", PolicySpec("free", {}, ArraySpec((None,)), horizon=3)) == {"pred_horizon": 3}
    assert greeted("openpi", ANYTHING) == {}


def test_wall_xs_own_greeting_has_all_that_its_clients_look_for() -> None:
    blanks = {"predict_mode": None, "env": None}
    assert greeted("wall_x", SPEC) == {"device": "cuda:0", "action_dim": 7, "pred_horizon": 16, **blanks}
    assert greeted("wall_x", ANYTHING) == {"device": None, "action_dim": None, "pred_horizon": None, **blanks}


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


def test_those_alone_who_ask_are_told_that_jpegs_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    import_or_skip("simplejpeg")
    told = metadata_of(SPEC)
    assert with_images(told, "") is told
    assert with_images(told, "webp, png") is told
    assert with_images(told, "webp, JPEG") == {**told, "encoded_images": ["jpeg"]}
    monkeypatch.setattr(jpeg, "find_spec", lambda name: None)
    assert with_images(told, "jpeg") is told


def test_a_blind_split_tells_what_all_its_policies_tell() -> None:
    one, two = np.ones(2000), np.ones(2000)
    two[1000] = 2
    own = {"robot": "arm", "mean": one, "std": one, "spec": {"a": 1}, "policyserve": VERSION}
    other = {"robot": "arm", "mean": one.copy(), "std": two, "spec": {"a": 2}, "policyserve": VERSION}
    told = of_split(own, [other, own], None)
    assert told == {key: own[key] for key in ("robot", "mean", "spec", "policyserve")}
    assert of_split(own, [other, {}], None).keys() == {"spec", "policyserve"}  # one is not ready


def test_a_split_that_is_not_blind_tells_the_policys_name() -> None:
    assert of_split({"checkpoint": 7}, [{"checkpoint": 8}], "v1") == {"checkpoint": 7, "policy": "v1"}
