"""Real-time chunking's arithmetic does what the originals' programs do, with NumPy's arrays and with torch's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from policyserve.core.arrays import Array
from policyserve.policies.prefix import Prefix
from policyserve.policies.rtc import LEROBOT, Field, Rtc, Target, guidance_weights, prefix_weights, sample, target_of
from tests.policies.frameworks import import_or_skip
from tests.shared import shared_path

KINDS = ("numpy", "torch")
H, D, STEPS = 12, 2, 10


def cases(kind: str) -> list[str]:
    return sorted(path.stem for path in shared_path("realtime", "golden").glob(f"{kind}_[0-9]*.npz"))


def golden(name: str) -> tuple[dict[str, Array], Mapping[str, Any]]:
    """A golden file's arrays and its settings."""
    with np.load(shared_path("realtime", "golden", f"{name}.npz")) as file:
        arrays = {key: file[key] for key in file.files}
    return arrays, json.loads(str(arrays.pop("meta")))


def numpy_field(net: Mapping[str, Array]) -> Field:
    """The network that the golden files were made with: see their README."""

    def field(x: Array, t: Any) -> tuple[Array, Any]:
        times = np.broadcast_to(np.asarray(t, np.float32), (*x.shape[:2], 1))[..., 0]
        hidden = np.tanh(x.reshape(len(x), -1) @ net["W1"].T + net["b1"] + times @ net["C1"].T)
        velocity = (hidden @ net["W2"].T + net["b2"]).reshape(x.shape)

        def pull(error: Array) -> Array:
            return ((error.reshape(len(x), -1) @ net["W2"] * (1 - hidden**2)) @ net["W1"]).reshape(x.shape)

        return velocity, pull

    return field


def torch_field(net: Mapping[str, Array]) -> Field:
    """The same in torch, whose autograd makes the product."""
    torch = import_or_skip("torch")
    w1, b1, c1, w2, b2 = (torch.from_numpy(net[name]) for name in ("W1", "b1", "C1", "W2", "b2"))

    def field(x: Any, t: Any) -> tuple[Any, Any]:
        x = x.detach().requires_grad_()
        times = torch.as_tensor(t, dtype=torch.float32).expand(*x.shape[:2], 1)[..., 0]
        velocity = (torch.tanh(x.reshape(len(x), -1) @ w1.T + b1 + times @ c1.T) @ w2.T + b2).reshape(x.shape)
        return velocity.detach(), lambda error: torch.autograd.grad(velocity, x, error)[0]

    return field


def sampled(kind: str, arrays: Mapping[str, Array], steps: int, how: Rtc | None, target: Target | None) -> Array:
    if kind == "numpy":
        return sample(numpy_field(arrays), arrays["noise"], steps, how, target)
    torch = import_or_skip("torch")
    there = None if target is None else Target(*map(torch.from_numpy, target))
    return sample(torch_field(arrays), torch.from_numpy(arrays["noise"]), steps, how, there).numpy()


def padded(rows: Array, count: int, horizon: int, width: int) -> list[Array]:
    """`count` times rows (1 or count, n, d) as a chunk, zeros behind and beside."""
    chunks = np.zeros((count, horizon, width), np.float32)
    chunks[:, : rows.shape[1], : rows.shape[2]] = rows
    return list(chunks)


def test_prefix_weights_are_kinetixs_and_lerobots() -> None:
    """LeRobot's differ where guidance ends behind the chunk's end."""
    arrays, meta = golden("prefix_weights")
    compared = 0
    rows = zip(arrays["cases"], arrays["kinetix"], arrays["lerobot"], strict=True)
    for (total, delay, end, place), kinetix, lerobot in rows:
        weights = prefix_weights(int(total), int(delay), int(end), meta["schedules"][place])
        np.testing.assert_allclose(weights, kinetix[:total], rtol=0, atol=1e-6)
        if end <= total:
            np.testing.assert_allclose(weights, lerobot[:total], rtol=0, atol=1e-6)
            compared += 1
    assert compared >= 100


@pytest.mark.parametrize("kind", KINDS)
def test_guided_is_kinetixs(kind: str) -> None:
    for name in cases("kinetix_guided"):
        arrays, meta = golden(name)
        how = Rtc("guided", meta["schedule"], meta["max_guidance_weight"])
        rows, width = meta["H"], meta["A"]
        prefixes = [
            Prefix(chunk, rows, meta["inference_delay"], meta["prefix_attention_horizon"]) for chunk in arrays["prev"]
        ]
        target = target_of(prefixes, how, rows, width)
        guided = sampled(kind, arrays, meta["num_steps"], how, target)
        np.testing.assert_allclose(guided, arrays["guided"], rtol=0, atol=5e-5, err_msg=name)
        plain = sampled(kind, arrays, meta["num_steps"], None, None)
        np.testing.assert_allclose(plain, arrays["plain"], rtol=0, atol=5e-6, err_msg=name)
        is_guided = target is not None and bool(target.weights.any())  # in one case nothing is
        assert (np.abs(guided - plain).max() > 1e-2) == is_guided, name


