"""A folder with small pictures and their index, and room for what is made of them beside it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from PIL import Image

from builders import small_runs
from builders.small_dataset import write_picture


@dataclass(frozen=True, slots=True)
class PictureFolder:
    home: Path
    _numbers: Iterator[int] = field(default_factory=count)

    @property
    def pictures(self) -> Path:
        return self.home / "pictures"

    @property
    def images(self) -> Path:
        return self.home / "images"

    def index(self) -> None:
        small_runs.index(self.pictures, self.images)

    def new_out(self) -> Path:
        return self.home / f"out-{next(self._numbers)}"

    def ids(self) -> list[str]:
        return sorted(
            path.relative_to(self.pictures).with_suffix("").as_posix() for path in self.pictures.rglob("*.png")
        )

    def spoil(self) -> dict[str, str]:
        """One that is broken before `index`, one cut short behind its header, one changed since, one gone: why each
        fails."""
        (self.pictures / "cat/0.png").write_bytes(b"no picture")
        cut = self.pictures / "cat/4.png"
        Image.open(cut).save(cut, "JPEG")  # what a picture is shows in its bytes and not in its name
        cut.write_bytes(cut.read_bytes()[:-200])
        self.index()
        write_picture(self.pictures / "dog/3.png", 99)
        (self.pictures / "dog/7.png").unlink()
        return {"cat/0": "undecodable", "cat/4": "truncated", "dog/3": "changed", "dog/7": "missing"}
