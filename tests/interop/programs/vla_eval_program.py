"""PyPI's vla-eval, unmodified: COUNT steps of two episodes, checked, and a live one. Usage: PORT COUNT SALT"""

import asyncio
import sys

import numpy as np
from vla_eval.connection import Connection
from vla_eval.protocol.messages import MessageType

port, count, salt = (int(argument) for argument in sys.argv[1:])
HORIZON = 2  # rows of the policy's chunks, which the server hands out one by one


def seen(number: int) -> dict:
    state = np.full(8, salt + number / 4)  # float64, as benchmarks send it
    image = np.full((24, 32, 3), number % 256, np.uint8)  # goes as PNG
    return {"images": {"agentview": image}, "task_description": "pick up the bowl", "states": state}


def expected(number: int) -> np.ndarray:
    """The row of the chunk that the policy made of the observation that began it."""
    row = number % HORIZON
    first = number - row
    return np.full(8, salt + first / 4, np.float32) * (row + 1) + first % 256


async def main() -> None:
    async with Connection(f"ws://127.0.0.1:{port}", timeout=60) as connection:
        assert connection.server_info["observation_params"] == {"send_state": True}, connection.server_info
        for _ in range(2):
            await connection.start_episode({"task": {"name": "pick", "suite": "libero_spatial"}})
            for number in range(count // 2):
                answer = await connection.act(seen(number))
                actions = np.asarray(answer["actions"])
                assert actions.dtype == np.float32
                assert np.array_equal(actions, expected(number)), (number, actions, expected(number))
            told = ""
            try:
                await connection.act({"task_description": "nothing to see"})
            except RuntimeError as error:
                told = str(error)
            assert "bad_observation" in told or "policy_failed" in told, told  # the latter of a policy without a spec
            await connection.end_episode({"metrics": {"success": True}, "steps": count // 2, "elapsed_sec": 0.1})
        await connection.start_episode({"task": {"name": "live"}, "mode": "live"})
        for number in range(30):
            last = await connection.send(MessageType.OBSERVATION, seen(number))
        while (message := await connection.recv(timeout=60)).seq != last:
            assert message.type == MessageType.ACTION, message


asyncio.run(main())
print(f"{count} right answers")