@pytest.mark.parametrize("kind", KINDS)
def test_identity_is_lerobots(kind: str) -> None:
    for name in cases("lerobot_guided"):
        arrays, meta = golden(name)
        how = Rtc("identity", meta["schedule"], meta["max_guidance_weight"])
        known = arrays["prev"].shape[1]
        delay, end = meta["inference_delay"], meta["execution_horizon_as_end"]
        chunks = padded(arrays["prev"], 2, meta["H"], meta["A"])
        target = target_of([Prefix(chunk, known, delay, end) for chunk in chunks], how, meta["H"], meta["A"])
        guided = sampled(kind, arrays, meta["num_steps"], how, target)
        np.testing.assert_allclose(guided, arrays["guided"], rtol=0, atol=1e-5, err_msg=name)
        weights = guidance_weights(meta["num_steps"], meta["max_guidance_weight"])
        np.testing.assert_allclose(weights, arrays["guidance_weights"], rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_trained_is_lerobots(kind: str) -> None:
    for name in cases("lerobot_trained"):
        arrays, meta = golden(name)
        known, how = arrays["prev"].shape[1], Rtc("trained")
        chunks = padded(arrays["prev"], 2, meta["H"], meta["A"])
        prefixes = [Prefix(chunk, known, meta["inference_delay"]) for chunk in chunks]
        chunk = sampled(kind, arrays, meta["num_steps"], how, target_of(prefixes, how, meta["H"], meta["A"]))
        np.testing.assert_allclose(chunk, arrays["sampled"], rtol=0, atol=1e-5, err_msg=name)


def test_the_guidance_weights_are_the_papers() -> None:
    told = [10, 9.11, 4.25, 2.76, 2.17, 2, 2.17, 2.76, 4.25, 9.11]
    np.testing.assert_allclose(guidance_weights(10), told, atol=5e-3)
    np.testing.assert_allclose(guidance_weights(10, 5), np.minimum(told, 5), atol=5e-3)
    assert guidance_weights(1) == (1.0,)


def test_what_is_lerobots_when_nothing_is_set() -> None:
    assert Rtc("identity", "linear", 10.0, end=10) == LEROBOT


def net(random: np.random.Generator, size: int = 8) -> Mapping[str, Array]:
    shapes = {"W1": (size, H * D), "b1": (size,), "C1": (size, H), "W2": (H * D, size), "b2": (H * D,)}
    return {name: (0.4 * random.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}


def prefix(random: np.random.Generator, known: int, delay: int, end: int | None = None) -> Prefix:
    rows = np.zeros((H, D), np.float32)
    rows[:known] = random.standard_normal((known, D))
    return Prefix(rows, known, delay, end)


@pytest.mark.parametrize("how", [Rtc(), Rtc("identity"), Rtc("inpaint"), Rtc("trained"), LEROBOT], ids=str)
def test_a_batch_of_all_kinds_of_prefixes_answers_as_each_alone(how: Rtc) -> None:
    random = np.random.default_rng(1)
    noise = random.standard_normal((5, H, D)).astype(np.float32)
    prefixes = [prefix(random, 8, 3), None, prefix(random, H, 0), prefix(random, 0, 0), prefix(random, 3, 3, 1)]
    field = numpy_field(net(random))
    together = sample(field, noise, STEPS, how, target_of(prefixes, how, H, D))
    for place, one in enumerate(prefixes):
        target = target_of([one], how, H, D)
        alone = sample(field, noise[place : place + 1], STEPS, how, target)
        np.testing.assert_allclose(together[place], alone[0], rtol=0, atol=1e-6)
        if one is None or not one.known:
            assert target is None
            np.testing.assert_allclose(alone, sample(field, noise[place : place + 1], STEPS), rtol=0, atol=0)


@pytest.mark.parametrize("method", ["inpaint", "trained"])
def test_rows_that_are_put_in_place_are_exact(method: Any) -> None:
    random = np.random.default_rng(2)
    one, how = prefix(random, 8, 3), Rtc(method)
    noise = random.standard_normal((1, H, D)).astype(np.float32)
    chunk = sample(numpy_field(net(random)), noise, STEPS, how, target_of([one], how, H, D))
    np.testing.assert_array_equal(chunk[0, :3], one.rows[:3])


@pytest.mark.parametrize("method", ["guided", "identity"])
def test_guidance_leaves_little_of_the_error_in_the_rows_that_will_have_run(method: Any) -> None:
    random = np.random.default_rng(3)
    one, how, field = prefix(random, 8, 3), Rtc(method), numpy_field(net(random))
    noise = random.standard_normal((1, H, D)).astype(np.float32)
    chunk = sample(field, noise, STEPS, how, target_of([one], how, H, D))
    plain = sample(field, noise, STEPS)
    assert np.abs(chunk - one.rows)[0, :3].mean() <= 0.1 * np.abs(plain - one.rows)[0, :3].mean()


def test_guidance_ends_where_the_request_says_and_else_where_the_policy_does() -> None:
    random = np.random.default_rng(4)
    ends = {
        "the request's": (prefix(random, 8, 2, 5), LEROBOT, 5),
        "the policy's": (prefix(random, 11, 2), LEROBOT, 10),
        "the last known row": (prefix(random, 8, 2), Rtc(), 8),
        "no further than is known": (prefix(random, 4, 2, 9), Rtc(), 4),
    }
    for told, (one, how, end) in ends.items():
        target = target_of([one], how, H, D)
        assert target is not None
        assert np.flatnonzero(target.weights[0, :, 0]).max() == end - 1, told


def test_a_prefix_of_fewer_numbers_or_rows_than_the_network_has() -> None:
    one = Prefix(np.ones((4, 1), np.float32), 4, 2)
    target = target_of([one], Rtc("inpaint"), H, D)
    assert target is not None
    assert target.rows.shape == (1, H, D)
    assert target.rows.sum() == 4
