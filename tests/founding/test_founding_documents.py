"""Every code block and command of the founding documents, run with the drop-in installed.

Each is covered by exactly one rule below. What a rule changes before it runs is listed with it: hosts, ports, paths,
model names, and the variables that a block takes from its surroundings. Nothing else is changed.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import msgpack
import numpy as np
import pytest
from websockets.sync.client import connect

from policyserve import Client
from policyserve.compat.wall_x import MODEL_CONFIGS, WallXClient
from policyserve.core.messages import Timing
from policyserve.core.policy import ActionChunk
from policyserve.core.spec import ArraySpec, ImageSpec, TextListSpec, TextSpec
from policyserve.dialects.vibe_rl import VibeRL
from policyserve.policies.wall_x import wall_x_spec
from tests.cli.serving import run, serving
from tests.founding.documents import Piece, read_pieces
from tests.founding.surroundings import drop_in, lay_out, run_program, running_program, served
from tests.shared import shared_path

Run: TypeAlias = Callable[[str, Path], None]  # the piece's text, substituted; the directory to run it in
Substitutions: TypeAlias = Mapping[str, str]

VIBE_RL, WALL_X = "vibe_rl_policy_server", "wall_x_serving"
RAW = object()  # <raw bytes>
STAND_IN = "--model-config.model-path stand-in"

POLICY = """
from vibe_rl.policies import create_trained_policy
from vibe_rl.configs.presets import PRESETS
policy = create_trained_policy(PRESETS["cartpole_ppo"].config, "runs/cartpole/checkpoints")
"""
LIBERO_VARIABLES = """
import numpy as np
image1 = image2 = np.zeros((256, 256, 3), np.uint8)
robot_state = np.zeros(8, np.float32)
"""


@dataclass(frozen=True)
class Rule:
    """What to do with a piece of `document` that `marker` (a regular expression) is found in."""

    document: str
    marker: str
    run: Run
    substitutions: Substitutions

    def covers(self, piece: Piece) -> bool:
        return piece.document == self.document and re.search(self.marker, piece.text, re.S) is not None

    def apply(self, text: str, place: Path) -> None:
        for old, new in self.substitutions.items():
            assert re.search(old, text), f"the document no longer says {old}"
            text = re.sub(old, new, text)
        self.run(text, place)


# Not run, and why


def not_run(_reason: str) -> Run:
    """There is nothing to run."""
    return lambda _text, _place: None


# Frames and maps that a block only shows: their shape


def a_request(policy: str) -> Run:
    """The request as printed, with bytes in it, is answered; and ours has its shape."""

    def check(text: str, place: Path) -> None:
        shown = eval(text, {"RAW": RAW})
        meta = shown[b"__meta__"]
        arrays = {key: np.zeros(entry[b"shape"], entry[b"dtype"]) for key, entry in meta.items()}
        frame = {**shown, **{key: array.tobytes() for key, array in arrays.items()}}
        with served(policy) as url, connect(url) as socket:
            socket.send(bytes(msgpack.packb(frame) or b""))
            assert VibeRL().read_reply(socket.recv()).actions.dtype.kind in "if"
        ours = VibeRL().write_request({key.decode(): array for key, array in arrays.items()})
        assert_shape(shown, msgpack.unpackb(ours, raw=True))

    return check


def a_reply(text: str, place: Path) -> None:
    """What a server answers has the shape of the reply as printed."""
    with served("image") as url, connect(url) as socket:
        socket.send(VibeRL().write_request({"image": np.zeros((64, 64, 3), np.uint8), "state": np.zeros(14)}))
        assert_shape(eval(text, {"RAW": RAW}), msgpack.unpackb(socket.recv(), raw=True))


def a_health_answer(text: str, place: Path) -> None:
    """The health route's JSON has the printed keys and types, and the printed status."""
    shown = json.loads(text)
    with served("cartpole") as url:
        told = health(url)
        assert told["requests"] == 0
        with Client(url, dialect="vibe_rl") as client:
            client.infer({"obs": np.zeros(4, np.float32)})
        told = health(url)
    assert told["status"] == shown["status"]
    assert told["requests"] == 1
    assert {key: type(value) for key, value in told.items()} == {key: type(value) for key, value in shown.items()}


