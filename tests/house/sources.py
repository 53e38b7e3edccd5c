"""The product's source files as the house tests see them: parsed, and named by their path in the package."""

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FLOORS = ("cli", "pipeline", "stages", "manifests")  # imports run down, from left to right


@dataclass(frozen=True, slots=True)
class Source:
    """One file: `path` is relative to the root, such as `stages/index/stage.py`."""

    path: str
    tree: ast.Module

    @property
    def package(self) -> tuple[str, ...]:
        """The package that its relative imports start from: ("stages", "index")."""
        return tuple(self.path.split("/")[:-1])

    def calls(self) -> Iterator[ast.Call]:
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.Call))


def source(path: str, text: str) -> Source:
    """A made-up file, to show that a rule catches what it forbids."""
    return Source(path, ast.parse(text))


@cache
def tree_files() -> tuple[str, ...]:
    """Every file that git tracks or would add, as paths from the root."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return tuple(sorted(name for name in set(listed.stdout.split("\0")) if name and (ROOT / name).is_file()))


@cache
def product() -> tuple[Source, ...]:
    """Every Python file that users install."""
    return tuple(_parsed(name) for name in tree_files() if name.endswith(".py") and not name.startswith("tests/"))


@cache
def suite() -> tuple[Source, ...]:
    return tuple(_parsed(name) for name in tree_files() if name.endswith(".py") and name.startswith("tests/"))


def _parsed(name: str) -> Source:
    return Source(name, ast.parse((ROOT / name).read_bytes(), name))


def imports(file: Source) -> Iterator[str]:
    """What a file imports, with every relative import resolved: `.manifests.store` is ours, `torch.nn` is not.

    `from .x import y` gives both `.x` and `.x.y`, since only running it would tell whether y is a module.
    """
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                outer = file.package[: len(file.package) - node.level + 1]
                base = "." + ".".join([*outer, *([base] if base else [])])
            yield base
            yield from (f"{base.rstrip('.')}.{alias.name}" for alias in node.names)


def names_of(file: Source) -> dict[str, str]:
    """Local name → what it stands for, after `import a.b as c` and `from a import b as c`."""
    known: dict[str, str] = {}
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                known[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return known


def full_name(node: ast.expr, known: dict[str, str]) -> str:
    """What an expression such as `np.save` stands for: "numpy.save"; "?.save" where the object is a value."""
    if isinstance(node, ast.Name):
        return known.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{full_name(node.value, known)}.{node.attr}"
    return "?"
