"""`policyserve swap` as a person uses it: against a server that `policyserve serve` has started."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from policyserve import Client
from policyserve.cli import main
from policyserve.cli.swap import split_flags
from policyserve.core.errors import RemoteError
from policyserve.policies.vibe_rl import demo_directory
from tests.cli.serving import POLICYSERVE, Serving, serving
from tests.doctor.sick import closed_port
from tests.policies.vibe_rl.test_run_adapter import write_run

ADMIN, ROBOT = "an-admins-key-of-some-letters", "a-robots-key-of-some-letters"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys, an image policy's stand-in, and a run with the demo's checkpoint as another step."""
    made = tmp_path_factory.mktemp("lab")
    (made / "keys").write_text(f"ops admin: {ADMIN}\nrobot: {ROBOT}\n")
    (made / "keys").chmod(0o600)
    shutil.copytree(demo_directory("cartpole_ppo"), made / "run")
    (step,) = (made / "run" / "checkpoints").iterdir()
    step.rename(step.with_name("step_7"))
    write_run(made / "acrobot")
    (made / "leg.py").write_text("import numpy as np\n\n\ndef policy(obs):\n    return np.zeros(2)\n")
    return made


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Serving]:
    command = (*POLICYSERVE, "serve", "cartpole_ppo", "--host", "127.0.0.1", "--port", "0", "--api-key-file", "keys")
    with serving(command, folder) as started:
        yield started


class Swapping:
    """Runs the command here, and tells how it ended."""

    def __init__(self, server: Serving, folder: Path, told: pytest.CaptureFixture[str]) -> None:
        self._url, self._folder, self._told = server.url, folder, told

    def __call__(self, *words: str, name: str = "default", keys: str = "keys") -> tuple[int, str, str]:
        try:
            main(["swap", self._url, name, *words, "--api-key-file", str(self._folder / keys)])
            code = 0
        except SystemExit as error:
            code = error.code
        told = self._told.readouterr()
        assert isinstance(code, int)
        return code, told.out, told.err


@pytest.fixture
def swap(server: Serving, folder: Path, capsys: pytest.CaptureFixture[str]) -> Swapping:
    return Swapping(server, folder, capsys)


def test_another_policy_answers_a_client_that_stays(server: Serving, swap: Swapping) -> None:
    with Client(server.url, dialect="vibe_rl", api_key=ROBOT) as client:
        client.infer({"obs": np.zeros(4, np.float32)})
        code, out, err = swap("vibe_rl:run", "--step", "7", "--max-batch", "3", "--when", "next-session")
        told = "PPO on CartPole-v1 answers, version 2; 1 sessions end on the one before\n"
        assert (code, out, err) == (0, told, "")
        client.infer({"obs": np.zeros(4, np.float32)})
    code, out, err = swap("--back")
    assert (code, out, err) == (0, "cartpole_ppo answers, version 3\n", "")


def test_another_spec_is_refused_unless_it_is_forced(server: Serving, swap: Swapping) -> None:
    code, out, err = swap("leg.py:policy")
    assert (code, out) == (1, "")
    assert "leg.py:policy does not take over, and cartpole_ppo goes on: it has another spec" in " ".join(err.split())
    with Client(server.url, dialect="vibe_rl", api_key=ROBOT) as client:
        client.infer({"obs": np.zeros(4, np.float32)})
        code, out, err = swap("leg.py:policy", "--force")
        assert (code, err) == (0, "")
        assert "its sessions were closed, since its spec is another one (observation: 1 keys, now anything)" in out
        assert client.infer({"obs": np.zeros(1, np.float32)}).actions.shape == (2,)
        assert swap("--back", "--force")[0] == 0


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["vibe_rl:run", "--stp", "7"], 1, "--stp 7; did you mean --step? (policyserve serve vibe_rl:run --help)"),
        (["vibe_rl:gone"], 1, "gone: expected a training run's folder, got nothing there"),
        (["vibe_rl:run", "--step", "8"], 1, "expected step_8/state.eqx or orbax 8/, got step 7"),
        (["vibe_rl:run", "--back"], 2, "expected a SOURCE or --back, got both"),
        ([], 2, "expected a SOURCE or --back, got neither behind NAME, which is 'default'"),
        (["vibe_rl:run", "--load-timeout-s", "0"], 2, "--load-timeout-s: expected more than 0 seconds, got 0"),
        (["vibe_rl:run", "--when", "next-session", "--unload-first"], 1, "unload_first: expected when=now"),
    ],
)
def test_what_does_not_take_over_ends_with_one_line(
    words: list[str], code: int, told: str, server: Serving, swap: Swapping
) -> None:
    ended, out, err = swap(*words)
    assert (ended, out) == (code, "")
    assert told in " ".join(err.split())
    assert err.startswith("error: ")
    with Client(server.url, dialect="vibe_rl", api_key=ROBOT) as client:
        client.infer({"obs": np.zeros(4, np.float32)})


