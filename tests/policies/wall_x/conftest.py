"""What Wall-X's tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.policies.frameworks import import_or_skip


@pytest.fixture
def one_torch_thread() -> Iterator[None]:
    """Tiny matrices are slower on several threads, and much slower where other jobs run beside them."""
    torch = import_or_skip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
