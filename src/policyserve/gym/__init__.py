"""Gymnasium's environments in real time, and the scene of demo_flow as one. Needs the extra `gym`.

Importing this registers `DemoFlow-v0`, which `policyserve eval` finds as `policyserve.gym:DemoFlow-v0`.
"""

from policyserve.core.errors import MissingDependency

try:
    from policyserve.gym.demo_flow import DemoFlowEnv, register
    from policyserve.gym.realtime import RealtimeEnv
except ImportError as error:
    if error.name is None or error.name.partition(".")[0] != "gymnasium":
        raise
    raise MissingDependency("gymnasium", "gym") from error

__all__ = ["DemoFlowEnv", "RealtimeEnv"]

register()
