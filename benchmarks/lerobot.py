"""A real-size ACT (ResNet-18, one 480x640 camera, 512 wide, chunks of 100) by us and by LeRobot's package, in turns.

    python benchmarks/lerobot.py [--lerobot-python PYTHON] [--chunks 10] [--starts 3] [--step-ms 5] [--seconds 20]

The weights are random, the file is one that LeRobot loads. PYTHON is that of a virtual environment with lerobot 0.4.4;
without it our side is measured alone. Each start is a process of its own, ours and theirs in turns on the same cores.

chunk: one observation to one chunk, without a network, in float32 and in bfloat16 (ours alone). products: what of it
our side spends in torch's convolutions, matrix products and attention, which would be left if all else took no time,
and how fast it computes there. start: from starting the process until it can answer; ours is a whole server, theirs
the loaded policy. simulators: clients of our server, each of which plays a chunk for --step-ms an action before it
asks again; 0: asks at once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from policyserve import Client, load_policy
from policyserve.core.policy import PolicyInput
from policyserve.policies.lerobot.config import read_config
from policyserve.policies.lerobot.names import weights_of

THEIRS = Path(__file__).with_name("lerobot_sides") / "theirs.py"
_PRODUCTS = (
    "aten::mkldnn_convolution", "aten::_slow_conv2d_forward", "aten::addmm", "aten::mm", "aten::bmm",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
)  # fmt: skip
STATE, ACTION, CAMERA, SIDES = 14, 14, "observation.images.top", (480, 640)
FEATURES = {
    "observation.state": {"type": "STATE", "shape": [STATE]},
    CAMERA: {"type": "VISUAL", "shape": [3, *SIDES]},
}
MODES = {"VISUAL": "MEAN_STD", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"}
CONFIG: dict[str, Any] = {
    "type": "act", "n_obs_steps": 1, "input_features": FEATURES,
    "output_features": {"action": {"type": "ACTION", "shape": [ACTION]}}, "normalization_mapping": MODES,
    "device": "cpu", "use_amp": False, "chunk_size": 100, "n_action_steps": 100, "vision_backbone": "resnet18",
    "pretrained_backbone_weights": None, "replace_final_stride_with_dilation": False, "pre_norm": False,
    "dim_model": 512, "n_heads": 8, "dim_feedforward": 3200, "feedforward_activation": "relu", "n_encoder_layers": 4,
    "n_decoder_layers": 1, "use_vae": False, "latent_dim": 32, "n_vae_encoder_layers": 4,
    "temporal_ensemble_coeff": None, "dropout": 0.1, "kl_weight": 10.0,
}  # fmt: skip


@dataclass
class Side:
    """What one side took, in seconds."""

    starts: list[float]
    chunks: list[float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lerobot-python", help="the Python of an environment with lerobot 0.4.4")
    parser.add_argument("--chunks", type=int, default=10, help="chunks for each start")
    parser.add_argument("--starts", type=int, default=3, help="processes of each side")
    parser.add_argument("--step-ms", type=float, default=5.0, help="what a simulator takes for one action")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long simulators are counted")
    parser.add_argument("--json", help="write the figures to this file")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_policy(folder)
        figures = compared(folder, flags.lerobot_python, flags.starts, flags.chunks)
        figures.update(products(folder, figures.get("chunks s, lerobot")))
        figures.update(simulated(folder, flags.step_ms, flags.seconds))
    for name, value in figures.items():
        print(f"{name:35} {value:8.3f}")
    if flags.json:
        Path(flags.json).write_text(json.dumps(figures, indent=1) + "\n")


def write_policy(folder: Path) -> None:
    """A checkpoint of LeRobot 0.4 with random weights."""
    (folder / "config.json").write_text(json.dumps(CONFIG))
    random = np.random.default_rng(0)
    weights = {
        name: (np.ones(shape) if name.endswith("running_var") else random.normal(0, 0.02, shape)).astype("<f4")
        for name, shape in weights_of(read_config(folder))
    }
    write_tensors(folder / "model.safetensors", weights)
    sizes = {"observation.state": (STATE,), CAMERA: (3, 1, 1), "action": (ACTION,)}
    numbers = {f"{name}.mean": np.zeros(size, "<f4") for name, size in sizes.items()}
    numbers |= {f"{name}.std": np.ones(size, "<f4") for name, size in sizes.items()}
    features = {**FEATURES, **CONFIG["output_features"]}
    normalising = {"eps": 1e-8, "features": features, "norm_map": MODES}
    device = {"registry_name": "device_processor", "config": {"device": "cpu", "float_dtype": None}}
    before = [
        {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}},
        {"registry_name": "to_batch_processor", "config": {}},
        device,
        {"registry_name": "normalizer_processor", "config": normalising, "state_file": "before.safetensors"},
    ]
    after = [
        {
            "registry_name": "unnormalizer_processor",
            "config": {**normalising, "features": CONFIG["output_features"]},
            "state_file": "after.safetensors",
        },
        device,
    ]
    for kind, name, steps in (("pre", "before", before), ("post", "after", after)):
        write_tensors(folder / f"{name}.safetensors", numbers)
        text = json.dumps({"name": f"policy_{kind}processor", "steps": steps})
        (folder / f"policy_{kind}processor.json").write_text(text)


def write_tensors(path: Path, tensors: dict[str, Any]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, values in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [end, end + values.nbytes]}
        end += values.nbytes
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for values in tensors.values():
            file.write(values.tobytes())


def compared(folder: Path, python: str | None, starts: int, chunks: int) -> dict[str, float]:
    """Medians of both sides, and ours as a share of theirs."""
    ours, theirs = Side([], []), Side([], [])
    halves: list[float] = []  # ours in bfloat16
    for _ in range(starts):
        start_server(folder, ours)
        own_chunks = [sys.executable, __file__, "--chunks-of", str(folder), str(chunks)]
        ours.chunks += read_chunks([*own_chunks, "float32"])[1]
        halves += read_chunks([*own_chunks, "bfloat16"])[1]
        if python is not None:
            took, times = read_chunks([python, str(THEIRS), str(folder), str(chunks)])
            theirs.starts.append(took)
            theirs.chunks += times
    figures = {f"{name} s, ours": statistics.median(values) for name, values in asdict(ours).items()}
    figures["chunks s, ours in bfloat16"] = statistics.median(halves)
    if python is not None:
        figures |= {f"{name} s, lerobot": statistics.median(values) for name, values in asdict(theirs).items()}
        for name in ("starts", "chunks"):
            figures[f"{name}, ours / lerobot"] = figures[f"{name} s, ours"] / figures[f"{name} s, lerobot"]
        halved = figures["chunks s, ours in bfloat16"] / figures["chunks s, lerobot"]
        figures["chunks in bfloat16, ours / lerobot"] = halved
    return figures


def products(folder: Path, theirs: float | None) -> dict[str, float]:
    """What a chunk of ours spends in torch's large operations, and that as a share of theirs."""
    command = [sys.executable, __file__, "--products-of", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    seconds, gflop = json.loads(done.stdout.splitlines()[-1])
    figures = {"products s, ours": seconds, "GFLOP of a chunk": gflop, "GFLOP/s in products": gflop / seconds}
    return figures if theirs is None else {**figures, "products, ours / lerobot": seconds / theirs}


def start_server(folder: Path, side: Side) -> None:
    began = time.perf_counter()
    process, _url = served(folder)
    side.starts.append(time.perf_counter() - began)
    stop(process)


def served(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """A server that is ready, and its URL."""
    arguments = ["serve", f"lerobot:{folder}", "--device", "cpu", "--host", "127.0.0.1", "--port", "0"]
    command = [sys.executable, "-m", "policyserve.cli", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    url = ""
    for line in process.stdout:
        url = next((word for word in line.split() if word.startswith("ws://")), url)
        if line.startswith("ready"):
            return process, url
    raise SystemExit("the server was not ready")


def stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.communicate(timeout=60)


def read_chunks(command: Sequence[str]) -> tuple[float, list[float]]:
    """Seconds until a side was ready, and those of its chunks."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("ready"):
                break
        took = time.perf_counter() - began
        return took, json.loads(process.stdout.read().splitlines()[-1])


def print_own_chunks(folder: str, count: int, dtype: str) -> None:
    """Our side of theirs.py."""
    policy = load_policy(f"lerobot:{folder}", device="cpu", horizon="all", dtype=dtype)
    observation = {"observation.state": np.zeros(STATE, np.float32), CAMERA: picture()}
    policy.infer([PolicyInput(observation)])
    print("ready", flush=True)
    times: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        policy.infer([PolicyInput(observation)])
        times.append(time.perf_counter() - began)
    print(json.dumps(times))


def print_products(folder: str) -> None:
    """Seconds that a chunk spends in _PRODUCTS, the median of ten, and its 10⁹ additions and multiplications."""
    from torch.profiler import profile
    from torch.utils.flop_counter import FlopCounterMode

    policy = load_policy(f"lerobot:{folder}", device="cpu", horizon="all")
    one = [PolicyInput({"observation.state": np.zeros(STATE, np.float32), CAMERA: picture()})]
    policy.infer(one)
    with FlopCounterMode(display=False) as counter:
        policy.infer(one)
    took: list[float] = []
    for _ in range(10):
        with profile() as seen:
            policy.infer(one)
        took.append(sum(row.self_cpu_time_total for row in seen.key_averages() if row.key in _PRODUCTS) / 1e6)
    print(json.dumps([statistics.median(took), counter.get_total_flops() / 1e9]))


def picture() -> Any:
    return np.random.default_rng(0).integers(0, 255, (*SIDES, 3), np.uint8)


def simulated(folder: Path, step_ms: float, seconds: float) -> dict[str, float]:
    """Chunks a second of one and of eight simulators."""
    process, url = served(folder)
    try:
        rates = {count: chunk_rate(url, count, step_ms * CONFIG["n_action_steps"] / 1e3, seconds) for count in (1, 8)}
    finally:
        stop(process)
    figures = {f"chunks/s, {count} simulators": rate for count, rate in rates.items()}
    return {**figures, "chunks/s, 8 simulators / 1": rates[8] / rates[1]}


def chunk_rate(url: str, count: int, plays_s: float, seconds: float) -> float:
    until = time.perf_counter() + seconds
    answers = [0] * count

    def simulator(index: int) -> None:
        observation = {"observation.state": np.zeros(STATE, np.float32), CAMERA: picture()}
        with Client(url, timeout_s=120) as client:
            while time.perf_counter() < until:
                client.infer(observation)
                answers[index] += time.perf_counter() < until
                time.sleep(plays_s)

    threads = [threading.Thread(target=simulator, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(answers) / seconds


if __name__ == "__main__":
    if "--chunks-of" in sys.argv:
        print_own_chunks(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    elif "--products-of" in sys.argv:
        print_products(sys.argv[2])
    else:
        main()
