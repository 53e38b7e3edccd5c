"""What every test may ask for."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# On a busy machine a deadline measures the neighbours, and a failure must be there again at the next run.
settings.register_profile("maskmill", deadline=None, derandomize=True)
settings.load_profile("maskmill")


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of reference data, which is not part of the project; without it the test is skipped."""
    found = os.environ.get("MASKMILL_REFERENCE")
    if not found:
        pytest.skip("MASKMILL_REFERENCE does not name the folder of reference data")
    return Path(found)
