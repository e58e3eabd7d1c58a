"""Which policies a command can serve: finds the adapter for what stands behind `serve`, `bench` or `eval`.

An adapter is one class that brings all that a command needs to know of one kind of policy: its flags, its line of help,
what is refused, and the Recipe that loads it. Four kinds of names lead to one:

    cartpole_ppo, wall-x        a name: one of ours, or of an installed package
    onnx:model.onnx             a scheme, the same as a name but for what stands behind the colon
    model.onnx                  a file or a folder, whose scheme is found out (policies/sniffing.py)
    package.module:name         an object or function of the user's own; also my_policy.py:name

A package adds adapters by entry points of the group `policyserve.policies`, here one named `robot`:

    [project.entry-points."policyserve.policies"]
    robot = "robot_policies.serving:RobotAdapter"

`policyserve serve robot` then calls RobotAdapter("robot"), which has to give an Adapter. An entry point's module is
imported when its name is asked for, and for `policyserve serve --help`, which lists all: import frameworks in the
function that the Recipe names. Our own names go before those of packages.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from policyserve.core.errors import ConfigError, names_told
from policyserve.core.nearest import nearest
from policyserve.core.recipe import Newest, Recipe
from policyserve.policies.candidates import how_to_name, source_of
from policyserve.policies.importing import is_file, is_module, modules_here, reason
from policyserve.policies.sniffing import Recognised, is_path, recognise

ENTRY_POINTS = "policyserve.policies"
OWN = "package.module:name"  # how help spells a policy of the user's own

_VIBE_RL = "policyserve.policies.vibe_rl.adapter:PresetAdapter"
_OURS: Mapping[str, str] = {
    "cartpole_ppo": _VIBE_RL,
    "cartpole_dqn": _VIBE_RL,
    "pendulum_ppo": _VIBE_RL,
    "pendulum_sac": _VIBE_RL,
    "gridworld_dqn": _VIBE_RL,
    "vibe_rl": "policyserve.policies.vibe_rl.run_adapter:RunAdapter",
    "onnx": "policyserve.policies.onnx.adapter:OnnxAdapter",
    "sb3": "policyserve.policies.sb3.adapter:SB3Adapter",
    "lerobot": "policyserve.policies.lerobot.adapter:LeRobotAdapter",
    "remote": "policyserve.policies.remote.adapter:RemoteAdapter",
    "openpi": "policyserve.policies.openpi.adapter:OpenpiAdapter",
    "torch": "policyserve.policies.torch_files.adapter:TorchAdapter",
    "demo_flow": "policyserve.policies.demo_flow.adapter:FlowDemoAdapter",
    "demo_image": "policyserve.policies.objects:DemoAdapter",
    "wall-x": "policyserve.policies.wall_x.adapter:WallXAdapter",
}
_OBJECTS = "policyserve.policies.objects:ObjectAdapter"
_RUN_CONFIG = "config.json"  # what a training run's folder has
_ALIKE = 0.7  # a module's name is anybody's: only what is much like a scheme is taken for one
_MEMBERS = ("help", "rest", "flags", "defaults", "source")

FlagsT = TypeVar("FlagsT")


@dataclass(frozen=True)
class Source:
    """A policy that can be loaded, and where it comes from.

    title, origin: one line each, shown when the server starts. recipe: what loads it; its function runs in the policy's
    thread, or in a process of its own with --isolate process, and what it raises ends the command with 1 and one line.
    env_id: the Gymnasium environment that it acts in, for `policyserve eval`; None: eval needs --env.
    is_own_code: whether it is code of the user's own, which `policyserve serve --reload` can watch.
    check: called by commands before they open a port; raises ConfigError for files that cannot be served, and
    MissingDependency: the command ends with 1. None: what is wrong is known when the recipe is carried out.
    files: the files and folders that are read to load it, for `policyserve inspect`; called once it is loaded.
    None: those that the user named.
    newest: for `policyserve serve --follow`, which calls it again and again, in any thread: the newest complete
    checkpoint; None while there is none. Raises ConfigError for a run that is gone. None: it is no run with steps.
    """

    title: str
    origin: str
    recipe: Recipe
    env_id: str | None = None
    is_own_code: bool = False
    check: Callable[[], None] | None = None
    files: Callable[[], Sequence[Path]] | None = None
    newest: Callable[[], Newest | None] | None = None


@runtime_checkable
class Adapter(Protocol[FlagsT]):
    """One kind of policy, as commands see it. Made with what the user typed, such as `robot` or `onnx:model.onnx`.

    Made and asked in the command's own process, by its main thread before an event loop runs and before a policy is
    loaded, or by another thread where a server is asked for another policy; for a list it is made with its name
    alone. So making one checks nothing, and nothing here imports a framework, opens a device or reads weights. An
    exception that no member's text names is a fault of the adapter and is shown with its traceback.
    """

    @property
    def help(self) -> str:
        """What it serves, in one line without a full stop, for lists of policies."""
        ...

    @property
    def rest(self) -> str:
        """What stands behind the name and a colon, such as `FILE`; empty: nothing does, and it is no scheme."""
        ...

    @property
    def flags(self) -> type[FlagsT]:
        """The flags: a frozen dataclass that tyro reads, a field's docstring being its help.

        Its __post_init__ raises ConfigError, beginning with the field's name, for a value that can never be: the
        command ends with 2 and that line. pathlib takes an empty text for the working directory: declare a path as
        `str | None` and call check_given(). No field may have the name of a flag that the command has, such as `port`.
        """
        ...

    def defaults(self, given: FlagsT | None) -> FlagsT:
        """The flags where the user gives none.

        Called with None first. Called again with what was then read: where the answer differs, as one robot's sizes
        differ from another's, the command line is read anew from it. May look into small files that were named; raises
        ConfigError for what is wrong with them, which ends the command with 2.
        """
        ...

    def source(self, flags: FlagsT) -> Source:
        """What these flags stand for.

        Raises ConfigError for flags that do not go together, which ends the command with 2, and MissingDependency,
        which ends it with 1. What is wrong with files is found by the Source's check or the recipe's function, both of
        which end it with 1.
        """
        ...


def find(target: str) -> Adapter[Any]:
    """The adapter for what the user typed.

    Raises ConfigError with what was probably meant, or with the package whose adapter fails and why.
    """
    name, colon, rest = target.partition(":")
    adapter = _made(name, target)
    if adapter is not None and adapter.rest and not rest:
        raise ConfigError(f"expected {name}:{adapter.rest}, got {target!r}")
    if adapter is not None and (adapter.rest or not colon):
        return adapter
    if _is_model(target):
        found = _recognised(target)
        return _Recognised(find(f"{found.scheme}:{target}"), found.scheme, found.told)
    if not colon and (run := _run_meant(target)):
        raise ConfigError(f"there is no policy {target!r}; did you mean {run}?")
    if is_file(name):
        return _named(_OBJECTS)(target)
    if colon:
        _check_scheme(name, rest)
        return _named(_OBJECTS)(target)
    raise ConfigError(_about(target))


def taken_for(adapter: Adapter[Any]) -> str:
    """What a path was taken for that was named without a scheme, and by what; empty for all else."""
    return adapter.told if isinstance(adapter, _Recognised) else ""


def kind_of(target: str, adapter: Adapter[Any]) -> str:
    """The name or scheme by which find() knew a target, such as `onnx`; `object` for a policy of the user's own."""
    name = adapter.scheme if isinstance(adapter, _Recognised) else target.partition(":")[0]
    return name if name in names() else "object"


