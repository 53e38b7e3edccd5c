"""Small dataset trees."""

import io
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest

Tree = Callable[..., str]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Writes files (name → text) below a new folder and gives its path."""

    def write(files: Mapping[str, str] | Iterable[str], under: str = "data") -> str:
        for name, text in (files if isinstance(files, Mapping) else dict.fromkeys(files, "")).items():
            path = tmp_path / under / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return str(tmp_path / under)

    return write


@pytest.fixture
def tar(tmp_path: Path) -> Tree:
    """Packs members (in the order given; a name may be repeated) and gives the tar's path."""

    def pack(names: Iterable[str], at: str = "data.tar", mode: str = "w:") -> str:
        path = tmp_path / at
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
            for name in names:
                member = tarfile.TarInfo(name)
                content = name.encode()
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return str(path)

    return pack
