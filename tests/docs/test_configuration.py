"""docs/configuration.md: its files and variables serve, and its mistakes are told as its table says."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from policyserve import Client
from policyserve.cli import main
from policyserve.cli.keys import without_keys
from tests.cli.serving import POLICYSERVE, ROOT, serving

PAGE = (ROOT / "docs" / "configuration.md").read_text()
KEY = "a-key-of-16-letters"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def rows() -> list[tuple[str, str]]:
    """The table of mistakes: a line of the file, and what is said of it."""
    return re.findall(r"^\| `(.+?)` \| `(.+?)` \|$", PAGE, re.MULTILINE)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the page's file and the keys that it names, and an environment without variables of ours."""
    for name in [name for name in os.environ if name.startswith("POLICYSERVE_")]:
        monkeypatch.delenv(name)
    (tmp_path / "serve.toml").write_text(blocks("toml")[0].replace("port = 8000", "port = 0"))
    (tmp_path / "keys").write_text(f"robot-7: {KEY}\n")
    (tmp_path / "keys").chmod(0o600)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def swings(url: str, api_key: str | None = None) -> bool:
    """Whether the demo's torque, which is almost 2 here, is scaled to the bound of the page."""
    with Client(url, api_key=api_key) as client:
        return 1.4 < float(client.infer({"obs": [-1, 0.05, 3]}).actions[0]) <= 1.5


def test_the_pages_file_serves_and_a_typed_flag_goes_before_it(folder: Path) -> None:
    plain, with_port = blocks("bash")[0].splitlines()
    assert with_port == f"{plain} --port 8001"
    (folder / "elsewhere").mkdir()
    words = shlex.split(plain.replace("serve.toml", "../serve.toml"))[1:]
    with serving([*POLICYSERVE, *words], cwd=folder / "elsewhere") as server:
        assert swings(server.url, KEY)


def test_the_pages_variables_serve(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (script,) = [block for block in blocks("bash") if "export" in block]
    for word in shlex.split(script.replace("export", "").replace("PORT=8000", "PORT=0")):
        name, equals, text = word.partition("=")
        if equals:
            monkeypatch.setenv(name, text)
    with serving([*POLICYSERVE, "serve"], cwd=folder) as server:
        assert swings(server.url)


def test_the_pages_command_prints_what_the_page_shows(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(shlex.split(blocks("bash")[2])[1:])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert blocks("toml")[1] in told


def test_the_unit_calls_a_command_that_exists(capsys: pytest.CaptureFixture[str]) -> None:
    (unit,) = blocks("ini")
    found = re.search(r"ExecStart=\S+/policyserve (.*)", unit)
    assert found
    words = shlex.split(found.group(1).replace("/etc/policyserve/", ""))
    with pytest.raises(SystemExit) as ended:
        main([*words, "--print-config"])
    assert ended.value.code == 0
    assert 'policy = "pendulum_sac"' in capsys.readouterr().out


@pytest.mark.parametrize(("line", "said"), rows())
def test_a_mistake_is_told_as_the_table_says(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("serve.toml").write_text(f'policy = "demo_image"\n\n{line}\n')
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--config", "serve.toml"])
    assert ended.value.code == 2
    assert without_keys(said) in capsys.readouterr().err


def test_the_table_has_rows() -> None:
    assert len(rows()) >= 5
