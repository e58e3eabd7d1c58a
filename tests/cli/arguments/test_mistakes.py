"""What a command says of a wrong command line: one line, the same on a terminal of 80 columns and through a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli.terminals import WHERE, Where, plain, run_in, unbroken

COMMANDS = (
    "serve, new, swap, eval, bench, inspect, doctor, top, record, replay, view, export, list, info, cluster, completion"
)
HELP = "(policyserve serve cartpole_ppo --help)"
KNOWN = (
    "cartpole_ppo, cartpole_dqn, pendulum_ppo, pendulum_sac, gridworld_dqn, vibe_rl:FOLDER, onnx:FILE, sb3:FILE.zip, "
    "lerobot:PATH, remote:URL, openpi:CONFIG, torch:FILE, demo_flow, demo_image, wall-x"
)

# The words, and what is said of them behind `error: `.
SAID: Sequence[tuple[str, str]] = [
    # Commands
    ("serv", "unknown command serv; did you mean serve? (policyserve --help)"),
    ("SERVE cartpole_ppo", "unknown command SERVE; did you mean serve? (policyserve --help)"),
    ("--vesion", "unknown flag --vesion; did you mean --version? (policyserve --help)"),
    ("--config serve.toml", f"unknown flag --config; flags stand behind a command: {COMMANDS} (policyserve --help)"),
    ("cartpole_ppo", "unknown command cartpole_ppo; did you mean serve cartpole_ppo? (policyserve --help)"),
    ("robot.py:act", "unknown command robot.py:act; did you mean serve robot.py:act? (policyserve --help)"),
    ("zzz", f"unknown command zzz; there are {COMMANDS} (policyserve --help)"),
    ("list demos", "unexpected word 'demos' (policyserve list --help)"),
    ("info --gpu", "unknown flag --gpu (policyserve info --help)"),
    ("completion", "completion of no shell: expected bash, zsh, fish (policyserve completion --help)"),
    ("completion bsh", "completion of bsh: did you mean bash? (policyserve completion --help)"),
    # Policies
    ("serve", f"expected a policy: {KNOWN} or package.module:name (policyserve list)"),
    ("serve --port 8001", f"expected a policy: {KNOWN} or package.module:name (policyserve list)"),
    ("serve cartpole_pp", "there is no policy 'cartpole_pp'; did you mean cartpole_ppo?"),
    ("serve cartpole-ppo", "there is no policy 'cartpole-ppo'; did you mean cartpole_ppo?"),
    ("serve CARTPOLE_PPO", "there is no policy 'CARTPOLE_PPO'; did you mean cartpole_ppo?"),
    ("serve --port 8001 wall_x", "there is no policy 'wall_x'; did you mean wall-x?"),
    ("serve zzz", f"there is no policy 'zzz'; expected {KNOWN} or package.module:name"),
    ("serve serve.toml", "expected a policy, got serve.toml: a file of settings stands behind --config"),
    ("serve my_robot", "write my_robot:NAME; it has policy, MyPolicy"),
    ("serve my_robot.py", "write my_robot.py:NAME; it has policy, MyPolicy"),
    ("serve my_robot:", "write my_robot:NAME; it has policy, MyPolicy"),
    ("serve my_robt", "there is no policy 'my_robt'; did you mean my_robot:NAME?"),
    ("serve other.py", "write other.py:NAME, the policy's name in it; there is no file other.py yet"),
    ("bench cartpole_pp", "there is no policy 'cartpole_pp'; did you mean cartpole_ppo? (a server's address is ws://host:port)"),
    ("eval", "expected a policy, or --url ws://host:port of a server (policyserve eval --help)"),
    ("eval cartpole_pp", "there is no policy 'cartpole_pp'; did you mean cartpole_ppo?"),
    ("eval zzz --url ws://x", "expected a policy or --url, got zzz and --url (policyserve eval --help)"),
    # Flags
    ("serve cartpole_ppo --prot 80", f"unknown flag --prot 80; did you mean --port? {HELP}"),
    ("serve cartpole_ppo --prot=80", f"unknown flag --prot=80; did you mean --port? {HELP}"),
    ("serve --prot 80 cartpole_ppo", f"unknown flag --prot 80; did you mean --port? {HELP}"),
    ("serve cartpole_ppo -p 80", f"unknown flag -p 80 {HELP}"),
    ("serve cartpole_ppo --checkpoint x", f"unknown flag --checkpoint x; did you mean --checkpoint-dir? {HELP}"),
    ("serve cartpole_ppo --lr 1", f"unknown flag --lr 1; did you mean --config.algo.lr? {HELP}"),
    ("serve cartpole_ppo --confg x.yaml", f"unknown flag --confg x.yaml; did you mean --config? {HELP}"),
    ("serve cartpole_ppo --tyro-print-completion bash", f"unknown flag --tyro-print-completion bash {HELP}"),
    ("serve cartpole_ppo 8000", f"unexpected word '8000' {HELP}"),
    ("serve cartpole_ppo port=80", f"unexpected word 'port=80'; did you mean --port=80? {HELP}"),
    ("serve cartpole_ppo \u2014port 80", f"unexpected word '\u2014port'; did you mean --port? {HELP}"),
    ("serve cartpole_ppo help", f"unexpected word 'help'; did you mean --help? {HELP}"),
    ("serve cartpole_ppo --hlep", f"unknown flag --hlep; did you mean --help? {HELP}"),
    ("serve cartpole_ppo -- --port 80", f"unexpected word '--port' behind -- {HELP}"),
    ("serve cartpole_ppo --port 80 81", f"unexpected word '81' behind --port 80 {HELP}"),
    ("serve cartpole_ppo --debug yes", f"unexpected word 'yes' behind --debug {HELP}"),
    ("serve cartpole_ppo --help=limit", "there is no group 'limit' of flags; did you mean --help=limits?"),
    # Values
    ("serve cartpole_ppo --port abc", f"--port: expected a whole number, got 'abc' {HELP}"),
    ("serve cartpole_ppo --port", f"--port: expected a whole number, got nothing {HELP}"),
    ("serve cartpole_ppo --port --debug", f"--port: expected a whole number, got nothing {HELP}"),
    ("serve cartpole_ppo --port=", f"--port: expected a whole number, got nothing {HELP}"),
    ("serve cartpole_ppo --drain-s soon", f"--drain-s: expected a number, got 'soon' {HELP}"),
    ("serve cartpole_ppo --isolate proces",
     f"--isolate: expected thread or process, got 'proces'; did you mean process? {HELP}"),
    ("serve cartpole_ppo --debug=yes", f"--debug: expected no value behind it, got '--debug=yes' {HELP}"),
    ("serve cartpole_ppo --config.algo.hidden-sizes 64 x",
     f"--config.algo.hidden-sizes: expected whole numbers, got '64 x' {HELP}"),
    ("serve cartpole_ppo --port 70000", "--port: expected 0 … 65535, got 70000"),
    ("serve cartpole_ppo --port -5", "--port: expected 0 … 65535, got -5"),
    ("serve cartpole_ppo --max-batch 0", "--max-batch: expected 1 or more, got 0"),
    ("serve wall-x --model-config.state-dim 0", "--model-config.state-dim: expected 1 or more, got 0"),
    ("serve cartpole_dqn", "--checkpoint-dir is required: demos ship for cartpole_ppo, pendulum_sac only"),
    ("bench", "TARGET is missing: a server's ws://host:port, or a policy (policyserve bench --help)"),
    ("bench ws://x:1 ws://y:1", "unexpected word 'ws://y:1' (policyserve bench --help)"),
    ("eval --url", "--url: expected a text, got nothing (policyserve eval --help)"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory with a module of the user's."""
    monkeypatch.chdir(tmp_path)
    source = "LIMIT = 3\nclass MyPolicy:\n    def infer(self, observation): ...\ndef policy(observation): ...\n"
    (tmp_path / "my_robot.py").write_text(source)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize(("words", "told"), SAID, ids=[words for words, _ in SAID])
