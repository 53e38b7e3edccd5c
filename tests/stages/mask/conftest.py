"""A bench of small tokens, once for all tests that only read it."""

from pathlib import Path

import pytest

from builders.small_tokens import Bench, bench_of


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Its pictures and artifacts are only read."""
    return bench_of(tmp_path_factory.mktemp("mask"))


@pytest.fixture
def own_bench(tmp_path: Path) -> Bench:
    """For a test that changes pictures."""
    return bench_of(tmp_path, changed=False)