def test_who_may_not_is_told_what_is_missing(swap: Swapping, folder: Path) -> None:
    (folder / "robots").write_text(f"robot: {ROBOT}\n")
    code, _, err = swap("cartpole_ppo", keys="robots")
    assert code == 1
    assert "needs an admin's key: a line `NAME admin: KEY` in --api-key-file (HTTP 403)" in " ".join(err.split())
    (folder / "others").write_text("ops: another-key-of-some-letters\n")
    code, _, err = swap("cartpole_ppo", keys="others")
    assert code == 1
    told = "expected an admin's key in --api-key-file or POLICYSERVE_API_KEY, got one that the server does not know"
    assert told in " ".join(err.split())
    code, _, err = swap("cartpole_ppo", keys="nowhere")
    assert code == 2
    assert "nowhere cannot be read: No such file or directory" in " ".join(err.split())
    code, _, err = swap("cartpole_ppo", name="arm")
    assert code == 1
    assert "there is no policy 'arm'; there are default" in err
    code, _, err = swap("cartpole_ppo", name="defualt")
    assert code == 1
    assert "there is no policy 'defualt'; did you mean default?" in err


def test_a_server_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="1"):
        main(["swap", f"ws://127.0.0.1:{closed_port()}", "default", "cartpole_ppo"])
    assert "no answer" in capsys.readouterr().err


def test_who_leaves_is_told_that_the_server_goes_on(
    swap: Swapping, folder: Path, server: Serving, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "slow.py").write_text(
        "import time\nfrom pathlib import Path\n\n"
        "while not Path('may_load').exists():\n    time.sleep(0.01)\npolicy = None\n"
    )

    def interrupted(_stage: str) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("policyserve.cli.swap.stage_line", interrupted)
        with pytest.raises(KeyboardInterrupt):
            swap("slow.py:policy")
    assert "warning: the server goes on loading slow.py:policy: GET /policies/default tells what comes of it" in (
        " ".join(capsys.readouterr().err.split())
    )
    assert "another policy is on its way already: slow.py:policy" in " ".join(swap("cartpole_ppo")[2].split())
    (folder / "may_load").touch()
    while "is on its way already" in " ".join((told := swap("leg.py:policy")[2]).split()):
        pass
    assert "leg.py:policy does not take over" in " ".join(told.split())


def test_flags_of_the_policy_are_told_from_the_commands_own() -> None:
    words = ["ws://x", "arm", "onnx:a.onnx", "--force", "--rename", "a=b", "c=d", "--when", "now", "--max-batch=3"]
    own, policys = split_flags(words)
    assert own == ["ws://x", "arm", "onnx:a.onnx", "--force", "--when", "now"]
    assert policys == ["--rename", "a=b", "c=d", "--max-batch=3"]
    assert split_flags(["--help", "--x"]) == (["--help", "--x"], [])


def test_a_request_that_is_refused_is_no_reason_to_end(server: Serving) -> None:
    with Client(server.url, dialect="vibe_rl", api_key=ROBOT) as client, pytest.raises(RemoteError):
        client.infer({"wrong": np.zeros(4, np.float32)})
