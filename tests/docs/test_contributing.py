"""What contributors are told is so: commands, hooks, workflow, and the index of documents."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from policyserve.core.version import VERSION
from tests.cli.serving import ROOT
from tests.policies.frameworks import import_or_skip

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
PROJECT = (ROOT / "pyproject.toml").read_text()
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "examples/README.md"]


def read_yaml(*parts: str) -> Any:
    return import_or_skip("yaml").safe_load(ROOT.joinpath(*parts).read_text())


def make_targets() -> set[str]:
    return set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_every_make_target_is_explained_and_every_one_that_is_named_exists() -> None:
    named = {target for targets in re.findall(r"`make ([\w ]+)`", PAGE) for target in targets.split()}
    assert named == make_targets()


def test_the_commit_hooks_are_what_make_runs_and_download_nothing() -> None:
    (repository,) = read_yaml(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    makefile = (ROOT / "Makefile").read_text()
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        assert f"\t{hook['entry'].removesuffix(' --force-exclude')}" in makefile


def test_the_workflow_runs_every_python_that_is_promised_and_the_oldest_dependencies() -> None:
    jobs = read_yaml(".github", "workflows", "ci.yml")["jobs"]
    matrix = {each["job"] for each in jobs["pythons"]["strategy"]["matrix"]["include"]}
    promised = set(re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text()))
    assert matrix == {*promised, "oldest"}
    (command,) = [step["run"] for step in jobs["check"]["steps"] if step.get("run", "").startswith("make")]
    assert set(command.split()[1:]) <= make_targets()


def test_the_index_names_every_page_once() -> None:
    index = (ROOT / "docs/README.md").read_text()
    linked = [(ROOT / "docs" / target).resolve() for target in re.findall(r"\]\(([^)#]+\.md)\)", index)]
    assert sorted(linked) == sorted(page for page in PAGES if page != ROOT / "docs/README.md")


def test_no_two_lines_of_the_changelog_begin_alike() -> None:
    """Two branches that change one entry leave both behind."""
    beginnings = [line[:40] for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if len(line) > 60]
    assert [one for one in dict.fromkeys(beginnings) if beginnings.count(one) > 1] == []


def test_every_setting_with_a_unit_that_a_page_names_is_one_of_the_source() -> None:
    source = "\n".join(file.read_text() for file in (ROOT / "src").rglob("*.py"))
    named = {name for page in PAGES for name in re.findall(r"`([a-z]\w*_(?:s|ms|us|mib|kib))`", page.read_text())}
    assert named
    assert [name for name in sorted(named) if not re.search(rf"\b{name}\b", source)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text()):
        linked = page if not target else page.parent / target
        assert linked.exists(), target
        if heading:
            assert heading in headings(linked), f"{target}#{heading}"


def extra(name: str) -> set[str]:
    """The packages and extras that one of pyproject.toml's extras names, without their versions."""
    line = re.search(rf"^{name} = \[(.*)\]$", PROJECT, re.MULTILINE)
    assert line
    return {re.split(r"[~<>=;]", word)[0] for word in re.findall(r'"([^"]+)"', line[1])}


def test_a_first_change_needs_no_framework_and_the_whole_environment_has_all_of_its_tools() -> None:
    assert "pip install -c constraints.txt -e '.[lint]'" in PAGE
    assert extra("lint") == {"policyserve[yaml]", "ruff", "import-linter", "pytest", "pytest-timeout", "hypothesis"}
    assert extra("yaml") == {"pyyaml"}
    assert "policyserve[lint,test]" in extra("dev")


def test_who_is_to_be_cited_and_for_which_version_is_what_the_package_says() -> None:
    citation = import_or_skip("yaml").safe_load((ROOT / "CITATION.cff").read_text())
    (author,) = citation["authors"]
    assert f'authors = [{{ name = "{author["name"]}" }}]' in PROJECT
    assert f'version = "{VERSION}"' in PROJECT
    assert citation["version"] == VERSION
    assert f'license = "{citation["license"]}"' in PROJECT


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    texts = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in texts}
