"""What an ONNX file says of its robot, read into a spec's metadata."""

from __future__ import annotations

from policyserve.policies.onnx.metadata import action_doc, observation_doc, read_metadata


def test_mjlabs_lists_are_read_as_numbers_and_names() -> None:
    found = read_metadata(
        {
            "joint_names": "a,b",
            "action_scale": "0.250,0.500",
            "observation_terms_scale": "1.0;2.0,0.5",
            "run_path": "team/run",
        }
    )
    assert found == {
        "joint_names": ["a", "b"],
        "action_scale": [0.25, 0.5],
        "observation_terms_scale": [[1.0, 2.0], [0.5]],
        "run_path": "team/run",
    }


def test_a_list_that_is_none_stays_the_text_that_it_is() -> None:
    assert read_metadata({"action_scale": "auto"}) == {"action_scale": "auto"}
    assert read_metadata({"action_scale": "nan,1"}) == {"action_scale": "nan,1"}
    assert read_metadata({"joint_damping": ""}) == {"joint_damping": []}


def test_what_a_greeting_has_itself_and_what_is_very_long_is_left_out() -> None:
    assert read_metadata({"spec": "x", "policyserve": "y", "device": "z", "notes": "n" * 10_000}) == {}
    assert len(read_metadata({str(number): "x" for number in range(1000)})) == 64


def test_the_docs_say_what_the_numbers_are_where_the_file_tells() -> None:
    assert action_doc({}) == "as the model gives it"
    assert "default_joint_pos + action_scale * action" in action_doc({"default_joint_pos": [], "action_scale": []})
    assert observation_doc({"observation_names": ["a", "b"]}) == "a, b"
    assert observation_doc({}) == ""
