"""One small run for all tests of the report, which only read it or take a copy."""

from pathlib import Path

import pytest

from builders.small_report import run_recipe


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_recipe(tmp_path_factory.mktemp("reported"))
