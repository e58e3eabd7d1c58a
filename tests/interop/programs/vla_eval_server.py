"""PyPI's vla-eval as a server, unmodified: answers with twice the state, one row of two at a time. Prints its port."""

import anyio
import numpy as np
from vla_eval.model_servers.predict import PredictModelServer
from vla_eval.model_servers.serve import serve_async
from vla_eval.specs import RAW


class Doubling(PredictModelServer):
    def __init__(self) -> None:
        super().__init__(chunk_size=2)

    def predict(self, obs, ctx):
        assert obs["images"]["agentview"].shape == (24, 32, 3)
        return {"actions": np.stack([obs["states"] * 2, obs["states"] * 3])}

    def get_action_spec(self):
        return {"raw": RAW}

    def get_observation_spec(self):
        return {"raw": RAW}

    def get_observation_params(self):
        return {"send_state": True}


async def main() -> None:
    async with anyio.create_task_group() as group:
        port = await group.start(serve_async, Doubling(), "127.0.0.1", 0)
        print(port, flush=True)


anyio.run(main)
