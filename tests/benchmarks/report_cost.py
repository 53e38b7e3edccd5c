"""What `maskmill report` costs: seconds, the file's size and the peak of memory, over a run of ROWS pictures and of a
tenth of them; beside it what its imports cost alone.

The run is a recipe of every stage but training, with a backbone that knows nothing, over pictures of 320×240 pixels
(20 kB). Making it takes longer than the report, some 0.1 s a picture; what WORK holds already is not made again.

Run: `PYTHONPATH=tests .venv/bin/python tests/benchmarks/report_cost.py [ROWS] [WORK]`
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (240, 320)
CLASSES = 20
RECIPE = """
title = "{count:,} pictures"
[index]
layout = "folder"
root = "pictures"
masks = "masks"
[extract]
backbone = "test_vit.r160_in1k"
weights = "random:0"
image_size = 64
[mask]
supports = 0
[refine]
threshold = 0.5
[manifest]
min_score = "area>=0.02"
"""
IMPORTS = "import maskmill.pipeline.report.page"


def make_pictures(home: Path, count: int) -> None:
    """Blotches and noise, and a block in each that is its mask."""
    rng = np.random.default_rng(0)
    for number in range(count):
        name = f"class{number % CLASSES:02d}/{number:05d}"
        coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        picture_HW3 = np.asarray(Image.fromarray(coarse).resize((SIZE[1], SIZE[0]))).astype(np.int16)
        mask_HW = np.zeros(SIZE, np.uint8)
        top, left = rng.integers(0, 120), rng.integers(0, 160)
        mask_HW[top : top + 100, left : left + 120] = 255
        picture_HW3[mask_HW > 0] //= 2
        noisy = np.clip(picture_HW3 + rng.integers(-10, 11, picture_HW3.shape), 0, 255).astype(np.uint8)
        for folder, pixels, suffix in (("pictures", noisy, "jpg"), ("masks", mask_HW, "png")):
            path = home / folder / f"{name}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


def make_run(home: Path, count: int) -> Path:
    if not (home / "recipe.toml").exists():
        make_pictures(home, count)
        (home / "recipe.toml").write_text(RECIPE.format(count=count))
    command = [sys.executable, "-m", "maskmill", "run", str(home / "recipe.toml"), "--work", str(home / "work")]
    ended = subprocess.run(command, stdout=subprocess.DEVNULL)
    assert ended.returncode in (0, 6), ended.returncode
    return home / "work"


def measured(*command: str) -> tuple[float, float, str]:
    """Seconds, the peak of memory in MB, and what it printed."""
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, process.returncode
    return time.monotonic() - began, usage.ru_maxrss / 1000, printed


def report(work: Path, out: Path) -> tuple[float, float, dict[str, Any]]:
    command = [sys.executable, "-m", "maskmill", "report", str(work), "--out", str(out), "--json"]
    seconds, peak_mb, printed = measured(*command)
    return seconds, peak_mb, json.loads(printed)


def main(rows: int, home: Path) -> None:
    print("| report over | shown | start to exit | file | peak of memory |\n|---|---|---|---|---|")
    seconds, peak_mb, _ = measured(sys.executable, "-c", IMPORTS)
    print(f"| nothing: its imports | – | {seconds:.1f} s | – | {peak_mb:.0f} MB |", flush=True)
    for count in (rows // 10, rows):
        folder = home / str(count)
        folder.mkdir(parents=True, exist_ok=True)
        seconds, peak_mb, found = report(make_run(folder, count), folder / "report.html")
        line = f"{found['pictures']:,} rows | {found['shown']} | {seconds:.1f} s | {found['bytes'] / 1e6:.1f} MB"
        print(f"| {line} | {peak_mb:.0f} MB |", flush=True)


if __name__ == "__main__":
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    if len(sys.argv) > 2:
        main(rows, Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory(prefix="maskmill-bench-") as temporary:
            main(rows, Path(temporary))
