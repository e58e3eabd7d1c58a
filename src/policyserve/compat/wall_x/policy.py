"""Wall-X's policy as a Python object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from policyserve.compat.policy import BasePolicy
from policyserve.core.errors import PolicyserveError
from policyserve.core.policy import PolicyInput
from policyserve.engine.answering import run_batch
from policyserve.policies.wall_x import ModelConfig, Options, load_policy


class WallXPolicy(BasePolicy):
    """A Wall-X model, loaded when it is made: serve it with WebsocketPolicyServer, or ask it here.

    The arguments are ModelConfig's; agent_pos_dim is its state_dim, train_config the path of the YAML file. options:
    conventions, sampler steps, what trusted callers may send.
    batched: the policy that a server runs, with many sessions' observations at a time.
    """

    def __init__(
        self,
        model_path: str,
        train_config: str,
        action_tokenizer_path: str,
        action_dim: int,
        agent_pos_dim: int,
        pred_horizon: int,
        camera_key: Sequence[str],
        *,
        device: Literal["cuda", "cpu"] = "cuda",
        dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16",
        predict_mode: Literal["fast", "diffusion"] = "fast",
        default_prompt: str | None = None,
        options: Options | None = None,
    ) -> None:
        config = ModelConfig(
            model_path=model_path,
            action_tokenizer_path=action_tokenizer_path,
            train_config_path=train_config,
            state_dim=agent_pos_dim,
            action_dim=action_dim,
            pred_horizon=pred_horizon,
            device=device,
            dtype=dtype,
            predict_mode=predict_mode,
            camera_key=[camera_key] if isinstance(camera_key, str) else list(camera_key),
        )
        self.batched = load_policy(config, default_prompt=default_prompt, options=options)
        self._state: Any = None

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        """Answer one observation: `action` is (pred_horizon, action_dim) float32. Raises what a server would tell."""
        observation = self.batched.spec.validate(obs).observation
        (chunk,) = run_batch(self.batched, [PolicyInput(observation, state=self._state)])
        if isinstance(chunk, PolicyserveError):
            raise chunk
        self._state = chunk.state
        return {**chunk.extras, "action": chunk.actions}

    def reset(self) -> None:
        """Forget what the last chunk carried over to the next."""
        self._state = None

    @property
    def metadata(self) -> dict[str, Any]:
        return dict(self.batched.spec.metadata)
