"""Groups and their answers as bytes."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import msgpack
import numpy as np
import pytest

from policyserve.core.effects import Answered, Outcome
from policyserve.core.errors import BadObservation, PolicyFailed
from policyserve.core.policy import ActionChunk
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec
from policyserve.engine.answering import Task
from policyserve.ray.groups import (
    Answers,
    Described,
    Group,
    Parts,
    joined,
    read_answers,
    read_described,
    read_group,
    write_answers,
    write_described,
    write_group,
)

SPEC = PolicySpec("reacher", {"image": ImageSpec(), "x": ArraySpec((2,))}, ArraySpec((2,)), metadata={"robot": "arm"})
IMAGE = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)


def over(parts: Parts) -> Parts:
    """What comes of it behind a network: other memory, which a policy may write into."""
    message, arrays = parts
    assert type(message) is bytes
    assert (arrays.dtype, arrays.ndim) == (np.uint8, 1)
    return bytes(message), arrays.copy()


def answered(*outcomes: Outcome, now: float = 100.0) -> Answers:
    return read_answers(*over(write_answers(Answers(outcomes, "d", "2"), now)), now=5.0)


def test_a_group_comes_out_as_it_went_in_and_its_sessions_are_their_edges() -> None:
    from policyserve.ray.carrying import write_state

    tasks = [
        Task(1, {"image": IMAGE, "x": np.array([1, 2], np.float32)}, state=None),
        Task("1/2", {"text": "go"}, 3, None),
    ]
    tasks[1] = tasks[1]._replace(state=write_state((4, "calls")))
    forgotten = [("3", write_state("token"))]
    group = read_group(*over(joined(write_group(Group(tasks, "spec", forgotten), "edge "))))
    assert group.digest == "spec"
    assert group.forgotten == [("edge 3", "token")]
    assert [one.session for one in group.tasks] == ["edge 1", "edge 1/2"]
    assert [one.batch_size for one in group.tasks] == [None, 3]
    assert [one.state for one in group.tasks] == [None, (4, "calls")]
    np.testing.assert_array_equal(group.tasks[0].observation["image"], IMAGE)
    group.tasks[0].observation["image"][:] = 0
    group.tasks[0].observation["x"][:] = 0


def test_no_bytes_of_a_client_become_an_object() -> None:
    class Loud:
        def __reduce__(self) -> Any:
            return (pytest.fail, ("it was unpickled",))

    pickled = pickle.dumps(Loud())
    message, arrays = joined(write_group(Group([Task(1, {"bytes": pickled, "text": "!!python"}, state=None)], "")))
    assert type(arrays) is np.ndarray
    assert arrays.dtype == np.uint8
    assert msgpack.unpackb(message, strict_map_key=False)
    assert read_group(message, arrays).tasks[0].observation["bytes"] == pickled
    with pytest.raises(TypeError, match="cannot go to another process"):
        write_group(Group([Task(1, {"x": np.array([Loud()], object)}, state=None)], ""))
    with pytest.raises(TypeError, match="cannot go to another process"):
        write_group(Group([Task(1, {"x": Loud()}, state=None)], ""))


def test_outcomes_come_out_as_they_went_in() -> None:
    chunk = ActionChunk(np.ones((50, 7), np.float32), {"step": 3}, {"seen": IMAGE})
    answer, error = answered(Answered(chunk, 97.0, 99.5), BadObservation("x", "more", "less", "try again")).outcomes
    assert isinstance(answer, Answered)
    np.testing.assert_array_equal(answer.chunk.actions, chunk.actions)
    np.testing.assert_array_equal(answer.chunk.extras["seen"], IMAGE)
    assert (answer.started_at, answer.ended_at) == (2.0, 4.5)  # by the reader's clock
    assert type(answer.chunk.state) is bytes
    assert isinstance(error, BadObservation)
    assert (error.path, error.hint) == ("x", "try again")


def test_an_answer_that_cannot_be_written_fails_alone() -> None:
    def of(extras: dict[str, Any], state: Any = None) -> Answered:
        return Answered(ActionChunk(np.ones(1), state, extras), 0.0, 0.0)

    outcomes = answered(of({"odd": {1, 2}}), of({}), of({}, object()), of({}, np.zeros(100_000))).outcomes
    assert [type(one) for one in outcomes] == [PolicyFailed, Answered, PolicyFailed, PolicyFailed]
    assert [str(outcomes[place]).partition(":")[0] for place in (0, 2)] == [
        "the answer cannot be written",
        "the state of a session cannot travel between machines",
    ]
    assert "--max-state-kib" in str(outcomes[3])


def test_what_is_served_comes_out_as_it_went_in_and_has_a_digest_of_what_clients_see() -> None:
    described = Described(SPEC, "3")
    assert read_described(write_described(described)) == described
    assert described.digest == Described(replace(SPEC, max_batch=4), "4").digest
    assert described.digest != Described(replace(SPEC, name="other"), "3").digest


def test_a_spec_that_cannot_leave_its_process_says_so() -> None:
    with pytest.raises(PolicyFailed, match="the policy's spec cannot leave its process"):
        write_described(Described(replace(SPEC, metadata={"odd": object()}), "1"))
