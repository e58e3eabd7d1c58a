"""Golden cases over a socket: chunks in openpi's protocol, and sessions that remember in vibe_rl's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from policyserve import Client
from policyserve.core.arrays import Array
from policyserve.core.errors import RemoteError
from policyserve.policies.loading import load_policy
from tests.policies.frameworks import import_or_skip
from tests.policies.lerobot.cases import TOLERANCE, folder, frames, golden
from tests.server.live import serving

import_or_skip("torch")
import_or_skip("safetensors")


def close(given: Array, expected: Array) -> None:
    np.testing.assert_allclose(given, expected, atol=TOLERANCE, rtol=0)


def test_an_act_answers_openpis_protocol() -> None:
    case = "act_two_cameras"
    rename = "observation/image=observation.images.top,observation/wrist_image=observation.images.wrist"
    policy = load_policy(
        f"lerobot:{folder(case)}", device="cpu", rename=f"{rename},observation/state=observation.state"
    )
    expected = golden(case)["chunk/actions"]
    with serving(policy) as live, Client(f"ws://127.0.0.1:{live.port}/openpi") as client:
        assert client.metadata["lerobot"]["type"] == "act"
        for sample, actions in enumerate(expected):
            seen = frames(case, "chunk", sample, 0)
            nested = {
                "observation/image": seen["observation.images.top"],
                "observation/wrist_image": seen["observation.images.wrist"],
                "observation/state": seen["observation.state"],
                "prompt": "unused",
            }
            close(client.infer(nested).actions, actions[: policy.spec.horizon])
            close(client.infer(seen).actions, actions[: policy.spec.horizon])  # the file's own names


@pytest.mark.parametrize("case", ["act_state", "act_ensemble", "act_legacy_033"])
def test_two_clients_at_once_and_a_reset_in_the_middle(case: str) -> None:
    arrays = golden(case)
    expected, reset_at = arrays["episode/actions"], int(arrays["episode/reset_at"])
    policy = load_policy(f"lerobot:{folder(case)}", device="cpu", mode="step")

    def episode(session: int, port: int) -> Array:
        with Client(f"ws://127.0.0.1:{port}/vibe_rl") as client:
            actions: list[Array] = []
            for step in range(expected.shape[1]):
                if session == 0 and step == reset_at:
                    client.reset()
                actions.append(client.infer(frames(case, "episode", session, step)).actions)
            return np.stack(actions)

    with serving(policy) as live, ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda session: episode(session, live.port), (0, 1)))
    for session, actions in enumerate(found):
        close(actions, expected[session])


def test_a_client_that_vanishes_in_an_episode_leaves_nothing_behind() -> None:
    case = "act_state"
    policy = load_policy(f"lerobot:{folder(case)}", device="cpu", mode="step")
    with serving(policy) as live:
        with Client(f"ws://127.0.0.1:{live.port}") as client:
            client.infer(frames(case, "episode", 1, 0))
        live.until(lambda server: server.counters.sessions_open == 0)
        with Client(f"ws://127.0.0.1:{live.port}") as client:
            close(client.infer(frames(case, "episode", 0, 0)).actions, golden(case)["episode/actions"][0, 0])


def test_a_picture_of_another_size_is_refused_and_the_session_goes_on() -> None:
    case = "act_one_camera"
    good = frames(case, "chunk", 0, 0)
    with serving(load_policy(str(folder(case)), device="cpu")) as live, Client(f"ws://127.0.0.1:{live.port}") as client:
        with pytest.raises(RemoteError, match=r"observation.image: expected uint8 or float image HWC\|CHW, 40 x 56"):
            client.infer({**good, "observation.image": np.zeros((41, 56, 3), np.uint8)})
        close(client.infer(good).actions, golden(case)["chunk/actions"][0, :3])


@pytest.mark.parametrize("mode", ["step", "chunk"])
def test_a_seeded_diffusion_gives_the_same_again(mode: str) -> None:
    case = "diffusion_state_ddim"
    found: list[Array] = []
    for _ in range(2):
        policy = load_policy(f"lerobot:{folder(case)}", device="cpu", mode=mode, seed=3)
        with serving(policy) as live, Client(f"ws://127.0.0.1:{live.port}") as client:
            found.append(np.stack([client.infer(frames(case, "episode", 0, step)).actions for step in range(6)]))
    np.testing.assert_array_equal(found[0], found[1])
