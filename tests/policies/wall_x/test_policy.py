"""The policy around a network that answers what a test wants: batches, refusals, sessions, memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest

from policyserve.core.arrays import Array
from policyserve.core.errors import BadAction, BadObservation, Overloaded, PolicyFailed
from policyserve.core.policy import ActionChunk, PolicyInput, PreparingPolicy
from policyserve.engine.answering import batch_buckets, run_batch
from policyserve.policies.rtc import Rtc
from policyserve.policies.wall_x import Options
from policyserve.policies.wall_x.assembly import build_answering, build_processor, build_spec, make_plan
from policyserve.policies.wall_x.conventions import Attention
from policyserve.policies.wall_x.inputs import ModelInput
from policyserve.policies.wall_x.memory import is_out_of_memory
from policyserve.policies.wall_x.policy import WallXModelPolicy
from tests.policies.frameworks import import_or_skip
from tests.policies.wall_x.golden import facts, model_config, observation, options, tensors

torch = import_or_skip("torch")
for package in ("tokenizers", "PIL.Image", "yaml", "safetensors.numpy"):
    import_or_skip(package)


class Model:
    """Answers its input's noise, or the ids that it is given; raises what `fails` returns for a batch's size."""

    def __init__(
        self, ids: Sequence[int] = (), fails: Callable[[int], BaseException | None] = lambda size: None
    ) -> None:
        self.ids, self._fails = list(ids), fails
        self.batches: list[int] = []
        self.seen: list[tuple[Rtc | None, Sequence[ModelInput]]] = []
        self.freed = 0
        self.is_serving = False
        self.shapes: Callable[[ModelInput], Any] = lambda item: None

    def begin_service(self) -> None:
        self.is_serving = True

    def free(self) -> None:
        self.freed += 1

    def shape_of(self, item: ModelInput) -> Any:
        return self.shapes(item)

    def neighbours(self, item: ModelInput) -> list[ModelInput]:
        return [replace(item, input_ids=item.input_ids[:-step]) for step in (1, 2)]

    def flow(
        self, inputs: Sequence[ModelInput], *, attention: Attention, num_steps: int = 10, how: Rtc | None = None
    ) -> list[Array]:
        self._called(inputs)
        self.seen.append((how, inputs))
        return [one.noise for one in inputs if one.noise is not None]

    def generate(self, inputs: Sequence[ModelInput], *, max_new_tokens: int = 100) -> list[list[int]]:
        self._called(inputs)
        return [self.ids for _ in inputs]

    def _called(self, inputs: Sequence[ModelInput]) -> None:
        self.batches.append(len(inputs))
        error = self._fails(len(inputs))
        if error is not None:
            raise error


def policy_around(
    model: Model,
    name: str = "flow_libero_basic",
    *,
    on_undecodable: Literal["error", "zeros"] = "error",
    sizes: Sequence[int] = (),
    **changes: Any,
) -> WallXModelPolicy:
    plan = make_plan(model_config(name), options(name, **changes))
    processor = build_processor(plan)
    spec = build_spec(plan, processor, default_prompt=None, env="libero", max_batch=plan.options.max_batch or 4)
    answering = build_answering(plan, processor.tokens)
    return WallXModelPolicy(model, processor, answering, spec, on_undecodable=on_undecodable, sizes=sizes)


def given(policy: WallXModelPolicy, name: str = "flow_libero_basic", **changes: Any) -> PolicyInput:
    return PolicyInput(policy.spec.validate({**observation(name), **changes}).observation)


def test_actions_are_scaled_back_with_the_observations_own_data_set() -> None:
    policy = policy_around(Model())
    noise = np.linspace(-2, 2, 32 * 7, dtype=np.float32).reshape(32, 7)
    for dataset in ("physical-intelligence/libero", "libero_all"):
        (chunk,) = run_batch(policy, [given(policy, noise=noise, dataset_names=dataset)])
        assert isinstance(chunk, ActionChunk)
        loaded = torch.load(f"{model_config('flow_libero_basic').model_path}/normalizer_action.pth")
        low, width = (loaded[f"{key}.{dataset}"].numpy() for key in ("min", "delta"))
        np.testing.assert_array_equal(chunk.actions, (noise + 1) / 2 * width + low)


def test_one_refused_observation_fails_alone_and_the_others_are_one_batch() -> None:
    model = Model()
    policy = policy_around(model)
    good = given(policy)
    bad = given(policy, state=np.full(8, np.nan))
    answers = policy.infer([good, bad, good])
    assert [type(answer) for answer in answers] == [ActionChunk, BadObservation, ActionChunk]
    assert model.batches == [2]
    assert policy.infer([bad]) == [answers[1]] or isinstance(policy.infer([bad])[0], BadObservation)
    assert policy.infer([]) == []


def test_a_batch_is_cut_at_max_batch() -> None:
    model = Model()
    policy = policy_around(model, max_batch=2)
    assert policy.spec.max_batch == 2
    assert len(policy.infer([given(policy)] * 5)) == 5
    assert model.batches == [2, 2, 1]


def test_each_session_has_its_own_noise_and_the_same_from_its_start() -> None:
    policy = policy_around(Model())
    whole = given(policy).observation
    without = {key: value for key, value in whole.items() if key != "noise"}
    first, same = policy.infer([PolicyInput(without)] * 2)
    assert isinstance(first, ActionChunk)
    assert isinstance(same, ActionChunk)
    np.testing.assert_array_equal(first.actions, same.actions)
    (second,) = policy.infer([PolicyInput(without, state=first.state)])
    assert isinstance(second, ActionChunk)
    assert not np.array_equal(first.actions, second.actions)
    other = policy_around(Model(), seed=3).infer([PolicyInput(without)])[0]
    assert isinstance(other, ActionChunk)
    assert not np.array_equal(first.actions, other.actions)


def test_what_is_prepared_ahead_gets_the_noise_of_its_sessions_turn() -> None:
    policy = policy_around(Model())
    assert isinstance(policy, PreparingPolicy)
    whole = given(policy).observation
    without = {key: value for key, value in whole.items() if key != "noise"}
    bad = {**without, "state": np.full(8, np.nan)}
    inputs = [PolicyInput(observation, state=3) for observation in (whole, without, bad)]
    prepared = policy.prepare([PolicyInput(one.observation) for one in inputs])
    for ahead, at_once in zip(policy.infer_prepared(inputs, prepared), policy.infer(inputs), strict=True):
        if isinstance(at_once, ActionChunk):
            assert isinstance(ahead, ActionChunk)
            np.testing.assert_array_equal(ahead.actions, at_once.actions)
            assert ahead.state == at_once.state == 4
        else:
            assert type(ahead) is type(at_once) is BadObservation
    own, third, _ = policy.infer_prepared(inputs, prepared)
    (first,) = policy.infer([PolicyInput(without)])
    assert isinstance(own, ActionChunk)
    assert isinstance(third, ActionChunk)
    assert isinstance(first, ActionChunk)
    assert not np.array_equal(third.actions, first.actions)
    assert not np.array_equal(third.actions, own.actions)


class OutOfMemoryError(RuntimeError):
    """As torch's is named."""


