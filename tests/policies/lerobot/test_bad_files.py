"""Bytes of anybody's in a checkpoint's small files and headers: a policy or a ConfigError, and little memory."""

from __future__ import annotations

import json
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyserve.core.errors import ConfigError
from policyserve.policies.lerobot.layout import CONFIG, WEIGHTS
from policyserve.policies.lerobot.options import LeRobotFlags
from policyserve.policies.lerobot.plan import make_plan, read_folder
from policyserve.policies.lerobot.processors import AFTER, BEFORE, check_for_package
from tests.policies.lerobot.cases import copied, folder
from tests.policies.lerobot.test_statistics import AFTER_NUMBERS

CASES = ("act_state", "diffusion_state_ddim", "act_legacy_033")
_MOST_GROWTH = 40  # times the files' bytes that checking them may take, Python's objects being large
_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["act", "diffusion", "VISUAL", "MIN_MAX", "QUANTILES", "os.system", "../x.safetensors", [], {}]),
    st.lists(st.integers(-3, 10**12), max_size=4),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, one in inner for place in places(one, (*path, key)))]


def mutated(value: Any, draw: st.DataObject) -> Any:
    """A JSON value with another one, or nothing, at up to three of its places."""
    value = json.loads(json.dumps(value))
    for _ in range(draw.draw(st.integers(1, 3))):
        *above, last = draw.draw(st.sampled_from(places(value)[1:] or [(None,)]))
        if last is None:
            return draw.draw(_VALUES)
        holder = value
        for key in above:
            holder = holder[key]
        if draw.draw(st.booleans()) and isinstance(holder, dict):
            del holder[last]
        else:
            holder[last] = draw.draw(_VALUES)
    return value


def checked(target: Path) -> None:
    """Check the policy as a command does; only a ConfigError may come of it, and it takes memory by the files' size."""
    size = sum(file.stat().st_size for file in target.iterdir())
    said = ""
    tracemalloc.start()
    try:
        config = read_folder(str(target))
        if config.network is None:
            check_for_package(target)
        else:
            make_plan(config, LeRobotFlags())
    except ConfigError as error:
        said = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert len(said.splitlines()) <= 1
    assert len(said) < 2000
    assert peak < _MOST_GROWTH * size + (4 << 20)


@pytest.mark.parametrize("case", CASES)
@given(draw=st.data())
@settings(deadline=None, max_examples=60)
def test_mutated_json_is_a_policy_or_a_config_error(case: str, draw: st.DataObject) -> None:
    names = [name for name in (CONFIG, BEFORE, AFTER) if (folder(case) / name).exists()]
    with tempfile.TemporaryDirectory() as place:
        target = copied(case, Path(place))
        name = draw.draw(st.sampled_from(names))
        values = json.loads((target / name).read_text())
        (target / name).write_text(json.dumps(mutated(values, draw)))
        checked(target)


@pytest.mark.parametrize("case", CASES)
@given(draw=st.data())
@settings(deadline=None, max_examples=40)
def test_a_mutated_header_is_a_policy_or_a_config_error(case: str, draw: st.DataObject) -> None:
    names = [name for name in (WEIGHTS, AFTER_NUMBERS) if (folder(case) / name).exists()]
    with tempfile.TemporaryDirectory() as place:
        target = copied(case, Path(place))
        path = target / draw.draw(st.sampled_from(names))
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.dumps(mutated(json.loads(data[8 : 8 + length]), draw)).encode()
        told = draw.draw(st.sampled_from([len(header), length, 0, 1 << 62]))
        path.write_bytes(told.to_bytes(8, "little") + header + data[8 + length :])
        checked(target)


@given(data=st.binary(max_size=300), name=st.sampled_from([CONFIG, BEFORE, AFTER, WEIGHTS, AFTER_NUMBERS]))
@settings(deadline=None, max_examples=40)
def test_any_bytes_in_place_of_a_file_are_a_config_error(data: bytes, name: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        target = copied("act_state", Path(place))
        (target / name).write_bytes(data)
        checked(target)
        with pytest.raises(ConfigError):
            make_plan(read_folder(str(target)), LeRobotFlags())


def test_a_file_that_changes_between_the_check_and_the_loading_is_a_config_error(tmp_path: Path) -> None:
    from tests.policies.frameworks import import_or_skip

    import_or_skip("torch")
    import_or_skip("safetensors")
    from policyserve.policies.lerobot.model import load_model

    target = copied("act_state", tmp_path)
    plan = make_plan(read_folder(str(target)), LeRobotFlags())
    (target / WEIGHTS).write_bytes(b"\0" * 100)
    with pytest.raises(ConfigError, match="not a whole safetensors file"):
        load_model(
            plan.config,
            plan.statistics,
            plan.weights,
            device="cpu",
            dtype="float32",
            threads=1,
            on_stage=lambda _stage: None,
        )
