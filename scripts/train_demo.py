#!/usr/bin/env python3
"""Train one of the two demo policies that ship with policyserve.

    python scripts/train_demo.py cartpole_ppo
    python scripts/train_demo.py pendulum_sac --seed 1 --output runs/pendulum

Takes well under a minute on two CPU cores. The observations are z-scored with statistics of a random policy, measured
beforehand; the checkpoint kept is the one with the best deterministic evaluation. Needs the extra `train`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from training.config import DEMOS, demo_config

ROOT = Path(__file__).resolve().parents[1]
DEMOS_FOLDER = ROOT / "src" / "policyserve" / "policies" / "vibe_rl" / "demos"
PLOTS_FOLDER = ROOT / "docs" / "demos"


def main() -> int:
    arguments = _read_arguments()
    # Networks this small are quicker on the CPU, and the same seed gives the same bytes there.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    try:
        from training import envs, loop, run_files
    except ModuleNotFoundError as error:
        print(f"train_demo: {error.name} is missing: pip install 'policyserve[train]'", file=sys.stderr)
        return 1
    config = demo_config(arguments.name, seed=arguments.seed, total_steps=arguments.total_steps)
    trained = loop.train(config)
    checkpoint = run_files.write_run(arguments.output, config, trained)
    run_files.draw_curve(arguments.plot, config, trained, envs.ENVIRONMENTS[config.env_id].solved_return)
    print(f"{checkpoint}: return {trained.best.mean:.1f} ± {trained.best.std:.1f} in evaluation")
    print(f"{arguments.plot}: the learning curve")
    return 0


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (--help tells more)\n")


def _read_arguments() -> argparse.Namespace:
    parser = _OneLineParser(prog="train_demo", description="Train one of the demo policies of policyserve.")
    parser.add_argument("name", choices=sorted(DEMOS), help="which demo")
    parser.add_argument("--seed", type=_whole_number(0), default=0, help="of everything random (default: 0)")
    parser.add_argument(
        "--total-steps", type=_whole_number(1), help="environment steps, rounded up to whole evaluation intervals"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="new folder for config, norm stats and checkpoint (default: replace the demo in the package)",
    )
    parser.add_argument(
        "--plot",
        type=Path,
        help="picture of the learning curve (default: docs/demos/NAME.png; with --output, OUTPUT/reward.png)",
    )
    arguments = parser.parse_args()
    if arguments.plot is None:
        default = PLOTS_FOLDER / f"{arguments.name}.png"
        arguments.plot = default if arguments.output is None else arguments.output / "reward.png"
    if arguments.output is None:
        arguments.output = DEMOS_FOLDER / arguments.name
    elif arguments.output.exists():
        parser.error(f"argument --output: {arguments.output} exists, expected a new folder")
    return arguments


def _whole_number(least: int) -> Callable[[str], int]:
    """Return an argparse type: decimal digits, worth at least `least`."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} on, got {text!r}")
        return int(text)

    return read


if __name__ == "__main__":
    raise SystemExit(main())
