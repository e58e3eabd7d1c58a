"""Which norm_stats.json belongs to a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from policyserve.core.errors import ConfigError
from policyserve.policies.vibe_rl.checkpoint import follow_best
from policyserve.policies.vibe_rl.config import load_json
from policyserve.transforms import NormStats, read_norm_stats

log = logging.getLogger(__name__)

_NAME = "norm_stats.json"


def find_norm_stats(
    checkpoint_dir: str | Path, path: str | Path | None, keys: Sequence[str]
) -> Mapping[str, NormStats]:
    """Read the file named, or norm_stats.json in checkpoint_dir or in its parent (as spelled, links not resolved).

    keys: those that the policy will use. Empty if no file was named and none is there. Raises ConfigError for a file
    that was named and is missing or has none of the keys, and for one that is malformed.
    """
    found = _find_file(Path(checkpoint_dir)) if path is None else Path(path)
    if found is None:
        return {}
    if not found.is_file():
        raise ConfigError(f"norm_stats_path: no such file: {found}")
    stats = read_norm_stats(load_json(found), str(found))
    used = [key for key in keys if key in stats]
    if path is not None and not used:
        raise ConfigError(f"{path}: expected statistics of {' or '.join(keys)}, got keys {', '.join(stats) or 'none'}")
    log.info("norm stats %s: %s", found, ", ".join(used) or f"not used, it has no {' or '.join(keys)}")
    return stats


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
