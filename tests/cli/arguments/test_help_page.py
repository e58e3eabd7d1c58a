"""Help that is read: what people use first, all of it on request, never wider than the terminal."""

from __future__ import annotations

import re

import pytest

from tests.cli.terminals import COLUMNS, WHERE, Said, Where, plain, run_in

PAGES = [
    "", "--help", "-h", "help", "help serve", "serve --help", "serve -h", "serve --help-all",
    "serve cartpole_ppo --help",
    "serve cartpole_ppo --help-all", "serve --help cartpole_ppo", "serve wall-x --help", "serve wall-x --help_all",
    "serve pendulum_sac --help=training", "serve wall-x --help=model-config", "eval --help", "eval --help-all",
    "eval cartpole_ppo --help", "bench --help", "list --help", "info --help", "completion --help",
]  # fmt: skip


def flags_in(said: Said) -> list[str]:
    return re.findall(r"^  (--[a-z.\[\]-]+)", plain(said.out), re.MULTILINE)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("words", PAGES)
def test_help_fits_80_columns_and_has_colours_on_a_terminal_only(where: Where, words: str) -> None:
    said = run_in(where, words.split())
    assert (said.code, said.err) == (0, "")
    assert plain(said.out).startswith("usage: policyserve ")
    assert max(map(len, plain(said.out).splitlines())) <= COLUMNS
    assert not set("│╭╮╰╯─") & set(said.out)
    assert ("\x1b" in said.out) == (where == "terminal" and " --" in plain(said.out) and "COMMAND" not in said.out)


def test_the_first_page_has_four_examples() -> None:
    out = run_in("pipe", ["--help"]).out
    assert len(re.findall(r"^  policyserve \w+ ", out, re.MULTILINE)) == 4


def test_help_lists_about_a_dozen_flags_and_no_training_hyperparameters() -> None:
    shown = flags_in(run_in("pipe", ["serve", "cartpole_ppo", "--help"]))
    assert shown[:4] == ["--checkpoint-dir", "--step", "--norm-stats-path", "--backend"]
    assert {"--host", "--port", "--api-key-file", "--tls-cert", "--isolate", "--debug"} <= set(shown)
    assert len(shown) <= 20
    assert not [name for name in shown if name.startswith("--config.")]


@pytest.mark.parametrize(("command", "word"), [("bench", "TARGET"), ("doctor", "URL")])
def test_what_a_command_cannot_do_without_stands_before_its_flags(command: str, word: str) -> None:
    told = re.findall(r"^  ([A-Z]+ |--[a-z-]+)", run_in("pipe", [command, "--help"]).out, re.MULTILINE)
    assert (told[0].strip(), told[1][:2]) == (word, "--")


def test_what_a_policy_needs_stands_before_the_servers_flags() -> None:
    shown = flags_in(run_in("pipe", ["serve", "wall-x", "--help"]))
    assert shown.index("--model-config.model-path") < shown.index("--host")
    assert "--seed" not in shown


def test_help_all_lists_the_rest_by_groups_which_can_be_asked_for_one_by_one() -> None:
    usual = run_in("pipe", ["serve", "cartpole_ppo", "--help"]).out
    everything = run_in("pipe", ["serve", "cartpole_ppo", "--help-all"])
    every = flags_in(everything)
    assert f"--help-all lists all {len(every)} flags" in usual
    groups = re.findall(r"^([a-z-]+):$", everything.out, re.MULTILINE)
    assert groups[:2] == ["policy", "common"]
    told = " ".join(usual.split())
    assert told.endswith(f"those of one group: {', '.join(groups[2:])}")
    by_group = [
        name for group in groups for name in flags_in(run_in("pipe", ["serve", "cartpole_ppo", f"--help={group}"]))
    ]
    assert by_group == every
    assert "--config.algo.hidden-sizes" in every


def test_defaults_are_shown_as_they_are_typed() -> None:
    out = " ".join(run_in("pipe", ["serve", "cartpole_ppo", "--help-all"]).out.split())
    assert "--step NUMBER Load this step; None: the latest --norm" in out
    assert "--uds PATH The path of a Unix socket" in out
    assert "--isolate thread|process Where the policy runs" in out
    assert "any free one (default: 8000)" in out
    assert "--[no-]rescale-actions Rescale" in out
    assert "--debug Log every step" in out
    assert "--config.algo.hidden-sizes NUMBER … Width of each hidden layer, tanh after it (default: 64 64)" in out
    assert "{None}" not in out


def test_training_hyperparameters_are_still_read() -> None:
    said = run_in("pipe", ["serve", "cartpole_ppo", "--config.algo.lr", "0.5", "--port", "70000"])
    assert said.err == "error: --port: expected 0 … 65535, got 70000\n"


def test_help_of_eval_and_serve_lists_flags_before_a_policy_is_named() -> None:
    assert "--episodes" in flags_in(run_in("pipe", ["eval", "--help"]))
    assert "--url" in flags_in(run_in("pipe", ["eval", "--help"]))
    assert "--port" in flags_in(run_in("pipe", ["serve", "--help"]))
    assert "POLICY is cartpole_ppo, " in run_in("pipe", ["serve", "--help"]).out
