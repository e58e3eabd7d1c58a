"""One real-size ACT through LeRobot's own package: FOLDER COUNT -> a line `ready`, then COUNT times in seconds as JSON.

For a virtual environment with lerobot 0.4.4 and nothing of ours. A chunk is timed as LeRobot's inference runs it: the
frame to float, the preprocessor, the policy, the postprocessor.
"""

import json
import sys
import time
from copy import copy

import numpy as np
import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.policies.utils import prepare_observation_for_inference

folder, count = sys.argv[1], int(sys.argv[2])
config = PreTrainedConfig.from_pretrained(folder)
policy = get_policy_class(config.type).from_pretrained(folder, config=config).eval()
before, after = make_pre_post_processors(config, pretrained_path=folder)
shapes = {name: tuple(feature.shape) for name, feature in config.input_features.items()}
random = np.random.default_rng(0)
observation = {
    name: random.integers(0, 255, (shape[1], shape[2], 3), np.uint8) if len(shape) == 3 else np.zeros(shape, np.float32)
    for name, shape in shapes.items()
}


def chunk():
    with torch.inference_mode():
        sent = prepare_observation_for_inference(copy(observation), torch.device("cpu"))
        return after(policy.predict_action_chunk(before(sent))).numpy()


chunk()
print("ready", flush=True)
times = []
for _ in range(count):
    start = time.perf_counter()
    chunk()
    times.append(time.perf_counter() - start)
print(json.dumps(times))
