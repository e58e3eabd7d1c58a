"""The tests mirror the source: where a module's tests stand can be told from its name.

`policyserve/room/name.py` has `tests/room/test_name.py`, or stands in one of the lists below with where else it is
tested, or why it is not. Other test modules are about a subject of several modules.
"""

from __future__ import annotations

from pathlib import Path

import policyserve

SOURCE = Path(policyserve.__file__).parent
TESTS = Path(__file__).parent

# Tested by the modules that are named, in company with others that it means nothing without.
ELSEWHERE = {
    "bench/figures": "cli/test_bench",
    "bench/fleet": "cli/test_bench",
    "bench/load": "cli/test_bench",
    "bench/machine": "bench/test_report",
    "bench/plot": "cli/test_bench",
    "bench/raw_fleet": "cli/test_bench",
    "bench/run": "cli/test_bench",
    "bench/scores_plot": "cli/test_eval",
    "bench/target": "cli/test_bench",
    "cli/export": "cli/test_record",
    "cli/view": "cli/test_record",
    "cli/inspection/local": "cli/test_inspecting",
    "cli/inspection/remote": "cli/test_inspecting",
    "cli/inspection/screen": "cli/test_inspecting",
    "cli/foreground/log_flags": "cli/test_serve_logs",
    "cli/foreground/echo": "cli/foreground/test_serving",
    "cli/arguments/parsing": "cli/arguments/test_server_flags",
    "cli/arguments/setting": "cli/arguments/test_configuration",
    "cli/arguments/values": "cli/arguments/test_flags",
    "client/aio_connecting": "client/test_connecting",
    "compat/asking": "compat/test_wall_x_client",
    "compat/openpi/client": "compat/test_openpi_client",
    "compat/openpi/realtime": "compat/test_openpi_realtime",
    "compat/openpi/image_tools": "compat/test_image_tools",
    "compat/originals": "compat/test_drop_in",
    "compat/policy": "compat/test_openpi_client",
    "compat/vibe_rl": "compat/test_serving",
    "compat/wall_x/client": "compat/test_wall_x_client",
    "compat/wall_x/launch": "compat/test_wall_x_launch",
    "compat/wall_x/policy": "compat/test_wall_x_policy",
    "core/callbacks": "server/test_guards",
    "core/effects": "core/test_session",
    "core/episode_requests": "core/test_episodes",
    "core/events": "logs/test_events",
    "core/remarks": "core/test_session",
    "core/telling": "core/test_session",
    "dialects/action_groups": "golden/test_recorded_families",
    "dialects/answers": "dialects/test_metadata_first",
    "dialects/behavior1k": "golden/test_recorded_families",
    "dialects/column_groups": "dialects/test_xpolicylab",
    "dialects/conversing": "dialects/test_families",
    "dialects/greeter": "dialects/test_families",
    "dialects/molmospaces": "golden/test_recorded_families",
    "core/pickle_things": "policies/sb3/test_pickles",
    "core/pickles": "policies/sb3/test_pickles",
    "dialects/lerobot/answers": "dialects/lerobot/test_dialect",
    "dialects/lerobot/observations": "dialects/lerobot/test_dialect",
    "dialects/lerobot/setup": "dialects/lerobot/test_dialect",
    "dialects/openpi": "dialects/test_metadata_first",
    "dialects/packing": "dialects/test_marked_arrays",
    "dialects/pieces": "dialects/test_metadata_first",
    "dialects/roboarena": "golden/test_recorded_families",
    "dialects/vllm_omni": "golden/test_recorded_families",
    "dialects/wall_x": "dialects/test_metadata_first",
    "dialects/rest/family": "dialects/rest/test_families",
    "dialects/rest/gr00t_http": "dialects/rest/test_families",
    "dialects/rest/json_numpy": "dialects/rest/test_families",
    "dialects/rest/molmoact2": "dialects/rest/test_families",
    "dialects/rest/openvla": "dialects/rest/test_families",
    "dialects/rest/pictures": "dialects/rest/test_families",
    "dialects/rest/plain": "dialects/rest/test_families",
    "dialects/rest/plain_errors": "dialects/rest/test_families",
    "dialects/rest/recognition": "dialects/rest/test_families",
    "dialects/rest/xvla": "dialects/rest/test_families",
    "doctor/certificates": "doctor/test_reaching",
    "doctor/introduction": "cli/test_inspecting",
    "doctor/server": "cli/test_doctor",
    "engine/answering": "engine/test_runner_contract",
    "engine/isolated/child": "engine/isolated/test_runner",
    "engine/isolated/faults": "engine/isolated/test_codec",
    "engine/isolated/worker": "engine/isolated/test_runner",
    "engine/engine": "server/test_conversation",
    "engine/stages": "engine/test_swapping",
    "engine/swaps": "engine/test_swapping",
    "server/health": "server/test_routes",
    "server/peers": "server/test_reception",
    "server/stopping": "server/test_life_cycle",
    "engine/local": "engine/test_routing",
    "policies/onnx/flags": "policies/onnx/test_adapter",
    "policies/torch_files/outputs": "policies/torch_files/test_programs",
    "policies/torch_files/flags": "policies/torch_files/test_adapter",
    "policies/torch_files/loading": "policies/torch_files/test_programs",
    "policies/torch_files/policy": "policies/torch_files/test_programs",
    "policies/sb3/architecture": "policies/sb3/test_archive",
    "policies/sb3/features": "policies/sb3/test_policy",
    "policies/sb3/heads": "policies/sb3/test_policy",
    "policies/sb3/lstm": "policies/sb3/test_policy",
    "policies/sb3/numpy_values": "policies/sb3/test_pickles",
    "policies/sb3/weights": "policies/sb3/test_archive",
    "policies/openpi/loading": "policies/openpi/test_adapter",
    "logs/start": "cli/test_serve_logs",
    "policies/vibe_rl/environments": "cli/test_eval",
    "policies/vibe_rl/jax_backend": "policies/vibe_rl/test_networks",
    "policies/wall_x/action_head": "policies/wall_x/test_flow",
    "policies/wall_x/assembly": "policies/wall_x/test_loading",
    "policies/wall_x/attention": "policies/wall_x/test_decoder",
    "policies/wall_x/config": "compat/test_wall_x_launch",
    "policies/lerobot/act": "policies/lerobot/test_golden",
    "policies/lerobot/diffusion": "policies/lerobot/test_golden",
    "policies/lerobot/loading": "policies/lerobot/test_adapter",
    "policies/lerobot/options": "policies/lerobot/test_plan",
    "policies/lerobot/pictures": "policies/lerobot/test_model",
    "policies/lerobot/resnet": "policies/lerobot/test_golden",
    "policies/lerobot/spec": "policies/lerobot/test_plan",
    "policies/lerobot/weights": "policies/lerobot/test_model",
    "policies/wall_x/flow_state": "policies/wall_x/test_batching",
    "policies/wall_x/fused": "policies/wall_x/test_kernels",
    "policies/wall_x/memory": "policies/wall_x/test_policy",
    "policies/wall_x/layers": "policies/wall_x/test_decoder",
    "policies/wall_x/model": "policies/wall_x/test_golden_policy",
    "policies/wall_x/names": "policies/wall_x/test_checkpoint",
    "policies/wall_x/network": "policies/wall_x/test_loading",
    "policies/wall_x/norm_files": "policies/wall_x/test_normalizer",
    "policies/wall_x/options": "compat/test_wall_x_launch",
    "policies/wall_x/prompt": "policies/wall_x/test_processor",
    "policies/wall_x/rope": "policies/wall_x/test_decoder",
    "policies/wall_x/sequence": "policies/wall_x/test_processor",
    "policies/wall_x/spec": "policies/wall_x/test_policy",
    "ray/engine": "ray/test_edge",
    "ray/handle": "ray/test_drills",
    "ray/roster": "ray/test_drills",
    "realtime/aio": "realtime/test_sync",
    "realtime/options": "realtime/test_sync",
    "realtime/requests": "realtime/test_machine",
    "recordings/container": "recordings/test_reading",
    "recordings/file": "recordings/test_reading",
    "server/connection": "server/test_connections",
    "server/entrance": "server/test_keys",
    "server/handshake": "server/test_admission",
    "server/loading": "server/test_offers",
    "server/notes": "server/test_guards",
    "server/other_ports": "server/lerobot_grpc/test_port",
    "server/pages": "server/test_policies_page",
    "server/policy_server": "server/test_life_cycle",
    "server/rest/body": "server/rest/test_peer",
    "server/lerobot_grpc/robot": "server/lerobot_grpc/test_port",
    "server/lerobot_grpc/status": "server/lerobot_grpc/test_port",
    "server/server": "server/test_life_cycle",
    "server/spare_memory": "server/test_hostile_peers",
}

