"""What the tests of studies start from."""

import pytest

from innerloop.study.store import Store


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path)
