"""What masks of each method and refiner are worth on three small sets of real pictures, and what they cost.

Quality has intervals and floors. The gain of a refiner is its mIoU less that of the same maps without refining, with a
95 % interval over pairs of the same pictures. Cost is the CPU time of the stage's command per picture, of all its
threads, less that of the same command once there is nothing left to do (start-up and checks), and the most memory that
its process held. It is not known (–) of an artifact that was put into WORK ready made.

Takes half an hour on two cores, most of it the CRF. Run:
`MASKMILL_REFERENCE=… .venv/bin/python tests/benchmarks/masks_worth.py WORK [BACKBONE] [WEIGHTS] [SIZE]`
What WORK holds already is not made again. real_backbone.py prints the same table of a real ViT-S/14.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from maskmill.cli.main import main as maskmill
from maskmill.manifests.artifact.artifact import ARTIFACT, open_artifact
from maskmill.stages.evaluate.config import EvaluateConfig
from maskmill.stages.evaluate.judging import ScoringOptions
from maskmill.stages.evaluate.stage import score_predictions
from maskmill.stages.scores.intervals import difference_interval
from maskmill.stages.scores.iou import Counts, mean_iou
from maskmill.stages.scores.truth import GroundTruth

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
NONE = "none"


@dataclass(frozen=True)
class Method:
    """A line of the table: options of `mask`, and those of `fit` for a method that is fitted first."""

    mask: Sequence[str]
    fit: Sequence[str] = ()


METHODS: Mapping[str, Method] = {
    "cst, supports 0": Method(["--method", "cst", "--supports", "0"]),
    "cst, supports 8": Method(["--method", "cst", "--supports", "8"]),
    "cst, supports 8, propagate 0.8": Method(["--method", "cst", "--supports", "8", "--propagate", "0.8"]),
    "cls-attention": Method(["--method", "cls-attention"]),
    "ncut": Method(["--method", "ncut"]),
    "ncut, propagate 0.8": Method(["--method", "ncut", "--propagate", "0.8"]),
    "maskcut, 3 instances": Method(["--method", "maskcut", "--instances", "3"]),
    "found": Method(["--method", "found"], ["--method", "found"]),
    "incontext, 1 mask a class": Method(["--method", "incontext"], ["--method", "incontext", "--gt-per-class", "1"]),
    "incontext, 5 masks a class": Method(["--method", "incontext"], ["--method", "incontext", "--gt-per-class", "5"]),
}
REFINED = ("cst, supports 8", "ncut")  # by every refiner
REFINERS: Mapping[str, Sequence[str]] = {
    NONE: ["--refiner", "none"],
    "crf (weaktr-cam-voc)": ["--refiner", "crf", "--preset", "weaktr-cam-voc"],
    "par (toco)": ["--refiner", "par", "--preset", "toco"],
    "guided (15,0.001)": ["--refiner", "guided", "--preset", "15,0.001"],
    "jbu (1.0,0.2)": ["--refiner", "jbu", "--preset", "1.0,0.2"],
}
FIELDS = "keys,cls_query,cls_attention:last"
COLUMNS = (
    *("set", "masks", "pictures", "mIoU", "gain over none", "mIoU without background", "boundary F"),
    *("CPU s per picture", "peak MB"),
)
SCORES = ("miou", "miou_foreground", "boundary_f")
Scores = Mapping[str, Any]
# A small process between this one and the command: Linux counts the memory of the process that starts another one as
# that one's peak.
LAUNCHER = """
import json, resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([code, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
"""


@dataclass(frozen=True)
class Study:
    """What is made and scored of one backbone; `refined` are the methods whose maps go through every refiner."""

    work: Path
    extract: Sequence[str]
    sets: Sequence[str] = tuple(INDEX)
    methods: Sequence[str] = tuple(METHODS)
    refiners: Sequence[str] = tuple(REFINERS)
    refined: Sequence[str] = REFINED


@dataclass(frozen=True)
class Cost:
    seconds: float  # of CPU time, less those of start-up
    peak_mb: float


# ------------------------------------------------------------------------------------------------ what is made once


def run(*arguments: object) -> None:
    with redirect_stdout(sys.stderr):
        code = maskmill([str(argument) for argument in arguments])
    if code not in (0, 6):
        sys.exit(code)


def time_command(*arguments: object) -> tuple[float, float]:
    """CPU seconds and peak memory of a command."""
    command = [sys.executable, "-m", "maskmill", *map(str, arguments)]
    answer = subprocess.run([sys.executable, "-c", LAUNCHER, *command], stdout=subprocess.PIPE, check=True).stdout
    code, seconds, peak_mb = json.loads(answer)
    if code not in (0, 6):
        sys.exit(f"{arguments[0]} ended with {code}")
    return seconds, peak_mb


def measure_cost(out: Path, *arguments: object) -> Cost | None:
    """Runs a stage and says what it took; kept beside its artifact. None if the artifact came ready made."""
    kept = out.with_name(f"{out.name}-cost.json")
    if not kept.exists():
        if (out / ARTIFACT).exists():
            run(*arguments, "--out", out)  # which refuses what was made with other options
            return None
        seconds, peak_mb = time_command(*arguments, "--out", out)
        idle, _ = time_command(*arguments, "--out", out)
        kept.write_text(json.dumps(asdict(Cost(seconds - idle, peak_mb))))
    return Cost(**json.loads(kept.read_text()))


def score_labels(name: str, labels: Path) -> Scores:
    out = labels.with_name(f"{labels.name}-metrics")
    boundary = "--no-boundary" if name in COARSE else "--boundary"
    run("evaluate", "masks", labels, boundary, "--out", out)
    metrics: Scores = json.loads(open_artifact(str(out), "metrics").file("metrics.json"))
    return metrics


def gain(home: Path, plain: Path, labels: Path) -> Scores:
    """How much the mIoU of the labels is above that of the plain ones; kept beside them."""
    kept = labels.with_name(f"{labels.name}-gain.json")
    if not kept.exists():
        before, after = (count_pixels(home / "images", each) for each in (plain, labels))
        miou = partial(mean_iou, with_background=True)
        difference = difference_interval(list(before.values()), [after[each] for each in before], miou)
        kept.write_text(json.dumps(difference.as_json()))
    found: Scores = json.loads(kept.read_text())
    return found


@cache
def count_pixels(images: Path, labels: Path) -> Mapping[str, Counts]:
    """Of each picture that `evaluate masks` scores, by id."""
    truth, predicted = open_artifact(str(images)), open_artifact(str(labels))
    view = ScoringOptions(class_agnostic=False, boundary=False, sweep=False)
    pictures, _ = score_predictions(EvaluateConfig(boundary=False), predicted, truth, GroundTruth(truth), view)
    return {picture.id: picture.counts for picture in pictures}


# ------------------------------------------------------------------------------------------------------- the table


def lines(study: Study, name: str) -> Iterator[str]:
    home = study.work / name
    run("index", *INDEX[name], "--out", home / "images")
    count = open_artifact(str(home / "images"), "images").rows(["id"]).num_rows
    yield cost_line(name, "(extract)", measure_cost(home / "tokens", "extract", home / "images", *study.extract), count)
    floors: dict[int, Sequence[Scores]] = {}  # by the pictures that they are scored on
    for method in study.methods:
        yield from method_lines(study, home, method, count, floors)
    for pictures, found in floors.items():
        for floor in found:
            yield f"{row(name, floor['name'], pictures, floor, None)} – | – |"


def method_lines(
    study: Study, home: Path, method: str, count: int, floors: dict[int, Sequence[Scores]]
) -> Iterator[str]:
    """What the maps cost, then their labels by every refiner; notes the floors of the pictures they are scored on."""
    name, maps, asked = home.name, home / f"maps-{slug(method)}", METHODS[method]
    model: Sequence[object] = ()
    if asked.fit:
        checkpoint = home / f"fit-{slug(method)}"
        yield cost_line(name, f"{method} (fit)", measure_cost(checkpoint, "fit", home / "tokens", *asked.fit), count)
        model = ["--model", checkpoint]
    yield cost_line(name, method, measure_cost(maps, "mask", home / "tokens", *asked.mask, *model), count)
    plain = home / f"labels-{slug(method)}-{NONE}"
    for refiner in [NONE, *(each for each in study.refiners if each != NONE and method in study.refined)]:
        labels = home / f"labels-{slug(method)}-{slug(refiner)}"
        cost = measure_cost(labels, "refine", maps, *REFINERS[refiner])
        first, *_, all_foreground, ellipse = score_labels(name, labels)["results"]
        floors[first["pictures"]] = all_foreground, ellipse
        gained = None if refiner == NONE else gain(home, plain, labels)
        yield f"{row(name, f'… {refiner}', first['pictures'], first, gained)} {cost_cells(cost, count)} |"


def slug(text: str) -> str:
    return "-".join(re.findall(r"[\w.]+", text))


def cost_line(name: str, what: str, cost: Cost | None, count: int) -> str:
    return f"| {name} | {what} |{' – |' * (len(COLUMNS) - 4)} {cost_cells(cost, count)} |"


def cost_cells(cost: Cost | None, count: int) -> str:
    return f"{cost.seconds / count:.4f} | {cost.peak_mb:.0f}" if cost else "– | –"


def row(name: str, what: str, pictures: int, line: Scores, gained: Scores | None) -> str:
    """Up to the cost."""
    miou, *others = (cell(line.get(key)) for key in SCORES)
    return f"| {name} | {what} | {pictures} | {' | '.join([miou, cell(gained, '+.3f'), *others])} |"


def cell(found: Scores | None, form: str = ".3f") -> str:
    if not found:
        return "–"
    estimate, low, high = (format(found[key], form) for key in ("estimate", "low", "high"))
    return f"{estimate} ({low} to {high})" if "+" in form else f"{estimate} ({low}–{high})"


def print_table(study: Study) -> None:
    """Each line when it is known."""
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    for name in study.sets:
        for line in lines(study, name):
            print(line, flush=True)


def main(work: Path, backbone: str, weights: str, size: str) -> None:
    print(f"backbone {backbone}, weights {weights or 'its own'}, {size} px\n")
    extract = ["--backbone", backbone, "--weights", weights, "--image-size", size, "--fields", FIELDS]
    print_table(Study(work, extract))


if __name__ == "__main__":
    given = [*sys.argv[2:], *["builtin", "", "128"][len(sys.argv) - 2 :]]
    main(Path(sys.argv[1]), *given)
