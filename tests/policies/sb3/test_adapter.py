"""`sb3:FILE.zip` on the command line: what is served, what is refused before a port is opened, how it plays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from policyserve.cli import main
from policyserve.core.errors import ConfigError
from policyserve.policies import registry
from policyserve.policies.sb3.adapter import SB3Adapter, SB3Flags
from tests.cli.serving import POLICYSERVE, run
from tests.policies.frameworks import import_or_skip
from tests.policies.sb3.cases import CARTPOLE, MADE, MARK, changed, changed_pickle, pickle_with_code


def test_an_evaluation_gives_the_returns_of_the_originals_own(tmp_path: Path) -> None:
    """The zip was made, and its figures written, by scripts/train_sb3.py."""
    import_or_skip("gymnasium")
    figures = json.loads((CARTPOLE / "returns.json").read_text())
    told = tmp_path / "eval.json"
    main(["eval", f"sb3:{CARTPOLE / 'model.zip'}", "--env", figures["env"], "--episodes", "8", "--json", str(told)])
    episodes = sorted(json.loads(told.read_text())["episodes"], key=lambda one: one["seed"])
    assert [one["return"] for one in episodes] == figures["stable_baselines3"]["returns"][:8]
    assert figures["policyserve"] == figures["stable_baselines3"]


def test_a_zip_is_served_by_its_scheme_and_by_its_path_alone() -> None:
    path = str(CARTPOLE / "model.zip")
    for target in (f"sb3:{path}", path):
        source = registry.find(target).source(SB3Flags())
        assert source.title == "Stable-Baselines3: model.zip"
        assert source.check is not None
        source.check()
        assert source.recipe(lambda _stage: None).spec.name == "PPO model"


@pytest.mark.parametrize("where", ["space", "weights", "statistics"])
def test_a_program_in_a_zip_ends_the_command_before_a_port_is_opened(where: str, tmp_path: Path) -> None:
    code = pickle_with_code(4)
    path, flags = tmp_path / "m.zip", []
    if where == "weights":
        changed(CARTPOLE / "model.zip", path, policy__pth=changed_pickle(lambda _: code))
    elif where == "space":
        changed(MADE / "qrdqn" / "model.zip", path, data=lambda content: content.replace(b"gAW", b"gAX"))
    else:
        changed(CARTPOLE / "model.zip", path)
        (tmp_path / "v.pkl").write_bytes(code)
        flags = ["--vecnormalize", "v.pkl"]
    done = run(*POLICYSERVE, "serve", "sb3:m.zip", "--port", "0", *flags, cwd=tmp_path)
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert "expected a pickle of known parts" in lines[0]
    assert "listening" not in done.stdout
    assert not (tmp_path / MARK).exists()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["sb3:"], 2, "expected sb3:FILE.zip, got 'sb3:'"),
        (["sb3:gone.zip"], 1, "gone.zip: there is no such file"),
        (["sb3:gone.zip", "--max-batch", "0"], 2, "--max-batch: expected 1 or more, got 0"),
        (["sb3:gone.zip", "--vecnormalize", ""], 2, "--vecnormalize: expected a value, got nothing"),
        ([f"sb3:{CARTPOLE / 'model.zip'}", "--vecnormalize", "gone.pkl"], 1, "expected a VecNormalize file, or none"),
        ([f"sb3:{CARTPOLE / 'model.zip'}", "--rename", "a=b"], 1, "--rename: expected one of the policy's inputs, obs"),
    ],
)
def test_a_wrong_command_ends_with_one_line(arguments: list[str], code: int, told: str, tmp_path: Path) -> None:
    done = run(*POLICYSERVE, "serve", *arguments, "--port", "0", cwd=tmp_path)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (code, 1), done.stderr
    assert told in " ".join(done.stderr.split())


def test_flags_that_can_never_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="threads: expected 1 or more, got 0"):
        SB3Flags(threads=0)
    assert SB3Adapter("sb3:m.zip").defaults(None) == SB3Flags()


def test_the_files_that_are_read_are_told_with_the_statistics_beside_the_zip(tmp_path: Path) -> None:
    zipped, statistics = tmp_path / "model.zip", tmp_path / "vecnormalize.pkl"
    for path in (zipped, statistics):
        path.write_bytes(b"anything")
    adapter = registry.find(f"sb3:{zipped}")
    files = adapter.source(adapter.defaults(None)).files
    assert files is not None
    assert list(files()) == [zipped, statistics]
