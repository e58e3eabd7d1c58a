"""Coverage-guided fuzzing of everything that reads a stranger's bytes.

    pip install atheris && python tests/fuzz/run.py reading --seconds 60 [--corpus FOLDER]

Without a name it lists the fuzzers. An input that breaks one is written to the working directory as crash-…, and runs
again with --input FILE. What is found becomes a test beside the module in question; under pytest the same bodies run
with hypothesis (tests/fuzz/test_fuzz.py).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[2]))
with atheris.instrument_imports(include=["policyserve"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=[*TARGETS], help="what to fuzz")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="0: another one each time")
    parser.add_argument("--corpus", type=Path, help="a folder of inputs to begin with, to which new ones are added")
    parser.add_argument("--input", type=Path, help="run this one input and nothing else")
    flags = parser.parse_args()
    if flags.name is None:
        print("\n".join(TARGETS))
    elif flags.input is not None:
        TARGETS[flags.name](flags.input.read_bytes())
    else:
        if flags.corpus is not None:
            flags.corpus.mkdir(parents=True, exist_ok=True)
        options = [f"-max_total_time={flags.seconds}", "-max_len=4096", "-print_final_stats=1"]
        options += [f"-seed={flags.seed}"] * bool(flags.seed)
        atheris.Setup([sys.argv[0], *options, *([str(flags.corpus)] if flags.corpus else [])], TARGETS[flags.name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