# Protocols, values and lists of names: there is nothing to do in them that could be done wrong.
NO_TESTS = {
    "core/dialect": "a Protocol; tests/contract holds its implementations to it",
    "core/version": "a number",
    "dialects/rest/bodies": "values",
    "policies/wall_x/inputs": "values",
    "realtime/values": "values",
    "recordings/plan": "values",
}


def modules() -> list[str]:
    """Every module by its path, but for packages' own, which only name what is in them."""
    files = [path for path in SOURCE.rglob("*.py") if path.name not in ("__init__.py", "__main__.py")]
    return sorted(path.relative_to(SOURCE).with_suffix("").as_posix() for path in files)


def own_tests(module: str) -> Path:
    room, _, name = module.rpartition("/")
    return TESTS / room / f"test_{name}.py"


def test_every_module_has_its_tests_or_is_listed_with_a_reason() -> None:
    listed = {*ELSEWHERE, *NO_TESTS}
    assert [module for module in modules() if not own_tests(module).exists() and module not in listed] == []


def test_nothing_is_listed_that_is_gone_or_has_tests_of_its_own() -> None:
    known = set(modules())
    assert [module for module in (*ELSEWHERE, *NO_TESTS) if module not in known or own_tests(module).exists()] == []


def test_the_tests_that_the_list_names_are_there() -> None:
    assert [place for place in ELSEWHERE.values() if not (TESTS / f"{place}.py").exists()] == []
