"""The founding command, as the founding document has it, serves the original's answers."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from policyserve.compat.wall_x import WallXClient
from tests.cli.serving import serving
from tests.policies.frameworks import import_or_skip
from tests.policies.wall_x.golden import model_config, observation, tensors

for package in ("torch", "tokenizers", "PIL.Image", "yaml", "safetensors.numpy"):
    import_or_skip(package)


def test_launch_serving_serves_a_checkpoint_to_the_founding_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    name = "flow_libero_basic"
    config = model_config(name)
    paths = ("model_path", "train_config_path", "action_tokenizer_path")
    flags = [word for path in paths for word in (f"--model-config.{path.replace('_', '-')}", getattr(config, path))]
    computing = ["--model-config.device", "cpu", "--model-config.dtype", "float32"]
    command = [sys.executable, "-m", "policyserve.compat.wall_x", "--env", "libero", "--host", "127.0.0.1"]
    mode = ["--port", "0", "--model-config.predict-mode", "diffusion"]
    with serving([*command, *mode, *flags, *computing]) as server:
        client = WallXClient(server.url)
        answer = client.predict_sync(observation(name))
        np.testing.assert_allclose(answer["action"], tensors(name)["e2e/predict_action"][0], atol=1e-4, rtol=0)
        assert client.metadata["predict_mode"] == "diffusion"
        client.close_sync()
        code, stderr = server.stop()
    assert code == 0, stderr
    assert "Traceback" not in stderr
