"""The image tower, stage by stage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from policyserve.core.arrays import Array
from tests.policies.frameworks import import_or_skip
from tests.policies.wall_x.cases import golden_case, golden_input, pixel_values_of
from tests.policies.wall_x.golden import FAST_CASES, FLOW_CASES

torch = import_or_skip("torch")

from policyserve.policies.wall_x import encoder, flow, sequence  # noqa: E402
from policyserve.policies.wall_x.vision import normalised, plan_packing  # noqa: E402
from tests.policies.wall_x.loaded import largest, loaded, told_by_layer  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def window_order(grids: tuple[tuple[int, int], ...]) -> Array:
    """The original's order of merged cells: image by image, windows in raster order, cells in raster order inside."""
    places, first = [], 0
    for rows, columns in ((rows // 2, columns // 2) for rows, columns in grids):
        for top in range(0, rows, 4):
            for left in range(0, columns, 4):
                for row in range(top, min(top + 4, rows)):
                    places += [first + row * columns + column for column in range(left, min(left + 4, columns))]
        first += rows * columns
    return np.array(places)


def test_every_block_is_the_originals() -> None:
    case = golden_case("flow_libero_basic")
    item, tower = golden_input(case), loaded(case.directory).network.vision
    outputs: dict[str, Array] = {}
    named: dict[str, Any] = {f"block_{index}": block for index, block in enumerate(tower.blocks)}
    named["merger_window_order"] = tower.merge_out
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, name=name: outputs.update({name: told_by_layer(out)}))
        for name, module in named.items()
    ]
    with torch.inference_mode():
        tower(torch.from_numpy(item.patches), item.grids)
    for hook in hooks:
        hook.remove()
    back = plan_packing(item.grids, tower.architecture, torch.device("cpu")).back.numpy()
    order = window_order(item.grids)
    assert sorted(outputs) == ["block_0", "block_1", "block_2", "block_3", "merger_window_order"]
    for name, output in outputs.items():
        cells = output.reshape(len(order), -1)[back][order]
        assert largest(cells - case[f"vis/{name}"].reshape(len(order), -1)) < 1e-4, name


@pytest.mark.parametrize("name", ["flow_libero_basic", "fast_libero_1"])
def test_what_the_tower_makes_of_gray_levels_is_the_originals_to_the_bit(name: str) -> None:
    item = golden_input(golden_case(name))
    values = normalised(torch.from_numpy(item.patches)).numpy()
    arrays = golden_case(name).tensors
    if "pre/pixel_values" in arrays:
        np.testing.assert_array_equal(values, arrays["pre/pixel_values"])
    else:
        np.testing.assert_array_equal(values[arrays["pre/pixel_values_row_idx"]], arrays["pre/pixel_values_rows"])


def test_every_gray_level_of_every_channel_is_normalised_to_the_bit() -> None:
    levels = np.arange(588 * 64, dtype=np.int64).astype(np.uint8).reshape(64, 588)
    np.testing.assert_array_equal(normalised(torch.from_numpy(levels)).numpy(), pixel_values_of(levels))


def test_a_camera_travels_to_the_device_once_as_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """324 patches of 588 bytes each; all else of a request, its prompt's masks and places, is less than one camera."""
    sent: list[Array] = []
    upload = sequence.to_device

    def note(values: Array, device: Any) -> Any:
        sent.append(values)
        return upload(values, device)

    monkeypatch.setattr(sequence, "to_device", note)
    monkeypatch.setattr(flow, "to_device", note)
    monkeypatch.setattr(encoder, "to_device", note)
    case = golden_case("flow_libero_basic")
    item = golden_input(case)
    loaded(case.directory).flow([item], attention="causal")
    pictures = [values.nbytes for values in sent if values.dtype == np.uint8]
    assert item.grids == ((18, 18), (18, 18))
    assert pictures == [2 * 324 * 588]
    assert sum(values.nbytes for values in sent) - sum(pictures) < 324 * 588


@pytest.mark.parametrize("name", [*FLOW_CASES, *FAST_CASES])
def test_embeddings_are_the_originals(name: str) -> None:
    case = golden_case(name)
    item = golden_input(case)
    with torch.inference_mode():
        embeddings = loaded(case.directory).network.vision(torch.from_numpy(item.patches), item.grids)
    assert largest(embeddings.numpy() - case["vis/embeds"]) < 1e-4


def test_images_of_many_sizes_packed_together_equal_each_alone() -> None:
    case = golden_case("flow_libero_basic")
    tower = loaded(case.directory).network.vision
    grids = ((18, 18), (2, 2), (8, 8), (2, 18), (14, 18), (18, 18), (4, 10), (16, 8))
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (rows * columns, 588), np.uint8) for rows, columns in grids]
    with torch.inference_mode():
        together = tower(torch.from_numpy(np.concatenate(images)), grids).numpy()
        alone = [tower(torch.from_numpy(image), (grid,)).numpy() for image, grid in zip(images, grids, strict=True)]
    assert largest(together - np.concatenate(alone)) < 1e-5


def test_windows_of_one_size_are_one_call() -> None:
    case = golden_case("flow_libero_basic")
    plan = plan_packing(((18, 18), (18, 18)), loaded(case.directory).architecture.vision, torch.device("cpu"))
    assert plan.windows == ((8, 64), (8, 16), (2, 4))
    assert plan.images == ((2, 324),)