@pytest.mark.parametrize(
    "error", [OutOfMemoryError("CUDA"), MemoryError(), RuntimeError("[enforce fail] can't allocate memory: you tried")]
)
def test_out_of_memory_fails_that_batch_with_advice_and_smaller_ones_are_tried(error: BaseException) -> None:
    model = Model(fails=lambda size: error if size > 1 else None)
    policy = policy_around(model, max_batch=4)
    one = given(policy)
    answers = run_batch(policy, [one] * 4)
    assert [type(answer) for answer in answers] == [Overloaded] * 4
    assert "out of memory with a batch of 4; from now on 2 at a time" in str(answers[0])
    answers = run_batch(policy, [one] * 4)
    assert [type(answer) for answer in answers] == [Overloaded] * 2 + [ActionChunk] * 2
    assert all(isinstance(answer, ActionChunk) for answer in run_batch(policy, [one] * 4))
    assert model.batches == [4, 2, 1, 1, 1, 1, 1, 1]
    assert model.freed == 2


def test_out_of_memory_with_one_observation_says_what_helps() -> None:
    policy = policy_around(Model(fails=lambda size: MemoryError()))
    (answer,) = run_batch(policy, [given(policy)])
    assert isinstance(answer, Overloaded)
    assert "smaller images, bfloat16" in str(answer)


def test_other_errors_of_the_network_are_no_matter_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("shapes"))
    policy = policy_around(Model(fails=lambda size: RuntimeError("shapes")))
    (answer,) = run_batch(policy, [given(policy)])
    assert isinstance(answer, PolicyFailed)