def an_observation(text: str, place: Path) -> None:
    """The printed keys and types are the spec's, and an observation made of them is answered."""
    kinds = {np.ndarray: (ImageSpec, ArraySpec), str: (TextSpec,), list[str]: (TextListSpec,)}
    namespace: dict[str, Any] = {"np": np, "List": list}
    exec(text, namespace)
    shown = namespace["obs"]
    leaves = wall_x_spec(MODEL_CONFIGS["libero"]).leaves
    assert shown.keys() == leaves.keys()
    for key, kind in shown.items():
        assert isinstance(leaves[key], kinds[kind])
    with served("libero") as url:
        client = WallXClient(url)
        for dtype in (np.uint8, np.float32):
            images = {key: np.zeros((256, 256, 3), dtype) for key in ("front_view", "left_wrist_view")}
            rest = {"prompt": "open", "dataset_names": ["physical-intelligence/libero"], "state": np.zeros(8)}
            assert client.predict_sync({**images, **rest})["action"].shape == (32, 7)
        client.close_sync()


def an_action(text: str, place: Path) -> None:
    """A connection's second response holds what is printed."""
    shown = eval(text, {"np": np})
    with served("libero") as url:
        client = WallXClient(url)
        client.predict_sync(libero_observation())
        assert_shape(shown, client.predict_sync(libero_observation()), more=True)
        client.close_sync()


def metadata(text: str, place: Path) -> None:
    """The greeting holds what is printed."""
    with served("libero") as url:
        client = WallXClient(url)
        client.connect_sync()
        assert_shape(eval(text), client.metadata, more=True)
        client.close_sync()


def a_health_address(text: str, place: Path) -> None:
    """The address answers 200."""
    with served("libero") as url, urllib.request.urlopen(text.strip().replace("http://host:port", http(url))) as answer:
        assert answer.status == 200


# Programs


def a_server(text: str, place: Path) -> None:
    """The program serves until it is interrupted."""
    with running_program(POLICY + text, place) as url:
        with Client(url, dialect="vibe_rl") as client:
            assert client.infer({"obs": np.zeros(4, np.float32)}).actions in (0, 1)
        assert health(url)["requests"] == 1


def both_ways_to_start(text: str, place: Path) -> None:
    """The block shows two ways to start one server, each of which takes until the server's end: one at a time."""
    blocking, awaited = "server.run_blocking()", "await server.run()"
    assert blocking in text
    assert awaited in text
    a_server(text.replace(awaited, ""), place)
    a_server(text.replace(blocking, ""), place)


def an_encoder(text: str, place: Path) -> None:
    """Our server's half reads what the function writes."""
    namespace: dict[str, Any] = {}
    exec(text, namespace)
    observation = {"state": np.arange(14, dtype=np.float32), "image": np.ones((64, 64, 3), np.uint8)}
    read = VibeRL().read_request(namespace["encode_observation"](observation)).observation
    assert read.keys() == observation.keys()
    for key, array in observation.items():
        np.testing.assert_array_equal(read[key], array)
        assert read[key].dtype == array.dtype


def a_decoder(text: str, place: Path) -> None:
    """The function reads what our server's half writes."""
    namespace: dict[str, Any] = {"msgpack": msgpack, "np": np}
    exec(text, namespace)
    action = np.arange(14, dtype=np.float32)
    reply = VibeRL().write_reply(ActionChunk(action), Timing(queue_ms=0.1, infer_ms=1.0, total_ms=1.5))
    decoded, meta = namespace["decode_action"](reply)
    np.testing.assert_array_equal(decoded, action)
    assert meta == {"latency_ms": 1.5}


def an_inference_loop(text: str, place: Path) -> None:
    """With the two functions that the document shows before, the program prints an action."""
    functions = [piece.text for piece in PIECES if re.search("def (encode_observation|decode_action)", piece.text)]
    with served("cartpole") as url:
        printed = run_program("\n".join([*functions, text.replace("ws://localhost:8000", url)]), place)
    assert re.fullmatch(r"action=[01], latency=\d+\.\d\dms\n", printed)


def a_model_config(env: str) -> Run:
    """It is our default for that robot."""

    def check(text: str, place: Path) -> None:
        imports = "from wall_x.serving.launch_serving import MODEL_CONFIGS, ModelConfig\n"
        run_program(f"{imports}assert (\n{text}\n) == MODEL_CONFIGS[{env!r}]", place)

    return check


def a_libero_observation(text: str, place: Path) -> None:
    """A server whose cameras are the block's answers it."""
    with served("libero") as url:
        ask = f"from wall_x.serving.client import WallXClient\nclient = WallXClient(uri={url!r})\n"
        told = "print(client.predict_sync(obs)['action'].shape)\nclient.close_sync()\n"
        assert run_program(LIBERO_VARIABLES + text + ask + told, place) == "(32, 7)\n"


def a_wall_x_client(text: str, place: Path) -> None:
    """The program gets an action."""
    with served("libero") as url:
        program = LIBERO_VARIABLES + text.replace("ws://localhost:8000", url) + "\nprint(action.shape, action.dtype)"
        assert run_program(program, place) == "(32, 7) float32\n"


