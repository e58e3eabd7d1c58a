"""A configuration file and the environment set flags; what is wrong with one is a line that says where it stands."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import pytest
from tyro.conf import Positional, arg

from policyserve import Client
from policyserve.cli import main
from policyserve.cli.arguments.configuration import (
    ConfigurationFlags,
    Given,
    keys_of,
    read_configuration,
    variable_of,
)
from policyserve.cli.arguments.parsing import parse
from policyserve.cli.arguments.setting import NOT_A_PATH, TYPED, Setting
from policyserve.cli.bench import BenchFlags
from policyserve.cli.policies import read_flags
from policyserve.cli.serve import ServeFlags
from policyserve.policies import registry
from policyserve.policies.vibe_rl import demo_directory
from policyserve.policies.wall_x import STAND_IN
from policyserve.server.config import ServerConfig
from tests.cli.serving import POLICYSERVE, run, serving

CARTPOLE = 'policy = "cartpole_ppo"\n'


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each test begins in an empty directory, without variables of ours; nothing is served in this process."""

    def refuse(*_: Any) -> None:
        raise AssertionError("it serves, with this configuration")

    monkeypatch.setattr("policyserve.cli.serve.serve_until_stopped", refuse)
    for name in [name for name in os.environ if name.startswith("POLICYSERVE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def read(*argv: str, file: str = "", policy: str = "cartpole_ppo", **variables: str) -> ServeFlags[Any]:
    """The flags of `serve POLICY` as the file serve.toml, variables without their prefix, and argv give them."""
    if file:
        Path("serve.toml").write_text(file)
        argv = (*argv, "--config", "serve.toml")
    environment = {f"POLICYSERVE_{name}": text for name, text in variables.items()}
    configuration = read_configuration(argv, policy, environment=environment)
    return read_flags(
        registry.find(policy), lambda flags: ServeFlags(ServerConfig(), flags), "test", argv, configuration
    )


def test_a_file_sets_flags_of_the_server_of_the_policy_and_of_the_command() -> None:
    flags = read(file="port = 9000\nmax-wait-ms = 2\nmax_batch = 7\ndebug = true\n[config.algo]\nhidden_sizes = [8]\n")
    assert (flags.server.port, flags.server.max_wait_ms, flags.policy.max_batch, flags.debug) == (9000, 2.0, 7, True)
    assert flags.policy.config.algo.hidden_sizes == (8,)


def test_a_typed_flag_goes_before_a_variable_a_variable_before_the_file_and_the_file_before_the_default() -> None:
    file = "port = 1\nreplicas = 1\nmax-queue = 1\nmax-pending = 1\n"
    server = read("--port", "3", "--max_queue=3", file=file, PORT="2", REPLICAS="2").server
    assert (server.port, server.max_queue, server.replicas, server.max_pending) == (3, 3, 2, 1)
    assert server.max_sessions == ServerConfig().max_sessions


@pytest.mark.parametrize(("typed", "is_on"), [((), True), (("--no-debug-wire",), False), (("--debug-wire",), True)])
def test_a_typed_switch_goes_before_the_files(typed: tuple[str, ...], is_on: bool) -> None:
    assert read(*typed, file="debug-wire = true\n").server.debug_wire is is_on


def test_a_file_turns_off_what_is_on_by_default() -> None:
    assert read(file="rescale-actions = false\n").policy.rescale_actions is False
    assert read(file="[config.runner]\nplot = false\n").policy.config.runner.plot is False


@pytest.mark.parametrize(
    ("text", "is_on"), [("true", True), ("1", True), ("Yes", True), ("on", True), ("False", False), ("0", False)]
)
def test_a_variable_turns_a_switch_on_or_off(text: str, is_on: bool) -> None:
    assert read(DEBUG=text).debug is is_on
    assert read(policy="wall-x", TRAILING_TOKENS=text).policy.options.trailing_tokens is is_on


def test_a_variable_of_several_words_is_split_as_a_shell_would() -> None:
    assert read(ALLOWED_ORIGINS="http://a 'http://b'").server.allowed_origins == ("http://a", "http://b")
    assert read(CONFIG_ALGO_HIDDEN_SIZES="8 9").policy.config.algo.hidden_sizes == (8, 9)
    assert read(policy="wall-x", MODEL_CONFIG_CAMERA_KEY="left 'right side'").policy.model_config.camera_key == [
        "left",
        "right side",
    ]


def test_texts_are_read_as_words_whatever_they_begin_with() -> None:
    assert read(policy="wall-x", file='default-prompt = "--port 80 = x"\n').policy.default_prompt == "--port 80 = x"
    assert read(file='port = "80"\nstep = "None"\n').server.port == 80
    assert read(file="allowed-origins = []\n").server.allowed_origins == ()


def test_yaml_and_json_know_nothing_as_none(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    for name, text in (("a.yaml", "step: null\nmax-wait-ms: ~\nport: 1"), ("a.json", '{"step": null, "port": 1}')):
        (tmp_path / name).write_text(text)
        flags = read("--config", name)
        assert (flags.policy.step, flags.server.max_wait_ms, flags.server.port) == (None, None, 1)


def test_a_checkpoint_that_a_file_names_brings_its_own_defaults() -> None:
    directory = demo_directory("pendulum_sac") / "checkpoints"
    read_sac = read(file=f"checkpoint-dir = {json.dumps(str(directory))}\n", policy="pendulum_sac").policy
    assert read_sac.config.algo.action_high == 2.0


def test_paths_of_a_file_are_from_its_folder_and_those_of_flags_and_variables_from_here(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "serve.toml").write_text(
        'api-key-file = "keys"\ntls-cert = "tls/a.pem"\ntls-key = "/tls/a.key"\nuds = "a.sock"\n'
        'norm-stats-path = "~/stats.json"\n'
    )
    flags = read("--config", "etc/serve.toml", "--checkpoint-dir", "runs", UDS="b.sock")
    assert flags.server.api_key_file == "etc/keys"
    assert (flags.server.tls_cert, flags.server.tls_key) == ("etc/tls/a.pem", "/tls/a.key")
    assert flags.policy.norm_stats_path == os.path.expanduser("~/stats.json")
    assert (flags.policy.checkpoint_dir, flags.server.uds) == ("runs", "b.sock")


def test_the_flags_that_take_a_path_are_known() -> None:
    names = ("cartpole_ppo", "wall-x")
    flags = [keys_of(ServeFlags(ServerConfig(), registry.find(name).defaults(None))) for name in names]
    assert {key for found in flags for key, flag in found.items() if flag.is_path} == {
        "api-key-file", "tls-cert", "tls-key", "uds", "record", "write-spec", "log-file",
        "checkpoint-dir", "norm-stats-path", "config.runner.checkpoint-dir",
        "model-config.model-path", "model-config.action-tokenizer-path", "model-config.train-config-path",
    }  # fmt: skip
    assert {key for key, flag in keys_of(BenchFlags).items() if flag.is_path} == {"json", "plot"}


def test_the_word_for_no_model_is_no_path(tmp_path: Path) -> None:
    assert NOT_A_PATH == STAND_IN
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "serve.toml").write_text('model-config.model-path = "stand-in"\nmodel-config.device = "cpu"\n')
    read_config = read("--config", "etc/serve.toml", policy="wall-x").policy.model_config
    assert (read_config.model_path, read_config.device) == ("stand-in", "cpu")


def test_every_flag_of_every_policy_has_a_key_and_a_variable_of_its_own() -> None:
    for name in (name for name in registry.listing() if ":" not in name):
        adapter = registry.find(name)
        keys = keys_of(ServeFlags(ServerConfig(), adapter.defaults(None)))
        assert len({variable_of(key) for key in keys}) == len(keys)
        assert not {"policy", "policies"} & set(keys)


def test_help_names_the_flags_that_a_file_may_set(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("pendulum_sac", "wall-x"):
        with pytest.raises(SystemExit):
            main(["serve", name, "--help"])
        told = capsys.readouterr().out
        keys = keys_of(ServeFlags(ServerConfig(), registry.find(name).defaults(None)))
        assert "port" in keys
        assert [key for key in ("host", "debug", "config", "print-config") if f"--{key}" not in told] == []


@pytest.mark.parametrize("words", [(), ("--port", "0")])
def test_a_policy_may_stand_in_the_file_alone(words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "serve.toml").write_text(f'{CARTPOLE}host = "127.0.0.1"\nport = 0\n')
    with serving([*POLICYSERVE, "serve", *words, "--config", "serve.toml"], cwd=tmp_path) as server:
        assert server.lines[0].partition(" · ")[2].startswith("cartpole_ppo")
        with Client(server.url) as client:
            assert client.infer({"obs": [0.0, 0.0, 0.0, 0.0]}).actions in (0, 1)


def test_a_policy_in_a_file_is_found_beside_the_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "robot"
    folder.mkdir()
    (folder / "own.py").write_text("def act(obs):\n    return obs['x'] * 2\n")
    (folder / "serve.toml").write_text('policy = "own.py:act"\nhost = "127.0.0.1"\nport = 0\n')
    with serving([*POLICYSERVE, "serve", "--config", "robot/serve.toml"], cwd=tmp_path) as server:
        assert server.lines[0].partition(" · ")[2].startswith("robot/own.py:act")


def test_variables_alone_serve_and_a_clients_variable_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {
        "POLICY": "demo_image", "HOST": "127.0.0.1", "PORT": "0", "API_KEY": "robot-7:a-key-of-16-letters",
    }  # fmt: skip
    for name, text in variables.items():
        monkeypatch.setenv(f"POLICYSERVE_{name}", text)
    with serving([*POLICYSERVE, "serve"], cwd=tmp_path) as server:
        assert server.lines[0].partition(" · ")[2].startswith("demo_image")
        with Client(server.url, api_key="a-key-of-16-letters") as client:
            client.connect()


def test_a_typed_policy_goes_before_the_variable_and_the_variable_before_the_file() -> None:
    Path("serve.toml").write_text(CARTPOLE)
    argv = ("--config", "serve.toml")
    named = [
        read_configuration(argv, typed, environment=environment).policy
        for typed, environment in ((None, {}), (None, {"POLICYSERVE_POLICY": "b"}), ("c", {"POLICYSERVE_POLICY": "b"}))
    ]
    assert [(one.value, one.source) for one in named if one] == [
        ("cartpole_ppo", "serve.toml: line 1"),
        ("b", "POLICYSERVE_POLICY"),
        ("c", TYPED),
    ]


def test_a_variable_names_the_file_unless_a_flag_does() -> None:
    Path("a.toml").write_text("port = 1\n")
    Path("b.toml").write_text("port = 2\n")
    assert read(CONFIG="a.toml").server.port == 1
    assert read("--config=b.toml", CONFIG="a.toml").server.port == 2


def test_the_founding_commands_take_a_file_too(capsys: pytest.CaptureFixture[str]) -> None:
    from policyserve.compat.wall_x.launch import launch_serving

    Path("serve.toml").write_text('model-config.model-path = "stand-in"\nport = 1\n')
    with pytest.raises(SystemExit) as ended:
        launch_serving(["--config", "serve.toml", "--print-config"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert 'dialect = "wall_x"\n' in told
    assert "port = 1  # serve.toml: line 2\n" in told


# What is wrong with serve.toml: its content, and what is said.
WRONG_FILES = {
    "a misspelt key": (CARTPOLE + "\nprot = 80\n", "serve.toml: line 3: unknown key prot; did you mean port?"),
    "a key of another case": (CARTPOLE + "Port = 80\n", "line 2: unknown key Port; did you mean port?"),
    "a key that nothing is like": (CARTPOLE + "zzz = 80\n", "line 2: unknown key zzz; keys are flags without"),
    "a key without its table": (
        'policy = "wall-x"\ndevice = "cpu"\n',
        "line 2: unknown key device; did you mean model-config.device?",
    ),
    "a key behind a table": (
        'policy = "wall-x"\n[model-config]\nport = 80\n',
        "line 3: unknown key model-config.port; did you mean port, which stands above the first [table]?",
    ),
    "a table that is none": (CARTPOLE + "[model-confg]\n", "line 2: unknown key model-confg"),
    "a key of another policy": (CARTPOLE + "num-steps = 3\n", "line 2: unknown key num-steps"),
    "a text for a number": (CARTPOLE + 'port = "eighty"\n', "serve.toml: line 2: port: "),
    "a switch for a number": (CARTPOLE + "port = true\n", "line 2: port: expected a whole number, got true"),
    "a fraction for a whole number": (CARTPOLE + "port = 8000.5\n", "serve.toml: line 2: port: "),
    "a date": (CARTPOLE + "port = 2000-01-01\n", "line 2: port: expected a whole number, got 2000-01-01"),
    "a list for a number": (CARTPOLE + "port = [80, 81]\n", "line 2: port: expected a whole number, got a list"),
    "a table for a number": (CARTPOLE + "[port]\ntcp = 80\n", "line 3: unknown key port.tcp; did you mean"),
    "a switch for a text": (CARTPOLE + "host = false\n", "line 2: host: expected a text, got false"),
    "a number for a switch": (CARTPOLE + "debug = 2\n", "line 2: debug: expected true or false, got 2"),
    "a text for a list": (
        CARTPOLE + 'allowed-origins = "http://a"\n',
        "line 2: allowed-origins: expected a list, as in [\"http://a\"], got 'http://a'",
    ),
    "a list in a list": (CARTPOLE + "allowed-origins = [[]]\n", "line 2: allowed-origins: expected "),
    "a flag in a list": (
        CARTPOLE + 'allowed-origins = ["--debug-wire"]\n',
        "line 2: allowed-origins: expected words that do not begin with a dash, got '--debug-wire'",
    ),
    "a number out of bounds": (CARTPOLE + "port = 70000\n", "serve.toml: line 2: port: expected 0 … 65535, got 70000"),
    "a number of the policy out of bounds": (
        CARTPOLE + "max_batch = 0\n",
        "line 2: max_batch: expected 1 or more, got 0",
    ),
    "a number of a part out of bounds": (
        'policy = "wall-x"\n[model-config]\nstate_dim = 0\n',
        "serve.toml: line 3: model-config.state_dim: expected 1 or more, got 0",
    ),
    "no choice": (CARTPOLE + 'isolate = "fork"\n', "serve.toml: line 2: isolate: "),
    "an empty text": (CARTPOLE + 'host = ""\n', "serve.toml: line 2: host: expected "),
    "both spellings": (
        CARTPOLE + "max_batch = 1\nmax-batch = 2\n",
        "line 3: max-batch stands there again, as max_batch",
    ),
    "another file": (CARTPOLE + 'config = "b.toml"\n', "line 2: config: stands on the command line only"),
    "a key far from all others in a table of the policy": (
        CARTPOLE + "[config.algo]\naction-high = 1\n",
        "line 3: unknown key config.algo.action-high; keys are flags without their dashes",
    ),
    "printing": (CARTPOLE + "print-config = true\n", "print-config: stands on the command line only, not in a file\n"),
    "a key": (CARTPOLE + 'api_key = "zq7"\n', "line 2: api_key: a key itself stands in no file like this"),
    "a misspelt file of keys": (
        CARTPOLE + 'api-key-fil = "k"\n',
        "line 2: unknown key api-key-fil; did you mean api-key-file?",
    ),
    "a policy without a source": ("[policies.pick]\nport = 1\n", "line 2: policies.pick: expected a source, as in"),
    "a table of no policies": ("[policies]\n", "line 1: policies: expected tables [policies.pick] with source"),
    "a table of one policy": ('[policy]\nname = "x"\n', "line 2: policy: expected a policy's name, such as"),
    "a number of a policy": ("policy = 3\n", "line 1: policy: expected a policy's name, such as cartpole_ppo"),
    "a misspelt policy": ('\npolicy = "cartpole_pp"\n', "serve.toml: line 2: policy: "),
    "a misspelt key of the policy": ('polcy = "x"\n', "line 1: unknown key polcy; did you mean policy?"),
    "no policy": ("port = 80\n", "serve.toml: expected a policy in it or on the command line"),
    "a key twice": (CARTPOLE + CARTPOLE, "serve.toml: line 2: policy stands there again, after line 1"),
}
# What is wrong with the words behind `serve`, where a.toml and b.toml name a policy.
WRONG_WORDS = {
    "two files": (("--config", "a.toml", "--config=b.toml"), "--config: expected one file, got a.toml and b.toml"),
    "no file": (("--config",), "--config: expected a file, got nothing"),
    "no file before a flag": (("--config", "--port", "1"), "--config: expected a file, got nothing"),
    "an empty name": (("--config=",), "--config: expected a file, got nothing"),
    "a file that is not there": (("--config", "nowhere.toml"), "nowhere.toml: there is no such file"),
    "a directory": (("--config", "."), ".: expected a file, got a directory"),
}
# What is wrong with a variable, POLICYSERVE_ and this name: its text, and what is said.
WRONG_VARIABLES = {
    "a variable that is no number": ("PORT", "abc", "POLICYSERVE_PORT: "),
    "a variable out of bounds": ("PORT", "70000", "POLICYSERVE_PORT: expected 0 … 65535, got 70000"),
    "an empty variable": ("PORT", "", "POLICYSERVE_PORT: expected a value, got nothing; unset it"),
    "an empty variable of a list": ("ALLOWED_ORIGINS", " ", "POLICYSERVE_ALLOWED_ORIGINS: expected a"),
    "an empty variable for the file": ("CONFIG", "", "POLICYSERVE_CONFIG: expected a value, got nothing"),
    "a variable for a file that is not there": (
        "CONFIG",
        "nowhere.toml",
        "POLICYSERVE_CONFIG: nowhere.toml: there is no such file",
    ),
    "an empty variable for the policy": ("POLICY", "", "POLICYSERVE_POLICY: expected a value, got nothing"),
    "a misspelt variable": ("PROT", "1", "unknown variable POLICYSERVE_PROT; did you mean POLICYSERVE"),
    "a variable of nothing": ("XYZZY", "1", "unknown variable POLICYSERVE_XYZZY; what begins with"),
    "a misspelt variable of keys": ("API_KEYS", "zq7", "POLICYSERVE_API_KEYS; did you mean POLICYSERVE_API_KEY?"),
    "a variable for a key": ("TOKEN", "zq7", "POLICYSERVE_TOKEN; the variable for keys is POLICYSERVE_API_KEY"),
    "a variable for printing": ("PRINT_CONFIG", "1", "--print-config stands on the command line only"),
    "a variable of several policies": ("POLICIES_PICK_PORT", "1", "policies by name stand on the command line of"),
    "a misspelt policy of a variable": ("POLICY", "cartpole_pp", "POLICYSERVE_POLICY: "),
    "a switch that is neither": ("DEBUG", "maybe", "POLICYSERVE_DEBUG: expected true or false, got 'maybe'"),
    "an open quote": ("ALLOWED_ORIGINS", "'http://a", "POLICYSERVE_ALLOWED_ORIGINS: expected words with"),
    "what Kubernetes sets": ("PORT", "tcp://10.0.0.1:8000", "POLICYSERVE_PORT: set by Kubernetes for"),
    "what Kubernetes sets too": ("SERVICE_HOST", "10.0.0.1", "enableServiceLinks: false"),
}


def refusal(words: Sequence[str], capfd: pytest.CaptureFixture[str]) -> str:
    """The one line with which `serve` ends, with 2."""
    with pytest.raises(SystemExit) as ended:
        main(["serve", *words])
    out, err = capfd.readouterr()
    assert ended.value.code == 2
    assert out == ""
    assert err.count("\n") == 1, err
    assert "zq7" not in err
    return err


@pytest.mark.parametrize("mistake", WRONG_FILES)
def test_a_mistake_in_a_file_is_one_line_that_says_where_it_stands(
    mistake: str, capfd: pytest.CaptureFixture[str]
) -> None:
    content, said = WRONG_FILES[mistake]
    Path("serve.toml").write_text(content)
    assert said in refusal(["--config", "serve.toml"], capfd)


@pytest.mark.parametrize("mistake", WRONG_WORDS)
def test_a_mistake_in_naming_a_file_is_one_line(mistake: str, capfd: pytest.CaptureFixture[str]) -> None:
    words, said = WRONG_WORDS[mistake]
    for name in ("a.toml", "b.toml"):
        Path(name).write_text(CARTPOLE)
    assert said in refusal(words, capfd)


@pytest.mark.parametrize("mistake", WRONG_VARIABLES)
def test_a_mistake_in_a_variable_is_one_line_that_names_it(
    mistake: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, text, said = WRONG_VARIABLES[mistake]
    Path("serve.toml").write_text(CARTPOLE)
    monkeypatch.setenv(f"POLICYSERVE_{name}", text)
    words = [] if name in ("CONFIG", "POLICY") else ["--config", "serve.toml"]
    assert said in refusal(words, capfd)


def test_a_typed_flag_is_blamed_itself_whatever_the_file_says(capfd: pytest.CaptureFixture[str]) -> None:
    Path("serve.toml").write_text("port = 1\nmax-batch = 0\n")
    for words, said in (
        (("--port", "x", "--max-batch", "1"), "--port"),
        (("--prot", "1", "--max-batch", "1"), "--prot"),
    ):
        with pytest.raises(SystemExit):
            main(["serve", "cartpole_ppo", "--config", "serve.toml", *words])
        err = capfd.readouterr().err
        assert said in err
        assert "serve.toml" not in err


def test_a_wrong_value_that_a_flag_replaces_is_no_mistake() -> None:
    assert read("--port", "3", file='port = "eighty"\n').server.port == 3


@pytest.mark.parametrize("words", [("--config", "nowhere.toml"), ("--config", "serve.toml"), ()])
def test_help_is_given_whatever_is_wrong_with_the_configuration(
    words: tuple[str, ...], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("serve.toml").write_text("prot = 1\n")
    monkeypatch.setenv("POLICYSERVE_PROT", "1")
    with pytest.raises(SystemExit) as ended:
        main(["serve", "cartpole_ppo", *words, "--help"])
    out, err = capfd.readouterr()
    assert ended.value.code == 0
    assert "--port" in out
    assert err == ""


@dataclass(frozen=True)
class Flags(ConfigurationFlags):
    """As a command without a policy has them."""

    target: Annotated[Positional[str], arg(metavar="TARGET")] = field(repr=False)
    many: tuple[int, ...] = ()
    speed: Annotated[int, arg(aliases=["-s"])] = 1


def test_a_flag_that_is_typed_by_its_short_name_goes_before_the_file() -> None:
    Path("bench.toml").write_text('target = "ws://a"\nspeed = 2\n')
    for words, speed in (((), 2), (("-s", "3"), 3), (("--speed=4",), 4)):
        argv = ("--config", "bench.toml", *words)
        configuration = read_configuration(argv, has_policy=False, environment={})
        assert parse(Flags, "test", argv, given=configuration.given(Flags, argv)).speed == speed


def test_a_word_without_a_flag_may_stand_in_the_file_and_a_typed_one_goes_before_it() -> None:
    Path("bench.toml").write_text('target = "ws://a"\nmany = [1, 2]\n')
    for argv, target in ((("--config", "bench.toml"), "ws://a"), (("ws://b", "--config", "bench.toml"), "ws://b")):
        configuration = read_configuration(argv, has_policy=False, environment={})
        flags = parse(Flags, "test", argv, given=configuration.given(Flags, argv))
        assert (flags.target, flags.many) == (target, (1, 2))


def test_bench_and_eval_take_a_file_and_no_variables(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLICYSERVE_PORT", "of serve")
    Path("b.toml").write_text('target = "ws://127.0.0.1:1"\nclients = 0\n')
    Path("e.toml").write_text('policy = "cartpole_ppo"\nepisodes = 0\n')
    Path("u.toml").write_text('url = "ws://127.0.0.1:1"\nsesions = 3\n')
    Path("w.toml").write_text('target = "--raw"\n')
    Path("p.toml").write_text('policy = "cartpole_ppo"\n')
    for command, name, said in (
        ("bench", "b.toml", "b.toml: line 2: clients: expected 1 or more, got 0"),
        ("bench", "w.toml", "w.toml: line 1: target: expected words that do not begin with a dash, got '--raw'"),
        ("bench", "p.toml", "p.toml: line 1: unknown key policy"),
        ("eval", "e.toml", "e.toml: line 2: episodes: expected 1 or more, got 0"),
        ("eval", "u.toml", "u.toml: line 2: unknown key sesions; did you mean sessions?"),
    ):
        with pytest.raises(SystemExit) as ended:
            main([command, "--config", name])
        assert ended.value.code == 2
        assert said in capfd.readouterr().err


def test_a_complaint_is_about_the_setting_that_it_names_first() -> None:
    def set_in(place: str, *names: str) -> Mapping[str, Setting]:
        return {name: Setting(name, None, place, f"{place}: {name}") for name in names}

    given = Given((), {**set_in("a.toml", "port", "model-config.state-dim"), **set_in(TYPED, "host")})
    for message, told in (
        ("--port: expected 1", "a.toml: port: expected 1"),
        ("error parsing --port: expected 1", "a.toml: port: expected 1"),
        ("--port and --uds: expected one", "a.toml: port: --port and --uds: expected one"),
        ("--model-config.state-dim: expected 1", "a.toml: model-config.state-dim: expected 1"),
        ("state_dim: expected 1", "a.toml: model-config.state-dim: expected 1"),
        ("--portal: unknown", "--portal: unknown"),
        ("unknown flag --prot; did you mean --port?", "unknown flag --prot; did you mean --port?"),
        ("--host: expected 1", "--host: expected 1"),
    ):
        assert given.blamed(message) == told


def test_a_bare_command_says_nothing_of_configurations() -> None:
    done = run(*POLICYSERVE, "serve")
    assert done.returncode == 2
    assert "config" not in done.stderr


def test_settings_are_read_as_the_flags_own_words() -> None:
    typed = read("--port", "9", "--max-wait-ms", "2", "--allowed-origins", "http://a", "--isolate", "process")
    filed = read(file='port = 9\nmax-wait-ms = 2\nallowed-origins = ["http://a"]\nisolate = "process"\n')
    by_variable = read(PORT="9", MAX_WAIT_MS="2", ALLOWED_ORIGINS="http://a", ISOLATE="process")
    assert typed == replace(filed, config=None) == by_variable


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ('uds = "/nowhere/a.sock"', "uds: /nowhere/a.sock cannot be made: no directory /nowhere"),
        ('api-key-file = "/nowhere/keys"', "api-key-file: /nowhere/keys cannot be read: No such file or directory"),
        ('reload = true', "reload: expected a policy of your own"),
        ('write-spec = "/nowhere/spec.py"', "write-spec: "),
    ],
)  # fmt: skip
def test_what_is_found_wrong_when_the_server_starts_names_the_line_that_says_so(file: str, told: str) -> None:
    Path("serve.toml").write_text(f"{CARTPOLE}port = 0\n{file}\n")
    done = run(*POLICYSERVE, "serve", "--config", "serve.toml", "--host", "127.0.0.1", cwd=Path.cwd())
    assert done.stderr.splitlines()[-1].startswith(f"error: serve.toml: line 3: {told}")
    assert done.returncode in (1, 2)
