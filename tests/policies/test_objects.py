"""`serve module:name`, `serve file.py:name` and the demo: what is served, and what is said of a mistake."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from policyserve import Client
from policyserve.core.errors import ConfigError
from policyserve.core.policy import FunctionPolicy
from policyserve.policies.objects import DemoAdapter, NoFlags, ObjectAdapter, load_from_module
from policyserve.policies.stacked import StackedPolicy
from tests.cli.serving import POLICYSERVE, run, serving

PORT_0 = ("--host", "127.0.0.1", "--port", "0")
POLICY = "import numpy as np\ndef policy(observation):\n    return np.asarray(observation['x']) * 2\n"


@pytest.mark.parametrize("target", ["./robots/kitchen.py:policy", "robots/kitchen.py:policy", "robots.kitchen:policy"])
@pytest.mark.parametrize("isolate", ["thread", "process"])
def test_a_file_is_served_as_its_module_is(tmp_path: Path, target: str, isolate: str) -> None:
    (tmp_path / "robots").mkdir()
    (tmp_path / "robots" / "kitchen.py").write_text(POLICY)
    command = [*POLICYSERVE, "serve", target, "--isolate", isolate, *PORT_0]
    with serving(command, cwd=tmp_path) as server, Client(server.url) as client:
        assert client.infer({"x": np.ones(2)}).actions.tolist() == [2, 2]


def test_an_error_of_the_users_file_is_one_line_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "kitchen.py").write_text("policy = undefined\n")
    for isolate in ("thread", "process"):
        done = run(*POLICYSERVE, "serve", "kitchen.py:policy", "--isolate", isolate, *PORT_0, cwd=tmp_path)
        assert done.returncode == 1
        said = f"error: {tmp_path}/kitchen.py cannot be imported: NameError: name 'undefined' is not defined"
        assert done.stderr == f"{said} (kitchen.py, line 1)\n"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("my_policy.py", "write my_policy.py:NAME; it has "),
        ("./my_policy.py", "write ./my_policy.py:NAME; it has "),
        ("./other.py", "write ./other.py:NAME, the policy's name in it; there is no file other.py yet"),
        ("my_policy:", "write my_policy:NAME; it has "),
        (":policy", "expected package.module:name, got ':policy'"),
        ("./my_policy:policy", r"or file.py:name, got './my_policy:policy' (did you mean ./my_policy.py:policy?)"),
        ("./other:policy", "or file.py:name, got './other:policy'"),
    ],
)
def test_a_target_that_lacks_something_is_told_how_to_be_written(
    target: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_policy.py").write_text(POLICY)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as refused:
        ObjectAdapter(target).source(NoFlags())
    assert said in str(refused.value)


_MAKERS = """
from policyserve.policies.fakes import EchoPolicy

class Policy(EchoPolicy):
    def __init__(self):
        super().__init__(size=2)

def make(): return Policy()
def act(observation): return [0.0]
def breaks(): raise KeyError("weights")
nothing = 3
class Needs:
    def __init__(self, weights): ...
"""


def test_the_name_may_be_a_policy_or_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "makers.py").write_text(_MAKERS)
    monkeypatch.syspath_prepend(tmp_path)
    assert load_from_module("makers", "Policy", print).spec.name == "Policy"
    assert load_from_module("makers", "make", print).spec.name == "Policy"
    assert isinstance(load_from_module("makers", "act", print), FunctionPolicy)
    with pytest.raises(ConfigError, match=r"makers:breaks\(\) failed: KeyError: 'weights' \(.*makers.py, line 10\)"):
        load_from_module("makers", "breaks", print)
    with pytest.raises(ConfigError, match=r"makers:Needs\(\) failed: TypeError: .*: 'weights'$"):
        load_from_module("makers", "Needs", print)
    with pytest.raises(ConfigError, match=r"a policy is a Policy, .* got int"):
        load_from_module("makers", "nothing", print)


def test_the_demo_is_a_policy_like_any_other() -> None:
    adapter = DemoAdapter("demo_image")
    policy = adapter.source(adapter.defaults(None)).recipe(print)
    assert isinstance(policy, StackedPolicy)
    assert policy.spec.name == "demo_image"
