"""openpi's checkpoints, by a stand-in for its package: what it is called with, what is served, what is refused."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve import Client, ConfigError, load_policy
from policyserve.core.errors import MissingDependency, RemoteError
from policyserve.core.policy import ActionChunk, PolicyInput
from tests.cli.terminals import run_in
from tests.policies.openpi.stand_in import install
from tests.server.live import serving

OBSERVATION = {"observation/joint_position": np.arange(7, dtype=np.float32), "prompt": "pick up the cup"}


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    """A folder as openpi's trainer leaves it."""
    folder = tmp_path / "checkpoints" / "29999"
    (folder / "params").mkdir(parents=True)
    (folder / "params" / "weights").write_bytes(bytes(1000))
    return str(folder)


@pytest.fixture
def _openpi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    install(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "openpi"]:
        del sys.modules[name]


def answer(observation: dict[str, Any], folder: str, **flags: Any) -> ActionChunk:
    (chunk,) = load_policy("openpi:pi05_droid", dir=folder, **flags).infer([PolicyInput(observation)])
    assert isinstance(chunk, ActionChunk), chunk
    return chunk


@pytest.mark.usefixtures("_openpi")
def test_a_checkpoint_is_served_with_its_metadata_and_extras(checkpoint: str) -> None:
    policy = load_policy("openpi:pi05_droid", dir=checkpoint)
    assert (policy.spec.observation, policy.spec.action, policy.spec.dialect) == (None, None, "openpi")
    with serving(policy) as live, Client(f"ws://127.0.0.1:{live.port}") as client:
        assert client.metadata["reset_pose"] == [0.0, -1.5]
        reply = client.infer(OBSERVATION)
    assert reply.actions.shape == (10, 8)
    assert (reply.actions == 21).all()


@pytest.mark.usefixtures("_openpi")
def test_a_prompt_is_the_clients_or_the_flags(checkpoint: str) -> None:
    bare = {"observation/joint_position": np.zeros(7, np.float32)}
    assert answer(OBSERVATION, checkpoint, default_prompt="wait").extras["prompt"] == "pick up the cup"
    assert answer(bare, checkpoint, default_prompt="wait").extras["prompt"] == "wait"
    with (
        serving(load_policy("openpi:debug", dir=checkpoint)) as live,
        Client(f"ws://127.0.0.1:{live.port}") as client,
        pytest.raises(RemoteError, match="Prompt is required"),
    ):
        client.infer(bare)


@pytest.mark.usefixtures("_openpi")
def test_a_device_is_for_weights_of_pytorch(checkpoint: str) -> None:
    assert answer(OBSERVATION, checkpoint).extras["device"] == "None"
    with pytest.raises(ConfigError, match=r"device: expected auto for a checkpoint of JAX, got 'cuda:1'"):
        load_policy("openpi:pi05_droid", dir=checkpoint, device="cuda:1")
    (Path(checkpoint) / "model.safetensors").write_bytes(b"")
    assert answer(OBSERVATION, checkpoint, device="cuda:1").extras["device"] == "cuda:1"


@pytest.mark.usefixtures("_openpi")
def test_what_openpi_fetches_itself_is_handed_on() -> None:
    assert answer(OBSERVATION, "gs://openpi-assets/checkpoints/pi05_droid").actions.shape == (10, 8)


@pytest.mark.usefixtures("_openpi")
def test_a_config_that_openpi_has_not_is_refused_in_its_words(checkpoint: str) -> None:
    with pytest.raises(ConfigError, match=r"^openpi:pi5: Config 'pi5' not found\. Did you mean 'pi05_droid'\?$"):
        load_policy("openpi:pi5", dir=checkpoint)


@pytest.mark.usefixtures("_openpi")
def test_a_folder_that_is_no_checkpoint_is_refused(checkpoint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="got nothing there"):
        load_policy("openpi:pi05_droid", dir=str(tmp_path / "nowhere"))
    run = Path(checkpoint).parent
    (run / "9").mkdir()
    with pytest.raises(
        ConfigError, match=rf"with params/ or model.safetensors, got none of both; did you mean {checkpoint}\?"
    ):
        load_policy("openpi:pi05_droid", dir=str(run))


def test_without_openpi_it_is_said_where_to_install_what(checkpoint: str) -> None:
    with pytest.raises(MissingDependency, match="install policyserve in openpi's environment"):
        load_policy("openpi:pi05_droid", dir=checkpoint)
    said = run_in("pipe", ["serve", "openpi:pi05_droid", "--dir", checkpoint])
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("error: openpi:pi05_droid is loaded by the package openpi, which is not installed here")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["openpi:"], "expected openpi:CONFIG"),
        (["openpi:pi05_droid"], "--dir is required"),
        (["openpi:pi05_droid", "--dir", ""], "--dir: expected a value, got nothing"),
        (["openpi:pi05_droid", "--dir", "x", "--device", "gpu"], "auto, cpu, cuda or cuda:N"),
    ],
)
def test_a_wrong_command_line_ends_with_2(words: list[str], told: str) -> None:
    said = run_in("pipe", ["serve", *words])
    assert (said.code, said.out) == (2, "")
    assert told in said.err


@pytest.mark.usefixtures("_openpi")
def test_inspect_tells_what_it_is(checkpoint: str) -> None:
    said = run_in("pipe", ["inspect", "openpi:pi05_droid", "--dir", checkpoint])
    assert (said.code, said.err) == (0, "")
    assert "  size    1 kB in 1 file" in said.out
    assert "  takes   any observation" in said.out