# Commands


def a_curl(text: str, place: Path) -> None:
    """The command prints the health route's JSON."""
    if shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    with served("cartpole") as url:
        ended = run(*shlex.split(text.replace("http://localhost:8000", http(url))), cwd=place)
    assert json.loads(ended.stdout)["status"] == "ok"


def serve_policy(observation_size: int, kind: str) -> Run:
    """The command serves a policy that answers actions of that dtype kind."""

    def check(text: str, place: Path) -> None:
        with serving(words(text), cwd=place) as server:
            with Client(server.url, dialect="vibe_rl") as client:
                actions = client.infer({"obs": np.zeros(observation_size, np.float32)}).actions
            assert actions.dtype.kind == kind
            assert server.stop()[0] == 0

    return check


def simple_client(policy: str, steps: int = 10) -> Run:
    """The command gets that many actions from a server of that policy."""

    def check(text: str, place: Path) -> None:
        with served(policy) as url:
            ended = run(*words(text.replace("URL", url)), cwd=place)
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.count("| action=") == steps
        assert ended.stdout.endswith("Done.\n")

    return check


def launch_serving(cameras: tuple[str, ...], state_dim: int, action_dim: int) -> Run:
    """The command serves a policy of those cameras and sizes."""

    def check(text: str, place: Path) -> None:
        with serving(words(text), cwd=place) as server:
            client = WallXClient(server.url)
            images = {camera: np.zeros((256, 256, 3), np.uint8) for camera in cameras}
            response = client.predict_sync({**images, "prompt": "open", "state": np.zeros(state_dim)})
            assert response["action"].shape == (32, action_dim)
            assert list(client.metadata["spec"]["observation"])[: len(cameras)] == list(cameras)
            client.close_sync()
            assert server.stop()[0] == 0

    return check


# What the checks share


def words(command: str) -> list[str]:
    """A command line as a process takes it; `python` is this one."""
    first, *rest = shlex.split(command)
    return [sys.executable if first == "python" else first, *rest]


def http(url: str) -> str:
    return url.replace("ws://", "http://")


