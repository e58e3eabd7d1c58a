"""Which adapter a name leads to, ours or an installed package's, and what is said of one that is not there or fails."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import policyserve
from policyserve import Client
from policyserve.core.errors import ConfigError
from policyserve.policies import registry
from policyserve.policies.demo_flow.adapter import FlowDemoAdapter
from policyserve.policies.objects import DemoAdapter, ObjectAdapter
from policyserve.policies.registry import Adapter
from policyserve.policies.vibe_rl import PRESETS
from policyserve.policies.vibe_rl.adapter import PresetAdapter
from policyserve.policies.vibe_rl.run_adapter import RunAdapter
from policyserve.policies.wall_x.adapter import WallXAdapter
from tests.cli.serving import POLICYSERVE, run, serving
from tests.policies.packages import install

PORT_0 = ("--host", "127.0.0.1", "--port", "0")

ADAPTER = """
from dataclasses import dataclass
from policyserve import Recipe
from policyserve.policies.registry import Source

@dataclass(frozen=True)
class Flags:
    gain: float = 1.0
    '''What each number is multiplied by.'''

@dataclass(frozen=True)
class Gain:
    target: str
    help = "numbers times a gain"
    rest = ""
    flags = Flags

    def defaults(self, given):
        return Flags(gain=2.0)

    def source(self, flags):
        return Source("a gain", self.target, Recipe("gains:load", {"gain": flags.gain}))

@dataclass(frozen=True)
class FromFile(Gain):
    rest = "FILE"

class NotEnough:
    help = "nothing"
    def __init__(self, target): ...

class NoDataclass(Gain):
    flags = int

def load(gain):
    return lambda observation: observation["x"] * gain
