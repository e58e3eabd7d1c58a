"""A policy as Serve is told of it."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from policyserve.core.errors import ConfigError
from policyserve.core.recipe import Recipe
from policyserve.engine.isolated.codec import unpack
from policyserve.ray.application import app, described, options
from policyserve.ray.config import ClusterConfig, ReplicaSettings


def test_the_number_of_replicas_is_no_part_of_a_version() -> None:
    recipe = Recipe("tests.ray.counting:Counting", {"pids": Path("/tmp")})
    few, many = (described("arm", recipe, "3", ClusterConfig(max_replicas=most), ReplicaSettings()) for most in (1, 8))
    assert few["args"] == many["args"]
    assert few["deployments"] != many["deployments"]


def test_a_fixed_number_of_replicas_and_one_that_follows_the_load() -> None:
    assert options(ClusterConfig(min_replicas=2, max_replicas=2))["num_replicas"] == 2
    scaled = options(ClusterConfig(min_replicas=2, max_replicas=5, target_groups=1.5))
    assert "num_replicas" not in scaled
    bounds = scaled["autoscaling_config"]
    assert (bounds["min_replicas"], bounds["max_replicas"], bounds["target_ongoing_requests"]) == (2, 5, 1.5)


def test_a_new_version_loads_before_an_old_one_stops_and_no_call_is_turned_away() -> None:
    told = options(ClusterConfig())
    assert told["max_surge_percent"] == 100
    assert told["max_ongoing_requests"] >= 1000


def test_the_name_that_serve_run_looks_for_is_there_and_no_other() -> None:
    module = importlib.import_module("policyserve.ray")
    assert module.app is app
    with pytest.raises(AttributeError):
        _ = module.nothing


@pytest.mark.ray
@pytest.mark.usefixtures("token")
@pytest.mark.filterwarnings("ignore")  # Ray's own, as it is imported
def test_an_application_takes_what_policyserve_serve_takes() -> None:
    made = app({"policy": "cartpole_ppo", "num_gpus": "0", "min_replicas": "2", "max_replicas": "2"})
    deployment = made._bound_deployment
    assert deployment.num_replicas == 2
    assert deployment.ray_actor_options["num_gpus"] == 0
    recipe = unpack(deployment.init_args[0], trusted=True)
    assert recipe(lambda _: None).spec.name == "cartpole_ppo"


@pytest.mark.ray
@pytest.mark.usefixtures("token")
@pytest.mark.filterwarnings("ignore")  # Ray's own, as it is imported
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "policy: expected what `policyserve serve` takes"),
        ({"policy": "cartpole_ppo", "gpus": 1}, "gpus: expected policy, recipe"),
        ({"policy": "cartpole_ppo", "num_gpus": "many"}, "num_gpus: expected a finite number, got 'many'"),
        ({"policy": "cartpole_pp"}, "cartpole_ppo"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        app(arguments)
