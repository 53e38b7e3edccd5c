"""Ground truth for the pictures of small_labels, and what maps, labels and datasets of them are said to be worth."""

import io
import json
from collections import Counter
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from PIL import Image

from builders.configs import make_config
from builders.small_labels import BROKEN, LABELS, MAPS, OPTIONS, TURNED, MapsConfig, make_labels
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.datasets.layouts import TableSource
from maskmill.manifests.pictures.palette import encode_label_map
from maskmill.pipeline.running.run import run
from maskmill.pipeline.running.whole import run_whole
from maskmill.stages.evaluate.config import EvaluateConfig
from maskmill.stages.evaluate.stage import STAGE as EVALUATE
from maskmill.stages.index.config import IndexConfig
from maskmill.stages.index.stage import STAGE as INDEX
from maskmill.stages.refine.config import RefineConfig
from maskmill.stages.refine.stage import STAGE as REFINE

Pairs = dict[str, tuple[np.ndarray, np.ndarray]]  # id → its truth, and what was said of it

WITHOUT_LABEL = "p3"
ALL, KEPT, DECIDED = "all rows, what is missing as background", "kept rows", "kept rows, undecided pixels left out"
FLOORS = ("all foreground", "best fixed ellipse, fitted on other classes")
_NUMBERS = count()


def true_mask(identifier: str) -> np.ndarray:
    """Two classes where the picture shows two, a dog where nobody says what it shows, and a strip left open."""
    height, labels = 24 + list(LABELS).index(identifier), LABELS[identifier]
    label_HW = np.zeros((40, height) if identifier == TURNED else (height, 40), np.uint8)
    label_HW[2:15, 4:20] = 1 if "cat" in labels else 2
    if "dog" in labels:
        label_HW[13:20, 9:23] = 2
    label_HW[2:15, 4:6] = 255
    return label_HW


TRUTH = {identifier: true_mask(identifier) for identifier in LABELS}


def make_judged(home: Path) -> None:
    """Maps and labels, by class and of objects; as `truth` all pictures, the one that was broken for them included."""
    make_labels(home)
    images = {"images": str(home / "images")}
    run(MAPS, MapsConfig(by_class=False), images, str(home / "objects"), OPTIONS)
    run(
        REFINE,
        make_config(RefineConfig),
        {"maps": str(home / "objects"), **images},
        str(home / "object-labels"),
        OPTIONS,
    )
    height, width = TRUTH[BROKEN].shape
    Image.new("RGB", (width, height)).save(home / "pictures" / f"{BROKEN}.jpg")
    index_truth(home, "truth", TRUTH)


def index_truth(
    home: Path, out: str, masks: Mapping[str, np.ndarray], classes: tuple[str, ...] = ("cat", "dog")
) -> Path:
    """An index of the pictures with these masks."""
    lines = ["path,labels,split,mask"]
    for identifier, labels in LABELS.items():
        mask = f"{out}-{identifier}.png" if identifier in masks else ""
        if mask:
            (home / "pictures" / mask).write_bytes(encode_label_map(masks[identifier]))
        lines.append(f"{identifier}.jpg,{labels},train,{mask}")
    table = home / "pictures" / f"{out}.csv"
    table.write_text("\n".join(lines) + "\n")
    run(INDEX, IndexConfig(source=TableSource(file=str(table), classes=classes)), {}, str(home / out), OPTIONS)
    return home / out


def evaluated(home: Path, predicted: str, against: str = "truth", **asked: Any) -> Path:
    """A new metrics artifact."""
    out = home / f"metrics-{next(_NUMBERS)}"
    inputs = {"predicted": str(home / predicted), "images": str(home / against)}
    run_whole(EVALUATE, make_config(EvaluateConfig, **{"resamples": 60, **asked}), inputs, str(out))
    return out


def metrics_of(home: Path, predicted: str, against: str = "truth", **asked: Any) -> dict[str, Any]:
    """What it says, with its lines by name."""
    out = evaluated(home, predicted, against, **asked)
    metrics: dict[str, Any] = json.loads(open_artifact(str(out), "metrics").file("metrics.json"))
    return {**metrics, "lines": {line["name"]: line for line in metrics["results"]}}


def mious(line: Mapping[str, Any]) -> tuple[Any, Any]:
    return line["miou"]["estimate"], line["miou_foreground"]["estimate"]


def pairs_of(home: Path, labels: str) -> Pairs:
    """Label maps decoded by nobody of ours; what failed is all background."""
    cells = open_artifact(str(home / labels)).cells("label", range(len(LABELS)))
    return {
        name: (TRUTH[name], np.asarray(Image.open(io.BytesIO(png))) if png else np.zeros_like(TRUTH[name]))
        for name, png in zip(LABELS, cells, strict=True)
    }


def some_of(pairs: Pairs, *without: str) -> Pairs:
    return {name: pair for name, pair in pairs.items() if name not in without}


def without_class(pairs: Pairs) -> Pairs:
    first, second = ({name: np.where(pair[at] % 255, 1, pair[at]) for name, pair in pairs.items()} for at in (0, 1))
    return {name: (first[name], second[name]) for name in pairs}


def slow_ious(pairs: Pairs, leave_out_undecided: bool = False) -> dict[int, float]:
    """Of each class, counted one pixel after the other over all pictures."""
    both, said, true = Counter[int](), Counter[int](), Counter[int]()
    for truth_HW, label_HW in pairs.values():
        for truth, label in zip(truth_HW.ravel().tolist(), label_HW.ravel().tolist(), strict=True):
            if truth != 255 and not (label == 255 and leave_out_undecided):
                true[truth] += 1
                said[label] += 1
                both[truth] += truth == label
    return {label: both[label] / (true[label] + said[label] - both[label]) for label in (true | said) if label != 255}


def slow_mious(pairs: Pairs, leave_out_undecided: bool = False) -> tuple[float, float]:
    """With and without background."""
    ious = slow_ious(pairs, leave_out_undecided)
    return mean(ious.values()), mean(iou for label, iou in ious.items() if label)
