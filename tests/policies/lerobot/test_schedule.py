"""The steps from noise to actions, against what is known of them without the original."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policyserve.policies.lerobot.config import ScheduleConfig
from tests.policies.frameworks import import_or_skip

torch = import_or_skip("torch")

from policyserve.policies.lerobot.schedule import Schedule  # noqa: E402

DDIM = ScheduleConfig("DDIM", 100, 10, "squaredcos_cap_v2", 1e-4, 0.02, "sample", None)


@pytest.mark.parametrize("kind", ["DDIM", "DDPM"])
@pytest.mark.parametrize("betas", ["squaredcos_cap_v2", "linear", "scaled_linear"])
def test_a_network_that_knows_the_actions_is_believed_at_the_last_step(kind: str, betas: str) -> None:
    schedule = Schedule(replace(DDIM, kind=kind, betas=betas))
    known = torch.linspace(-1, 1, 6).reshape(1, 3, 2)
    times: list[int] = []

    def network(samples: object, time: int) -> object:
        times.append(time)
        return known

    given = schedule.sample(network, torch.randn(schedule.draws, 1, 3, 2))  # type: ignore[arg-type]
    torch.testing.assert_close(given, known)
    assert times == [90, 80, 70, 60, 50, 40, 30, 20, 10, 0]


def test_noise_is_drawn_for_the_start_and_for_each_step_of_ddpm_but_the_last() -> None:
    assert (Schedule(DDIM).draws, Schedule(replace(DDIM, kind="DDPM")).draws) == (1, 10)


def test_the_actions_are_clipped_at_each_step() -> None:
    schedule = Schedule(replace(DDIM, clip=0.5))
    given = schedule.sample(lambda samples, _time: torch.full_like(samples, 3.0), torch.randn(1, 1, 3, 2))
    torch.testing.assert_close(given, torch.full((1, 3, 2), 0.5))
