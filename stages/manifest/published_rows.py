"""Makes the published rows: the label map of a picture, its source, and quality measures of each class.

Letters: K soft maps of a picture, H W its pixels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import UInt8

from ...manifests.artifact.facts import DatasetFacts, MapsFacts
from ...manifests.classes import BACKGROUND, IGNORE
from ...manifests.errors import Reason, RowFailed
from ...manifests.files.sealed import Json
from ...manifests.pictures.indexed import IndexedPictures
from ...manifests.pictures.palette import decode_label_map
from ...manifests.pictures.sources import TAR_SCHEME
from ...manifests.published.schema import class_names
from ..maps.background_rules import BackgroundRule, parse_background
from ..maps.class_thresholds import parse_thresholds
from ..maps.cut_scores import CutScores
from ..maps.cutting import maps_at_size
from ..stage import Work
from .quality import measure_quality
from .quality_rules import Quality, Rule
from .soft_maps import SoftMaps, labels_before_refining

NOTHING_FOUND = "nothing found"
_PICTURE = ("uri", "sha256", "labels", "split")


@dataclass(frozen=True, slots=True)
class _Unit:
    """The settings of a unit and the upstream rows of its pictures."""

    work: Work
    rule: Rule
    embed_images: bool
    pictures: IndexedPictures
    names: Mapping[int, str]
    images: Sequence[Mapping[str, Json]]
    labels: Sequence[Mapping[str, Json]]
    maps: Sequence[Sequence[Mapping[str, Json]]]
    positions: Mapping[str, Sequence[int]]  # in the row lists of labels and of images
    background: BackgroundRule | None  # the rule before refining; None if nothing was refined
    cuts: CutScores  # instead of the maps' own thresholds
    source: str  # of classes that are not ground truth


def dataset_rows(work: Work, rule: Rule, embed_images: bool) -> Iterator[dict[str, Json]]:
    """Every row of a unit; failed rows have a reason."""
    refined = work.inputs["labels"].plan.config
    is_truth = work.listing.column("is_truth").to_pylist()
    unit = _Unit(
        work=work,
        rule=rule,
        embed_images=embed_images,
        pictures=IndexedPictures.of(work.inputs["images"]),
        names=class_names(DatasetFacts.from_json(work.facts).classes),
        images=work.upstream["images"].to_pylist(),
        labels=work.upstream["labels"].to_pylist(),
        maps=[rows.to_pylist() for rows in work.gather_rows("maps")],
        positions={
            "labels": work.inputs["labels"].positions(work.ids),
            "images": work.inputs["images"].positions(work.ids) if any(is_truth) else (),
        },
        background=None if refined["refiner"] == "none" else parse_background(refined["background"]),
        cuts=CutScores.of(parse_thresholds(refined["threshold"]), DatasetFacts.from_json(work.facts).classes),
        source="enhanced" if work.inputs["maps"].plan.stage == "enhance" else "pseudo",
    )
    for index, truth in enumerate(is_truth):
        known = {"id": work.ids[index], **{name: unit.images[index][name] for name in _PICTURE}}
        try:
            if work.blocked[index]:
                yield failure_row(known, work.blocked[index])
            else:
                yield known | _row_with_labels(unit, index, truth)
        except RowFailed as failed:
            yield failure_row(known, str(failed.reason))


def failure_row(known: Mapping[str, Json], reason: str) -> dict[str, Json]:
    """A row without mask; `known` holds at least its id."""
    return {**known, "status": "failed", "reason": reason, "kept": False, "dropped": "", "objects": []}


def _row_with_labels(unit: _Unit, index: int, is_truth: bool) -> dict[str, Json]:
    role, field = ("images", "mask") if is_truth else ("labels", "label")
    (png,) = unit.work.inputs[role].cells(field, [unit.positions[role][index]])
    if png is None:
        raise RowFailed(Reason.MASK_MISSING)
    label_HW = decode_label_map(png)
    size = (unit.images[index]["height"], unit.images[index]["width"])
    if label_HW.shape != size or any((row["height"], row["width"]) != size for row in unit.maps[index]):
        raise RowFailed(Reason.CHANGED)
    objects = list(_objects(unit, index, label_HW, is_truth))
    dropped = "" if is_truth else _refusal(unit.rule, objects)
    row = unit.images[index]
    return {
        "status": "ok",
        "reason": "",
        "kept": not dropped,
        "dropped": dropped,
        "image": {"bytes": unit.pictures.read(row), "path": _file_name(row["uri"])} if unit.embed_images else None,
        "mask": {"bytes": png, "path": f"{unit.work.ids[index]}.png"},
        "height": size[0],
        "width": size[1],
        "objects": objects,
    }


def _objects(unit: _Unit, index: int, label_HW: UInt8[np.ndarray, "H W"], is_truth: bool) -> Iterator[dict[str, Json]]:
    """Each class with pixels, and each class that was looked for or, in ground truth, that is an image-level label."""
    present = {int(label) for label in np.unique(label_HW)} - {BACKGROUND, IGNORE}
    row = unit.labels[index]
    scores: dict[int, float | None] = dict(zip(row["classes"] or (), row["scores"] or (), strict=True))
    classes = sorted(present | set((unit.images[index]["labels"] or ()) if is_truth else scores))
    soft = _soft_maps(unit, index) if classes else None
    before_HW = None
    if soft is not None and unit.background is not None and not is_truth:
        before_HW = labels_before_refining(soft, unit.background, classes)
    other_HW = None if is_truth else _other_labels(unit.work, index, label_HW.shape)
    for label in classes:
        quality = measure_quality(label_HW, label, None if soft is None else soft.class_map(label), before_HW, other_HW)
        yield {
            "class": label,
            "name": unit.names.get(label, str(label)),
            "source": "gt" if is_truth else unit.source,
            "score": None if is_truth else scores.get(label),
            **{measure.name: getattr(quality, measure.name) for measure in fields(Quality)},
        }


def _other_labels(work: Work, index: int, size: tuple[int, ...]) -> UInt8[np.ndarray, "H W"] | None:
    """Another method's label map. None if there is none, or if its size differs because the picture changed."""
    positions = work.listing.column("compared")[index].as_py()
    if not positions:
        return None
    (png,) = work.inputs["compared"].cells("label", positions)
    other_HW = None if png is None else decode_label_map(png)
    return other_HW if other_HW is not None and other_HW.shape == size else None


def _soft_maps(unit: _Unit, index: int) -> SoftMaps | None:
    rows = unit.maps[index]
    if not rows:
        return None
    maps = unit.work.inputs["maps"]
    positions = unit.work.listing.column("maps")[index].as_py()
    maps_KHW = maps_at_size(maps.read("map", positions), rows[0], MapsFacts.of(maps))
    return SoftMaps(maps_KHW, unit.cuts.of_rows(rows), [row["class"] for row in rows])


def _refusal(rule: Rule, objects: Sequence[Mapping[str, Json]]) -> str:
    """Why a picture is dropped: its first class that the rule refuses, or no class at all. "" if it is kept."""
    if not rule.conditions:
        return ""
    if not objects:
        return NOTHING_FOUND
    for row in objects:
        if why := rule.refusal(Quality(**{measure.name: row[measure.name] for measure in fields(Quality)})):
            return f"{row['name']}: {why}"
    return ""


def _file_name(uri: str) -> str:
    path = uri.removeprefix(TAR_SCHEME).rpartition("::")[0] if uri.startswith(TAR_SCHEME) else uri
    return path.rpartition("/")[2]
