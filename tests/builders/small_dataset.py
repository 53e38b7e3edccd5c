"""Small pictures on disk for tests that need a dataset: real files of two classes, the same at every call."""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image


def write_picture(path: Path, seed: int, size: tuple[int, int] = (20, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    pixels_HW3 = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels_HW3).save(path)


def write_mask(path: Path, seed: int, size: tuple[int, int] = (20, 16), value: int = 255) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    inside_HW = np.random.default_rng(seed).random((height, width)) < 0.4
    Image.fromarray(np.where(inside_HW, value, 0).astype(np.uint8)).save(path)


def write_dataset(root: Path, count: int = 10, masks: bool = False) -> Path:
    """`count` pictures `cat/0.png`, `dog/1.png`, …; with masks beside them in `root/../masks` if wanted."""
    for number in range(count):
        name = f"{('cat', 'dog')[number % 2]}/{number}"
        write_picture(root / f"{name}.png", number, (20 + number, 16))
        if masks:
            write_mask(root.parent / "masks" / f"{name}.png", number, (20 + number, 16))
    return root


def tree(root: Path) -> dict[str, str]:
    """Every file below a directory with its sha256, but for the log and the lock."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != ".lock" and path.relative_to(root).parts[0] != "log"
    }
