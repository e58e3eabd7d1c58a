"""Images to embeddings through what a graph would replay: the same as plainly, and which batches have a graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from policyserve.policies.prefix import Prefix
from policyserve.policies.rtc import Rtc
from tests.policies.frameworks import import_or_skip
from tests.policies.wall_x.cases import golden_case, golden_input

torch = import_or_skip("torch")

from policyserve.policies.wall_x import encoder  # noqa: E402
from policyserve.policies.wall_x.encoder import ImageEncoder  # noqa: E402
from policyserve.policies.wall_x.flow import FlowSampler  # noqa: E402
from policyserve.policies.wall_x.graphs import Work  # noqa: E402
from policyserve.policies.wall_x.inputs import ModelInput  # noqa: E402
from policyserve.policies.wall_x.memory import ONE_GRAPH_BYTES  # noqa: E402
from policyserve.policies.wall_x.model import WallXModel, differentiable  # noqa: E402
from policyserve.policies.wall_x.network import Network  # noqa: E402
from policyserve.policies.wall_x.vision import plan_packing  # noqa: E402
from tests.policies.wall_x.fake_cuda import set_gpus  # noqa: E402
from tests.policies.wall_x.loaded import largest, loaded, tiny_input  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")

BASIC, ODD = "flow_libero_basic", "flow_libero_odd_sizes"


class Recorder:
    """Runs work as a recording does, once plainly and once more for each replay, and counts what is recorded."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, work: Work) -> Work:
        self.recorded += 1
        work()

        def replay() -> None:
            self.replayed += 1
            work()

        return replay


@pytest.fixture
def network() -> Network:
    return loaded(golden_case(BASIC).directory).network


def seen(name: str, seed: int = 0) -> ModelInput:
    """A golden case's observation with other images of the same sizes."""
    item = golden_input(golden_case(name))
    return replace(item, patches=np.random.default_rng(seed).integers(0, 256, item.patches.shape, np.uint8))


def check_each_alone(network: Network, images: ImageEncoder, items: Sequence[ModelInput]) -> None:
    with torch.inference_mode():
        together = images(items)
        assert together is not None
        alone = [network.vision(torch.from_numpy(item.patches), item.grids).numpy() for item in items if item.grids]
    assert largest(together.numpy() - np.concatenate(alone)) < 1e-5


@pytest.mark.parametrize("name", [BASIC, ODD])
def test_batches_through_a_graph_are_each_observation_alone(network: Network, name: str) -> None:
    recorder = Recorder()
    images = ImageEncoder(network, recorder)
    for size in (3, 4, 1, 3):
        check_each_alone(network, images, [seen(name, seed) for seed in range(size)])
    assert (recorder.recorded, recorder.replayed) == (2, 4)  # for four rows and for one
    assert images.graphs is not None
    assert images.graphs.size > 2 * ONE_GRAPH_BYTES


def test_other_sizes_have_a_graph_of_their_own_until_all_are_dropped(network: Network) -> None:
    recorder = Recorder()
    images = ImageEncoder(network, recorder)
    for name in (BASIC, ODD, BASIC):
        check_each_alone(network, images, [seen(name)])
    assert recorder.recorded == 2
    assert images.graphs is not None
    images.graphs.forget()
    check_each_alone(network, images, [seen(BASIC)])
    assert recorder.recorded == 3


def test_observations_with_images_of_different_sizes_are_encoded_without_a_graph(network: Network) -> None:
    recorder = Recorder()
    check_each_alone(network, ImageEncoder(network, recorder), [seen(BASIC), seen(ODD), seen(BASIC, 1)])
    assert recorder.recorded == 0


def test_an_observation_without_images_among_others_is_passed_over(network: Network) -> None:
    blind, recorder = tiny_input(loaded(golden_case(BASIC).directory), 5), Recorder()
    images = ImageEncoder(network, recorder)
    check_each_alone(network, images, [seen(BASIC), blind, seen(BASIC, 1)])
    assert (recorder.recorded, recorder.replayed) == (1, 1)
    assert images([blind]) is None


def test_a_graphs_plan_is_kept_when_the_cache_of_plans_has_dropped_it(network: Network) -> None:
    images = ImageEncoder(network, Recorder())
    check_each_alone(network, images, [seen(BASIC)])
    plan_packing.cache_clear()
    check_each_alone(network, images, [seen(BASIC, 1)])
    assert plan_packing.cache_info().misses == 1  # of the tower alone, to compare with


def test_plain_and_guided_batches_share_the_graph_of_their_images(network: Network) -> None:
    """A plain batch's tensors are inference mode's, which a batch with a derivative may not write to."""
    sampler = FlowSampler(network, slot_multiple=64, capture=Recorder())
    item = seen(BASIC)
    guided = replace(item, prefix=Prefix(np.ones(item.dof_mask.shape, np.float32), 3, 1))
    without = FlowSampler(network, slot_multiple=64)
    with torch.inference_mode():
        sampler.sample([seen(BASIC, 1)], "causal", 2)
    with differentiable():
        found = sampler.sample([guided], "causal", 2, Rtc("guided"))
        wanted = without.sample([guided], "causal", 2, Rtc("guided"))
    assert largest((found - wanted).numpy()) < 1e-5
    assert sampler.images.graphs is not None
    assert ONE_GRAPH_BYTES < sampler.images.graphs.size < 2 * ONE_GRAPH_BYTES  # one graph


def test_a_models_graphs_of_images_have_a_quarter_of_what_graphs_may_take(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_gpus(monkeypatch, 1, total=24e9)
    monkeypatch.setattr(Network, "device", property(lambda network: torch.device("cuda")))
    monkeypatch.setattr(encoder, "level_statistics_on", lambda device: ())
    model = WallXModel(network)
    model.begin_service()
    for one in (model.sampler, model.generator):
        assert one.graphs is not None
        assert one.images.graphs is not None
        assert (one.images.graphs.max_bytes, one.graphs.max_bytes) == (600_000_000, 1_800_000_000)
        assert one.images.graphs.is_serving
