"""Masks are scored against ground truth, with floors, intervals and a note of what was left out."""

import json
import shlex
from collections.abc import Mapping, Sequence
from functools import partial

import pyarrow as pa

from ...manifests.artifact import tables
from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.facts import class_table
from ...manifests.artifact.leakage import FittedOn, find_training_ids, leakage_warnings
from ...manifests.artifact.underway import Underway
from ...manifests.classes import ClassTable
from ...manifests.errors import ConfigError, InputError
from ...manifests.files.sealed import Json
from ...manifests.published.schema import class_names
from ..maps.class_thresholds import class_text
from ..maps.cutting import has_classes
from ..scores.intervals import bootstrap, counts_interval
from ..scores.iou import (
    Counts,
    class_iou,
    class_precision,
    class_recall,
    mean_iou,
    mean_iou_truth,
    nan_to_none,
    stack_counts,
    sum_counts,
)
from ..scores.truth import GroundTruth, refuse_other_classes
from ..scores.verdict import floor_warnings
from ..stage import Configs, Findings, Inputs, WholeStage
from .boundary import BoundaryScores, class_boundary_f, mean_boundary_f, stack_boundaries
from .config import EVALUATE, EvaluateConfig
from .judging import NUM_FLOORS, THRESHOLDS, ScoredPicture, ScoringOptions, floors, score_pictures
from .predictions import predictions
from .threshold_sweep import best_class_thresholds, best_threshold

CURES: Mapping[str, str] = {  # kind → what to do about masks that are no better than a guess
    "maps": "compare mask methods and --feature (`maskmill doctor --backbone NAME` prints the defaults), or learn from "
    "true masks with `maskmill enhance`",
    "labels": "score the maps that they were cut from, and try another --threshold or --refiner",
    "dataset": "score the maps that it was made from; compare mask methods, or learn from true masks with `maskmill "
    "enhance`",
}


def reads(config: EvaluateConfig, inputs: Inputs) -> Mapping[str, Sequence[str]]:
    fields = {"maps": ("map", "cut"), "labels": ("label", "found"), "dataset": ("data",)}
    truth = ("mask", "labels") if "mask" in inputs["images"].plan.fields else ("labels",)
    return {"predicted": fields[inputs["predicted"].plan.kind], "images": truth}


def compute(config: EvaluateConfig, inputs: Inputs, underway: Underway) -> Findings:
    predicted, truth = inputs["predicted"], GroundTruth(inputs["images"])
    refuse_other_classes(predicted, inputs["images"])
    view = ScoringOptions(config.class_agnostic, config.boundary, predicted.plan.kind == "maps")
    pictures, left_out = score_predictions(config, predicted, inputs["images"], truth, view)
    metrics, per_class = _tables(config, pictures, truth, view)
    if "threshold_sweep" in metrics and not config.class_agnostic and has_classes(predicted):
        metrics["threshold_sweep"] |= _class_sweep(pictures, class_table(predicted))
    metrics["judged"] = predicted.plan.kind
    known = "is known to have been" if left_out.unknown else "was"
    metrics["rows_left_out"] = "none" if config.include_fitted else f"those whose masks something {known} fitted on"
    names = {1: "foreground"} if config.class_agnostic else class_names(class_table(inputs["images"]))
    table = pa.Table.from_pylist(
        [{**row, "name": {0: "background", **names}.get(row["class"], "")} for row in per_class]
    )
    text = json.dumps(metrics, indent=1, sort_keys=True, allow_nan=False)
    files = {"metrics.json": text.encode(), "classes.parquet": tables.encode_table(table)}
    facts = {"metrics": metrics["results"], "coverage": metrics["coverage"]}
    warnings = [*leakage_warnings(predicted, left_out), *_verdict(metrics["results"], predicted.plan.kind)]
    return Findings(files, facts, warnings=warnings)


def _verdict(lines: Sequence[Mapping[str, Json]], kind: str) -> list[str]:
    floors = {line["name"]: line["miou"] for line in lines[len(lines) - NUM_FLOORS :]}
    return floor_warnings(lines[0]["miou"], floors, lines[0]["pictures"], CURES[kind])


def score_predictions(
    config: EvaluateConfig, predicted: Artifact, images: Artifact, truth: GroundTruth, view: ScoringOptions
) -> tuple[list[ScoredPicture], FittedOn]:
    """The pictures with ground truth, and those that were left out because their masks were used for training."""
    left_out = FittedOn(frozenset(), frozenset(), ()) if config.include_fitted else find_training_ids(predicted)
    scored = (
        picture
        for picture in predictions(predicted, truth.labels, len(class_table(images)))
        if config.include_fitted or not (picture.is_truth or picture.id in left_out.ids)
    )
    pictures = list(score_pictures(scored, truth, view))
    if not pictures:
        raise InputError(
            f"no picture of {predicted.place} has ground truth in {images.place} that was not used for training; "
            "pass as --against an images artifact with masks of the same ids"
        )
    return pictures, left_out


