"""Makes label maps at each picture's size: soft maps are upsampled, cut, named and optionally refined on the picture.

Letters: K soft maps of a picture, R C rows and columns of patches, H W its pixels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, islice
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.facts import LabelsFacts, MapsFacts, class_table
from ...manifests.artifact.fields import Field
from ...manifests.classes import IGNORE
from ...manifests.errors import Reason, RowFailed
from ...manifests.files.sealed import Json
from ...manifests.pictures.indexed import IndexedPictures
from ...manifests.pictures.palette import encode_label_map
from ..maps.class_thresholds import name_classes
from ..maps.cut_scores import CutScores
from ..maps.cutting import maps_at_size
from ..maps.object_classes import NO_LABEL, KnownClasses
from ..stage import Inputs, Known, RowList, RowResult, Stage, UnitResult, Work
from .batches import refine_in_batches
from .config import REFINE, RefineConfig
from .crf import require_crf
from .joint_bilateral import joint_bilateral_maps
from .picture_rows import LISTED, picture_rows, refuse_objects
from .presets import TORCH_REFINERS, Refiner
from .refinement import Refined, Refinement, Unrefined, prepare_objects, prepare_picture
from .refiners import check_device, refinement_of

# Pictures of a unit: a CRF takes half a second for each, the others a tenth or two.
UNITS: Mapping[Refiner, int] = {"none": 256, "crf": 16, "par": 64, "guided": 64, "jbu": 64}
PICTURES_AT_ONCE = 32  # pictures whose maps are in memory


def resolve(config: RefineConfig, inputs: Inputs) -> RefineConfig:
    """Refuses a device or refiner that this machine does not have, and classes that the maps do not have."""
    check_device(config)
    if config.refiner == "crf":
        require_crf()
    if "maps" not in inputs or not isinstance(config.thresholds, tuple):
        return config
    return replace(config, threshold=name_classes(config.thresholds, class_table(inputs["maps"])))


def plan(config: RefineConfig, inputs: Inputs, known: Known) -> RowList:
    if config.refiner == "crf":
        require_crf()
    maps = inputs["maps"]
    if isinstance(config.thresholds, tuple):
        name_classes(config.thresholds, class_table(maps))
        refuse_objects(maps)
    rows = picture_rows(maps, inputs["images"], inputs.get("class_maps"))
    return RowList(LISTED, rows, LabelsFacts.of(maps).as_json())


def fields(config: RefineConfig, inputs: Inputs) -> Sequence[Field]:
    return [
        Field(name="label", kind="table", row_bytes=4 * 1024),
        Field(name="found", kind="columns", columns=("classes", "areas", "scores", "height", "width", "note")),
    ]


def columns(config: RefineConfig) -> Mapping[str, str]:
    return {
        "classes": "ints",  # looked for
        "areas": "ints",  # pixels of each class
        "scores": "floats",  # mean of the class's map over its pixels; null without pixels
        "height": "int64",
        "width": "int64",
    }


def reads(config: RefineConfig, inputs: Inputs) -> Mapping[str, Sequence[str]]:
    needed = {"maps": ("map", "cut"), "images": ("labels",) if config.refiner == "none" else ("picture", "labels")}
    return needed | ({"class_maps": ("map", "cut")} if "class_maps" in inputs else {})


def run_unit(work: Work, config: RefineConfig, prepared: Any) -> UnitResult:
    refinement = refinement_of(config)
    cuts = CutScores.of(config.thresholds, LabelsFacts.from_json(work.facts).classes)
    results, cells = [RowResult()] * len(work.ids), list[bytes | None]([None] * len(work.ids))
    for index, refined in refine_in_batches(_prepare_rows(work, cuts, refinement), refinement):
        if isinstance(refined, RowFailed):
            results[index] = RowResult(reason=refined.reason)
        else:
            results[index], cells[index] = _row_result(refined), encode_label_map(refined.label_HW)
    return UnitResult(results, cells={"label": cells})


@dataclass(frozen=True, slots=True)
class Soft:
    """The rows of one picture in a maps artifact, with their maps."""

    rows: Sequence[Mapping[str, Json]]
    maps_KRC: Float32[np.ndarray, "K R C"]

    def select_rows(self, places: Sequence[int]) -> "Soft":
        return Soft([self.rows[place] for place in places], self.maps_KRC[list(places)])


def _read_soft_maps(work: Work, role: str) -> Iterator[Soft]:
    """The soft maps of each picture of the unit; maps of several pictures are read together."""
    if role not in work.inputs:
        yield from (Soft((), np.zeros((0, 0, 0), np.float32)) for _ in work.ids)
        return
    rows = iter(work.upstream[role].to_pylist())
    positions = work.listing.column(role).to_pylist()
    for start in range(0, len(positions), PICTURES_AT_ONCE):
        batch = positions[start : start + PICTURES_AT_ONCE]
        maps = work.inputs[role].read("map", list(chain.from_iterable(batch)))
        stops = list(accumulate(map(len, batch)))
        for first, stop in zip([0, *stops], stops, strict=False):
            yield Soft(list(islice(rows, stop - first)), maps[first:stop])


def _prepare_rows(
    work: Work, cuts: CutScores, refinement: Refinement
) -> Iterator[tuple[int, Unrefined | Refined | RowFailed]]:
    """Each row that is not blocked: ready to refine, already finished, or failed."""
    soft_maps = zip(_read_soft_maps(work, "maps"), _read_soft_maps(work, "class_maps"), strict=True)
    for index, (soft, class_soft) in enumerate(soft_maps):
        if not work.blocked[index]:
            try:
                yield index, _prepare_row(work, index, soft, class_soft, cuts, refinement)
            except RowFailed as failed:
                yield index, failed


def _prepare_row(
    work: Work, index: int, soft: Soft, class_soft: Soft, cuts: CutScores, refinement: Refinement
) -> Unrefined | Refined:
    size = (soft.rows[0]["height"], soft.rows[0]["width"])
    labelled = soft.select_rows([place for place, row in enumerate(soft.rows) if row["note"] != NO_LABEL])
    if not labelled.rows:  # nothing is known of the picture
        return Refined(np.full(size, IGNORE, np.uint8), (), NO_LABEL)
    no_picture = np.broadcast_to(np.uint8(0), (*size, 3))
    picture = _read_picture(work, index, size) if refinement.needs_pictures else no_picture
    maps_KHW = _upsample_maps(work.inputs["maps"], labelled, picture, refinement)
    thresholds = cuts.of_rows(labelled.rows)
    classes = [row["class"] for row in labelled.rows]
    if None in classes:
        known = _read_known_classes(work, index, class_soft, size)
        return prepare_objects(picture, maps_KHW, thresholds, known, refinement.background)
    return prepare_picture(picture, maps_KHW, thresholds, classes, refinement.background)


def _row_result(refined: Refined) -> RowResult:
    height, width = refined.label_HW.shape
    scalars: dict[str, Json] = {
        "classes": [measured.index for measured in refined.classes],
        "areas": [measured.area_px for measured in refined.classes],
        "scores": [measured.score for measured in refined.classes],
        "height": height,
        "width": width,
    }
    return RowResult(scalars, note=refined.note)


def _read_known_classes(work: Work, index: int, class_soft: Soft, size: tuple[int, int]) -> KnownClasses:
    """What names objects that were found without a class: image-level labels and class maps."""
    labels = work.upstream["images"].column("labels")[index].as_py() or []
    known = KnownClasses(num_classes=len(LabelsFacts.from_json(work.facts).classes), image_labels=labels)
    places = [place for place, row in enumerate(class_soft.rows) if row["class"] is not None]
    if not places:
        return known
    classed = class_soft.select_rows(places)
    maps_KHW = _maps_at_size(work.inputs["class_maps"], classed, size)
    return replace(known, maps_KHW=maps_KHW, map_classes=[row["class"] for row in classed.rows])


def _upsample_maps(
    maps: Artifact, soft: Soft, picture: UInt8[np.ndarray, "H W 3"], refinement: Refinement
) -> Float32[np.ndarray, "K H W"]:
    first, facts = soft.rows[0], MapsFacts.of(maps)
    if refinement.upsampler is None:
        return maps_at_size(soft.maps_KRC, first, facts)
    box = tuple(first["box"])
    return joint_bilateral_maps(soft.maps_KRC, picture, box, facts.patch, refinement.upsampler, refinement.device)


def _maps_at_size(maps: Artifact, soft: Soft, size: tuple[int, int]) -> Float32[np.ndarray, "K H W"]:
    first = soft.rows[0]
    if (first["height"], first["width"]) != size:
        raise RowFailed(Reason.CHANGED, "maps and class maps have pictures of different sizes")
    return maps_at_size(soft.maps_KRC, first, MapsFacts.of(maps))


def _read_picture(work: Work, index: int, size: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    row = {name: work.upstream["images"].column(name)[index].as_py() for name in ("uri", "sha256")}
    picture_HW3 = IndexedPictures.of(work.inputs["images"]).load(row, work.careful)
    if picture_HW3.shape[:2] != size:
        raise RowFailed(Reason.CHANGED)
    return picture_HW3


def _libraries(config: RefineConfig) -> Sequence[str]:
    own = (
        ("pydensecrf2", "scipy") if config.refiner == "crf" else ("torch",) if config.refiner in TORCH_REFINERS else ()
    )
    return ("numpy", "scikit-image", *own)


def _max_unit_rows(config: RefineConfig) -> int:
    return UNITS[config.refiner]


def _device_type(config: RefineConfig) -> str:
    return config.device.partition(":")[0] if config.refiner in TORCH_REFINERS else ""


STAGE = Stage(
    command=REFINE,
    code_version=1,
    resolve=resolve,
    plan=plan,
    fields=fields,
    columns=columns,
    reads=reads,
    run_unit=run_unit,
    gathers={"maps": "maps", "class_maps": "class_maps"},
    libraries=_libraries,
    device=_device_type,
    max_unit_rows=_max_unit_rows,
)
