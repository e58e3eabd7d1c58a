"""Whether a robot of LeRobot's and a policy go together, before the first observation. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection

from policyserve.core.errors import BadObservation, WireError
from policyserve.core.leaf_specs import ImageSpec, TextSpec
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.core.messages import Observation
from policyserve.core.nearest import nearest
from policyserve.core.reading import Fitting
from policyserve.core.spec import MISSING, PolicySpec, look_up
from policyserve.dialects.lerobot.setup import PolicySetup

_BETWEEN = re.compile(r"[\s_-]+")  # words of a name


def policy_of(setup: PolicySetup, served: Collection[str]) -> str:
    """The name, of those that are served, that the client asks for; raises WireError that lists them for any other.

    A client's path is a name and nothing else: nothing is looked for, downloaded or loaded.
    """
    found = next((name for name in served if _plain(name) == _plain(setup.policy)), None)
    if found is not None:
        return found
    names = ", ".join(repr(name) for name in served) or "none yet"
    near = nearest(setup.policy, list(served)) or next(iter(served), "NAME")
    cure = f"start the client with --pretrained_name_or_path={_typed(near)}; nothing that a client names is loaded"
    raise WireError("pretrained_name_or_path", f"a policy that is served here ({names})", repr(setup.policy), cure)


def check_features(
    setup: PolicySetup, spec: PolicySpec, fitting: Fitting | None, limits: WireLimits = DEFAULT_LIMITS
) -> None:
    """Raise WireError or BadObservation, with path, expected, got and cure, for a robot that the policy cannot answer.

    fitting: how its observations become the spec's. What the client does not tell, its observations will show.
    """
    if spec.action is not None and len(spec.action.shape) != 1:
        told = f"actions of shape {spec.action.shape}"
        raise WireError("action", "a policy whose actions have one dimension, as LeRobot's robots take them", told)
    if spec.observation is None or not setup.is_whole:
        return
    observation = setup.example(limits)
    try:
        observation = observation if fitting is None else fitting(observation)
        spec.validate(observation, limits)
    except BadObservation as error:
        hint = error.hint or _cure(error.path, setup, spec, observation)
        raise BadObservation(error.path, error.expected, error.got, hint) from None


def _cure(path: str, setup: PolicySetup, spec: PolicySpec, observation: Observation) -> str:
    """What to know of a leaf that the robot's observation lacks, or has in another form."""
    leaf = spec.leaves.get(path)
    if leaf is None or isinstance(leaf, TextSpec):
        return ""
    if look_up(observation, path) is MISSING:
        return f"the robot has no more {'cameras' if isinstance(leaf, ImageSpec) else 'numbers'} for it"
    joints = [joint for numbers in setup.numbers for joint in numbers.joints or ()]
    return "" if isinstance(leaf, ImageSpec) else f"the robot's are {', '.join(joints)}"[:300]


def _plain(name: str) -> str:
    """A name whose words may be joined by anything: `lerobot act` can be typed as lerobot-act."""
    return _BETWEEN.sub(" ", name.strip()).lower()


def _typed(name: str) -> str:
    return f"'{name}'" if " " in name else name
