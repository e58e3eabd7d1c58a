#!/usr/bin/env python3
"""Train a policy: one of the two demos that ship with policyserve, or one for an environment of Gymnasium's.

    python scripts/train_demo.py cartpole_ppo
    python scripts/train_demo.py Acrobot-v1 --seed 1
    python scripts/train_demo.py my_package:MyEnv-v0 --total-steps 100000 --output runs/mine
    python scripts/train_demo.py cartpole_ppo --every-checkpoint

It is written to runs/NAME, and the last lines printed are the commands that serve and evaluate it. The demos take well
under a minute on two CPU cores; others are trained by PPO where actions are discrete, by SAC where they are vectors
with bounds. Observations have to be vectors; they are z-scored with statistics of a random policy, measured
beforehand. The checkpoint kept is the one with the best deterministic evaluation; with --every-checkpoint all are, and
each is there as soon as it is evaluated: `policyserve serve vibe_rl:runs/NAME --follow` serves them while it trains.
Needs the extra `train`.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from training.config import DEMOS, demo_config, general_config

from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.core.nearest import nearest

if TYPE_CHECKING:
    from training.loop import Evaluation, OnEvaluated, Trained
    from training.norm_stats import NormStats

    from policyserve.policies.vibe_rl import TrainConfig

ROOT = Path(__file__).resolve().parents[1]
DEMOS_FOLDER = ROOT / "src" / "policyserve" / "policies" / "vibe_rl" / "demos"
PLOTS_FOLDER = ROOT / "docs" / "demos"
FAILURE, ARGUMENT_ERROR, INTERRUPTED = 1, 2, 130


def main() -> int:
    arguments = _read_arguments()
    # Networks this small are quicker on the CPU, and the same seed gives the same bytes there.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    try:
        train = _train_demo if arguments.name in DEMOS else _train_in_gymnasium
        trained = train(arguments)
    except ModuleNotFoundError as error:
        return _complain(f"{error.name} is missing: pip install 'policyserve[train]'", FAILURE)
    except MissingDependency as error:
        return _complain(f"{error.module} is missing: pip install 'policyserve[train]'", FAILURE)
    except ConfigError as error:
        return _complain(str(error), ARGUMENT_ERROR)
    except OSError as error:
        return _complain(f"{error.filename}: {error.strerror}", FAILURE)
    except KeyboardInterrupt:
        return _complain("interrupted: nothing is written", INTERRUPTED)
    step = f" --step {trained.best.env_steps}" if arguments.every_checkpoint else ""
    folder = shlex.quote(f"vibe_rl:{arguments.output}") + step
    print(f"{arguments.output}: return {trained.best.mean:.1f} ± {trained.best.std:.1f} in evaluation")
    print(f"{arguments.plot}: the learning curve")
    print(f"serve it     policyserve serve {folder}")
    print(f"evaluate it  policyserve eval {folder} --episodes 20")
    return 0


def _train_demo(arguments: argparse.Namespace) -> Trained:
    from training import envs, in_jax, loop

    config = demo_config(arguments.name, seed=arguments.seed, total_steps=arguments.total_steps)
    world = in_jax.JaxWorld(envs.ENVIRONMENTS[config.env_id])
    trained = loop.train(config, world, _writer(arguments, config))
    _write(arguments, config, trained, world.facts.solved_return)
    return trained


def _train_in_gymnasium(arguments: argparse.Namespace) -> Trained:
    from training import in_gymnasium, loop, run_files

    world = in_gymnasium.open_world(arguments.name)
    actions = world.actions
    bounds = None if actions.is_discrete else actions.bounds
    config = general_config(arguments.name, bounds, seed=arguments.seed, total_steps=arguments.total_steps)
    if arguments.every_checkpoint:
        arguments.output.mkdir(parents=True)
        run_files.write_environment(arguments.output, world.facts, actions.is_discrete)
    trained = loop.train(config, world, _writer(arguments, config, actions.stats))
    _write(arguments, config, trained, world.facts.solved_return, actions.stats)
    run_files.write_environment(arguments.output, world.facts, actions.is_discrete)
    return trained


def _writer(
    arguments: argparse.Namespace, config: TrainConfig, action_stats: NormStats | None = None
) -> OnEvaluated | None:
    """What writes each checkpoint as soon as it is evaluated, if that is wanted."""
    if not arguments.every_checkpoint:
        return None
    from training import run_files

    def write(stats: NormStats, evaluation: Evaluation, state: object) -> None:
        if not (arguments.output / "config.json").exists():
            run_files.write_description(arguments.output, config, stats, action_stats)
        run_files.write_checkpoint(arguments.output, config, evaluation, state)

    return write


def _write(
    arguments: argparse.Namespace,
    config: TrainConfig,
    trained: Trained,
    solved_return: float | None,
    action_stats: NormStats | None = None,
) -> None:
    from training import run_files

    if not arguments.every_checkpoint:
        run_files.write_run(arguments.output, config, trained, action_stats)
    run_files.draw_curve(arguments.plot, config, trained, solved_return)


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(ARGUMENT_ERROR, f"{self.prog}: {message} (--help tells more)\n")


def _read_arguments() -> argparse.Namespace:
    parser = _OneLineParser(prog="train_demo", description="Train a policy that policyserve serves.")
    parser.add_argument(
        "name", metavar="NAME", help=f"{', '.join(sorted(DEMOS))}, or a Gymnasium id such as Acrobot-v1"
    )
    parser.add_argument("--seed", type=_whole_number(0), default=0, help="of everything random (default: 0)")
    parser.add_argument(
        "--total-steps", type=_whole_number(1), help="environment steps, rounded up to whole evaluation intervals"
    )
    parser.add_argument("--output", type=Path, help="new folder for the run (default: runs/NAME)")
    parser.add_argument("--plot", type=Path, help="picture of the learning curve (default: OUTPUT/reward.png)")
    parser.add_argument(
        "--every-checkpoint", action="store_true", help="keep the checkpoint of each evaluation, as it is made"
    )
    parser.add_argument(
        "--replace-demo", action="store_true", help="overwrite the demo in the package, and its picture in docs/"
    )
    arguments = parser.parse_args()
    _check_name(parser, arguments.name)
    if arguments.replace_demo:
        _check_replaced(parser, arguments)
        arguments.output = DEMOS_FOLDER / arguments.name
        arguments.plot = arguments.plot or PLOTS_FOLDER / f"{arguments.name}.png"
        return arguments
    if arguments.output is None:
        arguments.output = Path("runs") / re.sub(r"[^\w.-]+", "_", arguments.name)
    if arguments.output.exists():
        parser.error(f"argument --output: {arguments.output} exists, expected a new folder")
    arguments.plot = arguments.plot or arguments.output / "reward.png"
    _check_writable(parser, "--output", arguments.output)
    _check_writable(parser, "--plot", arguments.plot)
    if arguments.plot.suffix.lower() not in (".png", ".svg", ".pdf"):
        parser.error(f"argument --plot: expected a file that ends in .png, .svg or .pdf, got {arguments.plot}")
    return arguments


def _check_name(parser: _OneLineParser, name: str) -> None:
    if name in DEMOS or "-v" in name or ":" in name:  # Gymnasium will say whether it has it
        return
    near = nearest(name, DEMOS)
    hint = f" (did you mean {near}?)" if near else ""
    parser.error(f"expected {', '.join(sorted(DEMOS))} or a Gymnasium id such as Acrobot-v1, got {name!r}{hint}")


def _check_replaced(parser: _OneLineParser, arguments: argparse.Namespace) -> None:
    if arguments.name not in DEMOS:
        parser.error(f"argument --replace-demo: expected {' or '.join(sorted(DEMOS))}, got {arguments.name!r}")
    if arguments.output is not None:
        parser.error("argument --replace-demo: the demo has its own place, so it takes no --output")
    if arguments.every_checkpoint:
        parser.error("argument --replace-demo: a demo is one checkpoint, so it takes no --every-checkpoint")


def _check_writable(parser: _OneLineParser, option: str, path: Path) -> None:
    """End the program, before anything is trained, if a place cannot be made."""
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        parser.error(f"argument {option}: {path}: {above} is no folder")
    if not os.access(above, os.W_OK):
        parser.error(f"argument {option}: {path} cannot be written: no permission in {above}")


def _complain(message: str, exit_code: int) -> int:
    print(f"train_demo: {message}", file=sys.stderr)
    return exit_code


def _whole_number(least: int) -> Callable[[str], int]:
    """Return an argparse type: decimal digits, worth at least `least`."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} on, got {text!r}")
        return int(text)

    return read


if __name__ == "__main__":
    status = main()
    if status == INTERRUPTED:  # JAX may still compile, and then crashes while the interpreter is taken down
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    raise SystemExit(status)
