"""The dataset that every format is tried on, made once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from builders.small_export import make_dataset
from maskmill.manifests.exports.run import Exported, export_dataset


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("export")
    make_dataset(home)
    return home


@pytest.fixture(scope="session")
def exported(home: Path) -> Callable[[str], tuple[Path, Exported]]:
    """The dataset in a format, which is written once and only read; where, and what was said of it."""
    found: dict[str, Exported] = {}

    def write(name: str) -> tuple[Path, Exported]:
        if name not in found:
            found[name] = export_dataset(str(home / "dataset"), name, str(home / name), None, False)
        return home / name, found[name]

    return write
