"""openpi's own runtime, agent and client, unmodified; of ours only the broker, in the one line that differs.

Usage: python openpi_runtime_program.py PORT EPISODES STEPS. Drives the scene of demo_flow at 50 Hz.
"""

import sys

import numpy as np
from openpi_client import websocket_client_policy
from openpi_client.runtime import environment, runtime, subscriber
from openpi_client.runtime.agents import policy_agent

from policyserve.compat.openpi import RealtimeActionChunkBroker
from policyserve.policies.demo_flow.scene import Scene


class Robot(environment.Environment):
    def __init__(self, steps):
        self._steps = steps
        self.reset()

    def reset(self):
        self._scene, self._step = Scene(self._steps + 1), 0
        self._place = self._scene.start

    def is_episode_complete(self):
        return self._step >= self._steps

    def get_observation(self):
        return dict(self._scene.observation(self._step, self._place))

    def apply_action(self, action):
        self._place = self._scene.moved(self._place, action["actions"])
        self._step += 1


class Noted(subscriber.Subscriber):
    def __init__(self):
        self.actions, self.episodes = [], 0

    def on_episode_start(self):
        self.episodes += 1

    def on_step(self, observation, action):
        self.actions.append(action)

    def on_episode_end(self):
        pass


def main(port, episodes, steps):
    noted = Noted()
    policy = websocket_client_policy.WebsocketClientPolicy("127.0.0.1", port)
    broker = RealtimeActionChunkBroker(policy, control_hz=50)
    agent = policy_agent.PolicyAgent(broker)
    runtime.Runtime(Robot(steps), agent, [noted], max_hz=50, num_episodes=episodes).run()
    status = broker.status
    assert all(one["actions"].shape == (2,) and np.isfinite(one["actions"]).all() for one in noted.actions)
    assert status.chunks > 2 * episodes, status
    assert status.failed is None, status
    broker.close()
    print(f"{len(noted.actions)} actions in {noted.episodes} episodes, rtc {status.rtc}")
    print(
        f"{status.chunks} chunks, {status.starved_steps} starved, latency {1e3 * status.latency_p50_s:.0f} ms",
        file=sys.stderr,
    )


main(*map(int, sys.argv[1:]))
