#!/usr/bin/env python3
"""Serve a tiny Wall-X checkpoint on a GPU, drive it, break it, and end with 1 at the first thing that is wrong.

    python scripts/serve_on_gpu.py --golden ../shared/wall_x/golden [--device cuda] [--seconds 60] [--clients 8]

Clients ask for a while: no error, and more than one observation in a call of the policy. Then the policy's process is
killed: requests are answered again, by another one. Then come images of another size and a long prompt.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from policyserve import Client
from policyserve.core.errors import PolicyserveError

_BACK_WITHIN_S = 120
PARTS = ("sum", "count")  # of a histogram


class Wrong(Exception):
    """What was expected of the server and did not come."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", type=Path, required=True, help="the folder of the golden checkpoints")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    if not (options.golden / "checkpoint_flow_libero").is_dir():
        print(f"--golden: {options.golden} has no checkpoint_flow_libero", file=sys.stderr)
        return 2
    try:
        with serving(options.golden, options.device) as (url, server):
            check_load(url, options.clients, options.seconds)
            check_killed(url, server)
            check_other_shapes(url)
    except (Wrong, PolicyserveError) as error:
        print(f"wrong: {error}", file=sys.stderr)
        return 1
    print("served")
    return 0


@contextmanager
def serving(golden: Path, device: str) -> Iterator[tuple[str, int]]:
    """A server as a person starts it: its URL and process id. Raises Wrong where it ends with anything but 0."""
    model = golden / "checkpoint_flow_libero"
    flags = {
        "--model-config.model-path": model,
        "--model-config.train-config-path": model / "config.yml",
        "--model-config.action-tokenizer-path": golden / "fast_tokenizer",
        "--model-config.predict-mode": "diffusion",
        "--model-config.device": device,
        "--model-config.dtype": "float32",
        "--isolate": "process",
        "--devices": "cuda:0" if device == "cuda" else "cpu",
        "--host": "127.0.0.1",
        "--port": 0,
    }
    words = [str(word) for pair in flags.items() for word in pair]
    command = [sys.executable, "-m", "policyserve.cli", "serve", "wall-x", "--env", "libero", *words]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
    try:
        yield wait_for_url(process), process.pid
        process.send_signal(signal.SIGTERM)
        if process.wait(timeout=60) != 0:
            raise Wrong(f"the server ended with {process.returncode}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def wait_for_url(process: subprocess.Popen[str]) -> str:
    """Read what the server says until it is ready; a thread shows the rest. Raises Wrong if it ends before."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        print(line, end="")
        lines.append(line)
        if line.startswith("ready"):
            threading.Thread(
                target=lambda lines: [print(line, end="") for line in lines], args=(process.stdout,)
            ).start()
            found = re.search(r"ws://\S+:\d+", "".join(line for line in lines if line.lstrip().startswith("url")))
            if found:
                return found.group()
    raise Wrong("the server did not get ready")


def show(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, end="")


def observation(height: int = 256, width: int = 256, prompt: str = "put the bowl on the plate") -> dict[str, Any]:
    random = np.random.default_rng(0)
    cameras = {
        name: random.integers(0, 256, (height, width, 3), np.uint8) for name in ("front_view", "left_wrist_view")
    }
    state = random.standard_normal(8).astype(np.float32)
    return {**cameras, "state": state, "prompt": prompt, "dataset_names": ["physical-intelligence/libero"]}


def check_load(url: str, clients: int, seconds: float) -> None:
    """Several clients at once, each asking again as soon as it is answered. Raises Wrong."""
    until = time.monotonic() + seconds
    answers, errors = [0] * clients, []

    def ask(place: int) -> None:
        try:
            with Client(url) as client:
                while time.monotonic() < until and not errors:
                    client.infer(observation())
                    answers[place] += 1
        except PolicyserveError as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise Wrong(f"a request under load failed: {errors[0]}")
    mean = mean_batch(url)
    print(f"{sum(answers)} answers to {clients} clients, {sum(answers) / seconds:.1f} a second, {mean:.1f} in a batch")
    if clients > 1 and mean <= 1:
        raise Wrong("every batch held one observation alone")


def mean_batch(url: str) -> float:
    """How many requests a call of the policy held on the average, by the server's own metrics."""
    with urllib.request.urlopen(f"{url.replace('ws', 'http', 1)}/metrics", timeout=30) as page:
        text = page.read().decode()
    sums, counts = (re.findall(rf"^policyserve_batch_size_{name}\S* (\S+)$", text, re.MULTILINE) for name in PARTS)
    return float(sums[0]) / float(counts[0])


def check_killed(url: str, server: int) -> None:
    """Kill the processes below the server that hold the policy, and wait for the next one's answer. Raises Wrong."""
    found = [pid for pid in descendants(server) if b"policyserve.engine.isolated.worker" in command_of(pid)]
    if not found:
        raise Wrong("no process of the policy's was found below the server")
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + _BACK_WITHIN_S
    while True:
        try:
            with Client(url) as client:
                client.infer(observation())
            return print("answered again after the policy's process was killed")
        except PolicyserveError as error:
            if time.monotonic() > until:
                raise Wrong(f"no answer {_BACK_WITHIN_S} s after the policy's process was killed: {error}") from error
            time.sleep(1)


def descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [one for child in children for one in (int(child), *descendants(int(child)))]


def command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")


def check_other_shapes(url: str) -> None:
    for height, width, prompt in ((480, 640, "go"), (224, 224, "put the bowl on the plate " * 30)):
        with Client(url) as client:
            client.infer(observation(height, width, prompt))
        print(f"answered {height}x{width} with a prompt of {len(prompt)} letters")


if __name__ == "__main__":
    sys.exit(main())