"""


def path_with(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a directory on the Python path of this process and of those that it starts."""
    monkeypatch.syspath_prepend(directory)
    monkeypatch.setenv("PYTHONPATH", str(directory), prepend=":")


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with installed packages: one that works, and some that fail."""
    works = {"gain": "gains:Gain", "gainfile": "gains:FromFile", "cartpole_ppo": "gains:Gain"}
    install(tmp_path, "gain-policies", works, {"gains": ADAPTER})
    fails = {
        "lacking": "lacking_a_framework:Adapter",
        "misspelt": "gains:Gian",
        "unfinished": "gains:NotEnough",
        "flagless": "gains:NoDataclass",
        "exits": "exits_when_imported:Adapter",
    }
    sources = {"lacking_a_framework": "import a_framework_that_nobody_has\n", "exits_when_imported": "exit(3)\n"}
    install(tmp_path, "broken-policies", fails, sources)
    path_with(tmp_path, monkeypatch)
    return tmp_path


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("cartpole_ppo", PresetAdapter),
        ("demo_image", DemoAdapter),
        ("demo_flow", FlowDemoAdapter),
        ("wall-x", WallXAdapter),
        ("package.module:name", ObjectAdapter),
        ("cartpole_ppo:policy", ObjectAdapter),  # no scheme: a module may have the name of a preset
        ("my_policy.py", ObjectAdapter),
        ("./my_policy.py:policy", ObjectAdapter),
    ],
)
def test_every_spelling_leads_to_its_adapter(target: str, kind: type) -> None:
    adapter = registry.find(target)
    assert isinstance(adapter, kind)
    assert isinstance(adapter, Adapter)


def test_every_preset_has_its_name() -> None:
    assert [name for name in registry.names() if name in PRESETS] == list(PRESETS)
    for name in PRESETS:
        assert isinstance(registry.find(name), PresetAdapter)


def test_a_runs_folder_stands_behind_its_scheme() -> None:
    assert isinstance(registry.find("vibe_rl:runs/mine"), RunAdapter)
    with pytest.raises(ConfigError, match="expected vibe_rl:FOLDER, got 'vibe_rl'"):
        registry.find("vibe_rl")


def test_a_runs_folder_without_its_scheme_is_told_which_one(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    said = f"there is no policy '{tmp_path}'; did you mean the training run vibe_rl:{tmp_path}?"
    with pytest.raises(ConfigError, match=f"^{re.escape(said)}$"):
        registry.find(str(tmp_path))


def test_a_folder_of_lerobots_is_none_of_vibe_rls(tmp_path: Path) -> None:
    (tmp_path / "000500" / "pretrained_model").mkdir(parents=True)
    (tmp_path / "000500" / "pretrained_model" / "config.json").write_text('{"type": "act"}')
    for below in (tmp_path, tmp_path / "000500", tmp_path / "000500" / "pretrained_model"):
        assert registry.taken_for(registry.find(str(below))) == "a LeRobot policy, by its config.json"


def test_a_folder_of_runs_is_told_how_one_of_them_is_named(tmp_path: Path) -> None:
    for name in ("mine", "older"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
        runs = f"vibe_rl:{tmp_path}/NAME, for one of its training runs mine, older"
        meant = f"the training run vibe_rl:{tmp_path}/mine" if name == "mine" else runs
        said = f"there is no policy '{tmp_path}/'; did you mean {meant}?"
        with pytest.raises(ConfigError, match=f"^{re.escape(said)}$"):
            registry.find(f"{tmp_path}/")


def test_a_scheme_of_ours_is_spelt_with_what_stands_behind_its_colon() -> None:
    spelt = (
        "gridworld_dqn, vibe_rl:FOLDER, onnx:FILE, sb3:FILE.zip, lerobot:PATH, remote:URL, openpi:CONFIG, "
        "torch:FILE, demo_flow, demo_image, wall-x"
    )
    assert spelt in registry.spellings()
    with pytest.raises(ConfigError, match=re.escape(f"expected {registry.spellings()} or package.module:name")):
        registry.find("zzz")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("cartpole_pop", "there is no policy 'cartpole_pop'; did you mean cartpole_ppo?"),
        ("CARTPOLE-PPO", "there is no policy 'CARTPOLE-PPO'; did you mean cartpole_ppo?"),
        ("wall_x", "there is no policy 'wall_x'; did you mean wall-x?"),
        ("demo-image", "there is no policy 'demo-image'; did you mean demo_image?"),
        ("zzz", "there is no policy 'zzz'; expected cartpole_ppo, .*, wall-x or package.module:name"),
        ("", "expected a policy, cartpole_ppo, .*, wall-x or package.module:name, got nothing"),
    ],
)
def test_a_name_that_nobody_has_is_refused_with_the_nearest(target: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        registry.find(target)
    assert re.fullmatch(said.replace("?", r"\?"), str(refused.value)), refused.value


def test_a_bare_name_with_a_file_beside_it_is_told_how_to_write_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kitchen.py").write_text("def cook(observation): ...\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^write kitchen:NAME; it has cook$"):
        registry.find("kitchen")
    with pytest.raises(ConfigError, match=r"^there is no policy 'kitchn'; did you mean kitchen:NAME\?$"):
        registry.find("kitchn")


def test_a_path_that_holds_no_policy_is_refused_as_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "10:30:00").mkdir()
    (tmp_path / "10:30:00" / "policy.onnx").touch()
    for target, said in (
        ("10:30:00/policy.onnx", "10:30:00/policy.onnx: the file is empty"),
        ("10:30:00", "10:30:00: a folder without a LeRobot policy's config.json"),
        ("gone.onnx", "gone.onnx: there is no such file"),
        ("./gone", "./gone: there is no such file"),
        ("lerobot/act", "lerobot/act: there is no such file; a name on the Hugging Face Hub is downloaded first"),
    ):
        with pytest.raises(ConfigError, match=f"^{re.escape(said)}"):
            registry.find(target)


@pytest.mark.usefixtures("packages")
def test_an_installed_packages_policy_is_served_by_its_name_with_its_flags() -> None:
    for flags, factor in ((), 2), (("--gain", "3"), 3):
        with serving([*POLICYSERVE, "serve", "gain", *flags, *PORT_0]) as server, Client(server.url) as client:
            assert client.infer({"x": np.ones(2)}).actions.tolist() == [factor, factor]
            assert server.lines[0] == f"policyserve {policyserve.__version__} · a gain\n"
    told = run(*POLICYSERVE, "serve", "gain", "--help").stdout
    assert "numbers times a gain" in told
    assert "What each number is multiplied by (default: 2)" in told


@pytest.mark.usefixtures("packages")
def test_an_installed_packages_policy_runs_in_a_process_of_its_own() -> None:
    command = [*POLICYSERVE, "serve", "gainfile:numbers.csv", "--isolate", "process", *PORT_0]
    with serving(command) as server, Client(server.url) as client:
        assert client.infer({"x": np.ones(1)}).actions.tolist() == [2]
        assert server.lines[1].split() == ["from", "gainfile:numbers.csv"]


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize("target", ["gainfile", "gainfile:"])
def test_a_scheme_needs_what_stands_behind_its_colon(target: str) -> None:
    with pytest.raises(ConfigError, match=f"expected gainfile:FILE, got {target!r}"):
        registry.find(target)


@pytest.mark.usefixtures("packages")
def test_a_scheme_that_is_almost_one_is_refused_with_the_one_that_is_there() -> None:
    with pytest.raises(ConfigError, match="no 'gainfil' to serve gainfil:x with; did you mean gainfile:x"):
        registry.find("gainfil:x")
    assert isinstance(registry.find("gains:policy"), ObjectAdapter)  # it is a module, and almost a name
    assert isinstance(registry.find("gainn:policy"), ObjectAdapter)  # `gain` is no scheme


@pytest.mark.usefixtures("packages")
def test_our_names_go_before_those_of_packages() -> None:
    assert isinstance(registry.find("cartpole_ppo"), PresetAdapter)
    assert registry.names().count("cartpole_ppo") == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lacking", "lacking_a_framework:Adapter, cannot be loaded: ModuleNotFoundError: No module named 'a_framework"),
        ("misspelt", "gains:Gian, cannot be loaded: AttributeError"),
        ("unfinished", "gains:NotEnough, is no adapter: it has no rest, flags, defaults, source"),
        ("flagless", "gains:NoDataclass, is no adapter: expected a dataclass in flags, got <class 'int'>"),
        ("exits", "exits_when_imported:Adapter, cannot be loaded: it ended the program with 3"),
    ],
)
@pytest.mark.usefixtures("packages")
def test_an_adapter_that_fails_names_its_package_and_the_reason(name: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        registry.find(name)
    assert str(refused.value).startswith(f"{name}: the adapter of the package broken-policies 1.0, {said}")
    assert "\n" not in str(refused.value)


@pytest.mark.usefixtures("packages")
def test_an_adapter_that_fails_leaves_the_others_alone() -> None:
    lines = registry.listing()
    assert lines["gain"] == "numbers times a gain"
    assert lines["gainfile:FILE"] == "numbers times a gain"
    assert "broken-policies 1.0" in lines["lacking"]
    assert lines["wall-x"] == WallXAdapter("wall-x").help
    with serving([*POLICYSERVE, "serve", "cartpole_ppo", *PORT_0]) as server:
        assert server.stop()[0] == 0


def test_a_name_that_two_packages_bring_is_refused_with_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("one-arm", "two-arms"):
        install(tmp_path, package, {"arm": "gains:Gain"}, {})
    path_with(tmp_path, monkeypatch)
    both = "arm: the package one-arm 1.0 and the package two-arms 1.0 both bring a policy of this name: uninstall one"
    with pytest.raises(ConfigError, match=re.escape(both)):
        registry.find("arm")


@pytest.mark.parametrize("value", ["", "  "])
def test_a_flag_that_was_given_nothing_is_refused_by_its_name(value: str) -> None:
    with pytest.raises(ConfigError, match=r"^--norm-stats-path: expected a value, got nothing; is the variable set"):
        registry.check_given(checkpoint_dir=None, norm_stats_path=value)


@pytest.mark.parametrize("name", ["cartpole_ppo", "wall-x", "demo_image"])
def test_flags_and_help_load_no_framework_and_no_other_policy(name: str) -> None:
    heavy = ["torch", "jax", "PIL", "tokenizers", "yaml", "safetensors", "equinox", "gymnasium"]
    others = {"wall-x": "vibe_rl", "cartpole_ppo": "wall_x", "demo_image": "wall_x"}
    unwanted = [*heavy, f"policyserve.policies.{others[name]}"]
    program = (
        "import sys\n"
        "from policyserve.cli import main\n"
        "try:\n"
        f"    main(['serve', {name!r}, '--help'])\n"
        "finally:\n"
        f"    print(sorted(set({unwanted!r}) & sys.modules.keys()), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "--port" in done.stdout
    assert done.stderr == "[]\n"


def test_a_target_is_of_a_kind_by_its_scheme_its_name_or_what_its_path_was_taken_for(tmp_path: Path) -> None:
    model = tmp_path / "policy.onnx"
    model.write_bytes(b"anything")
    targets = {str(model): "onnx", f"onnx:{model}": "onnx", "cartpole_ppo": "cartpole_ppo", "robots.arm:act": "object"}
    assert {target: registry.kind_of(target, registry.find(target)) for target in targets} == targets


def test_a_file_that_is_refused_is_told_from_a_name_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "weights.pkl").write_bytes(b"")
    assert registry.is_refused(str(tmp_path / "weights.pkl"))
    assert not registry.is_refused(str(tmp_path / "nowhere.pkl"))
    assert not registry.is_refused("")
