"""The image tower, stage by stage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from policyserve.core.arrays import Array
from tests.policies.frameworks import import_or_skip
from tests.policies.wall_x.cases import golden_case, golden_input
from tests.policies.wall_x.golden import FAST_CASES, FLOW_CASES

torch = import_or_skip("torch")

from policyserve.policies.wall_x.vision import plan_packing  # noqa: E402
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
    images = [random.standard_normal((rows * columns, 1176)).astype(np.float32) for rows, columns in grids]
    with torch.inference_mode():
        together = tower(torch.from_numpy(np.concatenate(images)), grids).numpy()
        alone = [tower(torch.from_numpy(image), (grid,)).numpy() for image, grid in zip(images, grids, strict=True)]
    assert largest(together - np.concatenate(alone)) < 1e-5


def test_windows_of_one_size_are_one_call() -> None:
    case = golden_case("flow_libero_basic")
    plan = plan_packing(((18, 18), (18, 18)), loaded(case.directory).architecture.vision, torch.device("cpu"))
    assert plan.windows == ((8, 64), (8, 16), (2, 4))
    assert plan.images == ((2, 324),)
