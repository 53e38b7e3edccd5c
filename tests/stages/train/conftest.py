"""A small dataset with tokens, made once. Networks are small: a second thread costs more than it does."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from builders.small_students import write_home


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_home(tmp_path_factory.mktemp("students"))
