"""Files of a checkpoint that are not what they should be: every loader names the file, whatever its parser raises."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.bench.payloads import payload_for
from policyserve.core.errors import BadObservation, ConfigError
from policyserve.policies.files import read_json, reading
from policyserve.policies.vibe_rl.checkpoint import Checkpoint, read_network
from policyserve.policies.vibe_rl.config import load_train_config
from policyserve.policies.vibe_rl.norm_stats import find_norm_stats
from policyserve.policies.vibe_rl.records import open_records
from policyserve.policies.vibe_rl.run_config import find_run_config
from policyserve.transforms import read_norm_stats
from tests.policies.frameworks import import_or_skip


class PanicException(BaseException):
    """As a library in Rust raises it: it is no Exception."""


RAISED: Mapping[str, BaseException] = {
    "RecursionError": RecursionError("maximum recursion depth exceeded"),
    "ValueError": ValueError("a line\nand another"),
    "UnicodeDecodeError": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    "MemoryError": MemoryError(),
    "OverflowError": OverflowError("int too large to convert to float"),
    "TypeError": TypeError("unhashable type: 'dict'"),
    "KeyError": KeyError("content"),
    "PermissionError": PermissionError(13, "Permission denied"),
    "PanicException": PanicException("index out of bounds"),
}


@pytest.mark.parametrize("name", RAISED)
def test_whatever_a_parser_raises_is_one_line_that_names_the_file(name: str) -> None:
    with (
        pytest.raises(ConfigError, match=r"^/run/x\.json: expected JSON, got .") as caught,
        reading("/run/x.json", "JSON"),
    ):
        raise RAISED[name]
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is RAISED[name]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), BadObservation("x", "more", "less")])
def test_what_no_file_raises_passes_as_it_is(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, reading("x.json", "JSON"):
        raise error
    assert caught.value is error


def test_a_json_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "x.json") == {"a": 1}


def read_records(path: Path) -> None:
    read_network(Checkpoint(path, None), (4, 8, 2), "PPO")


def read_stats(path: Path) -> None:
    from policyserve.policies.wall_x.norm_files import read_stats_json
    from policyserve.policies.wall_x.train_config import TrainConfig

    read_stats_json(path, TrainConfig(path, {}, dof=(("arm", 2),)))


def read_pth(path: Path) -> None:
    import_or_skip("torch")
    from policyserve.policies.wall_x.norm_files import load_normalizer
    from policyserve.policies.wall_x.train_config import TrainConfig

    (path.parent / "normalizer_propri.pth").write_bytes(path.read_bytes())
    load_normalizer(path.parent, TrainConfig(path, {}))


def read_yaml(path: Path) -> None:
    import_or_skip("yaml")
    from policyserve.policies.wall_x.train_config import read_train_config

    read_train_config(path)


def read_sizes(path: Path) -> None:
    from policyserve.policies.wall_x.architecture import read_architecture

    read_architecture(path.parent)


def read_tokenizer(path: Path) -> None:
    import_or_skip("tokenizers")
    from policyserve.policies.wall_x.tokens import load_tokenizer

    load_tokenizer(path.parent)


class NoTokens:
    """A tokenizer without action tokens."""

    def token_to_id(self, _text: str) -> None:
        return None


def read_tokenizer_config(path: Path) -> None:
    from policyserve.policies.wall_x.tokens import read_action_tokens

    read_action_tokens(path.parent, NoTokens())


def read_fast(path: Path) -> None:
    from policyserve.policies.wall_x.fast import load_fast_tokenizer

    companions = {
        "processor_config.json": '{"scale": 10, "min_token": 0}',
        "tokenizer.json": '{"model": {"vocab": {}}}',
    }
    for name, text in companions.items():
        if not (path.parent / name).exists():
            (path.parent / name).write_text(text)
    load_fast_tokenizer(path.parent)


def read_weights(path: Path) -> None:
    import_or_skip("safetensors")
    import_or_skip("torch")
    from policyserve.policies.wall_x.checkpoint import read_headers

    read_headers(path.parent)


LOADERS: Mapping[str, tuple[str, Callable[[Path], Any]]] = {
    "a run's config": ("config.json", load_train_config),
    "a run's config beside its checkpoint": ("config.json", lambda path: find_run_config(path.parent)),
    "norm stats": ("norm_stats.json", lambda path: find_norm_stats(path.parent, None, ("obs", "action"))),
    "a payload": ("payload.json", lambda path: payload_for(str(path), {}, "openpi")),
    "records": ("state.eqx", read_records),
    "Wall-X statistics": ("stats.json", read_stats),
    "Wall-X tensors of statistics": ("normalizer_action.pth", read_pth),
    "Wall-X train config": ("config.yml", read_yaml),
    "Wall-X sizes": ("config.json", read_sizes),
    "Wall-X tokenizer": ("tokenizer.json", read_tokenizer),
    "Wall-X action tokens": ("tokenizer_config.json", read_tokenizer_config),
    "FAST's numbers": ("processor_config.json", read_fast),
    "FAST's vocabulary": ("tokenizer.json", read_fast),
    "weights": ("model.safetensors", read_weights),
}

CONTENTS: Mapping[str, bytes] = {
    "nothing": b"",
    "lists in lists": b"[" * 200_000,
    "maps in maps": b'{"algo":' * 200_000,
    "whole maps in maps": b'{"algo":' * 5_000 + b"{}" + b"}" * 5_000,
    "bytes that are no UTF-8": b'{"algo": "\xff\xfe"}',
    "half a file": b'{"algo": {"tau',
    "a number of too many digits": b'{"algo": {"tau": ' + b"9" * 6_000 + b"}}",
    "a list": b"[1, 2]",
    "a text": b'"hello"',
    "nil bytes": b"\0" * 300,
    "a date that is none": b"algo: 2001-99-99",
    "a key that is a list": b"? [1, 2]\n: 3",
}


def complaint(load: Callable[[Path], Any], path: Path) -> str | None:
    """What a loader says of a file; None if it takes it."""
    try:
        load(path)
    except ConfigError as error:
        return str(error)
    return None


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("loader", LOADERS)
def test_a_file_of_any_content_is_refused_in_one_line_that_names_it(loader: str, content: str, tmp_path: Path) -> None:
    name, load = LOADERS[loader]
    path = tmp_path / name
    path.write_bytes(CONTENTS[content])
    told = complaint(load, path)
    if told is None:  # a JSON of another purpose is no run's config, and a train config may lack all that is needed
        assert loader in ("a run's config beside its checkpoint", "Wall-X train config")
        return
    # Newer Pythons parse maps within maps, and that a map says nothing of action tokens is no fault of its file.
    assert name in told or (content == "whole maps in maps" and "has no action tokens" in told)
    assert "\n" not in told
    assert len(told) < 1_000


WRONG_TOKENS = [
    '{"added_tokens": [1]}',
    '{"added_tokens": {"a": 1}}',
    '{"added_tokens": [{"content": "<|propri|>"}]}',
    '{"added_tokens": [{"content": ["<|propri|>"], "id": 3}]}',
    '{"added_tokens": 7}',
]


@pytest.mark.parametrize("text", WRONG_TOKENS)
def test_tokens_that_are_none_are_refused_by_their_file(text: str, tmp_path: Path) -> None:
    from policyserve.policies.wall_x import architecture

    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(ConfigError, match=r"tokenizer\.json: expected tokens with their ids"):
        architecture._read_token_ids(tmp_path)  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(
    "text",
    [
        '{"action_token_start_index": "x"}',
        '{"action_token_start_index": NaN}',
        '{"action_token_start_index": 5, "action_token_vocab_size": [1]}',
        '{"action_token_start_index": 5, "action_token_vocab_size": 1e999}',
    ],
)
def test_a_place_of_action_tokens_that_is_no_number_is_refused_by_its_file(text: str, tmp_path: Path) -> None:
    from policyserve.policies.wall_x.tokens import read_action_tokens

    (tmp_path / "tokenizer_config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"tokenizer_config\.json: action_token_\w+: expected an integer"):
        read_action_tokens(tmp_path, NoTokens())


@pytest.mark.parametrize(
    "text",
    [
        '{"scale": NaN, "min_token": 0}',
        '{"scale": Infinity, "min_token": 0}',
        '{"scale": true, "min_token": 0}',
        '{"scale": 1' + "0" * 400 + ', "min_token": 0}',
        '{"scale": 10, "min_token": 1' + "0" * 400 + "}",
        '{"scale": 10, "min_token": 1e999}',
    ],
)
def test_a_scale_that_is_no_finite_number_is_refused_by_its_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "processor_config.json").write_text(text)
    (tmp_path / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0}}}')
    with pytest.raises(ConfigError, match=r"processor_config\.json: expected the numbers scale and min_token, got "):
        read_fast(tmp_path / "processor_config.json")


@pytest.mark.parametrize("ids", ['"x"', "[1]", "null", "1e999", "NaN"])
def test_a_vocabulary_whose_ids_are_none_is_refused_by_its_file(ids: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"model": {"vocab": {"a": IDS}}}'.replace("IDS", ids))
    with pytest.raises(ConfigError, match=r"tokenizer\.json: expected a vocabulary"):
        read_fast(tmp_path / "tokenizer.json")


# NaN in statistics: refused with the path inside the file

NUMBERS = ["NaN", "Infinity", "-Infinity", "1e999", "1e39", "9" * 400]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("name", ["mean", "std", "q01", "q99"])
@pytest.mark.parametrize("is_openpi", [False, True])
def test_norm_stats_that_are_not_finite_are_refused_with_their_path(is_openpi: bool, name: str, number: str) -> None:
    text = '{"obs": {"mean": [0, 0], "std": [1, 1], "q01": [0, 0], "q99": [1, 1], "NAME": [0, NUMBER]}}'
    stats = json.loads(text.replace("NAME", name).replace("NUMBER", number))
    values = {"norm_stats": stats} if is_openpi else stats
    where = "n.json: norm_stats: obs" if is_openpi else "n.json: obs"
    with pytest.raises(ConfigError, match=rf"^{where}/{name}: expected finite float32 numbers, got .* at 1$"):
        read_norm_stats(values, "n.json")


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"norm_stats": {"state": {"q01": [0, NUMBER], "q99": [1, 1]}}}', "norm_stats: state: q01"),
        ('{"norm_stats": {"state": {"q01": [0, 0], "q99": [1, NUMBER]}}}', "norm_stats: state: q99"),
        ('{"x": {"arm": {"min": [0, NUMBER], "delta": [1, 1]}}}', "x: arm: min"),
        ('{"x": {"arm": {"min": [0, 0], "delta": [1, NUMBER]}}}', "x: arm: delta"),
    ],
)
def test_wall_x_statistics_that_are_not_finite_are_refused_with_their_path(
    text: str, where: str, number: str, tmp_path: Path
) -> None:
    (tmp_path / "stats.json").write_text(text.replace("NUMBER", number))
    with pytest.raises(ConfigError, match=rf"stats\.json: {where}: expected (finite float32 )?numbers, got "):
        read_stats(tmp_path / "stats.json")


@pytest.mark.parametrize("key", ["min.x", "delta.x"])
def test_tensors_of_statistics_that_are_not_finite_are_refused_with_their_path(key: str, tmp_path: Path) -> None:
    torch = import_or_skip("torch")
    tensors = {"min.x": torch.zeros(3), "delta.x": torch.ones(3)}
    tensors[key][2] = float("nan")
    torch.save(tensors, tmp_path / "normalizer_action.pth")
    with pytest.raises(ConfigError, match=rf"action\.pth: {key}: expected finite float32 numbers, got nan at 2"):
        read_pth(tmp_path / "normalizer_action.pth")


def test_tensors_of_statistics_that_are_no_plain_ones_are_read_or_named(tmp_path: Path) -> None:
    torch = import_or_skip("torch")
    path = tmp_path / "normalizer_action.pth"
    torch.save({"min.x": torch.nn.Parameter(torch.zeros(3)), "delta.x": torch.ones(3)}, path)
    read_pth(path)  # one that was trained is a tensor, too
    torch.save({"min.x": torch.zeros(3).to_sparse(), "delta.x": torch.ones(3)}, path)
    with pytest.raises(ConfigError, match=r"normalizer_action\.pth: expected tensors of numbers, got "):
        read_pth(path)


def test_a_yaml_file_that_repeats_itself_beyond_all_memory_is_refused_in_a_short_line(tmp_path: Path) -> None:
    levels = ["l0: &l0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    levels += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 12)]
    for name in ("dof_config", "data"):
        path = tmp_path / "config.yml"
        path.write_text("\n".join([*levels, f"{name}: *l11"]))
        with pytest.raises(ConfigError, match=rf"config\.yml: {name}: expected ") as caught:
            read_yaml(path)
        assert len(str(caught.value)) < 500


def test_a_record_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3, np.float32))
    path = (tmp_path / "a.npy").rename(tmp_path / "state.eqx")

    def fail(*_arguments: object, **_options: object) -> None:
        raise MemoryError

    with open_records(path) as records:
        assert records.header(0) is not None
        monkeypatch.setattr(np, "load", fail)
        with pytest.raises(ConfigError, match=r"state\.eqx: record 0: expected an array, got more than memory holds"):
            records.read(0)
