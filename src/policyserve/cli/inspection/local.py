"""What a policy is that `policyserve serve` would load: it is loaded here, as serve does, and let go again."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from policyserve.cli.inspection.facts import Facts
from policyserve.cli.inspection.remembered import remembered_by
from policyserve.core.errors import PolicyserveError
from policyserve.core.policy import Policy
from policyserve.core.recipe import OnStage
from policyserve.policies import registry
from policyserve.policies.importing import reason
from policyserve.policies.registry import Adapter, Source


def facts_of_policy(target: str, adapter: Adapter[Any], source: Source, on_stage: OnStage) -> Facts:
    """Check a policy's files, load it and ask it once; what cannot be served is told in `refused`."""
    told = registry.taken_for(adapter)
    origin = source.origin.removesuffix(f" ({told})")
    named = target.partition(":")[2] if not os.path.exists(os.path.expanduser(target)) else target
    size, count = _size([Path(named).expanduser()] if named else [])
    kind = registry.kind_of(target, adapter)
    facts = Facts(target, kind, source.title, origin, told, size_bytes=size, files=count)
    try:
        with redirect_stdout(sys.stderr):  # a policy may print while it is imported
            if source.check is not None:
                source.check()
            with closing(source.recipe(on_stage)) as policy:
                facts = _loaded(facts, policy)
    except PolicyserveError as error:
        return replace(facts, refused=str(error))
    except (Exception, SystemExit) as error:  # a stranger's code
        return replace(facts, refused=f"it cannot be loaded: {reason(error)}")
    if source.files is not None:
        size, count = _size(source.files())
    return replace(facts, size_bytes=size, files=count)


def _loaded(facts: Facts, policy: Policy) -> Facts:
    return replace(facts, spec=policy.spec, remembered=remembered_by(policy), metadata=policy.spec.metadata)


def _size(paths: Iterable[Path]) -> tuple[int | None, int]:
    """The bytes of files and of all in folders, and how many files these are; None where there are none."""
    sizes = [size for path in paths for size in _sizes(path)]
    return (sum(sizes), len(sizes)) if sizes else (None, 0)


def _sizes(path: Path) -> Iterator[int]:
    for place in [path] if path.is_file() else path.rglob("*") if path.is_dir() else []:
        if place.is_file():
            yield place.stat().st_size
