"""Which norm_stats.json belongs to a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from policyserve.core.errors import ConfigError
from policyserve.core.log import Log
from policyserve.policies.vibe_rl.checkpoint import follow_best
from policyserve.policies.vibe_rl.config import load_json
from policyserve.transforms import NormStats, read_norm_stats
from policyserve.transforms.normalize import is_openpi

log = Log(__name__)

_NAME = "norm_stats.json"
_OPENPI_NAMES = ("state", "actions")  # of the observation and of the action


def find_norm_stats(
    checkpoint_dir: str | Path, path: str | Path | None, keys: Sequence[str]
) -> Mapping[str, NormStats]:
    """Read the file named, or norm_stats.json in checkpoint_dir or in its parent (as spelled, links not resolved).

    keys: those that the policy will use, of the observation and of the action; openpi's names for the two are read as
    these. Empty if no file was named and none is there. Raises ConfigError for a file that was named and is missing or
    has none of the keys, and for one that is malformed.
    """
    found = _find_file(Path(checkpoint_dir)) if path is None else Path(path)
    if found is None:
        return {}
    if not found.is_file():
        raise ConfigError(f"norm_stats_path: no such file: {found}")
    values = load_json(found)
    stats = read_norm_stats(values, str(found))
    if is_openpi(values):
        stats = {_renamed(key, keys, stats): entry for key, entry in stats.items()}
    used = [key for key in keys if key in stats]
    if used:
        log.info("norm stats %s: %s", found, ", ".join(used))
        return stats
    expected, got = f"statistics of {' or '.join(keys)}", f"keys {', '.join(stats) or 'none'}"
    if path is not None:
        raise ConfigError(f"{path}: expected {expected}, got {got}")
    log.warning("norm stats %s are not used: expected %s, got %s", found, expected, got)
    return stats


def _renamed(name: str, keys: Sequence[str], stats: Mapping[str, NormStats]) -> str:
    """The policy's key for a name of openpi's, unless the file has that key too."""
    key = keys[_OPENPI_NAMES.index(name)] if name in _OPENPI_NAMES[: len(keys)] else name
    return name if key in stats else key


def check_size(stats: NormStats, key: str, size: int) -> None:
    """Raise ConfigError unless the statistics are of `size` features, or the same for all."""
    for name, numbers in (("mean", stats.mean), ("std", stats.std)):
        if numbers.shape not in ((), (1,), (size,)):
            raise ConfigError(f"norm stats: {key}/{name}: expected {size} numbers, got {numbers.size}")


def _find_file(folder: Path) -> Path | None:
    places = [follow_best(folder) / _NAME, folder.parent / _NAME]
    found = next((place for place in places if place.is_file()), None)
    above = folder.absolute().parent.parent / _NAME
    if found is None and above.is_file():
        # A step's own directory was named, and the run around it has statistics: likely forgotten.
        log.warning("no norm stats beside %s; %s is not used unless norm_stats_path names it", folder, above)
    return found
