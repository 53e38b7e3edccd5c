"""What every test may ask for."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from maskmill.stages.vision.summation import fix_summation_order

# On a busy machine a deadline measures the neighbours, and a failure must be there again at the next run.
settings.register_profile("thorough", deadline=None, derandomize=True)  # of `make test-all`
settings.register_profile("quick", settings.get_profile("thorough"), max_examples=30)
settings.load_profile("quick")

# Where each worker has about a core of its own, threads that wait for one another only take it from the neighbour.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# One process computes for many tests, and MKL reads this before the first of them.
fix_summation_order()

# A shell lets what it starts in the background ignore Ctrl-C, and every program started from here would, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


SLOW_LIMIT_S = 3600  # a limit is there for hangs: on a busy machine, a slow test takes longer than the limit of others


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(SLOW_LIMIT_S))


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of reference data, which is not part of the project; without it the test is skipped."""
    found = os.environ.get("MASKMILL_REFERENCE")
    if not found:
        pytest.skip("MASKMILL_REFERENCE does not name the folder of reference data")
    return Path(found)