def _tables(
    config: EvaluateConfig, pictures: Sequence[ScoredPicture], truth: GroundTruth, view: ScoringOptions
) -> tuple[dict[str, Json], list[dict[str, Json]]]:
    """Every line with its interval (the masks, the effect of gaps, and the floors), and the classes of each line."""
    kept = [picture for picture in pictures if picture.outcome == "kept"]
    lines = [
        ("all rows, what is missing as background", [picture.counts for picture in pictures], _boundaries(pictures)),
        ("kept rows", [picture.counts for picture in kept], _boundaries(kept)),
        ("kept rows, undecided pixels left out", [picture.without_undecided for picture in kept], []),
        *((floor.name, floor.counts, floor.boundaries) for floor in floors(pictures, truth, view)),
    ]
    results, per_class = [], []
    for name, counts, boundaries in lines:
        if counts:
            results.append(_line(name, counts, boundaries, config))
            per_class += _class_rows(name, counts, boundaries)
    swept = [picture.sweep for picture in pictures if picture.sweep is not None]
    outcomes = [picture.outcome for picture in pictures]
    coverage = {"rows": len(pictures), **{kind: outcomes.count(kind) for kind in ("kept", "dropped", "failed")}}
    metrics: dict[str, Json] = {"results": results, "coverage": coverage, "class_agnostic": config.class_agnostic}
    if swept:
        metrics["threshold_sweep"] = _sweep(swept)
    return metrics, per_class


def _line(
    name: str, counts: Sequence[Counts], boundaries: Sequence[BoundaryScores], config: EvaluateConfig
) -> dict[str, Json]:
    images = stack_counts(counts)
    resampling = {"seed": config.seed, "num_resamples": config.resamples}
    line: dict[str, Json] = {
        "name": name,
        "pictures": len(counts),
        "miou": counts_interval(images, partial(mean_iou, with_background=True), **resampling).as_json(),
        "miou_foreground": counts_interval(images, partial(mean_iou, with_background=False), **resampling).as_json(),
        "miou_truth_classes": counts_interval(images, mean_iou_truth, **resampling).as_json(),
    }
    if boundaries:
        classes, sums_NK2 = stack_boundaries(boundaries)
        columns = sums_NK2.reshape(len(sums_NK2), -1)
        line["boundary_f"] = bootstrap(
            columns, lambda sums: mean_boundary_f(sums.reshape(-1, len(classes), 2)), **resampling
        ).as_json()
    return line


def _class_rows(name: str, counts: Sequence[Counts], boundaries: Sequence[BoundaryScores]) -> list[dict[str, Json]]:
    total = sum_counts(counts)
    classes, sums_NK2 = stack_boundaries(boundaries)
    f_by_class = dict(zip(classes.tolist(), map(nan_to_none, class_boundary_f(sums_NK2.sum(axis=0))), strict=True))
    scores = (class_iou(total.pixels), class_precision(total.pixels), class_recall(total.pixels))
    return [
        {
            "result": name,
            "class": int(label),
            "iou": nan_to_none(iou),
            "precision": nan_to_none(precision),
            "recall": nan_to_none(recall),
            "boundary_f": f_by_class.get(int(label)),
            "true_pixels": int(pixels[2]),
        }
        for label, iou, precision, recall, pixels in zip(total.classes, *scores, total.pixels, strict=True)
    ]


def _boundaries(pictures: Sequence[ScoredPicture]) -> list[BoundaryScores]:
    return [picture.boundary for picture in pictures if picture.boundary is not None]


def _sweep(swept: Sequence[Counts]) -> dict[str, Json]:
    """What each constant threshold would have scored; picking one here uses the ground truth."""
    total = sum_counts(swept)
    best = best_threshold(THRESHOLDS, total)
    return {
        "chosen_on": "ground truth",
        "thresholds": [round(float(t), 2) for t in THRESHOLDS],
        "miou": [nan_to_none(value) for value in mean_iou(total, True)],
        "best": None if best is None else {"threshold": round(best.threshold, 2), "miou": best.miou},
    }


def _class_sweep(pictures: Sequence[ScoredPicture], table: ClassTable) -> dict[str, Json]:
    """The best threshold of each class, and the options of `refine` that set them."""
    best = best_class_thresholds(THRESHOLDS, sum_counts([one.sweep for one in pictures if one.sweep is not None]))
    rows = [
        {"class": one.label, "name": table.name_of(one.label), "threshold": round(one.threshold, 2), "iou": one.iou}
        for one in best
    ]
    texts = [f"{class_text(one.label, table)}={one.threshold:.2g}" for one in best]
    words = [word for text in texts for word in ("--threshold", text)]
    return {"classes": rows, "refine_options": shlex.join(words)}


def refuse(configs: Configs, given: Inputs) -> None:
    if "images" not in given and "index" in configs and not configs["index"].may_have_masks:
        raise ConfigError("the pictures of [index] have no masks to score against; give [index] masks, or set against")


STAGE = WholeStage(
    command=EVALUATE, code_version=2, refuse=refuse, compute=compute, reads=reads, libraries=("numpy", "scipy")
)