def prefix_of(rows: Array, known: int, delay: int) -> dict[str, Any]:
    counts = {"prev_length": known, "inference_delay": delay}
    return {"rtc": {"prev_chunk": rows, **{key: np.array(value, np.int32) for key, value in counts.items()}}}


def test_a_prefix_is_normalised_without_clamping_and_reaches_the_network() -> None:
    model = Model()
    policy = policy_around(model, rtc=Rtc("identity"))
    normalised = np.random.default_rng(0).standard_normal((32, 7)).astype(np.float32) * 2
    scale = policy._processor.normalizer.action["libero_all"]  # pyright: ignore[reportPrivateUsage]
    physical = scale.unnormalise(normalised).astype(np.float32)
    plain = given(policy, dataset_names="libero_all")
    sent = given(policy, dataset_names="libero_all", **prefix_of(physical, 20, 4))
    answers = run_batch(policy, [plain, sent])
    ((how, (first, second)),) = model.seen
    assert how == Rtc("identity")
    assert first.prefix is None
    assert second.prefix is not None
    assert second.prefix[1:] == (20, 4, None)
    np.testing.assert_allclose(second.prefix.rows[:20], normalised[:20], atol=1e-5)
    assert not second.prefix.rows[20:].any()
    assert np.abs(second.prefix.rows).max() > 2
    told = [dict(answer.extras) for answer in answers if isinstance(answer, ActionChunk)]
    assert told == [{}, {"rtc": {"method": "identity", "inference_delay": 4, "rows": 20}}]


def test_numbers_that_the_statistics_say_nothing_of_are_not_guided() -> None:
    model = Model()
    policy = policy_around(model, rtc=Rtc())
    processor: Any = policy._processor  # pyright: ignore[reportPrivateUsage]
    scale = processor.normalizer.action["libero_all"]
    silent = replace(scale, width=np.where(np.arange(7) == 3, 0, scale.width).astype(np.float32))
    actions = {**processor.normalizer.action, "libero_all": silent}
    changed = replace(processor, normalizer=replace(processor.normalizer, action=actions))
    policy._processor = changed  # pyright: ignore[reportPrivateUsage]
    run_batch(policy, [given(policy, dataset_names="libero_all", **prefix_of(np.ones((32, 7), np.float32), 20, 4))])
    ((_, (one,)),) = model.seen
    assert one.guided is not None
    assert np.flatnonzero(one.guided).tolist() == [0, 1, 2, 4, 5, 6]
    assert one.prefix is not None
    assert np.isfinite(one.prefix.rows).all()


def test_a_prefix_that_is_refused_fails_alone() -> None:
    policy = policy_around(Model(), rtc=Rtc())
    good, bad = prefix_of(np.ones((32, 7), np.float32), 20, 4), prefix_of(np.full((32, 7), np.nan, np.float32), 20, 4)
    answers = run_batch(policy, [given(policy, **good), given(policy, **bad)])
    assert isinstance(answers[0], ActionChunk)
    assert isinstance(answers[1], BadObservation)
    assert answers[1].path == "rtc/prev_chunk"


def test_guided_steps_are_warmed_with_actions_that_are_known() -> None:
    model = Model()
    policy_around(model, rtc=Rtc()).warm_up(2)
    assert [len(inputs) for _, inputs in model.seen] == [2, 2]
    assert [[one.prefix and one.prefix.known for one in inputs] for _, inputs in model.seen] == [[0, 0], [32, 32]]
    plain = Model()
    policy_around(plain).warm_up(2)
    assert [[one.prefix for one in inputs] for _, inputs in plain.seen] == [[None, None]]


def test_without_the_option_spec_and_greeting_are_as_before() -> None:
    with_it, without = policy_around(Model(), rtc=Rtc()).spec, policy_around(Model()).spec
    assert with_it.metadata["rtc"] == {"methods": ["guided"], "max_delay": None, "action_kind": None}
    assert "rtc" not in without.metadata
    assert {path for path in with_it.leaves if path not in without.leaves} == {
        "rtc/prev_chunk",
        "rtc/prev_length",
        "rtc/inference_delay",
        "rtc/prefix_attention_horizon",
    }


