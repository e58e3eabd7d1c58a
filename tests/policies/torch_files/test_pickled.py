"""What a pickle names, read without building it."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyserve.core.errors import ConfigError
from policyserve.policies.torch_files.pickled import is_of_tensors, read_pickle

CODE = b"\x80\x02cposix\nmkdir\nX\x16\x00\x00\x00policyserve_pickle_ran\x85R."


def test_the_names_and_texts_of_a_pickle_are_read_and_none_is_called() -> None:
    found = read_pickle(CODE, "a")
    assert (found.names, found.strings, found.foreign) == (("posix.mkdir",), ("policyserve_pickle_ran",), "posix.mkdir")


def test_names_that_are_put_together_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^a: a pickle that makes up what it imports"):
        read_pickle(b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "a")


@pytest.mark.parametrize("name", ["torch.FloatStorage", "torch._utils._rebuild_tensor_v2", "collections.OrderedDict"])
def test_tensors_in_maps_are_not_foreign(name: str) -> None:
    assert is_of_tensors(name)


@pytest.mark.parametrize("name", ["torch.load", "torch.hub.load", "torch._utils.x", "torch.nn.Linear", "os.system", ""])
def test_all_else_is(name: str) -> None:
    assert not is_of_tensors(name)


@given(head=st.sampled_from([b"", b"\x80\x02", CODE[:9]]), tail=st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(head: bytes, tail: bytes) -> None:
    with suppress(ConfigError):
        read_pickle(head + tail, "a")
