"""Imports run down: cli → pipeline → stages → manifests. Never up, never from one stage into another."""

from collections.abc import Iterator

import pytest

from house.sources import FLOORS, Source, imports, product, source

SHARED = {"vision", "maps", "learning", "scores", "students"}  # what several stages see, learn and judge with
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "managers", "handler", "handlers"}


def floor_faults(file: Source) -> Iterator[str]:
    own = FLOORS.index(file.package[0]) if file.package else -1  # the root stands above every floor
    for name in imports(file):
        floor, *inner = name.removeprefix(".").split(".")
        if not name.startswith(".") or floor not in FLOORS:
            continue
        if FLOORS.index(floor) < own:
            yield f"{file.path} imports {name}, which is above it"
        if floor == "stages" and inner and file.package[:1] == ("stages",):
            yield from _sideways(file, name, inner[0])


def _sideways(file: Source, name: str, target: str) -> Iterator[str]:
    """A stage's folder may see itself, the shared folders, and the modules that stand beside the folders."""
    folders = {other.package[1] for other in product() if other.package[:1] == ("stages",) and len(other.package) > 1}
    if len(file.package) > 1 and target in folders - SHARED - {file.package[1]}:
        yield f"{file.path} imports {name}, which is another stage"


def root_faults(file: Source) -> Iterator[str]:
    """An absolute import of ourselves gives a second copy of every class, or works in one of the tools only."""
    for name in imports(file):
        first = name.partition(".")[0]
        if first in ("maskmill", "tests", *FLOORS):
            yield f"{file.path} imports {name}; inside the package imports are relative"


def click_faults(file: Source) -> Iterator[str]:
    if file.package[:1] != ("cli",):
        yield from (f"{file.path} imports {name}" for name in imports(file) if name.partition(".")[0] == "click")


def zarr_faults(file: Source) -> Iterator[str]:
    if file.path != "manifests/artifact/store.py":
        yield from (f"{file.path} imports {name}" for name in imports(file) if name.partition(".")[0] == "zarr")


def name_faults(file: Source) -> Iterator[str]:
    for part in file.path.removesuffix(".py").split("/"):
        if part.strip("_") in FORBIDDEN_NAMES:
            yield f"{file.path}: {part!r} says nothing about what it holds"


def future_faults(file: Source) -> Iterator[str]:
    """It turns annotations into strings, which jaxtyping cannot check."""
    if "__future__.annotations" in imports(file):
        yield f"{file.path} postpones annotations"


RULES = [floor_faults, root_faults, click_faults, zarr_faults, name_faults, future_faults]


@pytest.mark.parametrize("rule", RULES)
def test_the_tree_keeps(rule):
    assert len(product()) > 20  # a rule that looks at nothing is kept by everything
    assert [fault for file in product() for fault in rule(file)] == []


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (floor_faults, "manifests/files/rows.py", "from ...stages.stage import Stage"),
        (floor_faults, "manifests/datasets/voc.py", "from ...pipeline import running"),
        (floor_faults, "pipeline/running/job.py", "from ... import cli"),
        (floor_faults, "stages/index/stage.py", "def late():\n    from ...pipeline.running.units import run"),
        (floor_faults, "stages/mask/stage.py", "from ..index.stage import STAGE"),
        (floor_faults, "stages/mask/stage.py", "from .. import index"),
        (floor_faults, "stages/vision/backbone.py", "from ..index import stage"),
        (root_faults, "pipeline/running/job.py", "import maskmill.manifests.artifact.store"),
        (root_faults, "pipeline/running/job.py", "from maskmill import manifests"),
        (root_faults, "pipeline/running/job.py", "import manifests.artifact.store"),
        (root_faults, "__init__.py", "from cli.main import main"),
        (click_faults, "pipeline/running/job.py", "import click"),
        (zarr_faults, "manifests/files/rows.py", "def read():\n    from zarr.storage import LocalStore"),
        (zarr_faults, "stages/index/stage.py", "import zarr as z"),
        (name_faults, "pipeline/utils.py", ""),
        (name_faults, "stages/common/thing.py", ""),
        (future_faults, "pipeline/running/job.py", "from __future__ import annotations"),
    ],
)
def test_a_broken_rule_is_seen(rule, path, text):
    assert list(rule(source(path, text)))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "cli/plan.py",
            "import click\nfrom ..pipeline.running.planning import plan\nfrom ..manifests.errors import InputError",
        ),
        (
            "stages/index/stage.py",
            "from ..stage import Stage\nfrom ..vision.resizing import fit\nfrom .reading import read",
        ),
        ("stages/vision/backbone.py", "from ..maps import cst\nimport timm"),
        ("stages/__init__.py", "from .index.stage import STAGE"),
        ("manifests/artifact/store.py", "import zarr\nfrom ..files.place import Place\nfrom ..files import atomic"),
        ("manifests/datasets/voc.py", "from ..errors import InputError\nfrom .listing import Listing"),
        ("__main__.py", "from .cli.main import main"),
    ],
)
def test_a_kept_rule_is_not_blamed(path, text):
    assert [fault for rule in RULES for fault in rule(source(path, text))] == []
