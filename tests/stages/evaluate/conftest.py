"""What is judged, made once."""

from pathlib import Path

import pytest

from builders.small_truth import make_judged


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `make_judged`; what is there is only read, and more may be put beside it."""
    home = tmp_path_factory.mktemp("evaluate")
    make_judged(home)
    return home
