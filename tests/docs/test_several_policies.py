"""docs/several_policies.md: its words, its files and its commands serve several policies, as it says."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from policyserve import Client, PolicyserveError
from policyserve.cli import main
from policyserve.server.offers import OWN_SETTINGS
from tests.cli.serving import POLICYSERVE, ROOT, run, serving

PAGE = (ROOT / "docs" / "several_policies.md").read_text()
KEYS = {"robot-7": "a-key-of-16-letters", "other": "another-key-of-letters"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def file(name: str) -> str:
    (found,) = re.findall(rf"<!-- {name} -->\n```toml\n(.*?)```", PAGE, re.DOTALL)
    return found


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the page's files and the keys that they name, and an environment without variables of ours."""
    for name in [name for name in os.environ if name.startswith("POLICYSERVE_")]:
        monkeypatch.delenv(name)
    (tmp_path / "lab.toml").write_text(file("lab.toml").replace("port = 8000", "port = 0"))
    (tmp_path / "keys.toml").write_text(file("keys.toml"))
    (tmp_path / "keys").write_text("".join(f"{name}: {key}\n" for name, key in KEYS.items()))
    (tmp_path / "keys").chmod(0o600)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def action(url: str, size: int, key: str | None = None) -> Any:
    with Client(url, api_key=key) as client:
        return client.infer({"obs": [-1.0, 0.05, 3.0, 0.0][:size]}).actions


def page(url: str, path: str) -> Any:
    return json.loads(urllib.request.urlopen(f"{url.replace('ws', 'http', 1)}{path}").read())


def test_the_pages_words_serve(folder: Path) -> None:
    command = [*POLICYSERVE, *shlex.split(blocks("bash")[0])[1:], "--host", "127.0.0.1", "--port", "0"]
    with serving(command, cwd=folder) as server:
        assert action(f"{server.url}/place", 3).shape == (1,)
        assert action(f"{server.url}/place/openpi", 3).shape == (1,)
        assert action(server.url, 4).shape == action(f"{server.url}/openpi", 4).shape == ()
        with pytest.raises(PolicyserveError, match="did you mean /place"):
            action(f"{server.url}/plaec", 3)
        names = [one["name"] for one in page(server.url, "/policies")["policies"]]
    assert names == ["pick", "place", "demo_image"]


@pytest.mark.skipif(os.name != "posix", reason="a policy's own process needs Linux or macOS")
def test_the_pages_file_serves_and_its_commands_tell_how_far_each_is(folder: Path) -> None:
    with serving([*POLICYSERVE, "serve", "--config", "lab.toml"], cwd=folder) as server:
        assert float(action(f"{server.url}/place", 3)[0]) <= 1.0 < float(action(f"{server.url}/place-old", 3)[0])
        assert action(f"{server.url}/arm", 3).shape == (1,)
        asked = [line.split()[1] for line in "".join(blocks("bash")).splitlines() if line.startswith("curl")]
        assert len(asked) == 4
        for address in asked:
            found = page(server.url, address.removeprefix("http://localhost:8000"))
            assert found
        told = page(server.url, "/policies")
        examined = run(*POLICYSERVE, "doctor", f"{server.url}/place", cwd=folder)
    assert examined.returncode == 0, examined.stdout
    assert set(told["policies"][0]) <= set(re.findall(r"`(\w+)`", PAGE))
    assert told["routes"] == [{"path": "/arm", "split": {"place": 0.5, "place-old": 0.5}, "seed": 7, "blind": True}]


def test_the_other_command_adds_a_policy_to_those_of_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    (_, command) = blocks("bash")[1].splitlines()
    main([*shlex.split(command)[1:], "--print-config"])
    told = capsys.readouterr().out
    assert re.findall(r"\[policies\.(.+)\]", told) == ["pick", "place", "place-old", "image"]
    assert "port = 8001  # --port" in told


def test_a_policy_is_for_the_keys_that_its_table_names(folder: Path) -> None:
    command = [*POLICYSERVE, "serve", "--config", "keys.toml", "--host", "127.0.0.1", "--port", "0"]
    with serving(command, cwd=folder) as server:
        assert action(f"{server.url}/pick", 4, KEYS["robot-7"]).shape == ()
        assert action(f"{server.url}/place", 3, KEYS["other"]).shape == (1,)
        with pytest.raises(PolicyserveError, match="this API key may not use pick"):
            action(f"{server.url}/pick", 4, KEYS["other"])


def test_the_page_names_what_a_table_may_hold() -> None:
    (told,) = re.findall(r"of the server's flags (.*?): what it does not set", PAGE, re.DOTALL)
    assert {name.replace("-", "_") for name in re.findall(r"`([\w-]+)`", told)} == {*OWN_SETTINGS, "max_sessions"}


def test_the_pages_program_runs() -> None:
    assert run(sys.executable, "-c", blocks("python")[0]).stdout == "[1.5]\n"