def is_refused(target: str) -> bool:
    """Whether what find() cannot serve is there: a file or folder that is refused, and no mistake in its name."""
    return bool(target) and os.path.exists(os.path.expanduser(target))


def names() -> list[str]:
    """All names that can be typed, ours first; of a scheme what stands before its colon. Imports no adapter."""
    return list(dict.fromkeys([*_OURS, *sorted(_installed())]))


def spellings() -> str:
    """How each can be typed, by commas, `vibe_rl:FOLDER` for a scheme of ours; imports no adapter of a package."""
    ours = {name: _made(name, name) for name in _OURS}
    spelt = [f"{name}:{adapter.rest}" if adapter and adapter.rest else name for name, adapter in ours.items()]
    return ", ".join([*spelt, *sorted(_installed().keys() - _OURS.keys())])


def listing() -> dict[str, str]:
    """Each name and its line of help; for an adapter that fails, whose it is and why."""
    lines = dict(_line(name) for name in names())
    return {**lines, OWN: _named(_OBJECTS)(OWN).help}


def check_given(**texts: str | None) -> None:
    """Raise ConfigError for a flag that was given nothing, which is what `--file "$FILE"` does if FILE is not set.

    texts: what the flags hold, each under its name with `_` for `-`; None: not given.
    """
    for name, text in texts.items():
        if text is not None and not text.strip():
            raise ConfigError(
                f"--{name.replace('_', '-')}: expected a value, got nothing; is the variable set that it comes from?"
            )


