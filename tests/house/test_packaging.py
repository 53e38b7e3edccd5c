"""What is installed is what is in the tree, each file is one module, and each dependency has a reason."""

import importlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from house.sources import ROOT, product, suite, tree_files

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def wheel_names(paths: Iterable[str]) -> set[str]:
    """Where the files of the tree that are installed stand in the wheel."""
    return {
        f"maskmill/{path}"
        for path in paths
        if path == "py.typed"
        or (path.endswith(".py") and not path.startswith("tests/"))
        or (path.endswith((".toml", ".sh")) and path.startswith("pipeline/recipes/"))
        or (path.endswith((".safetensors", ".md")) and path.startswith("stages/vision/builtin/"))
        or (path.endswith((".html", ".css", ".js")) and path.startswith("pipeline/report/"))
    }


def test_the_wheel_is_the_tree(tmp_path):
    """Built from a copy with one package that nobody listed, so that the comparison is seen to find it."""
    copy = tmp_path / "copy"
    for name in tree_files():
        if not (ROOT / name).is_dir():  # .types/maskmill links to the root itself
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
    (copy / "stages" / "unlisted").mkdir()
    (copy / "stages" / "unlisted" / "__init__.py").touch()

    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    built = subprocess.run([*command, "-w", tmp_path, copy], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = wheel.namelist()

    installed = {name for name in names if ".dist-info/" not in name}
    expected = wheel_names([*tree_files(), "stages/unlisted/__init__.py"])
    assert installed - expected == set()
    assert expected - installed == {"maskmill/stages/unlisted/__init__.py"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def doubled(modules: Mapping[str, str | None]) -> list[tuple[str, ...]]:
    """Files of the project that are more than one module; the root may be two, since pytest imports it by itself."""
    ours = {ROOT / name for name in tree_files()} - {ROOT / "__init__.py"}
    by_file: dict[Path, list[str]] = {}
    for name, file in modules.items():
        if file and Path(file).resolve() in ours:
            by_file.setdefault(Path(file).resolve(), []).append(name)
    return sorted(tuple(sorted(names)) for names in by_file.values() if len(names) > 1)


def test_each_file_is_one_module():
    """Under pytest, which has put tests/ on sys.path and imported the root as something else."""
    for file in product():
        if file.path not in ("__init__.py", "__main__.py"):
            importlib.import_module(
                "maskmill." + file.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            )
    loaded = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    assert sum(name.startswith("maskmill.") for name in loaded) > 20
    assert doubled(loaded) == []


def test_a_second_copy_is_seen():
    store = str(ROOT / "manifests" / "artifact" / "store.py")
    assert doubled({"maskmill.manifests.artifact.store": store, "manifests.artifact.store": store}) == [
        ("manifests.artifact.store", "maskmill.manifests.artifact.store")
    ]


def test_tests_are_no_package():
    assert [file.path for file in suite() if file.path.endswith("__init__.py")] == []


def test_only_the_package_itself_stands_at_the_root():
    assert {name for name in tree_files() if name.endswith(".py") and "/" not in name} == {"__init__.py", "__main__.py"}


def distribution(requirement: str) -> str:
    return re.split(r"[\s\[<>=!~;]", requirement)[0].lower()


def requirements() -> Iterator[str]:
    yield from PROJECT["dependencies"]
    for extra in PROJECT["optional-dependencies"].values():
        yield from extra


def test_no_dependency_is_pinned_from_above():
    assert [line for line in requirements() if re.search(r"<|==|~=|!=", line.partition(";")[0])] == []


def reasons(readme: str) -> dict[str, str]:
    """Distribution → reason, from the rows under a heading that says Dependencies; names may share a row."""
    found: dict[str, str] = {}
    inside = False
    for line in readme.splitlines():
        if line.startswith("#"):
            inside = "dependencies" in line.lower()
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if inside and line.lstrip().startswith("|") and len(cells) >= 2 and not set(cells[0]) <= set("-: "):
            found.update({distribution(name.replace("`", "").strip()): cells[-1] for name in cells[0].split(",")})
    return found


def test_every_dependency_has_its_reason_in_contributing():
    told = reasons((ROOT / "CONTRIBUTING.md").read_text())
    wanted = {distribution(line) for line in requirements()}
    assert sorted(name for name in wanted if not told.get(name)) == []


def test_a_dependency_without_a_row_or_a_reason_is_seen():
    rows = [
        "# A",
        "| zarr | elsewhere |",
        "## Dependencies",
        "| name | reason |",
        "|---|---|",
        "| `torch` ≥ 2.10 | runs |",
    ]
    assert reasons("\n".join([*rows, "| dask, click | |"])) == {
        "name": "reason",
        "torch": "runs",
        "dask": "",
        "click": "",
    }


@pytest.mark.parametrize(
    "arguments", [["-m", "maskmill", "--version"], ["-c", "import maskmill; print('maskmill', maskmill.__version__)"]]
)
def test_the_package_runs_from_any_directory(arguments, tmp_path):
    ran = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.fullmatch(r"maskmill \d+\.\d+\.\d+\n", ran.stdout)


def test_a_name_the_package_lacks_is_an_attribute_error():
    import maskmill

    assert "__version__" in dir(maskmill)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = maskmill.no_such_name