def health(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{http(url)}/healthz") as answer:
        assert answer.status == 200
        return json.load(answer)


def libero_observation() -> dict[str, Any]:
    images = {key: np.zeros((256, 256, 3), np.uint8) for key in MODEL_CONFIGS["libero"].camera_key}
    return {**images, "prompt": "open", "state": np.zeros(8), "dataset_names": ["physical-intelligence/libero"]}


def assert_shape(shown: Any, real: Any, *, more: bool = False) -> None:
    """Assert that two values have the same keys and types, whatever stands there; more: real may have further keys."""
    if isinstance(shown, dict):
        assert isinstance(real, dict)
        assert real.keys() >= shown.keys() if more else real.keys() == shown.keys()
        for key in shown:
            assert_shape(shown[key], real[key], more=more)
    elif shown is RAW:
        assert isinstance(real, bytes)
    elif isinstance(shown, type):
        assert isinstance(real, shown)
    elif isinstance(shown, str):
        assert isinstance(real, bytes), "texts of this protocol are bytes on the wire"
    else:
        assert type(real) is type(shown)
        if isinstance(shown, list):
            assert real == shown, "a shape"


LIBERO_CAMERAS = ("front_view", "left_wrist_view")
ALOHA_CAMERAS = ("face_view", "left_wrist_view", "right_wrist_view")
ANY_PORT = {"$": " --host 127.0.0.1 --port 0"}
AT_URL = {"$": " --url URL"}
LIBERO = launch_serving(LIBERO_CAMERAS, 8, 7)
ALOHA = launch_serving(ALOHA_CAMERAS, 14, 14)

RULES = [
    Rule(VIBE_RL, r"^pip install", not_run("it installs the original, for which the drop-in stands"), {}),
    Rule(VIBE_RL, r"┌───", not_run("a drawing"), {}),
    Rule(
        VIBE_RL,
        r"server = PolicyServer\(",
        both_ways_to_start,
        {'"0.0.0.0"': '"127.0.0.1"', "port=8000": "port=0"},
    ),
    Rule(VIBE_RL, r'^\{\n    b"__meta__".*b"obs": <raw bytes>', a_request("cartpole"), {"<raw bytes>": "RAW"}),
    Rule(VIBE_RL, r'^\{\n    b"__meta__".*b"image": <raw bytes>', a_request("image"), {"<raw bytes>": "RAW"}),
    Rule(VIBE_RL, r'^\{\n    b"action": <raw bytes>', a_reply, {"<raw bytes>": "RAW"}),
    Rule(VIBE_RL, r'"avg_latency_ms":', a_health_answer, {}),
    Rule(VIBE_RL, r"^curl ", a_curl, {}),
    Rule(VIBE_RL, r"serve_policy.py cartpole_ppo", serve_policy(4, "i"), ANY_PORT),
    Rule(VIBE_RL, r"serve_policy.py pendulum_sac .* --port", serve_policy(3, "f"), {"--port 9000": "--port 0"}),
    Rule(
        VIBE_RL,
        r"serve_policy.py pendulum_sac .* --step",
        serve_policy(3, "f"),
        {"--step 50000": "--step 24000", **ANY_PORT},
    ),
    Rule(VIBE_RL, r"simple_client.py$", simple_client("cartpole"), AT_URL),
    Rule(VIBE_RL, r"simple_client.py --obs_shape 3$", simple_client("pendulum"), AT_URL),
    Rule(VIBE_RL, r"simple_client.py --image$", simple_client("image"), AT_URL),
    Rule(VIBE_RL, r"simple_client.py --url", simple_client("cartpole"), {"ws://remote-host:8000": "URL"}),
    Rule(VIBE_RL, r"simple_client.py --n_steps 100$", simple_client("cartpole", 100), AT_URL),
    Rule(VIBE_RL, r"def encode_observation", an_encoder, {}),
    Rule(VIBE_RL, r"def decode_action", a_decoder, {}),
    Rule(VIBE_RL, r"async def infer_loop", an_inference_loop, {}),
    Rule(WALL_X, r"^cd /", not_run("a directory of the author's machine"), {}),
    Rule(
        WALL_X,
        r"launch_serving --env libero --model-config",
        LIBERO,
        {"/path/to/libero_model_stuff": "stand-in", **ANY_PORT},
    ),
    Rule(WALL_X, r"launch_serving --env libero$", LIBERO, {"$": f" {STAND_IN} --port 0"}),
    Rule(WALL_X, r"launch_serving --env aloha$", ALOHA, {"$": f" {STAND_IN} --port 0"}),
    Rule(
        WALL_X,
        r"launch_serving --model-config",
        LIBERO,
        {"/path/to/model": "stand-in", "--port 8000": "--port 0"},
    ),
    Rule(
        WALL_X,
        r"^--model-config.camera-key",
        LIBERO,
        {"^": "python -m wall_x.serving.launch_serving ", "$": f" {STAND_IN} --port 0"},
    ),
    Rule(WALL_X, r"^obs = \{\s+\"front_view\": image1", a_libero_observation, {}),
    Rule(WALL_X, r"^ModelConfig\(.*state_dim=8", a_model_config("libero"), {}),
    Rule(WALL_X, r"^ModelConfig\(.*state_dim=14", a_model_config("aloha"), {}),
    Rule(WALL_X, r"^obs = \{.*np\.ndarray", an_observation, {}),
    Rule(WALL_X, r'^\{\s+"action": np\.ndarray', an_action, {}),
    Rule(WALL_X, r'^\{\s+"action_dim": int', metadata, {}),
    Rule(WALL_X, r"^http://host:port/healthz", a_health_address, {}),
    Rule(WALL_X, r"client = WallXClient\(", a_wall_x_client, {}),
]


def pieces() -> list[Piece]:
    """Everything to run; nothing where the documents are not beside the repository."""
    founding = Path(__file__).resolve().parents[3] / "shared" / "founding"
    return [piece for path in sorted(founding.glob("*.md")) for piece in read_pieces(path)]


PIECES = pieces()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory in which the documents' commands are typed, the drop-in installed."""
    lay_out(tmp_path)
    monkeypatch.setenv("PYTHONPATH", drop_in()["PYTHONPATH"])
    return tmp_path


def test_both_documents_are_read() -> None:
    shared_path("founding")
    assert {piece.document for piece in PIECES} == {VIBE_RL, WALL_X}


@pytest.mark.parametrize("piece", PIECES, ids=str)
def test_what_the_founding_documents_show_is_true(piece: Piece, place: Path) -> None:
    rules = [rule for rule in RULES if rule.covers(piece)]
    assert len(rules) == 1, f"{len(rules)} rules cover this {piece.language or 'untitled'} block:\n{piece.text}"
    rules[0].apply(piece.text, place)


@pytest.mark.skipif(not PIECES, reason="the documents are not beside the repository")
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.marker)
def test_every_rule_covers_something(rule: Rule) -> None:
    assert any(rule.covers(piece) for piece in PIECES)
