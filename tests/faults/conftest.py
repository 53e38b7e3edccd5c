"""Inputs made once, and the artifact of an undisturbed run, for each stage."""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from faults.cases import CASES, Subject, removed, subject_of

MEMORY = Path("/dev/shm")  # thousands of small files, each synced: a disk would spend the time, and show no more


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks as slow what a case leaves to the slow tier."""
    for item in items:
        case = getattr(item, "callspec", None) and item.callspec.params.get("subject")  # type: ignore[attr-defined]
        if isinstance(item, pytest.Function) and case in CASES and CASES[case].leaves(item.originalname):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path_factory.mktemp("faults")
        return
    with TemporaryDirectory(prefix="maskmill-faults-", dir=MEMORY) as path:
        yield Path(path)


@pytest.fixture(scope="session", params=list(CASES))
def subject(request: pytest.FixtureRequest, workplace: Path) -> Subject:
    """A stage; the reference and the inputs are only read."""
    return subject_of(CASES[request.param], workplace / request.param)


@pytest.fixture
def out(subject: Subject) -> Iterator[Path]:
    """A path for one more output beside the reference; gone after the test."""
    path = subject.home.new_out()
    yield path
    removed(path)


@pytest.fixture
def place(workplace: Path) -> Iterator[Path]:
    """An empty directory where pictures and inputs can be changed; gone after the test."""
    with TemporaryDirectory(dir=workplace) as path:
        yield Path(path)
