"""Wire dialects: bytes to messages and back, one module per family of clients."""

from __future__ import annotations

from policyserve.core.dialect import Dialect, has_client
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.core.messages import Message
from policyserve.dialects.behavior1k import Behavior1K
from policyserve.dialects.gr00t import Gr00t
from policyserve.dialects.greeter import Greeter
from policyserve.dialects.lerobot.dialect import LeRobot
from policyserve.dialects.molmospaces import MolmoSpaces
from policyserve.dialects.openpi import Cosmos, OpenPI
from policyserve.dialects.recognition import family_of_first_message
from policyserve.dialects.registry import Registry
from policyserve.dialects.roboarena import DreamZero, RoboArena
from policyserve.dialects.starvla import StarVLA
from policyserve.dialects.vibe_rl import VibeRL
from policyserve.dialects.vla_eval import VlaEval
from policyserve.dialects.vllm_omni import VLLMOmni
from policyserve.dialects.wall_x import WallX
from policyserve.dialects.xpolicylab import XPolicyLab

_OURS = (
    OpenPI(),
    WallX(),
    VibeRL(),
    VlaEval(),
    XPolicyLab(),
    StarVLA(),
    RoboArena(),
    DreamZero(),
    VLLMOmni(),
    Behavior1K(),
    MolmoSpaces(),
    Cosmos(),
    Gr00t(),
    LeRobot(),
)

_registry = Registry(_OURS)
names = _registry.names
by_name = _registry.by_name
for_path = _registry.for_path
load_all = _registry.load_all


def client_names() -> tuple[str, ...]:
    """Those of names() that this package's clients speak."""
    return tuple(name for name in names() if has_client(by_name(name)))


def http_names() -> tuple[str, ...]:
    """The families that ask by HTTP, `POST /act`, which are not among names()."""
    from policyserve.dialects.rest.recognition import FAMILIES  # few clients need one of them

    return tuple(FAMILIES)


def spoken(name: str) -> Dialect:
    """The dialect that a session speaks, as logs, metrics and recordings name it: of names(), or a family's of `/act`.

    Raises ConfigError for any other name.
    """
    from policyserve.dialects.rest.recognition import FAMILIES

    return FAMILIES.get(name) or by_name(name)


class Auto:
    """Finds a connection's dialect by its first message (the protocol DialectChoice)."""

    greeter: Dialect = Greeter()
    greeting_paths = tuple(f"/{dialect.name}" for dialect in _OURS if dialect.greets)

    def settle(self, message: Message, greeted: bool, limits: WireLimits = DEFAULT_LIMITS) -> Dialect:
        """The dialect of the family that the message shows."""
        return by_name(family_of_first_message(message, greeted, limits))
