"""Ratios of pairs that ran one right after the other: machines are noisy, and what disturbs one disturbs its pair."""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def seconds(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def ratios(over: Callable[[], object], under: Callable[[], object], pairs: int) -> list[float]:
    """Seconds of the one over seconds of the other, pair by pair, once both have been warmed up."""
    over()
    under()
    return [seconds(over) / seconds(under) for _ in range(pairs)]


def show(name: str, values: Sequence[float], unit: str = "") -> None:
    print(f"| {name} | {statistics.median(values):.2f}{unit} ({min(values):.2f}–{max(values):.2f}) |", flush=True)


def write_photos(root: Path, count: int, size: tuple[int, int] = (375, 500)) -> Path:
    """Smooth JPEGs of a photograph's size and bytes, in two classes."""
    for number in range(count):
        coarse = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        path = root / ("cat", "dog")[number % 2] / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC).save(path, quality=90)
    return root
