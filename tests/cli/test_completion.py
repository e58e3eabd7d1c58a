"""`policyserve completion`: what shells offer when Tab is pressed."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.cli.terminals import run_in

SHELLS = ("bash", "zsh", "fish")

# What was typed, the last word being the one at which Tab was pressed; what is offered; what is not.
TYPED = [
    (["se"], ["serve"], []),
    ([""], ["serve", "eval", "bench", "list", "info", "completion"], []),
    (["serve", "cartpole_"], ["cartpole_ppo", "cartpole_dqn"], ["pendulum_sac"]),
    (["serve", "--po"], ["--port"], []),
    (["serve", "cartpole_ppo", "--che"], ["--checkpoint-dir"], []),
    (["serve", "--debug", "cartpole_ppo", "--che"], ["--checkpoint-dir"], []),
    (["serve", "demo_image", "--che"], [], ["--checkpoint-dir"]),
    (["serve", "wall-x", "--model-config.mod"], ["--model-config.model-path"], []),
    (["serve", "cartpole_ppo", "--"], ["--port", "--help-all"], ["--config.algo.lr"]),
    (["serve", "cartpole_ppo", "--isolate", ""], ["thread", "process"], ["--port"]),
    (["serve", "cartpole_ppo", ""], [], ["--port", "cartpole_ppo"]),
    (["serve", ""], ["cartpole_ppo", "wall-x"], ["--port"]),
    (["bench", "cartpole_ppo", "--sw"], ["--sweep"], []),
    (["doctor", "ws://robot", "--fr"], ["--frame"], ["--sweep"]),
    (["inspect", "cartpole_"], ["cartpole_ppo", "cartpole_dqn"], ["pendulum_sac"]),
    (["inspect", "cartpole_ppo", "--"], ["--json", "--checkpoint-dir"], ["--port", "--timeout-s"]),
    (["top", "ws://robot", "--on"], ["--once"], ["--sweep"]),
    (["replay", "one.mcap", "pend"], ["pendulum_ppo", "pendulum_sac"], []),
    (["replay", "one.mcap", "--ag"], ["--against"], ["--sweep"]),
    (["replay", "one.mcap", "cartpole_ppo", "--"], ["--tolerance", "--checkpoint-dir"], ["--against"]),
    (["eval", "pend"], ["pendulum_ppo", "pendulum_sac"], []),
    (["serve", "on"], ["onnx:"], ["onnx"]),
    (["completion", ""], ["bash", "zsh", "fish"], []),
]


@cache
def script(shell: str) -> str:
    said = run_in("pipe", ["completion", shell])
    assert (said.code, said.err) == (0, "")
    return said.out


def offered_by_bash(words: list[str]) -> list[str]:
    program = (
        f'{script("bash")}\nCOMP_WORDS=(policyserve "$@")\nCOMP_CWORD=$#\n_policyserve\n'
        "printf '%s\\n' \"${COMPREPLY[@]}\"\n"
    )
    done = subprocess.run(["bash", "-c", program, "bash", *words], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def offered_by_fish(words: list[str]) -> list[str]:
    program = f"{script('fish')}\ncomplete -C 'policyserve {' '.join(words)}'\n"
    done = subprocess.run(["fish", "--no-config", "-c", program], capture_output=True, text=True, check=True)
    return [line.partition("\t")[0] for line in done.stdout.splitlines()]


def offered_by_zsh(words: list[str]) -> list[str]:
    """What the script hands to zsh's own completion, whose two functions are replaced here."""
    program = (
        "compdef() { :; }\n_files() { :; }\ncompadd() { print -l -- ${(P)2}; }\n"
        f'{script("zsh")}\nwords=(policyserve "$@")\nCURRENT=${{#words}}\n_policyserve\n'
    )
    done = subprocess.run(["zsh", "-f", "-c", program, "zsh", *words], capture_output=True, text=True, check=True)
    return [word for word in done.stdout.split() if word.startswith(words[-1])]


OFFERED = {"bash": offered_by_bash, "zsh": offered_by_zsh, "fish": offered_by_fish}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("words", "there", "absent"), TYPED, ids=[" ".join(words) for words, _, _ in TYPED])
def test_tab_offers_commands_policies_flags_and_choices(
    shell: str, words: list[str], there: list[str], absent: list[str]
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    offered = OFFERED[shell](words)
    assert [word for word in there if word not in offered] == []
    assert [word for word in absent if word in offered] == []


@pytest.mark.parametrize("words", [["onnx:policy.onnx"], ["onnx", ":", "policy.onnx"]])
def test_bash_offers_the_flags_behind_a_scheme_whose_colon_parts_the_word(words: list[str]) -> None:
    assert "--action" in offered_by_bash(["serve", *words, "--ac"])
    assert "--action" not in offered_by_bash(["serve", "demo_image", "--ac"])


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_names_every_command_and_policy(shell: str) -> None:
    for word in ("serve", "completion", "cartpole_ppo", "wall-x", "checkpoint-dir", "thread"):
        assert word in script(shell)


def test_the_help_says_where_the_scripts_belong(tmp_path: Path) -> None:
    told = run_in("pipe", ["completion", "--help"]).out
    assert "~/.local/share/bash-completion/completions/policyserve" in told
    assert "~/.config/fish/completions/policyserve.fish" in told