def test_a_mistake_is_one_line_that_says_what_was_probably_meant(where: Where, words: str, told: str) -> None:
    said = run_in(where, words.split())
    colours = ("\x1b[31m", "\x1b[0m") if where == "terminal" else ("", "")
    assert unbroken(said.err) == f"{colours[0]}error:{colours[1]} {told}\n"
    assert said.out == ""
    assert said.code == 2


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_a_terminal_without_colours_gets_the_same_words(name: str, value: str) -> None:
    said = run_in("terminal", ["serve", "cartpole_ppo", "--prot", "80"], **{name: value})
    assert unbroken(said.err) == f"error: unknown flag --prot 80; did you mean --port? {HELP}\n"


def test_a_flag_that_stands_before_the_policy_is_read(tmp_path: Path) -> None:
    for words in (
        "--port 70000 cartpole_ppo",
        "--debug cartpole_ppo --port 70000",
        "--step 5 cartpole_ppo --port 70000",
        "--no-rescale-actions cartpole_ppo --port 70000",
        "--port=70000 my_robot:policy",
    ):
        assert run_in("pipe", ["serve", *words.split()]).err == "error: --port: expected 0 … 65535, got 70000\n"


def test_what_is_printed_of_a_url_has_no_key() -> None:
    assert plain(run_in("terminal", ["bench", "ws://a:secret@x:1", "ws://b:secret@y:1"]).err).count("secret") == 0
