"""What masks of each method and refiner are worth on three small sets of real pictures, and what they cost.

Quality has intervals and floors. Cost is the CPU time of the stage's command per picture, of all its threads, less that
of the same command once there is nothing left to do (start-up and checks), and the most memory that its process held.

Takes half an hour on two cores, most of it the CRF. Run:
`MASKMILL_REFERENCE=… .venv/bin/python tests/benchmarks/masks_worth.py WORK [BACKBONE] [WEIGHTS] [SIZE]`
What WORK holds already is not made again.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from maskmill.cli.main import main as maskmill
from maskmill.manifests.artifact.artifact import open_artifact

REFERENCE = Path(os.environ["MASKMILL_REFERENCE"]) / "data"
INDEX = {
    "voc-mini": [
        "voc",
        REFERENCE / "voc-mini",
        "--split",
        "train",
        "--masks",
        "SegmentationClass",
        "--labels-from",
        "masks",
    ],
    "coco-mini": ["coco", REFERENCE / "coco-mini" / "images", REFERENCE / "coco-mini" / "annotations/instances.json"],
    "caltech-outlines": [
        *("folder", REFERENCE / "caltech-outlines" / "images", "--masks", REFERENCE / "caltech-outlines" / "masks")
    ],
}
COARSE = ("caltech-outlines",)  # polygons by hand: no boundary F there
METHODS = {
    "cst, supports 0": ["--method", "cst", "--supports", "0"],
    "cst, supports 8": ["--method", "cst", "--supports", "8"],
    "cls-attention": ["--method", "cls-attention"],
    "ncut": ["--method", "ncut"],
    "maskcut, 3 instances": ["--method", "maskcut", "--instances", "3"],
}
REFINED = ("cst, supports 8", "ncut")  # by every refiner
REFINERS = {
    "none": ["--refiner", "none"],
    "crf (weaktr-cam-voc)": ["--refiner", "crf", "--preset", "weaktr-cam-voc"],
    "par (toco)": ["--refiner", "par", "--preset", "toco"],
    "guided (15,0.001)": ["--refiner", "guided", "--preset", "15,0.001"],
}
FIELDS = "keys,cls_query,cls_attention:last"


@dataclass(frozen=True)
class Cost:
    seconds: float  # of CPU time, less those of start-up
    peak_mb: float


def run(*arguments: object) -> None:
    code = maskmill([str(argument) for argument in arguments])
    if code not in (0, 6):
        sys.exit(code)


def timed(*arguments: object) -> tuple[float, float]:
    """CPU seconds and peak memory of a command."""
    process = subprocess.Popen([sys.executable, "-m", "maskmill", *map(str, arguments)], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) not in (0, 6):
        sys.exit(f"{arguments[0]} ended with {os.waitstatus_to_exitcode(status)}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def costed(out: Path, *arguments: object) -> Cost:
    """Runs a stage and says what it took; kept beside its artifact."""
    kept = out.with_name(f"{out.name}-cost.json")
    if not kept.exists():
        seconds, peak_mb = timed(*arguments, "--out", out)
        idle, _ = timed(*arguments, "--out", out)
        kept.write_text(json.dumps(asdict(Cost(seconds - idle, peak_mb))))
    return Cost(**json.loads(kept.read_text()))


def judged(work: Path, name: str, labels: Path) -> dict[str, object]:
    out = labels.with_name(f"{labels.name}-metrics")
    boundary = "--no-boundary" if name in COARSE else "--boundary"
    run("evaluate", "masks", labels, boundary, "--out", out)
    metrics: dict[str, object] = json.loads(open_artifact(str(out), "metrics").file("metrics.json"))
    return metrics


def lines(work: Path, name: str, extract: list[str]) -> Iterator[str]:
    home = work / name
    run("index", *INDEX[name], "--out", home / "images")
    count = open_artifact(str(home / "images"), "images").rows(["id"]).num_rows
    cost = costed(home / "tokens", "extract", home / "images", *extract, "--fields", FIELDS)
    yield f"| {name} | (extract) | – | – | – | {told(cost, count)} |"
    metrics: dict[str, object] = {}
    for number, (method, options) in enumerate(METHODS.items()):
        maps = home / f"maps-{number}"
        cost = costed(maps, "mask", home / "tokens", *options)
        yield f"| {name} | {method} | – | – | – | {told(cost, count)} |"
        for other, (refiner, chosen) in enumerate(REFINERS.items()):
            if other and method not in REFINED:
                continue
            labels = home / f"labels-{number}-{other}"
            cost = costed(labels, "refine", maps, *chosen)
            metrics = judged(work, name, labels)
            found = shown(name, f"… {refiner}", metrics["results"][0])  # type: ignore[index]
            yield f"{found} {told(cost, count)} |"
    for floor in metrics["results"][-2:]:  # type: ignore[index]
        yield f"{shown(name, floor['name'], floor)} – | – |"


def told(cost: Cost, count: int) -> str:
    return f"{1000 * cost.seconds / count:.1f} | {cost.peak_mb:.0f}"


def shown(name: str, what: str, line: dict[str, dict[str, float]]) -> str:
    found = [line.get(key) for key in ("miou", "miou_foreground", "boundary_f")]
    cells = [f"{each['estimate']:.3f} ({each['low']:.3f}–{each['high']:.3f})" if each else "–" for each in found]
    return f"| {name} | {what} | {' | '.join(cells)} |"


def study(work: Path, backbone: str, weights: str, size: str) -> None:
    extract = ["--backbone", backbone, "--weights", weights, "--image-size", size]
    rows = [row for name in INDEX for row in lines(work, name, extract)]
    print(f"backbone {backbone}, weights {weights or 'its own'}, {size} px")
    print("| set | masks | mIoU | mIoU without background | boundary F | CPU ms a picture | peak MB |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    given = [*sys.argv[2:], *["builtin", "", "128"][len(sys.argv) - 2 :]]
    study(Path(sys.argv[1]), *given)
