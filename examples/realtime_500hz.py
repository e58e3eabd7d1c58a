"""A motor loop at 500 Hz over a policy of 50 Hz whose answers take 100 ms.

Usage:
    policyserve serve demo_flow --latency-ms 100
    python examples/realtime_500hz.py --seconds 3

The loop is the robot's own: it writes each command into the same array, and act() waits for no network and no policy.
Between two rows of a chunk commands lie on a straight line. Cameras are slower, so it observes with every tenth turn.
"""

import sys
import time

import numpy as np
import tyro

import policyserve
from policyserve.policies.demo_flow import CONTROL_HZ, Scene

LOOP_HZ = 500
TURNS = LOOP_HZ // CONTROL_HZ  # of the loop, for each row


def main(url: str = "ws://localhost:8000", seconds: float = 3.0) -> None:
    """Move the point for some seconds and tell how that went."""
    sys.setswitchinterval(0.001)  # threads of Python take turns each ms, not each 5: the loop waits no longer for one
    scene, turns = Scene(round(seconds * CONTROL_HZ) + 1), round(seconds * LOOP_HZ)
    place = scene.start.copy()
    command, before, jumps, late = place.copy(), place.copy(), [], 0
    with policyserve.RealtimeClient(url, control_hz=CONTROL_HZ, interpolate=True) as client:
        client.observe(scene.observation(0, place))
        client.wait_until_ready()
        began = time.monotonic()
        for turn in range(turns):
            action = client.act(out=command)
            if action.values is not None:  # None: keep what the motors do; source says why
                jumps.append(np.abs(command - before).max())
                before[:] = command
                place += 0.1 * (command - place)  # motors.command(command) belongs here
            if turn % TURNS == 0:
                client.observe(scene.observation(turn // TURNS, place.copy()))
            wait_s = began + (turn + 1) / LOOP_HZ - time.monotonic()
            late += wait_s < 0
            time.sleep(max(wait_s, 0.0))
        status = client.status
    print(f"{len(jumps)} commands at {LOOP_HZ} Hz, {status.chunks} chunks, {status.starved_steps} steps without a row")
    print(
        f"largest step {1e3 * max(jumps):.0f} mm, {late} turns late, answers after {1e3 * status.latency_p50_s:.0f} ms"
    )


if __name__ == "__main__":
    tyro.cli(main)
