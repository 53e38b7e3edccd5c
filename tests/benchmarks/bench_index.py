"""Index at size: against a bare loop of the same work, its memory, its open files, and how fast done is seen.

Run: `PYTHONPATH=tests .venv/bin/python tests/benchmarks/bench_index.py [PICTURES]`
"""

import hashlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from maskmill.manifests.datasets.layouts import FolderSource
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.running.run import Outcome, run
from maskmill.stages.index.config import IndexConfig
from maskmill.stages.index.stage import STAGE

PAIRS = 7


def make_pictures(root: Path, count: int, side_px: int) -> Path:
    """JPEGs of noise, fifty different ones over and over."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(50):
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)).save(stream, "JPEG", quality=85)
        files.append(stream.getvalue())
    for number in range(count):
        path = root / f"class{number % 10}" / f"{number:07d}.jpg"
        if number < 10:
            path.parent.mkdir(parents=True)
        path.write_bytes(files[number % 50])
    return root


def bare_loop(root: Path) -> int:
    """What nobody can do without: open, read, hash, header."""
    count = 0
    for folder, _, names in os.walk(root):
        for name in names:
            with open(os.path.join(folder, name), "rb") as stream:
                data = stream.read()
            hashlib.sha256(data).hexdigest()
            with Image.open(io.BytesIO(data)) as picture:
                _ = picture.size, picture.mode, picture.getexif().get(274)
            count += 1
    return count


def index(root: Path, out: Path, trust: bool = False) -> Outcome:
    return run(STAGE, IndexConfig(source=FolderSource(root=str(root))), {}, str(out), RunOptions(trust=trust))


def seconds(function: Callable[..., object], *arguments: object) -> float:
    began = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - began


def paired(root: Path, work: Path) -> list[float]:
    """Rows per second of index over those of the bare loop, pair by pair."""
    bare_loop(root)  # the first reading warms the page cache for both
    outs = [work / f"pair{number}" for number in range(PAIRS)]
    return [seconds(bare_loop, root) / seconds(index, root, out) for out in outs]


@dataclass
class Child:
    """A `maskmill index` of its own process, as the operating system saw it while units ran."""

    peak_mb: float
    slope_mb: float  # of its memory over 10,000 rows, from a tenth of the rows on
    handles: str  # open files, fewest and most
    seconds: float


def watched(root: Path, out: Path) -> Child:
    began = time.perf_counter()
    command = [sys.executable, "-m", "maskmill", "index", "folder", str(root), "--out", str(out)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    samples: list[tuple[int, float, int]] = []
    while (ended := os.wait4(child.pid, os.WNOHANG))[0] == 0:
        units = len(list((out / "ledger").rglob("*.json")))
        if units:
            pages = int(Path(f"/proc/{child.pid}/statm").read_text().split()[1])
            files = len(os.listdir(f"/proc/{child.pid}/fd"))
            samples.append((units * 1024, pages * os.sysconf("SC_PAGE_SIZE") / 2**20, files))
        time.sleep(0.05)
    took = time.perf_counter() - began
    noted_N3 = np.array(samples[:-3])  # the last ones are of finishing, not of units
    late_N3 = noted_N3[noted_N3[:, 0] > noted_N3[:, 0].max() / 10]
    slope = np.polyfit(late_N3[:, 0], late_N3[:, 1], 1)[0] * 10_000
    handles = f"{late_N3[:, 2].min():.0f}–{late_N3[:, 2].max():.0f}"
    return Child(ended[2].ru_maxrss / 1024, float(slope), handles, took)


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        many = make_pictures(work / "many", count, 32)
        found = watched(many, work / "many_images")
        print(f"| {count:,} tiny rows: memory while units run | {found.slope_mb:.2f} MB more per 10,000 rows |")
        print(f"| … its peak, and open files after a unit | {found.peak_mb:.0f} MB, {found.handles} |")
        print(f"| … start to exit | {found.seconds:.1f} s |")
        few = make_pictures(work / "few", 10_000, 32)
        show("index / bare loop, 10,000 pictures of 32×32", paired(few, work / "tiny"))
        photos = make_pictures(work / "photos", 2_000, 400)
        show("index / bare loop, 2,000 pictures of 400×400", paired(photos, work / "large"))
        index(few, work / "done")
        for name, trust in (("with --trust", True), ("without", False)):
            times = [seconds(index, few, work / "done", trust) for _ in range(PAIRS)]
            print(f"| 10,000 finished rows seen to be done, {name} | {statistics.median(times):.2f} s |")


def show(name: str, ratios: list[float]) -> None:
    print(f"| {name} | {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}) |")


if __name__ == "__main__":
    print("| index | measured |\n|---|---|")
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