def test_nan_from_the_network_never_reaches_a_robot() -> None:
    class Broken(Model):
        def flow(
            self, inputs: Sequence[ModelInput], *, attention: Attention, num_steps: int = 10, how: Rtc | None = None
        ) -> list[Array]:
            return [np.full((32, 7), np.nan, np.float32) for _ in inputs]

    policy = policy_around(Broken())
    (answer,) = run_batch(policy, [given(policy)])
    assert isinstance(answer, BadAction)


@pytest.mark.parametrize("name", ["fast_libero_1", "fast_libero_h10_textprefix", "fast_aloha_1"])
def test_fast_tokens_become_the_originals_actions(name: str) -> None:
    arrays = tensors(name)
    policy = policy_around(Model(arrays["fast/new_ids"].tolist()), name)
    (chunk,) = run_batch(policy, [given(policy, name)])
    assert isinstance(chunk, ActionChunk)
    assert chunk.actions.dtype == np.float32
    np.testing.assert_allclose(chunk.actions, arrays["fast/predict_action"][0], atol=1e-6)


@pytest.mark.parametrize("name", ["fast_bad_length", "fast_no_eos_100"])
def test_undecodable_tokens_are_that_requests_error_with_what_the_model_wrote(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = Model(tensors(name)["fast/new_ids"].tolist())
    policy, case = policy_around(model, name), facts(name)
    (answer,) = run_batch(policy, [given(policy, name)])
    assert isinstance(answer, BadAction)
    assert f"got {case['decoded_chars']}; the model wrote {case['generated_text']}" in str(answer)
    policy = policy_around(model, name, on_undecodable="zeros")
    (chunk,) = run_batch(policy, [given(policy, name)])
    assert isinstance(chunk, ActionChunk)
    assert chunk.actions.shape == (case["horizon"], case["action_dim"])
    assert not chunk.actions.any()
    assert "answered zeros: the model's action tokens do not decode" in caplog.text


def test_the_spec_tells_cameras_units_names_and_conventions() -> None:
    spec = policy_around(Model(), allow_missing_state=True).spec
    assert list(spec.leaves) == ["front_view", "left_wrist_view", "prompt", "state", "dataset_names", "noise"]
    described = spec.describe()["observation"]
    assert "scaled by the client" in described["state"]["doc"]
    assert described["dataset_names"]["names"] == ["physical-intelligence/libero", "libero_all"]
    assert (described["noise"]["shape"], described["noise"]["optional"]) == ([32, 7], True)
    assert spec.metadata["action_names"][0] == "master_right_ee_cartesian_pos[0]"
    assert spec.metadata["conventions"]["attention"] == "upstream_sdpa"
    assert spec.metadata["env"] == "libero"
    assert "noise" not in policy_around(Model(), "fast_libero_1").spec.leaves


def test_a_missing_camera_is_refused_with_all_of_them_and_the_nearest_name() -> None:
    whole = observation("flow_libero_basic")
    misnamed = {**{key: value for key, value in whole.items() if key != "front_view"}, "frontview": whole["front_view"]}
    with pytest.raises(BadObservation, match=r"the cameras are front_view, left_wrist_view.*did you mean.*'frontview'"):
        policy_around(Model()).spec.validate(misnamed)
    surplus = policy_around(Model()).spec.validate({**whole, "top_view": whole["front_view"]})
    assert surplus.unknown == ("top_view",)


def test_a_state_or_noise_with_a_leading_axis_of_one_is_taken() -> None:
    policy = policy_around(Model())
    whole = observation("flow_libero_basic")
    plain, rows = (
        policy.infer([PolicyInput(policy.spec.validate(one).observation)])[0]
        for one in (whole, {**whole, "state": whole["state"][None], "noise": whole["noise"][None]})
    )
    assert isinstance(plain, ActionChunk)
    assert isinstance(rows, ActionChunk)
    np.testing.assert_array_equal(plain.actions, rows.actions)


def test_the_specs_own_example_is_answered_so_that_a_server_can_warm_up() -> None:
    policy = policy_around(Model())
    assert list(batch_buckets(policy)) == [1]
    (answer,) = run_batch(policy, [PolicyInput(policy.spec.validate(policy.spec.example()).observation)])
    assert isinstance(answer, ActionChunk)
    fast = policy_around(Model([1, 2, 3]), "fast_libero_1")
    fast.warm_up(2)
    fast.close()
    fast.close()


def test_options_default_to_what_strangers_may_send() -> None:
    assert not Options().allow_special_tokens
    assert not Options().allow_missing_state