@dataclass(frozen=True)
class _Recognised:
    """The adapter for a path that was named without its scheme. told: by what that was found."""

    adapter: Adapter[Any]
    scheme: str
    told: str

    @property
    def help(self) -> str:
        return self.adapter.help

    @property
    def rest(self) -> str:
        return self.adapter.rest

    @property
    def flags(self) -> type[Any]:
        return self.adapter.flags

    def defaults(self, given: Any) -> Any:
        return self.adapter.defaults(given)

    def source(self, flags: Any) -> Source:
        source = self.adapter.source(flags)
        return replace(source, origin=f"{source.origin} ({self.told})")


def _is_model(target: str) -> bool:
    """Whether a target without a scheme means a model's file or folder, and no Python file, package or folder of it."""
    if target.endswith(".py") or source_of(target) is not None:
        return False
    if ":" in target:  # a folder may be called by a time of day
        return os.path.exists(os.path.expanduser(target))
    return is_path(target) or is_file(target)


def _recognised(target: str) -> Recognised:
    """What a path is; raises ConfigError, with the training run that is meant where it is a folder of one."""
    try:
        return recognise(target)
    except ConfigError as error:
        if run := _run_meant(target):
            raise ConfigError(f"there is no policy {target!r}; did you mean {run}?") from error
        raise


def _line(name: str) -> tuple[str, str]:
    try:
        adapter = _made(name, name)
    except ConfigError as error:
        return name, str(error)
    assert adapter is not None
    return (f"{name}:{adapter.rest}" if adapter.rest else name), adapter.help


def _made(name: str, target: str) -> Adapter[Any] | None:
    """The adapter called `name`, made with `target`; None if nothing has that name."""
    if name in _OURS:
        return _named(_OURS[name])(target)
    found = _installed().get(name, [])
    if len(found) > 1:
        owners = " and ".join(sorted(map(_owner, found)))
        raise ConfigError(f"{name}: {owners} both bring a policy of this name: uninstall one")
    return _from_package(found[0], target) if found else None


def _named(place: str) -> Any:
    module_name, _, attribute = place.partition(":")
    return getattr(import_module(module_name), attribute)


def _installed() -> dict[str, list[EntryPoint]]:
    """What installed packages bring, by name."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=ENTRY_POINTS):
        found.setdefault(entry.name, []).append(entry)
    return found


def _from_package(entry: EntryPoint, target: str) -> Adapter[Any]:
    whose = f"{entry.name}: the adapter of {_owner(entry)}, {entry.value},"
    try:
        adapter = entry.load()(target)
        missing = [member for member in _MEMBERS if not hasattr(adapter, member)]
    except (Exception, SystemExit) as error:  # a stranger's code
        raise ConfigError(f"{whose} cannot be loaded: {reason(error)}") from error
    if missing:
        raise ConfigError(f"{whose} is no adapter: it has no {', '.join(missing)}")
    if not is_dataclass(adapter.flags):
        raise ConfigError(f"{whose} is no adapter: expected a dataclass in flags, got {adapter.flags!r:.60}")
    return adapter


def _owner(entry: EntryPoint) -> str:
    return "a package" if entry.dist is None else f"the package {entry.dist.name} {entry.dist.version}"


def _about(target: str) -> str:
    """What is wrong with a name that nobody has."""
    found = source_of(target)
    if found is not None:
        return how_to_name(target, found)
    if not target:
        return f"expected a policy, {spellings()} or {OWN}, got nothing"
    near = nearest(target, [*names(), *modules_here()])
    if near is None:
        return f"there is no policy {target!r}; expected {spellings()} or {OWN}"
    return f"there is no policy {target!r}; did you mean {near if near in names() else f'{near}:NAME'}?"


def _run_meant(target: str) -> str:
    """The training run that a folder is, or those in it; empty if it has none."""
    folder = Path(os.path.expanduser(target))
    if not target or not folder.is_dir():
        return ""
    if (folder / _RUN_CONFIG).is_file():
        return f"the training run vibe_rl:{target}"
    runs = sorted(path.parent.name for path in folder.glob(f"*/{_RUN_CONFIG}"))
    among = f"vibe_rl:{target.rstrip('/')}"
    if len(runs) > 1:
        return f"{among}/NAME, for one of its training runs {names_told(runs)}"
    return f"the training run {among}/{runs[0]}" if runs else ""


def _check_scheme(name: str, rest: str) -> None:
    """Raise ConfigError where what stands before the colon is no module, and almost a scheme that is there."""
    if source_of(name) is not None or is_module(name):
        return
    near = nearest(name, [*_OURS, *_installed()], _ALIKE)
    adapter = None if near is None else _made(near, near)
    if adapter is not None and adapter.rest:
        raise ConfigError(f"there is no {name!r} to serve {name}:{rest} with; did you mean {near}:{rest}?")
